//! Bytes into lines, bounded: whatever a program writes, a line never takes more memory than its
//! limit, and bytes that are not UTF-8 are replaced rather than refused.
//!
//! Of a tool's result the beginning is what counts, and results are most of a stream: of each text in
//! such a line a bounded part is kept, and the rest is passed over as it arrives, with a mark that says
//! how much that was. Such a line is known by its first field; where another one comes first, the line
//! is kept whole, as any other is.

use std::borrow::Cow;

/// How much is kept of one text of a tool's result, bytes as they are written. Both programs cut what a
/// tool returns themselves, at fifty to a hundred thousand characters, so that what they say is kept…
pub const LONG_TEXT: usize = 128 * 1024;
/// …until the long results of a run hold so much, which is more than a model reads of its own accord;
const PLENTY: u64 = 4 * 1024 * 1024;
/// of what follows then, only so much is kept, more than is looked at for the summary in the evidence.
pub const TEXT_BYTES: usize = 32 * 1024;
/// What a line keeps of its memory for the next one, bytes.
const SPARE: usize = LONG_TEXT;
/// Within this many bytes the first field of a line stands, if it is the one that is looked for.
const FIRST_FIELD: usize = 32;

/// What stands where a text was cut, before and behind the number of bytes.
const MARK: (&str, &str) = ("\n[left out: ", " bytes]");

/// One line of a stream, without its line ending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line<'a> {
    /// A whole line, with the long texts of a tool's result cut.
    Whole(Cow<'a, str>),
    /// A line over the limit; this many bytes of it were passed over.
    TooLong(u64),
}

/// A splitter that is fed bytes as they arrive.
#[derive(Debug, Default)]
pub struct Lines {
    limit: usize,
    /// What is kept of the line under way.
    pending: Vec<u8>,
    /// Its bytes so far.
    length: u64,
    /// Whether it has grown over the limit; then nothing of it is kept.
    over: bool,
    texts: Texts,
    /// What was kept of the long lines of results so far, bytes.
    of_results: u64,
}

/// Where the line under way stands, if it is a tool's result.
#[derive(Debug, Default)]
enum Texts {
    /// Too little of it is there to tell what it is.
    #[default]
    Unknown,
    /// It is none, or its texts are short.
    Uncut,
    /// Between two texts; looked at up to here.
    Between(usize),
    /// In a text.
    Within {
        /// Where it begins.
        start: usize,
        /// Up to where its end was looked for.
        seen: usize,
    },
    /// In a text of which enough is kept.
    Beyond {
        /// Bytes of it that were passed over.
        left_out: u64,
        /// Whether a backslash precedes what comes next, and is not escaped itself.
        escaped: bool,
    },
}

impl Lines {
    /// A splitter for lines of up to `limit` bytes.
    #[must_use]
    pub fn new(limit: usize) -> Lines {
        Lines { limit, ..Lines::default() }
    }

