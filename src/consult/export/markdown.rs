//! An argument as a decision record in Markdown, to commit beside the code.

use std::fmt::Write as _;

use serde_json::Value;

use super::account::{Account, Point};
use super::cleaned;
use super::exchange::{Outcome, Turn, actor};
use super::marks::{below, cell_of, code, fence, labelled, line, prose, quoted};
use super::phrases::{date, failure, lines, subject, target, winner};
use crate::consult::answer::Verdict;
use crate::consult::citation::{Citation, Status};
use crate::consult::record::{Record, RoundRecord};
use crate::consult::result::ConsultResult;
use crate::kimi::text::first_chars;

/// Tool calls that are listed for each round.
const MAX_CALLS: usize = 40;

/// A decision record.
pub(crate) fn markdown(record: &Record) -> String {
    let record = cleaned(record);
    let account = Account::of(&record);
    let mut out = format!("# {}\n\n{}\n", line(&account.title()), facts(&account));
    if let Some(decision) = &record.decision {
        let _ = write!(out, "## Decision\n\n{}\n", prose(&decision.decision));
        if !decision.rationale.trim().is_empty() {
            let _ = write!(out, "**Because:**\n\n{}\n", prose(&decision.rationale));
        }
    }
    let _ = write!(out, "## {}\n\n{}\n", subject(record.role), quoted(&prose(&record.message)));
    for (name, value) in account.context() {
        let _ = write!(out, "**{}**\n\n{}\n", line(&name), field(&name, value));
    }
    for round in &record.rounds {
        out.push_str(&one_round(round, &account));
    }
    out.push_str(&contested(&account));
    for (title, items) in account.lists() {
        let _ = writeln!(out, "## {title}\n");
        for item in items {
            out.push_str(&below("- ", "  ", &prose(item)));
        }
        out.push('\n');
    }
    out.push_str(&provenance(&record));
    out.trim_end().to_owned() + "\n"
}

fn facts(account: &Account<'_>) -> String {
    let record = account.record;
    let mut out = format!("- **Status:** {}\n", account.standing());
    let changed = record.decision.as_ref().map_or(record.updated_at, |decision| decision.at);
    let _ = writeln!(out, "- **Date:** {}, opened {}", date(changed), date(record.opened_at));
    let project = record.project.file_name().unwrap_or(record.project.as_os_str());
    let _ = writeln!(out, "- **Project:** {}", code(&project.to_string_lossy()));
    let _ = writeln!(out, "- **Kimi's role:** {}", record.role);
    let _ = writeln!(out, "- **Rounds:** {}", record.rounds.len());
    let counts: Vec<String> = account
        .outcomes()
        .into_iter()
        .map(|(outcome, count)| format!("{count} {outcome}"))
        .collect();
    let counts = if counts.is_empty() { "none".to_owned() } else { counts.join(", ") };
    let _ = writeln!(out, "- **Findings:** {counts}");
    let _ = writeln!(out, "- **Thread:** {}", code(&record.id));
    out
}

fn one_round(round: &RoundRecord, account: &Account<'_>) -> String {
    let mut out = format!("## Round {}\n\n", round.number);
    if let Some((message, hint)) = failure(round) {
        let _ = writeln!(out, "{}", prose(&format!("No answer: {message}. {hint}")));
    }
    let Some(result) = &round.result else { return out };
    if !result.parse_ok {
        out.push_str("The answer did not come in the form that was asked for; this is Kimi's text as it came.\n\n");
    }
    let _ = writeln!(out, "{}", quoted(&prose(&result.answer.response)));
    if let Some(choice) = &result.answer.verdict {
        let _ = writeln!(out, "{}", verdict(choice));
    }
    if !result.answer.confidence.is_empty() {
        out.push_str(&labelled("**Confidence:**", &result.answer.confidence));
    }
    for point in account.points.iter().filter(|point| point.round == round.number) {
        out.push('\n');
        out.push_str(&one_point(point));
    }
    out.trim_end().to_owned() + "\n\n"
}

fn verdict(choice: &Verdict) -> String {
    let mut out = format!("**Winner:** {}\n\n", line(winner(choice)));
    if choice.scores.is_empty() {
        return out;
    }
    out.push_str("| Option | Criterion | Score | Reason |\n|---|---|--:|---|\n");
    for score in &choice.scores {
        let cells = [&score.option, &score.criterion, &score.score.to_string(), &score.reason];
        let cells = cells.map(|cell| cell_of(cell));
        let _ = writeln!(out, "| {} |", cells.join(" | "));
    }
    out
}

fn one_point(point: &Point<'_>) -> String {
    let finding = point.finding;
    let ground = if finding.grounded { "" } else { " · not grounded" };
    let mut out = format!(
        "### {} · {} · {}{ground}\n\n",
        line(&finding.id),
        finding.severity.name(),
        point.outcome
    );
    out.push_str(&prose(&finding.claim));
    for (name, text) in [("Fails", &finding.failure_scenario), ("Instead", &finding.suggestion)] {
        if !text.trim().is_empty() {
            let _ = write!(out, "\n{}", labelled(&format!("**{name}:**"), text));
        }
    }
    for citation in &finding.citations {
        let _ = write!(out, "\n{}", one_citation(citation));
    }
    if !point.turns.is_empty() {
        out.push_str("\n**The exchange**\n\n");
        for turn in &point.turns {
            out.push_str(&below("- ", "  ", &one_turn(turn)));
        }
    }
    out
}

