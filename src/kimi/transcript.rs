//! The transcript of a run: all output of Kimi, without secrets, compressed, next to the ledger.
//!
//! A thread redacts, compresses and writes. If the disk fails or hangs, the transcript is lost but the run continues.

mod redacting;
mod writer;

use std::fs;
use std::io;
use std::mem;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use self::writer::Batch;
use crate::redact::Secrets;

/// The time limit of the writer for one batch, and for the end of the file.
const PATIENCE: Duration = Duration::from_secs(10);
/// The time limit of the writer after the call was cancelled.
const HURRIED_PATIENCE: Duration = Duration::from_millis(100);
/// The most bytes of unsent lines; further lines are dropped. One read brings less, and reading waits for the writer
/// unless Kimi is being ended.
const UNSENT: usize = 4 * 1024 * 1024;

const HANGS: &str = "the disk does not answer";

/// A transcript in progress.
#[derive(Debug)]
pub(crate) struct Transcript {
    unsent: Vec<String>,
    unsent_bytes: usize,
    /// The bytes until the limit of the transcript.
    left: u64,
    writer: mpsc::UnboundedSender<Batch>,
    /// One permit, so that only one batch is in memory.
    idle: Arc<Semaphore>,
    /// The time by which the writer must be idle.
    overdue: Option<Instant>,
    /// The result of the writer.
    outcome: oneshot::Receiver<io::Result<()>>,
    /// The reason why the writer is no longer used.
    failure: Option<String>,
}

impl Transcript {
    /// Starts the transcript of a run, at the end of the file if it exists.
    pub(crate) fn start(path: &Path, limit: u64, secrets: &Secrets) -> Transcript {
        let (writer, batches) = mpsc::unbounded_channel();
        let (end, outcome) = oneshot::channel();
        let (path, secrets) = (path.to_owned(), secrets.clone());
        let write = move || {
            let _ = end.send(writer::write(&path, secrets, batches));
        };
        let thread = thread::Builder::new().name("transcript".to_owned()).spawn(write);
        Transcript {
            unsent: Vec::new(),
            unsent_bytes: 0,
            left: limit,
            writer,
            idle: Arc::new(Semaphore::new(1)),
            overdue: None,
            outcome,
            failure: thread.err().map(|error| error.to_string()),
        }
    }

    /// Adds a line of Kimi, up to the limit.
    pub(crate) fn add(&mut self, line: &str) {
        if self.failure.is_some() || self.left == 0 || self.unsent_bytes > UNSENT {
            return;
        }
        let bytes = line.len() + 1;
        let (line, left) = match self.left.checked_sub(bytes as u64) {
            Some(left) => (line, left),
            None => ("… the rest is not kept: it is over max_transcript_bytes", 0),
        };
        self.left = left;
        self.unsent_bytes += bytes;
        self.unsent.push(line.to_owned());
    }

    /// Returns whether there are unsent lines, or the writer is busy.
    pub(crate) fn is_behind(&self) -> bool {
        let is_busy = !self.unsent.is_empty() || self.idle.available_permits() == 0;
        is_busy && self.failure.is_none()
    }

    /// Waits until the writer is idle, and sends the unsent lines. Stops using the writer if it takes too long.
    /// Dropping the future loses no line.
    pub(crate) async fn catch_up(&mut self) {
        let overdue = *self.overdue.get_or_insert_with(|| Instant::now() + PATIENCE);
        match timeout_at(overdue, Arc::clone(&self.idle).acquire_owned()).await {
            Ok(Ok(permit)) if !self.unsent.is_empty() => {
                self.unsent_bytes = 0;
                if self.writer.send((mem::take(&mut self.unsent), permit)).is_err() {
                    // The writer has failed; `finish` returns its error.
                    self.left = 0;
                }
            }
            Ok(_) => {}
            Err(_) => self.failure = Some(HANGS.to_owned()),
        }
        self.overdue = None;
    }

