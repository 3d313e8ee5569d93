//! Whether a value certainly fits a schema.
//!
//! Most requests and most answers do, and to compile a schema for them would take a server a megabyte and
//! some milliseconds. What is not certain, since it does not fit or since too little is known here of
//! schemas, is for a validator to say.

use serde_json::{Map, Value};

use super::schema::{FINDING, NOT_BLANK};

/// Whether it certainly does.
pub(super) fn fits(schema: &Value, value: &Value) -> bool {
    let Some(keywords) = schema.as_object() else { return false };
    keywords.iter().all(|(keyword, told)| match keyword.as_str() {
        "description" | "default" => true,
        "type" => told.as_str().is_some_and(|name| is_a(name, value)),
        "enum" => told.as_array().is_some_and(|values| values.contains(value)),
        _ => match value {
            Value::Object(fields) => of_fields(schema, keyword, told, fields),
            Value::Array(items) => match keyword.as_str() {
                "items" => items.iter().all(|item| fits(told, item)),
                "minItems" => at_least(told, Some(items.len())),
                _ => false,
            },
            Value::String(text) => match keyword.as_str() {
                "minLength" => at_least(told, Some(text.chars().count())),
                "maxLength" => at_most(told, Some(text.chars().count())),
                "pattern" => told.as_str().is_some_and(|pattern| matches(pattern, text)),
                _ => false,
            },
            Value::Number(number) => match keyword.as_str() {
                "minimum" => at_least(told, whole(number)),
                "maximum" => at_most(told, whole(number)),
                _ => false,
            },
            Value::Null | Value::Bool(_) => false,
        },
    })
}

fn is_a(name: &str, value: &Value) -> bool {
    match value {
        Value::Object(_) => name == "object",
        Value::Array(_) => name == "array",
        Value::String(_) => name == "string",
        Value::Number(number) => name == "number" || name == "integer" && whole(number).is_some(),
        Value::Null | Value::Bool(_) => false,
    }
}

fn of_fields(schema: &Value, keyword: &str, told: &Value, fields: &Map<String, Value>) -> bool {
    match keyword {
        "properties" => fields
            .iter()
            .all(|(name, field)| told.get(name).is_none_or(|schema| fits(schema, field))),
        "required" => told.as_array().is_some_and(|names| {
            names.iter().all(|name| name.as_str().is_some_and(|name| fields.contains_key(name)))
        }),
        "additionalProperties" => {
            let mut names = fields.keys();
            *told == false && names.all(|name| schema["properties"].get(name).is_some())
        }
        _ => false,
    }
}

fn whole(number: &serde_json::Number) -> Option<usize> {
    usize::try_from(number.as_u64()?).ok()
}

fn at_least(least: &Value, count: Option<usize>) -> bool {
    least.as_u64().zip(count).is_some_and(|(least, count)| count as u64 >= least)
}

fn at_most(most: &Value, count: Option<usize>) -> bool {
    most.as_u64().zip(count).is_some_and(|(most, count)| count as u64 <= most)
}

/// Those patterns that there are.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern {
        // A letter or digit is no white space, whoever says what that is.
        NOT_BLANK => text.chars().any(char::is_alphanumeric),
        FINDING => text.strip_prefix('F').is_some_and(|number| {
            let digits = number.bytes().all(|byte| byte.is_ascii_digit());
            digits && (1..=6).contains(&number.len()) && !number.starts_with('0')
        }),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;
    use serde_json::json;

    use super::super::Role;
    use super::super::schema::Checker;
    use super::*;

    /// Values of which some fit a schema: of its fields and of others, mostly of the right kind.
    fn values(schema: &Value) -> BoxedStrategy<Value> {
        let odd = prop_oneof![
            Just(json!(null)),
            Just(json!(-1)),
            Just(json!(2.5)),
            Just(json!("")),
            Just(json!("\u{feff}")),
            Just(json!({"a": 1})),
            Just(json!([])),
        ];
        let fitting = match schema["type"].as_str() {
            _ if schema["enum"].is_array() => {
                proptest::sample::select(schema["enum"].as_array().unwrap().clone()).boxed()
            }
            Some("object") => {
                let fields = schema["properties"].as_object().cloned().unwrap_or_default();
                let needed = schema["required"].as_array().cloned().unwrap_or_default();
                let fields = fields.into_iter().map(|(name, field)| {
                    let often = if needed.contains(&json!(name)) { 0.95 } else { 0.3 };
                    (Just(name), proptest::option::weighted(often, values(&field)))
                });
                let other = proptest::option::weighted(0.05, Just(("other".to_owned(), json!(1))));
                (fields.collect::<Vec<_>>(), other)
                    .prop_map(|(fields, other)| {
                        let fields =
                            fields.into_iter().filter_map(|(name, field)| Some((name, field?)));
                        Value::Object(fields.chain(other).collect())
                    })
                    .boxed()
            }
            Some("array") => proptest::collection::vec(values(&schema["items"]), 0..4)
                .prop_map(Value::Array)
                .boxed(),
            Some("integer" | "number") => prop_oneof![
                (0_u32..5).prop_map(Value::from),
                (0_u32..100_000).prop_map(Value::from)
            ]
            .boxed(),
            _ => prop_oneof!["F[1-9]{1,2}", "[a-z \n]{0,50}"].prop_map(Value::from).boxed(),
        };
        prop_oneof![40 => fitting, 1 => odd].boxed()
    }

    #[test]
    fn what_certainly_fits_is_nothing_that_the_validator_refuses() {
        let checkers = Role::ALL.map(Checker::of_request).into_iter();
        for checker in checkers.chain([Checker::of_continuation(), Checker::of_answer()]) {
            let (certain, refused) = (Cell::new(0), Cell::new(0));
            proptest!(|(value in values(&checker.schema))| {
                let violations = checker.refusals(&value);
                certain.set(certain.get() + usize::from(fits(&checker.schema, &value)));
                refused.set(refused.get() + usize::from(!violations.is_empty()));
                prop_assert!(violations.is_empty() || !fits(&checker.schema, &value), "{violations:?}");
            });
            let (certain, refused) = (certain.get(), refused.get());
            assert!(certain > 10 && refused > 10, "{certain} fit, {refused} do not");
        }
    }

    #[test]
    fn what_is_usual_certainly_fits() {
        for role in Role::ALL {
            assert!(fits(&Checker::of_request(role).schema, &role.example()), "{role:?}");
        }
        let adjudications = json!([{"finding": "F12", "verdict": "ADOPT"}]);
        let continued =
            json!({"thread_id": "t", "prior_exchange": {"adjudications": adjudications}});
        assert!(fits(&Checker::of_continuation().schema, &continued));
        let cited = json!({"path": "a.rs", "line_start": 1, "quote": "x"});
        let finding = json!({"severity": "major", "claim": "c", "citations": [cited]});
        let answered = json!({"response": "r", "findings": [finding], "survived": ["s"]});
        assert!(fits(&Checker::of_answer().schema, &answered));
    }
}
