//! Every text in a JSON value: for redaction, cleaning and whatever else concerns each text of a result alike.

use serde_json::Value;

/// Visits the texts of a value, in order; names of fields are not among them.
pub(crate) fn each_text(value: &mut Value, visit: &mut impl FnMut(&mut String)) {
    each_text_outside(&[], value, visit);
}

/// Visits the texts of a value, without those of the fields that `closed` names.
pub(crate) fn each_text_outside(
    closed: &[&str],
    value: &mut Value,
    visit: &mut impl FnMut(&mut String),
) {
    match value {
        Value::String(text) => visit(text),
        Value::Array(values) => {
            for value in values {
                each_text_outside(closed, value, visit);
            }
        }
        Value::Object(fields) => {
            for (_, value) in fields.iter_mut().filter(|(name, _)| !closed.contains(&name.as_str()))
            {
                each_text_outside(closed, value, visit);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
