//! The content of reasons: a withdrawal must name a fact, and the reason of a REJECT must be more than dissent.
//!
//! A fact can be looked up: a place in the code, an identifier, a number with its noun, or a quote from the rejection.
//! Everything else may be courtesy.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use regex::Regex;

/// Extensions of names that are taken for files.
const FILES: &str = "rs|pyi?|[cm]?[jt]sx?|go|c|h|cc|cpp|hpp|cs|java|kts?|rb|php|swift|scala|sh|bash|sql|html?|s?css\
    |vue|svelte|lua|exs?|erl|hs|mli?|zig|dart|proto|md|rst|txt|toml|ya?ml|json|xml|ini|cfg|conf|lock|tf|gradle|csv|log";

/// Numbers in words; `one` is an ordinary word.
const SPELLED: &str =
    "two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|fifty|hundred|thousand";

/// Nouns whose number is no fact: parts of the discussion, and degrees of agreement.
const ARGUED: [&str; 30] = [
    "agree",
    "agreed",
    "argument",
    "arguments",
    "claim",
    "claims",
    "comment",
    "concern",
    "concerns",
    "correct",
    "finding",
    "findings",
    "issue",
    "issues",
    "objection",
    "objections",
    "of",
    "out",
    "percent",
    "point",
    "points",
    "reason",
    "reasons",
    "rejection",
    "rejections",
    "right",
    "sure",
    "times",
    "us",
    "withdrawn",
];

/// The nouns of [`ARGUED`] in scripts without spaces between words.
const ARGUED_DENSE: [&str; 9] = ["点", "點", "个问题", "個問題", "条", "項", "项", "方面", "つ"];

/// Words of dissent, and the small words around them. A reason with no other words is empty.
const DISSENT: [&str; 60] = [
    "a",
    "absolutely",
    "agree",
    "agreed",
    "all",
    "am",
    "an",
    "and",
    "are",
    "at",
    "be",
    "completely",
    "correct",
    "decline",
    "declined",
    "disagree",
    "do",
    "does",
    "doesn",
    "don",
    "entirely",
    "false",
    "finding",
    "for",
    "i",
    "incorrect",
    "invalid",
    "is",
    "isn",
    "it",
    "just",
    "me",
    "my",
    "nah",
    "needed",
    "never",
    "no",
    "nope",
    "not",
    "of",
    "please",
    "point",
    "really",
    "reject",
    "rejected",
    "so",
    "sorry",
    "t",
    "that",
    "the",
    "this",
    "to",
    "true",
    "valid",
    "we",
    "with",
    "wrong",
    "you",
    "your",
    "relevant",
];

static PLACE: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let file = format!(r"[\w.@+-]+\.(?:{FILES})");
    Regex::new(&format!(
        r"(?i)(?:[\w.@+-]+/)+[\w.@+-]+\.\w+|\b{file}\b|\b[\w+-]+\.\w+:\d+|\b[A-Z]\w*file:\d+"
    ))
    .ok()
});

/// An identifier: in backticks, or with underscores, humps, `::`, a call, or letters with digits.
static IDENTIFIER: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        r"(?x) `[^`]*[A-Za-z_][^`]*` | \b[A-Za-z]\w*_\w+ | \b[a-z]+[A-Z]\w* | \b[A-Z][a-z]+[A-Z]\w+ | \w+::\w+
        | \b[A-Za-z_]\w*\( | \b[A-Za-z]+[0-9]\w*",
    )
    .ok()
});

/// A noun in front of its number, or a number in front of its noun or unit.
static NUMBER: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(&format!(
        r"(?xi) (?:^|[^\w.]) (?: (?P<noun>\p{{L}}{{2,}}) [\s\x23]* )? (?P<number>[0-9][0-9.,]*[0-9]|[0-9]|\b(?:{SPELLED})\b)
        (?: \s*-?\s* (?P<after>\p{{L}}+|%) )?"
    ))
    .ok()
});

/// A count or an ordinal in Chinese or Japanese, and the counted thing.
static DENSE_NUMBER: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"第?[0-9〇零一二三四五六七八九十百千两]+\s*(?P<after>[\p{Han}\p{Katakana}]{1,3})")
        .ok()
});

