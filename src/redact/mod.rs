//! The redaction of secrets. A text that leaves the machine is a [`Redacted`], and only [`Secrets`] makes one. Texts
//! that come back are redacted too, so that a secret that Kimi read is neither returned nor kept.
//!
//! It finds values with the form of a secret, values with a secret name, and the values of the environment's secrets.
//! Forms, names and words are data in `config/secrets.yaml`, and the user may add to them; the look of a value is code.
//! This room does not know the purpose of a text.
//!
//! A redacted text holds no invisible characters. Redaction is idempotent and takes linear time.

mod assignment;
mod look;
mod names;
mod pieces;
mod placeholder;
pub(crate) mod prefilter;
mod rule;
mod rules;
mod sheet;
mod value;
mod variables;

use std::borrow::Cow;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use aho_corasick::AhoCorasick;
use serde_json::{Map, Value};

use self::pieces::{SecretSpan, boundary};
use self::rule::Rule;
use crate::error::{Error, Result};
use crate::hidden::Cleaned;

/// The bytes beyond a cut that are searched too, so that a secret across the cut is found.
const BEYOND: usize = 24 * 1024;
/// The last bytes of a cut text, in which half a secret may be missed; a longer secret is recognized by its beginning.
const DOUBTFUL: usize = 8 * 1024;

/// Text in which every known secret has been replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redacted {
    text: String,
    count: usize,
}

impl Redacted {
    /// The text that may leave.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The number of secrets that were replaced.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Returns the text that may leave.
    pub(crate) fn into_text(self) -> String {
        self.text
    }
}

/// The rules for secrets of this process: built in, from the user, and from the environment's own secrets. The default
/// has the built-in rules only. A clone shares them.
#[derive(Clone, Default)]
pub struct Secrets(Arc<Known>);

/// The additions to the built-in rules.
#[derive(Default)]
struct Known {
    rules: Vec<Rule>,
    variables: Option<AhoCorasick>,
    files: Vec<String>,
}

impl fmt::Debug for Secrets {
    /// Leaves out the values of the environment.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets").finish_non_exhaustive()
    }
}

impl Secrets {
    /// Loads the built-in rules, those of the user's `secrets.yaml` in `config_dir`, if it exists, and the secrets
    /// among the environment's `vars`.
    pub fn load(config_dir: &Path, vars: &[(String, String)]) -> Result<Secrets> {
        let users = sheet::read_user_file(&config_dir.join("secrets.yaml"))?;
        Ok(Secrets(Arc::new(Known {
            rules: users.values,
            variables: variables::finder(vars),
            files: users.files,
        })))
    }

    /// The user's lines about secret files, as in a `.gitignore`.
    pub(crate) fn files(&self) -> &[String] {
        &self.0.files
    }

    /// Replaces every secret by `[redacted:kind]`.
    ///
    /// Invisible characters are removed first: a key with one inside matches no pattern, but its reader still sees a
    /// key.
    #[must_use]
    pub fn redact(&self, text: &str) -> Redacted {
        let visible = Cleaned::new(text).text;
        let (mut text, count) = pieces::replace(&visible, |text| self.spans(text));
        if let Cow::Owned(cleaned) = Cleaned::new(&text).text {
            // A marker in place of one half of an emoji leaves the other half invisible.
            text = cleaned;
        }
        Redacted { text, count }
    }

    /// The marker that replaces the text of a field, if it is a secret by the field's name.
    #[must_use]
    pub fn redact_field(&self, name: &str, text: &str) -> Option<String> {
        let [name, text] = [name, text].map(|text| Cleaned::new(text).text);
        assignment::in_field(&name, &text).map(pieces::marker)
    }

    /// Returns the first `chars` characters of the redacted text, and never half a secret. Only a bounded part of the
    /// text is searched.
    #[must_use]
    pub fn redact_start(&self, text: &str, chars: usize) -> Redacted {
        let window = boundary(text, chars.saturating_mul(4).saturating_add(BEYOND));
        let mut redacted = self.redact(&text[..window]);
        if window < text.len() {
            let certain = redacted.text.len().saturating_sub(DOUBTFUL);
            let certain = certain.max(pieces::behind_markers(&redacted.text));
            redacted.text.truncate(boundary(&redacted.text, certain));
        }
        if let Some((end, _)) = redacted.text.char_indices().nth(chars) {
            redacted.text.truncate(pieces::outside_of_markers(&redacted.text, end));
        }
        // A run keeps thousands of these; each would hold the memory of the longer text.
        redacted.text.shrink_to_fit();
        redacted
    }

