//! Results and errors as a person reads them in a terminal. Styles are always written; the stream
//! strips them where nobody can see them.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};

use crate::consult::ConsultResult;
use crate::consult::answer::{Finding, Severity, Verdict};
use crate::consult::citation::{Citation, Status};
use crate::consult::export::{lines, target, winner};
use crate::consult::result::Standing;
use crate::consult::thread::{Stance, State};
use crate::error::Error;
use crate::kimi::text::first_chars;

pub(super) const BOLD: Style = Style::new().bold();
pub(super) const DIM: Style = Style::new().dimmed();
pub(super) const GOOD: Style = AnsiColor::Green.on_default();
pub(super) const WARN: Style = AnsiColor::Yellow.on_default();
pub(super) const BAD: Style = AnsiColor::Red.on_default();

/// The widest that prose is set, columns; longer lines are hard to read.
const MAX_WIDTH: usize = 100;

/// The width to set prose in.
pub(super) fn width() -> usize {
    textwrap::termwidth().clamp(40, MAX_WIDTH)
}

pub(super) fn styled(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// A whole result.
pub(super) fn result(result: &ConsultResult, width: usize) -> String {
    let provenance = &result.provenance;
    let time = match provenance.elapsed_ms {
        short @ ..1000 => format!("{short} ms"),
        long => format!("{} s", long.div_ceil(1000)),
    };
    let origin = format!("{} {} · {time}", provenance.dialect, provenance.version);
    let mut text =
        format!("{}  {}\n\n", styled(BOLD, "Kimi's second opinion"), styled(DIM, &origin));
    if !result.parse_ok {
        let note = "The answer did not come in the form that was asked for; this is Kimi's text as it came.";
        text.push_str(&paragraph(&styled(WARN, note), "", "", width));
        text.push('\n');
    }
    text.push_str(&paragraph(&result.answer.response, "", "", width));
    text.push('\n');
    if let Some(choice) = &result.answer.verdict {
        text.push_str(&verdict(choice, width));
    }
    text.push_str(&replies(result, width));
    if result.parse_ok && result.answer.findings.is_empty() {
        let none = if result.answer.replies.is_empty() { "No finding." } else { "No new finding." };
        text.push_str(&styled(GOOD, none));
        text.push_str("\n\n");
    }
    for finding in &result.answer.findings {
        text.push_str(&one_finding(finding, width));
        text.push('\n');
    }
    let lists = [
        ("Risks that remain", &result.answer.key_risks),
        ("Assumptions", &result.answer.assumptions),
        ("Alternatives", &result.answer.alternatives),
        ("Attacked, and it held", &result.answer.survived),
        ("Not examined", &result.answer.not_examined),
    ];
    for (title, items) in lists {
        text.push_str(&list(title, items, width));
    }
    if !result.answer.confidence.is_empty() {
        text.push_str(&paragraph(
            &format!("{} {}", styled(BOLD, "Confidence"), result.answer.confidence),
            "",
            "  ",
            width,
        ));
        text.push('\n');
    }
    text.push_str(&evidence(result, width));
    text.push_str(&list("Warnings", &result.warnings, width));
    if let Some(thread) = &result.thread {
        let head = format!(
            "{} {}, round {}, {}",
            styled(BOLD, "Thread"),
            thread.id,
            thread.round,
            thread.state.name()
        );
        text.push_str(&paragraph(
            &format!("{head}. {}", next_at_the_shell(thread)),
            "",
            "  ",
            width,
        ));
    }
    text.trim_end().to_owned() + "\n"
}

/// The judge's choice, with every score.
pub(super) fn verdict(choice: &Verdict, width: usize) -> String {
    let mut text = format!("{} {}\n\n", styled(BOLD, "Winner"), winner(choice));
    for score in &choice.scores {
        let head = format!("{:>4} {}, {}: ", score.score, score.option, score.criterion);
        text.push_str(&paragraph(&format!("{head}{}", score.reason), "  ", "       ", width));
    }
    text + "\n"
}

pub(super) fn one_finding(finding: &Finding, width: usize) -> String {
    let severity = match finding.severity {
        Severity::Blocker | Severity::Major => BAD,
        Severity::Minor => WARN,
        Severity::Note => DIM,
    };
    let ground = if finding.grounded {
        String::new()
    } else {
        styled(WARN, "  not grounded: no citation holds")
    };
    let name = finding.severity.name().to_uppercase();
    let mut text =
        format!("{} {}{ground}\n", styled(BOLD, &finding.id), styled(severity.bold(), &name));
    text.push_str(&paragraph(&finding.claim, "   ", "   ", width));
    for (name, value) in
        [("Fails:  ", &finding.failure_scenario), ("Instead:", &finding.suggestion)]
    {
        if !value.is_empty() {
            text.push_str(&paragraph(
                &format!("{} {value}", styled(DIM, name)),
                "   ",
                "            ",
                width,
            ));
        }
    }
    for citation in &finding.citations {
        text.push_str(&one_citation(citation, width));
    }
    text
}

fn one_citation(citation: &Citation, width: usize) -> String {
    let (mark, style, note) = match citation.status {
        Status::Verified => ("✓", GOOD, ""),
        Status::Moved => ("✓", GOOD, " (moved: the lines are corrected)"),
        Status::NotInTrace => ("?", WARN, " (it stands there, but Kimi did not read the file)"),
        Status::Mismatch => ("✗", BAD, " (the quote is not in the file)"),
        Status::Missing => ("✗", BAD, " (there is no such file, or it could not be read)"),
        Status::Outside => ("✗", BAD, " (not in the project)"),
    };
    let lines = lines(citation);
    let mut text = format!("   {} {}{lines}{note}\n", styled(style, mark), citation.path);
    for line in citation.quote.lines().take(5) {
        let cut = first_chars(line, width.saturating_sub(8));
        let more = if cut.len() < line.len() { "…" } else { "" };
        let _ = writeln!(text, "     {}", styled(DIM, &format!("│ {cut}{more}")));
    }
    text
}

pub(super) fn evidence(result: &ConsultResult, width: usize) -> String {
    if result.evidence.is_empty() {
        return String::new();
    }
    let calls: Vec<String> = result
        .evidence
        .iter()
        .map(|call| {
            let failed = if call.ok { "" } else { " (failed)" };
            first_chars(&format!("{} {}{failed}", call.tool, target(call).unwrap_or_default()), 80)
                .to_owned()
        })
        .collect();
    let shown = calls.iter().take(12).cloned().collect::<Vec<_>>().join(" · ");
    let more = match calls.len() {
        0..=12 => String::new(),
        all => format!(" · and {} more", all - 12),
    };
    paragraph(&format!("{} {shown}{more}", styled(BOLD, "Kimi looked at")), "", "  ", width) + "\n"
}

pub(super) fn list(title: &str, items: &[String], width: usize) -> String {
    if items.is_empty() {
        return String::new();
    }
    let mut text = styled(BOLD, title) + "\n";
    for item in items {
        text.push_str(&paragraph(item, "  • ", "    ", width));
    }
    text + "\n"
}

/// Wraps each line of a text by itself, so that lists and code that Kimi wrote keep their lines.
pub(super) fn paragraph(text: &str, first: &str, rest: &str, width: usize) -> String {
    let mut out = String::new();
    for (at, line) in text.trim_end().lines().enumerate() {
        let initial = if at == 0 { first } else { rest };
        let options = textwrap::Options::new(width)
            .initial_indent(initial)
            .subsequent_indent(rest)
            .word_splitter(textwrap::WordSplitter::NoHyphenation);
        for wrapped in textwrap::wrap(line, options) {
            out.push_str(wrapped.trim_end());
            out.push('\n');
        }
    }
    out
}

/// What to type next.
fn next_at_the_shell(thread: &Standing) -> String {
    let id = &thread.id;
    match thread.state {
        State::Unfinished => format!("Ask again: kimi-bridge consult --thread {id}"),
        State::AwaitingAdjudication => format!(
            "Answer {}: kimi-bridge consult --thread {id} --adopt FINDING --reject FINDING=REASON …",
            thread.open.join(", ")
        ),
        State::Settled | State::Contested => {
            format!("Decide: kimi-bridge threads decide {id} --decision … --rationale …")
        }
        State::Decided => format!("Look back: kimi-bridge threads show {id}"),
    }
}

/// What Kimi makes of each rejection.
fn replies(result: &ConsultResult, width: usize) -> String {
    let mut text = String::new();
    for reply in &result.answer.replies {
        let (stance, style) = match reply.stance {
            Stance::Withdraw => ("withdraws", GOOD),
            Stance::Refine => ("refines", WARN),
            Stance::Maintain => ("maintains", BAD),
        };
        let flag = if reply.capitulated {
            styled(WARN, "  gave in without naming a fact")
        } else {
            String::new()
        };
        let _ =
            writeln!(text, "{} Kimi {}{flag}", styled(BOLD, &reply.finding), styled(style, stance));
        text.push_str(&paragraph(&reply.because, "   ", "   ", width));
        text.push('\n');
    }
    text
}

/// An error, with every problem and the next step.
pub(super) fn error(error: &Error) -> String {
    let mut text = format!("{} {}\n", styled(BAD.bold(), "error:"), error.message);
    for violation in &error.violations {
        let _ = writeln!(text, "  - {violation}");
    }
    let _ = writeln!(text, "{} {}", styled(BOLD, "hint:"), error.hint);
    if let Some(partial) = &error.partial {
        let calls = partial["evidence"].as_array().map_or(0, Vec::len);
        let _ = writeln!(text, "{} {calls} tool calls", styled(BOLD, "arrived before that:"));
        if let Some(response) = partial["response"].as_str() {
            let _ = writeln!(text, "{response}");
        }
        let warnings = partial["warnings"].as_array().into_iter().flatten();
        for warning in warnings.filter_map(serde_json::Value::as_str) {
            let _ = writeln!(text, "{} {warning}", styled(WARN.bold(), "warning:"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prose_is_wrapped_and_its_own_lines_are_kept() {
        let text = paragraph("one two three\n- four", "• ", "  ", 10);
        assert_eq!(text, "• one two\n  three\n  - four\n");
    }
}
