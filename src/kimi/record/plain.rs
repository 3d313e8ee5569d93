//! The plain text among the lines of a stream: an error of the program's, or noise.

use std::collections::VecDeque;

use crate::kimi::text::last_words;

/// Bytes that are kept, of the end.
pub(super) const PLAIN_KEPT: usize = 16 * 1024;

/// The latest lines that are no JSON, and the number of all of them.
#[derive(Debug, Default)]
pub(super) struct Plain {
    lines: VecDeque<String>,
    bytes: usize,
    count: usize,
    /// Whether the beginning is not kept.
    is_cut: bool,
    /// Whether no words of the model came after it: it may be the error that the run ended with.
    pub(super) is_last: bool,
}

impl Plain {
    pub(super) fn add(&mut self, line: &str) {
        let line = last_words(line, PLAIN_KEPT);
        self.count += 1;
        self.is_last = true;
        self.bytes += line.len();
        self.lines.push_back(line.to_owned());
        while self.bytes > PLAIN_KEPT {
            self.is_cut = true;
            self.bytes -= self.lines.pop_front().map_or(0, |line| line.len());
        }
    }

    /// The warning that lines were skipped.
    pub(super) fn warning(&self) -> Option<String> {
        match self.count {
            0 => None,
            1 => Some("a line of Kimi's stream was skipped: it is no JSON".to_owned()),
            count => Some(format!("{count} lines of Kimi's stream were skipped: they are no JSON")),
        }
    }

    /// The lines that are kept. The first word after a cut is left out, since half a secret is not known
    /// for one.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::from(self.lines.clone());
        if let Some(first) = lines.first_mut().filter(|_| self.is_cut) {
            *first = first.split_once(char::is_whitespace).unwrap_or_default().1.to_owned();
        }
        lines
    }
}
