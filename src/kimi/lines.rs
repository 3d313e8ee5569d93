//! Bytes into lines, bounded: whatever a program writes, a line never takes more memory than its
//! limit, and bytes that are not UTF-8 are replaced rather than refused.

use std::borrow::Cow;

/// One line of a stream, without its line ending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line<'a> {
    /// A whole line.
    Whole(Cow<'a, str>),
    /// A line over the limit; this many bytes of it were passed over.
    TooLong(u64),
}

/// A splitter that is fed bytes as they arrive.
#[derive(Debug, Default)]
pub struct Lines {
    limit: usize,
    pending: Vec<u8>,
    /// Bytes passed over of the line under way, once it has grown over the limit.
    skipped: u64,
}

impl Lines {
    /// A splitter for lines of up to `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Lines {
        Lines { limit, pending: Vec::new(), skipped: 0 }
    }

    /// Takes the next bytes, and gives each line that they complete to `take`.
    pub fn push(&mut self, mut bytes: &[u8], mut take: impl FnMut(Line<'_>)) {
        while let Some(end) = memchr::memchr(b'\n', bytes) {
            let (line, rest) = bytes.split_at(end);
            if self.pending.is_empty() && self.skipped == 0 && line.len() <= self.limit {
                take(Line::Whole(text_of(line)));
            } else {
                self.append(line);
                self.end_line(&mut take);
            }
            bytes = &rest[1..];
        }
        self.append(bytes);
    }

    /// Gives the line that the end of the stream left without an ending, if any.
    pub fn finish(&mut self, mut take: impl FnMut(Line<'_>)) {
        if !self.pending.is_empty() || self.skipped > 0 {
            self.end_line(&mut take);
        }
    }

    fn append(&mut self, bytes: &[u8]) {
        if self.skipped == 0 && self.pending.len() + bytes.len() <= self.limit {
            self.pending.extend_from_slice(bytes);
        } else {
            self.skipped += (self.pending.len() + bytes.len()) as u64;
            self.pending = Vec::new();
        }
    }

    fn end_line(&mut self, take: &mut impl FnMut(Line<'_>)) {
        match std::mem::take(&mut self.skipped) {
            0 => take(Line::Whole(text_of(&self.pending))),
            skipped => take(Line::TooLong(skipped)),
        }
        self.pending.clear();
    }
}

fn text_of(line: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(limit: usize, pieces: &[&[u8]]) -> Vec<Line<'static>> {
        let mut lines = Lines::new(limit);
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
    fn lines_are_read_however_they_arrive() {
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
    fn a_line_over_the_limit_is_passed_over_and_reading_goes_on() {
        assert_eq!(split(4, &[b"12345", b"678\nnext\n"]), [Line::TooLong(8), whole("next")]);
        assert_eq!(split(4, &[b"12345"]), [Line::TooLong(5)]);
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
            let expected: Vec<Line<'_>> = expected
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
