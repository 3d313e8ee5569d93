//! What has arrived of a run so far, and what comes of it when the run is over: a reply, or an error
//! that keeps all of it.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::path::Path;

use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::dialect::Dialect;
use super::event::{Event, Retry};
use super::evidence::{Activity, Trace};
use super::failure::{self, Ending, How, MAY_PASS};
use super::hidden::{self, Cleaned};
use super::invocation::{Invocation, Under};
use super::lines::{Line, Lines};
use super::run::{End, Limits, Progress, Reply};
use super::text::{clean, last_words};
use super::transcript::Transcript;
use crate::error::{Error, Kind, Result};
use crate::redact::Secrets;
use crate::sandbox::Sandbox;

/// The end of standard error that is kept, bytes.
const STDERR_KEPT: usize = 16 * 1024;
/// The end of the plain text that is kept, for the error that it may be, bytes.
const PLAIN_KEPT: usize = 16 * 1024;
/// Warnings about lines that could not be used.
const WARNINGS_KEPT: usize = 10;
/// Characters of what a line of an unknown kind calls itself.
const UNKNOWN_CHARS: usize = 80;

/// What has arrived so far.
pub(super) struct Record {
    dialect: Dialect,
    secrets: Secrets,
    pub(super) started: Instant,
    lines: Lines,
    /// Bytes of standard output so far.
    pub(super) bytes: u64,
    trace: Trace,
    /// The last words of the model, and whether it called no tool with them: then its turn is over.
    words: Option<(String, bool)>,
    session: Option<String>,
    /// The latest lines that were no JSON, and how many there were in all.
    plain: VecDeque<String>,
    plain_bytes: usize,
    plain_lines: usize,
    /// Whether the beginning of the plain text was not kept.
    plain_is_cut: bool,
    /// Whether one of them came after the last words: an error that the run ended with.
    plain_is_last: bool,
    retry: Option<Retry>,
    retrying: bool,
    stderr: Vec<u8>,
    warnings: Vec<String>,
    /// What the lines of unknown kinds called themselves, of which a warning tells.
    unknown: Vec<String>,
    /// Warnings that were not kept.
    more_warnings: usize,
    transcript: Option<Transcript>,
    /// What was said of the latest line that was too long: it may have been the answer.
    too_long: Option<String>,
}

impl Record {
    pub(super) fn new(dialect: Dialect, line_bytes: usize, secrets: &Secrets) -> Record {
        Record {
            dialect,
            secrets: secrets.clone(),
            started: Instant::now(),
            lines: Lines::new(line_bytes),
            bytes: 0,
            trace: Trace::new(dialect, secrets),
            words: None,
            session: None,
            plain: VecDeque::new(),
            plain_bytes: 0,
            plain_lines: 0,
            plain_is_cut: false,
            plain_is_last: false,
            retry: None,
            retrying: false,
            stderr: Vec::new(),
            warnings: Vec::new(),
            unknown: Vec::new(),
            more_warnings: 0,
            transcript: None,
            too_long: None,
        }
    }

    /// Keeps every line in this file too.
    pub(super) fn keep_in(&mut self, path: &Path, limit: u64) {
        self.transcript = Some(Transcript::start(path, limit, &self.secrets));
    }

