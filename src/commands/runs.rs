//! `kimi-bridge runs`: the runs of Kimi in the ledger.

use std::fmt::Write as _;

use super::output;
use super::render::{BOLD, styled};
use super::threads::age;
use crate::cli::Runs;
use crate::error::Result;
use crate::ledger::{Ledger, RunRow, now};
use crate::settings::Config;

pub(super) fn run(args: &Runs, config: &Config) -> Result<u8> {
    let runs = Ledger::open(config.state_dir())?.runs(args.limit)?;
    let text = match runs.as_slice() {
        runs if args.json => output::json(&runs)?,
        [] => "No runs.\n".to_owned(),
        runs => runs.iter().map(line).collect(),
    };
    output::print(&text)?;
    Ok(0)
}

fn line(run: &RunRow) -> String {
    let mut text = format!("{}  {}  {}", styled(BOLD, &run.id), run.tool, run.state.name());
    if let Some(error) = &run.error {
        let _ = write!(text, " ({error})");
    }
    if let (Some(thread), Some(round)) = (&run.thread_id, run.round) {
        let _ = write!(text, "  thread {thread}, round {round}");
    }
    if let Some(ended) = run.ended_at {
        let _ = write!(text, "  {} s", ended - run.started_at);
    }
    let _ = writeln!(text, "  {}", age(now() - run.started_at));
    text
}