static QUOTED: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        r#"["“„«]([^"“”„«»]+)["”“»]|[「『《]([^」』》]+)[」』》]|[‘]([^‘’]+)’|(?:^|\s)'([^']+)'"#,
    )
    .ok()
});

/// Returns whether a withdrawal names a fact; `reason` is the reason of the rejection.
pub(super) fn names_a_fact(because: &str, reason: &str) -> bool {
    names_code(because) || has_counted_noun(because) || quotes(because, reason)
}

/// Returns whether a reason is more than dissent: it has a place or an identifier, three different words, or a sentence
/// in a script without spaces between words.
pub(super) fn is_substantial(reason: &str) -> bool {
    let reason = reason.to_lowercase();
    let words = reason.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty());
    let words: BTreeSet<&str> = words.collect();
    let content = words.iter().any(|word| !DISSENT.contains(word) && !word.chars().all(is_dense));
    let dense: Vec<char> = reason.chars().filter(|&c| is_dense(c)).collect();
    let different = dense.iter().collect::<BTreeSet<_>>().len();
    names_code(&reason) || words.len() >= 3 && content || dense.len() >= 6 && different >= 5
}

/// Returns whether a text names a place in the code or an identifier that is not a finding.
fn names_code(text: &str) -> bool {
    let finds = |regex: &LazyLock<Option<Regex>>| {
        let found = regex.as_ref().into_iter().flat_map(|regex| regex.find_iter(text));
        found.map(|found| found.as_str().trim_matches('`')).any(|found| !is_finding(found))
    };
    finds(&PLACE) || finds(&IDENTIFIER)
}

/// Returns whether a text is the id of a finding.
fn is_finding(text: &str) -> bool {
    let digits = text.strip_prefix(['F', 'f']);
    digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
}

fn has_counted_noun(text: &str) -> bool {
    let is_fact = |noun: &str| {
        let noun = noun.to_lowercase();
        !ARGUED.contains(&noun.as_str())
            && !DISSENT.contains(&noun.as_str())
            && !noun.chars().all(is_dense)
    };
    let counted = NUMBER.as_ref().into_iter().flat_map(|regex| regex.captures_iter(text));
    let counted = counted.into_iter().any(|found| {
        let part = |name| found.name(name).map(|part| part.as_str());
        let spelled = part("number").is_some_and(|number| number.starts_with(char::is_alphabetic));
        match (part("noun"), part("after")) {
            (_, Some("%")) => false,
            (_, Some(after)) if !is_fact(after) => false,
            // "line six" counts, "all six" does not.
            (Some(noun), _) if is_fact(noun) && (!spelled || is_ordered(noun)) => true,
            (_, Some(_)) => true,
            (_, None) => false,
        }
    });
    let dense = DENSE_NUMBER.as_ref().into_iter().flat_map(|regex| regex.captures_iter(text));
    counted
        || dense.into_iter().any(|found| {
            let after = found.name("after").map_or("", |after| after.as_str());
            !ARGUED_DENSE.iter().any(|argued| after.starts_with(argued)) && !after.starts_with("切")
        })
}

/// Returns whether a noun belongs to things that are numbered.
fn is_ordered(noun: &str) -> bool {
    let noun = noun.to_lowercase();
    ["line", "lines", "row", "step", "column", "version", "port", "page", "section", "table"]
        .contains(&noun.as_str())
}

/// Returns whether a text quotes the reason: at least four letters, or two of a dense script.
fn quotes(text: &str, reason: &str) -> bool {
    let reason = folded(reason);
    let mut quoted = QUOTED.as_ref().into_iter().flat_map(|regex| regex.captures_iter(text));
    quoted.any(|quote| {
        let quote = folded(
            quote.iter().skip(1).flatten().map(|part| part.as_str()).next().unwrap_or_default(),
        );
        let quote = quote.trim_matches(|c: char| !c.is_alphanumeric());
        let letters = quote.chars().filter(|c| c.is_alphanumeric()).count();
        let dense = quote.chars().filter(|&c| is_dense(c)).count();
        (letters >= 4 || dense >= 2) && holds_words(&reason, quote)
    })
}

