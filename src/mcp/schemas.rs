//! The output schema of `consult_kimi`.

use serde_json::{Value, json};

use crate::consult::{ConsultResult, schema};

/// The schema of `structuredContent`, which holds a result or an error. No field is required, since some clients
/// validate errors against it too and hide those that do not match.
///
/// Descriptions and nested fields are left out: field names explain themselves, and the schema costs tokens in every
/// conversation.
pub(super) fn output() -> Value {
    let mut schema = schema::for_type::<ConsultResult>();
    // `ConsultResult::for_host` leaves out the one and shortens the other.
    if let Some(fields) = schema["properties"].as_object_mut() {
        fields.shift_remove("raw_response_preview");
    }
    schema["properties"]["evidence"] = json!({"type": "object"});
    schema::without(&mut schema, &["description", "required", "minimum", "maximum", "enum"]);
    for (name, field) in schema["properties"].as_object_mut().into_iter().flatten() {
        let inner = match name.as_str() {
            "findings" | "replies" => field.pointer_mut("/items/properties"),
            "thread" => field.pointer_mut("/properties"),
            _ => None,
        };
        match inner.and_then(Value::as_object_mut) {
            Some(fields) => fields.values_mut().for_each(keep_type),
            None => keep_type(field),
        }
    }
    schema["properties"]["error"] = json!({"type": "object"});
    schema
}

/// Reduces the schema of a field to its type.
fn keep_type(field: &mut Value) {
    if let Some(field) = field.as_object_mut() {
        field.retain(|name, _| name == "type");
    }
}
