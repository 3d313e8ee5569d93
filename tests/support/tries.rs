//! What a program in Kimi's place tries, inside the sandbox and without it, as the user of the tests and as one without
//! root's rights.

use std::fs;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};

use libtest_mimic::Trial;

use super::answers::{ANSWER, VERSION};
use super::attempt;
use super::test;
use super::world::World;

/// What is tried: a name, a command that prepares the home, and one that exits with 0 only if it got through.
///
/// In the command, `$HOME` is the user's home, with the sockets `stream.sock` and `datagram.sock` in it, `$TRY` the
/// program that makes system calls, `$OUTSIDE` the number of a process of the user's, and `$KIMI_CODE_HOME` a folder
/// that may be written.
pub(crate) type Try = (&'static str, &'static str, &'static str);

/// Folders that everybody may write outside the sandbox.
const OPEN_FOLDERS: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];

/// Each try as a test of this name, and again as an ordinary user where root runs the tests.
pub(crate) fn tests(name: &str, tries: &'static [Try]) -> Vec<Trial> {
    let as_root = rustix::process::geteuid().is_root();
    let users = if as_root { &[false, true][..] } else { &[false] };
    let mut tests = vec![test(&format!("{name}::only_a_refusal_counts"), only_a_refusal_counts)];
    for &(what, setup, script) in tries {
        for &is_ordinary in users {
            let user = if is_ordinary { "_as_an_ordinary_user" } else { "" };
            let name = format!("{name}{user}::{what}");
            tests.push(test(&name, move || cannot(is_ordinary, setup, script)));
        }
    }
    tests
}

/// A try must fail inside the sandbox and succeed without it: one that fails anyway shows nothing.
fn cannot(is_ordinary: bool, setup: &str, script: &str) {
    let (through, why) = played("required", is_ordinary, setup, script);
    assert!(!through, "{script} got through");
    assert!(is_refused(script, &why), "{script}: {why:?}");
    let (through, why) = played("off", is_ordinary, setup, script);
    assert!(through, "{script} fails without a sandbox as well: {why}");
}

/// Returns whether a try that wrote these words was made, and refused.
fn is_refused(script: &str, why: &str) -> bool {
    let reasons =
        ["ermission denied", "not permitted", "not supported", "Inappropriate ioctl for device"];
    // Where the shell may not start the program, it names the program's whole path first.
    let was_made = !script.contains("$TRY") || why.starts_with("attempt: ");
    was_made && reasons.iter().any(|reason| why.contains(reason))
}

/// A try that failed for another reason shows nothing.
fn only_a_refusal_counts() {
    let check = |script, why, refused| assert_eq!(is_refused(script, why), refused, "{why:?}");
    let attempt = "\"$TRY\" ring";
    check(attempt, "attempt: Operation not permitted (os error 1)\n", true);
    check(attempt, "kimi: line 3: /fake/attempt: Permission denied\n", false);
    check(attempt, "attempt: No such process (os error 3)\n", false);
    check("cat x", "cat: x: Permission denied\n", true);
    check("cat x", "cat: x: No such file or directory\n", false);
    check("cat x", "", false);
}

/// Plays a try in a world of its own. Returns whether it got through, and what it wrote on standard error.
fn played(sandbox: &str, is_ordinary: bool, setup: &str, script: &str) -> (bool, String) {
    let outside = Outside::start(is_ordinary);
    let fake = format!(
        "TRY=\"${{0%/*}}/attempt\" OUTSIDE={}; {VERSION}; if ({script}) > /dev/null 2> \"$KIMI_CODE_HOME/why\"; \
         then echo yes > \"$KIMI_CODE_HOME/through\"; fi; {ANSWER}",
        outside.0.id()
    );
    let mut world = World::with_fake("2.1.0", &fake).with(&[("KIMI_BRIDGE_SANDBOX", sandbox)]);
    attempt::install(&world);
    let done = Command::new("sh").args(["-ec", setup]).current_dir(world.home()).status();
    assert!(done.unwrap().success(), "{setup}");
    let _stream = UnixListener::bind(world.home().join("stream.sock")).unwrap();
    let _datagram = UnixDatagram::bind(world.home().join("datagram.sock")).unwrap();
    if is_ordinary {
        world.give_to_an_ordinary_user();
    }
    let ran = world.consult(&[]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let expected = if sandbox == "off" { "none" } else { "landlock" };
    assert_eq!(ran.json()["provenance"]["sandbox"], expected);
    for folder in OPEN_FOLDERS {
        let _ = fs::remove_file(format!("{folder}/kimi-bridge-test-{}", outside.0.id()));
    }
    let why = fs::read_to_string(world.kimis().join("why")).unwrap();
    (world.kimis().join("through").exists(), why)
}

/// A process of the user's, which ends when it is dropped.
struct Outside(Child);

impl Outside {
    fn start(is_ordinary: bool) -> Outside {
        let mut command = Command::new("sleep");
        command.arg("1000");
        if is_ordinary {
            command.uid(World::ORDINARY).gid(World::ORDINARY);
        }
        Outside(command.spawn().unwrap())
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