/// Returns whether a text contains another one at word boundaries.
fn holds_words(text: &str, words: &str) -> bool {
    let joins = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() && !is_dense(c));
    text.match_indices(words).any(|(at, found)| {
        let (before, after) = (&text[..at], &text[at + found.len()..]);
        let goes_on_before = joins(before.chars().next_back()) && joins(found.chars().next());
        let goes_on_after = joins(found.chars().next_back()) && joins(after.chars().next());
        !goes_on_before && !goes_on_after
    })
}

fn folded(text: &str) -> String {
    text.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Returns whether a letter belongs to a script without spaces between words, or with a syllable per letter.
fn is_dense(c: char) -> bool {
    matches!(c, '\u{0e00}'..='\u{0eff}' | '\u{0f00}'..='\u{0fff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}'
        | '\u{2e80}'..='\u{9fff}' | '\u{ac00}'..='\u{d7af}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    const REASON: &str = "The caller holds the lock while it appends, and 调用者已经持有锁.";

    #[test]
    fn a_withdrawal_without_a_fact_is_recognized() {
        for because in [
            "",
            "You are right.",
            "You're absolutely right.",
            "I concede the point.",
            "Fair point, I withdraw this.",
            "Agreed; point taken.",
            "On reflection the other side has the better argument here.",
            "After looking at the code again I no longer believe that this holds.",
            "I withdraw F1 and F12.",
            "You are 100% right about that.",
            "Point 2 is well taken.",
            "I agree on all 3 points.",
            "The two of us agree.",
            "The reason given is \"convincing\".",
            "That is \"the\" case.",
            "你说得对。",
            "您说得完全正确，我撤回这个发现。",
            "我同意第一点。",
            "这一切都是对的，我收回。",
            "おっしゃる通りです。",
            "Withdrawn, e.g. because the objection is convincing.",
            "You are right.I withdraw it.",
        ] {
            assert!(!names_a_fact(because, REASON), "{because}");
        }
    }

    #[test]
    fn a_withdrawal_can_name_a_fact_in_four_ways() {
        for because in [
            // A place.
            "main.rs:6",
            "You are right: main.rs line 6 holds the lock.",
            "See src/store.rs.",
            "Makefile:12 builds it that way",
            "调用者在 src/main.rs 里检查了磁盘。",
            // An identifier.
            "`add` returns the error now.",
            "The flag is O_APPEND.",
            "HashMap::entry inserts only once.",
            "flush() is called before that.",
            "The field retryCount is reset there.",
            "It is a u32.",
            // A number with its noun.
            "Line 24 drops it.",
            "The file has 3 writers.",
            "A write of 4096 bytes is atomic.",
            "It waits 30 s.",
            "The lock is taken in line six.",
            "调用者在第六行已经持有锁",
            "超时是30秒。",
            // Words of the rejection.
            "\"The caller holds the lock\" is true.",
            "As you say, “while it appends”.",
            "正如你说的「已经持有锁」。",
        ] {
            assert!(names_a_fact(because, REASON), "{because}");
        }
    }

    #[test]
    fn a_reason_can_be_substantial_in_any_script() {
        for reason in [
            "the caller holds it",
            "调用者已经持有锁",
            "see src/a.rs line 4",
            "src/main.rs:6",
            "`add` returns it",
            "it is unreachable",
            "ผู้เรียกถือล็อกอยู่แล้ว",
            "호출자가 잠금을 이미 보유",
            "вызывающий уже держит блокировку",
        ] {
            assert!(is_substantial(reason), "{reason}");
        }
        for blunt in [
            "",
            " ",
            "no",
            "No no no",
            "1 2 3",
            "disagree.",
            "not needed",
            "— — —",
            "不同意",
            "不同意不同意",
            "I do not agree",
            "I don't agree with that.",
            "This is not correct",
            "F1 F2 F3",
        ] {
            assert!(!is_substantial(blunt), "{blunt}");
        }
    }
}
