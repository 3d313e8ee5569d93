//! The lines of files that a tool's result shows.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::kimi::dialect::Dialect;

/// Lines, from 1, both included.
pub type LineRange = (u32, u32);

/// The lines that were shown of each file, by the name that a tool gave it. A name need not belong to a file: a
/// line of a search can be read in more than one way, and only the disk shows which one is meant.
pub type Shown = BTreeMap<String, Ranges>;

/// A set of lines, as ranges in order that neither overlap nor touch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ranges(Vec<LineRange>);

impl Ranges {
    /// Adds lines; the wrong way round there are none.
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

    /// Adds all lines of another set.
    pub fn extend(&mut self, other: &Ranges) {
        for &lines in &other.0 {
            self.add(lines);
        }
    }

    /// Whether all these lines are in the set.
    #[must_use]
    pub fn holds(&self, (start, end): LineRange) -> bool {
        let behind = self.0.partition_point(|range| range.0 <= start);
        self.0[..behind].last().is_some_and(|range| end <= range.1)
    }
}

/// Adds all that another set of files holds.
pub fn extend(shown: &mut Shown, other: &Shown) {
    for (file, ranges) in other {
        shown.entry(file.clone()).or_default().extend(ranges);
    }
}

/// Bytes of the name of a file that a search shows.
const NAME_BYTES: usize = 1024;
/// Places in one line of a search that can be the end of its file's name: a name may hold dates and numbers.
const MAX_ENDS: usize = 16;

/// The lines that a read shows. Both dialects print each line behind its number and a tab, in order and without a
/// gap; kimi-cli puts a note before them.
pub(super) fn of_a_read(result: &str) -> Option<LineRange> {
    let number = |line: &str| line.trim_start().split_once('\t')?.0.parse().ok();
    let mut lines = without_note(result).lines();
    let first = lines.find_map(number)?;
    let last = lines.rev().find_map(number).unwrap_or(first);
    (first <= last).then_some((first, last))
}

/// The lines that a search shows: `file:17:text`, and `file-18-text` around it. A search in one file leaves its name
/// out in kimi-cli. A list of names shows no line.
pub(super) fn of_a_search<'a>(
    result: &'a str,
    searched: Option<&'a str>,
    dialect: Dialect,
) -> impl Iterator<Item = (String, u32)> + 'a {
    // kimi-cli names the files from the folder that it searches, if that is absolute.
    let folder = searched.filter(|path| dialect == Dialect::KimiCli && path.starts_with('/'));
    let name = searched.and_then(|path| path.rsplit('/').next()).unwrap_or_default();
    without_note(result).lines().flat_map(move |line| {
        let unnamed = searched.filter(|_| !line.starts_with(name)).zip(number_before(line));
        let unnamed = unnamed.map(|(file, (number, _))| (file.to_owned(), number));
        let named = ends_of_a_name(line).map(move |(file, number)| match folder {
            Some(folder) if !file.starts_with('/') => {
                (format!("{}/{file}", folder.trim_end_matches('/')), number)
            }
            _ => (file.to_owned(), number),
        });
        unnamed.into_iter().chain(named)
    })
}

/// Every beginning of a line that can be the name of a file, with the number behind it. The text of a line may hold
/// such numbers too, but not before the second one between colons.
pub fn ends_of_a_name(line: &str) -> impl Iterator<Item = (&str, u32)> {
    let mut colons = 0;
    let ends = line.match_indices([':', '-']).filter_map(|(at, mark)| {
        let (number, behind) = number_before(&line[at + 1..])?;
        (at > 0 && behind == mark).then_some((&line[..at], number, mark))
    });
    let ends = ends.take_while(move |&(_, _, mark)| {
        colons += u8::from(mark == ":");
        colons <= 2
    });
    let ends = ends.filter(|(name, ..)| name.len() <= NAME_BYTES).take(MAX_ENDS);
    ends.map(|(name, number, _)| (name, number))
}

/// The number at the start of a text, and the mark behind it.
fn number_before(text: &str) -> Option<(u32, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let mark = text.get(end..=end).filter(|&mark| mark == ":" || mark == "-")?;
    Some((text[..end].parse().ok()?, mark))
}

/// A result of kimi-cli without the note before it.
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
            assert_eq!(of_a_read(result), expected, "{result}");
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
    fn a_search_shows_the_lines_that_it_quotes() {
        let check = |dialect, searched: Option<&str>, result: &str, expected: &[(&str, u32)]| {
            let shown: Vec<_> = of_a_search(result, searched, dialect).collect();
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
        // A name with numbers in it can end in several places; the disk decides.
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
        // From the folder that is searched, if it was given as an absolute path.
        check(cli, Some("/p/src/"), "store.rs:17:x", &[("/p/src/store.rs", 17)]);
        check(code, Some("/p/src"), "src/store.rs:17:x", &[("src/store.rs", 17)]);
        check(cli, Some("src"), "src/store.rs:17:x", &[("src/store.rs", 17)]);
        check(
            cli,
            None,
            "<system>Results truncated to 1 lines.</system>\na.rs:2:x",
            &[("a.rs", 2)],
        );
        // Lists and counts of files show nothing in them.
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