    pub(super) fn progress(&self) -> Progress {
        let activity = match &self.retry {
            Some(retry) if self.retrying => {
                let why = match retry.status {
                    Some(429) => "rate limited".to_owned(),
                    Some(status) => format!("the service answered {status}"),
                    None => "the service did not answer".to_owned(),
                };
                Activity::Retrying(why, retry.next_attempt, retry.max_attempts, retry.delay_ms)
            }
            _ if self.bytes == 0 => Activity::Starting,
            _ => self.trace.activity(),
        };
        Progress { activity, files: self.trace.files_read(), elapsed: self.started.elapsed() }
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

    /// Takes bytes of standard output; tells whether a line came of them.
    pub(super) fn take_bytes(&mut self, bytes: &[u8]) -> bool {
        self.bytes += bytes.len() as u64;
        let mut any = false;
        let mut lines = std::mem::take(&mut self.lines);
        lines.push(bytes, |line| {
            any = true;
            self.take_line(line);
        });
        self.lines = lines;
        any
    }

    pub(super) fn take_rest(&mut self) {
        let mut lines = std::mem::take(&mut self.lines);
        lines.finish(|line| self.take_line(line));
        self.lines = lines;
    }

    /// Whether the transcript waits for its writer.
    pub(super) fn is_behind(&self) -> bool {
        self.transcript.as_ref().is_some_and(Transcript::is_behind)
    }

    /// Waits for the writer of the transcript. Dropping the future loses nothing.
    pub(super) async fn catch_up(&mut self) {
        if let Some(transcript) = &mut self.transcript {
            transcript.catch_up().await;
        }
    }

    /// Takes the last line, and waits for the end of the transcript, for a bounded time.
    pub(super) async fn finish(&mut self, cancel: &CancellationToken) {
        self.take_rest();
        if let Some(transcript) = self.transcript.take()
            && let Some(warning) = transcript.finish(cancel).await
        {
            self.warn(warning);
        }
    }

    fn take_line(&mut self, line: Line<'_>) {
        let text = match line {
            Line::Whole(text) => text,
            Line::TooLong(bytes) => {
                let skipped =
                    format!("a line of {bytes} bytes was skipped: it is over max_line_bytes");
                self.too_long = Some(skipped.clone());
                return self.warn(skipped);
            }
        };
        if let Some(transcript) = &mut self.transcript {
            transcript.add(&text);
        }
        let Some(event) = Event::read(&text) else { return };
        self.retrying = matches!(event, Event::Retrying(_));
        match event {
            Event::Started => {}
            Event::Assistant { text, calls, more_calls } => {
                self.plain_is_last = false;
                if let Some(text) = text.filter(|text| !text.trim().is_empty()) {
                    self.words = Some((text, calls.is_empty()));
                } else if let Some((_, last)) = &mut self.words
                    && !calls.is_empty()
                {
                    *last = false;
                }
                for call in calls {
                    self.trace.call(call);
                }
                self.trace.more_calls(more_calls);
            }
            Event::ToolResult { id, text } => self.trace.result(&id, &text),
            Event::Retrying(retry) => self.retry = Some(retry),
            Event::Session(id) => self.session = Some(clean(&id).into_owned()),
            Event::Plain(text) => self.take_plain(last_words(text, PLAIN_KEPT)),
            Event::Unknown(what) => self.take_unknown(what),
        }
    }

    fn take_plain(&mut self, text: &str) {
        self.plain_lines += 1;
        self.plain_is_last = true;
        self.plain_bytes += text.len();
        self.plain.push_back(text.to_owned());
        while self.plain_bytes > PLAIN_KEPT {
            self.plain_is_cut = true;
            self.plain_bytes -= self.plain.pop_front().map_or(0, |line| line.len());
        }
    }

    /// Tells of a line of a kind that is not known, once of each; what many lines call themselves is not
    /// looked at any more when there are warnings enough.
    fn take_unknown(&mut self, what: String) {
        if self.unknown.contains(&what) {
            return;
        }
        if self.warnings.len() >= WARNINGS_KEPT {
            self.more_warnings += 1;
            return;
        }
        let told = self.secrets.redact_start(&what, UNKNOWN_CHARS).into_text();
        self.unknown.push(what);
        self.warn(format!("a line of Kimi's stream was skipped: unknown {told}"));
    }

    fn warn(&mut self, warning: String) {
        if self.warnings.contains(&warning) {
            return;
        }
        if self.warnings.len() < WARNINGS_KEPT {
            self.warnings.push(warning);
        } else {
            self.more_warnings += 1;
        }
    }

    pub(super) fn take_stderr(&mut self, bytes: &[u8]) {
        self.stderr.extend_from_slice(bytes);
        // One byte more than is kept says that there was more.
        let over = self.stderr.len().saturating_sub(STDERR_KEPT + 1);
        self.stderr.drain(..over);
    }

    fn stderr(&self) -> String {
        last_words(&String::from_utf8_lossy(&self.stderr), STDERR_KEPT).to_owned()
    }

    /// The plain text that is kept. Where it was cut, a word may be, and half a secret is not known
    /// for one.
    fn plain(&self) -> Vec<String> {
        let mut plain = Vec::from(self.plain.clone());
        if let Some(first) = plain.first_mut().filter(|_| self.plain_is_cut) {
            *first = first.split_once(char::is_whitespace).unwrap_or_default().1.to_owned();
        }
        plain
    }

    /// The reply, when the model's turn was over; otherwise the error, with what had arrived.
    pub(super) fn conclude(mut self, invocation: &Invocation, end: End) -> Result<Reply> {
        self.take_rest();
        let stderr = self.stderr();
        if self.session.is_none() && self.dialect == Dialect::KimiCli {
            self.session = session_in(&stderr);
        }
        let answered = match (&self.words, &end) {
            // Nobody waits for it any more.
            (_, End::Limit(Kind::Cancelled, _)) | (None, _) => false,
            // Words may be half of an answer that a failure broke off; only the end tells.
            (Some((_, turn_is_over)), End::Exited(status)) => {
                let failed = || self.says_why_it_failed(status.code(), &stderr);
                status.success() || (*turn_is_over && !failed())
            }
            (Some((_, turn_is_over)), End::Closed) => {
                *turn_is_over && !self.says_why_it_failed(None, &stderr)
            }
            (Some((_, turn_is_over)), End::Limit(..)) => *turn_is_over,
        };
        if !answered {
            return Err(self.error(invocation, &stderr, end));
        }
        match end {
            End::Exited(status) if !status.success() => {
                self.warnings.push(format!("Kimi ended abnormally after its answer ({status})"));
            }
            End::Exited(_) => {}
            End::Limit(_, why) => self.warn_of_no_end(&why),
            End::Closed => self.warn_of_no_end("it had closed its standard output"),
        }
        // kimi-code goes on without a section of its settings that it cannot read; a wall may be one.
        let ignored = stderr.lines().filter(|line| line.contains("Ignored invalid config section"));
        self.warnings.extend(ignored.map(|line| clean(line.trim()).into_owned()));
        if self.more_warnings > 0 {
            self.warnings.push(format!("{} more warnings about Kimi's stream", self.more_warnings));
        }
        match self.plain_lines {
            0 => {}
            1 => {
                self.warnings.push("a line of Kimi's stream was skipped: it is no JSON".to_owned());
            }
            count => {
                self.warnings
                    .push(format!("{count} lines of Kimi's stream were skipped: they are no JSON"));
            }
        }
        let (text, _) = self.words.unwrap_or_default();
        let Cleaned { text, hidden } = Cleaned::of(&text);
        Ok(Reply {
            text: text.into_owned(),
            hidden,
            seen: self.trace.finish(),
            session_id: self.session,
            warnings: self.warnings,
            sandbox: Sandbox::None,
            elapsed: self.started.elapsed(),
        })
    }

    fn warn_of_no_end(&mut self, why: &str) {
        self.warnings.push(format!("Kimi had answered but did not end by itself: {why}"));
    }

    /// Whether a run that ended badly named a failure: then its last words are no answer.
    fn says_why_it_failed(&self, code: Option<i32>, stderr: &str) -> bool {
        let says_error = stderr.lines().any(|line| line.trim_start().starts_with("error:"));
        says_error || self.plain_is_last || code == Some(MAY_PASS)
    }

    /// All plain text: what a program prints that speaks no JSON, such as its version.
    pub(super) fn into_text(mut self) -> String {
        self.take_rest();
        let mut text = Vec::from(self.plain).join("\n");
        text.push('\n');
        text.push_str(&String::from_utf8_lossy(&self.stderr));
        text
    }

    fn error(self, invocation: &Invocation, stderr: &str, end: End) -> Error {
        let has_started = self.words.is_some() || self.session.is_some();
        let how = match end {
            End::Exited(status) => Ok(status.code().map_or(How::Signal, How::Code)),
            End::Closed => Ok(How::Closed),
            End::Limit(kind, message) => Err(Error::of(kind, message)),
        };
        let mut error = match how {
            Ok(how) => {
                let plain = self.plain();
                let ending = Ending { how, stderr, plain: &plain, retry: self.retry.as_ref() };
                let error = failure::classify(&invocation.program, &ending, &self.secrets);
                match &invocation.under {
                    Under::Sandbox(rules)
                        if !has_started && matches!(error.kind, Kind::Crashed | Kind::Spawn) =>
                    {
                        let words = format!("{stderr}\n{}", plain.join("\n"));
                        let shut_out = failure::in_sandbox(&words, rules, &self.secrets);
                        shut_out.map_or(error, |shut_out| shut_out.error)
                    }
                    Under::Sandbox(_) | Under::Keeper | Under::Nothing => error,
                }
            }
            Err(limit) => limit,
        };
        if let (Some(skipped), Kind::EmptyAnswer) = (&self.too_long, error.kind) {
            let _ = write!(error.message, "; {skipped}");
        }
        if self.retrying && matches!(error.kind, Kind::TimedOut | Kind::Stalled) {
            let why = self.retry.map(|retry| retry.message).unwrap_or_default();
            let _ =
                write!(error.message, "; it was waiting to ask the service again: {}", clean(&why));
        }
        let seen = self.trace.finish();
        if self.words.is_some() || !seen.evidence.is_empty() {
            let words = self.words.as_ref().map(|(text, _)| Cleaned::of(text));
            let in_words = words.as_ref().map_or(0, |words| words.hidden);
            error.partial = Some(json!({
                "response": words.map(|words| words.text.into_owned()),
                "evidence": seen.evidence,
                "session_id": self.session,
                "warnings": Vec::from_iter(hidden::warning(in_words, seen.hidden)),
            }));
        }
        self.secrets.redact_error(error)
    }
}

/// The session that kimi-cli names on standard error.
fn session_in(stderr: &str) -> Option<String> {
    let line = stderr
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix("To resume this session: kimi -r "))?;
    Some(clean(line.trim()).into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
        let mut record = Record::new(dialect, 1 << 20, &Secrets::default());
        record.take_bytes(lines.join("\n").as_bytes());
        record.take_stderr(stderr.as_bytes());
        record.conclude(&invocation(), exited(code))
    }

