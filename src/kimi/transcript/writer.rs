//! The writer of a transcript: removes secrets from lines, and writes them into a compressed file.

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

/// The most bytes of plain text that are buffered until the next line of JSON.
const PLAIN_BYTES: usize = 64 * 1024;

/// Lines, and the permit of the writer. The writer is idle again when it drops the permit.
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
    /// The latest lines that are not JSON, each with its line ending. kimi-cli wraps its errors in the middle of words,
    /// so a secret may continue on the next line.
    plain: String,
}

impl Writer {
    fn add(&mut self, line: &str) -> io::Result<()> {
        let is_json = redacting::is_json(line);
        if is_json || self.plain.len() + line.len() > PLAIN_BYTES {
            self.write_plain()?;
        }
        if is_json {
            return writeln!(self.out, "{}", redacting::redact(&self.secrets, line));
        }
        if line.len() > PLAIN_BYTES {
            return writeln!(self.out, "{}", self.secrets.redact(line).as_str());
        }
        self.plain.push_str(line);
        self.plain.push('\n');
        Ok(())
    }

    /// Writes the buffered plain lines, joined into one line if a secret continues on the next line.
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
