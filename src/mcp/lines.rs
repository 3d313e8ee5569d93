//! The lines of a host, repaired before rmcp reads them: rmcp never answers a line that is not JSON, and ends the
//! server when a field of `initialize` has an unexpected type.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::Regex;
use rmcp::model::{ClientJsonRpcMessage, InitializeRequestParams};
use serde::Deserialize as _;
use serde_json::{Map, Value, json};
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite,
    AsyncWriteExt as _, BufReader,
};

/// The method of a request that replaces an unreadable line; its parameter `why` becomes the answer.
pub(super) const UNREADABLE: &str = "kimi-bridge/unreadable";
/// The longest line. rmcp drops longer ones without an answer.
const LONGEST: u64 = 15 * 1024 * 1024;

/// The strings and brackets of JSON, which show the depth of a field. A string without an end matches up to the end of
/// the line, so that no search starts inside it.
#[expect(clippy::expect_used, reason = "tests use it")]
static TOKEN: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r#"(?s)"(?:[^"\\]|\\.)*(?:"|\\?\z)|[\[\]{}]"#).expect("a valid pattern")
});

/// Copies the lines of a host until the end of its input, and repairs each.
pub(super) async fn copy(input: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    let mut input = BufReader::new(input);
    let mut line = Vec::new();
    let mut has_asked = false;
    loop {
        line.clear();
        let read = (&mut input).take(LONGEST).read_until(b'\n', &mut line).await;
        if !matches!(read, Ok(1..)) {
            return;
        }
        let is_cut = line.len() as u64 == LONGEST && line.last() != Some(&b'\n');
        let copied = if is_cut {
            let end = skip_line(&mut input).await;
            let id = match id_in(&String::from_utf8_lossy(&line)) {
                Value::Null => id_at_the_end(&String::from_utf8_lossy(&end)),
                id => id,
            };
            unreadable(&id, "the line is longer than 15 MB").into_bytes()
        } else {
            repaired(&line).into_owned()
        };
        // Before the first request, rmcp ends the server for any other message.
        has_asked = has_asked || holds_a_request(&copied);
        if !has_asked {
            continue;
        }
        if to.write_all(&copied).await.is_err() {
            return;
        }
    }
}

/// The bytes that are kept of the end of a line that is too long. Some hosts write the id behind the parameters.
const END: usize = 1024;

/// Reads up to the end of the line, and returns its last bytes.
async fn skip_line(input: &mut (impl AsyncBufRead + Unpin)) -> Vec<u8> {
    let mut last = Vec::new();
    while let Ok(bytes @ [_, ..]) = input.fill_buf().await {
        let end = bytes.iter().position(|&byte| byte == b'\n');
        let length = end.map_or(bytes.len(), |end| end + 1);
        last.extend_from_slice(&bytes[..length]);
        last.drain(..last.len().saturating_sub(END));
        input.consume(length);
        if end.is_some() {
            break;
        }
    }
    last
}

/// The id at the end of a JSON object.
fn id_at_the_end(line: &str) -> Value {
    let key = "\"id\"";
    let value =
        line.rfind(key).and_then(|at| line[at + key.len()..].trim_start().strip_prefix(':'));
    let value = value.and_then(|value| value.trim_end().strip_suffix('}'));
    let id = value.and_then(|value| serde_json::from_str(value).ok());
    id.filter(is_id).unwrap_or(Value::Null)
}