    const HALF: &str = r#"{"role":"assistant","content":"I found that the"}"#;

    #[test]
    fn words_that_a_failure_broke_off_are_no_answer() {
        let check = |dialect, lines: &[&str], stderr: &str, code: i32, expected: Kind| {
            let error = concluded(dialect, lines, stderr, code).unwrap_err();
            assert_eq!(
                (error.kind, &error.partial.unwrap()["response"]),
                (expected, &json!("I found that the"))
            );
        };
        let (code, cli) = (Dialect::KimiCode, Dialect::KimiCli);
        let line =
            "error: failed to run prompt: provider.connection_error: terminated\nSee log: /x\n";
        check(code, &[HALF], line, 1, Kind::Unavailable);
        check(cli, &[HALF, "Error code: 429 - {'error'}"], "", 75, Kind::RateLimited);
        check(cli, &[HALF], "", 75, Kind::Unavailable);
    }

    #[test]
    fn a_bad_end_without_a_reason_leaves_the_answer() {
        let reply = concluded(Dialect::KimiCode, &[HALF], "some noise", 3).unwrap();
        assert_eq!(reply.text, "I found that the");
        assert_eq!(reply.warnings, ["Kimi ended abnormally after its answer (exit status: 3)"]);
    }

    #[test]
    fn a_program_that_can_say_no_more_and_lives_on_is_judged_by_what_it_said() {
        let closed = |lines: &[&str], stderr: &str| {
            let mut record = Record::new(Dialect::KimiCode, 1 << 20, &Secrets::default());
            record.take_bytes(lines.join("\n").as_bytes());
            record.take_stderr(stderr.as_bytes());
            record.conclude(&invocation(), End::Closed)
        };
        let warning =
            "Kimi had answered but did not end by itself: it had closed its standard output";
        assert_eq!(closed(&[HALF], "some noise").unwrap().warnings, [warning]);
        let calls = r#"{"role":"assistant","content":"","tool_calls":[{"id":"1","function":{"name":"Read"}}]}"#;
        for lines in [&[][..], &[HALF, calls]] {
            let error = closed(lines, "").unwrap_err();
            let message = "Kimi closed its standard output without an answer, and did not end";
            assert_eq!((error.kind, error.message.as_str()), (Kind::Crashed, message));
        }
        let named = closed(&[HALF], "error: provider.rate_limit: 429").unwrap_err();
        assert_eq!(named.kind, Kind::RateLimited);
    }