    /// Takes the next bytes, and gives each line that they complete to `take`.
    pub fn push(&mut self, mut bytes: &[u8], mut take: impl FnMut(Line<'_>)) {
        while !bytes.is_empty() {
            if let Texts::Beyond { left_out, escaped } = &mut self.texts {
                let end = end_of_text(bytes, *escaped);
                let passed = end.unwrap_or(bytes.len());
                *left_out += passed as u64;
                *escaped = is_escaped(bytes, passed, *escaped);
                self.length += passed as u64;
                bytes = &bytes[passed..];
                if !bytes.is_empty() {
                    self.close_text();
                }
                continue;
            }
            let end = memchr::memchr(b'\n', bytes);
            let line = &bytes[..end.unwrap_or(bytes.len())];
            if end.is_some() && self.length == 0 && line.len() <= TEXT_BYTES.min(self.limit) {
                // Nothing of it is kept from before, and no text in it is long.
                take(Line::Whole(text_of(line)));
                bytes = &bytes[line.len() + 1..];
                continue;
            }
            let taken = self.append(line);
            bytes = &bytes[taken..];
            if end == Some(taken) {
                self.end_line(&mut take);
                bytes = &bytes[1..];
            }
        }
    }

    /// Gives the line that the end of the stream left without an ending, if any.
    pub fn finish(&mut self, mut take: impl FnMut(Line<'_>)) {
        if self.length > 0 {
            self.end_line(&mut take);
        }
    }

    /// How much is kept of one text now, bytes.
    fn text_bytes(&self) -> usize {
        if self.of_results < PLENTY { LONG_TEXT } else { TEXT_BYTES }
    }

    /// Keeps what follows of the line under way, and tells how much of it was dealt with: not all,
    /// where a text is to be passed over.
    fn append(&mut self, bytes: &[u8]) -> usize {
        let bytes = &bytes[..bytes.len().min(TEXT_BYTES)];
        self.length += bytes.len() as u64;
        if self.over {
            return bytes.len();
        }
        // What is over the limit is looked at as well: it may be the text that is cut.
        let needed = self.pending.len() + bytes.len();
        if needed > self.pending.capacity() {
            let twice = (2 * self.pending.capacity()).min(self.limit + TEXT_BYTES);
            self.pending.reserve_exact(needed.max(twice) - self.pending.len());
        }
        self.pending.extend_from_slice(bytes);
        self.cut_texts();
        self.keep_to_limit();
        bytes.len()
    }

    /// Cuts the texts of a tool's result in what is kept.
    fn cut_texts(&mut self) {
        if matches!(self.texts, Texts::Unknown) && self.pending.len() >= FIRST_FIELD {
            let is_result = is_result(&self.pending);
            self.texts = if is_result { Texts::Between(0) } else { Texts::Uncut };
        }
        loop {
            match self.texts {
                Texts::Unknown | Texts::Uncut | Texts::Beyond { .. } => return,
                Texts::Between(from) => {
                    let opens = memchr::memchr(b'"', self.pending.get(from..).unwrap_or_default());
                    let Some(start) = opens.map(|at| from + at + 1) else {
                        self.texts = Texts::Between(self.pending.len());
                        return;
                    };
                    self.texts = Texts::Within { start, seen: start };
                }
                Texts::Within { start, seen } => {
                    let escaped = is_escaped(&self.pending[start..], seen - start, false);
                    let end = end_of_text(&self.pending[seen..], escaped).map(|at| seen + at);
                    let seen = end.unwrap_or(self.pending.len());
                    if seen - start > self.text_bytes() {
                        self.cut_text(start, seen);
                    } else if end.is_some() {
                        self.texts = Texts::Between(seen + 1);
                    } else {
                        self.texts = Texts::Within { start, seen };
                        return;
                    }
                }
            }
        }
    }

    /// Cuts the text from `start` to `end`, where it ends or what is there of it does.
    fn cut_text(&mut self, start: usize, end: usize) {
        let rest = self.pending.split_off(end);
        let escaped = is_escaped(&self.pending[start..], end - start, false);
        let kept = start + self.text_bytes();
        let kept = start + whole_characters(&self.pending[start..kept]);
        self.pending.truncate(kept);
        self.texts = Texts::Beyond { left_out: (end - kept) as u64, escaped };
        if !rest.is_empty() {
            self.close_text();
            self.pending.extend_from_slice(&rest);
        }
    }

    /// Marks the text that was passed over, the end of which has been reached.
    fn close_text(&mut self) {
        if let Texts::Beyond { left_out, .. } = self.texts {
            self.pending.extend_from_slice(mark(left_out).replace('\n', "\\n").as_bytes());
            // What ends it comes next.
            self.texts = Texts::Between(self.pending.len() + 1);
        }
    }

    fn keep_to_limit(&mut self) {
        if self.pending.len() > self.limit {
            self.over = true;
            self.pending = Vec::new();
            self.texts = Texts::Uncut;
        }
    }

    fn end_line(&mut self, take: &mut impl FnMut(Line<'_>)) {
        if std::mem::take(&mut self.over) {
            take(Line::TooLong(self.length));
        } else {
            take(Line::Whole(text_of(&self.pending)));
        }
        if self.pending.len() > TEXT_BYTES && !matches!(self.texts, Texts::Unknown | Texts::Uncut) {
            self.of_results += self.pending.len() as u64;
        }
        self.length = 0;
        self.texts = Texts::Unknown;
        self.pending.clear();
        self.pending.shrink_to(SPARE);
    }
}

/// What stands behind the beginning of a text of which so many bytes were left out.
#[must_use]
pub fn mark(left_out: u64) -> String {
    format!("{}{left_out}{}", MARK.0, MARK.1)
}

/// A text without the mark, and the bytes that were left out where there is one.
#[must_use]
pub fn without_mark(text: &str) -> (&str, Option<u64>) {
    let found = text.strip_suffix(MARK.1).and_then(|text| text.rsplit_once(MARK.0));
    let cut = found.and_then(|(text, left_out)| Some((text, left_out.parse().ok()?)));
    cut.map_or((text, None), |(text, left_out)| (text, Some(left_out)))
}

/// Whether a line begins as a tool's result does.
fn is_result(line: &[u8]) -> bool {
    let mut rest = line;
    [&b"{"[..], b"\"role\"", b":", b"\"tool\""].iter().all(|part| {
        let after = rest.trim_ascii_start().strip_prefix(*part);
        rest = after.unwrap_or_default();
        after.is_some()
    })
}

/// Where a JSON text ends: at its quote, or where its line does. `escaped` tells whether a backslash
/// escapes the first byte.
fn end_of_text(bytes: &[u8], escaped: bool) -> Option<usize> {
    let ends = |&at: &usize| bytes[at] == b'\n' || !is_escaped(bytes, at, escaped);
    let search = |from: usize, to: usize| {
        memchr::memchr2_iter(b'"', b'\n', &bytes[from..to]).map(|at| from + at).find(ends)
    };
    // Most quotes stand behind one backslash: blocks without any other are passed over at the speed
    // at which the processor compares bytes.
    let mut from = 0;
    while from < bytes.len() {
        let to = bytes.len().min(from + BLOCK);
        let may_end = from < 2 || may_end(&bytes[from - 2..to]);
        if let Some(end) = may_end.then(|| search(from, to)).flatten() {
            return Some(end);
        }
        from = to;
    }
    None
}

/// How much is looked at in one step, bytes.
const BLOCK: usize = 512;

/// Whether a line ends in these bytes, or a quote stands there that is not behind one backslash alone;
/// the first two bytes are those before.
fn may_end(bytes: &[u8]) -> bool {
    // Without a branch, so that many bytes are compared at once.
    let is = |byte: u8, what: u8| u8::from(byte == what);
    let behind = bytes.iter().zip(&bytes[1..]).zip(&bytes[2..]);
    let ends = behind.fold(0, |ends, ((&second, &first), &byte)| {
        let is_alone = is(first, b'\\') & (1 ^ is(second, b'\\'));
        ends | is(byte, b'\n') | (is(byte, b'"') & (1 ^ is_alone))
    });
    ends != 0
}

/// Whether a backslash escapes the byte at `at`; `before` tells whether one escapes the first byte.
fn is_escaped(bytes: &[u8], at: usize, before: bool) -> bool {
    let backslashes = bytes[..at].iter().rev().take_while(|&&byte| byte == b'\\').count();
    (backslashes % 2 == 1) != (before && backslashes == at)
}

/// How much of the beginning of a JSON text, bytes, ends with no half of a character or of an escape
/// sequence.
pub(super) fn whole_characters(text: &[u8]) -> usize {
    // Behind a byte that is no backslash nothing is escaped; the longest sequence, of a character that
    // takes two, is twelve bytes long.
    let near = text.len().saturating_sub(16);
    let mut end = text[..near].iter().rposition(|&byte| byte != b'\\').map_or(0, |at| at + 1);
    while end < text.len() {
        let next = end + length_of_character(&text[end..]);
        if next > text.len() {
            break;
        }
        end = next;
    }
    end
}

/// How long the character is, bytes, with which a JSON text begins, also if not all of it is there.
fn length_of_character(text: &[u8]) -> usize {
    match text {
        [b'\\', b'u', b'd' | b'D', b'8' | b'9' | b'a' | b'b' | b'A' | b'B', _, _]
        | [b'\\', b'u', b'd' | b'D', b'8' | b'9' | b'a' | b'b' | b'A' | b'B', _, _, b'\\', ..] => {
            12
        }
        [b'\\', b'u', ..] => 6,
        [b'\\' | 0xc0..=0xdf, ..] => 2,
        [0xf0..=0xff, ..] => 4,
        [0xe0..=0xef, ..] => 3,
        _ => 1,
    }
}

fn text_of(line: &[u8]) -> Cow<'_, str> {
    lossy(line.strip_suffix(b"\r").unwrap_or(line))
}

/// The bytes as text, with what is not UTF-8 replaced; where all of it is, that is found out faster.
pub(super) fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
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

    #[test]
    fn of_a_tools_long_texts_the_beginning_is_kept_and_the_rest_is_counted() {
        let long = "x".repeat(LONG_TEXT);
        let line = |content: &str| format!(r#"{{ "role": "tool","content":{content},"id":"a"}}"#);
        let check = |content: &str, expected: &str| {
            let text = format!("{}\nnext\n", line(content));
            assert_eq!(split(1 << 19, &[text.as_bytes()]), [whole(&line(expected)), whole("next")]);
        };
        let kept = format!("\"{long}\"");
        check(&kept, &kept);
        let cut = format!(r#""{long}\n[left out: 5 bytes]""#);
        check(&format!(r#""{long}\"abc""#), &cut);
        let both = format!("[{kept},\"{long}{long}\"]");
        check(&both, &format!(r#"[{kept},"{long}\n[left out: {LONG_TEXT} bytes]"]"#));
        // However long it is: what counts is what is kept.
        let huge = long.repeat(40);
        check(
            &format!("\"{huge}\""),
            &format!(r#""{long}\n[left out: {} bytes]""#, 39 * LONG_TEXT),
        );
        // Any other line is kept whole, and a text without an end ends with its line.
        let other = line(&format!("\"{long}{long}\"")).replace("tool", "user");
        assert_eq!(split(1 << 19, &[other.as_bytes()]), [whole(&other)]);
        let open = format!("{{\"role\":\"tool\",\"content\":\"{long}{long}\nnext");
        let lines = split(1 << 19, &[open.as_bytes()]);
        assert_eq!((lines.len(), &lines[1]), (2, &whole("next")));

        // Of many, less.
        let many = (line(&kept) + "\n").repeat(40);
        let lines = split(1 << 19, &[many.as_bytes()]);
        let short =
            format!(r#""{}\n[left out: {} bytes]""#, &long[..TEXT_BYTES], LONG_TEXT - TEXT_BYTES);
        assert_eq!(
            (lines.len(), &lines[0], &lines[39]),
            (40, &whole(&line(&kept)), &whole(&line(&short)))
        );
    }

    #[test]
    fn a_text_is_cut_between_characters() {
        let check = |text: &str, expected: &str| {
            assert_eq!(&text[..whole_characters(text.as_bytes())], expected, "{text}");
        };
        check("ab\\n", "ab\\n");
        check("ab\\", "ab");
        check("ab\\\\", "ab\\\\");
        check("ab\\u00e", "ab");
        check("ab\\u00e4", "ab\\u00e4");
        check("ab\\ud83d", "ab");
        check("ab\\ud83d\\ude8", "ab");
        check("ab\\ud83d\\ude80", "ab\\ud83d\\ude80");
        check("ab\\ud83dx", "ab\\ud83dx");
        check(&"\\".repeat(41), &"\\".repeat(40));
        let rocket = "a🚀".as_bytes();
        assert_eq!((whole_characters(&rocket[..4]), whole_characters(rocket)), (1, 5));
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

        #[test]
        fn the_end_of_a_text_is_found(text in "[a\"\\\\\n]{0,40}", from in 0usize..1100, escaped: bool) {
            let text = format!("{}{text}", "x".repeat(from));
            let mut is_escaped = escaped;
            let end = text.bytes().position(|byte| {
                let ends = byte == b'\n' || (byte == b'"' && !is_escaped);
                is_escaped = byte == b'\\' && !is_escaped;
                ends
            });
            prop_assert_eq!(end_of_text(text.as_bytes(), escaped), end);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn of_a_long_result_the_beginning_is_read_wherever_it_is_cut(
            piece in "[a\"\\\\\n\u{1}中👩]{1,9}",
            shift in 0usize..40,
            more in 0usize..3 * LONG_TEXT,
            chunk in prop_oneof![300usize..900, 30_000usize..70_000],
        ) {
            let text = "x".repeat(shift) + &piece.repeat(2 * LONG_TEXT / piece.len()) + &"y".repeat(more);
            let line = serde_json::json!({"role": "tool", "content": [text], "n": 1}).to_string();
            let escaped = serde_json::to_string(&text).unwrap().len() - 2;
            let pieces: Vec<&[u8]> = line.as_bytes().chunks(chunk).collect();
            let lines = split(usize::MAX / 2, &pieces);
            let [Line::Whole(kept)] = &lines[..] else { panic!("{}", lines.len()) };
            let value: serde_json::Value = serde_json::from_str(kept).unwrap();
            let (kept, left_out) = without_mark(value["content"][0].as_str().unwrap());
            prop_assert!(text.starts_with(kept));
            let kept_bytes = serde_json::to_string(kept).unwrap().len() - 2;
            prop_assert!(kept_bytes <= LONG_TEXT && kept_bytes > LONG_TEXT - 12);
            prop_assert_eq!(left_out, Some((escaped - kept_bytes) as u64));
            prop_assert_eq!(&value["n"], 1);
        }
    }
}
