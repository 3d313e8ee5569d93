//! A whole thread as a person reads it in a terminal: the proposal, the rounds, below each finding
//! what was said about it, and at the end what came of it all.

use std::fmt::Write as _;

use anstyle::Style;
use serde_json::Value;

use super::render::{
    BAD, BOLD, DIM, GOOD, WARN, evidence, list, one_finding, paragraph, styled, verdict,
};
use crate::consult::export::{
    Account, Outcome, Point, Said, Turn, actor, cleaned, date, failure, subject,
};
use crate::consult::record::{Record, RoundRecord};
use crate::consult::thread::{Ruling, Stance, State};

/// A whole thread.
pub(super) fn thread(record: &Record, width: usize) -> String {
    let record = cleaned(record);
    let account = Account::of(&record);
    let mut text = head(&account, width);
    text.push_str(&proposal(&account, width));
    for round in &record.rounds {
        text.push_str(&one_round(round, &account, width));
    }
    for (title, items) in account.lists() {
        let items: Vec<String> = items.into_iter().map(str::to_owned).collect();
        text.push_str(&list(title, &items, width));
    }
    text.push_str(&contested(&account, width));
    if let Some(decision) = &record.decision {
        let _ = writeln!(
            text,
            "{} {}",
            styled(GOOD.bold(), "Decided"),
            styled(DIM, &date(decision.at))
        );
        text.push_str(&paragraph(&decision.decision, "  ", "  ", width));
        let because = format!("{} {}", styled(DIM, "Because:"), decision.rationale);
        text.push_str(&paragraph(&because, "  ", "  ", width));
    }
    text.trim_end().to_owned() + "\n"
}

fn head(account: &Account<'_>, width: usize) -> String {
    let record = account.record;
    let standing = match record.state {
        State::Decided | State::Settled => GOOD,
        State::AwaitingAdjudication | State::Contested => WARN,
        State::Unfinished => BAD,
    };
    let mut text = paragraph(&styled(BOLD, &account.title()), "", "", width);
    let _ = writeln!(text, "{}", styled(standing, account.standing()));
    let facts = format!(
        "{} · {} · opened {} · {}",
        record.id,
        record.role,
        date(record.opened_at),
        record.project.display()
    );
    text.push_str(&faint(&facts, "", width));
    let counts: Vec<String> = account
        .outcomes()
        .into_iter()
        .map(|(outcome, count)| format!("{count} {outcome}"))
        .collect();
    if !counts.is_empty() {
        let all = account.points.len();
        let plural = if all == 1 { "" } else { "s" };
        text.push_str(&faint(&format!("{all} finding{plural}: {}", counts.join(", ")), "", width));
    }
    text + "\n"
}

fn proposal(account: &Account<'_>, width: usize) -> String {
    let mut text = styled(BOLD, subject(account.record.role)) + "\n";
    if account.record.message.trim() != account.title() {
        text.push_str(&paragraph(&account.record.message, "  ", "  ", width));
    }
    for (name, value) in account.context() {
        let _ = writeln!(text, "  {}", styled(DIM, &name));
        text.push_str(&field(value, "    ", width));
    }
    text + "\n"
}

fn field(value: &Value, indent: &str, width: usize) -> String {
    let deeper = format!("{indent}  ");
    match value {
        Value::String(words) => paragraph(words, indent, indent, width),
        Value::Array(items) => items
            .iter()
            .map(|item| {
                let item = field(item, &deeper, width);
                item.replacen(&deeper, &format!("{indent}• "), 1)
            })
            .collect(),
        Value::Object(fields) => fields
            .iter()
            .filter(|(_, value)| value.as_array().is_none_or(|all| !all.is_empty()))
            .map(|(name, value)| match value {
                Value::String(words) => {
                    paragraph(&format!("{name}: {words}"), indent, &deeper, width)
                }
                _ => format!("{indent}{name}:\n{}", field(value, &deeper, width)),
            })
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => format!("{indent}{value}\n"),
    }
}

