//! The check of a value against a schema, which names everything that does not fit in words that a caller
//! can act on.

use std::sync::LazyLock;

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{ValidationError, Validator};
use serde_json::Value;

use super::role::Role;
use super::schema;
use crate::error::Violation;
use crate::kimi::text::first_chars;
use crate::settings::nearest;

/// A schema that values are checked against.
#[derive(Debug)]
pub(super) struct Checker {
    schema: Value,
    validator: Validator,
}

impl Checker {
    /// The checker of a schema that the bridge made.
    #[expect(clippy::expect_used, reason = "tests compile each schema")]
    pub(super) fn new(schema: Value) -> Checker {
        let validator = jsonschema::validator_for(&schema).expect("the schema compiles");
        Checker { schema, validator }
    }

    /// The checker of a whole request in this role.
    pub(super) fn of_request(role: Role) -> &'static Checker {
        static CHECKERS: [LazyLock<Checker>; 4] = [
            LazyLock::new(|| Checker::new(schema::of_request(Role::Skeptic))),
            LazyLock::new(|| Checker::new(schema::of_request(Role::Architect))),
            LazyLock::new(|| Checker::new(schema::of_request(Role::Debugger))),
            LazyLock::new(|| Checker::new(schema::of_request(Role::Judge))),
        ];
        &CHECKERS[role as usize]
    }

    /// The checker of a request that continues a thread.
    pub(super) fn of_continuation() -> &'static Checker {
        static CHECKER: LazyLock<Checker> =
            LazyLock::new(|| Checker::new(schema::of_continuation()));
        &CHECKER
    }

    /// Everything about the value that does not fit, in the order of the value.
    pub(super) fn violations(&self, value: &Value) -> Vec<Violation> {
        let errors = self.validator.iter_errors(value);
        errors.flat_map(|error| self.violations_of(&error)).collect()
    }

    fn violations_of(&self, error: &ValidationError<'_>) -> Vec<Violation> {
        let at = error.instance_path().to_string();
        match error.kind() {
            ValidationErrorKind::Required { property } => {
                let name = property.as_str().unwrap_or_default();
                let pointer = format!("{at}/{}", escape(name));
                let what = self.description(&pointer).unwrap_or("a value");
                vec![Violation::new(pointer, format!("required and missing: {what}"))]
            }
            ValidationErrorKind::AdditionalProperties { unexpected } => {
                unexpected.iter().map(|name| self.unknown_field(&at, name)).collect()
            }
            kind => vec![Violation::new(at, expected(kind, error))],
        }
    }

    /// A field that the schema does not know, with the place where it may be meant.
    fn unknown_field(&self, at: &str, name: &str) -> Violation {
        let pointer = format!("{at}/{}", escape(name));
        let here: Vec<&str> = self.fields(at);
        let mut did_you_mean =
            nearest(name, here.iter().copied()).map(|near| format!("{at}/{}", escape(near)));
        let mut expected = match here.as_slice() {
            [] => "no such field".to_owned(),
            known => format!("no such field; known are {}", known.join(", ")),
        };
        if did_you_mean.is_none() && at.is_empty() && self.fields("/context").contains(&name) {
            did_you_mean = Some(format!("/context/{}", escape(name)));
        }
        if did_you_mean.is_none() && at == "/context" {
            let roles: Vec<&str> = Role::ALL
                .iter()
                .filter(|&&role| !schema::of_context(role)["properties"][name].is_null())
                .map(|role| role.name())
                .collect();
            if !roles.is_empty() {
                expected =
                    format!("{expected}; `{name}` belongs to the role {}", roles.join(" and "));
            }
        }
        Violation { pointer, expected, did_you_mean }
    }

    fn fields(&self, at: &str) -> Vec<&str> {
        self.schema_at(at)
            .and_then(|schema| schema["properties"].as_object())
            .map(|fields| fields.keys().map(String::as_str).collect())
            .unwrap_or_default()
    }

    fn description(&self, pointer: &str) -> Option<&str> {
        self.schema_at(pointer)?["description"].as_str()
    }

    fn schema_at(&self, pointer: &str) -> Option<&Value> {
        pointer.split('/').skip(1).try_fold(&self.schema, |schema, part| {
            if part.bytes().all(|byte| byte.is_ascii_digit()) && schema.get("items").is_some() {
                schema.get("items")
            } else {
                schema.get("properties")?.get(part.replace("~1", "/").replace("~0", "~"))
            }
        })
    }
}

