//! A model behind the Messages API, for Claude Code: it makes the calls that a test gives it, one a
//! turn, and then says that it is done.
//!
//! What a turn is follows from the conversation that is sent along, not from counting requests: a host
//! that repeats a request gets the same answer again. Like the model of the Kimi CLIs it runs on plain
//! threads and panics for nobody.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use regex::Regex;
use serde_json::{Value, json};

/// In the arguments of a call: the id of the thread that the last result named.
pub(crate) const THREAD_ID: &str = "THREAD_ID";

/// Likewise: the file of the plan, in plan mode.
pub(crate) const PLAN_FILE: &str = "PLAN_FILE";

/// The model's last words.
pub(crate) const LAST_WORDS: &str = "done";

/// The server; it stops when dropped.
pub(crate) struct Messages {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    /// Each tool's name and its arguments.
    calls: Vec<(&'static str, Value)>,
    requests: Mutex<Vec<Value>>,
    stopped: AtomicBool,
}

impl Messages {
    /// A model that makes these calls.
    pub(crate) fn start(calls: Vec<(&'static str, Value)>) -> Messages {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let shared =
            Arc::new(Shared { calls, requests: Mutex::default(), stopped: AtomicBool::new(false) });
        let accepting = Some(thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&listener, &shared)
        }));
        Messages { address, shared, accepting }
    }

    /// What `ANTHROPIC_BASE_URL` wants.
    pub(crate) fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What the model got for its calls: the `tool_result` blocks of the longest conversation, since
    /// a host may ask for something small beside it.
    pub(crate) fn tool_results(&self) -> Vec<Value> {
        let requests = self.shared.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.iter().map(tool_results).max_by_key(Vec::len).unwrap_or_default()
    }
}

impl Messages {
    /// Whether the model was sent this text.
    pub(crate) fn has_read(&self, text: &str) -> bool {
        let requests = self.shared.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.iter().any(|request| request["messages"].to_string().contains(text))
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // `accept` has no timeout: one more connection is what wakes it.
        if TcpStream::connect(self.address).is_ok()
            && let Some(accepting) = self.accepting.take()
        {
            let _ = accepting.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for connection in listener.incoming() {
        if shared.stopped.load(Ordering::SeqCst) {
            return;
        }
        let Ok(connection) = connection else { continue };
        let shared = Arc::clone(shared);
        // An error here is a client that left.
        thread::spawn(move || answer(&connection, &shared));
    }
}

/// Answers the one request of a connection.
fn answer(connection: &TcpStream, shared: &Shared) -> io::Result<()> {
    let (line, body) = read_request(connection)?;
    let asked = line.starts_with("POST /v1/messages?") || line.starts_with("POST /v1/messages ");
    let Some(body) = serde_json::from_slice::<Value>(&body).ok().filter(|_| asked) else {
        return write(connection, "404 Not Found", "application/json", "{}");
    };
    let events = shared.turn(&body);
    shared.requests.lock().unwrap_or_else(PoisonError::into_inner).push(body);
    write(connection, "200 OK", "text/event-stream", &events)
}

fn read_request(connection: &TcpStream) -> io::Result<(String, Vec<u8>)> {
    let mut reader = BufReader::new(connection);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.split_once(':') else { break };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = Vec::new();
    reader.take(length).read_to_end(&mut body)?;
    Ok((line, body))
}

fn write(mut connection: &TcpStream, status: &str, kind: &str, body: &str) -> io::Result<()> {
    let length = body.len();
    write!(
        connection,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{body}"
    )
}

impl Shared {
    /// The events of one turn: the next call, or the last words.
    fn turn(&self, request: &Value) -> String {
        let nth = tool_results(request).len();
        let (block, delta, stop) = match self.calls.get(nth) {
            Some((name, arguments)) => (
                json!({"type": "tool_use", "id": format!("toolu_{nth}"), "name": name, "input": {}}),
                json!({"type": "input_json_delta", "partial_json": filled(arguments, request)}),
                "tool_use",
            ),
            None => (
                json!({"type": "text", "text": ""}),
                json!({"type": "text_delta", "text": LAST_WORDS}),
                "end_turn",
            ),
        };
        let message = json!({
            "id": format!("msg_{nth}"), "type": "message", "role": "assistant",
            "model": request["model"], "content": [], "stop_reason": null, "stop_sequence": null,
            "usage": {"input_tokens": 100, "output_tokens": 1},
        });
        let stop = json!({"stop_reason": stop, "stop_sequence": null});
        [
            json!({"type": "message_start", "message": message}),
            json!({"type": "content_block_start", "index": 0, "content_block": block}),
            json!({"type": "content_block_delta", "index": 0, "delta": delta}),
            json!({"type": "content_block_stop", "index": 0}),
            json!({"type": "message_delta", "delta": stop, "usage": {"output_tokens": 20}}),
            json!({"type": "message_stop"}),
        ]
        .map(|event| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap()))
        .concat()
    }
}

/// The arguments as text, with the id of the thread and the file of the plan, as they were last named.
fn filled(arguments: &Value, request: &Value) -> String {
    let said = request["messages"].to_string();
    let last = |pattern: &str| {
        let named = Regex::new(pattern).unwrap();
        let last = named.captures_iter(&said).last();
        last.map(|named| named[1].to_owned()).unwrap_or_default()
    };
    let thread = last(r#"\\"thread\\":\{\\"id\\":\\"(\w+)"#);
    let plan = last(r#"([^\s"\\`]+/\.claude/plans/[\w-]+\.md)"#);
    arguments.to_string().replace(THREAD_ID, &thread).replace(PLAN_FILE, &plan)
}

fn tool_results(request: &Value) -> Vec<Value> {
    let messages = request["messages"].as_array().into_iter().flatten();
    let blocks = messages.filter_map(|message| message["content"].as_array()).flatten();
    blocks.filter(|block| block["type"] == "tool_result").cloned().collect()
}
