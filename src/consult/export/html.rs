//! An argument as one HTML page. Its looks stand in `templates/export/`; this file says what stands on
//! it. The template escapes whatever it is given; only [`prose`] writes tags of its own.

use std::fmt::Write as _;

use minijinja::value::{Serde, Value as Jinja};
use minijinja::{AutoEscape, Environment, HtmlEscape, UndefinedBehavior};
use serde_json::{Value, json};

use super::account::{Account, Point};
use super::exchange::{Outcome, actor};
use super::phrases::{date, failure, lines, subject, target, winner};
use super::prose::{Block, Span, blocks, spans};
use super::{at_fault, cleaned};
use crate::consult::answer::Severity;
use crate::consult::citation::{Citation, Status};
use crate::consult::record::{Record, RoundRecord};
use crate::error::Result;

const PAGE: &str = include_str!("../../../templates/export/thread.html.j2");
const STYLE: &str = include_str!("../../../templates/export/thread.css");

/// One page that needs nothing else.
pub(crate) fn html(record: &Record) -> Result<String> {
    let record = cleaned(record);
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.add_filter("prose", |text: String| Jinja::from_safe_string(prose(&text)));
    environment.add_filter("line", |text: String| Jinja::from_safe_string(line(&text)));
    environment.add_template("page", PAGE).map_err(|error| at_fault(&error))?;
    let page = environment.get_template("page").map_err(|error| at_fault(&error))?;
    let values = minijinja::context! {
        style => Jinja::from_safe_string(STYLE.to_owned()),
        v => Jinja::from(Serde(&view(&Account::of(&record)))),
    };
    page.render(values).map_err(|error| at_fault(&error))
}

/// Everything that stands on the page.
fn view(account: &Account<'_>) -> Value {
    let record = account.record;
    let count =
        |severity| account.points.iter().filter(|point| point.finding.severity == severity).count();
    let contested = account.points.iter().filter(|point| point.outcome == Outcome::Contested);
    json!({
        "title": account.title(),
        "message": if record.message.trim() == account.title() { "" } else { &record.message },
        "role": record.role.name(),
        "subject": subject(record.role),
        "project": record.project.display().to_string(),
        "id": record.id,
        "state": record.state.name(),
        "standing": account.standing(),
        "opened": date(record.opened_at),
        "updated": date(record.updated_at),
        "lead": account.lead(),
        "winner": account.last_answer().and_then(|result| result.answer.verdict.as_ref()).map_or("", winner),
        "calls": record.rounds.iter().flat_map(|round| &round.result).any(|result| !result.evidence.is_empty()),
        "confidence": account.last_answer().map_or("", |result| result.answer.confidence.as_str()),
        "findings": account.points.len(),
        "grounded": account.points.iter().filter(|point| point.finding.grounded).count(),
        "severities": Severity::ALL.map(|severity| json!({"name": severity.name(), "count": count(severity)})),
        "outcomes": account.outcomes().into_iter().map(|(outcome, count)| {
            json!({"kind": outcome, "name": outcome.name(), "count": count})
        }).collect::<Vec<_>>(),
        "decision": record.decision.as_ref().map(|decision| json!({
            "decision": decision.decision, "rationale": decision.rationale, "at": date(decision.at),
        })),
        "contested": contested.map(|point| {
            let (caller, kimi) = point.sides();
            json!({"id": point.finding.id, "claim": point.finding.claim, "severity": point.finding.severity,
                   "caller": caller, "kimi": kimi})
        }).collect::<Vec<_>>(),
        "context": account.context().into_iter().map(|(name, value)| {
            json!({"name": name, "html": field(&name, value)})
        }).collect::<Vec<_>>(),
        "rounds": record.rounds.iter().map(|round| one_round(round, account)).collect::<Vec<_>>(),
        "lists": account.lists().into_iter().map(|(title, items)| {
            json!({"title": title, "items": items})
        }).collect::<Vec<_>>(),
    })
}

