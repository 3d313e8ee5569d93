//! Time and memory of the proof that a project did not change.
//!
//! ```text
//! cargo bench --bench workspace -- FOLDER...
//! ```
//!
//! Prints for each folder (this project, unless some are named) how long each step takes, when the
//! system has the folder's entries in memory, and the most memory that the process ever held.
#![expect(clippy::print_stdout, reason = "a benchmark's figures are its output")]

use std::path::{Path, PathBuf};
use std::time::Instant;

use kimi_bridge::workspace::{Limits, Snapshot};

fn main() {
    let folders: Vec<PathBuf> =
        std::env::args_os().skip(1).filter(|word| word != "--bench").map(PathBuf::from).collect();
    let here = [PathBuf::from(env!("CARGO_MANIFEST_DIR"))];
    for folder in if folders.is_empty() { &here[..] } else { &folders } {
        measure(folder);
    }
}

fn measure(folder: &Path) {
    let limits = Limits::default();
    // The first one waits for the disk.
    drop(Snapshot::take(folder, &[], &limits));

    let start = Instant::now();
    let mut snapshot = Snapshot::take(folder, &[], &limits);
    let took = start.elapsed();

    let start = Instant::now();
    snapshot.remember_contents(|| false);
    let remembered = start.elapsed();

    let start = Instant::now();
    let changes = snapshot.changes();
    let compared = start.elapsed();

    let entries = snapshot.entries();
    #[expect(clippy::cast_precision_loss, reason = "a rate needs few digits")]
    let rate = entries as f64 / took.as_secs_f64();
    println!("{}", folder.display());
    println!("  take                {took:>10.1?}  {entries} entries, {rate:.0} a second");
    println!("  remember contents   {remembered:>10.1?}");
    println!("  changes             {compared:>10.1?}  {:?}", changes.workspace_changed());
    println!("  peak memory         {}", peak().as_deref().unwrap_or("not told here"));
    for warning in changes.warnings() {
        println!("  {warning}");
    }
}

fn peak() -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    Some(status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.trim().to_owned())
}