/// The line in a form that rmcp can answer.
fn repaired(line: &[u8]) -> Cow<'_, [u8]> {
    if line.trim_ascii().is_empty() {
        return line.into();
    }
    let text = String::from_utf8_lossy(line);
    let text = without_lone_surrogates(&text);
    let text = text.trim_start_matches('\u{feff}');
    let mut message: Value = match serde_json::from_str(text) {
        Ok(message) => message,
        Err(error) => {
            let id = id_in(&String::from_utf8_lossy(line));
            return unreadable(&id, &format!("the line is no JSON: {error}")).into_bytes().into();
        }
    };
    if let Value::Array(batch) = &message {
        let lines =
            batch.iter().map(|message| repaired(message.to_string().as_bytes()).into_owned());
        return lines.flat_map(|line| [line, vec![b'\n']].concat()).collect();
    }
    let changed = tidy(&mut message);
    if is_request(&message) && ClientJsonRpcMessage::deserialize(&message).is_err() {
        return unreadable(&message["id"], "the line is no request of the protocol")
            .into_bytes()
            .into();
    }
    if changed {
        return format!("{message}\n").into_bytes().into();
    }
    if text.as_bytes() == line { line.into() } else { text.as_bytes().to_owned().into() }
}

/// Returns whether one of these lines expects an answer.
fn holds_a_request(lines: &[u8]) -> bool {
    let mut lines = lines.split(|&byte| byte == b'\n');
    lines.any(|line| serde_json::from_slice(line).is_ok_and(|message| is_request(&message)))
}

/// Returns whether a message expects an answer, under an id that can be repeated.
fn is_request(message: &Value) -> bool {
    message["method"].is_string() && is_id(&message["id"])
}

fn is_id(id: &Value) -> bool {
    id.is_i64() || id.is_string()
}

/// A request under the id of a line, which the server answers with the reason.
fn unreadable(id: &Value, why: &str) -> String {
    let message = json!({"jsonrpc": "2.0", "id": id, "method": UNREADABLE, "params": {"why": why}});
    format!("{message}\n")
}

/// The id in a broken line: the first number or text after `"id":` that is not inside another field.
fn id_in(line: &str) -> Value {
    let mut depth = 0_u32;
    for token in TOKEN.find_iter(line) {
        match token.as_str() {
            "{" | "[" => depth += 1,
            "}" | "]" => depth = depth.saturating_sub(1),
            "\"id\"" if depth == 1 => {
                let value = line[token.end()..].trim_start().strip_prefix(':');
                let value = value.map(serde_json::Deserializer::from_str);
                let value = value.and_then(|value| value.into_iter::<Value>().next()?.ok());
                if let Some(id) = value.filter(is_id) {
                    return id;
                }
            }
            _ => {}
        }
    }
    Value::Null
}

/// Replaces lone surrogate escapes such as `\ud83d`, which no text can hold.
fn without_lone_surrogates(text: &str) -> Cow<'_, str> {
    let half = |text: &str| {
        let digits = text.strip_prefix("\\u")?.get(..4)?;
        u16::from_str_radix(digits, 16).ok().filter(|unit| (0xd800..0xe000).contains(unit))
    };
    let mut repaired = String::new();
    let mut kept = 0;
    let mut at = 0;
    while let Some(found) = text[at..].find('\\') {
        at += found;
        at += match half(&text[at..]) {
            Some(0xd800..0xdc00) if half(&text[at + 6..]).is_some_and(|low| low >= 0xdc00) => 12,
            Some(_) => {
                repaired.push_str(&text[kept..at]);
                repaired.push_str("\\ufffd");
                kept = at + 6;
                6
            }
            // The escaped character may have several bytes.
            None => 1 + text[at + 1..].chars().next().map_or(0, char::len_utf8),
        };
    }
    if kept == 0 {
        return text.into();
    }
    repaired.push_str(&text[kept..]);
    repaired.into()
}

/// Converts the parameters of a request to the form that rmcp reads. Returns whether anything changed.
fn tidy(message: &mut Value) -> bool {
    let method = message["method"].as_str().unwrap_or_default().to_owned();
    if method == "initialize" {
        return greeting(message);
    }
    let Some(params) = message.get_mut("params").and_then(Value::as_object_mut) else {
        return false;
    };
    let mut changed = false;
    if params.get("_meta").is_some_and(|meta| !meta.is_object()) {
        params.remove("_meta");
        changed = true;
    }
    if method == "tools/call"
        && let Some(Value::String(text)) = params.get("arguments")
    {
        let read = serde_json::from_str(text).ok().filter(Value::is_object);
        params.insert("arguments".to_owned(), read.unwrap_or_else(|| json!({})));
        changed = true;
    }
    changed
}

