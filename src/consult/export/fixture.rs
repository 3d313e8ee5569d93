//! Records for tests: one with three rounds, every possible event and hostile text, one of a judge, and one without an
//! answer.

use serde_json::{Value, json};

use crate::consult::record::Record;

/// 2026-11-20 22:14:59 UTC.
const START: i64 = 1_795_212_899;

/// Every fixture.
pub(crate) fn all() -> [Record; 3] {
    [argued(), judged(), unfinished()]
}

/// Three rounds with findings that were withdrawn, refined, maintained, capitulated, skipped and contested; decided.
pub(crate) fn argued() -> Record {
    record(json!({
        "id": "t-7k2m9q", "role": "skeptic", "project": "/home/me/tally", "state": "decided",
        "message": "Where does `tally` lose an increment that it has acknowledged?\n\nThe log is the only copy. <script>alert('message')</script>",
        "context": {
            "proposed_approach": "Append each increment to `tally.log` and rebuild the totals from it at start:\n\n```rust\nfn add(&mut self, key: &str, value: u64) {\n    let _ = writeln!(self.file, \"{key} {value}\");\n}\n```\n\n# Not a heading\n| not | a table |\n|---|---|",
            "goals": ["no acknowledged increment is lost", "start within a second"],
            "constraints": ["no new dependency", "1 < 2 && \"quotes\" stay 'as they are'"],
            "known_risks": [],
        },
        "opened_at": START, "updated_at": START + 5_400,
        "contested": ["F2", "F6"],
        "decision": {
            "decision": "Return the write error from `add` and stop the replay at the first torn line. The file stays one file.",
            "rationale": "F1 and F5 are real and cheap to mend. F2 asks for a second process, which the constraints exclude: `flock` at start keeps others out.",
            "at": START + 5_400,
        },
        "rounds": [first_round(), second_round(), third_round()],
    }))
}

fn first_round() -> Value {
    let long = "x".repeat(300);
    json!({
        "number": 1, "opened_at": START,
        "transcripts": ["/home/me/.local/state/kimi-bridge/transcripts/3fa81c02d5.jsonl.gz"],
        "adjudications": [
            {"finding": "F1", "verdict": "ADOPT", "reasoning": "It is so; `add` will return the error."},
            {"finding": "F2", "verdict": "REJECT", "reasoning": "`open` takes an exclusive lock before it reads; src/main.rs line 9."},
            {"finding": "F3", "verdict": "REJECT", "reasoning": "The file is opened with `append(true)`:\n- one write a line\n- lines shorter than a page"},
            {"finding": "F4", "verdict": "REJECT", "reasoning": "זה לא נכון: הנעילה מוחזקת\u{202e} עד הסוף. \u{1b}[31mRED\u{1b}[0m"},
            {"finding": "F5", "verdict": "REJECT", "reasoning": "调用者已经在启动时检查过日志的最后一行。"},
        ],
        "result": result(json!({
            "response": "**The store loses data** on a failed write and panics on a torn line. Both happen in `src/store.rs`; neither needs bad luck, only a full disk.\n\nI would not ship it as it stands:\n\n1. the error of `writeln!` is dropped\n2. the replay trusts every line\n3. nothing keeps a second process out",
            "findings": [
                finding("F1", "blocker", "`add` drops the write error, so a full disk loses increments silently",
                    "The disk fills up: `writeln!` fails, the total in memory grows, and the restart forgets it.",
                    "Return the `io::Result` and count only what was written.",
                    &[citation("src/store.rs", 24, 24, "let _ = writeln!(self.file, \"{key} {value}\");", "verified"),
                      citation("src/main.rs", 12, 15, "match store.add(&key, value) {\n    () => respond(\"ok\"),\n    // ```\n    // </code></pre><script>alert(1)</script>\n}", "moved")]),
                finding("F2", "major", "# Two processes append to one file | and interleave\n<script>alert('claim')</script> ``` <img src=x onerror=alert(1)>",
                    "A second `tally` starts while the first runs; both replay, each misses the other's increments.",
                    "Hold `flock` for as long as the file is open.",
                    &[citation("src/store.rs", 11, 13, "let file = OpenOptions::new()\n    .append(true)\n    .open(path)?;", "verified"),
                      citation("src/lock.rs", 3, 3, "pub fn lock() {}", "missing")]),
                finding("F3", "major", "A line longer than the pipe buffer is written in two parts", "", "",
                    &[citation("src/line.rs", 40, 40, &format!("const LINE: &str = \"{long}\";"), "not_in_trace")]),
                finding("F4", "minor", "The lock is released before the replay ends", "The replay takes longer than the lock is held.", "",
                    &[citation("src/store.rs", 19, 19, "drop(lock);", "mismatch"),
                      citation("../other/src/lib.rs", 1, 2, "mod lock;\nmod store;", "outside")]),
                finding("F5", "note", "日志在断电后最后一行可能不完整，`split_once` 会返回 `None`", "断电发生在写入中途：`boot` 没有值。",
                    "在第一个格式错误的行停止。", &[citation("src/store.rs", 17, 17, "line.split_once(' ').unwrap()", "verified")]),
            ],
            "survived": ["Replay order: the log is read in the order in which it was written", "`u64` does not overflow before the sun does"],
            "not_examined": ["Windows", "the tests below `tests/`"],
            "key_risks": ["silent loss on a failed write", "<b>panic</b> on a torn last line"],
            "assumptions": ["one process writes the file"],
            "alternatives": ["an embedded database", "one log a process, merged at start"],
            "confidence": "high: both paths were read from end to end",
            "evidence": [
                call("ReadFile", json!({"path": "src/store.rs"}), "1\tuse std::fs;\n2\tuse std::io::{self, Write};\n3\t\n4\tpub struct Store { file: fs::File }", true),
                call("Grep", json!({"pattern": "flock|lock_exclusive", "path": "src"}), "no match", true),
                call("Glob", json!({"pattern": "src/**/*.rs"}), "src/main.rs\nsrc/store.rs\nsrc/line.rs", true),
                call("WriteFile", json!({"path": "src/store.rs", "content": "</pre><script>"}), "refused: WriteFile is not among the tools", false),
            ],
            "warnings": ["a line of Kimi's stream was skipped: it is no JSON"],
        })),
    })
}

