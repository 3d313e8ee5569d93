//! Finds the result of `consult_kimi` in an event of Claude Code. The tests hold captured events, from which
//! their form is known.

use serde_json::Value;

/// The name of the tool; in an event, the name of the server precedes it.
const TOOL: &str = "consult_kimi";

/// Returns the result of `consult_kimi` in an event, if there is one and it has a response.
pub(super) fn result_in(event: &Value) -> Option<Value> {
    let result = match event["hook_event_name"].as_str()? {
        "PostToolUse" if is_ours(event["tool_name"].as_str()?) => {
            tool_result(&event["tool_response"])?
        }
        "UserPromptSubmit" => notified_result(event["prompt"].as_str()?)?,
        _ => return None,
    };
    result["response"].is_string().then_some(result)
}

fn is_ours(tool: &str) -> bool {
    tool.starts_with("mcp__") && tool.ends_with(&format!("__{TOOL}"))
}

/// Parses the result of a foreground call. The response is a text, or a list whose first text is the result.
fn tool_result(response: &Value) -> Option<Value> {
    let text = response.as_str().or_else(|| response[0]["text"].as_str())?;
    serde_json::from_str(text).ok()
}

/// Parses the result of a background call from the notification that Claude Code sends to the model when it ends.
fn notified_result(prompt: &str) -> Option<Value> {
    let (head, rest) = prompt.strip_prefix("<task-notification>")?.split_once("<result>")?;
    if !head.contains(&format!("/{TOOL})")) {
        return None;
    }
    let (text, _) = rest.rsplit_once("</result>")?;
    // The ampersand comes last, so that a `&lt;` in the result itself survives.
    let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    serde_json::from_str(text.trim()).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn result() -> Value {
        json!({"parse_ok": true, "response": "It returns io::Result<()> & says \"&lt;\"", "findings": []})
    }

    fn posted(tool: &str, response: &Value) -> Value {
        json!({"session_id": "7872ab6a", "cwd": "/p", "permission_mode": "auto", "hook_event_name": "PostToolUse",
            "tool_name": tool, "tool_input": {"role": "skeptic"}, "tool_response": response, "tool_use_id": "toolu_1"})
    }

    fn prompted(prompt: &str) -> Value {
        json!({"session_id": "7872ab6a", "cwd": "/p", "permission_mode": "auto",
            "hook_event_name": "UserPromptSubmit", "prompt": prompt})
    }

    fn notified(tool: &str, result: &str) -> Value {
        let result = result.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        prompted(&format!(
            "<task-notification>\n<task-id>kaaljo42x</task-id>\n<status>completed</status>\n<summary>MCP task kaaljo42x \
             ({tool}) completed.</summary>\n<result>\n{result}\n</result>\n</task-notification>"
        ))
    }

    #[test]
    fn results_of_foreground_and_background_calls_are_found() {
        let (result, text) = (result(), result().to_string());
        for event in [
            posted("mcp__plugin_kimi-bridge_kimi__consult_kimi", &json!(text)),
            posted("mcp__kimi-bridge__consult_kimi", &json!([{"type": "text", "text": text}])),
            notified("plugin:kimi-bridge:kimi/consult_kimi", &text),
        ] {
            assert_eq!(result_in(&event), Some(result.clone()), "{event:#}");
        }
    }

    #[test]
    fn every_other_event_is_ignored() {
        let text = result().to_string();
        let moved = "MCP tool \"plugin:kimi-bridge:kimi/consult_kimi\" is still running after 2s. It was moved to the \
                     background as task kaaljo42x and keeps running";
        for event in [
            json!(null),
            json!([1]),
            json!({"hook_event_name": "Stop"}),
            prompted("ask kimi"),
            prompted(&format!("<result>{text}</result> consult_kimi")),
            prompted("<task-notification><summary>(a/consult_kimi)</summary><result>"),
            notified("other/search", &text),
            notified("plugin:kimi-bridge:kimi/consult_kimi", "request: it does not fit"),
            posted("mcp__kimi-bridge__consult_kimi", &json!([{"type": "text", "text": moved}])),
            posted("mcp__kimi-bridge__consult_kimi", &json!({"error": {}})),
            posted("mcp__kimi-bridge__consult_kimi", &json!([])),
            posted("mcp__kimi-bridge__consult_kimi", &json!("[\"response\"]")),
            posted("mcp__kimi-bridge__kimi_status", &json!(text)),
            posted("consult_kimi", &json!(text)),
        ] {
            assert_eq!(result_in(&event), None, "{event:#}");
        }
    }
}
