//! The lines of files that the result of a tool shows. It does not read the files.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::kimi::dialect::Dialect;

/// The first and the last line of a range, counted from 1.
pub type LineRange = (u32, u32);

/// The lines that were shown of each file, by the file name in the result. Some names match no file, because a line of
/// a search can be split in several ways and only the disk decides.
pub type Shown = BTreeMap<String, Ranges>;

/// A set of lines, as ranges in order that neither overlap nor touch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ranges(Vec<LineRange>);

impl Ranges {
    /// Adds a range of lines; a reversed range is empty.
    pub fn add(&mut self, (start, end): LineRange) {
        if start > end {
            return;
        }
        let from = self.0.partition_point(|range| range.1.saturating_add(1) < start);
        let to = self.0.partition_point(|range| range.0 <= end.saturating_add(1));
        let joined = match self.0.get(from..to) {
            Some([first, .., last]) => (first.0.min(start), last.1.max(end)),
            Some([one]) => (one.0.min(start), one.1.max(end)),
            Some([]) | None => (start, end),
        };
        self.0.splice(from..to, [joined]);
    }

    /// Adds the lines of another set.
    pub fn extend(&mut self, other: &Ranges) {
        for &lines in &other.0 {
            self.add(lines);
        }
    }

    /// Returns whether the set holds the whole range.
    #[must_use]
    pub fn holds(&self, (start, end): LineRange) -> bool {
        let behind = self.0.partition_point(|range| range.0 <= start);
        self.0[..behind].last().is_some_and(|range| end <= range.1)
    }
}

/// Adds the lines of all files of another map.
pub fn extend(shown: &mut Shown, other: &Shown) {
    for (file, ranges) in other {
        shown.entry(file.clone()).or_default().extend(ranges);
    }
}

/// The most bytes of a file name in a search.
const NAME_BYTES: usize = 1024;
/// The most ends of a file name that are tried in one line of a search. A name may hold dates and numbers.
const MAX_ENDS: usize = 16;

/// Returns the lines that a read shows. Both dialects print a number and a tab before each line, in order and without
/// a gap; kimi-cli adds a note before the first.
pub(super) fn lines_of_read(result: &str) -> Option<LineRange> {
    let number = |line: &str| line.trim_start().split_once('\t')?.0.parse().ok();
    let mut lines = without_note(result).lines();
    let first = lines.find_map(number)?;
    let last = lines.rev().find_map(number).unwrap_or(first);
    (first <= last).then_some((first, last))
}

/// Returns the lines that a search shows: `file:17:text` for a match, `file-18-text` around it. kimi-cli omits the name
/// in a search of one file. A list of file names shows no lines.
pub(super) fn lines_of_search<'a>(
    result: &'a str,
    searched: Option<&'a str>,
    dialect: Dialect,
) -> impl Iterator<Item = (String, u32)> + 'a {
    // If the searched folder is absolute, kimi-cli prints paths relative to it.
    let folder = searched.filter(|path| dialect == Dialect::KimiCli && path.starts_with('/'));
    let name = searched.and_then(|path| path.rsplit('/').next()).unwrap_or_default();
    without_note(result).lines().flat_map(move |line| {
        let unnamed = searched.filter(|_| !line.starts_with(name)).zip(leading_number(line));
        let unnamed = unnamed.map(|(file, (number, _))| (file.to_owned(), number));
        let named = file_names(line).map(move |(file, number)| match folder {
            Some(folder) if !file.starts_with('/') => {
                (format!("{}/{file}", folder.trim_end_matches('/')), number)
            }
            _ => (file.to_owned(), number),
        });
        unnamed.into_iter().chain(named)
    })
}

/// Returns every start of a line that can be a file name, with the line number after it. The text may hold numbers
/// too, but only after the second one between colons.
pub fn file_names(line: &str) -> impl Iterator<Item = (&str, u32)> {
    let mut colons = 0;
    let ends = line.match_indices([':', '-']).filter_map(|(at, mark)| {
        let (number, mark_after) = leading_number(&line[at + 1..])?;
        (at > 0 && mark_after == mark).then_some((&line[..at], number, mark))
    });
    let ends = ends.take_while(move |&(_, _, mark)| {
        colons += u8::from(mark == ":");
        colons <= 2
    });
    let ends = ends.filter(|(name, ..)| name.len() <= NAME_BYTES).take(MAX_ENDS);
    ends.map(|(name, number, _)| (name, number))
}

