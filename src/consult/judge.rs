//! The judge: the options in both orders, the winner by its name, and the merge of two answers.

use super::answer::{Answer, Finding, Verdict};
use super::reading::Reading;
use super::request::Context;
use super::result::{ConsultResult, number};
use super::role::{JudgeOption, RoleContext};
use crate::error::Violation;
use crate::kimi::text::first_chars;

/// The most characters of a name that a warning repeats.
const NAMED: usize = 100;
/// The most characters of the second answer that a warning repeats when the winners differ.
const SAID: usize = 600;

/// The request with the options in reverse order; `None` for another role.
pub(super) fn reversed(context: &Context) -> Option<Context> {
    let RoleContext::Judge(judge) = &context.about else { return None };
    let mut judge = judge.clone();
    judge.options.reverse();
    Some(Context { about: RoleContext::Judge(judge), ..context.clone() })
}

/// Replaces the winner and the scores in a judge's reading by names of the options. A winner that is no option makes
/// the answer unreadable, since nothing else in it decides. Readings of other roles stay unchanged.
pub(super) fn resolved(mut reading: Reading, about: &RoleContext) -> Reading {
    let RoleContext::Judge(judge) = about else { return reading };
    let Ok(Answer { verdict: Some(verdict), .. }) = &mut reading.answer else { return reading };
    let options = &judge.options;
    match verdict.winner.as_deref().map(|winner| (winner, choice(winner, options))) {
        None => {}
        Some((_, Choice::Option(name))) => verdict.winner = Some(name),
        Some((_, Choice::NoOption)) => verdict.winner = None,
        Some((winner, Choice::Unknown)) => {
            let names: Vec<&str> = options.iter().map(|option| option.name.as_str()).collect();
            let expected = format!(
                "expected the name of one option ({}) or null, found `{}`",
                names.join(", "),
                first_chars(winner, NAMED)
            );
            reading.answer = Err(vec![Violation::new("/verdict/winner", expected)]);
            return reading;
        }
    }
    score(verdict, options, &mut reading.warnings);
    reading
}

/// Replaces the options of the scores by their names, and limits the scores to 0 to 10.
fn score(verdict: &mut Verdict, options: &[JudgeOption], warnings: &mut Vec<String>) {
    verdict.scores.retain_mut(|score| {
        let Choice::Option(name) = choice(&score.option, options) else {
            let option = first_chars(&score.option, NAMED);
            warnings.push(format!(
                "the score {} of `{option}`, which is no option, was left out",
                score.score
            ));
            return false;
        };
        score.option = name;
        if !(0.0..=10.0).contains(&score.score) {
            let within = score.score.clamp(0.0, 10.0);
            warnings.push(format!(
                "the score {} of {} by {} was taken for {within}: scores go from 0 to 10",
                score.score,
                score.option,
                first_chars(&score.criterion, NAMED)
            ));
            score.score = within;
        }
        true
    });
}

/// Texts that mean no winner.
const NO_OPTION: [&str; 8] =
    ["", "none", "null", "neither", "no option", "none of them", "无", "都不"];

/// The option that a text names.
#[derive(Debug, PartialEq)]
enum Choice {
    Option(String),
    /// No option is acceptable.
    NoOption,
    Unknown,
}

/// Finds the option that a text names by its name, or by its place in the prompt as "option 2", "B" or "the second".
/// White space, case and markdown are ignored; a name may be longer or shorter if only one matches.
fn choice(text: &str, options: &[JudgeOption]) -> Choice {
    if let Some(option) = options.iter().find(|option| option.name == text) {
        return Choice::Option(option.name.clone());
    }
    let names: Vec<String> = options.iter().map(|option| plain(&option.name)).collect();
    let text = plain(text);
    let found = only(&names, |name| name == text)
        .or_else(|| only(&names, |name| begins_with(name, &text)))
        .or_else(|| by_place(&text, options.len()))
        .or_else(|| by_place_and_name(&text, &names))
        .or_else(|| by_beginning(&text, &names));
    match found {
        Some(at) => Choice::Option(options[at].name.clone()),
        None if NO_OPTION.contains(&text.as_str()) => Choice::NoOption,
        None => Choice::Unknown,
    }
}

