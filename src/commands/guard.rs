//! `kimi-bridge guard`: the hook that both Kimi CLIs run before a tool call. It refuses a call by exit code 2 and a
//! reason on standard error. Any other exit code allows the call, so every failure here is a refusal too.

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::kimi::guard::GuardPolicy;

/// The exit code of a refusal.
const REFUSED: u8 = 2;
/// The most bytes of a call that are read; a longer call is refused.
const CALL_BYTES: u64 = 1_000_000;
/// The time limit of the hook. It is shorter than the 30 s after which the CLIs allow the call.
const HOOK_TIMEOUT: Duration = Duration::from_secs(15);

/// Runs the hook; `args` holds the run's folder.
pub(super) fn main(mut args: impl Iterator<Item = OsString>) -> u8 {
    let run_dir = PathBuf::from(args.next().unwrap_or_default());
    let (sender, receiver) = mpsc::channel();
    // If the thread cannot start or panics, the sender is dropped and the call is refused.
    let _ = thread::Builder::new().spawn(move || sender.send(refusal(&run_dir)));
    let refusal = receiver
        .recv_timeout(HOOK_TIMEOUT)
        .unwrap_or_else(|_| Some("the hook could not check the call".to_owned()));
    match refusal {
        None => 0,
        Some(why) => {
            let _ = writeln!(std::io::stderr(), "{why}");
            REFUSED
        }
    }
}

/// Returns the reason to refuse the call on standard input; `None` allows it.
fn refusal(run_dir: &Path) -> Option<String> {
    let mut call = String::new();
    let read = std::io::stdin().take(CALL_BYTES).read_to_string(&mut call);
    let call = read.ok().and_then(|_| serde_json::from_str(&call).ok());
    let (Some(call), Some(policy)) = (call, GuardPolicy::read(run_dir)) else {
        return Some("the hook could not read the call or the policy of the run".to_owned());
    };
    policy.refusal(&call)
}
