//! The two hooks of the Claude Code plugin. One shows Kimi's own words to the user, because hosts fold tool results
//! away. The other has a plan challenged by Kimi before the user sees it. A hook ignores every event that it does not
//! know or cannot read, so that it never blocks the host.

mod event;
mod ledger;
mod notice;
mod plan;

use serde_json::Value;

pub(crate) use self::plan::plan;
use crate::settings::Config;

/// Returns the round in an event as text for the user; `None` for every other event. Reads the round from the ledger if
/// it can, because the host may have shortened the event's copy.
pub(crate) fn show(event: &Value, config: &Config) -> Option<String> {
    let result = event::result_in(event)?;
    let stored_result = stored_result(&result, config);
    Some(notice::text(stored_result.as_ref().unwrap_or(&result), &result["thread"]))
}

/// Returns the same result from the ledger; `None` if this process has another ledger than the server, or if the
/// responses differ. They differ if the call did not ask Kimi because nothing was left open: its result then names a
/// round with another response.
fn stored_result(result: &Value, config: &Config) -> Option<Value> {
    let id = result["thread"]["id"].as_str()?.to_owned();
    let (_, rounds) = ledger::read(config.state_dir(), move |ledger| ledger.thread(&id))??;
    let number = result["thread"]["round"].as_u64()?;
    let round = rounds.into_iter().find(|round| u64::from(round.number) == number)?;
    let kept: Value = serde_json::from_str(&round.result?).ok()?;
    (kept["response"] == result["response"]).then_some(kept)
}
