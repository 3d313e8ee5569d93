//! Formats one round for the terminal of the host: Kimi's findings, and its replies to rejections. Reads untyped JSON,
//! so that a result of another version is shown as well.

use serde_json::Value;

use crate::job::texts::each_text;
use crate::kimi::text::{clean, first_chars};

/// The characters of one text that are shown; the ledger has all of it.
const TEXT_LIMIT: usize = 600;
/// The characters of the whole notice; hosts write a longer one to a file.
const NOTICE_LIMIT: usize = 9_000;
/// The citations of a finding that are shown.
const CITATION_LIMIT: usize = 3;

/// Formats a result. `thread` is the state of its thread: `id` and `round`.
pub(super) fn text(result: &Value, thread: &Value) -> String {
    let (mut result, mut thread) = (result.clone(), thread.clone());
    for value in [&mut result, &mut thread] {
        each_text(value, &mut |text| *text = one_line(text));
    }
    let mut lines = vec![opening(&result, &thread)];
    let verdict = &result["verdict"];
    if verdict.is_object() {
        let winner = verdict["winner"].as_str().unwrap_or("none of the options is acceptable");
        let changed = "none: it changed with the order of the options";
        let winner = if verdict["contested"] == true { changed } else { winner };
        lines.push(format!("  Winner: {winner}"));
    }
    lines.extend(items(&result["replies"]).map(reply));
    lines.extend(items(&result["findings"]).flat_map(finding));
    if result["parse_ok"] != false && items(&result["findings"]).next().is_none() {
        lines.push("  No new finding.".to_owned());
    }
    lines.extend(items(&result["warnings"]).map(|text| format!("  Warning: {}", text_of(text))));
    joined_within_limit(lines, text_of(&thread["id"]))
}

fn opening(result: &Value, thread: &Value) -> String {
    let round = match thread["round"].as_u64() {
        Some(round) => format!(", round {round}"),
        None => String::new(),
    };
    let form = match result["parse_ok"] {
        Value::Bool(false) => ", not in the form that was asked for",
        _ => "",
    };
    format!("Kimi{round}{form}: {}", text_of(&result["response"]))
}

fn finding(finding: &Value) -> [String; 2] {
    let head = format!(
        "  {} {}: {}",
        text_of(&finding["id"]),
        text_of(&finding["severity"]),
        text_of(&finding["claim"])
    );
    let places: Vec<String> =
        items(&finding["citations"]).take(CITATION_LIMIT).map(place).collect();
    let places = if places.is_empty() { "no citation".to_owned() } else { places.join(", ") };
    [head, format!("     {places}")]
}

/// Formats a citation, such as `src/store.rs:24 (moved)`.
fn place(citation: &Value) -> String {
    let line = citation["line_start"].as_u64().map(|line| format!(":{line}")).unwrap_or_default();
    let status = text_of(&citation["status"]).replace('_', " ");
    format!("{}{line} ({status})", text_of(&citation["path"]))
}

fn reply(reply: &Value) -> String {
    let gave_in = if reply["capitulated"] == true { " without naming a fact" } else { "" };
    let (finding, stance) = (text_of(&reply["finding"]), text_of(&reply["stance"]));
    format!("  {finding} Kimi {stance}s{gave_in}: {}", text_of(&reply["because"]))
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn text_of(text: &Value) -> &str {
    text.as_str().unwrap_or_default()
}

/// Returns a text on one line, without invisible characters, and cut to the limit.
fn one_line(text: &str) -> String {
    let text = clean(text).split_whitespace().collect::<Vec<_>>().join(" ");
    let cut = first_chars(&text, TEXT_LIMIT);
    if cut.len() < text.len() { format!("{cut}…") } else { text }
}

/// Joins the lines that fit the limit, and adds the command that shows the rest.
fn joined_within_limit(lines: Vec<String>, thread: &str) -> String {
    let count = lines.len();
    let mut left = NOTICE_LIMIT;
    let fits = |line: &String| {
        let length = line.chars().count() + 1;
        let fits = length <= left;
        left = left.saturating_sub(length);
        fits
    };
    let mut kept: Vec<String> = lines.into_iter().take_while(fits).collect();
    if kept.len() < count {
        kept.push(format!("  … `kimi-bridge threads show {thread}` shows the rest."));
    }
    kept.join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn citation(path: &str, line: Option<u32>, status: &str) -> Value {
        json!({"path": path, "line_start": line, "line_end": line, "quote": "q", "status": status})
    }

    #[test]
    fn a_round_is_shown_in_kimis_words() {
        let result = json!({
            "parse_ok": true,
            "response": "Not as it stands.\nTwo ways lose data.",
            "findings": [
                {"id": "F4", "severity": "blocker", "claim": "`add` drops the io::Result<()>\u{1b}[31m & goes on",
                 "citations": [citation("src/store.rs", Some(24), "moved"), citation("b.rs", None, "not_in_trace")]},
                {"id": "F5", "severity": "note", "claim": "No tests\u{202e}.", "citations": []},
            ],
            "replies": [
                {"finding": "F1", "stance": "maintain", "because": "The line stands there."},
                {"finding": "F2", "stance": "withdraw", "because": "Fine.", "capitulated": true},
            ],
            "warnings": ["The project changed while Kimi ran."],
        });
        insta::assert_snapshot!(text(&result, &json!({"id": "ab12", "round": 2})), @r"
        Kimi, round 2: Not as it stands. Two ways lose data.
          F1 Kimi maintains: The line stands there.
          F2 Kimi withdraws without naming a fact: Fine.
          F4 blocker: `add` drops the io::Result<()> & goes on
             src/store.rs:24 (moved), b.rs (not in trace)
          F5 note: No tests.
             no citation
          Warning: The project changed while Kimi ran.
        ");
    }

    #[test]
    fn verdicts_unparsed_answers_and_malformed_results_are_shown_too() {
        let verdict = |verdict: Value| {
            let result =
                json!({"parse_ok": true, "response": "r", "verdict": verdict, "findings": []});
            text(&result, &json!(null)).lines().nth(1).unwrap().to_owned()
        };
        assert_eq!(verdict(json!({"winner": "SQLite"})), "  Winner: SQLite");
        assert_eq!(verdict(json!({})), "  Winner: none of the options is acceptable");
        assert_eq!(
            verdict(json!({"winner": "a", "contested": true})),
            "  Winner: none: it changed with the order of the options"
        );
        let raw = json!({"parse_ok": false, "response": "I think\nso", "findings": []});
        assert_eq!(
            text(&raw, &json!({"round": 1})),
            "Kimi, round 1, not in the form that was asked for: I think so"
        );
        let odd = json!({"response": "r", "findings": [7], "replies": {}, "warnings": "w"});
        assert_eq!(text(&odd, &json!(7)), "Kimi: r\n   : \n     no citation");
    }

    #[test]
    fn a_long_round_is_cut_and_says_where_the_rest_is() {
        let finding =
            json!({"id": "F1", "severity": "major", "claim": "数 ".repeat(5_000), "citations": []});
        let result = json!({"response": "r", "findings": vec![finding; 40]});
        let text = text(&result, &json!({"id": "ab12", "round": 1}));
        assert!(text.chars().count() < NOTICE_LIMIT + 100, "{}", text.chars().count());
        assert!(text.ends_with("\n  … `kimi-bridge threads show ab12` shows the rest."), "{text}");
    }
}
