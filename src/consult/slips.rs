//! Slips in an answer. Unambiguous ones are fixed and reported; unknown fields are dropped and reported with their
//! contents.

use serde_json::{Map, Value, json};

use super::role::Role;
use crate::job::citation::Status;
use crate::job::objects::SHOWN;
use crate::kimi::text::{clean, first_chars};

type Fields = Map<String, Value>;

/// The lists of an answer.
pub(super) const LISTS: [&str; 7] =
    ["findings", "replies", "key_risks", "assumptions", "alternatives", "survived", "not_examined"];

/// The most citations of one finding, since each is read from the disk.
const MOST_CITATIONS: usize = 20;

/// The fields of each kind of object, and their other names.
const ANSWER: &[(&str, &[&str])] = &[
    ("response", &[]),
    ("verdict", &[]),
    ("confidence", &[]),
    ("findings", &["finding", "issues", "keyfindings", "problems"]),
    ("replies", &[]),
    ("key_risks", &["risks"]),
    ("assumptions", &[]),
    ("alternatives", &[]),
    ("survived", &[]),
    ("not_examined", &[]),
];
const FINDING: &[(&str, &[&str])] = &[
    ("id", &[]),
    ("severity", &["level"]),
    ("claim", &[]),
    ("failure_scenario", &["scenario"]),
    ("suggestion", &["recommendation", "fix"]),
    ("citations", &["citation", "evidence"]),
    ("grounded", &[]),
];
const CITATION: &[(&str, &[&str])] = &[
    ("path", &["file", "filepath", "filename"]),
    ("line_start", &["startline", "linefrom"]),
    ("line_end", &["endline", "lineto"]),
    ("lines", &["line", "linerange", "linenumber", "linenumbers"]),
    ("quote", &["code", "snippet", "excerpt", "text"]),
    ("status", &[]),
];
const REPLY: &[(&str, &[&str])] = &[
    ("finding", &["id", "findingid"]),
    ("stance", &[]),
    ("because", &["reason", "reasoning", "why"]),
    ("capitulated", &[]),
];
const VERDICT: &[(&str, &[&str])] = &[("winner", &["choice"]), ("scores", &[]), ("contested", &[])];
const SCORE: &[(&str, &[&str])] =
    &[("option", &[]), ("criterion", &[]), ("score", &["value"]), ("reason", &["because"])];

/// Other names for the severities.
const SEVERITIES: &[(&str, &[&str])] = &[
    ("blocker", &["blocking", "critical", "fatal", "showstopper", "阻塞", "致命"]),
    ("major", &["high", "important", "serious", "severe", "error", "严重", "高"]),
    ("minor", &["medium", "moderate", "warning", "中", "一般", "次要"]),
    ("note", &["low", "info", "informational", "nit", "trivial", "低", "提示"]),
];
const STANCES: &[(&str, &[&str])] = &[
    ("withdraw", &["withdrawn", "withdraws", "retract"]),
    ("refine", &["refined", "refines"]),
    ("maintain", &["maintained", "maintains", "keep"]),
];

/// Renames the fields of an answer to the names of the contract.
pub(super) fn rename_answer(fields: &mut Fields, warnings: &mut Vec<String>) {
    rename(fields, ANSWER, "", warnings);
}

