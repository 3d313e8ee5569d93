//! Splits bytes into lines. A line takes no more memory than its limit, and bytes that are not UTF-8 are replaced.

use std::borrow::Cow;

use super::text::lossy;

/// One line of a stream, without its line ending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line<'a> {
    /// A line within the limit.
    Whole(Cow<'a, str>),
    /// The length of a line over the limit, bytes. Its text is not kept.
    TooLong(u64),
}

/// A splitter that takes bytes as they arrive.
#[derive(Debug, Default)]
pub struct LineSplitter {
    limit: usize,
    /// The bytes of the unfinished line; empty when it is over the limit.
    pending: Vec<u8>,
    /// The length of the unfinished line, bytes.
    length: u64,
}

impl LineSplitter {
    /// Returns a splitter for lines of up to `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> LineSplitter {
        LineSplitter { limit, pending: Vec::new(), length: 0 }
    }

    /// Adds bytes, and passes each line that they complete to `take`.
    pub fn push(&mut self, mut bytes: &[u8], mut take: impl FnMut(Line<'_>)) {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            self.append(&bytes[..end]);
            self.end_line(&mut take);
            bytes = &bytes[end + 1..];
        }
        self.append(bytes);
    }

    /// Passes the last line to `take`, if the stream ended without a line ending.
    pub fn finish(&mut self, mut take: impl FnMut(Line<'_>)) {
        if self.length > 0 {
            self.end_line(&mut take);
        }
    }

    fn append(&mut self, bytes: &[u8]) {
        self.length += bytes.len() as u64;
        if self.is_too_long() {
            self.pending = Vec::new();
        } else {
            self.pending.extend_from_slice(bytes);
        }
    }

    fn is_too_long(&self) -> bool {
        self.length > self.limit as u64
    }

    fn end_line(&mut self, take: &mut impl FnMut(Line<'_>)) {
        take(if self.is_too_long() {
            Line::TooLong(self.length)
        } else {
            let line = self.pending.strip_suffix(b"\r").unwrap_or(&self.pending);
            Line::Whole(lossy(line))
        });
        self.length = 0;
        self.pending.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(limit: usize, pieces: &[&[u8]]) -> Vec<Line<'static>> {
        let mut lines = LineSplitter::new(limit);
        let mut seen = Vec::new();
        let mut take = |line: Line<'_>| {
            seen.push(match line {
                Line::Whole(text) => Line::Whole(text.into_owned().into()),
                Line::TooLong(bytes) => Line::TooLong(bytes),
            });
        };
        for piece in pieces {
            lines.push(piece, &mut take);
        }
        lines.finish(&mut take);
        seen
    }

    fn whole(text: &str) -> Line<'static> {
        Line::Whole(text.to_owned().into())
    }

    #[test]
    fn lines_are_read_from_chunks_of_any_size() {
        assert_eq!(
            split(9, &[b"a\r\nb", b"c\n\nlast"]),
            [whole("a"), whole("bc"), whole(""), whole("last")]
        );
        assert_eq!(
            split(9, &["中".as_bytes().split_at(1).0, &"中\n".as_bytes()[1..]]),
            [whole("中")]
        );
        assert_eq!(split(9, &[b"a\xffb\n"]), [whole("a\u{fffd}b")]);
    }

    #[test]
    fn a_line_over_the_limit_is_skipped_and_reading_continues() {
        assert_eq!(split(4, &[b"12345", b"678\nnext\n"]), [Line::TooLong(8), whole("next")]);
        assert_eq!(split(4, &[b"12345"]), [Line::TooLong(5)]);
        let mut lines = LineSplitter::new(4);
        lines.push(b"123", |_| panic!("the line has not ended"));
        lines.push(b"45", |_| panic!("the line has not ended"));
        assert_eq!(lines.pending.capacity(), 0);
    }

    proptest! {
        #[test]
        fn any_split_of_any_bytes_gives_the_same_lines(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..200),
            cuts in proptest::collection::vec(0usize..200, 0..8),
            limit in 1usize..40,
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            let at_once = split(limit, &[&bytes]);
            prop_assert_eq!(split(limit, &pieces), at_once.clone());

            // Nothing is lost: the lines are those that the standard library's own splitting gives.
            let mut expected: Vec<&[u8]> = bytes.split(|&byte| byte == b'\n').collect();
            if expected.last().is_some_and(|last| last.is_empty()) {
                expected.pop();
            }
            let expected: Vec<Line<'static>> = expected
                .into_iter()
                .map(|line| {
                    if line.len() > limit {
                        Line::TooLong(line.len() as u64)
                    } else {
                        whole(&String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line)))
                    }
                })
                .collect();
            prop_assert_eq!(at_once, expected);
        }
    }
}
