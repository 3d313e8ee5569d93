//! Turns a plan back once before the user sees it, so that Kimi challenges it first. Only in auto mode.

use std::fs::{self, File, OpenOptions};
use std::io::Read as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use chrono::DateTime;
use serde_json::{Value, json};

use super::ledger;
use crate::consult::record;
use crate::ledger::Filter;
use crate::settings::{Config, switch};

/// The message to the agent. Claude Code also shows it to the user, in red, as an error.
const CHALLENGE_FIRST: &str = include_str!("../../templates/mcp/plan.md").trim_ascii_end();

/// The characters from which a plan is worth a run of several minutes.
const MIN_PLAN_CHARS: usize = 400;
/// The bytes of a transcript that are searched for the beginning of the session.
const TRANSCRIPT_BYTES: u64 = 1_000_000;
/// The latest threads that are searched for one of this session.
const THREAD_LIMIT: usize = 50;
/// The age at which the mark of a session is removed.
const MARK_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);

/// Returns the hook output that turns a plan back; `None` lets the plan pass.
pub(crate) fn plan(event: &Value, config: &Config) -> Option<Value> {
    if event["hook_event_name"] != "PreToolUse" || event["tool_name"] != "ExitPlanMode" {
        return None;
    }
    let plan = event["tool_input"]["plan"].as_str()?.trim();
    let is_short = plan.chars().count() < MIN_PLAN_CHARS;
    if is_short || !is_auto(config) || was_consulted(event, config) || !mark_session(event, config)
    {
        return None;
    }
    Some(json!({"hookSpecificOutput": {
        "hookEventName": "PreToolUse",
        "permissionDecision": "deny",
        "permissionDecisionReason": CHALLENGE_FIRST,
    }}))
}

/// Returns whether the agent may consult Kimi without being asked. The settings decide where the plugin's option was
/// never set, because Claude Code then passes no variable for it.
fn is_auto(config: &Config) -> bool {
    let option = config.environment.var("CLAUDE_PLUGIN_OPTION_AUTO");
    let option = option.and_then(|text| switch(&json!(text)));
    let by_settings = config.settings.tool_enabled && config.settings.auto_enabled;
    config.misfits.is_empty() && option.unwrap_or(by_settings)
}

/// Returns whether a thread of this project changed after the session began.
fn was_consulted(event: &Value, config: &Config) -> bool {
    let Some(session_start) =
        event["transcript_path"].as_str().and_then(|path| session_start(Path::new(path)))
    else {
        return false;
    };
    let project = Some(record::project_of(config).display().to_string());
    let latest = Filter { project, limit: THREAD_LIMIT, ..Filter::default() };
    let threads = ledger::read(config.state_dir(), move |ledger| ledger.threads(&latest));
    threads.unwrap_or_default().iter().any(|thread| thread.updated_at >= session_start)
}

