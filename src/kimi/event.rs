//! One line of Kimi's stream as an [`Event`]. Both dialects speak the same format, so there is one
//! reader; it never fails, and a line that it does not know is an event too.
//!
//! A line is looked through once, and only what is used of it is copied: what it says that nobody
//! knows, however much that is, takes no memory.

mod arguments;
pub(super) mod json;

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use serde_json::{Map, Value};

use self::arguments::Room;
use self::json::Raw;
use super::lines::TEXT_BYTES;
use super::text::{clean, first_bytes};

/// One step of Kimi's stream.
#[derive(Debug, Clone, PartialEq)]
pub enum Event<'a> {
    /// The program said that it runs.
    Started,
    /// The model spoke, called tools, or both.
    Assistant {
        /// What it said; thinking is not part of it. `None` when it only called tools.
        text: Option<String>,
        /// The calls, in order.
        calls: Vec<Call>,
        /// Calls beyond those, of which nothing is kept.
        more_calls: usize,
    },
    /// A tool answered.
    ToolResult {
        /// The call that it answers.
        id: String,
        /// The beginning of the text.
        text: String,
    },
    /// A request to the model failed and will be tried again.
    Retrying(Retry),
    /// The run can be resumed under this session.
    Session(String),
    /// A line that is no JSON object, such as an error in prose.
    Plain(&'a str),
    /// A JSON object of a kind that this reader does not know; the text says which.
    Unknown(String),
}

/// One tool call.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// Pairs the call with its result.
    pub id: String,
    /// The tool, as the dialect names it.
    pub name: String,
    /// Its arguments, as far as they are kept; what is no JSON object stands under `unreadable`.
    pub args: Map<String, Value>,
}

/// Calls that are read of one line, and kept of a run.
pub const MAX_CALLS: usize = 1_000;
/// How much of an id is compared, bytes: beyond that, two that begin alike are one.
const ID_COMPARED: usize = TEXT_BYTES / 2;
/// The longest id that is kept as it is, bytes; of a longer one, the beginning and a number that
/// stands for the rest. Both programs' ids stay below a hundred.
const ID_BYTES: usize = 256;

/// Why and when a request to the model is tried again.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Retry {
    /// The HTTP status, where there was one.
    pub status: Option<u64>,
    /// The service's words.
    pub message: String,
    /// The attempt that comes next.
    pub next_attempt: u64,
    /// The attempts that there will be at most.
    pub max_attempts: u64,
    /// The wait before the next attempt, milliseconds.
    pub delay_ms: u64,
}

impl Event<'_> {
    /// Reads one line; `None` for a blank one.
    #[must_use]
    pub fn read(line: &str) -> Option<Event<'_>> {
        if line.trim_start().is_empty() {
            return None;
        }
        let fields = ["role", "content", "tool_calls", "tool_call_id"];
        let Some([role, content, tool_calls, id]) = json::fields(line, fields) else {
            return Some(Event::Plain(line));
        };
        Some(match text_in(role).as_str() {
            "assistant" => assistant(content, tool_calls),
            "tool" => Event::ToolResult {
                id: id_in(id),
                text: content.and_then(|content| said(content, TEXT_BYTES)).unwrap_or_default(),
            },
            "meta" => meta(line),
            other => Event::Unknown(format!("role `{}`", clean(other))),
        })
    }
}

fn assistant<'a>(content: Option<Raw<'a>>, tool_calls: Option<Raw<'a>>) -> Event<'a> {
    let mut calls = Vec::new();
    let mut more_calls = 0;
    let mut room = Room::default();
    json::items(tool_calls, |item| {
        let Some([id, Some(function)]) = json::fields(item.get(), ["id", "function"]) else {
            return;
        };
        let Some([name, args]) = json::fields(function.get(), ["name", "arguments"]) else {
            return;
        };
        if calls.len() == MAX_CALLS {
            more_calls += 1;
        } else {
            let args = arguments::of(args, &mut room);
            calls.push(Call { id: id_in(id), name: text_in(name), args });
        }
    });
    let text = content.and_then(|content| said(content, usize::MAX));
    Event::Assistant { text, calls, more_calls }
}

