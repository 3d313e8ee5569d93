//! A file of gzip that is compressed when that saves anything.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::mem;

use flate2::write::GzEncoder;
use flate2::{Compression, Crc};

/// What a disk gives a file at least, bytes: what takes no more is no smaller compressed, and to make a
/// compressor takes longer than all else that is done for a short run.
const BLOCK: usize = 4096;
/// What gzip adds to a text that is not compressed, bytes.
const FRAME: usize = HEAD.len() + 5 + 8;
/// The beginning of gzip, of no known time and system.
const HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// Takes a text, and writes one member of gzip, with its end when it is dropped.
#[derive(Debug)]
pub(super) struct Packed(State);

#[derive(Debug)]
enum State {
    /// So little that it may stay as it is: the text, at most [`BLOCK`] with what gzip adds.
    Held(Vec<u8>, File),
    Compressed(GzEncoder<BufWriter<File>>),
    /// Writing has failed.
    Broken,
}

impl Packed {
    pub(super) fn into(file: File) -> Packed {
        Packed(State::Held(Vec::new(), file))
    }
}

impl Write for Packed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let State::Held(held, _) = &mut self.0
            && held.len() + bytes.len() <= BLOCK - FRAME
        {
            return held.write(bytes);
        }
        let mut encoder = match mem::replace(&mut self.0, State::Broken) {
            State::Held(held, file) => {
                let mut encoder = GzEncoder::new(BufWriter::new(file), Compression::fast());
                encoder.write_all(&held)?;
                encoder
            }
            State::Compressed(encoder) => encoder,
            State::Broken => return Err(io::ErrorKind::BrokenPipe.into()),
        };
        let written = encoder.write(bytes)?;
        self.0 = State::Compressed(encoder);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Packed {
    fn drop(&mut self) {
        if let State::Held(held, file) = &mut self.0
            && !held.is_empty()
        {
            // As with a compressor, which has nobody to tell of an error at its end either.
            let _ = file.write_all(&stored(held));
        }
    }
}

/// A member of gzip that holds a text of less than 64 KB as it is, in one block of DEFLATE.
fn stored(text: &[u8]) -> Vec<u8> {
    let mut sum = Crc::new();
    sum.update(text);
    let [low, high, ..] = text.len().to_le_bytes();
    let mut member = Vec::with_capacity(FRAME + text.len());
    member.extend(HEAD);
    // The last block, and stored; its length, and the same inverted.
    member.extend([1, low, high, !low, !high]);
    member.extend(text);
    member.extend(sum.sum().to_le_bytes());
    member.extend(sum.amount().to_le_bytes());
    member
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read as _;

    use flate2::read::MultiGzDecoder;

    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_little_takes_one_block_at_most() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.gz");
        for length in [1, 100, BLOCK - FRAME, BLOCK - FRAME + 1, 3 * BLOCK] {
            let mut expected = Vec::new();
            fs::remove_file(&path).unwrap_or_default();
            // A later turn goes on with the same file.
            for turn in [1, 2] {
                let text = "ab\n".repeat(length)[..length].to_owned();
                let file = File::options().create(true).append(true).open(&path).unwrap();
                let mut packed = Packed::into(file);
                for part in text.as_bytes().chunks(100) {
                    packed.write_all(part).unwrap();
                }
                drop(packed);
                expected.extend(text.bytes());
                let mut read = Vec::new();
                MultiGzDecoder::new(File::open(&path).unwrap()).read_to_end(&mut read).unwrap();
                let size = fs::metadata(&path).unwrap().len();
                assert!(read == expected && size <= (turn * BLOCK) as u64, "{length}: {size}");
            }
        }
    }
}
