//! What every text that is shown must be.

use kimi_bridge::hidden::is_hidden;
use serde_json::Value;

/// Nothing is left in a text that nobody can see, but for the joiners, selectors and tags that emoji and
/// scripts are written with. Those were judged by their neighbours, which may have been cut off since.
pub(crate) fn is_visible(text: &str) -> bool {
    text.chars().all(|c| {
        let is_part_of_writing = matches!(c,
            '\u{180b}'..='\u{180f}' | '\u{200c}' | '\u{200d}' | '\u{fe0e}' | '\u{fe0f}'
            | '\u{e0061}'..='\u{e007f}');
        !is_hidden(c) || is_part_of_writing
    })
}

/// Shows every text of a value, and the names of its fields.
pub(crate) fn each_text(value: &Value, visit: &mut impl FnMut(&str)) {
    match value {
        Value::String(text) => visit(text),
        Value::Array(values) => values.iter().for_each(|value| each_text(value, visit)),
        Value::Object(fields) => {
            for (name, value) in fields {
                visit(name);
                each_text(value, visit);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
