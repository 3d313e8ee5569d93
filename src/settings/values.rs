//! The values of settings: their forms and ranges.

use std::path::Path;

use serde_json::Value;

/// Parses a switch in one of its usual forms.
pub(crate) fn switch(value: &Value) -> Option<bool> {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_lowercase);
    match text.trim() {
        "1" | "true" | "yes" | "y" | "on" => Some(true),
        "0" | "false" | "no" | "n" | "off" => Some(false),
        _ => None,
    }
}

/// The form of a setting in words; `default` is its built-in value.
pub(super) fn form(setting: &str, default: &Value) -> &'static str {
    match default {
        Value::Bool(_) => "expected 1 or 0 (true or false, yes or no)",
        Value::Number(_) => "expected a whole number",
        Value::Array(_) => "expected a list of paths",
        _ if setting == "sandbox" => "expected auto, required or off",
        Value::Null | Value::String(_) | Value::Object(_) => "expected a text",
    }
}

/// Returns the expected range for a value with which every run would fail.
pub(super) fn out_of_range(setting: &str, value: &Value) -> Option<String> {
    let (least, most) = match setting {
        "timeout_seconds" | "first_line_seconds" | "silence_seconds" | "heartbeat_seconds" => {
            (1, 86_400)
        }
        "max_parallel" => (1, 256),
        "grace_seconds" => (0, 60),
        "max_line_bytes" | "max_run_bytes" | "max_prompt_bytes" => (4096, u64::MAX),
        "max_result_chars" => (2000, u64::MAX),
        _ => (0, u64::MAX),
    };
    if value.as_u64().is_some_and(|number| !(least..=most).contains(&number)) {
        return Some(match most {
            u64::MAX => format!("expected {least} or more"),
            most => format!("expected {least} to {most}"),
        });
    }
    // Kimi runs in the project, the bridge elsewhere.
    let is_relative =
        |path: &Value| path.as_str().is_some_and(|path| Path::new(path).is_relative());
    let mut items = value.as_array().into_iter().flatten();
    match setting {
        "state_dir" if is_relative(value) => {
            Some("expected an absolute path, or one that begins with ~/".to_owned())
        }
        "readable" if items.any(is_relative) => {
            Some("expected absolute paths, or ones that begin with ~/".to_owned())
        }
        _ => None,
    }
}