fn expected(kind: &ValidationErrorKind, error: &ValidationError<'_>) -> String {
    match kind {
        ValidationErrorKind::Type { kind } => {
            let wanted = match kind {
                TypeKind::Single(one) => one.to_string(),
                TypeKind::Multiple(many) => {
                    many.iter().map(|one| one.to_string()).collect::<Vec<_>>().join(" or ")
                }
            };
            format!("expected {} {wanted}, found {}", article(&wanted), name_of(error.instance()))
        }
        ValidationErrorKind::Enum { options } => {
            let options: Vec<String> =
                options.as_array().into_iter().flatten().map(plain).collect();
            format!("expected one of {}, found {}", options.join(", "), short(error.instance()))
        }
        ValidationErrorKind::MinItems { limit } => format!("expected {limit} or more items"),
        ValidationErrorKind::Pattern { pattern } if pattern.starts_with("^F") => {
            "expected a finding, such as F1".to_owned()
        }
        ValidationErrorKind::MinLength { .. } | ValidationErrorKind::Pattern { .. } => {
            "expected a text that is not blank".to_owned()
        }
        ValidationErrorKind::MaxLength { limit } => format!("expected {limit} characters or less"),
        ValidationErrorKind::Minimum { limit } => format!("expected {limit} or more"),
        ValidationErrorKind::Maximum { limit } => format!("expected {limit} or less"),
        _ => error.to_string(),
    }
}

fn article(noun: &str) -> &'static str {
    if noun.starts_with(['a', 'e', 'i', 'o']) { "an" } else { "a" }
}

fn name_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    let cut = first_chars(&text, 60);
    if cut.len() < text.len() { format!("{cut}…") } else { text }
}

fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(role: Role, request: &Value, expected: &[&str]) {
        let violations: Vec<_> =
            Checker::of_request(role).violations(request).iter().map(ToString::to_string).collect();
        assert_eq!(violations, expected, "{request}");
    }

    #[test]
    fn every_example_fits_its_role() {
        for role in Role::ALL {
            check(role, &role.example(), &[]);
        }
    }

    #[test]
    fn every_violation_is_named_with_its_place_and_what_was_expected() {
        check(
            Role::Skeptic,
            &json!({"message": "", "context": {"proposed_aproach": "x", "goals": []}, "tiemout_seconds": "5"}),
            &[
                "/message: expected a text that is not blank",
                "/context/proposed_approach: required and missing: What you propose, in enough detail to attack",
                "/context/goals: expected 1 or more items",
                "/context/proposed_aproach: no such field; known are proposed_approach, goals, constraints, \
                 known_risks (did you mean /context/proposed_approach?)",
                "/tiemout_seconds: no such field; known are role, message, context, work_dir, files, initiated_by, \
                 thread_id, prior_exchange, timeout_seconds, max_result_chars, language (did you mean /timeout_seconds?)",
            ],
        );
        check(
            Role::Debugger,
            &json!({"message": "m", "context": {"symptoms": "s", "expected_behavior": " ",
                "tried_approaches": ["restart", {"approach": "a"}]}}),
            &[
                "/context/expected_behavior: expected a text that is not blank",
                "/context/tried_approaches/0: expected an object, found a string",
                "/context/tried_approaches/1/outcome: required and missing: What came of it",
            ],
        );
        check(
            Role::Judge,
            &json!({"message": "m", "context": {"options": [{"name": "a", "summary": "s", "pros": "fast"}],
                "criteria": "speed"}, "timeout_seconds": 0}),
            &[
                "/context/options: expected 2 or more items",
                "/context/options/0/pros: expected an array, found a string",
                "/context/criteria: expected an array, found a string",
                "/timeout_seconds: expected 1 or more",
            ],
        );
    }

    #[test]
    fn a_field_in_the_wrong_place_or_of_another_role_is_told_where_it_belongs() {
        check(
            Role::Skeptic,
            &json!({"message": "m", "goals": ["g"], "context":
                {"proposed_approach": "p", "goals": ["g"], "symptoms": "s"}}),
            &[
                "/context/symptoms: no such field; known are proposed_approach, goals, constraints, known_risks; \
                 `symptoms` belongs to the role debugger",
                "/goals: no such field; known are role, message, context, work_dir, files, initiated_by, \
                 thread_id, prior_exchange, timeout_seconds, max_result_chars, language (did you mean /context/goals?)",
            ],
        );
    }
}
