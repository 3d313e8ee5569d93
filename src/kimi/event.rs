//! One line of Kimi's stream as an [`Event`]. Both dialects speak the same format, so there is one
//! reader; it never fails, and a line that it does not know is an event too.

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::text::clean;

/// One step of Kimi's stream.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The program said that it runs.
    Started,
    /// The model spoke, called tools, or both.
    Assistant {
        /// What it said; thinking is not part of it. `None` when it only called tools.
        text: Option<String>,
        /// The calls, in order.
        calls: Vec<Call>,
    },
    /// A tool answered.
    ToolResult {
        /// The call that it answers.
        id: String,
        /// The whole text.
        text: String,
    },
    /// A request to the model failed and will be tried again.
    Retrying(Retry),
    /// The run can be resumed under this session.
    Session(String),
    /// A line that is no JSON object, such as an error in prose.
    Plain(String),
    /// A JSON object of a kind that this reader does not know; the text says which.
    Unknown(String),
}

/// One tool call.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// Pairs the call with its result.
    pub id: String,
    /// The tool, as the dialect names it.
    pub name: String,
    /// Its arguments; what is no JSON object stands whole under `unreadable`.
    pub args: Map<String, Value>,
}

/// Why and when a request to the model is tried again.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Retry {
    /// The HTTP status, where there was one.
    pub status: Option<u64>,
    /// The service's words.
    pub message: String,
    /// The attempt that comes next.
    pub next_attempt: u64,
    /// The attempts that there will be at most.
    pub max_attempts: u64,
    /// The wait before the next attempt, milliseconds.
    pub delay_ms: u64,
}

impl Event {
    /// Reads one line; `None` for a blank one.
    #[must_use]
    pub fn read(line: &str) -> Option<Event> {
        if line.trim_start().is_empty() {
            return None;
        }
        if let Some(result) = tool_result(line) {
            return Some(result);
        }
        Some(match serde_json::from_str::<Value>(line) {
            Ok(Value::Object(object)) => from_object(&object),
            Ok(_) | Err(_) => Event::Plain(line.to_owned()),
        })
    }
}

/// How much of a tool's result is unescaped, bytes: the evidence keeps far less, and a result may be as
/// long as a line.
const RESULT_BYTES: usize = 256 * 1024;

/// The line of a long tool result, of which only the beginning is unescaped; nothing for any other.
#[derive(Deserialize)]
struct LongResult<'a> {
    role: &'a str,
    tool_call_id: String,
    #[serde(borrow)]
    content: &'a RawValue,
}

fn tool_result(line: &str) -> Option<Event> {
    if line.len() < RESULT_BYTES {
        return None;
    }
    let LongResult { role, tool_call_id, content } = serde_json::from_str(line).ok()?;
    let text = content.get();
    if role != "tool" || !text.starts_with('"') || text.len() < RESULT_BYTES {
        return None;
    }
    let mut end = RESULT_BYTES;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    // An escape sequence that the cut went through is left out: the longest one, of a character that
    // takes two, is twelve bytes long.
    let beginnings = (0..12).filter_map(|less| text.get(..end - less));
    let text = beginnings
        .map(|text| format!("{text}\""))
        .find_map(|text| serde_json::from_str(&text).ok())?;
    Some(Event::ToolResult { id: tool_call_id, text })
}

fn from_object(object: &Map<String, Value>) -> Event {
    match text_at(object, "role") {
        "assistant" => Event::Assistant {
            text: object.get("content").and_then(content_text),
            calls: object
                .get("tool_calls")
                .and_then(Value::as_array)
                .map(|calls| calls.iter().filter_map(call).collect())
                .unwrap_or_default(),
        },
        "tool" => Event::ToolResult {
            id: text_at(object, "tool_call_id").to_owned(),
            text: object.get("content").and_then(content_text).unwrap_or_default(),
        },
        "meta" => from_meta(object),
        other => Event::Unknown(format!("role `{}`", clean(other))),
    }
}

fn from_meta(object: &Map<String, Value>) -> Event {
    match text_at(object, "type") {
        "system.version" => Event::Started,
        "session.resume_hint" => Event::Session(text_at(object, "session_id").to_owned()),
        "turn.step.retrying" => Event::Retrying(Retry {
            status: object.get("status_code").and_then(Value::as_u64),
            message: clean(text_at(object, "error_message")).into_owned(),
            next_attempt: object.get("next_attempt").and_then(Value::as_u64).unwrap_or_default(),
            max_attempts: object.get("max_attempts").and_then(Value::as_u64).unwrap_or_default(),
            delay_ms: object.get("delay_ms").and_then(Value::as_f64).map_or(0, whole_ms),
        }),
        other => Event::Unknown(format!("meta `{}`", clean(other))),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates, and a wait is shown in seconds"
)]
fn whole_ms(delay: f64) -> u64 {
    delay as u64
}

