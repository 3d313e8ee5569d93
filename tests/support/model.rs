//! A model that says what a test tells it to, behind the HTTP that both Kimi CLIs speak.
//!
//! The suite runs the real CLIs, because what matters is how *they* call tools, retry and fail; only
//! the model they talk to is made up. So this speaks just enough of the chat-completions protocol for
//! both of them: a stream of server-sent events, or one JSON object for a caller that wants no stream.
//!
//! It runs on plain threads, one a connection, so that a test may block on it from wherever it likes.
//! It knows nothing about Kimi beyond the request it is handed, and nothing a client does may panic
//! it: clients are killed in the middle of an answer here, on purpose.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use serde_json::{Value, json};

/// One answer to one `POST /v1/chat/completions`.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// The model's words, and the end of its turn.
    Text(String),
    /// Tool calls made in one turn: each tool's name and its arguments.
    Calls(Vec<(&'static str, Value)>),
    /// The same with one id for all of them, as a model may do by mistake.
    CallsUnderOneId(Vec<(&'static str, Value)>),
    /// Words before the tool calls, as models like to do.
    TextAndCalls(String, Vec<(&'static str, Value)>),
    /// Reasoning, sent before the step that follows it.
    Think(String, Box<Step>),
    /// An HTTP error with that JSON body. After [`Step::Think`] the status line is long gone, so
    /// there the stream breaks off instead.
    Status(u16, Value),
    /// Success, in a stream that holds neither words nor calls.
    Empty,
    /// No answer at all, until the model is dropped; after [`Step::Think`], no more of one.
    Hang,
}

/// The server; it stops when dropped, and lets go of everything that was waiting on it.
pub(crate) struct Model {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

type Script = Box<dyn FnMut(&Value, usize) -> Step + Send>;

struct Shared {
    /// Held while a request is numbered and answered from the script, so that the two orders agree.
    script: Mutex<Script>,
    /// Apart from the script, so that a test may look while its script blocks.
    requests: Mutex<Vec<Value>>,
    others: Mutex<Vec<String>>,
    stopped: Mutex<bool>,
    stopping: Condvar,
}

impl Model {
    /// Answers with these steps in their order; the last repeats when the script is spent, since a
    /// CLI that retries asks more often than a test can count.
    pub(crate) fn start(script: Vec<Step>) -> Model {
        assert!(!script.is_empty(), "a script needs a step");
        Model::start_with(move |_, nth| script[nth.min(script.len() - 1)].clone())
    }

    /// Answers with what `script` makes of the request's body and of its number, counted from 0.
    pub(crate) fn start_with(script: impl FnMut(&Value, usize) -> Step + Send + 'static) -> Model {
        let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| Ok((listener.local_addr()?, listener)));
        let (address, listener) =
            bound.unwrap_or_else(|error| panic!("no port on loopback: {error}"));
        let shared = Arc::new(Shared {
            script: Mutex::new(Box::new(script)),
            requests: Mutex::default(),
            others: Mutex::default(),
            stopped: Mutex::new(false),
            stopping: Condvar::new(),
        });
        let accepting = Some(thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&listener, &shared)
        }));
        Model { address, shared, accepting }
    }

    /// `http://127.0.0.1:PORT/v1`, what both CLIs take as a provider's base URL.
    pub(crate) fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// The bodies of the chat completions asked for so far, retries included, in their order.
    pub(crate) fn requests(&self) -> Vec<Value> {
        lock(&self.shared.requests).clone()
    }

    /// For each chat completion, the sorted names of the tools that the model was offered.
    pub(crate) fn offered_tools(&self) -> Vec<Vec<String>> {
        self.requests().iter().map(tool_names).collect()
    }

    /// Everything that was not a chat completion, as `GET /v1/models`.
    pub(crate) fn other_requests(&self) -> Vec<String> {
        lock(&self.shared.others).clone()
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        *lock(&self.shared.stopped) = true;
        self.shared.stopping.notify_all();
        // `accept` has no timeout: one more connection is what wakes it.
        if TcpStream::connect(self.address).is_ok()
            && let Some(accepting) = self.accepting.take()
        {
            // It panics for nobody, and a destructor must not panic over it either.
            let _ = accepting.join();
        }
    }
}

impl Shared {
    fn is_stopped(&self) -> bool {
        *lock(&self.stopped)
    }

    fn wait_until_stopped(&self) {
        let guard = lock(&self.stopped);
        drop(
            self.stopping
                .wait_while(guard, |stopped| !*stopped)
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    /// The next step, and the request's number counted from 1.
    fn next_step(&self, body: &Value) -> (Step, usize) {
        let mut script = lock(&self.script);
        let nth = {
            let mut requests = lock(&self.requests);
            requests.push(body.clone());
            requests.len() - 1
        };
        (script(body, nth), nth + 1)
    }
}

/// A script that panics (an assertion in a test) must not hide what the model saw from the others.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn tool_names(request: &Value) -> Vec<String> {
    let tools = request["tools"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut names: Vec<String> = tools
        .iter()
        .filter_map(|tool| tool["function"]["name"].as_str())
        .map(str::to_owned)
        .collect();
    names.sort();
    names
}

/// The text of one message of a request.
pub(crate) fn text_of(message: &Value) -> String {
    match &message["content"] {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            parts.iter().filter_map(|part| part["text"].as_str()).collect::<Vec<_>>().join("\n")
        }
        _ => String::new(),
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for connection in listener.incoming() {
        if shared.is_stopped() {
            return;
        }
        let Ok(connection) = connection else { continue };
        let shared = Arc::clone(shared);
        // An error here is a client that left; its own exit is what a test looks at.
        thread::spawn(move || serve(&connection, &shared));
    }
}

/// Answers the requests of one connection until it closes. A connection left idle is not torn down
/// when the model is dropped; it closes, unanswered, at its next request.
fn serve(connection: &TcpStream, shared: &Shared) -> io::Result<()> {
    connection.set_nodelay(true)?;
    let mut reader = BufReader::new(connection);
    let mut writer = connection;
    while let Some(request) = read_request(&mut reader, &mut writer)? {
        if shared.is_stopped() {
            break;
        }
        answer(&request, shared, &mut writer)?;
        if request.closes {
            break;
        }
    }
    Ok(())
}

struct Request {
    /// `POST /v1/chat/completions`: the query is cut off.
    line: String,
    body: Vec<u8>,
    /// The client wants no further request on this connection.
    closes: bool,
}

/// The next request, or nothing at the end of the connection.
fn read_request(reader: &mut impl BufRead, writer: &mut impl Write) -> io::Result<Option<Request>> {
    let Some(first) = read_line(reader)? else { return Ok(None) };
    let mut words = first.split_whitespace();
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        return Err(malformed("request line"));
    };
    let path = target.split('?').next().unwrap_or_default();
    let line = format!("{method} {path}");
    let mut closes = false;
    let mut chunked = false;
    let mut length = 0;
    loop {
        let header = read_line(reader)?.ok_or_else(|| malformed("headers"))?;
        if header.is_empty() {
            break;
        }
        let (name, value) = header.split_once(':').ok_or_else(|| malformed("header"))?;
        let value = value.trim().to_ascii_lowercase();
        match name.to_ascii_lowercase().as_str() {
            "connection" => closes = value == "close",
            "transfer-encoding" => chunked = value == "chunked",
            "content-length" => length = value.parse().map_err(|_| malformed("length"))?,
            "expect" => writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?,
            _ => {}
        }
    }
    let mut body = Vec::new();
    if chunked {
        while read_chunk(reader, &mut body)? > 0 {}
        while read_line(reader)?.is_some_and(|trailer| !trailer.is_empty()) {}
    } else {
        read_bytes(reader, length, &mut body)?;
    }
    Ok(Some(Request { line, body, closes }))
}

fn read_line(reader: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    if reader.read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    Ok(Some(String::from_utf8_lossy(&line).trim_end().to_owned()))
}

/// Reads one chunk and says how long it was. The last chunk is empty, and trailers follow it.
fn read_chunk(reader: &mut impl BufRead, body: &mut Vec<u8>) -> io::Result<u64> {
    let line = read_line(reader)?.ok_or_else(|| malformed("chunk"))?;
    let size = line.split(';').next().unwrap_or_default().trim();
    let size = u64::from_str_radix(size, 16).map_err(|_| malformed("chunk"))?;
    if size > 0 {
        read_bytes(reader, size, body)?;
        read_line(reader)?;
    }
    Ok(size)
}

fn read_bytes(reader: &mut impl BufRead, length: u64, body: &mut Vec<u8>) -> io::Result<()> {
    // Reads what comes instead of trusting the length with an allocation.
    let got = reader.take(length).read_to_end(body)?;
    if u64::try_from(got).is_ok_and(|got| got == length) {
        Ok(())
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("malformed {what}"))
}

fn answer(request: &Request, shared: &Shared, writer: &mut impl Write) -> io::Result<()> {
    if request.line != "POST /v1/chat/completions" {
        lock(&shared.others).push(request.line.clone());
        return if request.line == "GET /v1/models" {
            let model =
                json!({"id": "kimi-for-coding", "object": "model", "context_length": 262_144});
            write_json(writer, 200, &json!({"object": "list", "data": [model]}))
        } else {
            write_json(writer, 404, &json!({"error": {"message": "no such page", "type": "error"}}))
        };
    }
    let Ok(body) = serde_json::from_slice::<Value>(&request.body) else {
        lock(&shared.others).push(format!("{} (not JSON)", request.line));
        return write_json(
            writer,
            400,
            &json!({"error": {"message": "not JSON", "type": "error"}}),
        );
    };
    let (step, number) = shared.next_step(&body);
    let mut parts = Vec::new();
    unfold(step, &mut parts);
    let answer = Answer { number, model: body["model"].clone() };
    if body["stream"] == true {
        answer.stream(parts, shared, writer)
    } else {
        answer.object(parts, shared, writer)
    }
}

/// What a step comes to, one thing after the other.
enum Part {
    Reasoning(String),
    Words(String),
    Calls(Vec<(&'static str, Value)>, Ids),
    Status(u16, Value),
    Hang,
}

/// Whether each call of a step has an id of its own.
#[derive(Clone, Copy)]
enum Ids {
    Each,
    One,
}

fn unfold(step: Step, parts: &mut Vec<Part>) {
    match step {
        Step::Text(words) => parts.push(Part::Words(words)),
        Step::Calls(calls) => parts.push(Part::Calls(calls, Ids::Each)),
        Step::CallsUnderOneId(calls) => parts.push(Part::Calls(calls, Ids::One)),
        Step::TextAndCalls(words, calls) => {
            parts.push(Part::Words(words));
            parts.push(Part::Calls(calls, Ids::Each));
        }
        Step::Think(reasoning, then) => {
            parts.push(Part::Reasoning(reasoning));
            unfold(*then, parts);
        }
        Step::Status(status, body) => parts.push(Part::Status(status, body)),
        Step::Empty => {}
        Step::Hang => parts.push(Part::Hang),
    }
}

/// What all chunks of one answer have in common.
struct Answer {
    /// The request's number, counted from 1: part of each tool call's id.
    number: usize,
    /// The name that the client asked for.
    model: Value,
}

impl Answer {
    fn stream(&self, parts: Vec<Part>, shared: &Shared, writer: &mut impl Write) -> io::Result<()> {
        let mut events = Events { writer, begun: false };
        let mut finish = "stop";
        for part in parts {
            match part {
                Part::Reasoning(text) => {
                    events.send(&self.chunk(&json!({"reasoning_content": text})))?;
                }
                Part::Words(text) => events.send(&self.chunk(&json!({"content": text})))?,
                Part::Calls(calls, ids) => {
                    finish = "tool_calls";
                    let calls = self.tool_calls(&calls, ids);
                    events.send(&self.chunk(&json!({"tool_calls": calls})))?;
                }
                Part::Status(status, body) if !events.begun => {
                    return write_json(events.writer, status, &body);
                }
                Part::Status(..) => return Err(broken_off()),
                Part::Hang => {
                    shared.wait_until_stopped();
                    return Err(broken_off());
                }
            }
        }
        let mut last = self.chunk(&json!({}));
        last["choices"][0]["finish_reason"] = json!(finish);
        last["usage"] = usage();
        events.send(&last)?;
        events.end()
    }

    fn object(&self, parts: Vec<Part>, shared: &Shared, writer: &mut impl Write) -> io::Result<()> {
        let mut message = json!({"role": "assistant", "content": ""});
        let mut finish = "stop";
        for part in parts {
            match part {
                Part::Reasoning(text) => message["reasoning_content"] = json!(text),
                Part::Words(text) => message["content"] = json!(text),
                Part::Calls(calls, ids) => {
                    finish = "tool_calls";
                    message["tool_calls"] = self.tool_calls(&calls, ids);
                }
                Part::Status(status, body) => return write_json(writer, status, &body),
                Part::Hang => {
                    shared.wait_until_stopped();
                    return Err(broken_off());
                }
            }
        }
        let whole = json!({
            "id": self.id(), "object": "chat.completion", "created": 0, "model": self.model,
            "choices": [{"index": 0, "message": message, "finish_reason": finish}],
            "usage": usage(),
        });
        write_json(writer, 200, &whole)
    }

    fn id(&self) -> String {
        format!("chatcmpl-{}", self.number)
    }

    fn chunk(&self, delta: &Value) -> Value {
        json!({
            "id": self.id(), "object": "chat.completion.chunk", "created": 0, "model": self.model,
            "choices": [{"index": 0, "delta": delta, "finish_reason": null}],
        })
    }

    /// Ids as in the captures, `ReadFile:1_0`: the tool, the request's number, the call's place.
    fn tool_calls(&self, calls: &[(&'static str, Value)], ids: Ids) -> Value {
        let call = |(index, (name, arguments)): (usize, &(&'static str, Value))| {
            let id = match ids {
                Ids::Each => format!("{name}:{}_{index}", self.number),
                Ids::One => format!("call:{}", self.number),
            };
            json!({
                "index": index, "id": id, "type": "function",
                "function": {"name": name, "arguments": arguments.to_string()},
            })
        };
        calls.iter().enumerate().map(call).collect()
    }
}

/// Small, so that no CLI takes the conversation for a full one and compacts it.
fn usage() -> Value {
    json!({"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120})
}

/// Ends the connection without another byte.
fn broken_off() -> io::Error {
    io::ErrorKind::ConnectionAborted.into()
}

/// A body of server-sent events. Its head goes out with the first of them, because up to then the
/// answer may still become an HTTP error.
struct Events<W> {
    writer: W,
    begun: bool,
}

impl<W: Write> Events<W> {
    fn send(&mut self, chunk: &Value) -> io::Result<()> {
        self.write(&format!("data: {chunk}\n\n"))
    }

    fn end(&mut self) -> io::Result<()> {
        self.write("data: [DONE]\n\n")?;
        self.writer.write_all(b"0\r\n\r\n")
    }

    fn write(&mut self, event: &str) -> io::Result<()> {
        if !self.begun {
            self.begun = true;
            self.writer.write_all(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n\
                  Transfer-Encoding: chunked\r\n\r\n",
            )?;
        }
        write!(self.writer, "{:x}\r\n{event}\r\n", event.len())
    }
}

fn write_json(writer: &mut impl Write, status: u16, body: &Value) -> io::Result<()> {
    let body = body.to_string();
    write!(
        writer,
        "HTTP/1.1 {status} {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        reason(status),
        body.len(),
    )
}

/// The words that belong to a status; clients show them when a body says nothing.
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        _ => "Status",
    }
}
