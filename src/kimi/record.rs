//! The record of a run: everything that has arrived of its stream so far.

mod conclusion;
mod plain;

use std::borrow::Cow;
use std::mem;
use std::path::Path;

use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::plain::Plain;
use super::dialect::Dialect;
use super::event::{Event, Retry};
use super::evidence::Trace;
use super::lines::{Line, LineSplitter};
use super::reply::{Limits, Progress};
use super::text::{begins_an_object, clean, first_bytes, last_words};
use super::transcript::Transcript;
use crate::redact::Secrets;

/// The most warnings that are kept.
const MAX_WARNINGS: usize = 10;
/// The most characters of an unknown line's role or type that a warning quotes.
const UNKNOWN_CHARS: usize = 80;
/// The longest line with a tool's result that the transcript keeps whole, bytes. Both programs cut results at 50,000
/// to 100,000 characters.
const RESULT_KEPT: usize = 256 * 1024;
/// The first bytes that the transcript keeps of a longer result.
const BEGINNING_KEPT: usize = 32 * 1024;
/// The most bytes of all earlier messages of the model that are kept.
const EARLIER_KEPT: usize = 512 * 1024;
const TOO_MUCH_SAID: &str = "early messages of Kimi's, which may hold an answer, were left out: together they are over \
                             512 KB";
/// The last bytes of standard error that are kept.
const STDERR_KEPT: usize = 16 * 1024;

/// The record of a run in progress.
pub(super) struct RunRecord {
    dialect: Dialect,
    secrets: Secrets,
    pub(super) started: Instant,
    lines: LineSplitter,
    /// Bytes of standard output so far.
    pub(super) bytes: u64,
    trace: Trace,
    /// The last message of the model.
    words: Option<String>,
    /// Earlier messages of the model that hold a JSON object: one of them may be the answer.
    earlier: Vec<String>,
    session: Option<String>,
    plain: Plain,
    /// The latest retry.
    retry: Option<Retry>,
    /// Set if the latest line was a retry.
    retrying: bool,
    stderr: Vec<u8>,
    /// The first [`MAX_WARNINGS`] different warnings.
    warnings: Vec<String>,
    /// The number of further warnings.
    more_warnings: usize,
    transcript: Option<Transcript>,
    /// The warning about the latest line that was too long, which may have been the answer.
    too_long: Option<String>,
}

impl RunRecord {
    pub(super) fn new(dialect: Dialect, line_bytes: usize, secrets: &Secrets) -> RunRecord {
        RunRecord {
            dialect,
            secrets: secrets.clone(),
            started: Instant::now(),
            lines: LineSplitter::new(line_bytes),
            bytes: 0,
            trace: Trace::new(dialect, secrets),
            words: None,
            earlier: Vec::new(),
            session: None,
            plain: Plain::default(),
            retry: None,
            retrying: false,
            stderr: Vec::new(),
            warnings: Vec::new(),
            more_warnings: 0,
            transcript: None,
            too_long: None,
        }
    }

    /// Starts a transcript, which gets every later line.
    pub(super) fn keep_in(&mut self, path: &Path, limit: u64) {
        self.transcript = Some(Transcript::start(path, limit, &self.secrets));
    }

    pub(super) fn progress(&self, limits: &Limits) -> Progress {
        let activity = match &self.retry {
            Some(Retry { status, next_attempt, max_attempts, delay_ms, .. }) if self.retrying => {
                let why = match status {
                    Some(429) => "rate limited".to_owned(),
                    Some(status) => format!("the service answered {status}"),
                    None => "the service did not answer".to_owned(),
                };
                let seconds = (delay_ms / 1000.0).ceil();
                format!("{why}, attempt {next_attempt} of {max_attempts}, next in {seconds} s")
            }
            _ if self.bytes == 0 => "starting Kimi".to_owned(),
            _ => self.trace.activity(),
        };
        limits.deadline.progress(activity, self.trace.files_read())
    }

    pub(super) fn silence(&self, limits: &Limits) -> String {
        if self.bytes == 0 {
            let limit = limits.first_line.as_secs();
            format!("Kimi wrote nothing within first_line_seconds ({limit} s)")
        } else {
            let limit = limits.silence.as_secs();
            format!("Kimi wrote nothing for silence_seconds ({limit} s)")
        }
    }

