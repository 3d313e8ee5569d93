//! Writes the patterns of `config/secrets.yaml` and `config/injection.yaml` as tables of Rust, with the words
//! that they need. A table is part of the program: unlike JSON it is neither read nor copied, and takes no
//! memory of the heap. All words are one text, since a table of texts holds addresses, which are written
//! into it whenever the program starts.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Debug;

use serde::Deserialize;
use serde_yaml::Value;

use super::form::{Form, Only, ROW};
use super::words::{best_words, needed, row};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What `redact::pattern` includes, of the `values` of the file.
pub(super) fn of_secrets(values: Value) -> Result<String> {
    let forms: Vec<Form> = serde_yaml::from_value(values)?;
    let (mut list, mut words, mut hints, mut in_rows) = (vec![], vec![], vec![], vec![]);
    for (at, Form { kind, pattern, only }) in forms.iter().enumerate() {
        // What a word boundary is, is a matter of ASCII here: that keeps the searches fast.
        let text = pattern.replace(r"\b", r"(?-u:\b)");
        let wrong = |why: &dyn ToString| format!("{kind}: {pattern}: {}", why.to_string());
        let best = best_words(&text).map_err(|error| wrong(&error))?;
        if best.is_empty() {
            let row = row(&text).map_err(|error| wrong(&error))?;
            if row.is_none_or(|row| row < ROW) {
                return Err(wrong(&"would be tried on every text: it needs no word").into());
            }
            in_rows.push(at);
        }
        hints.extend(best.iter().map(|_| at));
        words.extend(best);
        let only = only.unwrap_or(Only::Meant);
        list.push(format!("Pattern::built_in({kind:?}, {text:?}, Only::{only:?}),\n"));
    }
    Ok([
        format!("static LIST: [Pattern; {}] = [\n{}];\n", list.len(), list.concat()),
        table("IN_ROWS", "u16", &in_rows),
        table("HINTS", "u16", &hints),
        lines("WORDS", &words)?,
    ]
    .concat())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Injection {
    words: BTreeMap<String, String>,
    patterns: Vec<String>,
}

/// What `consult::injection` includes, of the whole file.
pub(super) fn of_injection(file: Value) -> Result<String> {
    let file: Injection = serde_yaml::from_value(file)?;
    let mut words: Vec<String> = Vec::new();
    let mut number = |word: String| {
        words.iter().position(|known| *known == word).unwrap_or_else(|| {
            words.push(word);
            words.len() - 1
        })
    };
    let (mut patterns, mut places) = (vec![], vec![]);
    for pattern in &file.patterns {
        let text = expanded(pattern, &file.words);
        let needed = needed(&text).map_err(|error| format!("{pattern}: {error}"))?;
        let needed = needed.into_iter().map(|place| {
            let numbers: Vec<usize> = place.into_iter().map(&mut number).collect();
            format!("&{numbers:?}, ")
        });
        places.push(format!("&[{}],\n", needed.collect::<String>()));
        patterns.push(text);
    }
    Ok([
        table("PATTERNS", "&str", &patterns),
        format!("static PLACES: [Places; {}] = [\n{}];\n", places.len(), places.concat()),
        lines("WORDS", &words)?,
    ]
    .concat())
}

/// A pattern with its words written out. Its spaces stand for what the program leaves between the words of
/// a text, and its classes are those of ASCII, which cost a small part of the others.
fn expanded(pattern: &str, words: &BTreeMap<String, String>) -> String {
    let mut pattern = pattern.to_owned();
    // Words may be made of words.
    for _ in 0..3 {
        for (name, word) in words {
            pattern = pattern.replace(&format!("<{name}>"), word);
        }
    }
    let classes = [
        (r"\b", r"(?-u:\b)"),
        (r"\w", "[a-z0-9_]"),
        (r"\d", "[0-9]"),
        (r"\S", r"[^\s]"),
        (r"\s", " "),
        (" ", r"[ \n]"),
    ];
    classes.iter().fold(pattern, |pattern, (class, ascii)| pattern.replace(class, ascii))
}

fn table(name: &str, of: &str, items: &[impl Debug]) -> String {
    format!("static {name}: [{of}; {}] = {items:#?};\n", items.len())
}

fn lines(name: &str, words: &[String]) -> Result<String> {
    match words.iter().find(|word| word.contains('\n')) {
        Some(word) => Err(format!("{word:?}: a word that a pattern needs is one line").into()),
        None => Ok(format!("static {name}: &str = {:?};\n", words.join("\n"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(of: fn(Value) -> Result<String>, config: &str, expected: &str) {
        let made = of(serde_yaml::from_str(config).unwrap());
        let made = made.unwrap_or_else(|error| format!("{error}"));
        // One item a line is how the compiler writes a list.
        let made = made.replace("[\n    ", "[").replace(",\n    ", ", ").replace(",\n]", "]");
        assert_eq!(made, expected, "{config}");
    }

    #[test]
    fn the_patterns_of_secrets_are_a_table() {
        let config = r"
- {kind: a-key, pattern: '\b(?:SEC|key)_[a-z]{9}'}
- {kind: row, pattern: '[a-z]{24}', only: no_word}
- {kind: b-key, pattern: '(?i)some_[a-z]{9}'}";
        let expected = r#"static LIST: [Pattern; 3] = [
Pattern::built_in("a-key", "(?-u:\\b)(?:SEC|key)_[a-z]{9}", Only::Meant),
Pattern::built_in("row", "[a-z]{24}", Only::NoWord),
Pattern::built_in("b-key", "(?i)some_[a-z]{9}", Only::Meant)];
static IN_ROWS: [u16; 1] = [1];
static HINTS: [u16; 3] = [0, 0, 2];
static WORDS: &str = "key\nsec\nsome_";
"#;
        check(of_secrets, config, expected);
    }

    #[test]
    fn the_patterns_of_injection_are_a_table_with_their_words_written_out() {
        let config = r"
words: {lead: '(?:please|<now>) ', now: 'now\b'}
patterns: ['<lead>ignore \w+', '\d\S|\s', 'Now <now>']";
        let expected = r#"static PATTERNS: [&str; 3] = ["(?:please|now(?-u:\\b))[ \\n]ignore[ \\n][a-z0-9_]+", "[0-9][^[ \\n]]|[ \\n]", "Now[ \\n]now(?-u:\\b)"];
static PLACES: [Places; 3] = [
&[&[0, 1], &[2], ],
&[],
&[&[1], &[1], ]];
static WORDS: &str = "please\nnow\nignore";
"#;
        check(of_injection, config, expected);
    }

    #[test]
    fn a_pattern_that_cannot_be_used_is_named() {
        check(
            of_secrets,
            "[{kind: k, pattern: 'a('}]",
            "k: a(: regex parse error:\n    a(\n     ^\nerror: unclosed group",
        );
        check(
            of_secrets,
            "[{kind: k, pattern: '[a-z]{23}'}]",
            "k: [a-z]{23}: would be tried on every text: it needs no word",
        );
        check(
            of_secrets,
            "[{kind: k, pattern: abc, only: some}]",
            "unknown variant `some`, expected one of `any`, `meant`, `no_word`, `random`",
        );
        check(
            of_injection,
            "{words: {w: 'x)'}, patterns: [<w>]}",
            "<w>: regex parse error:\n    x)\n     ^\nerror: unopened group",
        );
        check(
            of_injection,
            r"{words: {}, patterns: ['one\ntwo']}",
            "\"one\\ntwo\": a word that a pattern needs is one line",
        );
    }
}