fn one_round(round: &RoundRecord, account: &Account<'_>) -> Value {
    let points = account.points.iter().filter(|point| point.round == round.number);
    let points: Vec<Value> = points.map(one_point).collect();
    let again = round.result.as_ref().map_or(0, |result| result.answer.replies.len());
    json!({
        "number": round.number,
        "at": date(round.opened_at),
        "failure": failure(round).map(|(message, hint)| json!({"message": message, "hint": hint})),
        "points": points,
        "again": again,
        "transcript": round.transcript.as_ref().map(|path| path.display().to_string()),
        "result": round.result.as_ref().map(|result| json!({
            "parse_ok": result.parse_ok,
            "response": result.answer.response,
            "confidence": result.answer.confidence,
            "warnings": result.warnings,
            "incomplete_trace": result.incomplete_trace,
            "verdict": result.answer.verdict,
            "winner": result.answer.verdict.as_ref().map_or("", winner),
            "evidence": result.evidence.iter().map(|call| json!({
                "tool": call.tool, "target": target(call).unwrap_or_default(), "summary": call.summary, "ok": call.ok,
            })).collect::<Vec<_>>(),
            "seconds": result.provenance.elapsed_ms.div_ceil(1_000),
            "provenance": result.provenance,
            "session": result.provenance.session_id.as_deref().unwrap_or_default(),
        })),
    })
}

fn one_point(point: &Point<'_>) -> Value {
    let finding = point.finding;
    json!({
        "id": finding.id,
        "severity": finding.severity,
        "claim": finding.claim,
        "fails": finding.failure_scenario,
        "instead": finding.suggestion,
        "grounded": finding.grounded,
        "outcome": point.outcome,
        "outcome_name": point.outcome.name(),
        "citations": finding.citations.iter().map(one_citation).collect::<Vec<_>>(),
        "turns": point.turns.iter().map(|turn| json!({
            "caller": turn.said.is_callers(), "actor": actor(turn), "act": turn.said.name(),
            "why": turn.why, "note": turn.said.note().unwrap_or_default(),
        })).collect::<Vec<_>>(),
    })
}

fn one_citation(citation: &Citation) -> Value {
    let (mark, words, means) = match citation.status {
        Status::Verified => ("✓", "verified", "It stands there, and Kimi read the file."),
        Status::Moved => {
            ("↷", "moved", "It stands elsewhere in the file; the lines are corrected.")
        }
        Status::NotInTrace => {
            ("?", "not in trace", "It stands there, but Kimi did not read the file.")
        }
        Status::Mismatch => ("≠", "mismatch", "The quote is nowhere in the file."),
        Status::Missing => ("✗", "missing", "There is no such file, or it could not be read."),
        Status::Outside => ("⊘", "outside", "The file is not in the project."),
    };
    json!({"path": citation.path, "lines": lines(citation), "quote": citation.quote.trim_end(),
           "status": citation.status, "mark": mark, "words": words, "means": means})
}

/// A value of the context.
fn field(name: &str, value: &Value) -> String {
    match value {
        Value::String(text) if name == "Logs" => {
            format!("<pre><code>{}</code></pre>", HtmlEscape(text))
        }
        Value::String(text) => prose(text),
        Value::Array(items) => {
            let items =
                items.iter().map(|item| format!("<li dir=\"auto\">{}</li>", field("", item)));
            format!("<ul>{}</ul>", items.collect::<String>())
        }
        Value::Object(fields) => {
            let told = fields
                .iter()
                .filter(|(_, value)| value.as_array().is_none_or(|all| !all.is_empty()));
            let told = told.map(|(name, value)| {
                format!("<div><dt>{}</dt><dd>{}</dd></div>", HtmlEscape(name), field("", value))
            });
            format!("<dl class=\"record\">{}</dl>", told.collect::<String>())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {
            HtmlEscape(&value.to_string()).to_string()
        }
    }
}

/// A text of any length as paragraphs, lists and code.
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

/// One line of text and code.
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
    use super::super::fixture;
    use super::*;

    /// The words of a page, one space between them, and its tags.
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
    fn every_page_is_whole_and_nothing_from_outside_is_markup() {
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
    fn every_finding_and_every_reason_stands_on_the_page() {
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
