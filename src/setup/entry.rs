//! The entry of this server in a host's table. In an existing entry, only the fields that keep the server from working
//! change.

use serde_json::{Map, Value, json};

use crate::hosts::Host;

/// The values that an entry needs.
pub(super) struct Wanted {
    /// The command that starts this server: a path, or a name on PATH.
    pub(super) program: String,
    /// True if the agent may consult Kimi without being asked.
    pub(super) auto: bool,
    /// The time limit of a call.
    pub(super) longest_seconds: u64,
}

/// Returns the entry to write. `is_ours` is true if the old entry is a registration of this server, `starts_this` if it
/// starts this very program. Fails with the problem of an old entry that cannot be used.
pub(super) fn merged(
    host: &Host,
    old: &Value,
    wanted: &Wanted,
    is_ours: bool,
    starts_this: bool,
) -> Result<Value, String> {
    let mut entry = match old {
        Value::Null => Map::new(),
        Value::Object(entry) if is_ours => entry.clone(),
        _ => return Err("starts no program; rename or remove it first".to_owned()),
    };
    for (key, template) in &host.entry {
        let value = filled(template, wanted);
        match (entry.get_mut(key), value) {
            (None, value) => drop(entry.insert(key.clone(), value)),
            (Some(old), value) if key == "command" || key == "args" => {
                if !starts_this {
                    *old = value;
                }
            }
            (Some(Value::Object(old)), Value::Object(variables)) => old.extend(variables),
            (Some(Value::String(old)), Value::String(value)) if *old != value => {
                return Err(format!("has the {key} `{old}` instead of `{value}`"));
            }
            (Some(_), _) => {}
        }
    }
    if let Some(limit) = &host.limit {
        let enough = limit.enough(wanted.longest_seconds);
        let now = entry.get(&limit.field).and_then(Value::as_f64).or(limit.usual);
        #[expect(clippy::cast_precision_loss, reason = "a time limit has few digits")]
        if now.is_some_and(|now| now < enough as f64) {
            entry.insert(limit.field.clone(), enough.into());
        }
    }
    Ok(Value::Object(entry))
}

/// Returns the template with `{program}` and `{env}` filled in.
fn filled(template: &Value, wanted: &Wanted) -> Value {
    match template {
        Value::String(text) if text == "{program}" => wanted.program.as_str().into(),
        Value::String(text) if text == "{env}" => {
            let mut env = json!({"KIMI_BRIDGE_TOOL_ENABLED": "1"});
            if wanted.auto {
                env["KIMI_BRIDGE_AUTO_ENABLED"] = "1".into();
            }
            env
        }
        Value::Array(items) => items.iter().map(|item| filled(item, wanted)).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hosts;

    #[track_caller]
    fn check(host: &str, old: &Value, starts_this: bool, expected: Result<Value, &str>) {
        let host = hosts::all().iter().find(|known| known.id == host).unwrap();
        let wanted = Wanted { program: "/b/k".to_owned(), auto: false, longest_seconds: 900 };
        let is_ours = old["url"].is_null() && old.is_object();
        let found = merged(host, old, &wanted, is_ours, starts_this);
        assert_eq!(found, expected.map_err(str::to_owned));
    }

    #[test]
    fn a_new_entry_has_what_its_host_needs() {
        let env = json!({"KIMI_BRIDGE_TOOL_ENABLED": "1"});
        let plain = json!({"command": "/b/k", "args": ["serve"], "env": env});
        let typed = json!({"type": "stdio", "command": "/b/k", "args": ["serve"], "env": env});
        let local = json!({"type": "local", "command": ["/b/k", "serve"], "environment": env});
        let limited = |limit: u64| {
            let mut entry = plain.clone();
            entry["timeout"] = limit.into();
            entry
        };
        for (host, expected) in [
            ("claude-code", typed.clone()),
            ("cursor", plain.clone()),
            ("vscode", typed),
            ("gemini", limited(1_000_000)),
            ("opencode", local),
            ("zed", limited(1000)),
        ] {
            check(host, &Value::Null, false, Ok(expected));
        }
    }

    #[test]
    fn an_existing_entry_keeps_the_users_own_fields() {
        let ours = json!({"KIMI_BRIDGE_TOOL_ENABLED": "1"});
        let both = json!({"KIMI_BRIDGE_TOOL_ENABLED": "1", "KIMI_PATH": "/k"});
        check(
            "gemini",
            &json!({"command": "old", "args": ["serve", "--debug"], "trust": true, "env": {"KIMI_PATH": "/k"}, "timeout": 5}),
            false,
            Ok(
                json!({"command": "/b/k", "args": ["serve"], "trust": true, "env": both, "timeout": 1_000_000}),
            ),
        );
        let working = json!({"command": "kimi-bridge", "args": ["serve", "--debug"], "env": ours, "timeout": 2_000_000});
        check("gemini", &working, true, Ok(working.clone()));
        let off = json!({"command": "k", "args": ["serve"], "env": ours, "env_vars": ["MINE"], "tool_timeout_sec": 1000,
            "enabled": false});
        check("codex", &off, true, Ok(off.clone()));
        let no_program = "starts no program; rename or remove it first";
        check("cursor", &json!({"url": "http://x"}), false, Err(no_program));
        let remote = json!({"type": "sse", "command": "x"});
        check("claude-code", &remote, false, Err("has the type `sse` instead of `stdio`"));
    }
}
