//! The output schema of `consult_kimi`, as hosts get it.

use serde_json::{Value, json};

use crate::consult::{ConsultResult, schema};

/// The schema of `structuredContent`, which holds a result or an error. Nothing is required, since some
/// clients measure errors against it too, and hide one that does not fit.
///
/// A result explains itself by its field names: anything deeper in it, and anything that is always there,
/// would only cost tokens in every conversation.
pub(super) fn output() -> Value {
    let mut schema = schema::of::<ConsultResult>();
    schema::without(&mut schema, &["description", "required", "minimum", "maximum", "enum"]);
    for (name, field) in schema["properties"].as_object_mut().into_iter().flatten() {
        let left_out: &[&str] = match name.as_str() {
            "findings" | "replies" | "thread" => &[],
            _ => &["properties", "items"],
        };
        flatten(field, left_out);
    }
    schema["properties"]["error"] = json!({"type": "object"});
    schema
}

/// Leaves out `keywords` of a field, and everything but the type of the fields two levels below it.
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