    /// Replaces the secrets in every text of a JSON value, and returns their number. A text is also judged by the name
    /// of its field.
    pub fn redact_all(&self, value: &mut Value) -> usize {
        match value {
            Value::String(text) => {
                let redacted = self.redact(text);
                *text = redacted.text;
                redacted.count
            }
            Value::Array(values) => values.iter_mut().map(|value| self.redact_all(value)).sum(),
            Value::Object(fields) => self.redact_fields(fields),
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        }
    }

    /// Replaces the secrets in the names and values of a JSON object, and returns their number.
    pub(crate) fn redact_fields(&self, fields: &mut Map<String, Value>) -> usize {
        // Names first: a second redaction would judge the values by the redacted names.
        let names: Vec<Redacted> = fields.keys().map(|name| self.redact(name)).collect();
        let mut count = usize::from(names.iter().any(|name| name.count > 0));
        if fields.keys().zip(&names).any(|(name, redacted)| *name != redacted.text) {
            let values = std::mem::take(fields).into_iter().map(|(_, value)| value);
            *fields = names.into_iter().map(Redacted::into_text).zip(values).collect();
        }
        for (name, value) in fields.iter_mut() {
            if let Value::String(text) = value
                && let Some(marker) = self.redact_field(name, text)
            {
                *text = marker;
                count += 1;
            }
            count += self.redact_all(value);
        }
        count
    }

    /// Replaces the secrets in an error's words, example and partial result.
    pub(crate) fn redact_error(&self, mut error: Error) -> Error {
        let texts = [&mut error.message, &mut error.hint].into_iter();
        let listed = error.violations.iter_mut().flat_map(|violation| {
            [&mut violation.pointer, &mut violation.expected]
                .into_iter()
                .chain(&mut violation.did_you_mean)
        });
        for text in texts.chain(listed) {
            *text = self.redact(text).text;
        }
        for value in [&mut error.example, &mut error.partial].into_iter().flatten() {
            self.redact_all(value);
        }
        error
    }

    /// The places of the secrets in a text, in order and without overlap.
    fn spans(&self, text: &str) -> Vec<SecretSpan<'_>> {
        let mut spans = Vec::new();
        for rule in &self.0.rules {
            rules::find_one(rule, text, &mut spans);
        }
        rules::find(text, &mut spans);
        if let Some(variables) = &self.0.variables {
            let found = variables.find_iter(text);
            spans.extend(found.map(|found| SecretSpan::new(found.range(), "environment")));
        }
        assignment::find(text, &mut spans);
        pieces::apart(spans)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;
    use serde_json::json;

    use super::*;
    use crate::error::{Kind, Violation};

    #[derive(Deserialize)]
    struct Table {
        redacted: Vec<Row>,
        untouched: Vec<String>,
        around: Around,
    }

    /// Texts that may be directly before and behind a key.
    #[derive(Deserialize)]
    struct Around {
        before: Vec<String>,
        after: Vec<String>,
    }

    #[derive(Deserialize)]
    struct Row {
        text: String,
        becomes: String,
    }

    fn table() -> Table {
        let table = include_str!("../../tests/fixtures/secrets.yaml").replace('¦', "");
        serde_yaml::from_str(&table).unwrap()
    }

    #[test]
    fn secrets_are_replaced_and_everything_else_stays() {
        let Table { redacted, untouched, around: _ } = table();
        assert!(redacted.len() >= 110 && untouched.len() >= 110, "the table is there");
        let rows = redacted.into_iter().map(|row| (row.text, row.becomes));
        let all = rows.chain(untouched.into_iter().map(|text| (text.clone(), text)));
        let secrets = Secrets::default();
        let wrong: Vec<_> = all
            .map(|(text, expected)| (secrets.redact(&text).into_text(), expected, text))
            .filter(|(found, expected, _)| found != expected)
            .map(|(found, expected, text)| format!("{text}\n  became {found}\n  not    {expected}"))
            .collect();
        assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    }

    /// The secrets of the table that need no text around them.
    fn keys() -> Vec<String> {
        let secrets = Secrets::default();
        let secret = |Row { text, becomes }| {
            let (before, rest) = becomes.split_once(pieces::OPENS)?;
            let secret = text.strip_prefix(before)?.strip_suffix(rest.split_once(']')?.1)?;
            let marker = secrets.redact(secret).into_text();
            let alone = marker.starts_with(pieces::OPENS) && marker.ends_with(']');
            (alone && !secret.contains(['\n', ' '])).then(|| secret.to_owned())
        };
        table().redacted.into_iter().filter_map(secret).collect()
    }

