//! A thread as a decision record in Markdown, to commit beside the code.

use minijinja::AutoEscape;
use minijinja::value::Value as Jinja;

use super::marks::{cell, code, fence, labelled, line, prefixed, prose, quoted};
use super::{render, trim_tag_lines};
use crate::consult::record::Record;
use crate::error::Result;

const RECORD: &str = include_str!("../../../templates/export/thread.md.j2");

/// Renders a decision record. Text without a filter in the template is escaped as one line.
pub(crate) fn markdown(record: &Record) -> Result<String> {
    let text = render(record, &[("thread", RECORD)], |environment| {
        trim_tag_lines(environment);
        environment.set_auto_escape_callback(|_| AutoEscape::Custom("markdown".into()));
        environment.set_formatter(|out, _, value| {
            match value.as_str().filter(|_| !value.is_safe()) {
                Some(text) => out.write_str(&line(text)),
                None => write!(out, "{value}"),
            }
            .map_err(minijinja::Error::from)
        });
        let mut add = |name: &'static str, write: fn(&str) -> String| {
            environment.add_filter(name, move |text: &str| Jinja::from_safe_string(write(text)));
        };
        add("line", line);
        add("prose", prose);
        add("quoted", quoted);
        add("code", code);
        add("cell", cell);
        add("item", |text| prefixed("- ", "  ", text));
        environment.add_filter("labelled", |text: &str, label: &str| {
            Jinja::from_safe_string(labelled(label, text))
        });
        environment.add_filter("fence", |text: &str, language: &str| {
            Jinja::from_safe_string(fence(text, language))
        });
        environment.add_filter("language", |path: &str| language(path).to_owned());
    })?;
    Ok(text.trim_end().to_owned() + "\n")
}

/// The language of a file, as a fence names it; empty if the file name does not show it.
fn language(path: &str) -> &str {
    let extension = path.rsplit_once('.').map_or("", |(_, extension)| extension);
    let known = extension.len() <= 8 && extension.chars().all(|c| c.is_ascii_alphanumeric());
    if known { extension } else { "" }
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[test]
    fn a_thread_becomes_a_decision_record() {
        insta::assert_snapshot!(markdown(&fixture::argued()).unwrap());
    }

    #[test]
    fn the_judges_choice_is_a_table() {
        insta::assert_snapshot!(markdown(&fixture::judged()).unwrap());
    }

    #[test]
    fn a_thread_without_an_answer_shows_the_reason() {
        insta::assert_snapshot!(markdown(&fixture::unfinished()).unwrap());
    }

    #[test]
    fn text_without_a_filter_is_escaped() {
        let mut record = fixture::argued();
        let result = record.rounds[0].result.as_mut().unwrap();
        result.provenance.version = "<b> *1*\n# 2".to_owned();
        let text = markdown(&record).unwrap();
        assert!(text.contains(r"kimi-code &lt;b> \*1\* # 2, 75 s"), "{text}");
    }
}
