//! Everything that Kimi wrote in a run, kept beside the ledger: one compressed line a line, without
//! secrets, bounded in size and age.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, SystemTime};

use flate2::Compression;
use flate2::write::GzEncoder;

use serde_json::Value;

use crate::redact::Redactor;

/// A transcript under way.
#[derive(Debug)]
pub struct Transcript {
    out: GzEncoder<BufWriter<File>>,
    /// Bytes that may still be written, before compression.
    left: u64,
}

impl Transcript {
    /// Opens a transcript; one that is there already is gone on with.
    ///
    /// # Errors
    /// What the system says.
    pub fn open(path: &Path, limit: u64) -> io::Result<Transcript> {
        if let Some(folder) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        Ok(Transcript {
            out: GzEncoder::new(BufWriter::new(file), Compression::fast()),
            left: limit,
        })
    }

    /// Adds a line, as long as there is room. A disk that is full costs the transcript, not the run.
    pub fn add(&mut self, line: &str) {
        if self.left == 0 {
            return;
        }
        let bytes = line.len() as u64 + 1;
        let written = if bytes > self.left {
            self.left = 0;
            writeln!(self.out, "… the rest is not kept: it is over max_transcript_bytes")
        } else {
            self.left -= bytes;
            writeln!(self.out, "{}", without_secrets(line))
        };
        if written.is_err() {
            self.left = 0;
        }
    }
}

/// A line without secrets. They are looked for in the texts that a JSON line holds, not in their
/// escaped form, in which a pattern does not know them.
fn without_secrets(line: &str) -> String {
    match serde_json::from_str(line) {
        Ok(mut value @ (Value::Object(_) | Value::Array(_))) => {
            redact(&mut value);
            value.to_string()
        }
        Ok(_) | Err(_) => Redactor::built_in().redact(line).as_str().to_owned(),
    }
}

/// The arguments of a tool call are JSON in a text.
fn redact(value: &mut Value) {
    match value {
        Value::String(text) if text.starts_with(['{', '[']) => *text = without_secrets(text),
        Value::Array(values) => values.iter_mut().for_each(redact),
        Value::Object(fields) => fields.values_mut().for_each(redact),
        Value::String(_) => {
            Redactor::built_in().redact_all(value);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
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

    #[test]
    fn lines_are_kept_without_secrets_up_to_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/t.jsonl.gz");
        let secret = format!("AKIA{}", "ABCDEFGHIJKLMNOP");
        let mut transcript = Transcript::open(&path, 60).unwrap();
        transcript.add(&format!("{{\"key\":\"{secret}\"}}"));
        drop(transcript);
        let mut transcript = Transcript::open(&path, 20).unwrap();
        transcript.add("second turn");
        transcript.add("too long for what is left");
        transcript.add("x");
        drop(transcript);
        let mut text = String::new();
        MultiGzDecoder::new(File::open(&path).unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!(
            text,
            "{\"key\":\"[redacted:aws-key]\"}\nsecond turn\n… the rest is not kept: it is over max_transcript_bytes\n"
        );
    }

    #[test]
    fn secrets_are_found_in_what_a_line_says_and_in_arguments() {
        let secret = format!("AKIA{}", "ABCDEFGHIJKLMNOP");
        let args = serde_json::json!({"path": format!("x\n{secret}")}).to_string();
        let line = serde_json::json!({"content": format!("first\n{secret}\n\"Authorization\": \"Bearer abcdef012345\""),
            "tool_calls": [{"function": {"arguments": args}}]});
        let kept = without_secrets(&line.to_string());
        assert!(!kept.contains(&secret) && !kept.contains("abcdef012345"), "{kept}");
        assert_eq!(kept.matches("[redacted:").count(), 3, "{kept}");
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
