//! The demo's stand-in for Kimi: speaks kimi-code's stream, opens the files of the current folder,
//! and answers from a fixed list of checks on what it found there. It is no model and says so.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::cli::StandIn;
use crate::error::{Error, Kind, Result};
use crate::kimi::Dialect;

/// One check: what it looks for in a line, and what it says when it finds it.
struct Check {
    finds: fn(&str) -> bool,
    severity: &'static str,
    claim: &'static str,
    scenario: &'static str,
    suggestion: &'static str,
}

const CHECKS: [Check; 4] = [
    Check {
        finds: |line| line.contains("let _ =") && line.contains("write"),
        severity: "blocker",
        claim: "The result of the write is dropped, so an increment that never reached the disk counts as done.",
        scenario: "The disk is full: the write fails, the total in memory grows, and the next start forgets it.",
        suggestion: "Return the io::Result, and count in memory only after the write succeeded.",
    },
    Check {
        finds: |line| {
            line.contains(".unwrap()") && (line.contains("split_once") || line.contains("parse"))
        },
        severity: "major",
        claim: "A line that is not whole makes the program panic at start.",
        scenario: "Power fails in the middle of a write; the torn last line has no value, and no start succeeds again.",
        suggestion: "Stop at the first line that cannot be read, report it, and truncate the log there.",
    },
    Check {
        finds: |line| line.contains("totals[") && !line.contains("get("),
        severity: "minor",
        claim: "Asking for a key that was never added panics.",
        scenario: "total(\"unknown\") indexes a map that does not hold the key.",
        suggestion: "Return Option<i32>, or 0 for an unknown key.",
    },
    Check {
        finds: |line| line.contains("HashMap<String, i32>"),
        severity: "minor",
        claim: "Totals are 32 bits wide and overflow.",
        scenario: "A counter passes 2,147,483,647: debug builds panic, release builds wrap to a negative total.",
        suggestion: "Use i64 and checked_add.",
    },
];

/// Plays one run of kimi-code.
pub(super) fn run(args: &StandIn) -> Result<u8> {
    let broken = |error: std::io::Error| {
        Error::new(Kind::Crashed, format!("the stand-in: {error}"), "Please report it.")
    };
    // The prompt is not understood, only looked at: without one there is nothing to answer.
    let prompt =
        args.args.iter().skip_while(|&arg| arg != "-p").nth(1).cloned().unwrap_or_default();
    if prompt.is_empty() {
        return Err(Error::new(
            Kind::Request,
            "the stand-in got no prompt",
            "Use `kimi-bridge demo`.",
        ));
    }
    let rejections = rejections_in(&prompt);
    remember_the_session().map_err(broken)?;
    let mut out = std::io::stdout().lock();
    let mut say = |line: &Value| writeln!(out, "{line}").and_then(|()| out.flush());
    let files = rust_files(Path::new("src")).map_err(broken)?;
    say(&json!({"role": "meta", "type": "system.version", "version": "stand-in"}))
        .map_err(broken)?;
    let listing: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    say(&call("Glob:1_0", "Glob", &json!({"pattern": "src/**/*.rs"}))).map_err(broken)?;
    say(&answer("Glob:1_0", &listing.join("\n"))).map_err(broken)?;
    if !rejections.is_empty() {
        let answer = answer_rejections(&rejections, &mut say).map_err(broken)?;
        return end(&answer, say).map_err(broken);
    }
    let mut findings = Vec::new();
    let mut appends = false;
    for (at, file) in files.iter().enumerate() {
        let id = format!("Read:2_{at}");
        say(&call(&id, "Read", &json!({"path": file}))).map_err(broken)?;
        let text = std::fs::read_to_string(file).map_err(broken)?;
        let numbered: Vec<String> =
            text.lines().enumerate().map(|(at, line)| format!("{}\t{line}", at + 1)).collect();
        say(&answer(&id, &numbered.join("\n"))).map_err(broken)?;
        findings.extend(examine(file, &text));
        appends |= text.contains(".append(true)");
    }
    end(&verdict(&findings, files.len(), appends), say).map_err(broken)
}

/// The last lines of a run.
fn end(verdict: &Value, mut say: impl FnMut(&Value) -> std::io::Result<()>) -> std::io::Result<u8> {
    say(&json!({"role": "assistant", "content": format!("```json\n{verdict:#}\n```")}))?;
    say(&json!({"role": "meta", "type": "session.resume_hint", "session_id": SESSION}))?;
    Ok(0)
}

/// The one session that the stand-in has; it remembers nothing but that there is one.
const SESSION: &str = "session_stand-in";

/// Leaves what a later round looks for before it resumes a session. The bridge says where the private
/// home is, as it does to every Kimi.
fn remember_the_session() -> std::io::Result<()> {
    let home = crate::settings::Environment::of_this_process().ok();
    let home =
        home.as_ref().and_then(|environment| environment.var(Dialect::KimiCode.home_variable()));
    home.map_or(Ok(()), |home| {
        std::fs::create_dir_all(Path::new(home).join("sessions/demo").join(SESSION))
    })
}

