//! One line of Kimi's stream as an [`Event`]. Both dialects speak the same format, so there is one
//! reader; it never fails, and a line of an unknown kind is an event too.

pub(super) mod json;

use serde::Deserialize;
use serde_json::value::RawValue;

use self::json::{Lenient, Text};
use super::text::{clean, first_bytes};

/// One step of Kimi's stream.
#[derive(Debug, Clone, PartialEq)]
pub enum Event<'a> {
    /// The program reported that it runs.
    Started,
    /// The model wrote a message, called tools, or both.
    Assistant {
        /// The text of the message, without thinking. `None` if the model only called tools.
        text: Option<String>,
        /// The calls, in order.
        calls: Vec<Call>,
        /// The number of further calls, which are not kept.
        more_calls: usize,
    },
    /// A tool answered.
    ToolResult {
        /// The id of the call.
        id: String,
        /// The beginning of the text.
        text: String,
        /// Set if the text was longer.
        is_cut: bool,
    },
    /// A request to the model failed and will be tried again.
    Retrying(Retry),
    /// The run can be resumed under this session.
    Session(String),
    /// A line that is no JSON object, such as an error in prose.
    Plain(&'a str),
    /// A JSON object of an unknown kind, by its role or type.
    Unknown(String),
}

/// One tool call.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// Pairs the call with its result.
    pub id: String,
    /// The name of the tool in the dialect.
    pub name: String,
    /// The arguments as JSON; empty if there are none.
    pub args: String,
}

/// The most calls that are read from one line, and that are kept from one run.
pub const MAX_CALLS: usize = 1_000;
/// The most bytes that are read of a short text.
const TEXT_BYTES: usize = 32 * 1024;
/// The most bytes that are read of a tool's result, which is the evidence of Kimi's reading. By default, both programs
/// show up to 100,000 characters of a file at once, of three bytes each in Chinese.
const RESULT_BYTES: usize = 320 * 1024;
/// The most bytes that are read of an id. Both programs' ids stay below a hundred.
const ID_BYTES: usize = 256;

/// A retry of a request to the model, with its reason and time.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Retry {
    /// The HTTP status, if there was one.
    pub status: Option<u64>,
    /// The message of the service.
    pub message: String,
    /// The number of the next attempt.
    pub next_attempt: u64,
    /// The maximum number of attempts.
    pub max_attempts: u64,
    /// The wait before the next attempt, milliseconds.
    pub delay_ms: f64,
}

/// The fields of a line, of any kind.
#[derive(Default, Deserialize)]
#[serde(default)]
struct LineFields<'a> {
    role: Lenient<Text>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    tool_calls: Option<&'a RawValue>,
    tool_call_id: Lenient<Text>,
    #[serde(rename = "type")]
    kind: Lenient<Text>,
    session_id: Lenient<Text>,
    status_code: Lenient<u64>,
    error_message: Lenient<Text>,
    next_attempt: Lenient<u64>,
    max_attempts: Lenient<u64>,
    delay_ms: Lenient<f64>,
}

/// One item of `tool_calls`.
#[derive(Default, Deserialize)]
#[serde(default)]
struct CallFields<'a> {
    id: Lenient<Text>,
    #[serde(borrow)]
    function: Option<&'a RawValue>,
}

/// The function of a call.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Function<'a> {
    name: Lenient<Text>,
    #[serde(borrow)]
    arguments: Option<&'a RawValue>,
}

/// One item of a `content` that is a list.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ContentPart<'a> {
    #[serde(rename = "type")]
    kind: Lenient<Text>,
    #[serde(borrow)]
    text: Option<&'a RawValue>,
}

impl Event<'_> {
    /// Reads one line; `None` for a blank one.
    #[must_use]
    pub fn read(line: &str) -> Option<Event<'_>> {
        if line.trim_start().is_empty() {
            return None;
        }
        let Some(fields) = json::object::<LineFields<'_>>(line) else {
            return Some(Event::Plain(line));
        };
        Some(match short(&fields.role, TEXT_BYTES).as_str() {
            "assistant" => assistant(fields.content, fields.tool_calls),
            "tool" => Event::ToolResult {
                id: short(&fields.tool_call_id, ID_BYTES),
                text: fields
                    .content
                    .and_then(|it| joined_text(it, RESULT_BYTES, "\n"))
                    .unwrap_or_default(),
                is_cut: fields.content.is_some_and(|it| it.get().len() > RESULT_BYTES),
            },
            "meta" => meta(&fields),
            other => Event::Unknown(format!("role `{}`", clean(other))),
        })
    }
}

