//! What git ignores, by the files that hold its rules. Precedence is git's: the deepest folder's file
//! first, `info/exclude` last, and of one file the last line that fits.

use std::path::Path;
use std::sync::Arc;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::contents;

/// Lines that are compiled together. The memory that a set of wildcards may take grows with the square
/// of its lines: a hostile file of 32 KiB makes one set of a gigabyte, or many sets of 50 MB.
const LINES: usize = 64;

/// The rules that hold in one folder.
#[derive(Debug)]
pub(super) struct Rules {
    /// The first lines first.
    here: Vec<Gitignore>,
    outer: Option<Arc<Rules>>,
}

impl Rules {
    /// The outermost rules of the repository at `root`.
    pub(super) fn of_repository(
        root: &Path,
        exclude: &Path,
        allowance: &mut Allowance,
    ) -> Arc<Rules> {
        let here = allowance.read(root, exclude).unwrap_or_default();
        Arc::new(Rules { here, outer: None })
    }

    /// The rules that hold in a folder below.
    pub(super) fn within(
        outer: &Arc<Rules>,
        folder: &Path,
        allowance: &mut Allowance,
    ) -> Arc<Rules> {
        match allowance.read(folder, &folder.join(".gitignore")) {
            Some(here) => Arc::new(Rules { here, outer: Some(Arc::clone(outer)) }),
            None => Arc::clone(outer),
        }
    }

    /// Whether git would pass over this path, whose folder it does not pass over.
    pub(super) fn ignores(&self, path: &Path, is_folder: bool) -> bool {
        for lines in self.here.iter().rev() {
            match lines.matched(path, is_folder) {
                Match::Ignore(_) => return true,
                Match::Whitelist(_) => return false,
                Match::None => {}
            }
        }
        self.outer.as_ref().is_some_and(|outer| outer.ignores(path, is_folder))
    }
}

/// What may still be read of rules in one look. A file that does not fit is not obeyed, which makes the
/// look compare more, never less.
#[derive(Debug)]
pub(super) struct Allowance {
    /// Bytes.
    all: usize,
    /// Bytes of lines with wildcards other than those that nearly every line has.
    wild: usize,
}

impl Allowance {
    pub(super) fn new() -> Allowance {
        Allowance { all: 1 << 20, wild: 32 << 10 }
    }

    fn read(&mut self, root: &Path, file: &Path) -> Option<Vec<Gitignore>> {
        let bytes = contents::read(file, self.all as u64).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.trim_start_matches('\u{feff}').lines().collect();
        let wild = lines.iter().filter(|line| is_wild(line)).map(|line| line.len()).sum();
        self.wild = self.wild.checked_sub(wild)?;
        self.all -= bytes.len();
        lines.chunks(LINES).map(|lines| compile(root, lines)).collect()
    }
}

fn compile(root: &Path, lines: &[&str]) -> Option<Gitignore> {
    let mut rules = GitignoreBuilder::new(root);
    for line in lines {
        // Git, too, passes over a pattern that it cannot read.
        let _ = rules.add_line(None, line);
    }
    rules.build().ok()
}

/// Whether a line is more than a name, a path or an extension.
fn is_wild(line: &str) -> bool {
    let line = line.trim().trim_start_matches(['!', '/']).trim_start_matches("**/");
    let line = line.trim_start_matches("*.");
    !line.starts_with('#') && line.contains(['*', '?', '[', '{'])
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_last_line_of_the_deepest_file_wins() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("exclude"), "*.local\n").unwrap();
        let filler = "filler\n".repeat(LINES);
        fs::write(
            root.join(".gitignore"),
            format!("\u{feff}*.log\r\n# no rule\n/top\nbuild/\n{filler}!keep.log\n[z\n"),
        )
        .unwrap();
        fs::write(root.join("a/.gitignore"), "!*.local\n*.tmp\n").unwrap();

        let mut allowance = Allowance::new();
        let rules = Rules::of_repository(root, &root.join("exclude"), &mut allowance);
        let rules = Rules::within(&rules, root, &mut allowance);
        let deep = Rules::within(&rules, &root.join("a"), &mut allowance);
        let check = |rules: &Rules, path: &str, is_folder, expected: bool| {
            assert_eq!(rules.ignores(&root.join(path), is_folder), expected, "{path}");
        };
        check(&rules, "x.log", false, true);
        check(&rules, "keep.log", false, false);
        check(&rules, "x.local", false, true);
        check(&rules, "top", false, true);
        check(&rules, "build", true, true);
        check(&rules, "build", false, false);
        check(&rules, "x.tmp", false, false);
        check(&rules, "no rule", false, false);
        check(&deep, "a/x.tmp", false, true);
        check(&deep, "a/x.local", false, false);
        check(&deep, "a/b/x.log", false, true);
        check(&deep, "a/top", false, false);
    }

    #[test]
    fn a_file_of_rules_that_costs_too_much_is_not_obeyed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(".gitignore");
        let outer = Arc::new(Rules { here: Vec::new(), outer: None });
        let check = |text: &str, expected: bool| {
            fs::write(&file, text).unwrap();
            let rules = Rules::within(&outer, dir.path(), &mut Allowance::new());
            assert_eq!(rules.ignores(&dir.path().join("x.log"), false), expected);
        };
        check(&("some/plain/name\n".repeat(20_000) + "*.log\n"), true);
        check(&("# a*comment*\n".repeat(9_000) + "*.log\n"), true);
        check(&("some/plain/name\n".repeat(70_000) + "*.log\n"), false);
        check(&("*[a-z]*[a-z]*0*?*\n".repeat(2_000) + "*.log\n"), false);
    }
}
