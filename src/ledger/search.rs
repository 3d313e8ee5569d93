//! The searchable text of each thread: its request, adjudications, answers and decision in lower case, without the names
//! of JSON fields.

use rusqlite::{Connection, params};
use serde_json::Value;

use super::rows::ThreadRow;

/// The fewest characters that the index can find.
const INDEXED: usize = 3;

/// The words of a search. Each also matches inside longer words, since some scripts have no spaces.
pub(super) struct Words {
    /// The query of the index; empty if no word is long enough.
    pub long: String,
    /// Words that are too short for the index.
    pub short: Vec<String>,
}

impl Words {
    pub(super) fn parse(text: &str) -> Words {
        let words = text.to_lowercase();
        let words = words.split_whitespace().map(str::to_owned);
        let (long, short): (Vec<String>, _) =
            words.partition(|word| word.chars().count() >= INDEXED);
        // In quotation marks nothing is an operator.
        let quoted = long.iter().map(|word| format!("\"{}\"", word.replace('"', "\"\"")));
        Words { long: quoted.collect::<Vec<_>>().join(" "), short }
    }
}

/// Writes the text of a thread whose rows are written.
pub(super) fn save(change: &Connection, number: i64, thread: &ThreadRow) -> rusqlite::Result<()> {
    let mut text = String::new();
    if let Some((decision, rationale, _)) = &thread.decision {
        text = format!("{decision}\n{rationale}\n");
    }
    add_texts(&thread.request, &mut text);
    add_texts(&thread.challenge, &mut text);
    let sql = "SELECT result FROM rounds WHERE thread_id = ?1 AND result IS NOT NULL";
    let mut query = change.prepare(sql)?;
    for result in query.query_map([&thread.id], |row| row.get::<_, String>(0))? {
        let result = result?;
        add_texts(&serde_json::from_str(&result).unwrap_or(Value::String(result)), &mut text);
    }
    let sql = "INSERT OR REPLACE INTO texts (rowid, text) VALUES (?1, ?2)";
    change.execute(sql, params![number, text.to_lowercase()]).map(drop)
}

/// Adds the texts of a value, one per line, without names of fields.
fn add_texts(value: &Value, to: &mut String) {
    match value {
        Value::String(text) => {
            to.push_str(text);
            to.push('\n');
        }
        Value::Array(items) => items.iter().for_each(|item| add_texts(item, to)),
        Value::Object(fields) => fields.values().for_each(|field| add_texts(field, to)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
