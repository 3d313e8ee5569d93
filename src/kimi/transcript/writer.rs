//! The writing end of a transcript: lines without their secrets, into a compressed file.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::mem;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::mpsc::UnboundedReceiver;

use super::redacting;
use crate::redact::Secrets;

/// Bytes of plain text that are held back until the next line of JSON.
const PLAIN_HELD: usize = 64 * 1024;

/// Lines, and the permit of the writer, which is idle again when it drops both.
pub(super) type Batch = (Vec<String>, OwnedSemaphorePermit);

/// Writes the lines that arrive until the channel is closed.
pub(super) fn write(
    path: &Path,
    secrets: Secrets,
    mut batches: UnboundedReceiver<Batch>,
) -> io::Result<()> {
    // A run that wrote nothing leaves no file.
    let Some(mut batch) = batches.blocking_recv() else { return Ok(()) };
    let out = BufWriter::new(GzEncoder::new(open(path)?, Compression::fast()));
    let mut writer = Writer { out, secrets, plain: String::new() };
    loop {
        let (lines, busy) = batch;
        for line in lines {
            writer.add(&line)?;
        }
        drop(busy);
        match batches.blocking_recv() {
            Some(next) => batch = next,
            None => return writer.finish(),
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

struct Writer {
    out: BufWriter<GzEncoder<File>>,
    secrets: Secrets,
    /// The latest lines that are no JSON, each with its line ending. kimi-cli wraps its errors in the
    /// middle of words, so that a secret may continue on the next line.
    plain: String,
}

impl Writer {
    fn add(&mut self, line: &str) -> io::Result<()> {
        let is_json = redacting::is_json(line);
        if is_json || self.plain.len() + line.len() > PLAIN_HELD {
            self.write_plain()?;
        }
        if is_json {
            return writeln!(self.out, "{}", redacting::redact(&self.secrets, line));
        }
        if line.len() > PLAIN_HELD {
            return writeln!(self.out, "{}", self.secrets.redact(line).as_str());
        }
        self.plain.push_str(line);
        self.plain.push('\n');
        Ok(())
    }

    /// Writes the plain lines that were held back: as one line if a secret continues from one line to
    /// the next.
    fn write_plain(&mut self) -> io::Result<()> {
        let plain = mem::take(&mut self.plain);
        let redacted = self.secrets.redact(&plain);
        let joined = self.secrets.redact(&plain.replace('\n', ""));
        if joined.count() > redacted.count() {
            return writeln!(self.out, "{}", joined.as_str());
        }
        self.out.write_all(redacted.as_str().as_bytes())
    }

    fn finish(mut self) -> io::Result<()> {
        self.write_plain()?;
        self.out.into_inner()?.finish()?;
        Ok(())
    }
}
