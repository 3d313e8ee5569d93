//! The hooks of the Claude Code plugin: one shows Kimi's own words to the person, since hosts fold results away, and one
//! has a plan challenged before it is shown to the person. A hook is never in the way: it ignores every event that it does
//! not know or cannot read.

mod event;
mod ledger;
mod notice;
mod plan;

use serde_json::Value;

pub(crate) use self::plan::plan;
use crate::settings::Loaded;

/// The words of the round that an event brings, for the person; `None` for every other event. The ledger has them whole;
/// the event's own copy may be shortened.
pub(crate) fn show(event: &Value, loaded: &Loaded) -> Option<String> {
    let result = event::result_in(event)?;
    let remembered = remembered(&result, loaded);
    Some(notice::text(remembered.as_ref().unwrap_or(&result), &result["thread"]))
}

/// The same result as the ledger keeps it, where this process's ledger is the one of the server. A call in which Kimi was
/// not asked, because nothing was left open, has another response than the round that it names.
fn remembered(result: &Value, loaded: &Loaded) -> Option<Value> {
    let id = result["thread"]["id"].as_str()?.to_owned();
    let (_, rounds) = ledger::read(loaded.state_dir(), move |ledger| ledger.thread(&id))??;
    let number = result["thread"]["round"].as_u64()?;
    let round = rounds.into_iter().find(|round| u64::from(round.number) == number)?;
    let kept: Value = serde_json::from_str(&round.result?).ok()?;
    (kept["response"] == result["response"]).then_some(kept)
}
