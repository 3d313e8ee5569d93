//! A thread as one HTML page. The template escapes everything; only [`prose`] and [`line`] write tags.

use std::fmt::Write as _;

use minijinja::value::Value as Jinja;
use minijinja::{AutoEscape, HtmlEscape};

use super::prose::{Block, Span, blocks, spans};
use super::render;
use crate::consult::record::Record;
use crate::error::Result;

const PAGE: &str = include_str!("../../../templates/export/thread.html.j2");
const STYLE: &str = include_str!("../../../templates/export/thread.css");

/// Renders a self-contained page.
pub(crate) fn html(record: &Record) -> Result<String> {
    render(record, &[("thread", PAGE)], |environment| {
        environment.set_auto_escape_callback(|_| AutoEscape::Html);
        environment.add_filter("prose", |text: &str| Jinja::from_safe_string(prose(text)));
        environment.add_filter("line", |text: &str| Jinja::from_safe_string(line(text)));
        environment.add_filter("trim_end", |text: &str| text.trim_end().to_owned());
        environment.add_global("style", Jinja::from_safe_string(STYLE.to_owned()));
    })
}

/// Renders a text as paragraphs, lists and code.
fn prose(text: &str) -> String {
    let broken =
        |lines: &[&str]| lines.iter().map(|text| line(text)).collect::<Vec<_>>().join("<br>");
    let mut out = String::new();
    for block in blocks(text) {
        let _ = match block {
            Block::Paragraph(lines) => write!(out, "<p dir=\"auto\">{}</p>", broken(&lines)),
            Block::Code(lines) => {
                write!(out, "<pre><code>{}</code></pre>", HtmlEscape(&lines.join("\n")))
            }
            Block::List(first, items) => {
                let (open, close) = first.map_or(("<ul>".to_owned(), "</ul>"), |first| {
                    (format!("<ol start=\"{first}\">"), "</ol>")
                });
                let items =
                    items.iter().map(|item| format!("<li dir=\"auto\">{}</li>", broken(item)));
                write!(out, "{open}{}{close}", items.collect::<String>())
            }
        };
    }
    out
}

/// Renders a line of text and code.
fn line(text: &str) -> String {
    let mut out = String::new();
    let mut strong = false;
    for span in spans(text) {
        let _ = match span {
            Span::Strong => {
                strong = !strong;
                out.write_str(if strong { "<strong>" } else { "</strong>" })
            }
            Span::Text(text) => write!(out, "{}", HtmlEscape(text)),
            Span::Code(code) => write!(out, "<code>{}</code>", HtmlEscape(code)),
        };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::{cleaned, fixture};
    use super::*;

    /// The words of a page, separated by one space, and its tags.
    fn read(page: &str) -> (String, Vec<String>) {
        let (mut text, mut tags) = (String::new(), Vec::new());
        let mut rest = page;
        while let Some((before, after)) = rest.split_once('<') {
            text.push_str(before);
            let (tag, after) = after.split_once('>').expect("a tag ends");
            assert!(!tag.contains('<'), "{tag}");
            tags.push(tag.to_owned());
            let blocks =
                ["p", "li", "ol", "ul", "br", "/p", "/li", "pre", "/pre", "dd", "dt", "div"];
            if blocks.contains(&tag.split_whitespace().next().unwrap_or_default()) {
                text.push(' ');
            }
            rest = after;
        }
        text.push_str(rest);
        for (entity, c) in [
            ("&lt;", "<"),
            ("&gt;", ">"),
            ("&quot;", "\""),
            ("&#x27;", "'"),
            ("&#x2f;", "/"),
            ("&amp;", "&"),
        ] {
            text = text.replace(entity, c);
        }
        (words(&text), tags)
    }

    fn words(text: &str) -> String {
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn every_page_is_complete_and_outside_text_is_never_markup() {
        for record in fixture::all() {
            let page = html(&record).unwrap();
            assert!(page.contains("content=\"default-src 'none'; style-src 'unsafe-inline'\""));
            let (_, tags) = read(&page);
            let mut open: Vec<&str> = Vec::new();
            for tag in &tags {
                let name =
                    tag.trim_start_matches('/').split_whitespace().next().unwrap_or_default();
                assert!(!matches!(name, "script" | "img" | "b" | "link" | "iframe"), "<{tag}>");
                assert!(
                    !tag.contains(" on") && !tag.contains("http:") && !tag.contains("src="),
                    "<{tag}>"
                );
                if let Some(closed) = tag.strip_prefix('/') {
                    assert_eq!(open.pop(), Some(closed), "</{closed}>");
                } else if !matches!(name, "!doctype" | "meta" | "br" | "hr") {
                    open.push(name);
                }
            }
            assert_eq!(open, Vec::<&str>::new());
            assert!(!STYLE.contains("url(") && !STYLE.contains("@import"));
        }
    }

    #[test]
    fn every_finding_and_every_reason_is_on_the_page() {
        let record = fixture::argued();
        let (text, _) = read(&html(&record).unwrap());
        let has = |part: &str| {
            for block in blocks(part) {
                let lines = match block {
                    Block::Paragraph(lines) | Block::Code(lines) => lines,
                    Block::List(_, items) => items.concat(),
                };
                for line in lines {
                    let code = spans(line).into_iter().map(|span| match span {
                        Span::Text(text) | Span::Code(text) => text,
                        Span::Strong => "",
                    });
                    let line = words(&code.collect::<String>());
                    assert!(text.contains(&line), "{line} is missing in {text}");
                }
            }
        };
        let record = cleaned(&record);
        for round in &record.rounds {
            round.adjudications.iter().for_each(|answer| has(&answer.reasoning));
            let result = round.result.as_ref().unwrap();
            has(&result.answer.response);
            result.answer.replies.iter().for_each(|reply| has(&reply.because));
            for finding in &result.answer.findings {
                has(&finding.claim);
                has(&finding.failure_scenario);
                has(&finding.suggestion);
                for citation in &finding.citations {
                    assert!(text.contains(&words(&citation.quote)), "{}", citation.quote);
                    assert!(text.contains(&citation.path), "{}", citation.path);
                }
            }
        }
        let decision = record.decision.unwrap();
        has(&decision.decision);
        has(&decision.rationale);
        has(&record.message);
    }

    #[test]
    fn prose_keeps_its_paragraphs_and_nothing_else() {
        assert_eq!(
            prose("a `b<c`\nd\n\n- e\n- f\n\n2. g\n\n```\n</pre>\n```"),
            "<p dir=\"auto\">a <code>b&lt;c</code><br>d</p>\
             <ul><li dir=\"auto\">e</li><li dir=\"auto\">f</li></ul>\
             <ol start=\"2\"><li dir=\"auto\">g</li></ol><pre><code>&lt;&#x2f;pre&gt;</code></pre>"
        );
    }
}
