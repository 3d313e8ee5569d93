//! Repairs a request: some hosts send objects, lists and numbers as JSON text, fill in every optional field, and add
//! fields of their own. The result is checked like any other request.

use serde_json::{Map, Value};

use super::request::Request;
use super::role::Role;
use super::schema;

/// Fields that hosts add to the arguments of every tool: Gemini CLI, `OpenHands`, Cline and Windsurf do. Fields that
/// begin with `_` belong to the protocol.
const HOST_FIELDS: [&str; 5] =
    ["wait_for_previous", "security_risk", "task_progress", "toolSummary", "waitForPreviousTools"];

/// Parses texts where the schema expects another type, and removes blank optional fields and fields of hosts. Returns a
/// warning for each text that was parsed.
pub(super) fn coerce(request: Request) -> (Request, Vec<String>) {
    let mut fields = request.0;
    fields.retain(|name, _| !(name.starts_with('_') || HOST_FIELDS.contains(&name.as_str())));
    let is_continuation = fields.get("thread_id").is_some_and(|id| !is_blank(id));
    let role = fields.get("role").cloned().and_then(|role| serde_json::from_value(role).ok());
    let mut schema = schema::request(role.unwrap_or(Role::default()));
    if is_continuation {
        // A continuation takes the role of its thread, and may leave out the context.
        schema = schema::tool_input();
    }
    let mut warnings = Vec::new();
    object(&mut fields, &schema, "", &mut warnings);
    (Request(fields), warnings)
}

fn object(fields: &mut Map<String, Value>, schema: &Value, at: &str, warnings: &mut Vec<String>) {
    let required = |name: &str| {
        schema["required"].as_array().is_some_and(|required| required.iter().any(|one| one == name))
    };
    for (name, value) in fields.iter_mut() {
        coerce_value(value, &schema["properties"][name], &format!("{at}/{name}"), warnings);
    }
    fields.retain(|name, value| {
        let is_known = !schema["properties"][name].is_null();
        !is_known || required(name) || !is_blank(value)
    });
}

fn coerce_value(value: &mut Value, schema: &Value, at: &str, warnings: &mut Vec<String>) {
    let expected = schema["type"].as_str().unwrap_or_default();
    if let Value::String(text) = value
        && let Some(read) = read_as(expected, text)
    {
        warnings.push(format!("`{at}` came as text and was read as {}", with_article(expected)));
        *value = read;
    }
    match value {
        Value::Object(fields) => object(fields, schema, at, warnings),
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                coerce_value(item, &schema["items"], &format!("{at}/{index}"), warnings);
            }
        }
        // A schema accepts 60.0 as an integer, but serde does not.
        Value::Number(number) if expected == "integer" => {
            if let Some(whole) = whole(number) {
                *value = whole.into();
            }
        }
        Value::Number(_) | Value::Null | Value::Bool(_) | Value::String(_) => {}
    }
}

/// Parses a text as JSON of the expected type. A text is not parsed where text is expected.
fn read_as(expected: &str, text: &str) -> Option<Value> {
    let read: Value = serde_json::from_str(text.trim()).ok()?;
    let fits = match expected {
        "object" => read.is_object(),
        "array" => read.is_array(),
        "boolean" => read.is_boolean(),
        "number" => read.is_number(),
        "integer" => read.as_number().is_some_and(|number| whole(number).is_some()),
        _ => false,
    };
    fits.then_some(read)
}

/// A number without a fraction, if a field can hold it.
fn whole(number: &serde_json::Number) -> Option<u64> {
    let text = number.to_string();
    text.strip_suffix(".0").unwrap_or(&text).parse().ok()
}

fn with_article(kind: &str) -> String {
    let article = if kind.starts_with(['a', 'i', 'o']) { "an" } else { "a" };
    format!("{article} {kind}")
}

