//! The writing end of a transcript: lines without their secrets, into a compressed file.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Write as _};
use std::mem;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::sync::mpsc::Receiver;

use super::redacting;
use crate::redact::{Redacted, Secrets};

/// Bytes of plain text that are held back until the next line of JSON.
const PLAIN_HELD: usize = 64 * 1024;

/// Writes the lines that arrive until the channel is closed.
pub(super) fn write(
    path: &Path,
    secrets: Secrets,
    mut batches: Receiver<String>,
) -> io::Result<()> {
    let Some(mut batch) = batches.blocking_recv() else { return Ok(()) };
    let out = BufWriter::new(GzEncoder::new(open(path)?, Compression::fast()));
    let mut writer = Writer { out, secrets, plain: String::new() };
    loop {
        for line in batch.split_terminator('\n') {
            writer.add(line)?;
        }
        match batches.blocking_recv() {
            Some(more) => batch = more,
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
        if redacting::is_json(line) {
            self.write_plain()?;
            return writeln!(self.out, "{}", redacting::redact(&self.secrets, line));
        }
        if self.plain.len() + line.len() > PLAIN_HELD {
            self.write_plain()?;
        }
        self.plain.push_str(line);
        self.plain.push('\n');
        Ok(())
    }

    /// Writes the plain lines that were held back: as one line if a secret continues from one line to
    /// the next.
    fn write_plain(&mut self) -> io::Result<()> {
        let plain = mem::take(&mut self.plain);
        let lines: Vec<_> =
            plain.split_terminator('\n').map(|line| self.secrets.redact(line)).collect();
        let joined = self.secrets.redact(&plain.replace('\n', ""));
        if joined.count() > lines.iter().map(Redacted::count).sum() {
            return writeln!(self.out, "{}", joined.as_str());
        }
        lines.iter().try_for_each(|line| writeln!(self.out, "{}", line.as_str()))
    }

    fn finish(mut self) -> io::Result<()> {
        self.write_plain()?;
        self.out.into_inner()?.finish()?;
        Ok(())
    }
}
