//! The descendants of this process, from the table of processes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::OnceLock;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, getsid};

/// The sessions of the children that this process had before it started a keeper: where a shell becomes the bridge by
/// `exec`, its children become the bridge's.
static FOREIGN: OnceLock<BTreeSet<i32>> = OnceLock::new();

/// Records the children that no keeper started. Must be called before the first keeper starts.
pub(super) fn note_foreign() {
    FOREIGN.get_or_init(|| {
        let children = children();
        let own = children.get(&me()).into_iter().flatten();
        own.filter_map(|&pid| session(pid)).collect()
    });
}

fn session(pid: i32) -> Option<i32> {
    getsid(Some(Pid::from_raw(pid))).ok().map(Pid::as_raw)
}

/// Kills the children of this process that are in another session, with all that descends from them, and returns
/// whether there was any: they are what a program left whose keeper was killed. A keeper stays in the session of the
/// bridge; each program gets a session of its own, and no process can join another session than the one it was made in.
/// Sessions that were there before the first keeper are spared.
pub(super) fn kill_orphans() -> bool {
    let bridges = session(me());
    let foreign = FOREIGN.get();
    let is_of_a_run =
        |its: i32| Some(its) != bridges && foreign.is_none_or(|foreign| !foreign.contains(&its));
    let children = children();
    let own = children.get(&me()).into_iter().flatten().copied();
    let orphans: Vec<i32> = own.filter(|&pid| session(pid).is_some_and(is_of_a_run)).collect();
    let has_any = !orphans.is_empty();
    for orphan in below(&children, orphans) {
        // An error means that it has ended.
        let _ = kill(orphan, Signal::SIGKILL);
        let _ = waitpid(orphan, Some(WaitPidFlag::WNOHANG));
    }
    has_any
}

/// Every descendant of this process, in whatever group or session. Processes whose parent has died are included while
/// this process adopts orphans.
pub(super) fn descendants() -> Vec<Pid> {
    let children = children();
    below(&children, children.get(&me()).cloned().unwrap_or_default())
}

fn me() -> i32 {
    std::process::id().cast_signed()
}

/// The given processes and all their descendants, each once, although the table changes while it is read.
fn below(children: &BTreeMap<i32, Vec<i32>>, mut from: Vec<i32>) -> Vec<Pid> {
    let mut found = BTreeSet::new();
    while let Some(pid) = from.pop() {
        if found.insert(pid) {
            from.extend(children.get(&pid).into_iter().flatten());
        }
    }
    found.into_iter().map(Pid::from_raw).collect()
}

/// The children of every process.
fn children() -> BTreeMap<i32, Vec<i32>> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for (pid, parent) in parents() {
        children.entry(parent).or_default().push(pid);
    }
    children
}

fn parents() -> impl Iterator<Item = (i32, i32)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| Some((pid, parent_in(&fs::read(format!("/proc/{pid}/stat")).ok()?)?)))
}

/// The parent in a line of `/proc/PID/stat`: the second word after the name of the program, which is in brackets and
/// may contain anything.
fn parent_in(stat: &[u8]) -> Option<i32> {
    let behind = stat.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(&stat[behind + 1..]).ok()?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_read_whatever_the_program_is_called() {
        let check = |stat: &str, parent| assert_eq!(parent_in(stat.as_bytes()), parent, "{stat}");
        check("12 (sh) S 7 12 12 0", Some(7));
        check("12 (a) S 1 (b)) R 42 12 12 0", Some(42));
        check("12 (a\n) Z 9 0", Some(9));
        check("", None);
        check("12 (sh)", None);
    }

    #[test]
    fn a_child_is_found() {
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let pid = Pid::from_raw(child.id().cast_signed());
        assert!(descendants().contains(&pid));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!descendants().contains(&pid));
    }
}
