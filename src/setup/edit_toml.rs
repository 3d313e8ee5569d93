//! Adds, changes or removes one entry of a table in TOML text, and keeps the layout and comments of everything else.

use std::fmt::Write as _;

use serde_json::Value as Json;
use toml_edit::{Array, Document, DocumentMut, InlineTable, Item, Key, TableLike, Value};

/// The refusal of an edit that would change more than the entry.
pub(super) const BY_HAND: &str =
    "the entry cannot be changed without changing other lines; edit it by hand";

pub(super) fn with_entry(
    text: &str,
    table: &str,
    name: &str,
    old: &Json,
    entry: &Json,
) -> Result<String, String> {
    if !old.is_null() {
        let mut document = document(text)?;
        let servers = servers(&mut document, table).ok_or(BY_HAND)?;
        set(servers, name, old, entry)?;
        return Ok(document.to_string());
    }
    // A section at the end of the file moves no other line.
    let appended = appended(text, table, name, entry)?;
    if appended.parse::<DocumentMut>().is_ok() {
        return Ok(appended);
    }
    let mut document = document(text)?;
    // The table is an inline table or made of dotted keys, so it cannot have a section.
    let servers = servers(&mut document, table).ok_or(format!("`{table}` is not a table"))?;
    servers.insert(name, Item::Value(value(entry)?));
    Ok(document.to_string())
}

pub(super) fn without_entry(text: &str, table: &str, name: &str) -> Result<String, String> {
    let mut document = document(text)?;
    if let Some(servers) = servers(&mut document, table) {
        servers.remove(name);
    }
    let without = document.to_string();
    Ok(match comments_above(text, table, name) {
        Some((start, comments)) if without.get(..start) == text.get(..start) => {
            format!("{}{comments}{}", &without[..start], &without[start..])
        }
        _ => without,
    })
}

/// Returns the comments above the entry's section that a blank line separates from it, and the byte at which they
/// begin. They belong to the section before, but `toml_edit` removes them with the entry.
fn comments_above(text: &str, table: &str, name: &str) -> Option<(usize, String)> {
    let document = Document::parse(text).ok()?;
    let servers = table.split('.').try_fold(document.as_item(), |item, key| item.get(key))?;
    let section = servers.get(name)?.as_table()?;
    let head = section.span()?.start;
    let above = section.decor().prefix()?.span()?;
    let lines: Vec<&str> = text.get(above.start..head)?.split_inclusive('\n').collect();
    let blank = lines.iter().rposition(|line| line.trim().is_empty())?;
    Some((above.start, lines[..blank].concat()))
}

/// Parses the document. Refuses one that `toml_edit` would write in another order, as it does with scattered dotted
/// keys.
fn document(text: &str) -> Result<DocumentMut, String> {
    let document: DocumentMut =
        text.parse().map_err(|error: toml_edit::TomlError| error.message().to_owned())?;
    if document.to_string() == text { Ok(document) } else { Err(BY_HAND.to_owned()) }
}

fn servers<'a>(document: &'a mut DocumentMut, table: &str) -> Option<&'a mut dyn TableLike> {
    let mut item = document.as_item_mut();
    for key in table.split('.') {
        item = item.as_table_like_mut()?.get_mut(key)?;
    }
    item.as_table_like_mut()
}

/// Returns the text with the entry as a new section at its end.
fn appended(text: &str, table: &str, name: &str, entry: &Json) -> Result<String, String> {
    let keys: Vec<String> =
        table.split('.').chain([name]).map(|key| Key::new(key).to_string()).collect();
    let between = match text {
        "" => "",
        text if text.ends_with('\n') => "\n",
        _ => "\n\n",
    };
    let mut section = format!("{text}{between}[{}]\n", keys.join("."));
    for (key, field) in entry.as_object().into_iter().flatten() {
        let _ = writeln!(section, "{} = {}", Key::new(key), value(field)?);
    }
    Ok(section)
}

/// Sets a field. Where old and new value are tables, sets only the fields that differ.
fn set(table: &mut dyn TableLike, name: &str, old: &Json, new: &Json) -> Result<(), String> {
    if old == new {
        return Ok(());
    }
    match (table.get_mut(name), new) {
        (Some(item), Json::Object(fields)) if item.is_table_like() => {
            let Some(inner) = item.as_table_like_mut() else { return Ok(()) };
            for (name, field) in fields {
                set(inner, name, &old[name], field)?;
            }
            // Otherwise a field that is added to an inline table gets an odd space.
            if let Item::Value(Value::InlineTable(line)) = item
                && !line.to_string().contains(['#', '\n'])
            {
                line.fmt();
            }
        }
        (Some(Item::Value(current)), _) => {
            let decor = current.decor().clone();
            *current = value(new)?;
            *current.decor_mut() = decor;
        }
        (Some(_), _) => return Err(format!("`{name}` is a section")),
        (None, _) => drop(table.insert(name, Item::Value(value(new)?))),
    }
    Ok(())
}

fn value(json: &Json) -> Result<Value, String> {
    Ok(match json {
        Json::Bool(value) => (*value).into(),
        Json::String(text) => text.as_str().into(),
        Json::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(number), _) => number.into(),
            (None, Some(number)) => number.into(),
            (None, None) => return Err("a number is too large".to_owned()),
        },
        Json::Array(items) => {
            let items = items.iter().map(value).collect::<Result<Array, _>>()?;
            items.into()
        }
        Json::Object(fields) => {
            let fields = fields.iter().map(|(name, field)| Ok((Key::new(name), value(field)?)));
            fields.collect::<Result<InlineTable, String>>()?.into()
        }
        Json::Null => return Err("TOML has no null".to_owned()),
    })
}
