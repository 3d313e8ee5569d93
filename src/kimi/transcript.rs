//! Everything that Kimi wrote in a run, kept beside the ledger: one compressed line a line, without
//! secrets, bounded in size and age.

mod packed;
mod redacting;

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use self::packed::Packed;
use crate::redact::{Redacted, Secrets};

/// Bytes of plain text that are held back until they are known to be over.
const PLAIN_HELD: usize = 64 * 1024;
/// How far the writer may fall behind, bytes, before nothing more is read: whatever Kimi writes, the
/// server stays small.
const BEHIND: usize = 384 * 1024;
/// Bytes that go to the writer at once: a flood of short lines is not to be a flood of messages.
const BATCH: usize = 32 * 1024;

/// A transcript under way. Looking for secrets and compressing are slower than Kimi may write, so a
/// thread does both; a short one needs none.
#[derive(Debug)]
pub struct Transcript {
    file: Ahead,
    limit: u64,
    secrets: Secrets,
    /// Lines that are yet to be sent, each with its ending.
    batch: String,
    writing: Option<Writing>,
    /// Bytes that are on their way to the thread.
    ahead: Arc<AtomicUsize>,
    /// Bytes that may still be sent to it.
    left: u64,
    failure: Failure,
}

/// Why nothing is kept, once that is known.
pub type Failure = Arc<OnceLock<String>>;

/// What the caller is told of a transcript that could not be kept.
#[must_use]
pub fn warning(failure: &Failure) -> Option<String> {
    failure.get().map(|why| format!("the transcript could not be kept: {why}"))
}

#[derive(Debug)]
struct Writing {
    lines: Sender<String>,
    thread: JoinHandle<()>,
}

impl Transcript {
    /// A transcript that keeps everything but these secrets; one that is there already is gone on with.
    #[must_use]
    pub fn new(path: &Path, limit: u64, secrets: &Secrets) -> Transcript {
        Transcript {
            file: Ahead::of(path),
            limit,
            secrets: secrets.clone(),
            batch: String::new(),
            writing: None,
            ahead: Arc::default(),
            left: limit,
            failure: Failure::default(),
        }
    }

    /// Why nothing is kept, if so; that is known when the transcript is gone.
    #[must_use]
    pub fn failure(&self) -> Failure {
        Arc::clone(&self.failure)
    }

    /// What may be done beside the run, and need not: opens the file, which may take as long as all
    /// else that is done for a short transcript.
    pub fn opener(&self) -> impl FnOnce() + Send + 'static + use<> {
        let file = self.file.clone();
        move || file.open_now()
    }

    /// Adds a line, as long as there is room. A disk that is full costs the transcript, not the run.
    pub fn add(&mut self, line: &str) {
        if self.left == 0 {
            return;
        }
        // One line more than there is room for, which tells the writer to say so.
        self.left = self.left.saturating_sub(line.len() as u64 + 1);
        self.batch.reserve_exact((line.len() + 1).max(BATCH.saturating_sub(self.batch.len())));
        self.batch.push_str(line);
        self.batch.push('\n');
        if self.batch.len() >= BATCH || self.left == 0 {
            self.send();
        }
    }

    /// Whether it is so short that no thread writes it: then it is written where it is dropped.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.writing.is_none()
    }

    /// Whether the writer has fallen behind.
    #[must_use]
    pub fn is_behind(&self) -> bool {
        let is_writing = |writing: &Writing| !writing.thread.is_finished();
        self.ahead.load(Ordering::Relaxed) > BEHIND && self.writing.as_ref().is_some_and(is_writing)
    }

    fn send(&mut self) {
        let lines = std::mem::take(&mut self.batch);
        if lines.is_empty() {
            return;
        }
        if self.writing.is_none() {
            match self.begin() {
                Ok(writing) => self.writing = Some(writing),
                Err(error) => {
                    let _ = self.failure.set(error.to_string());
                    self.left = 0;
                }
            }
        }
        if let Some(writing) = &self.writing {
            self.ahead.fetch_add(lines.len(), Ordering::Relaxed);
            if writing.lines.send(lines).is_err() {
                let _ = self.failure.set("its writer has ended".to_owned());
                self.left = 0;
            }
        }
    }

    fn begin(&self) -> io::Result<Writing> {
        let (lines, arriving) = mpsc::channel::<String>();
        let mut writer = self.writer();
        let ahead = Arc::clone(&self.ahead);
        let write = move || {
            for lines in arriving {
                writer.add_all(&lines);
                ahead.fetch_sub(lines.len(), Ordering::Relaxed);
            }
        };
        let thread = thread::Builder::new().name("transcript".to_owned()).spawn(write)?;
        Ok(Writing { lines, thread })
    }

    fn writer(&self) -> Unopened {
        Unopened {
            file: self.file.clone(),
            limit: self.limit,
            secrets: self.secrets.clone(),
            failure: Arc::clone(&self.failure),
            opened: None,
        }
    }
}

