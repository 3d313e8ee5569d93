//! The checks of the bridge's own folder: the ledger, and the free disk space.

use super::check::Check;
use crate::error::Kind;
use crate::ledger::{Health, StateFolder};
use crate::settings::Config;

/// The bytes of free space below which a consultation cannot be saved, which is a problem.
const PROBLEM_BYTES: u64 = 16 * MEGABYTE;
/// The bytes of free space below which the disk is a warning.
const WARNING_BYTES: u64 = 500 * MEGABYTE;
const MEGABYTE: u64 = 1_000_000;

pub(super) fn checks(config: &Config, left_behind: usize) -> Vec<Check> {
    let mut checks = vec![state_folder(config)];
    checks.extend(free_space(&StateFolder::examine(config.state_dir())));
    match Health::read(config.state_dir()) {
        Ok(Some(Health { version, threads, older })) => {
            let threads =
                if threads == 1 { "1 thread".to_owned() } else { format!("{threads} threads") };
            checks.push(Check::ok("ledger", format!("opens; version {version}, {threads}")));
            checks.extend(older.into_iter().map(|file| {
                let file = file.display();
                let says = format!(
                    "{file} has the threads of an older version, which this one does not read"
                );
                Check::note("ledger", says)
            }));
        }
        Ok(None) => {
            checks
                .push(Check::ok("ledger", "there is none yet; the first consultation creates it"));
        }
        Err(error) => checks.push(Check::error("ledger", &error)),
    }
    if left_behind > 0 {
        let says = format!(
            "{left_behind} left behind, by a bridge that was killed or by a run that wrote very much; later runs \
             remove them"
        );
        checks.push(Check::note("runs", says));
    }
    checks
}

fn state_folder(config: &Config) -> Check {
    let path = config.state_dir().display();
    let state = StateFolder::examine(config.state_dir());
    if !state.writable {
        return Check::problem(
            "folder",
            Kind::Spawn,
            format!("{path} cannot be written to"),
            "Make it writable, or set `state_dir` to a folder that is.",
        );
    }
    match state.rights.map(|rights| (rights, rights & 0o077)) {
        None => Check::ok("folder", format!("{path}, which the first run creates")),
        Some((_, 0)) => Check::ok("folder", format!("{path}, closed to others")),
        Some((rights, _)) => Check::warning(
            "folder",
            format!("{path} is open to other users (rights {rights:o})"),
            format!("Close it: `chmod 700 {path}`."),
        ),
    }
}

fn free_space(state: &StateFolder) -> Option<Check> {
    let megabytes = state.free? / MEGABYTE;
    let says = if megabytes < 10_000 {
        format!("{megabytes} MB are free")
    } else {
        format!("{} GB are free", megabytes / 1000)
    };
    let remedy = "Free disk space, or set `state_dir` to a folder on another disk.";
    Some(match state.free? {
        ..PROBLEM_BYTES => Check::problem("disk", Kind::Ledger, says, remedy),
        PROBLEM_BYTES..WARNING_BYTES => Check::warning("disk", says, remedy),
        WARNING_BYTES.. => Check::ok("disk", says),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::CheckStatus;

    #[test]
    fn a_disk_that_is_nearly_full_is_reported() {
        let check = |free: Option<u64>, expected: Option<(CheckStatus, &str)>| {
            let disk = free_space(&StateFolder { rights: None, writable: true, free });
            let disk = disk.as_ref().map(|check| (check.status, check.says.as_str()));
            assert_eq!(disk, expected);
        };
        check(None, None);
        check(Some(3 * MEGABYTE), Some((CheckStatus::Problem, "3 MB are free")));
        check(Some(499 * MEGABYTE), Some((CheckStatus::Warning, "499 MB are free")));
        check(Some(500 * MEGABYTE), Some((CheckStatus::Ok, "500 MB are free")));
        check(Some(12_345 * MEGABYTE), Some((CheckStatus::Ok, "12 GB are free")));
    }
}
