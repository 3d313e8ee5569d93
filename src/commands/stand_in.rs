//! The demo's stand-in for Kimi. It writes the same stream as kimi-code: tool calls that read files of the sample
//! project, and a recorded answer, which says that it is recorded.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use serde_json::{Value, json};

use crate::kimi::Dialect;
use crate::settings::Environment;

const CHALLENGE: &str = include_str!("../../demo/challenge.json");
const REPLY: &str = include_str!("../../demo/reply.json");
const SESSION: &str = "session_stand-in";

/// The hidden command that runs the stand-in.
pub(super) const COMMAND: &str = "stand-in";

/// Runs like kimi-code with these arguments, and returns the exit code.
pub(super) fn main(mut args: impl Iterator<Item = OsString>) -> u8 {
    let is_later_round = args.any(|arg| arg.to_string_lossy().contains("## What was rejected"));
    let (files, answer) = if is_later_round {
        (["src/main.rs"].as_slice(), REPLY)
    } else {
        (["src/main.rs", "src/store.rs"].as_slice(), CHALLENGE)
    };
    match play(files, answer) {
        Ok(()) => 0,
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: the stand-in: {error}");
            1
        }
    }
}

fn play(files: &[&str], answer: &str) -> io::Result<()> {
    // A later round checks the session's folder before it resumes the session.
    let environment = Environment::of_this_process().map_err(io::Error::other)?;
    if let Some(home) = environment.var(Dialect::KimiCode.home_variable()) {
        fs::create_dir_all(Path::new(home).join("sessions/demo").join(SESSION))?;
    }
    let mut lines = vec![json!({"role": "meta", "type": "system.version", "version": "stand-in"})];
    let listing = "src/main.rs\nsrc/store.rs";
    lines.extend(tool_call("Glob", &json!({"pattern": "src/**/*.rs"}), listing));
    for file in files {
        let text = fs::read_to_string(file)?;
        let numbered = text.lines().enumerate().map(|(at, line)| format!("{}\t{line}\n", at + 1));
        lines.extend(tool_call("Read", &json!({"path": file}), &numbered.collect::<String>()));
    }
    lines.push(json!({"role": "assistant", "content": format!("```json\n{answer}```")}));
    lines.push(json!({"role": "meta", "type": "session.resume_hint", "session_id": SESSION}));
    lines.iter().try_for_each(|line| writeln!(io::stdout(), "{line}"))
}

/// Returns the messages of a tool call and its result.
fn tool_call(tool: &str, args: &Value, result: &str) -> [Value; 2] {
    let id = format!("{tool}:{args}");
    let function = json!({"name": tool, "arguments": args.to_string()});
    let call = json!({"type": "function", "id": id, "function": function});
    [
        json!({"role": "assistant", "tool_calls": [call]}),
        json!({"role": "tool", "tool_call_id": id, "content": result}),
    ]
}