/// Fixes the slips in an answer, adds its optional fields, and reports every change.
pub(super) fn fix(fields: &mut Fields, role: Role, warnings: &mut Vec<String>) {
    leave_out(fields, ANSWER, "", warnings);
    if role != Role::Judge
        && let Some(verdict) = fields.shift_remove("verdict")
    {
        warnings.push(left_out("verdict", &verdict));
    }
    for name in LISTS {
        make_list(fields, name, name, warnings);
    }
    for (at, finding) in objects(fields, "findings").enumerate() {
        fix_finding(finding, &format!("findings/{at}/"), warnings);
    }
    for (at, reply) in objects(fields, "replies").enumerate() {
        let place = format!("replies/{at}/");
        rename(reply, REPLY, &place, warnings);
        leave_out(reply, REPLY, &place, warnings);
        choose(reply, "stance", STANCES, &place, warnings);
        complete(reply, json!({"because": ""}), json!({"capitulated": false}));
    }
    if let Some(Value::Object(verdict)) = fields.get_mut("verdict") {
        rename(verdict, VERDICT, "verdict/", warnings);
        leave_out(verdict, VERDICT, "verdict/", warnings);
        make_list(verdict, "scores", "verdict/scores", warnings);
        for (at, score) in objects(verdict, "scores").enumerate() {
            let place = format!("verdict/scores/{at}/");
            rename(score, SCORE, &place, warnings);
            leave_out(score, SCORE, &place, warnings);
            if let Some(Value::String(text)) = score.get("score")
                && let Ok(number) = text.trim().trim_end_matches("/10").trim().parse::<f64>()
            {
                warnings.push(format!("fixed: `{place}score` was a text"));
                score.insert("score".to_owned(), json!(number));
            }
        }
        complete(verdict, json!({"scores": []}), json!({"contested": false}));
    }
    if let Some(number @ Value::Number(_)) = fields.get_mut("confidence") {
        warnings.push("fixed: `confidence` was a number".to_owned());
        *number = Value::String(number.to_string());
    }
    for name in LISTS.into_iter().filter(|name| *name != "findings") {
        fields.entry(name).or_insert(json!([]));
    }
    fields.entry("confidence").or_insert(json!(""));
}

fn fix_finding(finding: &mut Fields, place: &str, warnings: &mut Vec<String>) {
    rename(finding, FINDING, place, warnings);
    leave_out(finding, FINDING, place, warnings);
    choose(finding, "severity", SEVERITIES, place, warnings);
    let all_cited = format!("{place}citations");
    make_list(finding, "citations", &all_cited, warnings);
    if let Some(Value::Array(citations)) = finding.get_mut("citations") {
        let all = citations.len();
        if all > MOST_CITATIONS {
            citations.truncate(MOST_CITATIONS);
            warnings.push(format!("`{all_cited}`: {MOST_CITATIONS} of {all} were kept"));
        }
        for (at, citation) in citations.iter_mut().enumerate() {
            if let Value::String(text) = citation {
                warnings.push(format!("fixed: `{all_cited}/{at}` was a text"));
                *citation = parse_citation(text);
            }
        }
    }
    for (at, citation) in objects(finding, "citations").enumerate() {
        let place = format!("{all_cited}/{at}/");
        rename(citation, CITATION, &place, warnings);
        if let Some(lines) = citation.shift_remove("lines") {
            match range(&lines) {
                Some((first, last)) => {
                    citation.entry("line_start").or_insert(json!(first));
                    citation.entry("line_end").or_insert(json!(last));
                }
                None => warnings.push(left_out(&format!("{place}lines"), &lines)),
            }
        }
        leave_out(citation, CITATION, &place, warnings);
        for name in ["line_start", "line_end"] {
            citation.get_mut(name).map(whole);
        }
        complete(citation, json!({"quote": ""}), json!({"status": Status::Missing}));
    }
    let texts = json!({"failure_scenario": "", "suggestion": "", "citations": []});
    complete(finding, texts, json!({"id": "", "grounded": false}));
}

/// Parses a citation such as `src/a.rs:24-30`.
fn parse_citation(text: &str) -> Value {
    if let Some((path, lines)) = text.rsplit_once(':')
        && let Some((first, last)) = range(&json!(lines))
    {
        return json!({"path": path, "line_start": first, "line_end": last});
    }
    json!({"path": text})
}

/// Parses the first and last line from `24`, `"24"`, `"24-30"`, `"L24-L30"` or `[24, 30]`.
fn range(lines: &Value) -> Option<(u32, u32)> {
    let number = |value: &Value| -> Option<u32> { value.as_u64()?.try_into().ok() };
    match lines {
        Value::Number(_) => number(lines).map(|line| (line, line)),
        Value::Array(pair) => match pair.as_slice() {
            [line] => number(line).map(|line| (line, line)),
            [first, last] => Some((number(first)?, number(last)?)),
            _ => None,
        },
        Value::String(text) => {
            let parts: Vec<&str> = text.split(['-', '–', '—', ',']).collect();
            let line = |part: &&str| part.trim().trim_start_matches(['L', 'l']).parse().ok();
            match parts.as_slice() {
                [one] => line(one).map(|line| (line, line)),
                [first, last] => Some((line(first)?, line(last)?)),
                _ => None,
            }
        }
        _ => None,
    }
}

