//! Phrases that more than one document writes.

use serde_json::Value;

use crate::consult::answer::Verdict;
use crate::consult::citation::Citation;
use crate::consult::record::RoundRecord;
use crate::consult::role::Role;
use crate::kimi::Evidence;

/// What the caller puts before this role, a heading.
pub(crate) fn subject(role: Role) -> &'static str {
    match role {
        Role::Skeptic => "The proposal",
        Role::Architect => "The design",
        Role::Debugger => "The bug",
        Role::Judge => "The options",
    }
}

/// The lines of a citation, as they stand behind its path: `:24`, `:12-15`, or nothing.
pub(crate) fn lines(citation: &Citation) -> String {
    match (citation.line_start, citation.line_end) {
        (Some(start), Some(end)) if end > start => format!(":{start}-{end}"),
        (Some(start), _) => format!(":{start}"),
        (None, _) => String::new(),
    }
}

/// The judge's choice, or why there is none.
pub(crate) fn winner(choice: &Verdict) -> &str {
    match (&choice.winner, choice.contested) {
        (_, true) => "contested: it changed with the order of the options",
        (Some(winner), false) => winner,
        (None, false) => "none of the options is acceptable",
    }
}

/// What a tool call was about.
pub(crate) fn target(call: &Evidence) -> Option<&str> {
    ["path", "pattern", "query", "url"].iter().find_map(|&name| call.args.get(name)?.as_str())
}

/// Why a round has no answer: the message of its error report, and the hint.
pub(crate) fn failure(round: &RoundRecord) -> Option<(String, String)> {
    if round.result.is_some() {
        return None;
    }
    let Some(report) = &round.error else {
        return Some((
            "Kimi's answer never arrived".to_owned(),
            "It can be asked again.".to_owned(),
        ));
    };
    let error = report.get("error").unwrap_or(report);
    let field = |name: &str| error.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    Some((field("message"), field("hint")))
}

/// `2026-11-20 22:14 UTC` from seconds since 1970 UTC.
pub(crate) fn date(seconds: i64) -> String {
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days to a date of the Gregorian calendar, with years that begin in March, so that a leap day
    // is the last of its year; eras of 400 years all have the same length.
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02} UTC", rest / 3_600, rest % 3_600 / 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_a_date() {
        let check = |seconds: i64, expected: &str| assert_eq!(date(seconds), expected);
        check(0, "1970-01-01 00:00 UTC");
        check(-1, "1969-12-31 23:59 UTC");
        check(951_782_400, "2000-02-29 00:00 UTC");
        check(1_709_251_199, "2024-02-29 23:59 UTC");
        check(1_795_212_899, "2026-11-20 22:14 UTC");
        check(4_107_542_400, "2100-03-01 00:00 UTC");
    }
}