/// Returns the start of a transcript's session in seconds since 1970 UTC: the first timestamp in it.
fn session_start(transcript: &Path) -> Option<i64> {
    let mut bytes = Vec::new();
    File::open(transcript).ok()?.take(TRANSCRIPT_BYTES).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let (_, time) = text.split_once(r#""timestamp":""#)?;
    let time = DateTime::parse_from_rfc3339(time.split('"').next()?).ok()?;
    Some(time.timestamp())
}

/// Marks the session, and returns whether it had no mark before. If the mark cannot be written, returns false:
/// otherwise every plan would be turned back, and the agent could never continue.
fn mark_session(event: &Value, config: &Config) -> bool {
    let session = event["session_id"].as_str().unwrap_or_default();
    let is_id = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if !(1..=64).contains(&session.len()) || !session.chars().all(is_id) {
        return false;
    }
    let Some(data) = config.environment.var("CLAUDE_PLUGIN_DATA") else { return false };
    let marks = Path::new(data).join("plans");
    if fs::create_dir_all(&marks).is_err() {
        return false;
    }
    remove_old(&marks);
    OpenOptions::new().write(true).create_new(true).open(marks.join(session)).is_ok()
}

fn remove_old(marks: &Path) {
    let now = SystemTime::now();
    for mark in fs::read_dir(marks).into_iter().flatten().flatten() {
        let made = mark.metadata().and_then(|metadata| metadata.modified());
        if made.is_ok_and(|made| now.duration_since(made).is_ok_and(|age| age > MARK_LIFETIME)) {
            // A mark is an empty file, so one that cannot be removed does no harm.
            let _ = fs::remove_file(mark.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Environment, load_what_fits};

    /// Loads the settings of a machine that has everything in one folder and these variables.
    fn machine(folder: &Path, vars: &[(&str, &str)]) -> Config {
        let data = folder.join("data").display().to_string();
        let data = [("CLAUDE_PLUGIN_DATA", data.as_str())];
        let vars = data.iter().chain(vars);
        let environment = Environment {
            vars: vars.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            config_dir: folder.join("config"),
            state_dir: folder.join("state"),
            current_dir: folder.to_owned(),
            ..Environment::default()
        };
        load_what_fits(environment, &[]).unwrap()
    }

    fn plan_event(session: &str, plan: &str) -> Value {
        json!({"session_id": session, "transcript_path": "/none.jsonl", "cwd": "/p", "permission_mode": "plan",
            "hook_event_name": "PreToolUse", "tool_name": "ExitPlanMode",
            "tool_input": {"plan": plan, "planFilePath": "/home/me/.claude/plans/a.md"}, "tool_use_id": "toolu_1"})
    }

    const ON: [(&str, &str); 1] = [("CLAUDE_PLUGIN_OPTION_AUTO", "true")];

    #[test]
    fn a_plan_is_turned_back_once_a_session_in_auto_mode() {
        let folder = tempfile::tempdir().unwrap();
        let long = "数".repeat(MIN_PLAN_CHARS);
        let check = |vars: &[(&str, &str)], event: &Value, expected: bool| {
            let answer = plan(event, &machine(folder.path(), vars));
            assert_eq!(answer.is_some(), expected, "{vars:?} {event:#}");
        };
        check(&[], &plan_event("a", &long), false);
        check(&[("CLAUDE_PLUGIN_OPTION_AUTO", "false")], &plan_event("a", &long), false);
        check(
            &[("CLAUDE_PLUGIN_OPTION_AUTO", "false"), ("KIMI_BRIDGE_AUTO_ENABLED", "1")],
            &plan_event("a", &long),
            false,
        );
        check(&ON, &plan_event("a", &format!("{} \n", "x".repeat(MIN_PLAN_CHARS - 1))), false);
        check(&ON, &plan_event("../a", &long), false);
        check(&ON, &json!({"hook_event_name": "PreToolUse", "tool_name": "Bash"}), false);
        check(&ON, &plan_event("a", &long), true);
        check(&ON, &plan_event("a", &long), false);
        check(&ON, &plan_event("b", &long), true);
        let auto = [("KIMI_BRIDGE_AUTO_ENABLED", "1"), ("KIMI_BRIDGE_TOOL_ENABLED", "1")];
        check(&auto[..1], &plan_event("c", &long), false);
        check(&auto, &plan_event("c", &long), true);
        let placeholder = [("CLAUDE_PLUGIN_OPTION_AUTO", "${user_config.auto}")];
        check(&placeholder, &plan_event("d", &long), false);
        let wrong = [ON[0], ("KIMI_BRIDGE_TIMEOUT_SECONDS", "15m")];
        check(&wrong, &plan_event("d", &long), false);
        check(&[ON[0], ("CLAUDE_PLUGIN_DATA", "")], &plan_event("d", &long), true);
    }

    #[test]
    fn no_plan_is_turned_back_if_the_session_cannot_be_marked() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("data"), "no folder").unwrap();
        let config = machine(folder.path(), &ON);
        assert_eq!(plan(&plan_event("a", &"x".repeat(MIN_PLAN_CHARS)), &config), None);
    }

    #[test]
    fn a_session_begins_at_the_first_timestamp_of_its_transcript() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("t.jsonl");
        let check = |text: &str, expected: Option<i64>| {
            fs::write(&file, text).unwrap();
            assert_eq!(session_start(&file), expected, "{text}");
        };
        check(
            "{\"type\":\"mode\"}\n{\"snapshot\":{\"timestamp\":\"1970-01-01T00:01:00.180Z\"}}\n",
            Some(60),
        );
        check("{\"content\":\"\\\"timestamp\\\":\\\"1970-01-01T00:01:00Z\\\"\"}", None);
        check("{\"timestamp\":\"soon\"}", None);
        check("", None);
        assert_eq!(session_start(&folder.path().join("none")), None);
    }
}