/// A name for comparison: in lower case, without separators.
fn plain(name: &str) -> String {
    name.chars().filter(|char| !"_- ".contains(*char)).flat_map(char::to_lowercase).collect()
}

/// The known name for a variant of it.
fn meant(name: &str, known: &[(&'static str, &[&str])]) -> Option<&'static str> {
    let name = plain(name);
    known
        .iter()
        .find(|(known, others)| plain(known) == name || others.contains(&name.as_str()))
        .map(|(known, _)| *known)
}

/// Renames variants of known fields, if the known field is absent.
fn rename(
    fields: &mut Fields,
    known: &[(&'static str, &[&str])],
    place: &str,
    warnings: &mut Vec<String>,
) {
    fields.retain(|_, value| !value.is_null());
    for name in fields.keys().cloned().collect::<Vec<_>>() {
        let Some(meant) = meant(&name, known) else { continue };
        if meant != name
            && !fields.contains_key(meant)
            && let Some(value) = fields.shift_remove(&name)
        {
            let shown = first_chars(&clean(&name), 60).to_owned();
            warnings.push(format!("fixed: `{place}{meant}` was called `{shown}`"));
            fields.insert(meant.to_owned(), value);
        }
    }
}

/// Removes unknown fields, and reports their contents.
fn leave_out(
    fields: &mut Fields,
    known: &[(&'static str, &[&str])],
    place: &str,
    warnings: &mut Vec<String>,
) {
    for name in fields.keys().cloned().collect::<Vec<_>>() {
        if !known.iter().any(|(known, _)| *known == name)
            && let Some(value) = fields.shift_remove(&name)
        {
            let name = first_chars(&clean(&name), 60).to_owned();
            warnings.push(left_out(&format!("{place}{name}"), &value));
        }
    }
}

fn left_out(name: &str, value: &Value) -> String {
    let words = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let words = clean(&words);
    format!("the answer's field `{name}` was left out; it said: {}", first_chars(&words, SHOWN))
}

/// Replaces a variant in a closed list by its known name.
fn choose(
    fields: &mut Fields,
    name: &str,
    known: &[(&'static str, &[&str])],
    place: &str,
    warnings: &mut Vec<String>,
) {
    let Some(Value::String(text)) = fields.get_mut(name) else { return };
    let Some(meant) = meant(text.trim(), known) else { return };
    if meant != text {
        if !meant.eq_ignore_ascii_case(text.trim()) {
            warnings.push(format!("fixed: `{place}{name}` was `{text}`, read as `{meant}`"));
        }
        meant.clone_into(text);
    }
}

/// The objects in a list.
fn objects<'a>(fields: &'a mut Fields, list: &str) -> impl Iterator<Item = &'a mut Fields> {
    let items = fields.get_mut(list).and_then(Value::as_array_mut);
    items.into_iter().flatten().filter_map(Value::as_object_mut)
}

/// Adds missing optional fields. The bridge's own fields are reset, even if Kimi wrote them.
fn complete(fields: &mut Fields, optional: Value, own: Value) {
    if let (Value::Object(optional), Value::Object(own)) = (optional, own) {
        for (name, value) in optional {
            fields.entry(name).or_insert(value);
        }
        fields.extend(own);
    }
}

/// Converts 10.0, `"10"` and `"L10"` to a whole number.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked just before")]
fn whole(number: &mut Value) {
    if let Some(float) = number.as_f64().filter(|_| number.is_f64())
        && float.fract() == 0.0
        && (0.0..f64::from(u32::MAX)).contains(&float)
    {
        *number = Value::from(float as u32);
    } else if let Value::String(_) = number
        && let Some((first, last)) = range(number).filter(|(first, last)| first == last)
    {
        *number = Value::from(first.max(last));
    }
}

/// Wraps a single text or record in a list, where a list belongs.
fn make_list(fields: &mut Fields, name: &str, place: &str, warnings: &mut Vec<String>) {
    let is_one = match (name, fields.get(name)) {
        ("citations", Some(value)) => value.is_object() || value.is_string(),
        ("findings" | "replies" | "scores", Some(value)) => value.is_object(),
        (_, Some(value)) => value.is_string(),
        (_, None) => false,
    };
    if is_one && let Some(value) = fields.get_mut(name) {
        warnings.push(format!("fixed: `{place}` was not a list"));
        *value = Value::Array(vec![value.take()]);
    }
}