fn call(value: &Value) -> Option<Call> {
    let object = value.as_object()?;
    let function = object.get("function")?.as_object()?;
    let args = match function.get("arguments") {
        Some(Value::String(text)) => {
            serde_json::from_str(text).unwrap_or_else(|_| unreadable(Value::String(text.clone())))
        }
        Some(Value::Object(args)) => args.clone(),
        Some(Value::Null) | None => Map::new(),
        Some(other) => unreadable(other.clone()),
    };
    Some(Call {
        id: text_at(object, "id").to_owned(),
        name: text_at(function, "name").to_owned(),
        args,
    })
}

fn unreadable(args: Value) -> Map<String, Value> {
    Map::from_iter([("unreadable".to_owned(), args)])
}

/// The text of a `content`: a string, or the `text` parts of a list. `None` when there is no text
/// in it, which is not the same as an empty string from a tool.
fn content_text(content: &Value) -> Option<String> {
    match content {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => {
            let texts: Vec<&str> = parts
                .iter()
                .filter(|part| part.get("type").and_then(Value::as_str) == Some("text"))
                .filter_map(|part| part.get("text").and_then(Value::as_str))
                .collect();
            (!texts.is_empty()).then(|| texts.join("\n"))
        }
        _ => None,
    }
}

fn text_at<'a>(object: &'a Map<String, Value>, key: &str) -> &'a str {
    object.get(key).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn called(id: &str, name: &str, args: &Value) -> Call {
        Call { id: id.into(), name: name.into(), args: args.as_object().unwrap().clone() }
    }

    fn check(line: &Value, expected: &Event) {
        assert_eq!(Event::read(&line.to_string()).as_ref(), Some(expected), "{line}");
    }

    #[test]
    fn every_kind_of_line_is_read() {
        check(
            &json!({"role": "assistant", "content": [
                {"type": "think", "think": "hm"}, {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}),
            &Event::Assistant { text: Some("a\nb".into()), calls: vec![] },
        );
        check(
            &json!({"role": "assistant", "content": [], "tool_calls": [
                {"type": "function", "id": "1", "function": {"name": "Read", "arguments": "{\"path\":\"x\"}"}},
                {"id": "2", "function": {"name": "Grep", "arguments": "{broken"}},
                "junk"]}),
            &Event::Assistant {
                text: None,
                calls: vec![
                    called("1", "Read", &json!({"path": "x"})),
                    called("2", "Grep", &json!({"unreadable": "{broken"})),
                ],
            },
        );
        check(
            &json!({"role": "tool", "tool_call_id": "1", "content": ""}),
            &Event::ToolResult { id: "1".into(), text: String::new() },
        );
        check(
            &json!({"role": "meta", "type": "turn.step.retrying", "next_attempt": 2, "max_attempts": 3,
                "delay_ms": 512.9, "error_name": "APIProviderRateLimitError",
                "error_message": "429 slow down", "status_code": 429}),
            &Event::Retrying(Retry {
                status: Some(429),
                message: "429 slow down".into(),
                next_attempt: 2,
                max_attempts: 3,
                delay_ms: 512,
            }),
        );
        check(
            &json!({"role": "meta", "type": "new.thing"}),
            &Event::Unknown("meta `new.thing`".into()),
        );
        check(&json!({"role": 7}), &Event::Unknown("role ``".into()));
        assert_eq!(Event::read("LLM not set"), Some(Event::Plain("LLM not set".into())));
        assert_eq!(Event::read("[1]"), Some(Event::Plain("[1]".into())));
        assert_eq!(Event::read(" \t"), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn of_a_long_result_the_beginning_is_read_wherever_it_is_cut(
            piece in "[a\"\\\\\n\u{1}中👩]{1,9}",
            shift in 0usize..40,
        ) {
            let whole = "x".repeat(shift) + &piece.repeat(RESULT_BYTES / piece.len() + 1) + &"y".repeat(RESULT_BYTES);
            let line = json!({"role": "tool", "tool_call_id": "a", "content": whole}).to_string();
            let Some(Event::ToolResult { id, text }) = Event::read(&line) else { panic!("{line:.80}") };
            prop_assert_eq!(id, "a");
            prop_assert!(whole.starts_with(&text));
            prop_assert!(text.len() > RESULT_BYTES / 8 && text.len() <= RESULT_BYTES);
        }
    }
}
