//! What goes into `consult_kimi` and what comes out, as hosts are told it. The two schemas are made from the
//! types by a test, which keeps them in `schemas/`: a server that only waits has no use for what makes them.

use serde_json::{Map, Value};

/// What rmcp calls a JSON object.
type JsonObject = Map<String, Value>;

/// The schema of the tool's input.
pub(super) fn input() -> JsonObject {
    object(include_str!("schemas/input.json"))
}

/// The schema of its output.
pub(super) fn output() -> JsonObject {
    object(include_str!("schemas/output.json"))
}

/// An empty schema takes everything; a test reads the files.
fn object(text: &str) -> JsonObject {
    serde_json::from_str(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::consult::{ConsultResult, schema};

    #[track_caller]
    fn check(file: &str, made: &Value, kept: JsonObject) {
        let kept = format!("{:#}\n", Value::Object(kept));
        schema::expect_kept(&format!("mcp/schemas/{file}"), made, &kept);
    }

    #[test]
    fn the_schemas_are_made_from_the_types() {
        check("input.json", &schema::of_tool_input(), input());
        check("output.json", &of_output(), output());
    }

    /// What `structuredContent` may hold: a result, or an error. Some clients measure errors against it
    /// too, and hide one that does not fit, so nothing is required.
    /// A result explains itself by its field names; what lies deep in it, and what is always there, would
    /// only cost tokens in every conversation.
    fn of_output() -> Value {
        let mut schema = schema::of::<ConsultResult>();
        schema::without(&mut schema, &["description", "required", "minimum", "maximum", "enum"]);
        for (name, field) in schema["properties"].as_object_mut().into_iter().flatten() {
            let kept: &[&str] = match name.as_str() {
                "findings" | "replies" | "thread" => &[],
                _ => &["properties", "items"],
            };
            flatten(field, kept);
        }
        schema["properties"]["error"] = json!({"type": "object"});
        schema
    }

    /// Leaves out `keywords` of a field, and everything about what stands two levels below it.
    fn flatten(field: &mut Value, keywords: &[&str]) {
        let Some(field) = field.as_object_mut() else { return };
        field.retain(|name, _| !keywords.contains(&name.as_str()));
        for level in ["items", "properties"] {
            let Some(below) = field.get_mut(level) else { continue };
            let fields = if level == "items" { below.get_mut("properties") } else { Some(below) };
            for (_, field) in fields.and_then(Value::as_object_mut).into_iter().flatten() {
                if let Some(field) = field.as_object_mut() {
                    field.retain(|name, _| name == "type");
                }
            }
        }
    }
}
