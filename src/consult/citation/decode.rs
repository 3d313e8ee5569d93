//! A file as text, a piece at a time, in each encoding that it may be in. Nothing here knows what is
//! looked for, and no more of a file than one piece is ever in memory.

use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::ops::ControlFlow;
use std::path::Path;

use encoding_rs::{
    BIG5, CoderResult, EUC_JP, EUC_KR, Encoding, GB18030, KOI8_R, SHIFT_JIS, UTF_8, UTF_16BE,
    UTF_16LE, WINDOWS_1251, WINDOWS_1252,
};
use rustix::fs::{Mode, OFlags};

/// Bytes that are read and decoded at a time.
const PIECE: usize = 64 * 1024;
/// Bytes at the start of a file that tell how it may be encoded.
const HEAD: usize = 4 * 1024;
/// What text that is not UTF-8 may be. They agree on ASCII and on where lines end.
const LEGACY: [&Encoding; 8] =
    [GB18030, WINDOWS_1252, BIG5, SHIFT_JIS, EUC_JP, EUC_KR, WINDOWS_1251, KOI8_R];

/// A regular file that is open for reading.
pub(super) struct Source {
    file: File,
    head: Vec<u8>,
}

/// How far a reading went.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// The reader had enough.
    Stopped,
    /// To the end, and every byte made sense.
    Whole,
    /// To the end, and some bytes are nothing in this encoding.
    Garbled,
    /// Not to the end: the budget was spent.
    CutShort,
}

impl Source {
    /// Opens the file at this path, which holds no links. Anything but a regular file is refused,
    /// and never waited for: opening a pipe would block, and opening a device may act.
    pub(super) fn open(path: &Path) -> io::Result<Source> {
        let regular = |is_file: bool| is_file.then_some(()).ok_or(io::ErrorKind::InvalidInput);
        regular(fs::symlink_metadata(path)?.is_file())?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOFOLLOW;
        let mut file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
        regular(file.metadata()?.is_file())?;
        let mut head = Vec::new();
        Read::by_ref(&mut file).take(HEAD as u64).read_to_end(&mut head)?;
        Ok(Source { file, head })
    }

    /// The encodings to try, the likeliest first. A byte order mark decides; else those after UTF-8
    /// are only for a file that is not UTF-8. An ASCII quote needs no legacy encoding, as each reads
    /// it as UTF-8 does.
    pub(super) fn encodings(&self, ascii: bool) -> Vec<&'static Encoding> {
        if let Some((marked, _)) = Encoding::for_bom(&self.head) {
            return vec![marked];
        }
        let wide = [UTF_16LE, UTF_16BE].into_iter().filter(|_| self.maybe_wide());
        let (first, last): (Vec<_>, Vec<_>) = wide.partition(|_| self.head.contains(&0));
        let legacy = LEGACY.into_iter().filter(|_| !ascii);
        first.into_iter().chain([UTF_8]).chain(legacy).chain(last).collect()
    }

    /// Whether this can be UTF-16 without a mark: no text holds U+0000.
    fn maybe_wide(&self) -> bool {
        self.head.len() > 1 && !self.head.chunks_exact(2).any(|pair| pair == [0, 0])
    }

    /// Reads the file from its start, hands the text on piece by piece, and takes what it reads off
    /// the budget, bytes.
    pub(super) fn read(
        &mut self,
        encoding: &'static Encoding,
        budget: &mut u64,
        mut each: impl FnMut(&str) -> ControlFlow<()>,
    ) -> io::Result<Extent> {
        self.file.rewind()?;
        let mut decoder = encoding.new_decoder_without_bom_handling();
        let mut bytes = vec![0; PIECE];
        let mut text = String::with_capacity(PIECE);
        let mut garbled = false;
        loop {
            let room = usize::try_from(*budget).unwrap_or(usize::MAX).min(PIECE);
            if room == 0 {
                return Ok(Extent::CutShort);
            }
            let read = match self.file.read(&mut bytes[..room]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            *budget -= read as u64;
            let mut rest = &bytes[..read];
            loop {
                text.clear();
                let (result, used, errors) = decoder.decode_to_string(rest, &mut text, read == 0);
                garbled |= errors;
                rest = &rest[used..];
                if each(&text).is_break() {
                    return Ok(Extent::Stopped);
                }
                if result == CoderResult::InputEmpty {
                    break;
                }
            }
            if read == 0 {
                return Ok(if garbled { Extent::Garbled } else { Extent::Whole });
            }
        }
    }
}
