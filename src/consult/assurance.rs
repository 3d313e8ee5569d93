//! Assurances in the caller's words: "already tested" is no evidence, and a reader that is told so
//! weighs it less. They are pointed out to the caller, whose agent wrote them.

/// What counts as one, in lower case.
const ASSURANCES: [&str; 30] = [
    "already tested",
    "already verified",
    "already reviewed",
    "fully tested",
    "well tested",
    "battle-tested",
    "battle tested",
    "all tests pass",
    "tests are green",
    "lgtm",
    "looks good to me",
    "trivial",
    "trivially",
    "obviously",
    "clearly correct",
    "obviously correct",
    "known to work",
    "guaranteed to work",
    "works perfectly",
    "works fine",
    "no risk",
    "risk-free",
    "production-ready",
    "production ready",
    "best practice",
    "已经测试",
    "已测试",
    "显然",
    "没有问题",
    "毫无风险",
];

/// The assurances in a text, each once, in the order of the list. One that is part of a longer one
/// that was found is left out.
#[must_use]
pub fn assurances_in(text: &str) -> Vec<&'static str> {
    let text = text.to_lowercase();
    let found: Vec<&str> = ASSURANCES.into_iter().filter(|words| stands_in(&text, words)).collect();
    let part_of_another =
        |words: &str| found.iter().any(|other| *other != words && other.contains(words));
    found.iter().copied().filter(|words| !part_of_another(words)).collect()
}

/// Whether the words stand in the text as words: "nontrivial" is no assurance.
fn stands_in(text: &str, words: &str) -> bool {
    let is_ascii_word = words.is_ascii();
    text.match_indices(words).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + words.len()..].chars().next();
        let joins = |c: Option<char>| {
            is_ascii_word && c.is_some_and(|c| c.is_alphanumeric() || c == '-' || c == '_')
        };
        !joins(before) && !joins(after)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assurances_are_found_as_words() {
        let check =
            |text: &str, expected: &[&str]| assert_eq!(assurances_in(text), expected, "{text}");
        check(
            "This is Already Tested and obviously correct. LGTM!",
            &["already tested", "lgtm", "obviously correct"],
        );
        check("这个方案已经测试，没有问题", &["已经测试", "没有问题"]);
        check(
            "A nontrivial change; non-trivial too. The tests cover it. Best practices differ.",
            &[],
        );
        check("", &[]);
    }
}