/// The only name that matches.
fn only(names: &[String], fits: impl Fn(&str) -> bool) -> Option<usize> {
    let mut found = names.iter().enumerate().filter(|(_, name)| fits(name)).map(|(at, _)| at);
    found.next().filter(|_| found.next().is_none())
}

/// The option that a text names by both place and name, such as "Option 1: SQLite".
fn by_place_and_name(text: &str, names: &[String]) -> Option<usize> {
    let (place, name) = text.split_once([':', ')', '.', '-', '–', '—', ',', '('])?;
    let (at, name) = (by_place(place, names.len())?, name.trim_matches([' ', ')', ':']));
    (begins_with(name, &names[at]) || begins_with(&names[at], name)).then_some(at)
}

/// The option whose name a text begins with, such as "SQLite (embedded)". Of "SQLite" and "SQLite with WAL", the longer
/// match counts; a text with the name of another option matches none.
fn by_beginning(text: &str, names: &[String]) -> Option<usize> {
    let fitting = (0..names.len()).filter(|&at| begins_with(text, &names[at]));
    let longest = &names[fitting.max_by_key(|&at| names[at].len())?];
    let is_other = |name: &String| !begins_with(longest, name) && holds_word(text, name);
    let has_other = names.iter().any(is_other);
    only(names, |name| name == longest).filter(|_| !has_other)
}

/// A name in lower case, without article, markdown, and surrounding quotation marks and punctuation.
fn plain(name: &str) -> String {
    let name: String = name.chars().filter(|c| !"*`\"“”„«»「」".contains(*c)).collect();
    let name = name.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ");
    let name = name.trim_matches(|c: char| "_'‘’.,;:!#[]<> ".contains(c));
    name.strip_prefix("the ").unwrap_or(name).to_owned()
}

/// Returns whether a text begins with a name that ends at a word boundary.
fn begins_with(text: &str, name: &str) -> bool {
    let rest = text.strip_prefix(name).filter(|_| !name.is_empty());
    rest.is_some_and(|rest| !rest.starts_with(char::is_alphanumeric))
}

/// Returns whether a text contains a name at word boundaries.
fn holds_word(text: &str, name: &str) -> bool {
    text.match_indices(name).any(|(at, _)| {
        !text[..at].ends_with(char::is_alphanumeric) && begins_with(&text[at..], name)
    })
}

/// The option that a text names by its place, such as "option 2", "b", "the second one" or "方案二".
fn by_place(text: &str, options: usize) -> Option<usize> {
    const BEFORE: [&str; 11] = [
        "option",
        "choice",
        "alternative",
        "candidate",
        "number",
        "no.",
        "选项",
        "方案",
        "第",
        "选",
        "(",
    ];
    const AFTER: [&str; 8] = [" one", " option", " choice", ")", ".", "个方案", "个选项", "个"];
    const NUMBERS: [[&str; 4]; 10] = [
        ["1", "one", "first", "一"],
        ["2", "two", "second", "二"],
        ["3", "three", "third", "三"],
        ["4", "four", "fourth", "四"],
        ["5", "five", "fifth", "五"],
        ["6", "six", "sixth", "六"],
        ["7", "seven", "seventh", "七"],
        ["8", "eight", "eighth", "八"],
        ["9", "nine", "ninth", "九"],
        ["10", "ten", "tenth", "十"],
    ];
    let mut rest = text.trim();
    for word in BEFORE {
        rest = rest.strip_prefix(word).unwrap_or(rest).trim_start_matches([' ', '#']);
    }
    for word in AFTER {
        rest = rest.strip_suffix(word).unwrap_or(rest).trim_end();
    }
    let letter = match rest.as_bytes() {
        &[letter @ b'a'..=b'z'] => Some(usize::from(letter - b'a')),
        _ => None,
    };
    let number = || NUMBERS.iter().position(|names| names.contains(&rest));
    letter.or_else(number).filter(|&at| at < options)
}