fn assistant(content: Option<&RawValue>, tool_calls: Option<&RawValue>) -> Event<'static> {
    let mut calls = Vec::new();
    let mut more_calls = 0;
    let take = |item: &RawValue| {
        let Some(CallFields { id, function: Some(function) }) = json::object(item.get()) else {
            return;
        };
        let Some(Function { name, arguments }) = json::object(function.get()) else { return };
        if calls.len() == MAX_CALLS {
            more_calls += 1;
            return;
        }
        // Arguments are a string of JSON; plain JSON is accepted too.
        let args = arguments
            .map(|args| json::text(args.get()).unwrap_or_else(|| args.get().to_owned()))
            .unwrap_or_default();
        calls.push(Call { id: short(&id, ID_BYTES), name: short(&name, TEXT_BYTES), args });
    };
    if let Some(tool_calls) = tool_calls {
        json::items(tool_calls, take);
    }
    // A line break between two parts could fall inside a JSON string of the answer.
    let text = content.and_then(|it| joined_text(it, usize::MAX, ""));
    Event::Assistant { text, calls, more_calls }
}

fn meta(fields: &LineFields<'_>) -> Event<'static> {
    match short(&fields.kind, TEXT_BYTES).as_str() {
        "system.version" => Event::Started,
        "session.resume_hint" => Event::Session(short(&fields.session_id, TEXT_BYTES)),
        "turn.step.retrying" => Event::Retrying(Retry {
            status: fields.status_code.0,
            message: clean(&short(&fields.error_message, TEXT_BYTES)).into_owned(),
            next_attempt: fields.next_attempt.0.unwrap_or_default(),
            max_attempts: fields.max_attempts.0.unwrap_or_default(),
            delay_ms: fields.delay_ms.0.unwrap_or_default(),
        }),
        other => Event::Unknown(format!("meta `{}`", clean(other))),
    }
}

/// Returns the first bytes of a text, up to a limit; empty if there is none.
fn short(text: &Lenient<Text>, limit: usize) -> String {
    text.0.as_ref().map(|Text(text)| first_bytes(text, limit).to_owned()).unwrap_or_default()
}

/// Returns the text of a `content`, up to about `limit` bytes: a string, or the joined `text` parts of a list. Returns
/// `None` if it holds no text, which differs from an empty string of a tool.
fn joined_text(content: &RawValue, limit: usize, separator: &str) -> Option<String> {
    if let Some(text) = json::beginning(content.get(), limit) {
        return Some(text);
    }
    let mut joined: Option<String> = None;
    json::items(content, |part| {
        let Some(ContentPart { kind: Lenient(Some(kind)), text: Some(text) }) =
            json::object(part.get())
        else {
            return;
        };
        let left = limit.saturating_sub(joined.as_ref().map_or(0, String::len));
        if kind.0 != "text" || left == 0 {
            return;
        }
        let Some(text) = json::beginning(text.get(), left) else { return };
        match &mut joined {
            None => joined = Some(text),
            Some(joined) => {
                joined.push_str(separator);
                joined.push_str(&text);
            }
        }
    });
    joined
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn tool_call(id: &str, name: &str, args: &str) -> Call {
        Call { id: id.into(), name: name.into(), args: args.into() }
    }

    fn check(line: &Value, expected: &Event) {
        assert_eq!(Event::read(&line.to_string()).as_ref(), Some(expected), "{line}");
    }

    #[test]
    fn every_kind_of_line_is_read() {
        check(
            &json!({"role": "assistant", "content": [
                {"type": "think", "think": "hm"}, {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}),
            &Event::Assistant { text: Some("ab".into()), calls: vec![], more_calls: 0 },
        );
        check(
            &json!({"role": "assistant", "content": [], "tool_calls": [
                {"type": "function", "id": "1", "function": {"name": "Read", "arguments": "{\"path\":\"x\"}"}},
                {"id": "2", "function": {"name": "Grep", "arguments": "{broken"}},
                "junk"]}),
            &Event::Assistant {
                text: None,
                calls: vec![
                    tool_call("1", "Read", "{\"path\":\"x\"}"),
                    tool_call("2", "Grep", "{broken"),
                ],
                more_calls: 0,
            },
        );
        check(
            &json!({"role": "tool", "tool_call_id": "1", "content": ""}),
            &Event::ToolResult { id: "1".into(), text: String::new(), is_cut: false },
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
                delay_ms: 512.9,
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
    fn a_line_is_read_with_its_fields_in_any_order() {
        let line = r#" {"tool_call_id":"a", "content":[{"text":"b","type":"text"}],"x":{"role":1},"role":"tool"}"#;
        let expected = Event::ToolResult { id: "a".into(), text: "b".into(), is_cut: false };
        assert_eq!(Event::read(line), Some(expected));
        // Half of a character is replaced.
        let line = r#"{"role":"assistant","content":"b \ud83d c"}"#;
        let Some(Event::Assistant { text: Some(text), .. }) = Event::read(line) else { panic!() };
        assert!(text.starts_with("b \u{fffd}") && text.ends_with(" c"), "{text}");
    }

    #[test]
    fn calls_over_the_limit_are_counted() {
        let call = json!({"id": "x".repeat(ID_BYTES + 9), "function": {"name": "Read"}});
        let line =
            json!({"role": "assistant", "tool_calls": vec![call; MAX_CALLS + 7]}).to_string();
        let Some(Event::Assistant { calls, more_calls, .. }) = Event::read(&line) else { panic!() };
        assert_eq!((calls.len(), more_calls), (MAX_CALLS, 7));
        assert_eq!(calls[0], tool_call(&"x".repeat(ID_BYTES), "Read", ""));
    }

    #[test]
    fn the_beginning_of_a_long_result_is_kept() {
        let line = json!({"role": "tool", "content": "中".repeat(RESULT_BYTES)}).to_string();
        // The opening quotation mark counts towards the limit.
        let text = "中".repeat((RESULT_BYTES - 1) / 3);
        let expected = Event::ToolResult { id: String::new(), text, is_cut: true };
        assert_eq!(Event::read(&line), Some(expected));
    }

    /// Reads a line by parsing all of it into a JSON value.
    fn reference(line: &str) -> Option<Event<'_>> {
        if line.trim_start().is_empty() {
            return None;
        }
        let Ok(Value::Object(object)) = serde_json::from_str(line) else {
            return Some(Event::Plain(line));
        };
        let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
        let joined = |content: &Value, separator: &str| match content {
            Value::String(text) => Some(text.clone()),
            Value::Array(parts) => {
                let parts = parts.iter().filter(|part| part["type"] == "text");
                let texts: Vec<&str> = parts.filter_map(|part| part["text"].as_str()).collect();
                (!texts.is_empty()).then(|| texts.join(separator))
            }
            _ => None,
        };
        let line = Value::Object(object);
        let call = |call: &Value| {
            let function = call.get("function").filter(|function| function.is_object())?;
            let args = match &function["arguments"] {
                Value::String(text) => text.clone(),
                Value::Null => String::new(),
                other => other.to_string(),
            };
            Some(Call { id: text(call, "id"), name: text(function, "name"), args })
        };
        Some(match &*text(&line, "role") {
            "assistant" => Event::Assistant {
                text: joined(&line["content"], ""),
                calls: line["tool_calls"]
                    .as_array()
                    .map(|calls| calls.iter().filter_map(call).collect())
                    .unwrap_or_default(),
                more_calls: 0,
            },
            "tool" => Event::ToolResult {
                id: text(&line, "tool_call_id"),
                text: joined(&line["content"], "\n").unwrap_or_default(),
                is_cut: false,
            },
            "meta" => match &*text(&line, "type") {
                "system.version" => Event::Started,
                "session.resume_hint" => Event::Session(text(&line, "session_id")),
                "turn.step.retrying" => Event::Retrying(Retry {
                    status: line["status_code"].as_u64(),
                    message: clean(&text(&line, "error_message")).into_owned(),
                    next_attempt: line["next_attempt"].as_u64().unwrap_or_default(),
                    max_attempts: line["max_attempts"].as_u64().unwrap_or_default(),
                    delay_ms: line["delay_ms"].as_f64().unwrap_or_default(),
                }),
                other => Event::Unknown(format!("meta `{}`", clean(other))),
            },
            other => Event::Unknown(format!("role `{}`", clean(other))),
        })
    }

    /// Any JSON, with the words of a stream more often than by chance.
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
        fn a_line_is_read_as_its_whole_json_value_would_be(value in any_line(), cut in prop_oneof![4 => Just(0usize), 1 => 0usize..30]) {
            let line = value.to_string();
            let line: String = line.chars().take(line.chars().count().saturating_sub(cut)).collect();
            prop_assert_eq!(Event::read(&line), reference(&line));
        }
    }
}