fn one_round(round: &RoundRecord, account: &Account<'_>, width: usize) -> String {
    let mut origin = date(round.opened_at);
    if let Some(result) = &round.result {
        let from = &result.provenance;
        let seconds = from.elapsed_ms.div_ceil(1_000);
        let _ = write!(origin, " · {} {} · {seconds} s", from.dialect, from.version);
    }
    let title = format!("Round {}", round.number);
    let mut text = format!("{}  {}\n\n", styled(BOLD, &title), styled(DIM, &origin));
    if let Some((message, hint)) = failure(round) {
        text.push_str(&paragraph(
            &format!("{} {message}", styled(BAD, "No answer:")),
            "",
            "",
            width,
        ));
        text.push_str(&paragraph(&hint, "", "", width));
        text.push('\n');
    }
    let Some(result) = &round.result else { return text };
    if !result.parse_ok {
        let note = "The answer did not come in the form that was asked for; this is Kimi's text as it came.";
        text.push_str(&paragraph(&styled(WARN, note), "", "", width));
    }
    text.push_str(&paragraph(&result.answer.response, "", "", width));
    text.push('\n');
    if let Some(choice) = &result.answer.verdict {
        text.push_str(&verdict(choice, width));
    }
    if result.parse_ok && round.number == 1 && result.answer.findings.is_empty() {
        text.push_str(&styled(GOOD, "No finding."));
        text.push_str("\n\n");
    }
    for point in account.points.iter().filter(|point| point.round == round.number) {
        text.push_str(&one_point(point, width));
        text.push('\n');
    }
    if !result.answer.confidence.is_empty() {
        let words = format!("{} {}", styled(BOLD, "Confidence"), result.answer.confidence);
        text.push_str(&paragraph(&words, "", "  ", width));
        text.push('\n');
    }
    text.push_str(&evidence(result, width));
    text.push_str(&list("Warnings", &result.warnings, width));
    text
}

fn one_point(point: &Point<'_>, width: usize) -> String {
    let mut text = one_finding(point.finding, width);
    for turn in &point.turns {
        text.push_str(&one_turn(turn, width));
    }
    let style = match point.outcome {
        Outcome::Adopted => GOOD,
        Outcome::Withdrawn => DIM,
        Outcome::Capitulated | Outcome::Rejected | Outcome::Open => WARN,
        Outcome::Contested => BAD,
    };
    let _ = writeln!(text, "   {}", styled(style.bold(), &format!("= {}", point.outcome)));
    text
}

fn one_turn(turn: &Turn<'_>, width: usize) -> String {
    let mark = if turn.said.is_callers() { "▸" } else { "◂" };
    let style: Style = match turn.said {
        Said::Ruled(Ruling::Adopt) => GOOD,
        Said::Ruled(Ruling::Reject) => BAD,
        Said::Replied(Stance::Withdraw) => DIM,
        Said::Replied(Stance::Refine | Stance::Maintain) => BOLD,
        Said::Capitulated | Said::Silent => WARN,
    };
    let mut text = format!("   {mark} {}: {}\n", actor(turn), styled(style, turn.said.name()));
    text.push_str(&paragraph(turn.why, "     ", "     ", width));
    if let Some(note) = turn.said.note() {
        text.push_str(&paragraph(&styled(WARN, note), "     ", "     ", width));
    }
    text
}

fn contested(account: &Account<'_>, width: usize) -> String {
    let points = account.points.iter().filter(|point| point.outcome == Outcome::Contested);
    let items: Vec<String> = points
        .map(|point| {
            let (caller, kimi) = point.sides();
            let claim = point.finding.claim.lines().next().unwrap_or_default();
            let id = &point.finding.id;
            format!("{id} {claim}\nThe caller: {caller}\nKimi: {kimi}")
        })
        .collect();
    list("Contested", &items, width)
}

fn faint(text: &str, indent: &str, width: usize) -> String {
    let wrapped = paragraph(text, indent, indent, width);
    wrapped.lines().map(|line| styled(DIM, line) + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consult::export::fixture;

    /// A thread as it looks where nobody sees styles.
    fn plain(record: &Record) -> String {
        anstream::adapter::strip_str(&thread(record, 80)).to_string()
    }

    #[test]
    fn an_argument_reads_from_the_proposal_to_the_decision() {
        insta::assert_snapshot!(plain(&fixture::argued()));
    }

    #[test]
    fn the_judges_scores_stand_below_the_choice() {
        insta::assert_snapshot!(plain(&fixture::judged()));
    }

    #[test]
    fn a_thread_without_an_answer_says_why() {
        insta::assert_snapshot!(plain(&fixture::unfinished()));
    }

    #[test]
    fn the_callers_words_cannot_steer_the_terminal() {
        let text = thread(&fixture::argued(), 80);
        assert!(text.contains("RED") && !text.contains("\u{1b}[31mRED"), "{text}");
    }
}
