//! `kimi-bridge guard`: the hook that both programs run before they call a tool. It refuses by exit code 2 and a word
//! on standard error, which is how a hook refuses. Every other end would allow the call, so that whatever goes wrong
//! here is a refusal too.

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::kimi::guard::GuardPolicy;

/// How a hook refuses.
const REFUSED: u8 = 2;
/// Bytes of a call that are read; a longer one is refused.
const CALL_BYTES: u64 = 1_000_000;
/// The longest that the hook may take: after 30 s the programs go on without it.
const PATIENCE: Duration = Duration::from_secs(15);

/// `args` holds the folder of the run.
pub(super) fn main(mut args: impl Iterator<Item = OsString>) -> u8 {
    let run_dir = PathBuf::from(args.next().unwrap_or_default());
    let (sender, receiver) = mpsc::channel();
    // A thread that cannot start, or that panics, sends nothing.
    let _ = thread::Builder::new().spawn(move || sender.send(refusal(&run_dir)));
    let refusal = receiver
        .recv_timeout(PATIENCE)
        .unwrap_or_else(|_| Some("the hook could not decide".to_owned()));
    match refusal {
        None => 0,
        Some(why) => {
            let _ = writeln!(std::io::stderr(), "{why}");
            REFUSED
        }
    }
}

/// Returns why the call on standard input is refused.
fn refusal(run_dir: &Path) -> Option<String> {
    let mut call = String::new();
    let read = std::io::stdin().take(CALL_BYTES).read_to_string(&mut call);
    let call = read.ok().and_then(|_| serde_json::from_str(&call).ok());
    let (Some(call), Some(facts)) = (call, GuardPolicy::read(run_dir)) else {
        return Some("the call or the facts of the run cannot be read".to_owned());
    };
    facts.refusal(&call)
}