/// Returns whether a value is empty.
fn is_blank(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => matches!(text.trim(), "" | "null"),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_blank),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(sent: &Value, expected: &Value, warnings: &[&str]) {
        let (meant, warned) = coerce(Request(sent.as_object().unwrap().clone()));
        assert_eq!(
            (Value::Object(meant.0), warned),
            (expected.clone(), warnings.iter().map(ToString::to_string).collect())
        );
    }

    #[test]
    fn json_in_a_text_is_parsed_where_the_schema_expects_it() {
        let text = |at: &str, kind: &str| format!("`{at}` came as text and was read as {kind}");
        let context = json!({"proposed_approach": "p", "goals": ["g"]});
        let object = text("/context", "an object");
        check(
            &json!({"message": "m", "context": context.to_string()}),
            &json!({"message": "m", "context": context}),
            &[&object],
        );
        let goals = text("/context/goals", "an array");
        check(
            &json!({"context": json!({"goals": "[\"g\"]"}).to_string(), "files": "[\"src/a.rs\"]"}),
            &json!({"context": {"goals": ["g"]}, "files": ["src/a.rs"]}),
            &[&object, &goals, &text("/files", "an array")],
        );
        for number in ["600", " 600\n", "600.0"] {
            check(
                &json!({"timeout_seconds": number}),
                &json!({"timeout_seconds": 600}),
                &[&text("/timeout_seconds", "an integer")],
            );
        }
        check(&json!({"timeout_seconds": 60.0}), &json!({"timeout_seconds": 60}), &[]);
        let prior = json!({"adjudications": [{"finding": "F1", "verdict": "ADOPT"}]});
        check(
            &json!({"thread_id": "t", "prior_exchange": prior.to_string()}),
            &json!({"thread_id": "t", "prior_exchange": prior}),
            &[&text("/prior_exchange", "an object")],
        );
        check(
            &json!({"thread_id": "t", "prior_exchange": {"adjudications": "[]", "round": "2"}}),
            &json!({"thread_id": "t", "prior_exchange": {"adjudications": [], "round": 2}}),
            &[
                &text("/prior_exchange/adjudications", "an array"),
                &text("/prior_exchange/round", "an integer"),
            ],
        );
        check(
            &json!({"role": "judge", "context": {"options": ["{\"name\": \"a\"}"]}}),
            &json!({"role": "judge", "context": {"options": [{"name": "a"}]}}),
            &[&text("/context/options/0", "an object")],
        );
    }

    #[test]
    fn text_that_is_not_json_of_the_expected_type_is_refused() {
        for sent in [
            json!({"context": "a proposal in words"}),
            json!({"context": "[1]"}),
            json!({"timeout_seconds": "soon"}),
            json!({"timeout_seconds": "1.5"}),
            json!({"timeout_seconds": 1.5}),
            json!({"files": "src/a.rs"}),
            json!({"message": "[\"a list in the user's words\"]"}),
            json!({"context": {"proposed_approach": "{\"json\": true}"}}),
            json!({"tiemout_seconds": ""}),
        ] {
            check(&sent, &sent, &[]);
        }
    }

    #[test]
    fn blank_fields_count_as_absent_if_they_are_optional() {
        let blank = json!({
            "message": "", "context": {"proposed_approach": "", "goals": [], "constraints": [], "known_risks": "null"},
            "work_dir": "", "files": [], "language": "null", "timeout_seconds": "", "thread_id": " ",
            "prior_exchange": {"round": null, "adjudications": [], "kimi_response": ""}, "initiated_by": null,
        });
        check(
            &blank,
            &json!({"message": "", "context": {"proposed_approach": "", "goals": []}}),
            &[],
        );
        let again = json!({"thread_id": "t", "message": "", "context": {}, "prior_exchange": {"adjudications": []}});
        check(&again, &json!({"thread_id": "t"}), &[]);
    }

    #[test]
    fn fields_of_hosts_are_skipped() {
        check(
            &json!({"message": "m", "wait_for_previous": false, "_meta": {"a": 1}, "security_risk": "LOW", "goals": 1}),
            &json!({"message": "m", "goals": 1}),
            &[],
        );
    }
}
