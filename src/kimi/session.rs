//! Kimi's sessions, stored in the private home. It knows no round and no thread.
//!
//! Both programs print the id of a session only after a successful run. The session of a failed run is found by its
//! prompt, since every prompt contains a unique mark.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde_json::Value;

use super::dialect::Dialect;
use super::folders;
use super::home::{self, HomeKey};
use super::profile::Profile;
use super::untrusted::Folder;
use crate::settings::Config;

/// The bytes that are searched at the start and at the end of a session's file. The first prompt is near the start, the
/// latest near the end.
const SEARCHED: u64 = 8 * 1024 * 1024;
/// The longest id of a session, bytes.
const ID_BYTES: usize = 200;
/// The most folders of projects that are listed.
const PROJECTS: usize = 1_000;
/// The most sessions of one project that are listed.
const SESSIONS: usize = 10_000;
/// The number of latest sessions of a project that are kept.
const KEPT: usize = 200;
/// The folder of both programs' logs.
const LOGS: &str = "logs";
/// The most recent sessions that are read. A run begins only one.
const READ: usize = 16;

/// Returns whether a private home holds a session. If not, kimi-cli would begin a new one without a message.
pub(crate) fn exists(config: &Config, home: HomeKey<'_>, session: &str) -> bool {
    find(config, home, session).is_some()
}

/// Returns whether a session exists and holds exactly this prompt as one string.
pub(crate) fn was_asked(config: &Config, home: HomeKey<'_>, session: &str, prompt: &str) -> bool {
    let session = find(config, home, session);
    let file = session.and_then(|session| conversation(&session, home.dialect));
    file.is_some_and(|file| holds(&file, prompt) || end_holds(file, prompt))
}

/// Deletes a session from a private home. Returns whether it existed.
pub(crate) fn delete(config: &Config, home: HomeKey<'_>, session: &str) -> io::Result<bool> {
    let home = home::open(config.state_dir(), home).filter(|_| is_id(session));
    let Some(home) = home else { return Ok(false) };
    let holds = |project: &Folder| project.kind(OsStr::new(session)).is_some();
    let Some(project) = projects(&home).find(holds) else { return Ok(false) };
    let trash = folders::trash(&Folder::trusted(config.state_dir())?)?;
    project.discard(session, &trash)?;
    // The log of kimi-cli contains the prompts.
    if home.kind(OsStr::new(LOGS)).is_some() {
        home.discard(LOGS, &trash)?;
    }
    trash.clear(folders::REMOVED_AT_ONCE);
    Ok(true)
}

/// Removes sessions of a project that are older than a number of days or not among the latest [`KEPT`], unless they are
/// needed.
pub(crate) fn sweep(state_dir: &Path, project: &Path, days: u64, needed: &HashSet<String>) {
    let Ok(trash) = Folder::trusted(state_dir).and_then(|state| folders::trash(&state)) else {
        return;
    };
    let oldest = Duration::from_secs(days.saturating_mul(24 * 60 * 60));
    let homes = Dialect::ALL.into_iter().flat_map(|dialect| {
        Profile::all().map(move |profile| HomeKey { dialect, profile, project })
    });
    for key in homes {
        let Some(home) = home::open(state_dir, key) else { continue };
        for folder in projects(&home) {
            let names = folder.entries(SESSIONS).unwrap_or_default();
            let age = |name: &OsString| {
                let session = folder.below(name).ok();
                let age = session.and_then(|session| age_of_conversation(&session, key.dialect));
                age.unwrap_or_else(|| folder.age(Path::new(name)))
            };
            let mut sessions: Vec<(Duration, OsString)> =
                names.into_iter().map(|name| (age(&name), name)).collect();
            sessions.sort();
            for (place, (age, name)) in sessions.into_iter().enumerate() {
                let is_needed = name.to_str().is_some_and(|name| needed.contains(name));
                if !is_needed && (age > oldest || place >= KEPT) {
                    // After an error, the next run tries again.
                    let _ = folder.discard(name, &trash);
                }
            }
        }
    }
    trash.clear(folders::REMOVED_AT_ONCE);
}

/// Returns whether a text can be the id of a session. Both programs use letters, digits and dashes; other text may be
/// hostile.
#[must_use]
pub(crate) fn is_id(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    // A text with a dash at its start would be an option.
    (1..=ID_BYTES).contains(&text.len()) && !text.starts_with('-') && text.chars().all(allowed)
}

/// Opens the folder of a session in a private home.
fn find(config: &Config, home: HomeKey<'_>, session: &str) -> Option<Folder> {
    let home = home::open(config.state_dir(), home).filter(|_| is_id(session))?;
    projects(&home).find_map(|project| project.below(session).ok())
}

/// Opens the file with the conversation of a session.
fn conversation(session: &Folder, dialect: Dialect) -> Option<File> {
    let (folder, name) = match dialect {
        Dialect::KimiCode => ("agents/main", "wire.jsonl"),
        Dialect::KimiCli => ("", "context.jsonl"),
    };
    session.below(folder).ok()?.open(name).ok()
}

/// Returns the time since the last prompt of a session. The time of its folder does not change when files in it grow.
fn age_of_conversation(session: &Folder, dialect: Dialect) -> Option<Duration> {
    let file = conversation(session, dialect)?;
    file.metadata().ok()?.modified().ok()?.elapsed().ok()
}

