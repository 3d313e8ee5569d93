//! A host's table of servers. Entries of other kinds are skipped.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value};

use super::{Host, Off, Registration, Scope};

pub(super) fn table(host: Host, file: &Value) -> Option<&Map<String, Value>> {
    let table = match host {
        Host::ClaudeCode | Host::Cursor | Host::GeminiCli => &file["mcpServers"],
        Host::Codex => &file["mcp_servers"],
        Host::VsCode => &file["servers"],
        // The second version moved the table.
        Host::Opencode => file["mcp"].get("servers").unwrap_or(&file["mcp"]),
        Host::Zed => &file["context_servers"],
    };
    table.as_object()
}

/// The servers of a table that are started as a program.
pub(super) fn of(
    table: Option<&Map<String, Value>>,
    host: Host,
    scope: Scope,
    file: &Value,
) -> Vec<Registration> {
    let read = |(name, entry): (&String, &Value)| {
        let (program, args, env) = command(entry)?;
        Some(Registration {
            name: name.clone(),
            scope,
            program,
            args,
            env,
            patience: patience(host, entry),
            off: off(host, name, entry, file),
        })
    };
    table.into_iter().flatten().filter_map(read).collect()
}

/// The program, its arguments, and its environment: a text, a list, or a table of its own.
fn command(entry: &Value) -> Option<(String, Vec<String>, BTreeMap<String, String>)> {
    let command = &entry["command"];
    let (mut words, at) = match command {
        Value::String(program) => (vec![program.clone()], entry),
        Value::Array(words) => (texts(words), entry),
        Value::Object(inner) => (vec![inner.get("path")?.as_str()?.to_owned()], command),
        Value::Null | Value::Bool(_) | Value::Number(_) => return None,
    };
    words.extend(texts(at["args"].as_array().map(Vec::as_slice).unwrap_or_default()));
    let variables = [&at["env"], &at["environment"]].into_iter().filter_map(Value::as_object);
    let env = variables.flatten().map(|(name, value)| {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        (name.clone(), value)
    });
    let program = if words.is_empty() { return None } else { words.remove(0) };
    Some((program, words, env.collect()))
}

fn texts(words: &[Value]) -> Vec<String> {
    words.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// How long the host waits for a call, where that has a limit which matters.
fn patience(host: Host, entry: &Value) -> Option<Duration> {
    let seconds = match host {
        Host::Codex => Some(entry["tool_timeout_sec"].as_f64().unwrap_or(300.0)),
        Host::GeminiCli => Some(entry["timeout"].as_f64().unwrap_or(600_000.0) / 1000.0),
        Host::ClaudeCode => entry["timeout"].as_f64().map(|milliseconds| milliseconds / 1000.0),
        Host::Cursor | Host::VsCode | Host::Opencode | Host::Zed => None,
    };
    seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
}

pub(super) fn lists(list: &Value, name: &str) -> bool {
    list.as_array().is_some_and(|names| names.iter().any(|one| one.as_str() == Some(name)))
}

fn off(host: Host, name: &str, entry: &Value, file: &Value) -> Option<Off> {
    let in_its_entry = match host {
        Host::Codex | Host::Zed => entry["enabled"] == false,
        Host::Opencode => entry["enabled"] == false || entry["disabled"] == true,
        Host::ClaudeCode | Host::Cursor | Host::VsCode | Host::GeminiCli => false,
    };
    let (excluded, allowed) = (&file["mcp"]["excluded"], &file["mcp"]["allowed"]);
    if in_its_entry {
        Some(Off::InItsEntry)
    } else if host == Host::GeminiCli && lists(excluded, name) {
        Some(Off::InAList("mcp.excluded"))
    } else if host == Host::GeminiCli && allowed.is_array() && !lists(allowed, name) {
        Some(Off::InAList("mcp.allowed"))
    } else {
        None
    }
}