/// The rejected findings of a later round's prompt, and the reasons.
fn rejections_in(prompt: &str) -> Vec<(String, String)> {
    let mut rejections = Vec::new();
    let mut finding = String::new();
    // The name and the text of the fence under way.
    let mut fence: Option<(&str, String)> = None;
    for line in prompt.lines().skip_while(|line| !line.starts_with("## What was rejected")) {
        if let Some((name, text)) = &mut fence {
            if !line.ends_with(">>>") {
                text.push_str(line);
                text.push(' ');
                continue;
            }
            if *name == "rejected_because" {
                rejections.push((finding.clone(), text.trim().to_owned()));
            }
            fence = None;
        } else if let Some((_, name)) =
            line.strip_prefix("<<<").and_then(|line| line.split_once(' '))
        {
            fence = Some((name, String::new()));
        } else {
            let id: String = line.chars().take_while(char::is_ascii_alphanumeric).collect();
            if id
                .strip_prefix('F')
                .is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
            {
                finding = id;
            }
        }
    }
    rejections
}

/// Looks up the line that a reason names: what stands there is a fact, a reason without one is none.
fn answer_rejections(
    rejections: &[(String, String)],
    say: &mut impl FnMut(&Value) -> std::io::Result<()>,
) -> std::io::Result<Value> {
    let mut replies = Vec::new();
    for (at, (finding, reason)) in rejections.iter().enumerate() {
        let named = reason.split_whitespace().find_map(|word| {
            let (file, line) = word.trim_matches(|c: char| !c.is_alphanumeric()).split_once(':')?;
            Some((file.to_owned(), line.parse::<usize>().ok()?))
        });
        let mut fact = None;
        if let Some((file, number)) = named {
            let id = format!("Read:3_{at}");
            say(&call(&id, "Read", &json!({"path": file, "line_offset": number, "n_lines": 1})))?;
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            let line = text.lines().nth(number.saturating_sub(1)).map(str::trim);
            let shown = line.map_or_else(
                || format!("\"{file}\" does not exist."),
                |line| format!("{number}\t{line}"),
            );
            say(&answer(&id, &shown))?;
            fact = line.map(|line| {
                format!("{file} line {number} reads `{line}`, which I had not weighed.")
            });
        }
        let stance = if fact.is_some() { "withdraw" } else { "maintain" };
        let because =
            fact.unwrap_or_else(|| "The reason names no line that I could look up.".to_owned());
        replies.push(json!({"finding": finding, "stance": stance, "because": because}));
    }
    Ok(json!({
        "response": "I looked up what the rejections point to. (This is a stand-in: a fixed rule, no model.)",
        "replies": replies,
        "findings": [],
        "confidence": "low: a line that exists is taken for a fact",
    }))
}

fn rust_files(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn examine(file: &Path, text: &str) -> Vec<Value> {
    let found = |check: &Check| {
        let citations: Vec<Value> = text
            .lines()
            .enumerate()
            .filter(|(_, line)| (check.finds)(line))
            .map(|(at, line)| json!({"path": file, "line_start": at + 1, "line_end": at + 1, "quote": line.trim()}))
            .collect();
        (!citations.is_empty()).then(|| {
            json!({
                "severity": check.severity,
                "claim": check.claim,
                "failure_scenario": check.scenario,
                "suggestion": check.suggestion,
                "citations": citations,
            })
        })
    };
    CHECKS.iter().filter_map(found).collect()
}

fn verdict(findings: &[Value], files: usize, appends: bool) -> Value {
    let response = match findings.len() {
        0 => format!("None of the {} checks found anything in {files} files.", CHECKS.len()),
        count => {
            format!("Not as it stands: {count} of the checks found something in {files} files.")
        }
    };
    let survived = if appends {
        vec!["The log is opened in append mode, so two writes do not overwrite each other."]
    } else {
        Vec::new()
    };
    json!({
        "response": format!("{response} (This is a stand-in: a fixed list of checks, no model.)"),
        "findings": findings,
        "key_risks": [],
        "assumptions": ["One process writes the log."],
        "alternatives": ["SQLite in WAL mode: crash-safe and concurrent, for one dependency."],
        "survived": survived,
        "not_examined": ["Everything that the fixed checks do not look for."],
        "confidence": "low: pattern checks see lines, not behaviour",
    })
}

fn call(id: &str, tool: &str, args: &Value) -> Value {
    let function = json!({"name": tool, "arguments": args.to_string()});
    json!({"role": "assistant", "tool_calls": [{"type": "function", "id": id, "function": function}]})
}

fn answer(id: &str, text: &str) -> Value {
    json!({"role": "tool", "tool_call_id": id, "content": text})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejections_are_found_in_a_later_rounds_prompt() {
        let prompt = "F9 in passing\n## What was rejected, and why\n\nF3, which you put so:\n\n<<<M finding\nF1: x\nM>>>\n\n\
            <<<M rejected_because\nmain.rs:7 asks only\nfor that key\nM>>>\n\nF4:\n\n<<<M rejected_because\nno\nM>>>\n";
        let expected = [("F3", "main.rs:7 asks only for that key"), ("F4", "no")];
        let expected = expected.map(|(id, reason)| (id.to_owned(), reason.to_owned()));
        assert_eq!(rejections_in(prompt), expected);
    }
}
