//! Everything that Kimi wrote in a run, kept beside the ledger: one compressed line a line, without
//! secrets, bounded in size and age.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use flate2::Compression;
use flate2::write::GzEncoder;

use serde_json::Value;

use crate::redact::{Redacted, Secrets};

/// Bytes of plain text that are held back until they are known to be over.
const PLAIN_HELD: usize = 64 * 1024;

/// A transcript under way. Looking for secrets and compressing are slower than Kimi may write, so a
/// thread does both.
#[derive(Debug)]
pub struct Transcript {
    lines: Option<Sender<String>>,
    writing: Option<JoinHandle<()>>,
    /// Bytes that are on their way to the thread.
    ahead: Arc<AtomicUsize>,
    /// Bytes that may still be sent to it.
    left: u64,
}

/// How far the writer may fall behind, bytes, before nothing more is read: whatever Kimi writes, the
/// server stays small.
const BEHIND: usize = 512 * 1024;

impl Transcript {
    /// Opens a transcript that keeps everything but these secrets; one that is there already is gone
    /// on with.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(path: &Path, limit: u64, secrets: &Secrets) -> io::Result<Transcript> {
        let mut writer = Writer::open(path, limit, secrets)?;
        let (lines, arriving) = mpsc::channel::<String>();
        let ahead = Arc::new(AtomicUsize::new(0));
        let behind = Arc::clone(&ahead);
        let writing = thread::Builder::new().name("transcript".to_owned()).spawn(move || {
            for line in arriving {
                writer.add(&line);
                behind.fetch_sub(line.len(), Ordering::Relaxed);
            }
        })?;
        Ok(Transcript { lines: Some(lines), writing: Some(writing), ahead, left: limit })
    }

    /// Adds a line, as long as there is room. A disk that is full costs the transcript, not the run.
    pub fn add(&mut self, line: &str) {
        let Some(lines) = self.lines.as_ref().filter(|_| self.left > 0) else { return };
        // One line more than there is room for, which tells the writer to say so.
        self.left = self.left.saturating_sub(line.len() as u64 + 1);
        self.ahead.fetch_add(line.len(), Ordering::Relaxed);
        let _ = lines.send(line.to_owned());
    }

    /// Whether the writer has fallen behind.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        self.ahead.load(Ordering::Relaxed) > BEHIND
    }
}

impl Drop for Transcript {
    /// Waits until all is written.
    fn drop(&mut self) {
        drop(self.lines.take());
        if let Some(writing) = self.writing.take() {
            let _ = writing.join();
        }
    }
}

/// What the thread does.
#[derive(Debug)]
struct Writer {
    out: GzEncoder<BufWriter<File>>,
    /// Bytes that may still be written, before compression.
    left: u64,
    secrets: Secrets,
    /// Lines that are no JSON and follow each other: kimi-cli wraps its errors in the middle of words,
    /// so that a secret may reach from one into the next.
    plain: Vec<String>,
}

impl Writer {
    fn open(path: &Path, limit: u64, secrets: &Secrets) -> io::Result<Writer> {
        if let Some(folder) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        Ok(Writer {
            out: GzEncoder::new(BufWriter::new(file), Compression::fast()),
            left: limit,
            secrets: secrets.clone(),
            plain: Vec::new(),
        })
    }

    fn add(&mut self, line: &str) {
        if self.left == 0 {
            return;
        }
        if let Some(line) = self.json_without_secrets(line) {
            self.write_plain();
            self.write(&line);
        } else {
            self.plain.push(line.to_owned());
            if self.plain.iter().map(String::len).sum::<usize>() > PLAIN_HELD {
                self.write_plain();
            }
        }
    }

    /// Writes the plain lines that were held back: joined where a secret reaches across two of them.
    fn write_plain(&mut self) {
        let lines = std::mem::take(&mut self.plain);
        let whole = self.secrets.redact(&lines.concat());
        let each: Vec<_> = lines.iter().map(|line| self.secrets.redact(line)).collect();
        if whole.count() > each.iter().map(Redacted::count).sum() {
            return self.write(whole.as_str());
        }
        for line in each {
            self.write(line.as_str());
        }
    }

    fn write(&mut self, line: &str) {
        let bytes = line.len() as u64 + 1;
        let written = if self.left == 0 {
            return;
        } else if bytes > self.left {
            self.left = 0;
            writeln!(self.out, "… the rest is not kept: it is over max_transcript_bytes")
        } else {
            self.left -= bytes;
            writeln!(self.out, "{line}")
        };
        if written.is_err() {
            self.left = 0;
        }
    }