/// Returns the number at the start of a text, and the mark after it.
fn leading_number(text: &str) -> Option<(u32, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let mark = text.get(end..=end).filter(|&mark| mark == ":" || mark == "-")?;
    Some((text[..end].parse().ok()?, mark))
}

/// Removes the note of kimi-cli from the start of a result.
fn without_note(result: &str) -> &str {
    let note = result.strip_prefix("<system>").and_then(|rest| rest.split_once("</system>"));
    note.map_or(result, |(_, text)| text.strip_prefix('\n').unwrap_or(text))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_read_shows_the_lines_that_it_numbers() {
        let check = |result: &str, expected: Option<LineRange>| {
            assert_eq!(lines_of_read(result), expected, "{result}");
        };
        check("1\tmod store;\n2\t\n3\tfn main() {", Some((1, 3)));
        check("10\tten\n11\televen\n12\ttwelve", Some((10, 12)));
        check("7\tone line", Some((7, 7)));
        check(
            "<system>3 lines read from file starting from line 4000.</system>\n  4000\ta\n  4001\t\n  4002\tb\n",
            Some((4000, 4002)),
        );
        check("<system>1 line read.</system>     9\tno break behind the note", Some((9, 9)));
        check("<system>No lines read from file. Total lines in file: 0.</system>", None);
        check("", None);
        check("9\tbackwards\n8\t", None);
        check("99999999999\ttoo large", None);
        check("no numbers at all", None);
    }

    #[test]
    fn a_search_shows_the_lines_that_it_prints() {
        let check = |dialect, searched: Option<&str>, result: &str, expected: &[(&str, u32)]| {
            let shown: Vec<_> = lines_of_search(result, searched, dialect).collect();
            let shown: Vec<_> = shown.iter().map(|(file, line)| (file.as_str(), *line)).collect();
            assert_eq!(shown, expected, "{dialect} {searched:?} {result}");
        };
        let (code, cli) = (Dialect::KimiCode, Dialect::KimiCli);
        check(
            code,
            Some("src"),
            "src/store-v2.rs:17:  x\n--\nsrc/main.rs-4-  y",
            &[("src/store-v2.rs", 17), ("src/main.rs", 4)],
        );
        // A name with numbers can be split in several ways; the disk decides.
        check(
            code,
            None,
            "docs/2024-01-15-notes.md:1:text",
            &[("docs/2024", 1), ("docs/2024-01", 15), ("docs/2024-01-15-notes.md", 1)],
        );
        check(code, Some("."), "0001-adr.md:1:text", &[(".", 1), ("0001-adr.md", 1)]);
        check(code, Some("0001-adr.md"), "0001-adr.md:7:text", &[("0001-adr.md", 7)]);
        check(code, None, "odd:7:1:a:2:b", &[("odd", 7), ("odd:7", 1)]);
        // A search in one file.
        check(cli, Some("a.rs"), "17:  x\n18-  y", &[("a.rs", 17), ("a.rs", 18)]);
        // A searched folder with an absolute path.
        check(cli, Some("/p/src/"), "store.rs:17:x", &[("/p/src/store.rs", 17)]);
        check(code, Some("/p/src"), "src/store.rs:17:x", &[("src/store.rs", 17)]);
        check(cli, Some("src"), "src/store.rs:17:x", &[("src/store.rs", 17)]);
        check(
            cli,
            None,
            "<system>Results truncated to 1 lines.</system>\na.rs:2:x",
            &[("a.rs", 2)],
        );
        // Lists and counts of files show no lines.
        check(code, None, "src/a.rs\nsrc/b.rs", &[]);
        check(code, None, "Found 3 total occurrences across 1 file.\nsrc/a.rs:3", &[]);
        check(code, None, "No matches found", &[]);
        check(code, None, &format!("{}:1:x", "n".repeat(2_000)), &[]);
    }

    proptest! {
        #[test]
        fn ranges_hold_what_was_added(added in proptest::collection::vec((0u32..40, 0u32..40), 0..12)) {
            let mut ranges = Ranges::default();
            for &lines in &added {
                ranges.add(lines);
            }
            for line in 0..45 {
                let expected = added.iter().any(|&(start, end)| start <= line && line <= end);
                prop_assert_eq!(ranges.holds((line, line)), expected, "{} in {:?}", line, ranges);
            }
            prop_assert!(ranges.0.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
        }
    }
}
