//! A visitor for every text in a JSON value, for redaction and cleaning.

use serde_json::Value;

/// Visits the texts of a value in order, but not the names of fields.
pub(crate) fn each_text(value: &mut Value, visit: &mut impl FnMut(&mut String)) {
    each_text_outside(&[], value, visit);
}

/// Visits the texts of a value, except in the fields named in `closed`.
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
