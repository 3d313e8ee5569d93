//! Renders results and errors as text for a terminal, always with styles. The output stream removes them if the
//! terminal supports none.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use minijinja::value::{Serde, Value as Jinja};
use minijinja::{AutoEscape, Environment};

use crate::consult::ConsultResult;
use crate::consult::export::{self, Tone};
use crate::consult::record::Record;
use crate::consult::result::Standing;
use crate::consult::thread::State;
use crate::error::{Error, Result};
use crate::kimi::text::first_chars;

const TEMPLATES: [(&str, &str); 3] = [
    ("parts", include_str!("../../templates/terminal/parts.j2")),
    ("result", include_str!("../../templates/terminal/result.j2")),
    ("thread", include_str!("../../templates/terminal/thread.j2")),
];

pub(super) const BOLD: Style = Style::new().bold();
pub(super) const DIM: Style = Style::new().dimmed();
pub(super) const GOOD: Style = AnsiColor::Green.on_default();
pub(super) const WARN: Style = AnsiColor::Yellow.on_default();
pub(super) const BAD: Style = AnsiColor::Red.on_default();

/// The largest width of prose in columns; longer lines are hard to read.
const MAX_WIDTH: usize = 100;

/// Returns the width of prose in columns: that of the terminal, within limits.
pub(super) fn width() -> usize {
    textwrap::termwidth().clamp(40, MAX_WIDTH)
}

pub(super) fn styled(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// Renders a whole result.
pub(super) fn result(result: &ConsultResult, width: usize) -> Result<String> {
    let next = result.thread.as_ref().map(next_at_the_shell);
    let values = minijinja::context! { result => Jinja::from(Serde(result)), next };
    let text = export::fill("result", values, &TEMPLATES, |all| add_filters(all, width))?;
    Ok(text.trim_end().to_owned() + "\n")
}

/// Renders a whole thread: the proposal, the rounds with the exchange below each finding, and the end.
pub(super) fn thread(record: &Record, width: usize) -> Result<String> {
    let text = export::render(record, &TEMPLATES, |all| add_filters(all, width))?;
    Ok(text.trim_end().to_owned() + "\n")
}

/// Adds the template filters for a terminal.
fn add_filters(environment: &mut Environment<'_>, width: usize) {
    export::trim_tag_lines(environment);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.add_filter("bold", |text: &str| styled(BOLD, text));
    environment.add_filter("tone", |text: &str, tone: Serde<Tone>| styled(style(*tone), text));
    environment.add_filter("wrap", move |text: &str, first: &str, rest: &str| {
        paragraph(text, first, rest, width)
    });
    environment.add_filter("quoted", move |line: &str| {
        let cut = first_chars(line, width.saturating_sub(8));
        format!("│ {cut}{}", if cut.len() < line.len() { "…" } else { "" })
    });
}

fn style(tone: Tone) -> Style {
    match tone {
        Tone::Good => GOOD,
        Tone::Doubt => WARN,
        Tone::Bad => BAD,
        Tone::Quiet => DIM,
    }
}

/// Wraps each line of a text separately, so that lists and code from Kimi keep their line breaks.
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

/// Returns the next command for the user to type.
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
        State::Decided | State::GivenUp => format!("Look back: kimi-bridge threads show {id}"),
    }
}

/// Renders an error, with every problem and the next step.
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
    use crate::consult::export::fixture;

    #[test]
    fn prose_is_wrapped_and_keeps_its_line_breaks() {
        let text = paragraph("one two three\n- four", "• ", "  ", 10);
        assert_eq!(text, "• one two\n  three\n  - four\n");
    }

    /// Renders a thread without styles.
    fn plain(record: &Record) -> String {
        anstream::adapter::strip_str(&thread(record, 80).unwrap()).to_string()
    }

    #[test]
    fn a_thread_is_shown_from_the_proposal_to_the_decision() {
        insta::assert_snapshot!(plain(&fixture::argued()));
    }

    #[test]
    fn the_judges_scores_are_shown_below_the_choice() {
        insta::assert_snapshot!(plain(&fixture::judged()));
    }

    #[test]
    fn a_thread_without_an_answer_shows_the_reason() {
        insta::assert_snapshot!(plain(&fixture::unfinished()));
    }

    #[test]
    fn the_callers_text_cannot_control_the_terminal() {
        let text = thread(&fixture::argued(), 80).unwrap();
        assert!(text.contains("RED") && !text.contains("\u{1b}[31mRED"), "{text}");
    }
}
