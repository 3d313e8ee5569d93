//! `config/secrets.yaml`, and the user's additions to it.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::LazyLock;

use serde::Deserialize;
use serde_yaml::{Mapping, Value};

use super::names::NamePatterns;
use super::rule::Rule;
use crate::error::{Error, Kind, Result, Violation};

const FILE: &str = include_str!("../../config/secrets.yaml");

/// The keys of a user's file.
const USER_KEYS: [&str; 2] = ["values", "files"];

/// The compiled-in file; its comments explain each key.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sheet {
    pub(super) values: Vec<Rule>,
    pub(super) assignments: Vec<Assignment>,
    pub(super) harmless_names: NamePatterns,
    pub(super) name_tails: Vec<String>,
    pub(super) variables: NamePatterns,
    pub(super) templates: Vec<String>,
    pub(super) placeholders: Vec<String>,
    pub(super) placeholder_words: Vec<String>,
    pub(super) ordinary: Vec<String>,
    pub(super) published: Vec<String>,
}

/// Names whose values are secrets of one kind.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Assignment {
    pub(super) kind: String,
    /// True where a person may have chosen such a value.
    #[serde(default)]
    pub(super) made_up: bool,
    pub(super) names: NamePatterns,
}

#[expect(clippy::expect_used, reason = "the file is compiled in, and a test reads it")]
pub(super) static SHEET: LazyLock<Sheet> =
    LazyLock::new(|| serde_yaml::from_str(FILE).expect("config/secrets.yaml is readable"));

/// The additions of a user's own file.
#[derive(Debug, Default)]
pub(super) struct UserFile {
    pub(super) values: Vec<Rule>,
    pub(super) files: Vec<String>,
}

/// Reads the user's file; a missing file adds nothing.
pub(super) fn read_user_file(file: &Path) -> Result<UserFile> {
    let read = match fs::read_to_string(file) {
        Ok(text) => parse_user_file(text.trim_start_matches('\u{feff}')),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(UserFile::default()),
        Err(error) => Err(vec![Violation::new("", error.to_string())]),
    };
    read.map_err(|violations| Error {
        violations,
        ..Error::new(
            Kind::Settings,
            format!("{} cannot be used", file.display()),
            "Fix the problems listed, or move the file away; docs/settings.md describes it. Kimi is not asked \
             before the file can be read.",
        )
    })
}

fn parse_user_file(text: &str) -> std::result::Result<UserFile, Vec<Violation>> {
    let mapping: Option<Mapping> = serde_yaml::from_str(text)
        .map_err(|error| vec![Violation::new("", format!("expected a YAML mapping: {error}"))])?;
    let mut users = UserFile::default();
    let mut problems = Vec::new();
    for (key, value) in mapping.unwrap_or_default() {
        let key = key.as_str().map_or_else(|| format!("{key:?}"), str::to_owned);
        let items = match value {
            _ if !USER_KEYS.contains(&&*key) => {
                let keys = USER_KEYS.join("` and `");
                let expected = format!("there is no such key; there are `{keys}`");
                problems.push(Violation::new(format!("/{key}"), expected));
                continue;
            }
            Value::Sequence(items) => items,
            Value::Null => continue,
            _ => {
                problems.push(Violation::new(format!("/{key}"), "expected a list"));
                continue;
            }
        };
        for (at, item) in items.into_iter().enumerate() {
            let added = if key == "values" {
                Rule::from_user(item).map(|rule| users.values.push(rule))
            } else {
                let glob = item.as_str().filter(|glob| !glob.trim().is_empty());
                let glob = glob.ok_or_else(|| "expected a text".to_owned());
                glob.map(|glob| users.files.push(glob.to_owned()))
            };
            problems.extend(added.err().map(|why| Violation::new(format!("/{key}/{at}"), why)));
        }
    }
    if problems.is_empty() { Ok(users) } else { Err(problems) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compiled_in_file_can_be_read() {
        assert!(!SHEET.assignments.is_empty());
    }

    #[test]
    fn a_users_file_adds_and_every_problem_of_it_is_named() {
        let check = |text: &str, expected: &[&str]| {
            let problems = parse_user_file(text).err().unwrap_or_default();
            let named: Vec<String> = problems.iter().map(ToString::to_string).collect();
            assert_eq!(named, expected, "{text}");
        };
        check("", &[]);
        check("values:\nfiles: ['*.pem']\n", &[]);
        check("values: [{kind: house-key, pattern: 'HK-[0-9]{6}', only: random}]", &[]);
        check(
            "[1]",
            &["/: expected a YAML mapping: invalid type: sequence, expected a YAML mapping"],
        );
        check(
            "value: []\nvalues: {}\nfiles: [1, '']\n",
            &[
                "/value: there is no such key; there are `values` and `files`",
                "/values: expected a list",
                "/files/0: expected a text",
                "/files/1: expected a text",
            ],
        );
        check(
            "values:\n- {kind: k, pattern: 'a('}\n- {kind: k}\n- {kind: K k, pattern: abc}\n- {kind: e, pattern: 'x*'}\n\
             - {kind: k, pattern: a, kin: b}\n",
            &[
                "/values/0: k: regex parse error:\n    a(\n     ^\nerror: unclosed group",
                "/values/1: missing field `pattern`",
                "/values/2: K k: a kind is made of lower-case letters, digits and hyphens",
                "/values/3: e: the pattern matches the empty text",
                "/values/4: unknown field `kin`, expected one of `kind`, `pattern`, `words`, `only`",
            ],
        );
    }

    #[test]
    fn a_bad_file_is_named_with_the_next_step() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("secrets.yaml");
        assert!(read_user_file(&file).is_ok());
        fs::write(&file, "x: 1").unwrap();
        let error = read_user_file(&file).unwrap_err();
        assert_eq!(
            (error.kind, error.message, error.violations.len()),
            (Kind::Settings, format!("{} cannot be used", file.display()), 1)
        );
        fs::write(&file, [0xff, 0xfe]).unwrap();
        let error = read_user_file(&file).unwrap_err();
        assert_eq!(error.violations[0].expected, "stream did not contain valid UTF-8");
    }
}