    #[test]
    fn plain_text_is_kept_in_bounds_and_counted() {
        let mut record = Record::new(Dialect::KimiCli, 1 << 20, &Secrets::default());
        for n in 0..1_000 {
            record.take_bytes(format!("junk {n} {}\n", "x".repeat(500)).as_bytes());
        }
        assert!(record.plain.iter().map(String::len).sum::<usize>() <= PLAIN_KEPT);
        record.take_bytes(HALF.as_bytes());
        let reply = record.conclude(&invocation(), exited(0)).unwrap();
        assert_eq!(reply.warnings, ["1000 lines of Kimi's stream were skipped: they are no JSON"]);
    }

    #[test]
    fn no_half_of_a_secret_is_told() {
        // Put together here, so that no scanner takes this file for a leak.
        let key = format!("AKIA{}", "ABCDEFGHIJKLMNOP");
        let role = format!("{} {key}", "x".repeat(66));
        let unknown = json!({"role": role}).to_string();
        let reply = concluded(Dialect::KimiCode, &[&unknown, HALF], "", 0).unwrap();
        let expected =
            format!("a line of Kimi's stream was skipped: unknown role `{} ", "x".repeat(66));
        assert_eq!(reply.warnings, [expected]);

        let told = |lines: &[&str], stderr: &str| {
            concluded(Dialect::KimiCli, lines, stderr, 1).unwrap_err().message
        };
        let long = format!("{key} {}", "x ".repeat(STDERR_KEPT / 2 - 4));
        assert!(
            told(&[], &long).starts_with("Kimi ended without an answer: x x "),
            "{}",
            told(&[], &long)
        );
        let long = format!("{key} {}", "x ".repeat(PLAIN_KEPT / 2 - 4));
        assert!(told(&[&long], "").starts_with("Kimi ended without an answer: x x "));
        // Wrapped in the middle of the key, and cut between the two lines.
        let line = format!("{}{key} ", "x ".repeat(20));
        let (first, rest) = line.split_at(50);
        let lines = [&[rest], [first, rest].repeat(300).as_slice()].concat();
        let message = told(&lines, "");
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
        fn whatever_is_written_however_it_is_split_the_last_words_are_never_lost(
            lines in proptest::collection::vec(line(), 0..12),
            words in "\\PC{1,60}",
            chunk in 1usize..50,
        ) {
            prop_assume!(!words.trim().is_empty());
            let mut bytes = lines.join(&b'\n');
            bytes.push(b'\n');
            bytes.extend(json!({"role": "assistant", "content": words}).to_string().into_bytes());
            let mut record = Record::new(Dialect::KimiCode, 1 << 20, &Secrets::default());
            for piece in bytes.chunks(chunk) {
                record.take_bytes(piece);
                let _ = record.progress();
            }
            let reply = record.conclude(&invocation(), exited(0)).unwrap();
            prop_assert_eq!(reply.text, clean(&words).into_owned());
        }
    }
}
