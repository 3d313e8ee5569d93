//! The plain text among the lines of a stream: an error of the program, or noise.

use crate::kimi::text::{last_bytes, last_words};

/// The last bytes of the text that are kept.
pub(super) const PLAIN_KEPT: usize = 16 * 1024;

/// The end of the lines that are no JSON, and the number of these lines.
#[derive(Debug, Default)]
pub(super) struct Plain {
    /// Each line with its line ending.
    text: String,
    count: usize,
}

impl Plain {
    pub(super) fn add(&mut self, line: &str) {
        self.count += 1;
        self.text.push_str(line);
        self.text.push('\n');
        if self.text.len() > 2 * PLAIN_KEPT {
            // A few bytes beyond the limit show that the text was cut.
            self.text = last_bytes(&self.text, PLAIN_KEPT + 4).to_owned();
        }
    }

    /// Returns the warning that lines were skipped.
    pub(super) fn warning(&self) -> Option<String> {
        match self.count {
            0 => None,
            1 => Some("a line of Kimi's stream was skipped: it is no JSON".to_owned()),
            count => Some(format!("{count} lines of Kimi's stream were skipped: they are no JSON")),
        }
    }

    /// Returns the kept lines. Leaves out the first word after a cut, since half a secret is not recognized.
    pub(super) fn lines(&self) -> Vec<String> {
        last_words(&self.text, PLAIN_KEPT).split_terminator('\n').map(str::to_owned).collect()
    }
}
