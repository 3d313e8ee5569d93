//! `kimi-bridge hook show` and `hook plan`, which the hooks of the Claude Code plugin start. The event comes on
//! standard input, and the answer goes to standard output. Every failure ends with exit code 0 and no output, so that a
//! hook never blocks the host.

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::thread;

use serde_json::{Value, json};

use crate::hook;
use crate::settings::{self, Config, Environment};

/// The name of the hidden command.
pub(super) const COMMAND: &str = "hook";
/// The bytes of an event that are read. A longer event holds no result of this bridge.
const EVENT_BYTES: u64 = 8_000_000;

/// Runs a hook; `args` holds its name. The exit code is always 0.
pub(super) fn main(mut args: impl Iterator<Item = OsString>) -> u8 {
    let name = args.next().unwrap_or_default();
    // If the thread cannot start or panics, there is no answer.
    let answering = thread::Builder::new().spawn(move || answer(name.to_str()?));
    if let Some(answer) = answering.ok().and_then(|answering| answering.join().ok()).flatten() {
        let _ = writeln!(io::stdout(), "{answer}");
    }
    0
}

fn answer(name: &str) -> Option<Value> {
    let event = read()?;
    match name {
        "show" => hook::show(&event, &load()?).map(|text| json!({"systemMessage": text})),
        "plan" => hook::plan(&event, &load()?),
        _ => None,
    }
}

/// Reads the event; `None` if it is too long or no JSON. Even a longer event is read to its end, because a host may
/// fail if the pipe is closed early.
fn read() -> Option<Value> {
    let mut event = Vec::new();
    let mut input = io::stdin().lock();
    (&mut input).take(EVENT_BYTES).read_to_end(&mut event).ok()?;
    if io::copy(&mut input, &mut io::sink()).ok()? > 0 {
        return None;
    }
    serde_json::from_slice(&event).ok()
}

fn load() -> Option<Config> {
    settings::load_what_fits(Environment::of_this_process().ok()?, &[]).ok()
}