    #[test]
    fn a_key_is_found_directly_beside_other_text() {
        let (secrets, keys, Around { before, after }) =
            (Secrets::default(), keys(), table().around);
        assert!(keys.len() >= 60, "{}", keys.len());
        let mut passed = Vec::new();
        for key in &keys {
            let around = before.iter().map(|before| format!("{before}{key}"));
            let around = around.chain(after.iter().map(|after| format!(" {key}{after}")));
            for text in around {
                let redacted = secrets.redact(&text);
                if redacted.as_str().contains(&key[..12]) || redacted.count() == 0 {
                    passed.push(text);
                }
            }
        }
        assert!(passed.is_empty(), "{} passed:\n{}", passed.len(), passed.join("\n"));
    }

    #[test]
    fn a_key_with_invisible_characters_inside_is_found() {
        let secrets = Secrets::default();
        for key in keys() {
            let expected = secrets.redact(&key);
            for hidden in ["\u{200b}", "\u{ad}", "\u{1b}[1m", "\u{202e}\u{feff}", "\0"] {
                for at in [1, key.len() / 2, key.len() - 1] {
                    let text = format!("{}{hidden}{}", &key[..at], &key[at..]);
                    assert_eq!(secrets.redact(&text), expected, "{text:?}");
                    let name = format!("pass{hidden}word");
                    let mut value = json!({name: format!("hunt{hidden}er22"), text: 1});
                    secrets.redact_all(&mut value);
                    let expected = json!({"password": "[redacted:password]", expected.as_str(): 1});
                    assert_eq!(value, expected);
                }
            }
        }
    }

    #[test]
    fn the_bridges_own_texts_stay() {
        let templates =
            std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/templates")).unwrap();
        let mut folders: Vec<_> = templates.map(|entry| entry.unwrap().path()).collect();
        while let Some(path) = folders.pop() {
            if path.is_dir() {
                folders.extend(std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            } else {
                let text = std::fs::read_to_string(&path).unwrap();
                assert_eq!(
                    Secrets::default().redact(&text).into_text(),
                    text,
                    "{}",
                    path.display()
                );
            }
        }
    }

    /// Put together here, so that no scanner takes this file for a leak.
    fn aws_key() -> String {
        format!("AKIA{}", "ABCDEFGHIJKLMNOP")
    }

    #[test]
    fn the_users_patterns_and_the_environment_count_too() {
        let dir = tempfile::tempdir().unwrap();
        let file = "values:\n- {kind: house-key, pattern: 'HK-(?P<secret>[0-9]{6})'}\nfiles: ['*.pem', vault/]\n";
        std::fs::write(dir.path().join("secrets.yaml"), file).unwrap();
        let vars = [
            ("ACME_TOKEN", "q8Zr2LmXv9WcYb4s"),
            ("ACME_TOKEN_LONG", "ignored"),
            ("OTHER_TOKEN", "q8Zr2LmXv9WcYb4s-and-more"),
            ("HOME", "/home/me"),
        ];
        let vars = vars.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let secrets = Secrets::load(dir.path(), &vars).unwrap();
        let check = |text: &str, expected: &str| {
            assert_eq!(secrets.redact(text).as_str(), expected, "{text}");
        };
        check("HK-123456 at /home/me", "HK-[redacted:house-key] at /home/me");
        check("xq8Zr2LmXv9WcYb4sy", "x[redacted:environment]y");
        check("q8Zr2LmXv9WcYb4s-and-more", "[redacted:environment]");
        check(&format!("{}!", aws_key()), "[redacted:aws-key]!");
        assert!(secrets.files().ends_with(&["*.pem".to_owned(), "vault/".to_owned()]));
        assert_eq!(format!("{secrets:?}"), "Secrets { .. }");
    }

    #[test]
    fn json_is_redacted_in_its_texts_and_names_and_by_its_names() {
        let secrets = Secrets::default();
        let check = |mut value: Value, expected: Value, count: usize| {
            assert_eq!(secrets.redact_all(&mut value), count);
            assert_eq!(value, expected);
            assert_eq!(secrets.redact_all(&mut value), 0);
            assert_eq!(value, expected);
        };
        check(
            json!(["a", 1, null, {"b": [format!("x {}", aws_key())]}]),
            json!(["a", 1, null, {"b": ["x [redacted:aws-key]"]}]),
            1,
        );
        check(
            json!({"password": "hunter22", "path": "hunter22", "token": ["q8Zr2LmXv9WcYb4s"]}),
            json!({"password": "[redacted:password]", "path": "hunter22", "token": ["q8Zr2LmXv9WcYb4s"]}),
            1,
        );
        check(json!({aws_key(): 1, "other": 2}), json!({"[redacted:aws-key]": 1, "other": 2}), 1);
        // A marker is no secret name, but the text behind it can be one.
        let token = format!("ghp_{}", "q8Zr2LmXv9WcYb4sTdK7hN3pQf6gJx0eVuAi");
        let (named, becomes) =
            (format!("{token} {} password", "x".repeat(60)), "[redacted:github-token]");
        check(json!({token: "q8Zr2LmXv9WcYb4s"}), json!({becomes: "q8Zr2LmXv9WcYb4s"}), 1);
        check(
            json!({named: "hunter22"}),
            json!({format!("{becomes} {} password", "x".repeat(60)): "[redacted:password]"}),
            2,
        );
    }

    #[test]
    fn an_error_is_redacted_in_all_its_parts() {
        let key = aws_key();
        let violation = Violation { did_you_mean: Some(key.clone()), ..Violation::new(&key, &key) };
        let error = Error {
            violations: vec![violation],
            example: Some(json!([key])),
            partial: Some(json!({"response": key})),
            ..Error::new(Kind::Crashed, &key, format!("See {key}."))
        };
        let redacted = Secrets::default().redact_error(error);
        let marker = "[redacted:aws-key]";
        let violation =
            Violation { did_you_mean: Some(marker.into()), ..Violation::new(marker, marker) };
        let expected = Error {
            violations: vec![violation],
            example: Some(json!([marker])),
            partial: Some(json!({"response": marker})),
            ..Error::new(Kind::Crashed, marker, format!("See {marker}."))
        };
        assert_eq!(redacted, expected);
    }

    #[test]
    fn no_secret_is_cut_in_half() {
        let secrets = Secrets::default();
        let key = aws_key();
        for before in 0..40 {
            let text = format!("{}{key} and more text that goes on", " ".repeat(before));
            let start = secrets.redact_start(&text, 30).into_text();
            let whole = secrets.redact(&text).into_text();
            assert!(start.chars().count() <= 30 && whole.starts_with(&start), "{start:?}");
            assert!(
                !start.contains("AKIA") && !start.contains("[red") || start.contains(']'),
                "{start:?}"
            );
        }
        // A block that shrinks when it is redacted moves the end of the window nearer.
        let block = format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            "q8Zr".repeat(6_000)
        );
        let gap = BEYOND + 120 - block.len() - 10;
        let text = format!("{block}{}{}", "x\n".repeat(gap / 2), key.repeat(1_000));
        let start = secrets.redact_start(&text, 30).into_text();
        assert_eq!(start, "[redacted:private-key]");
    }