fn second_round() -> Value {
    json!({
        "number": 2, "opened_at": START + 1_800,
        "adjudications": [
            {"finding": "F2", "verdict": "REJECT", "reasoning": "The lock of line 9 is held by the file handle, which lives as long as the store."},
            {"finding": "F5", "verdict": "ADOPT", "reasoning": ""},
            {"finding": "F6", "verdict": "REJECT", "reasoning": "A rename is out of scope: nothing here rotates the log."},
        ],
        "result": result(json!({
            "response": "One of the four stands unchanged, one in a smaller form, two fall. Looking again brought one more.",
            "replies": [
                {"finding": "F2", "stance": "maintain", "because": "Line 9 locks `tally.pid`, not `tally.log`; a process started with `--no-pid` takes no lock at all."},
                {"finding": "F3", "stance": "withdraw", "because": "`O_APPEND` on a regular file makes each `write` atomic in its offset, and `LineWriter` issues one a line: src/store.rs line 12."},
                {"finding": "F4", "stance": "withdraw", "because": "You are right, I apologise.", "capitulated": true},
                {"finding": "F5", "stance": "refine", "because": "检查只发生在启动时；运行中的重放（第 31 行）没有检查。"},
            ],
            "findings": [
                finding("F6", "minor", "Rotation by rename keeps the old inode open", "logrotate renames the file; increments go to the renamed one.", "Reopen on SIGHUP.",
                    &[citation("src/store.rs", 11, 11, "let file = OpenOptions::new()", "verified")]),
            ],
            "survived": ["`O_APPEND` writes do not interleave"],
            "confidence": "medium: `--no-pid` was found by reading, not by running",
            "evidence": [call("ReadFile", json!({"path": "src/main.rs"}), "1\tfn main() {", true)],
        })),
    })
}

fn third_round() -> Value {
    json!({
        "number": 3, "opened_at": START + 3_600,
        "adjudications": [
            {"finding": "F2", "verdict": "REJECT", "reasoning": "`--no-pid` is a test flag, compiled out of releases."},
            {"finding": "F6", "verdict": "REJECT", "reasoning": "Still out of scope: nothing rotates the log."},
            {"finding": "F7", "verdict": "ADOPT", "reasoning": "Goes into the README."},
        ],
        "result": result(json!({
            "response": "F2 stays. The rest is said.",
            "replies": [
                {"finding": "F2", "stance": "maintain", "because": "The flag is parsed in release builds too: src/main.rs line 5 has no `cfg`."},
            ],
            "findings": [finding("F7", "note", "The README promises durability that an `fsync` would have to keep", "", "Say what is promised.", &[])],
            "confidence": "high",
        })),
    })
}