    /// Records bytes of standard output. Returns whether they completed a line.
    pub(super) fn take_bytes(&mut self, bytes: &[u8]) -> bool {
        self.bytes += bytes.len() as u64;
        let mut has_line = false;
        let mut lines = mem::take(&mut self.lines);
        lines.push(bytes, |line| {
            has_line = true;
            self.take_line(line);
        });
        self.lines = lines;
        has_line
    }

    /// Records the last line, if it has no line ending.
    pub(super) fn take_rest(&mut self) {
        let mut lines = mem::take(&mut self.lines);
        lines.finish(|line| self.take_line(line));
        self.lines = lines;
    }

    /// Returns whether the transcript waits for its writer.
    pub(super) fn is_behind(&self) -> bool {
        self.transcript.as_ref().is_some_and(Transcript::is_behind)
    }

    /// Waits for the writer of the transcript. Dropping the future loses nothing.
    pub(super) async fn catch_up(&mut self) {
        if let Some(transcript) = &mut self.transcript {
            transcript.catch_up().await;
        }
    }

    /// Records the last line, and waits for the end of the transcript for a bounded time.
    pub(super) async fn finish(&mut self, cancel: &CancellationToken) {
        self.take_rest();
        if let Some(transcript) = self.transcript.take()
            && let Some(warning) = transcript.finish(cancel).await
        {
            self.warn(warning);
        }
    }

    fn take_line(&mut self, line: Line<'_>) {
        match line {
            Line::Whole(line) => {
                let event = Event::read(&line);
                if let Some(transcript) = &mut self.transcript {
                    transcript.add(&transcript_line(&line, event.as_ref()));
                }
                if let Some(event) = event {
                    self.take_event(event);
                }
            }
            Line::TooLong(bytes) => {
                let skipped =
                    format!("a line of {bytes} bytes was skipped: it is over max_line_bytes");
                self.too_long = Some(skipped.clone());
                self.warn(skipped);
            }
        }
    }

    fn take_event(&mut self, event: Event<'_>) {
        self.retrying = matches!(event, Event::Retrying(_));
        match event {
            Event::Started => {}
            Event::Assistant { text, calls, more_calls } => {
                if let Some(text) = text.filter(|text| !text.trim().is_empty()) {
                    let before = self.words.replace(text);
                    self.keep_earlier(before);
                }
                self.trace.calls(calls);
                self.trace.more_calls(more_calls);
            }
            Event::ToolResult { id, text, is_cut } => {
                self.trace.result(&id, &text);
                if is_cut {
                    self.trace.cut();
                }
            }
            Event::Retrying(retry) => self.retry = Some(retry),
            Event::Session(id) => self.session = Some(clean(&id).into_owned()),
            Event::Plain(text) => self.plain.add(text),
            Event::Unknown(kind) => {
                let shown = self.secrets.redact_start(&kind, UNKNOWN_CHARS).into_text();
                self.warn(format!("a line of Kimi's stream was skipped: unknown {shown}"));
            }
        }
    }

    /// Keeps a message that may be the answer. Drops the oldest such messages beyond [`EARLIER_KEPT`].
    fn keep_earlier(&mut self, message: Option<String>) {
        self.earlier.extend(message.filter(|text| holds_an_object(&clean(text))));
        let bytes = |messages: &[String]| messages.iter().map(String::len).sum::<usize>();
        while bytes(&self.earlier) > EARLIER_KEPT {
            self.earlier.remove(0);
            self.warn(TOO_MUCH_SAID.to_owned());
        }
    }

    /// Adds a warning, once.
    fn warn(&mut self, warning: String) {
        if self.warnings.contains(&warning) {
            return;
        }
        if self.warnings.len() < MAX_WARNINGS {
            self.warnings.push(warning);
        } else {
            self.more_warnings += 1;
        }
    }

    pub(super) fn take_stderr(&mut self, bytes: &[u8]) {
        self.stderr.extend_from_slice(bytes);
        // One byte beyond the limit shows that the text was cut.
        let over = self.stderr.len().saturating_sub(STDERR_KEPT + 1);
        self.stderr.drain(..over);
    }

