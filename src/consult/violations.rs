//! The check of a value against a schema, with a message for every mismatch that a caller can act on.

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::paths::Location;
use jsonschema::{ValidationError, Validator};
use serde_json::Value;

use super::role::Role;
use super::schema;
use crate::error::Violation;
use crate::kimi::text::first_chars;
use crate::settings::nearest;

/// A schema for checking values.
#[derive(Debug)]
pub(super) struct Checker {
    schema: Value,
    validator: Validator,
}

impl Checker {
    /// A checker for one of the bridge's schemas.
    #[expect(clippy::expect_used, reason = "tests compile each schema")]
    pub(super) fn new(schema: Value) -> Checker {
        let validator = jsonschema::validator_for(&schema).expect("the schema compiles");
        Checker { schema, validator }
    }

    /// All mismatches of a value, in its order.
    pub(super) fn violations(&self, value: &Value) -> Vec<Violation> {
        let errors = self.validator.iter_errors(value);
        errors.flat_map(|error| self.violations_of(&error)).collect()
    }

    fn violations_of(&self, error: &ValidationError<'_>) -> Vec<Violation> {
        let at = error.instance_path();
        let keyword = error.schema_path().as_str();
        let schema = keyword.rsplit_once('/').and_then(|(schema, _)| self.schema.pointer(schema));
        let fields = &schema.unwrap_or(&Value::Null)["properties"];
        match error.kind() {
            ValidationErrorKind::Required { property } => {
                let name = property.as_str().unwrap_or_default();
                let what = fields[name]["description"].as_str().unwrap_or("a value");
                let missing = format!("required and missing: {what}");
                vec![Violation::new(at.join(name).as_str(), missing)]
            }
            ValidationErrorKind::AdditionalProperties { unexpected } => {
                let unknown = unexpected.iter().map(|name| self.unknown_field(at, name, fields));
                unknown.collect()
            }
            kind => vec![Violation::new(at.as_str(), expected(kind, error))],
        }
    }

    /// The violation of an unknown field, with the similar field that may be meant.
    fn unknown_field(&self, at: &Location, name: &str, known: &Value) -> Violation {
        let known: Vec<&str> =
            known.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
        let context = &self.schema["properties"]["context"]["properties"];
        let of_context = at.as_str().is_empty() && !context[name].is_null();
        let did_you_mean = nearest(name, known.iter().copied())
            .map(|near| at.join(near))
            .or_else(|| of_context.then(|| at.join("context").join(name)));
        let mut expected = "no such field".to_owned();
        if !known.is_empty() {
            expected = format!("{expected}; known are {}", known.join(", "));
        }
        if did_you_mean.is_none() && at.as_str() == "/context" {
            let takes_it = |role: &Role| !schema::context(*role)["properties"][name].is_null();
            let roles: Vec<&str> = Role::ALL.into_iter().filter(takes_it).map(Role::name).collect();
            if !roles.is_empty() {
                let roles = roles.join(" and ");
                expected = format!("{expected}; `{name}` belongs to the role {roles}");
            }
        }
        let did_you_mean = did_you_mean.map(|place| place.to_string());
        Violation { pointer: at.join(name).to_string(), expected, did_you_mean }
    }
}

fn expected(kind: &ValidationErrorKind, error: &ValidationError<'_>) -> String {
    match kind {
        ValidationErrorKind::Type { kind: TypeKind::Single(wanted) } => {
            let article = if wanted.as_str().starts_with(['a', 'i', 'o']) { "an" } else { "a" };
            format!("expected {article} {wanted}, found {}", name_of(error.instance()))
        }
        ValidationErrorKind::Enum { options } => {
            let options = options.as_array().into_iter().flatten();
            let options: Vec<&str> = options.filter_map(Value::as_str).collect();
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

fn short(value: &Value) -> String {
    let text = value.to_string();
    let cut = first_chars(&text, 60);
    if cut.len() < text.len() { format!("{cut}…") } else { text }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(role: Role, request: &Value, expected: &[&str]) {
        let violations: Vec<_> = Checker::new(schema::request(role))
            .violations(request)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(violations, expected, "{request}");
    }

    #[test]
    fn every_example_fits_its_role() {
        for role in Role::ALL {
            check(role, &role.example(), &[]);
        }
    }

    #[test]
    fn every_violation_is_reported_with_its_place_and_the_expected_value() {
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
    fn a_misplaced_field_is_reported_with_its_place() {
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