    /// Texts of secrets, halves of them, markers and anything else, side by side.
    fn text() -> impl Strategy<Value = String> {
        let Table { redacted, untouched, around: _ } = table();
        let texts: Vec<String> =
            redacted.into_iter().flat_map(|row| [row.text, row.becomes]).chain(untouched).collect();
        let sample = proptest::sample::select(texts);
        let part = prop_oneof![
            4 => sample.clone(),
            2 => (sample, any::<prop::sample::Index>(), any::<bool>()).prop_map(|(text, at, first)| {
                let at = boundary(&text, at.index(text.len()));
                (if first { &text[..at] } else { &text[at..] }).to_owned()
            }),
            1 => "\\PC{0,12}",
            1 => "[ \n\\\\\"'=:?&]{0,3}",
            1 => Just("[redacted:".to_owned()),
            1 => "(password|token|api_key)( = |=|: \")",
        ];
        proptest::collection::vec(part, 0..8).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn redacting_twice_is_redacting_once(text in text()) {
            let secrets = Secrets::default();
            let once = secrets.redact(&text);
            let twice = secrets.redact(once.as_str());
            prop_assert_eq!(twice.as_str(), once.as_str());
            prop_assert_eq!(twice.count(), 0);
        }

        #[test]
        fn the_start_of_a_text_is_the_start_of_its_redaction(text in text(), chars in 0usize..200) {
            let secrets = Secrets::default();
            let start = secrets.redact_start(&text, chars).into_text();
            prop_assert!(start.chars().count() <= chars);
            prop_assert!(secrets.redact(&text).as_str().starts_with(&start));
        }

        #[test]
        fn any_text_can_be_redacted(text in any::<String>(), chars in 0usize..20) {
            let secrets = Secrets::default();
            let _ = (secrets.redact(&text), secrets.redact_start(&text, chars));
        }
    }
}
