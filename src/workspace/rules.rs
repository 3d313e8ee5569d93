//! The ignore rules of git, with the precedence of git: the deepest folder's file first, `info/exclude` last, and
//! within a file the last line that matches.

use std::path::Path;
use std::sync::Arc;

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::contents;

/// The number of lines that are compiled together. The memory of a set of wildcards can grow with the square of its
/// lines: a hostile file of 32 KiB makes one set of a gigabyte, or many sets of 50 MB.
const LINES: usize = 64;

/// The rules that apply in one folder, the weakest first.
#[derive(Debug, Clone, Default)]
pub(super) struct IgnoreRules(Vec<Arc<Gitignore>>);

impl IgnoreRules {
    /// Adds the rules of a file. They are relative to `folder` and stronger than the rules before.
    pub(super) fn add(&mut self, folder: &Path, file: &Path, allowance: &mut Allowance) {
        self.0.extend(allowance.read(folder, file).unwrap_or_default());
    }

    /// Returns whether git ignores this path, provided that it does not ignore the folder.
    pub(super) fn ignores(&self, path: &Path, is_folder: bool) -> bool {
        let mut matches = self.0.iter().rev().map(|rules| rules.matched(path, is_folder));
        matches.find(|found| !found.is_none()).is_some_and(|found| found.is_ignore())
    }
}

/// The size of rules that may still be read in one look. A file that exceeds it is not applied; then the look compares
/// more, never less.
#[derive(Debug)]
pub(super) struct Allowance {
    /// Bytes.
    all: usize,
    /// Bytes of lines with unusual wildcards.
    wild: usize,
}

impl Allowance {
    pub(super) fn new() -> Allowance {
        Allowance { all: 1 << 20, wild: 32 << 10 }
    }

    fn read(&mut self, root: &Path, file: &Path) -> Option<Vec<Arc<Gitignore>>> {
        let bytes = contents::read(file, self.all as u64).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.trim_start_matches('\u{feff}').lines().collect();
        let wild = lines.iter().filter(|line| is_wild(line)).map(|line| line.len()).sum();
        self.wild = self.wild.checked_sub(wild)?;
        self.all -= bytes.len();
        let compile = |lines: &[&str]| {
            let mut rules = GitignoreBuilder::new(root);
            for line in lines {
                // Git also skips a pattern that it cannot parse.
                let _ = rules.add_line(None, line);
            }
            rules.build().ok().map(Arc::new)
        };
        lines.chunks(LINES).map(compile).collect()
    }
}

/// Returns whether a line is more than a name, a path or an extension.
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
        let mut rules = IgnoreRules::default();
        rules.add(root, &root.join("exclude"), &mut allowance);
        rules.add(root, &root.join(".gitignore"), &mut allowance);
        let mut deep = rules.clone();
        deep.add(&root.join("a"), &root.join("a/.gitignore"), &mut allowance);
        let check = |rules: &IgnoreRules, path: &str, is_folder, expected: bool| {
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
    fn a_file_with_too_expensive_rules_is_not_applied() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(".gitignore");
        let check = |text: &str, expected: bool| {
            fs::write(&file, text).unwrap();
            let mut rules = IgnoreRules::default();
            rules.add(dir.path(), &file, &mut Allowance::new());
            assert_eq!(rules.ignores(&dir.path().join("x.log"), false), expected);
        };
        check(&("some/plain/name\n".repeat(20_000) + "*.log\n"), true);
        check(&("# a*comment*\n".repeat(9_000) + "*.log\n"), true);
        check(&("some/plain/name\n".repeat(70_000) + "*.log\n"), false);
        check(&("*[a-z]*[a-z]*0*?*\n".repeat(2_000) + "*.log\n"), false);
    }
}