impl Drop for Transcript {
    /// Waits until all is written.
    fn drop(&mut self) {
        if self.is_short() {
            let lines = std::mem::take(&mut self.batch);
            self.writer().add_all(&lines);
            return self.file.forget();
        }
        self.send();
        if let Some(Writing { lines, thread }) = self.writing.take() {
            drop(lines);
            let _ = thread.join();
        }
    }
}

/// The file of a transcript, which is opened with the first lines at the latest.
#[derive(Debug, Clone)]
struct Ahead {
    path: PathBuf,
    opened: Arc<Mutex<Opened>>,
}

/// How far that has come.
#[derive(Debug, Default)]
enum Opened {
    #[default]
    NotYet,
    /// Before there was a line to write.
    Ahead(File),
    /// Whoever writes has one.
    Taken,
    /// Nobody will write.
    Unwanted,
}

impl Ahead {
    fn of(path: &Path) -> Ahead {
        Ahead { path: path.to_owned(), opened: Arc::default() }
    }

    /// Held for a moment only, never while a disk is waited for.
    fn opened(&self) -> MutexGuard<'_, Opened> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_now(&self) {
        if !matches!(*self.opened(), Opened::NotYet) {
            return;
        }
        // Whoever has lines to write will meet what is in the way, and say so.
        let Ok(file) = self.open() else { return };
        let mut opened = self.opened();
        match *opened {
            Opened::NotYet => *opened = Opened::Ahead(file),
            Opened::Ahead(_) | Opened::Taken => {}
            Opened::Unwanted => {
                drop(opened);
                self.remove_if_empty(&file);
            }
        }
    }

    fn open(&self) -> io::Result<File> {
        if let Some(folder) = self.path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path)
    }

    /// The file, for whoever writes; made anew where somebody has removed it meanwhile.
    fn take(&self) -> io::Result<File> {
        let ahead = std::mem::replace(&mut *self.opened(), Opened::Taken);
        let is_there = |file: &File| file.metadata().is_ok_and(|there| there.nlink() > 0);
        match ahead {
            Opened::Ahead(file) if is_there(&file) => Ok(file),
            Opened::Ahead(_) | Opened::NotYet | Opened::Taken | Opened::Unwanted => self.open(),
        }
    }

    /// A file that was opened for nothing is none. It goes when the disk lets it; nobody waits for that.
    fn forget(&self) {
        let mut opened = self.opened();
        if matches!(*opened, Opened::Taken) {
            return;
        }
        if let Opened::Ahead(file) = std::mem::replace(&mut *opened, Opened::Unwanted) {
            let this = self.clone();
            // Without a thread an empty file stays until it is old.
            let _ = thread::Builder::new().spawn(move || this.remove_if_empty(&file));
        }
    }

    fn remove_if_empty(&self, file: &File) {
        if file.metadata().is_ok_and(|there| there.len() == 0) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// What is opened with its first lines, since making a compressor takes a while.
struct Unopened {
    file: Ahead,
    limit: u64,
    secrets: Secrets,
    failure: Failure,
    opened: Option<Writer>,
}

impl Unopened {
    /// Writes lines, or lets them go: reading does not wait for a transcript that there is not.
    fn add_all(&mut self, lines: &str) {
        if lines.is_empty() || self.failure.get().is_some() {
            return;
        }
        if self.opened.is_none() {
            match Writer::open(&self.file, self.limit, self.secrets.clone()) {
                Ok(writer) => self.opened = Some(writer),
                Err(error) => {
                    let _ = self.failure.set(error.to_string());
                }
            }
        }
        if let Some(writer) = &mut self.opened {
            lines.split_terminator('\n').for_each(|line| writer.add(line));
        }
    }
}

/// The open file.
#[derive(Debug)]
struct Writer {
    /// Buffered, since a compressor takes as long for one byte as for many.
    out: BufWriter<Packed>,
    /// Bytes that may still be written, before compression.
    left: u64,
    known: redacting::Known,
    secrets: Secrets,
    /// Lines that are no JSON and follow each other, each with its ending: kimi-cli wraps its errors in
    /// the middle of words, so that a secret may reach from one into the next.
    plain: String,
}

impl Writer {
    fn open(file: &Ahead, limit: u64, secrets: Secrets) -> io::Result<Writer> {
        let file = file.take()?;
        Ok(Writer {
            out: BufWriter::new(Packed::into(file)),
            left: limit,
            known: redacting::Known::new(secrets.clone()),
            secrets,
            plain: String::new(),
        })
    }

    fn add(&mut self, line: &str) {
        if self.left == 0 {
            return;
        }
        if redacting::is_json(line) {
            self.write_plain();
            let redacted = redacting::json(&mut self.known, line);
            self.write(&redacted);
        } else {
            if !self.plain.is_empty() && self.plain.len() + line.len() > PLAIN_HELD {
                self.write_plain();
            }
            self.plain.push_str(line);
            self.plain.push('\n');
        }
    }

    /// Writes the plain lines that were held back: joined where a secret reaches across two of them.
    fn write_plain(&mut self) {
        let plain = std::mem::take(&mut self.plain);
        if plain.is_empty() {
            return;
        }
        let lines = || plain.split_terminator('\n');
        let whole = self.secrets.redact_found(&plain.replace('\n', ""));
        // A flood of short lines is looked through at once.
        if whole.is_none() && self.secrets.are_clean(&plain) {
            return lines().for_each(|line| self.write(line));
        }
        let each: Vec<_> = lines().map(|line| self.secrets.redact(line)).collect();
        let in_each: usize = each.iter().map(Redacted::count).sum();
        match whole.filter(|whole| whole.count() > in_each) {
            Some(whole) => self.write(whole.as_str()),
            None => each.iter().for_each(|line| self.write(line.as_str())),
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
            self.out.write_all(line.as_bytes()).and_then(|()| self.out.write_all(b"\n"))
        };
        if written.is_err() {
            self.left = 0;
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
        let mut transcript = Transcript::new(&path, limit, &Secrets::default());
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

    fn gone(path: &Path) {
        while path.exists() {
            thread::yield_now();
        }
    }

    #[test]
    fn a_file_is_opened_ahead_and_one_that_was_opened_for_nothing_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/t.gz");
        let transcript = || Transcript::new(&path, 60, &Secrets::default());
        let unused = transcript();
        (unused.opener())();
        assert!(path.is_file());
        let late = unused.opener();
        drop(unused);
        gone(&path);
        late();
        assert!(!path.exists());
        for turn in ["one", "two"] {
            let mut used = transcript();
            (used.opener())();
            used.add(turn);
        }
        // What another turn wrote stays, and what is opened too late is left alone.
        let mut used = transcript();
        let late = used.opener();
        used.add("three");
        drop(used);
        late();
        drop(transcript());
        let unused = transcript();
        (unused.opener())();
        drop(unused);
        assert_eq!(kept(&path), "one\ntwo\nthree\n");
    }

    #[test]
    fn a_file_that_somebody_removed_meanwhile_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.gz");
        let mut transcript = Transcript::new(&path, 60, &Secrets::default());
        (transcript.opener())();
        fs::remove_file(&path).unwrap();
        transcript.add("one");
        drop(transcript);
        assert_eq!(kept(&path), "one\n");
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn nobody_waits_for_a_disk_that_does_not_open_the_file_and_has_nothing_to_write() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.gz");
        // It opens when somebody reads it.
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let transcript = Transcript::new(&path, 60, &Secrets::default());
        let opener = transcript.opener();
        let (tell, told) = mpsc::channel();
        let opening = thread::spawn(move || {
            tell.send(nix::unistd::gettid()).unwrap();
            opener();
        });
        let state = format!("/proc/self/task/{}/stat", told.recv().unwrap());
        while !fs::read_to_string(&state).unwrap().contains(") S ") {
            thread::yield_now();
        }
        drop(transcript);
        let nonblocking = nix::fcntl::OFlag::O_NONBLOCK.bits();
        let reader = OpenOptions::new().read(true).custom_flags(nonblocking).open(&path).unwrap();
        opening.join().unwrap();
        drop(reader);
        assert!(!path.exists());
    }

    #[test]
    fn a_second_turn_is_added() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.gz");
        for turn in ["one", "two"] {
            Transcript::new(&path, 60, &Secrets::default()).add(turn);
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
    fn where_none_can_be_kept_it_says_why_and_nobody_waits() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "x").unwrap();
        let mut transcript = Transcript::new(&file.join("t.gz"), 1 << 30, &Secrets::default());
        let failure = transcript.failure();
        for _ in 0..10 {
            transcript.add(&"x".repeat(BEHIND));
        }
        while transcript.is_behind() {
            thread::yield_now();
        }
        drop(transcript);
        assert!(failure.get().unwrap().contains("os error"), "{failure:?}");
    }

    #[test]
    fn a_flood_of_short_lines_is_kept_as_it_is() {
        let lines: Vec<String> = (0..9_000).map(|n| format!("line {n}")).collect();
        let (lines, expected): (Vec<&str>, String) =
            (lines.iter().map(String::as_str).collect(), lines.join("\n") + "\n");
        check(&lines, 1 << 20, &expected);
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