    fn stderr(&self) -> String {
        last_words(&String::from_utf8_lossy(&self.stderr), STDERR_KEPT).to_owned()
    }

    /// Returns the output of a program that writes plain text.
    pub(super) fn into_text(mut self) -> String {
        self.take_rest();
        let mut text = self.plain.lines().join("\n");
        text.push('\n');
        text.push_str(&String::from_utf8_lossy(&self.stderr));
        text
    }
}

/// Returns whether a cleaned text holds a JSON object.
fn holds_an_object(text: &str) -> bool {
    text.match_indices('{').any(|(at, _)| begins_an_object(&text[at..]))
}

/// Returns the line for the transcript. Keeps only the beginning of a tool's result that is longer than both programs
/// write, with the length of the line.
fn transcript_line<'a>(line: &'a str, event: Option<&Event<'_>>) -> Cow<'a, str> {
    match event {
        Some(Event::ToolResult { id, text, .. }) if line.len() > RESULT_KEPT => {
            let cut = json!({
                "role": "tool", "tool_call_id": id, "content": first_bytes(text, BEGINNING_KEPT),
                "cut_from_bytes": line.len()
            });
            cut.to_string().into()
        }
        _ => line.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use serde_json::json;

    use super::plain::PLAIN_KEPT;
    use super::*;
    use crate::error::{Kind, Result};
    use crate::kimi::invocation::{Invocation, Under};
    use crate::kimi::reply::{Deadline, End, Reply};
    use crate::settings;

    fn invocation() -> Invocation {
        Invocation {
            program: "/bin/kimi".into(),
            args: vec![],
            env: [].into(),
            work_dir: "/".into(),
            stdin: String::new(),
            under: Under::Nothing,
        }
    }

    fn exited(code: i32) -> End {
        use std::os::unix::process::ExitStatusExt as _;
        End::Exited(std::process::ExitStatus::from_raw(code << 8))
    }

    fn concluded(dialect: Dialect, lines: &[&str], stderr: &str, code: i32) -> Result<Reply> {
        let mut record = RunRecord::new(dialect, 1 << 20, &Secrets::default());
        record.take_bytes(lines.join("\n").as_bytes());
        record.take_stderr(stderr.as_bytes());
        record.conclude(&invocation(), &exited(code))
    }

    const HALF: &str = r#"{"role":"assistant","content":"I found that the"}"#;

    #[test]
    fn an_answer_before_an_abnormal_end_is_returned_with_the_failure() {
        let check =
            |dialect, lines: &[&str], stderr: &str, code: i32, expected: Kind, warning: &str| {
                let reply = concluded(dialect, lines, stderr, code).unwrap();
                assert_eq!(
                    (reply.text.as_str(), reply.warnings[0].as_str()),
                    ("I found that the", warning)
                );
                let failure = reply.failure.unwrap();
                assert_eq!(
                    (failure.kind, &failure.partial.unwrap()["response"]),
                    (expected, &json!("I found that the"))
                );
            };
        let (code, cli) = (Dialect::KimiCode, Dialect::KimiCli);
        let line =
            "error: failed to run prompt: provider.connection_error: terminated\nSee log: /x\n";
        let after = "Kimi ended abnormally after its answer";
        let named = |message: &str| format!("{after}: {message}");
        let lost = named(
            "the service failed or could not be reached: provider.connection_error: terminated",
        );
        check(code, &[HALF], line, 1, Kind::Unavailable, &lost);
        let limited = named("the service asked to slow down: Error code: 429 - {'error'}");
        check(cli, &[HALF, "Error code: 429 - {'error'}"], "", 75, Kind::RateLimited, &limited);
        check(code, &[HALF], "some noise", 3, Kind::Crashed, &format!("{after} (exit status: 3)"));
    }

    #[test]
    fn an_answer_counts_if_the_program_then_closes_its_output_and_keeps_running() {
        let closed = |lines: &[&str], stderr: &str| {
            let mut record = RunRecord::new(Dialect::KimiCode, 1 << 20, &Secrets::default());
            record.take_bytes(lines.join("\n").as_bytes());
            record.take_stderr(stderr.as_bytes());
            record.conclude(&invocation(), &End::Closed)
        };
        let reply = closed(&[HALF], "").unwrap();
        let warning =
            "Kimi had answered but did not end by itself: it had closed its standard output";
        assert_eq!(reply.warnings, [warning]);
        let message = "Kimi closed its standard output without an answer, and did not end";
        for failure in [*reply.failure.unwrap(), closed(&[], "").unwrap_err()] {
            assert_eq!((failure.kind, failure.message.as_str()), (Kind::Crashed, message));
        }
        let named = closed(&[HALF], "error: provider.rate_limit: 429").unwrap();
        assert_eq!(named.failure.unwrap().kind, Kind::RateLimited);
    }

    #[test]
    fn earlier_messages_that_hold_an_object_are_kept_up_to_a_limit() {
        let message = |text: &str| json!({"role": "assistant", "content": text}).to_string();
        let check = |messages: &[&str], expected: String, warnings: &[&str]| {
            let lines: Vec<String> = messages.iter().map(|text| message(text)).collect();
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            let reply = concluded(Dialect::KimiCode, &lines, "", 0).unwrap();
            assert_eq!(
                (reply.text, reply.warnings.as_slice()),
                (expected, &warnings.iter().map(|&one| one.to_owned()).collect::<Vec<_>>()[..])
            );
            reply.hidden
        };
        let object = "{ \"response\": \"r\"}";
        for object in [object, "{ // all of it\n\"response\": \"r\"}", "{”response”: ”r”}"]
        {
            let messages = ["I look.", object, "fn f() { g() }", "All said."];
            check(&messages, format!("{object}\n\nAll said."), &[]);
        }
        let unseen = "{\u{200b}\"response\": \"r\"}";
        assert_eq!(
            check(&[unseen, "end\u{200b}"], "{\"response\": \"r\"}\n\nend".to_owned(), &[]),
            2
        );
        let long = format!("{object}{}", "x".repeat(EARLIER_KEPT));
        check(&[object, &long, "end"], "end".to_owned(), &[TOO_MUCH_SAID]);
        check(&[&long, object, "end"], format!("{object}\n\nend"), &[TOO_MUCH_SAID]);
    }

    #[test]
    fn lines_that_are_no_json_are_counted_and_their_end_is_kept() {
        let mut record = RunRecord::new(Dialect::KimiCli, 1 << 20, &Secrets::default());
        for n in 0..1_000 {
            record.take_bytes(format!("junk {n} {}\n", "x".repeat(500)).as_bytes());
        }
        assert!(record.plain.lines().iter().map(String::len).sum::<usize>() <= PLAIN_KEPT);
        record.take_bytes(HALF.as_bytes());
        let reply = record.conclude(&invocation(), &exited(0)).unwrap();
        assert_eq!(reply.warnings, ["1000 lines of Kimi's stream were skipped: they are no JSON"]);
    }

    #[test]
    fn a_transcript_keeps_the_beginning_of_a_result_that_no_real_program_writes() {
        let line = |length: usize| {
            let result =
                json!({"role": "tool", "tool_call_id": "a", "content": "x".repeat(length)});
            result.to_string()
        };
        let whole = line(RESULT_KEPT - 100);
        assert_eq!(transcript_line(&whole, Event::read(&whole).as_ref()), whole);
        let long = line(RESULT_KEPT);
        let cut: serde_json::Value =
            serde_json::from_str(&transcript_line(&long, Event::read(&long).as_ref())).unwrap();
        let content = cut["content"].as_str().unwrap();
        assert!(content.len() < 40_000 && content.starts_with("xxx"), "{}", content.len());
        assert_eq!(
            (&cut["tool_call_id"], &cut["cut_from_bytes"]),
            (&json!("a"), &json!(long.len()))
        );
    }

    #[test]
    fn a_secret_that_a_limit_cuts_in_half_is_left_out_of_warnings_and_errors() {
        // The key is built at run time, so that no scanner reports a leak in this file.
        let key = format!("AKIA{}", "ABCDEFGHIJKLMNOP");
        let role = format!("{} {key}", "x".repeat(66));
        let unknown = json!({"role": role}).to_string();
        let reply = concluded(Dialect::KimiCode, &[&unknown, HALF], "", 0).unwrap();
        let expected =
            format!("a line of Kimi's stream was skipped: unknown role `{} ", "x".repeat(66));
        assert_eq!(reply.warnings, [expected]);

        let error_message = |lines: &[&str], stderr: &str| {
            concluded(Dialect::KimiCli, lines, stderr, 1).unwrap_err().message
        };
        let long = format!("{key} {}", "x ".repeat(STDERR_KEPT / 2 - 4));
        assert!(
            error_message(&[], &long).starts_with("Kimi ended without an answer: x x "),
            "{}",
            error_message(&[], &long)
        );
        let long = format!("{key} {}", "x ".repeat(PLAIN_KEPT / 2 - 4));
        assert!(error_message(&[&long], "").starts_with("Kimi ended without an answer: x x "));
        // The program wraps in the middle of the key, and the limit cuts between the two lines.
        let line = format!("{}{key} ", "x ".repeat(20));
        let (first, rest) = line.split_at(50);
        let lines = [&[rest], [first, rest].repeat(300).as_slice()].concat();
        let message = error_message(&lines, "");
        assert!(!message.contains("AKIA") && !message.contains("MNOP"), "{message}");
    }

    /// Lines that Kimi might write, whole, cut or damaged, and anything else.
    fn line() -> impl Strategy<Value = Vec<u8>> {
        let id = "[a-c]";
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..40),
            "\\PC{0,30}".prop_map(String::into_bytes),
            (id, "\\PC{0,12}").prop_map(|(id, path)| {
                let args = json!({"path": path}).to_string();
                let call = json!({"id": id, "function": {"name": "Read", "arguments": args}});
                json!({"role": "assistant", "tool_calls": [call]}).to_string().into_bytes()
            }),
            (id, "\\PC{0,12}").prop_map(|(id, text)| {
                json!({"role": "tool", "tool_call_id": id, "content": text})
                    .to_string()
                    .into_bytes()
            }),
            ("\\PC{0,20}", 0usize..40).prop_map(|(text, cut)| {
                let mut line =
                    json!({"role": "assistant", "content": text}).to_string().into_bytes();
                line.truncate(line.len().saturating_sub(cut));
                line
            }),
        ]
    }

    proptest! {
        #[test]
        fn the_last_message_and_an_earlier_answer_survive_any_noise_and_any_split_of_the_stream(
            before in proptest::collection::vec(line(), 0..6),
            after in proptest::collection::vec(line(), 0..6),
            words in "\\PC{1,60}",
            (opening, calls) in ("[a-z {}]{0,9}(```json)?[ \\n]{0,3}\\{ ?(/\\*.\\*/|// .\\n)?[\"“]", any::<bool>()),
            chunk in 1usize..50,
        ) {
            prop_assume!(!words.trim().is_empty());
            let said = format!("{opening}response\": \"r\"}}");
            let mut answer = json!({"role": "assistant", "content": said});
            if calls {
                answer["tool_calls"] = json!([{"id": "z", "function": {"name": "Read", "arguments": "{}"}}]);
            }
            let answer = answer.to_string().into_bytes();
            let mut bytes = [before, vec![answer], after].concat().join(&b'\n');
            bytes.push(b'\n');
            bytes.extend(json!({"role": "assistant", "content": words}).to_string().into_bytes());
            let mut record = RunRecord::new(Dialect::KimiCode, 1 << 20, &Secrets::default());
            let config = settings::load(settings::Environment::default(), &[]).unwrap();
            let deadline = Deadline::after(Duration::from_secs(60));
            let limits = Limits::from_settings(&config.settings, Dialect::KimiCode, deadline);
            for piece in bytes.chunks(chunk) {
                record.take_bytes(piece);
                let _ = record.progress(&limits);
            }
            let reply = record.conclude(&invocation(), &exited(0)).unwrap();
            prop_assert!(reply.text.ends_with(&*clean(&words)), "{}", reply.text);
            prop_assert!(reply.text.contains(&*clean(&said)), "{said}: {}", reply.text);
        }
    }
}
