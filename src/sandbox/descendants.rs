//! Who descends from this process, by the table of processes.

use std::collections::BTreeMap;
use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, getsid};

/// Kills the children of this process that are in another session, and returns whether there was any: they are what
/// a program left whose keeper was killed. A keeper stays in the session of the bridge; each program gets a session of
/// its own, and no process can join another session than the one it was made in.
pub(super) fn kill_orphans() -> bool {
    let (me, session) = (std::process::id().cast_signed(), getsid(None));
    let children = parents().into_iter().filter(|&(_, parent)| parent == me);
    let children = children.map(|(pid, _)| Pid::from_raw(pid));
    let orphans: Vec<Pid> = children.filter(|&pid| getsid(Some(pid)) != session).collect();
    for &orphan in &orphans {
        // An error means that it has ended.
        let _ = kill(orphan, Signal::SIGKILL);
        let _ = waitpid(orphan, Some(WaitPidFlag::WNOHANG));
    }
    !orphans.is_empty()
}

/// Every process that descends from this one, whatever group or session it moved to. One whose parent
/// has died is found as well, as long as this process adopts orphans.
pub(super) fn descendants() -> Vec<Pid> {
    let parents = parents();
    let me = std::process::id().cast_signed();
    let descends = |pid: &i32| {
        let mut at = *pid;
        // A chain of parents has no circle, but the table changes while it is read.
        for _ in 0..=parents.len() {
            match parents.get(&at) {
                Some(&parent) if parent == me => return true,
                Some(&parent) => at = parent,
                None => return false,
            }
        }
        false
    };
    parents.keys().filter(|pid| descends(pid)).map(|&pid| Pid::from_raw(pid)).collect()
}

fn parents() -> BTreeMap<i32, i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter_map(|pid| Some((pid, parent_in(&fs::read(format!("/proc/{pid}/stat")).ok()?)?)))
        .collect()
}

/// The parent that a line of `/proc/PID/stat` names: the second word behind the program's name, which
/// stands in brackets and may hold anything.
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