/// Merges the answers to both orders: a winner that changes with the order is dropped, and the findings of both are
/// kept.
pub(super) fn merged(mut first: ConsultResult, mut other: ConsultResult) -> ConsultResult {
    let (own, others) = (&mut first.provenance, &other.provenance);
    own.elapsed_ms += others.elapsed_ms;
    own.redactions += others.redactions;
    if !(first.parse_ok && other.parse_ok) {
        // The session of each order is saved separately, so the provenance stays that of the first.
        let provenance = first.provenance.clone();
        let mut kept = if other.parse_ok { other } else { first };
        if kept.parse_ok {
            kept.warnings.push(in_one_order("the other answer could not be read"));
        }
        return ConsultResult { provenance, ..kept };
    }
    let winner =
        |answer: &Answer| answer.verdict.as_ref().and_then(|verdict| verdict.winner.clone());
    let (winner, reversed) = (winner(&first.answer), winner(&other.answer));
    if winner != reversed {
        let name = |winner: Option<String>| {
            winner.map_or("none".to_owned(), |name| first_chars(&name, NAMED).to_owned())
        };
        first.warnings.push(format!(
            "the winner changes with the order of the options: {} in the order given, {} in the other, which says: {}",
            name(winner),
            name(reversed),
            first_chars(&other.answer.response, SAID)
        ));
        if let Some(verdict) = &mut first.answer.verdict {
            verdict.winner = None;
            verdict.contested = true;
        }
    }
    let first_finding =
        first.answer.findings.iter().chain(&other.answer.findings).filter_map(number_of).min();
    let Answer {
        findings,
        replies,
        key_risks,
        assumptions,
        alternatives,
        survived,
        not_examined,
        ..
    } = other.answer;
    let is_new =
        |finding: &Finding| first.answer.findings.iter().all(|one| one.claim != finding.claim);
    let findings: Vec<Finding> = findings.into_iter().filter(is_new).collect();
    first.answer.findings.extend(findings);
    number(&mut first.answer.findings, first_finding.unwrap_or(1));
    first.answer.replies.extend(replies);
    for (list, more) in [
        (&mut first.answer.key_risks, key_risks),
        (&mut first.answer.assumptions, assumptions),
        (&mut first.answer.alternatives, alternatives),
        (&mut first.answer.survived, survived),
        (&mut first.answer.not_examined, not_examined),
        (&mut first.warnings, std::mem::take(&mut other.warnings)),
    ] {
        let new: Vec<String> = more.into_iter().filter(|item| !list.contains(item)).collect();
        list.extend(new);
    }
    first.evidence.extend(other.evidence);
    first.incomplete_trace |= other.incomplete_trace;
    first
}

/// The warning that only one order was answered.
pub(super) fn in_one_order(why: &str) -> String {
    format!("the options were judged in one order only: {why}")
}