fn meta(line: &str) -> Event<'_> {
    let fields = ["type", "session_id", "status_code", "error_message"];
    let [kind, session, status, message] = json::fields(line, fields).unwrap_or_default();
    match text_in(kind).as_str() {
        "system.version" => Event::Started,
        "session.resume_hint" => Event::Session(text_in(session)),
        "turn.step.retrying" => {
            let fields = ["next_attempt", "max_attempts", "delay_ms"];
            let [next, max, delay] = json::fields(line, fields).unwrap_or_default();
            Event::Retrying(Retry {
                status: number(status),
                message: clean(&text_in(message)).into_owned(),
                next_attempt: number(next).unwrap_or_default(),
                max_attempts: number(max).unwrap_or_default(),
                delay_ms: number(delay).map_or(0, whole_ms),
            })
        }
        other => Event::Unknown(format!("meta `{}`", clean(other))),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates, and a wait is shown in seconds"
)]
fn whole_ms(delay: f64) -> u64 {
    delay as u64
}

fn number<'a, N: serde::Deserialize<'a>>(value: Option<Raw<'a>>) -> Option<N> {
    serde_json::from_str(value?.get()).ok()
}

/// A short text; empty where there is none.
fn text_in(value: Option<Raw<'_>>) -> String {
    value.and_then(|value| json::text(value, TEXT_BYTES)).unwrap_or_default()
}

/// An id, which two calls only share when they are one.
fn id_in(value: Option<Raw<'_>>) -> String {
    let id = value.and_then(|value| json::text(value, ID_COMPARED)).unwrap_or_default();
    if id.len() <= ID_BYTES {
        return id;
    }
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    format!("{}…{:016x}", first_bytes(&id, ID_BYTES - 32), hasher.finish())
}

