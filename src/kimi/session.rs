//! Kimi's own memory of a conversation, as it lies in the private home.
//!
//! Both programs name their session only when they end well. One that was broken off is found by what
//! it was asked: the prompt stands in it, and every prompt holds a mark that no other has.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::Value;

use super::dialect::Dialect;
use super::home;
use crate::settings::Loaded;

/// How much of a session's first file is looked at, bytes: the prompt stands near its beginning.
const LOOKED_AT: u64 = 8 * 1024 * 1024;

/// Whether the private home still holds this session: kimi-cli would begin a new one in silence.
#[must_use]
pub fn exists(loaded: &Loaded, dialect: Dialect, session: &str) -> bool {
    let is_name = !session.is_empty()
        && session.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    is_name && all(&home::path(loaded.state_dir(), dialect)).any(|folder| folder.ends_with(session))
}

/// The session that was begun since then with this prompt.
#[must_use]
pub fn begun_with(
    home: &Path,
    dialect: Dialect,
    prompt: &str,
    since: SystemTime,
) -> Option<String> {
    let file = match dialect {
        Dialect::KimiCode => "agents/main/wire.jsonl",
        Dialect::KimiCli => "context.jsonl",
    };
    let is_recent = |folder: &PathBuf| {
        let changed = fs::metadata(folder.join(file)).and_then(|metadata| metadata.modified());
        changed.is_ok_and(|changed| changed >= since)
    };
    let found = all(home).filter(is_recent).find(|folder| holds(&folder.join(file), prompt))?;
    Some(found.file_name()?.to_str()?.to_owned())
}

/// The folders of all sessions, of whichever project.
fn all(home: &Path) -> impl Iterator<Item = PathBuf> {
    let projects = fs::read_dir(home.join("sessions")).into_iter().flatten().flatten();
    let sessions = projects.flat_map(|project| fs::read_dir(project.path()).into_iter().flatten());
    sessions.flatten().map(|session| session.path()).filter(|path| path.is_dir())
}

/// Whether a line of the file holds the text as one of its strings.
fn holds(file: &Path, text: &str) -> bool {
    let Ok(file) = File::open(file) else { return false };
    let lines = BufReader::new(file.take(LOOKED_AT)).split(b'\n');
    lines.map_while(Result::ok).any(|line| {
        serde_json::from_slice::<Value>(&line).is_ok_and(|value| has_string(&value, text))
    })
}

fn has_string(value: &Value, text: &str) -> bool {
    match value {
        Value::String(string) => string.contains(text),
        Value::Array(values) => values.iter().any(|value| has_string(value, text)),
        Value::Object(fields) => fields.values().any(|value| has_string(value, text)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_session_is_found_by_what_it_was_asked() {
        let home = tempfile::tempdir().unwrap();
        let write = |session: &str, file: &str, prompt: &str| {
            let path = home.path().join("sessions/project").join(session).join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let turn = serde_json::json!({"type": "turn", "parts": [{"text": prompt}]});
            fs::write(path, format!("{{\"type\": \"metadata\"}}\nnot JSON\n{turn}\n")).unwrap();
        };
        write("session_1", "agents/main/wire.jsonl", "Ask \"one\" 中文");
        write("session_2", "agents/main/wire.jsonl", "Ask two\n");
        write("0-1", "context.jsonl", "Ask three");
        let check = |dialect, prompt, expected: Option<&str>| {
            let found = begun_with(home.path(), dialect, prompt, SystemTime::UNIX_EPOCH);
            assert_eq!(found.as_deref(), expected, "{prompt}");
        };
        check(Dialect::KimiCode, "Ask \"one\" 中文", Some("session_1"));
        check(Dialect::KimiCode, "Ask two\n", Some("session_2"));
        check(Dialect::KimiCode, "Ask three", None);
        check(Dialect::KimiCli, "Ask three", Some("0-1"));
        let later = SystemTime::now() + Duration::from_secs(60);
        assert_eq!(begun_with(home.path(), Dialect::KimiCode, "Ask two\n", later), None);
    }
}