/// Reduces the parameters of an unreadable `initialize` to the fields that can be read.
fn greeting(message: &mut Value) -> bool {
    let fits =
        |params: &Value| serde_json::from_value::<InitializeRequestParams>(params.clone()).is_ok();
    let sent = message.get("params").cloned().unwrap_or_default();
    if fits(&sent) {
        return false;
    }
    let text = |value: &Value, default: &str| value.as_str().unwrap_or(default).to_owned();
    let host = &sent["clientInfo"];
    let mut params = json!({
        "protocolVersion": text(&sent["protocolVersion"], "2025-06-18"),
        "capabilities": {},
        "clientInfo": {"name": text(&host["name"], "unknown"), "version": text(&host["version"], "unknown")},
    });
    let mut capabilities = Map::new();
    for (name, capability) in sent["capabilities"].as_object().into_iter().flatten() {
        capabilities.insert(name.clone(), capability.clone());
        params["capabilities"] = Value::Object(capabilities.clone());
        if !fits(&params) {
            capabilities.remove(name);
        }
    }
    params["capabilities"] = Value::Object(capabilities);
    message["params"] = params;
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &[u8], expected: &str) {
        assert_eq!(String::from_utf8_lossy(&repaired(line)), expected);
    }

    #[test]
    fn lone_surrogates_and_invalid_bytes_are_replaced() {
        check(b"{\"a\":\"\xff\xfe b\"}\n", "{\"a\":\"\u{fffd}\u{fffd} b\"}\n");
        let replaced = r#"{"a":"x\ufffdy"}"#;
        for lone in [r"\ud83d", r"\uDE00", r"\udbff"] {
            check(format!(r#"{{"a":"x{lone}y"}}"#).as_bytes(), replaced);
        }
        check(br#"{"a":"\ud83d\ud83d\ude00\ude00"}"#, r#"{"a":"\ufffd\ud83d\ude00\ufffd"}"#);
        for whole in [r#"{"a":"\ud83d\ude00 \\ud83d é \\\\ud83d \u00e9"}"#, "\n", "{\"a\": 1 }\n"]
        {
            check(whole.as_bytes(), whole);
        }
    }

    #[test]
    fn a_line_that_is_not_json_becomes_a_request_under_its_id() {
        let check = |line: &str, id: Value| {
            let message: Value = serde_json::from_slice(&repaired(line.as_bytes())).unwrap();
            assert_eq!((&message["id"], &message["method"]), (&id, &json!(UNREADABLE)), "{line}");
            assert!(
                message["params"]["why"].as_str().unwrap().starts_with("the line is no JSON: ")
            );
        };
        check(r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"#, json!(7));
        check(r#"{"params":{"a":"\x"},"id" : "a\"b"}"#, json!("a\"b"));
        check(r#"{"params":{"id":3,"a":["\"id\":5}"]},"id":4,,}"#, json!(4));
        check(r#"{"id":{"id":3},,}"#, Value::Null);
        check(r#"{"params":{"id":3"#, Value::Null);
        // Stays fast for a string without an end that holds many brackets.
        check(
            &format!("{{\"params\":{{\"message\":\"{}", r#"\"x\" [0] "#.repeat(100_000)),
            Value::Null,
        );
        check("hello", Value::Null);
    }

    #[test]
    fn an_invalid_request_keeps_its_id_and_a_batch_is_split() {
        for request in [
            json!({"jsonrpc": "2.0", "id": -3, "method": "tools/call", "params": 7}),
            json!({"id": -3, "method": "tools/list"}),
        ] {
            let message: Value =
                serde_json::from_slice(&repaired(request.to_string().as_bytes())).unwrap();
            assert_eq!(
                (&message["id"], &message["method"]),
                (&json!(-3), &json!(UNREADABLE)),
                "{request}"
            );
        }
        let one = |id: u64| json!({"jsonrpc": "2.0", "id": id, "method": "ping"}).to_string();
        check(format!("[{},{}]", one(1), one(2)).as_bytes(), &format!("{}\n{}\n", one(1), one(2)));
    }

    #[test]
    fn an_unreadable_initialize_keeps_its_readable_fields() {
        let check = |params: Value, expected: Value| {
            let sent = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params});
            let line = repaired(sent.to_string().as_bytes()).into_owned();
            let message: Value = serde_json::from_slice(&line).unwrap();
            assert_eq!(message["params"], expected);
            assert!(serde_json::from_value::<InitializeRequestParams>(expected).is_ok());
        };
        let host = json!({"name": "h", "version": "1"});
        let fits = json!({"protocolVersion": "2025-11-25", "capabilities": {"roots": {}}, "clientInfo": host, "more": 1});
        check(fits.clone(), fits);
        check(
            json!({"protocolVersion": "2025-11-25", "capabilities": {"roots": 7, "sampling": {}}, "clientInfo": host}),
            json!({"protocolVersion": "2025-11-25", "capabilities": {"sampling": {}}, "clientInfo": host}),
        );
        let unknown = json!({"name": "unknown", "version": "unknown"});
        let least =
            json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": unknown});
        for odd in
            [json!({}), json!(null), json!([]), json!({"protocolVersion": 2, "capabilities": true})]
        {
            check(odd, least.clone());
        }
        check(
            json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "h", "version": 2}}),
            json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "h", "version": "unknown"}}),
        );
    }

    #[test]
    fn arguments_as_json_text_are_parsed() {
        let call = |arguments: Value| json!({"method": "tools/call", "params": {"name": "n", "arguments": arguments}});
        let check = |sent: Value, expected: Value| {
            let mut message = call(sent);
            assert!(tidy(&mut message));
            assert_eq!(message, call(expected));
        };
        check(json!("{\"message\": \"m\"}"), json!({"message": "m"}));
        check(json!(""), json!({}));
        check(json!("[1]"), json!({}));
        assert!(!tidy(&mut call(json!({"message": "m"}))));
        let mut message = json!({"method": "tools/list", "params": {"_meta": 7, "cursor": "c"}});
        assert!(tidy(&mut message));
        assert_eq!(message["params"], json!({"cursor": "c"}));
    }

    #[tokio::test]
    async fn lines_before_the_first_request_are_skipped() {
        let input = "\n5\n{\"id\":17,\"error\":{\"code\":1,\"message\":\"x\"}}\n{\"method\":\"notifications/initialized\"}\n\
            {\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}\n{\"method\":\"notifications/initialized\"}\n";
        let mut copied = Vec::new();
        copy(input.as_bytes(), &mut copied).await;
        let text = String::from_utf8(copied).unwrap();
        let methods: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap()["method"].clone())
            .collect();
        assert_eq!(methods, ["ping", "notifications/initialized"]);
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_is_answered_and_the_next_is_read() {
        let filler = "x".repeat(usize::try_from(LONGEST).unwrap() + 10);
        for long in [
            format!("{{\"id\":5,\"a\":\"{filler}\"}}"),
            format!("{{\"params\":{{\"id\":3,\"a\":\"{filler}\"}},\"jsonrpc\":\"2.0\",\"id\":5}}"),
        ] {
            let mut copied = Vec::new();
            copy(format!("{long}\n{{\"id\":6}}\n").as_bytes(), &mut copied).await;
            let text = String::from_utf8(copied).unwrap();
            let lines: Vec<Value> =
                text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            assert_eq!((&lines[0]["id"], &lines[0]["method"]), (&json!(5), &json!(UNREADABLE)));
            assert_eq!(lines[1..], [json!({"id": 6})]);
        }
    }
}