/// Returns the session with this prompt, among those that changed since `since`.
pub(crate) fn find_by_prompt(
    home: &Folder,
    dialect: Dialect,
    prompt: &str,
    since: SystemTime,
) -> Option<String> {
    let recent = projects(home).flat_map(|project| {
        let names = project.entries(SESSIONS).unwrap_or_default();
        names.into_iter().filter_map(move |session: OsString| {
            let file = conversation(&project.below(&session).ok()?, dialect)?;
            let changed = file.metadata().and_then(|metadata| metadata.modified()).ok()?;
            (changed >= since).then_some((session, file))
        })
    });
    let (session, _) = recent.take(READ).find(|(_, file)| holds(file, prompt))?;
    session.into_string().ok()
}

/// Returns the folders with the sessions of each project.
fn projects(home: &Folder) -> impl Iterator<Item = Folder> {
    let sessions = home.below("sessions").ok();
    let names = sessions.as_ref().and_then(|sessions| sessions.entries(PROJECTS).ok());
    let names = names.unwrap_or_default().into_iter();
    names.filter_map(move |name| sessions.as_ref()?.below(name).ok())
}

/// Returns whether a line at the start of a file holds the text in one of its strings.
fn holds(file: &File, text: &str) -> bool {
    let lines = BufReader::new(file.take(SEARCHED)).split(b'\n');
    lines.map_while(Result::ok).any(|line| {
        serde_json::from_slice::<Value>(&line).is_ok_and(|value| has_string(&value, text))
    })
}

/// Returns whether the end of a file longer than [`SEARCHED`] holds the text.
fn end_holds(mut file: File, text: &str) -> bool {
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    let Some(skipped) = length.checked_sub(SEARCHED) else { return false };
    file.seek(SeekFrom::Start(skipped)).is_ok() && holds(&file, text)
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
    use std::fs;

    use super::*;

    #[test]
    fn a_prompt_is_found_at_both_ends_of_a_long_session() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wire.jsonl");
        let turn = |text: &str| serde_json::json!({"parts": [{"text": text}]}).to_string();
        let read = turn(&"x".repeat(1 << 20));
        let lines = [vec![turn("Ask one")], vec![read; 9], vec![turn("Ask two")]].concat();
        fs::write(&path, lines.join("\n")).unwrap();
        let check = |text: &str, expected: (bool, bool)| {
            let open = || File::open(&path).unwrap();
            assert_eq!((holds(&open(), text), end_holds(open(), text)), expected, "{text}");
        };
        check("Ask one", (true, false));
        check("Ask two", (false, true));
        check("Ask three", (false, false));
    }

    #[test]
    fn old_sessions_are_removed_unless_they_are_needed() {
        let state = tempfile::tempdir().unwrap();
        let project = tempfile::tempdir().unwrap();
        folders::make(state.path()).unwrap();
        let key = HomeKey::reader(Dialect::KimiCli, project.path());
        let home = state.path().join(home::HOMES).join(key.relative());
        let sessions = home.join("sessions/p");
        let day = Duration::from_secs(24 * 60 * 60);
        for (name, days) in [("new", 0), ("old", 40), ("needed", 40), ("older", 31)] {
            fs::create_dir_all(sessions.join(name)).unwrap();
            let conversation = sessions.join(name).join("context.jsonl");
            fs::write(&conversation, "{}").unwrap();
            let then = SystemTime::now() - day * days;
            File::options().write(true).open(conversation).unwrap().set_modified(then).unwrap();
            // The folder of a resumed session keeps its old time.
            File::open(sessions.join(name))
                .unwrap()
                .set_modified(SystemTime::now() - day * 50)
                .unwrap();
        }
        let left = || {
            let names = fs::read_dir(&sessions).unwrap().map(|entry| entry.unwrap().file_name());
            let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
            names.sort();
            names
        };
        let needed = HashSet::from(["needed".to_owned()]);
        sweep(state.path(), project.path(), 30, &needed);
        assert_eq!(left(), ["needed", "new"]);
        for n in 0..KEPT {
            fs::create_dir(sessions.join(format!("s{n}"))).unwrap();
        }
        sweep(state.path(), project.path(), 30, &needed);
        assert_eq!((left().len(), left().contains(&"needed".to_owned())), (KEPT + 1, true));
    }

    #[test]
    fn a_session_is_found_by_its_prompt() {
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
            let home = Folder::trusted(home.path()).unwrap();
            let found = find_by_prompt(&home, dialect, prompt, SystemTime::UNIX_EPOCH);
            assert_eq!(found.as_deref(), expected, "{prompt}");
        };
        check(Dialect::KimiCode, "Ask \"one\" 中文", Some("session_1"));
        check(Dialect::KimiCode, "Ask two\n", Some("session_2"));
        check(Dialect::KimiCode, "Ask three", None);
        check(Dialect::KimiCli, "Ask three", Some("0-1"));
        let later = SystemTime::now() + Duration::from_secs(60);
        let home = Folder::trusted(home.path()).unwrap();
        assert_eq!(find_by_prompt(&home, Dialect::KimiCode, "Ask two\n", later), None);
    }
}