fn number_of(finding: &Finding) -> Option<usize> {
    finding.id.strip_prefix('F')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::reading;
    use super::super::role::{Judge, Role};
    use super::*;

    fn options(names: &[&str]) -> Vec<JudgeOption> {
        let option = |name: &&str| JudgeOption {
            name: (*name).to_owned(),
            summary: "s".to_owned(),
            pros: vec![],
            cons: vec![],
        };
        names.iter().map(option).collect()
    }

    #[track_caller]
    fn check(text: &str, names: &[&str], expected: Option<&str>) {
        let expected = expected.map_or(Choice::Unknown, |name| Choice::Option(name.to_owned()));
        assert_eq!(choice(text, &options(names)), expected, "{text}");
    }

    #[test]
    fn a_winner_is_recognized_by_its_name_or_its_place() {
        let two = ["SQLite", "append-only log"];
        for text in [
            "SQLite",
            "sqlite",
            " SQLITE ",
            "**SQLite**",
            "`sqlite`",
            "\"SQLite\".",
            "SQLite (embedded)",
            "SQLite, since it is atomic",
            "Option 1",
            "option one",
            "1",
            "#1",
            "A",
            "(a)",
            "Option A",
            "the first",
            "The first option",
            "first one",
            "Option 1: SQLite",
            "A) SQLite",
            "1. sqlite",
            "Option 1 (SQLite)",
            "方案一",
            "第一个",
            "选项1",
        ] {
            check(text, &two, Some("SQLite"));
        }
        for text in [
            "append-only  log",
            "Append-only",
            "b",
            "the second",
            "Option 2",
            "the append-only log",
        ] {
            check(text, &two, Some("append-only log"));
        }
        for text in [
            "Postgres",
            "SQLite or append-only log",
            "Option 3",
            "c",
            "Option 2: SQLite",
            "SQLiteX",
            "both",
            "a log",
        ] {
            check(text, &two, None);
        }
        // The order is that of the prompt.
        check("Option 1", &["append-only log", "SQLite"], Some("append-only log"));
        // A match by name wins.
        check("B", &["B", "A"], Some("B"));
        check("2", &["2", "1"], Some("2"));
        check("A", &["B: SQLite", "A: log"], Some("A: log"));
        // Names with the same beginning.
        check("SQLite with WAL", &["SQLite", "SQLite with WAL"], Some("SQLite with WAL"));
        check(
            "sqlite with wal (embedded)",
            &["SQLite", "SQLite with WAL"],
            Some("SQLite with WAL"),
        );
        check("sqlite", &["SQLite", "SQLite with WAL"], Some("SQLite"));
        check("SQLite", &["SQLite (embedded)", "Postgres"], Some("SQLite (embedded)"));
        check("SQLite", &["SQLite 2", "SQLite 3"], None);
        for text in ["none", "Neither.", "null", ""] {
            assert_eq!(choice(text, &options(&two)), Choice::NoOption, "{text}");
        }
    }

    fn read(verdict: &serde_json::Value) -> Reading {
        let answer = json!({"response": "r", "findings": [], "verdict": verdict});
        let about = RoleContext::Judge(Judge {
            options: options(&["log", "SQLite"]),
            criteria: vec!["speed".into()],
            constraints: vec![],
        });
        resolved(reading::read(&answer.to_string(), Role::Judge), &about)
    }

    #[test]
    fn a_winner_that_is_no_option_makes_the_answer_unreadable() {
        let why = read(&json!({"winner": "a third way", "scores": []})).answer.unwrap_err();
        assert_eq!(
            why[0].to_string(),
            "/verdict/winner: expected the name of one option (log, SQLite) or null, found `a third way`"
        );
    }

    #[test]
    fn scores_belong_to_options_and_go_from_0_to_10() {
        let score = |option: &str, score: f64| json!({"option": option, "criterion": "speed", "score": score});
        let scores = [
            score("sqlite", 11.0),
            score("Option 1", 3.5),
            score("Postgres", 9.0),
            score("log", -1.0),
        ];
        let reading = read(&json!({"winner": "Option 2", "scores": scores}));
        let verdict = reading.answer.unwrap().verdict.unwrap();
        assert_eq!(verdict.winner.as_deref(), Some("SQLite"));
        let scores: Vec<_> =
            verdict.scores.iter().map(|one| (one.option.as_str(), one.score)).collect();
        assert_eq!(scores, [("SQLite", 10.0), ("log", 3.5), ("log", 0.0)]);
        assert_eq!(
            reading.warnings,
            [
                "the score 11 of SQLite by speed was taken for 10: scores go from 0 to 10",
                "the score 9 of `Postgres`, which is no option, was left out",
                "the score -1 of log by speed was taken for 0: scores go from 0 to 10",
            ]
        );
    }
}