/// The text of a `content`, or its beginning of about so many bytes: a string, or the `text` parts of a
/// list. `None` when there is no text in it, which is not the same as an empty string from a tool.
fn said(content: Raw<'_>, limit: usize) -> Option<String> {
    if let Some(text) = json::text(content, limit) {
        return Some(text);
    }
    let mut said: Option<String> = None;
    json::items(Some(content), |part| {
        let Some([Some(kind), Some(text)]) = json::fields(part.get(), ["type", "text"]) else {
            return;
        };
        let length = said.as_ref().map_or(0, String::len);
        if length >= limit || json::text(kind, TEXT_BYTES).as_deref() != Some("text") {
            return;
        }
        let Some(text) = json::text(text, limit - length) else { return };
        match &mut said {
            None => said = Some(text),
            Some(said) => {
                said.push('\n');
                said.push_str(&text);
            }
        }
    });
    said
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn called(id: &str, name: &str, args: &Value) -> Call {
        Call { id: id.into(), name: name.into(), args: args.as_object().unwrap().clone() }
    }

    fn check(line: &Value, expected: &Event) {
        assert_eq!(Event::read(&line.to_string()).as_ref(), Some(expected), "{line}");
    }

    #[test]
    fn every_kind_of_line_is_read() {
        check(
            &json!({"role": "assistant", "content": [
                {"type": "think", "think": "hm"}, {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}),
            &Event::Assistant { text: Some("a\nb".into()), calls: vec![], more_calls: 0 },
        );
        check(
            &json!({"role": "assistant", "content": [], "tool_calls": [
                {"type": "function", "id": "1", "function": {"name": "Read", "arguments": "{\"path\":\"x\"}"}},
                {"id": "2", "function": {"name": "Grep", "arguments": "{broken"}},
                "junk"]}),
            &Event::Assistant {
                text: None,
                calls: vec![
                    called("1", "Read", &json!({"path": "x"})),
                    called("2", "Grep", &json!({"unreadable": "{broken"})),
                ],
                more_calls: 0,
            },
        );
        check(
            &json!({"role": "tool", "tool_call_id": "1", "content": ""}),
            &Event::ToolResult { id: "1".into(), text: String::new() },
        );
        check(
            &json!({"role": "meta", "type": "turn.step.retrying", "next_attempt": 2, "max_attempts": 3,
                "delay_ms": 512.9, "error_name": "APIProviderRateLimitError",
                "error_message": "429 slow down", "status_code": 429}),
            &Event::Retrying(Retry {
                status: Some(429),
                message: "429 slow down".into(),
                next_attempt: 2,
                max_attempts: 3,
                delay_ms: 512,
            }),
        );
        check(
            &json!({"role": "meta", "type": "new.thing"}),
            &Event::Unknown("meta `new.thing`".into()),
        );
        check(&json!({"role": 7}), &Event::Unknown("role ``".into()));
        assert_eq!(Event::read("LLM not set"), Some(Event::Plain("LLM not set")));
        assert_eq!(Event::read("[1]"), Some(Event::Plain("[1]")));
        assert_eq!(Event::read(" \t"), None);
    }

    #[test]
    fn whatever_order_the_fields_stand_in_a_line_is_read() {
        let line = r#" {"tool_call_id":"a", "content":[{"text":"b","type":"text"}],"x":{"role":1},"role":"tool"}"#;
        let expected = Event::ToolResult { id: "a".into(), text: "b".into() };
        assert_eq!(Event::read(line), Some(expected));
        // The last of two counts, as for any reader of JSON; half of a character is replaced.
        let line = r#"{"role":"tool","content":"a","role":"assistant","content":"b \ud83d c"}"#;
        let Some(Event::Assistant { text: Some(text), .. }) = Event::read(line) else { panic!() };
        assert!(text.starts_with("b \u{fffd}") && text.ends_with(" c"), "{text}");
    }

    #[test]
    fn a_long_id_stays_one_and_calls_beyond_what_is_kept_are_counted() {
        let ids = ["a", "b"].map(|end| "x".repeat(5_000) + end);
        let [Some(Event::ToolResult { id: first, .. }), Some(Event::ToolResult { id: second, .. })] =
            ids.each_ref()
                .map(|id| json!({"role": "tool", "tool_call_id": id}).to_string())
                .each_ref()
                .map(|line| Event::read(line))
        else {
            panic!()
        };
        assert!(first != second && first.len() <= ID_BYTES && first.starts_with("xxx"));
        let call = json!({"id": ids[0], "function": {"name": "Read"}});
        let line =
            json!({"role": "assistant", "tool_calls": vec![call; MAX_CALLS + 7]}).to_string();
        let Some(Event::Assistant { calls, more_calls, .. }) = Event::read(&line) else { panic!() };
        assert_eq!((calls.len(), more_calls, &calls[0].id), (MAX_CALLS, 7, &first));
    }

    /// How a line is read that fits into memory as often as one likes.
    fn reference(line: &str) -> Option<Event<'_>> {
        if line.trim_start().is_empty() {
            return None;
        }
        let Ok(Value::Object(object)) = serde_json::from_str(line) else {
            return Some(Event::Plain(line));
        };
        let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
        let said = |content: &Value| match content {
            Value::String(text) => Some(text.clone()),
            Value::Array(parts) => {
                let parts = parts.iter().filter(|part| part["type"] == "text");
                let texts: Vec<&str> = parts.filter_map(|part| part["text"].as_str()).collect();
                (!texts.is_empty()).then(|| texts.join("\n"))
            }
            _ => None,
        };
        let line = Value::Object(object);
        let call = |call: &Value| {
            let function = call.get("function").filter(|function| function.is_object())?;
            let whole = |value: &Value| json!({"unreadable": value});
            let args = match &function["arguments"] {
                Value::String(text) => match serde_json::from_str(text) {
                    Ok(args @ Value::Object(_)) => args,
                    Ok(_) | Err(_) => whole(&function["arguments"]),
                },
                Value::Null => json!({}),
                Value::Object(args) => Value::Object(args.clone()),
                other => whole(other),
            };
            let args = args.as_object().cloned().unwrap_or_default();
            Some(Call { id: text(call, "id"), name: text(function, "name"), args })
        };
        Some(match &*text(&line, "role") {
            "assistant" => Event::Assistant {
                text: said(&line["content"]),
                calls: line["tool_calls"]
                    .as_array()
                    .map(|calls| calls.iter().filter_map(call).collect())
                    .unwrap_or_default(),
                more_calls: 0,
            },
            "tool" => Event::ToolResult {
                id: text(&line, "tool_call_id"),
                text: said(&line["content"]).unwrap_or_default(),
            },
            "meta" => match &*text(&line, "type") {
                "system.version" => Event::Started,
                "session.resume_hint" => Event::Session(text(&line, "session_id")),
                "turn.step.retrying" => Event::Retrying(Retry {
                    status: line["status_code"].as_u64(),
                    message: clean(&text(&line, "error_message")).into_owned(),
                    next_attempt: line["next_attempt"].as_u64().unwrap_or_default(),
                    max_attempts: line["max_attempts"].as_u64().unwrap_or_default(),
                    delay_ms: line["delay_ms"].as_f64().map_or(0, whole_ms),
                }),
                other => Event::Unknown(format!("meta `{}`", clean(other))),
            },
            other => Event::Unknown(format!("role `{}`", clean(other))),
        })
    }

    /// Any JSON, in which the words of a stream stand more often than chance would have it.
    fn any_json() -> impl Strategy<Value = Value> {
        let word = proptest::sample::select(vec![
            "assistant",
            "tool",
            "meta",
            "text",
            "session.resume_hint",
            "turn.step.retrying",
            "{\"a\":1}",
            "[2]",
            "{",
        ]);
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-1e9..1e9).prop_map(|number: f64| Value::from(number)),
            "\\PC{0,8}".prop_map(Value::from),
            word.prop_map(Value::from),
        ];
        let key = prop_oneof![
            proptest::sample::select(vec![
                "role",
                "content",
                "tool_calls",
                "tool_call_id",
                "type",
                "text",
                "session_id",
                "status_code",
                "error_message",
                "next_attempt",
                "delay_ms",
                "id",
                "function",
                "name",
                "arguments",
            ])
            .prop_map(str::to_owned),
            "\\PC{0,4}",
        ];
        leaf.prop_recursive(5, 60, 8, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                proptest::collection::vec((key.clone(), inner), 0..8)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    /// A line as Kimi writes them, with anything in the place of anything.
    fn any_line() -> impl Strategy<Value = Value> {
        let role = proptest::sample::select(vec!["assistant", "tool", "meta", "user"]);
        let call = (any_json(), any_json(), any_json()).prop_map(|(id, name, args)| {
            let text = if name.is_null() { args.clone() } else { args.to_string().into() };
            json!({"id": id, "function": {"arguments": text, "name": name}})
        });
        let calls = proptest::collection::vec(prop_oneof![3 => call, 1 => any_json()], 0..4);
        prop_oneof![
            any_json(),
            (role, any_json(), calls, any_json(), any_json()).prop_map(|(role, content, calls, id, more)| {
                let mut line = json!({"content": content, "tool_calls": calls, "role": role, "tool_call_id": id});
                if let (Some(line), Some(more)) = (line.as_object_mut(), more.as_object()) {
                    line.extend(more.clone());
                }
                line
            }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]
        #[test]
        fn a_line_is_read_as_if_all_of_it_were(value in any_line(), cut in prop_oneof![4 => Just(0usize), 1 => 0usize..30]) {
            let line = value.to_string();
            let line: String = line.chars().take(line.chars().count().saturating_sub(cut)).collect();
            prop_assert_eq!(Event::read(&line), reference(&line));
        }
    }
}