    /// A JSON line without secrets; `None` for one that is no JSON. They are looked for in the texts
    /// that it holds, not in their escaped form, in which a pattern does not know them.
    fn json_without_secrets(&self, line: &str) -> Option<String> {
        match serde_json::from_str(line) {
            Ok(mut value @ (Value::Object(_) | Value::Array(_))) => {
                self.redact_nested(&mut value);
                self.secrets.redact_all(&mut value);
                Some(value.to_string())
            }
            Ok(_) | Err(_) => None,
        }
    }

    /// The arguments of a tool call are JSON in a text.
    fn redact_nested(&self, value: &mut Value) {
        match value {
            Value::String(text) if text.starts_with(['{', '[']) => {
                if let Some(redacted) = self.json_without_secrets(text) {
                    *text = redacted;
                }
            }
            Value::Array(values) => values.iter_mut().for_each(|value| self.redact_nested(value)),
            Value::Object(fields) => {
                fields.values_mut().for_each(|value| self.redact_nested(value));
            }
            Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.write_plain();
    }
}

/// Removes the transcripts that have not changed for so many days.
pub fn sweep(folder: &Path, days: u64) {
    let oldest = SystemTime::now().checked_sub(Duration::from_secs(days.saturating_mul(86_400)));
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let changed = entry.metadata().and_then(|metadata| metadata.modified()).ok();
        if changed.zip(oldest).is_some_and(|(changed, oldest)| changed < oldest) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::MultiGzDecoder;

    use super::*;

    fn secret() -> String {
        // Put together here, so that no scanner takes this file for a leak.
        format!("AKIA{}", "ABCDEFGHIJKLMNOP")
    }

    fn kept(path: &Path) -> String {
        let mut text = String::new();
        MultiGzDecoder::new(File::open(path).unwrap()).read_to_string(&mut text).unwrap();
        text
    }

    #[track_caller]
    fn check(lines: &[&str], limit: u64, expected: &str) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/t.jsonl.gz");
        let mut transcript = Transcript::open(&path, limit, &Secrets::default()).unwrap();
        for line in lines {
            transcript.add(line);
        }
        drop(transcript);
        assert_eq!(kept(&path), expected);
    }

    #[test]
    fn lines_are_kept_without_secrets_up_to_the_limit() {
        let line = format!("{{\"key\":\"{}\"}}", secret());
        check(&[&line, "plain"], 60, "{\"key\":\"[redacted:aws-key]\"}\nplain\n");
        check(
            &["second turn", "too long for what is left", "x"],
            20,
            "second turn\n… the rest is not kept: it is over max_transcript_bytes\n",
        );
    }

    #[test]
    fn a_second_turn_is_added() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.gz");
        for turn in ["one", "two"] {
            Transcript::open(&path, 60, &Secrets::default()).unwrap().add(turn);
        }
        assert_eq!(kept(&path), "one\ntwo\n");
    }

    #[test]
    fn a_secret_that_was_wrapped_is_found_and_other_lines_stay_apart() {
        let secret = secret();
        let (half, rest) = secret.split_at(9);
        let (first, second) = (format!("bad key {half}"), format!("{rest}, sorry"));
        check(&["{}", &first, &second, "{}"], 999, "{}\nbad key [redacted:aws-key], sorry\n{}\n");
        check(&[&secret, "next"], 999, "[redacted:aws-key]\nnext\n");
    }

    #[test]
    fn secrets_are_found_in_what_a_line_says_and_in_arguments() {
        let args =
            serde_json::json!({"path": format!("x\n{}", secret()), "token": "q8Zr2LmXv9WcYb4s"});
        let line = serde_json::json!({"content": format!("first\n{}\n\"Authorization\": \"Bearer abcdef012345\"", secret()),
            "tool_calls": [{"function": {"arguments": args.to_string()}}]});
        check(
            &[&line.to_string()],
            999,
            concat!(
                r#"{"content":"first\n[redacted:aws-key]\n\"Authorization\": \"Bearer [redacted:authorization]\"","#,
                r#""tool_calls":[{"function":{"arguments":"{\"path\":\"x\\n[redacted:aws-key]\",\"token\":\"[redacted:token]\"}"}}]}"#,
                "\n"
            ),
        );
    }

    #[test]
    fn old_ones_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let (old, young) = (dir.path().join("old"), dir.path().join("young"));
        for path in [&old, &young] {
            fs::write(path, "x").unwrap();
        }
        let long_ago = SystemTime::now() - Duration::from_secs(40 * 86_400);
        File::open(&old).unwrap().set_modified(long_ago).unwrap();
        sweep(dir.path(), 30);
        assert!(!old.exists() && young.exists());
    }
}