fn one_turn(turn: &Turn<'_>) -> String {
    let notes = turn.said.note().map(|note| format!(" *{note}*")).unwrap_or_default();
    let head = format!("**{}: {}.**{notes}", actor(turn), turn.said.name());
    labelled(&head, turn.why)
}

fn one_citation(citation: &Citation) -> String {
    let status = match citation.status {
        Status::Verified => "✓ verified",
        Status::Moved => "✓ moved: the lines are corrected",
        Status::NotInTrace => "? not in trace: it stands there, but Kimi did not read the file",
        Status::Mismatch => "✗ mismatch: the quote is not in the file",
        Status::Missing => "✗ missing: there is no such file, or it could not be read",
        Status::Outside => "✗ outside the project",
    };
    let place = code(&format!("{}{}", citation.path, lines(citation)));
    let mut out = format!("{place} — {status}\n");
    if !citation.quote.trim().is_empty() {
        let language = citation.path.rsplit_once('.').map_or("", |(_, extension)| extension);
        let known = language.len() <= 8 && language.chars().all(|c| c.is_ascii_alphanumeric());
        let _ = write!(out, "\n{}", fence(&citation.quote, if known { language } else { "" }));
    }
    out
}

fn contested(account: &Account<'_>) -> String {
    let mut out = String::new();
    for point in account.points.iter().filter(|point| point.outcome == Outcome::Contested) {
        let claim = point.finding.claim.lines().next().unwrap_or_default();
        let mut sides = format!("**{}:** {}\n\n", line(&point.finding.id), line(claim));
        let (caller, kimi) = point.sides();
        for (name, words) in [("The caller", caller), ("Kimi", kimi)] {
            sides.push_str(&below("- ", "  ", &labelled(&format!("{name}:"), words)));
        }
        out.push_str(&below("- ", "  ", &sides));
    }
    if out.is_empty() { out } else { format!("## Contested\n\n{out}\n") }
}

fn provenance(record: &Record) -> String {
    let mut out = "## Provenance\n\n".to_owned();
    for round in &record.rounds {
        let told = round.result.as_ref().map_or("no answer".to_owned(), from_whom);
        let _ = writeln!(out, "- Round {}: {}, {told}", round.number, date(round.opened_at));
        for warning in round.result.iter().flat_map(|result| &result.warnings) {
            let _ = writeln!(out, "  - Warning: {}", line(warning));
        }
        if let Some(looked) = round.result.as_ref().and_then(looked_at) {
            let _ = writeln!(out, "  - Kimi looked at: {looked}");
        }
    }
    out.push_str("\nA citation's status was found by kimi-bridge from the files and from Kimi's tool calls; it is not Kimi's word.\n");
    out
}

fn from_whom(result: &ConsultResult) -> String {
    let from = &result.provenance;
    let sandbox = serde_json::to_value(from.sandbox).unwrap_or_default();
    let session = from.session_id.as_ref().map(|id| format!(", session {}", code(id)));
    format!(
        "{} {}, {} s, sandbox {}, {} redacted{}",
        from.dialect,
        line(&from.version),
        from.elapsed_ms.div_ceil(1_000),
        sandbox.as_str().unwrap_or("unknown"),
        match from.redactions {
            1 => "1 secret".to_owned(),
            count => format!("{count} secrets"),
        },
        session.unwrap_or_default()
    )
}

fn looked_at(result: &ConsultResult) -> Option<String> {
    let calls = result.evidence.iter().take(MAX_CALLS).map(|call| {
        let failed = if call.ok { "" } else { " (failed)" };
        let target = target(call).map(|target| format!(" {}", code(first_chars(target, 100))));
        format!("{}{}{failed}", line(&call.tool), target.unwrap_or_default())
    });
    let calls: Vec<String> = calls.collect();
    let more = result.evidence.len().saturating_sub(MAX_CALLS);
    let more = if more == 0 { String::new() } else { format!(", and {more} more") };
    (!calls.is_empty()).then(|| calls.join(", ") + &more)
}

/// A value of the context.
fn field(name: &str, value: &Value) -> String {
    match value {
        Value::String(text) if name == "Logs" => fence(text, "text"),
        Value::String(text) => quoted(&prose(text)),
        Value::Array(items) => {
            items.iter().map(|item| below("- ", "  ", &plain(item))).collect::<String>()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => plain(value),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => prose(text),
        Value::Array(items) => items.iter().map(|item| below("- ", "  ", &plain(item))).collect(),
        Value::Object(fields) => {
            let told = fields
                .iter()
                .filter(|(_, value)| value.as_array().is_none_or(|all| !all.is_empty()));
            let told = told.map(|(name, value)| {
                let name = format!("*{}:*", line(name));
                match value {
                    Value::String(text) => labelled(&name, text),
                    _ => format!("{name}\n\n{}", plain(value)),
                }
            });
            told.collect::<Vec<_>>().join("\n")
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => format!("{value}\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[test]
    fn an_argument_reads_as_a_decision_record() {
        insta::assert_snapshot!(markdown(&fixture::argued()));
    }

    #[test]
    fn the_judges_choice_is_a_table() {
        insta::assert_snapshot!(markdown(&fixture::judged()));
    }

    #[test]
    fn a_thread_without_an_answer_says_why() {
        insta::assert_snapshot!(markdown(&fixture::unfinished()));
    }
}
