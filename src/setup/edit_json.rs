//! Adds, changes or removes one entry of a table in JSON text, and keeps the layout and comments of everything else.

use jsonc_parser::common::Range;
use jsonc_parser::cst::{CstInputValue, CstObject, CstRootNode};
use jsonc_parser::tokens::Token;
use jsonc_parser::{CollectOptions, CommentCollectionStrategy, parse_to_ast};
use serde_json::Value;

use crate::documents::{self, Format};

pub(super) fn with_entry(
    text: &str,
    format: Format,
    table: &str,
    name: &str,
    old: &Value,
    entry: &Value,
) -> Result<String, String> {
    let root = root(text, format)?;
    let mut object = root.object_value_or_create().ok_or("it does not hold an object")?;
    for key in table.split('.') {
        object = object.object_value_or_create(key).ok_or(format!("`{key}` is not an object"))?;
    }
    set(&object, name, old, entry);
    Ok(root.to_string())
}

/// Removes the entry, its line if that is then empty, and one comma. The library's own removal would also delete
/// comments.
pub(super) fn without_entry(
    text: &str,
    format: Format,
    table: &str,
    name: &str,
) -> Result<String, String> {
    let collect = CollectOptions { comments: CommentCollectionStrategy::Off, tokens: true };
    let parsed = parse_to_ast(text, &collect, &documents::json_options(format))
        .map_err(|error| error.to_string())?;
    let root = parsed.value.as_ref().and_then(|value| value.as_object());
    let object = table.split('.').try_fold(root, |object, key| Some(object?.get_object(key)));
    let Some(entry) = object.flatten().and_then(|object| object.get(name)) else {
        return Ok(text.to_owned());
    };
    let Range { mut start, mut end } = entry.range;
    let tokens = parsed.tokens.unwrap_or_default();
    let after = tokens.iter().find(|token| token.range.start >= end);
    let before = tokens.iter().rfind(|token| token.range.end <= start);
    let comma = [after, before].into_iter().flatten().find(|next| next.token == Token::Comma);
    let comma = comma.map(|comma| comma.range.start);
    if let Some(comma) =
        comma.filter(|comma| text.get(end..*comma).is_some_and(|between| between.trim().is_empty()))
    {
        end = comma + 1;
    }
    start = text[..start].trim_end_matches([' ', '\t']).len();
    let line_is_empty = text[end..].trim_start_matches([' ', '\t']).starts_with('\n');
    if line_is_empty && text[..start].ends_with('\n') {
        start -= 1;
    }
    let kept =
        text.char_indices().filter(|(at, _)| !(start..end).contains(at) && comma != Some(*at));
    Ok(kept.map(|(_, letter)| letter).collect())
}

fn root(text: &str, format: Format) -> Result<CstRootNode, String> {
    CstRootNode::parse(text, &documents::json_options(format)).map_err(|error| error.to_string())
}

/// Sets a field. Where old and new value are objects, sets only the fields that differ.
fn set(object: &CstObject, name: &str, old: &Value, new: &Value) {
    let Some(field) = object.get(name) else {
        object.append(name, input(new));
        return;
    };
    match (field.object_value(), new) {
        (Some(object), Value::Object(fields)) => {
            for (name, value) in fields {
                set(&object, name, &old[name], value);
            }
        }
        _ if old != new => field.set_value(input(new)),
        _ => {}
    }
}

fn input(value: &Value) -> CstInputValue {
    match value {
        Value::Null => CstInputValue::Null,
        Value::Bool(value) => CstInputValue::Bool(*value),
        Value::Number(value) => CstInputValue::Number(value.to_string()),
        Value::String(value) => CstInputValue::String(value.clone()),
        Value::Array(items) => CstInputValue::Array(items.iter().map(input).collect()),
        Value::Object(fields) => CstInputValue::Object(
            fields.iter().map(|(name, value)| (name.clone(), input(value))).collect(),
        ),
    }
}
