//! Lists of patterns for names: `*` at either end matches anything.

use serde::Deserialize;

/// The longest name that is looked at, bytes.
pub(super) const LONGEST: usize = 100;

/// A list of patterns of names.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct NamePatterns(Vec<String>);

impl NamePatterns {
    /// Returns the first pattern that matches a name in its [`normal`] form, without its stars.
    pub(super) fn core_in(&self, name: &str) -> Option<&str> {
        self.0.iter().find_map(|pattern| {
            let core = pattern.trim_matches('*');
            let matches = match (pattern.starts_with('*'), pattern.ends_with('*')) {
                (false, false) => name == core,
                (true, false) => name.ends_with(core),
                (false, true) => name.starts_with(core),
                (true, true) => name.contains(core),
            };
            matches.then_some(core)
        })
    }

    /// The last word of each pattern; every spelling of a matching name contains it.
    pub(super) fn last_words(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|pattern| {
            let core = pattern.trim_matches('*');
            core.rsplit('_').next().unwrap_or(core)
        })
    }
}

/// Converts a name to lower case with its words joined by `_`: `clientSecret`, `CLIENT-SECRET` and `client.secret`
/// become `client_secret`.
pub(super) fn normal(name: &str) -> String {
    let mut normal = String::with_capacity(name.len() + 8);
    let mut chars = name.chars().peekable();
    let mut before = '_';
    while let Some(c) = chars.next() {
        let next_is_lower = chars.peek().is_some_and(char::is_ascii_lowercase);
        let begins_word = c.is_ascii_uppercase()
            && (before.is_ascii_lowercase()
                || before.is_ascii_digit()
                || (before.is_ascii_uppercase() && next_is_lower));
        if begins_word || (!c.is_ascii_alphanumeric() && !normal.ends_with('_')) {
            normal.push('_');
        }
        if c.is_ascii_alphanumeric() {
            normal.push(c.to_ascii_lowercase());
        }
        before = c;
    }
    normal.trim_matches('_').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_name_has_one_normal_form() {
        let check = |name: &str, expected: &str| assert_eq!(normal(name), expected);
        check("clientSecret", "client_secret");
        check("AWS_SECRET_ACCESS_KEY", "aws_secret_access_key");
        check("--api-key", "api_key");
        check("X-API-Key", "x_api_key");
        check("spring.datasource.password", "spring_datasource_password");
        check("APIKey", "api_key");
        check("apiKeyV2", "api_key_v2");
        check("db__pass", "db_pass");
        check("", "");
    }

    #[test]
    fn a_star_matches_anything() {
        let check = |pattern: &str, name: &str, expected: bool| {
            let names = NamePatterns(vec![pattern.to_owned()]);
            assert_eq!(names.core_in(name).is_some(), expected, "{pattern} {name}");
        };
        check("pass", "pass", true);
        check("pass", "bypass", false);
        check("*_pass", "db_pass", true);
        check("*_pass", "bypass", false);
        check("*token", "authtoken", true);
        check("*token", "token_count", false);
        check("*secret*", "my_secret_base", true);
        check("key*", "keyring", true);
    }

    #[test]
    fn the_last_word_of_a_pattern_is_in_every_matching_name() {
        let names = NamePatterns(
            ["*secret_access_key", "*_pass", "*password*", "pwd"].map(str::to_owned).into(),
        );
        assert_eq!(names.last_words().collect::<Vec<_>>(), ["key", "pass", "password", "pwd"]);
    }
}
