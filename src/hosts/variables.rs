//! Expands the variables in a host's file, as far as this process knows their values.

use std::path::Path;
use std::sync::LazyLock;

use regex::{Captures, Regex};

use crate::settings::Environment;

static VARIABLE: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"\$\{(?:env:)?(?P<name>\w+)(?::-(?P<else>[^}]*))?\}|\{env:(?P<opencode>\w+)\}").ok()
});

/// Expands every variable in a text; `None` if the value of one is unknown.
pub(crate) fn expand(text: &str, environment: &Environment) -> Option<String> {
    let variable = VARIABLE.as_ref()?;
    let value = |found: &Captures<'_>| {
        let name = found.name("name").or(found.name("opencode")).map_or("", |name| name.as_str());
        let path = |path: &Path| Some(path.display().to_string());
        match name {
            "workspaceFolder" => path(&environment.project_dir()),
            "userHome" => path(&environment.home),
            name => environment
                .var(name)
                .or(found.name("else").map(|text| text.as_str()))
                .map(str::to_owned),
        }
    };
    let all_known = variable.captures_iter(text).all(|found| value(&found).is_some());
    let expanded =
        variable.replace_all(text, |found: &Captures<'_>| value(found).unwrap_or_default());
    (all_known && !expanded.contains('$')).then(|| expanded.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_variables_are_expanded_and_an_unknown_one_gives_none() {
        let environment = Environment {
            vars: [("SET".to_owned(), "1".to_owned())].into(),
            home: "/home/me".into(),
            current_dir: "/p".into(),
            ..Environment::default()
        };
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(expand(text, &environment).as_deref(), expected, "{text}");
        };
        check("plain", Some("plain"));
        check("${SET}", Some("1"));
        check("${SET:-2}${UNSET:-3}${UNSET:-}", Some("13"));
        check("${env:SET} {env:SET}", Some("1 1"));
        check("${userHome}/bin/x", Some("/home/me/bin/x"));
        check("${workspaceFolder}/x", Some("/p/x"));
        check("${UNSET}", None);
        check("${input:key}", None);
        check("$SET", None);
    }
}
