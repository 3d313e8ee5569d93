//! The file that a citation names, and the lines in its path. Models write paths in the forms of tools, diffs and web
//! pages; a form is accepted only if it leads to an existing file.

use std::path::{Component, Path, PathBuf};
use std::sync::LazyLock;

use regex::Regex;

use super::status::Status;
use crate::kimi::evidence::shown::LineRange;
use crate::kimi::text::clean;
use crate::sandbox::rules::lexical;

/// The files that a citation can name.
pub(super) struct ProjectFiles<'a> {
    /// The canonical path of the project.
    pub(super) work_dir: &'a Path,
    /// Returns whether a file is closed to Kimi. Such a file must look like a missing one.
    pub(super) is_closed: &'a dyn Fn(&Path) -> bool,
    /// The files that Kimi's tools showed, relative to the project.
    pub(super) shown: &'a [PathBuf],
}

/// A file of the project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Located {
    /// The canonical path.
    pub(super) real: PathBuf,
    /// The path relative to the project, safe to show.
    pub(super) relative: String,
    /// The lines in the cited path.
    pub(super) carried: Option<LineRange>,
}

/// Lines at the end of a path: `:4`, `:4-5`, `:4:5` with a column, `#L4-L5`, `(line 4)`, `(4)`, `, lines 4 to 5`, `:
/// L4`.
static LINES: LazyLock<Option<Regex>> = LazyLock::new(|| {
    let first = r"[#:\s,(\[]+(?:at\s+)?(?:lines?[\s:=]*|L)?(?<first>\d+)";
    let column = r"(?::\d+|C\d+)?";
    let last = r"(?:\s*(?:-|–|—|\.\.=?|:L|to|and|through)\s*L?(?<last>\d+))?";
    Regex::new(&format!(r"(?i)^(?<path>.+?){first}{column}{last}{column}[)\]]?:?$")).ok()
});

impl ProjectFiles<'_> {
    /// Finds the file of a path, or the status that explains why none of the project is meant.
    pub(super) fn locate(&self, path: &str) -> Result<Located, Status> {
        let plain = unwrapped(path);
        let (bare, carried) = without_lines(plain).unwrap_or((plain, None));
        let as_written = [(path, None), (plain, None), (bare, carried)];
        if let Some(&(path, carried)) = as_written.iter().find(|(path, _)| self.exists(path)) {
            return self.file(path, carried);
        }
        for (path, carried) in &as_written[1..] {
            if let Some(path) = self.without_prefixes(path).find(|path| self.exists(path)) {
                return self.file(path, *carried);
            }
        }
        for (path, carried) in &as_written[1..] {
            if let Some(path) = self.only_end(path) {
                return self.file(&path, *carried);
            }
        }
        self.file(plain, None)
    }

    fn exists(&self, path: &str) -> bool {
        let path = self.work_dir.join(path);
        path.exists() && !(self.is_closed)(&path)
    }

    /// The path without the prefixes of diffs, roots, mentions and other working copies: `a/`, `/`, `@`, the project's
    /// name.
    fn without_prefixes<'p>(&self, path: &'p str) -> impl Iterator<Item = &'p str> {
        let name = self.work_dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let parts = path.match_indices('/').filter_map(move |(at, _)| {
            let before = path[..at].rsplit('/').next().unwrap_or_default();
            let is_left_out = at == 0
                || matches!(&path[..at], "a" | "b")
                || (!name.is_empty() && before.eq_ignore_ascii_case(name));
            is_left_out.then(|| &path[at + 1..])
        });
        let parts = path.strip_prefix('@').into_iter().chain(parts);
        parts.filter(|rest| !rest.is_empty() && !rest.starts_with('/'))
    }

    /// The only file shown to Kimi whose path ends with this one. Case is ignored unless several files remain.
    fn only_end(&self, path: &str) -> Option<String> {
        let names = |path: &Path| -> Option<Vec<String>> {
            let names = path.components().filter(|part| *part != Component::CurDir);
            let names = names.map(|part| match part {
                Component::Normal(name) => name.to_str().map(str::to_owned),
                _ => None,
            });
            names.collect()
        };
        let wanted = Some(path).filter(|path| !path.ends_with('/')).map(Path::new);
        let wanted = wanted.and_then(names).filter(|names| !names.is_empty())?;
        let ending = |same: fn(&str, &str) -> bool| {
            let mut ending = self.shown.iter().filter(|file| {
                let names = names(file).unwrap_or_default();
                let ends = names.iter().rev().zip(wanted.iter().rev());
                names.len() >= wanted.len()
                    && ends.clone().all(|(a, b)| same(a, b))
                    && !(self.is_closed)(&self.work_dir.join(file))
            });
            let first = ending.next()?.to_str()?.to_owned();
            ending.next().is_none().then_some(first)
        };
        ending(|a, b| a == b).or_else(|| ending(|a, b| a.to_lowercase() == b.to_lowercase()))
    }

    /// Returns the file at a path.
    fn file(&self, path: &str, carried: Option<LineRange>) -> Result<Located, Status> {
        let named = self.work_dir.join(path);
        let Ok(real) = named.canonicalize() else {
            // The place of a missing file: links on the way may lead out of the project.
            let there = named.ancestors().find_map(|part| Some((part, part.canonicalize().ok()?)));
            let would = there.map_or_else(
                || named.clone(),
                |(part, real)| real.join(named.strip_prefix(part).unwrap_or(&named)),
            );
            let inside = lexical(&would).starts_with(self.work_dir);
            return Err(if inside { Status::Missing } else { Status::Outside });
        };
        let relative = real.strip_prefix(self.work_dir).map_err(|_| Status::Outside)?;
        if (self.is_closed)(&named) {
            return Err(Status::Missing);
        }
        // A file name can be made to deceive its reader.
        let relative = clean(&relative.display().to_string()).into_owned();
        if real.is_file() { Ok(Located { real, relative, carried }) } else { Err(Status::Missing) }
    }
}

/// The path without surrounding white space, marks, a Markdown link and a scheme.
fn unwrapped(path: &str) -> &str {
    let path = path.trim();
    let link = path.strip_prefix('[').and_then(|rest| rest.strip_suffix(')'));
    let path = link.and_then(|link| link.split_once("](")).map_or(path, |(_, target)| target);
    let marks = ['`', '"', '\'', '*', ',', ';'];
    let path = path.trim_matches(marks).trim();
    // If only the `<` were removed, `</code>` would be a path from the root.
    let pointed = path.strip_prefix('<').and_then(|rest| rest.strip_suffix('>'));
    let path = pointed.map_or(path, |path| path.trim_matches(marks).trim());
    path.strip_prefix("file://").unwrap_or(path)
}

/// Splits a path from the lines at its end.
fn without_lines(path: &str) -> Option<(&str, Option<LineRange>)> {
    let found = LINES.as_ref()?.captures(path)?;
    let number = |name| found.name(name).map(|digits| digits.as_str().parse::<u32>());
    let first = number("first")?.ok()?;
    let last = number("last").unwrap_or(Ok(first)).ok()?;
    let bare = found.name("path")?.as_str();
    Some((bare, Some((first.min(last), first.max(last)))))
}
