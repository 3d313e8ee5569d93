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
    use proptest::sample::Index;
    use serde_json::json;

    use super::super::Role;
    use super::super::schema::Checker;
    use super::*;

    /// Values that fit a schema, of all its fields and many lengths.
    fn fitting(schema: &Value) -> BoxedStrategy<Value> {
        let number = |name: &str| usize::try_from(schema[name].as_u64().unwrap_or(0)).unwrap();
        if let Some(values) = schema["enum"].as_array() {
            return proptest::sample::select(values.clone()).boxed();
        }
        match schema["type"].as_str() {
            Some("object") => {
                let fields = schema["properties"].as_object().cloned().unwrap_or_default();
                let needed = schema["required"].as_array().cloned().unwrap_or_default();
                let fields = fields.into_iter().map(|(name, field)| {
                    let field = fitting(&field);
                    let field = if needed.contains(&json!(name)) {
                        field.prop_map(Some).boxed()
                    } else {
                        proptest::option::weighted(0.6, field).boxed()
                    };
                    (Just(name), field)
                });
                let present = |(name, field): (String, Option<Value>)| Some((name, field?));
                let fields = fields.collect::<Vec<_>>();
                fields
                    .prop_map(move |all| all.into_iter().filter_map(present).collect::<Map<_, _>>())
                    .prop_map(Value::Object)
                    .boxed()
            }
            Some("array") => {
                let least = number("minItems");
                let items = proptest::collection::vec(fitting(&schema["items"]), least..least + 3);
                items.prop_map(Value::Array).boxed()
            }
            Some("integer" | "number") => {
                let least = number("minimum");
                let most = schema["maximum"].as_u64().map_or(least + 9, |_| number("maximum"));
                (least..=most).prop_map(Value::from).boxed()
            }
            _ if schema["pattern"] == FINDING => "F[1-9][0-9]{0,5}".prop_map(Value::from).boxed(),
            _ => "[a-z][a-z \n]{0,39}".prop_map(Value::from).boxed(),
        }
    }

    /// What hardly any place may hold.
    fn odd() -> impl Strategy<Value = Value> {
        let odd = [
            json!(null),
            json!(true),
            json!(0),
            json!(-1),
            json!(4),
            json!(1.0),
            json!(2.5),
            json!(100_000),
            json!(u64::MAX),
            json!(""),
            json!(" \n"),
            json!("\u{feff}"),
            json!("\u{85}"),
            json!("F0"),
            json!("F1\n"),
            json!("F1234567"),
            json!("F\u{661}"),
            json!("é".repeat(41)),
            json!({}),
            json!({"a": 1}),
            json!([]),
            json!([1]),
        ];
        proptest::sample::select(odd.to_vec())
    }

    /// How many places a value has.
    fn places(value: &Value) -> usize {
        1 + match value {
            Value::Object(fields) => fields.values().map(places).sum(),
            Value::Array(items) => items.iter().map(places).sum(),
            _ => 0,
        }
    }

    /// Changes one place: puts something else there, takes a field away or adds one.
    fn change(value: &mut Value, at: &mut usize, odd: &Value, how: usize) {
        if *at == 0 {
            match (value, how) {
                (Value::Object(fields), 0) => _ = fields.insert("other".to_owned(), odd.clone()),
                (Value::Object(fields), 1) => {
                    let first = fields.keys().next().cloned();
                    first.and_then(|name| fields.remove(&name));
                }
                (Value::Array(items), 0) => items.push(odd.clone()),
                (Value::Array(items), 1) => _ = items.pop(),
                (value, _) => *value = odd.clone(),
            }
            *at = usize::MAX;
            return;
        }
        *at -= 1;
        let parts: Vec<&mut Value> = match value {
            Value::Object(fields) => fields.values_mut().collect(),
            Value::Array(items) => items.iter_mut().collect(),
            _ => Vec::new(),
        };
        for part in parts {
            if *at == usize::MAX {
                return;
            }
            change(part, at, odd, how);
        }
    }

    #[test]
    fn what_certainly_fits_is_nothing_that_the_validator_refuses() {
        let checkers = Role::ALL.map(Checker::of_request).into_iter();
        for checker in checkers.chain([Checker::of_continuation(), Checker::of_answer()]) {
            let schema = &checker.schema;
            let refused = Cell::new(0);
            proptest!(ProptestConfig::with_cases(1024), |(value in fitting(schema), at: Index, odd in odd(), how in 0..4_usize)| {
                prop_assert!(fits(schema, &value), "{value:#}");
                prop_assert_eq!(checker.refusals(&value), []);
                let mut changed = value;
                let mut at = at.index(places(&changed));
                change(&mut changed, &mut at, &odd, how);
                let violations = checker.refusals(&changed);
                refused.set(refused.get() + usize::from(!violations.is_empty()));
                prop_assert!(violations.is_empty() || !fits(schema, &changed), "{changed:#}");
            });
            // By far the most.
            assert!(refused.get() > 256, "{} were refused", refused.get());
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