    /// Waits for a limited time until all lines are written. Returns a warning if that failed.
    pub(crate) async fn finish(mut self, cancel: &CancellationToken) -> Option<String> {
        let hurry = async {
            cancel.cancelled().await;
            sleep(HURRIED_PATIENCE).await;
        };
        let written = async {
            while self.is_behind() {
                self.catch_up().await;
            }
            if self.failure.is_some() {
                return self.failure;
            }
            drop(self.writer);
            match self.outcome.await {
                Ok(written) => written.err().map(|error| error.to_string()),
                Err(_) => Some("its writer failed".to_owned()),
            }
        };
        let failure = tokio::select! {
            failure = written => failure,
            () = hurry => Some("the call was cancelled before that".to_owned()),
            () = sleep(PATIENCE) => Some(HANGS.to_owned()),
        };
        failure.map(|why| format!("the transcript could not be kept: {why}"))
    }
}

/// Removes the transcripts that have not changed for a number of days.
pub(crate) fn sweep(folder: &Path, days: u64) {
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
    use std::fs::File;
    use std::io::Read as _;

    use flate2::read::MultiGzDecoder;

    use super::*;

    fn secret() -> String {
        // Assembled here, so that no scanner reports this file as a leak.
        format!("AKIA{}", "ABCDEFGHIJKLMNOP")
    }

    fn kept(path: &Path) -> String {
        let mut text = String::new();
        MultiGzDecoder::new(File::open(path).unwrap()).read_to_string(&mut text).unwrap();
        text
    }

    #[tokio::main(flavor = "current_thread")]
    async fn write_run(path: &Path, lines: &[&str], limit: u64) -> Option<String> {
        let mut transcript = Transcript::start(path, limit, &Secrets::default());
        for line in lines {
            transcript.add(line);
        }
        transcript.finish(&CancellationToken::new()).await
    }

    #[track_caller]
    fn check(lines: &[&str], limit: u64, expected: &str) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/t.jsonl.gz");
        assert_eq!(write_run(&path, lines, limit), None);
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
    fn a_second_turn_is_added_and_a_run_without_a_line_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.gz");
        assert_eq!(write_run(&path, &[], 60), None);
        assert!(!path.exists());
        for turn in ["one", "two"] {
            assert_eq!(write_run(&path, &[turn], 60), None);
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
    fn secrets_are_found_in_content_and_in_arguments() {
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
    fn a_folder_that_cannot_be_created_is_a_warning() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "x").unwrap();
        let warning = write_run(&file.join("t.gz"), &["one"], 60).unwrap();
        assert_eq!(warning, "the transcript could not be kept: File exists (os error 17)");
    }

    #[tokio::test]
    async fn reading_continues_after_the_writer_has_failed() {
        let mut transcript =
            Transcript::start(Path::new("/dev/null/t.gz"), 1 << 30, &Secrets::default());
        for _ in 0..10 {
            transcript.add(&"x".repeat(UNSENT));
            while transcript.is_behind() {
                transcript.catch_up().await;
            }
        }
        assert!(transcript.finish(&CancellationToken::new()).await.is_some());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_a_warning() {
        let lines = vec!["some text"; 10_000];
        let warning = write_run(Path::new("/dev/full"), &lines, 1 << 20).unwrap();
        let expected = "the transcript could not be kept: No space left on device (os error 28)";
        assert_eq!(warning, expected);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_cancelled_call_does_not_wait_for_a_disk_that_hangs() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.gz");
        // Opening a pipe to write blocks until it is opened to read.
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut transcript = Transcript::start(&path, 1 << 20, &Secrets::default());
        transcript.add("one");
        let cancelled = CancellationToken::new();
        cancelled.cancel();
        let warning = transcript.finish(&cancelled).await.unwrap();
        let expected = "the transcript could not be kept: the call was cancelled before that";
        assert_eq!(warning, expected);
        assert_eq!(kept(&path), "one\n");
    }

    #[test]
    fn many_short_lines_are_kept_unchanged() {
        let lines: Vec<String> = (0..9_000).map(|n| format!("line {n}")).collect();
        let (lines, expected): (Vec<&str>, String) =
            (lines.iter().map(String::as_str).collect(), lines.join("\n") + "\n");
        check(&lines, 1 << 20, &expected);
    }

    #[test]
    fn old_transcripts_are_removed() {
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