/// One round of the judge whose winner changed with the order of the options.
pub(crate) fn judged() -> Record {
    record(json!({
        "id": "t-judge1", "role": "judge", "project": "/home/me/tally", "state": "settled",
        "message": "Which store do we build on?",
        "context": {
            "options": [
                {"name": "append-only log", "summary": "One line an increment, replayed at start.", "pros": ["simple"], "cons": ["start-up grows with history"]},
                {"name": "SQLite <b>", "summary": "One row a key | updated in a transaction.", "pros": ["crash-safe"], "cons": []},
            ],
            "criteria": ["no lost increments", "start-up time"],
        },
        "opened_at": START, "updated_at": START + 90,
        "contested": [],
        "rounds": [{
            "number": 1, "opened_at": START, "adjudications": [],
            "result": result(json!({
                "response": "Read in one order the log wins, in the other SQLite does; the two are too close for these criteria.",
                "verdict": {"contested": true, "scores": [
                    {"option": "append-only log", "criterion": "no lost increments", "score": 6.5, "reason": "a torn line is lost | and \"said\" so"},
                    {"option": "append-only log", "criterion": "start-up time", "score": 4.0, "reason": "grows with history"},
                    {"option": "SQLite <b>", "criterion": "no lost increments", "score": 9.0, "reason": "transactions"},
                    {"option": "SQLite <b>", "criterion": "start-up time", "score": 8.0, "reason": "constant"},
                ]},
                "confidence": "low: the order decided",
            })),
        }],
    }))
}

/// A round without an answer.
pub(crate) fn unfinished() -> Record {
    record(json!({
        "id": "t-lost42", "role": "debugger", "project": "/home/me/tally", "state": "unfinished",
        "message": "Why does it panic after a power cut?",
        "context": {
            "symptoms": "panics at start", "expected_behavior": "It starts.",
            "tried_approaches": [{"approach": "deleted the log", "outcome": "all totals are gone"}, {"approach": "O_SYNC", "outcome": "slower"}],
            "logs": "thread 'main' panicked at src/store.rs:17:57\n```\n<script>",
        },
        "opened_at": START, "updated_at": START + 900,
        "contested": [],
        "rounds": [{
            "number": 1, "opened_at": START, "adjudications": [],
            "error": {"error": {"kind": "timed_out", "message": "no answer within 900 s <now>", "hint": "Ask again with a longer timeout_seconds.", "retryable": true, "partial": null}},
        }],
    }))
}

fn record(value: Value) -> Record {
    serde_json::from_value(value).unwrap()
}

/// A result with the given fields; the others are empty.
fn result(given: Value) -> Value {
    let mut result = json!({
        "parse_ok": true, "response": "", "findings": [], "key_risks": [], "assumptions": [],
        "alternatives": [], "survived": [], "not_examined": [], "confidence": "", "evidence": [],
        "incomplete_trace": false, "raw_response_preview": "", "warnings": [],
        "provenance": {"dialect": "kimi-code", "version": "2.1.0", "session_id": "session_01", "sandbox": "none",
                       "workspace_changed": false, "elapsed_ms": 74_200, "redactions": 1},
    });
    let Value::Object(given) = given else { return result };
    for (name, value) in given {
        result[name] = value;
    }
    result
}

fn finding(
    id: &str,
    severity: &str,
    claim: &str,
    fails: &str,
    instead: &str,
    citations: &[Value],
) -> Value {
    let grounded =
        citations.iter().any(|one| one["status"] == "verified" || one["status"] == "moved");
    json!({"id": id, "severity": severity, "claim": claim, "failure_scenario": fails, "suggestion": instead,
           "citations": citations, "grounded": grounded})
}

fn citation(path: &str, start: u32, end: u32, quote: &str, status: &str) -> Value {
    json!({"path": path, "line_start": start, "line_end": end, "quote": quote, "status": status})
}

#[expect(clippy::needless_pass_by_value, reason = "it is a literal at every call")]
fn call(tool: &str, args: Value, summary: &str, ok: bool) -> Value {
    json!({"tool": tool, "tool_call_id": "c", "args": args, "summary": summary, "ok": ok})
}
