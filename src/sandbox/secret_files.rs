//! Which files of a project hold secrets, by their names and sometimes by what they hold.
//!
//! The list is data; this file only looks. Nothing that it reads leaves it but a yes or a no.

use std::borrow::Cow;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use regex::bytes::{Regex, RegexBuilder};
use serde::Deserialize;

const BUILT_IN: &str = include_str!("../../config/secret_files.yaml");

/// How much of a file is looked at, bytes.
const LOOKED_AT: u64 = 16 * 1024;
/// Folders without a secret in their thousands of files: what git keeps its objects in.
const SKIPPED: [&str; 2] = [".git/objects", ".git/lfs/objects"];

/// The names of secret files, and the texts that make others secret.
#[derive(Debug, Clone)]
pub struct SecretFiles {
    names: Gitignore,
    /// The files that are secret when they hold a text, and the text.
    holding: Vec<(Gitignore, Regex)>,
}

/// Files that are secret when they hold a text.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Holding {
    /// Which files are looked into, as the lines of a `.gitignore`.
    pub files: Vec<String>,
    /// A regular expression.
    pub text: String,
}

/// How far a search may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reach {
    /// Files and folders that are looked at.
    entries: usize,
    /// How long it may take.
    time: Duration,
}

impl Default for Reach {
    fn default() -> Reach {
        Reach { entries: 2_000_000, time: Duration::from_secs(10) }
    }
}

/// What a search found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Found {
    /// The secret files and folders, absolute.
    pub secret: Vec<PathBuf>,
    /// Folders that were not looked through, absolute: the search had to end, or they cannot be read.
    pub unseen: Vec<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Lists {
    files: Vec<String>,
    holding: Vec<Holding>,
}

#[expect(clippy::expect_used, reason = "the file is compiled in, and a test reads it")]
static LISTS: LazyLock<SecretFiles> = LazyLock::new(|| {
    let lists: Lists =
        serde_yaml::from_str(BUILT_IN).expect("config/secret_files.yaml is readable");
    let names = lists.files.iter().map(String::as_str);
    SecretFiles::new(names, &lists.holding).expect("config/secret_files.yaml can be used")
});

impl SecretFiles {
    /// The lists of `config/secret_files.yaml`, compiled at the first use.
    #[must_use]
    pub fn built_in() -> &'static SecretFiles {
        &LISTS
    }

    /// The built-in lists and some lines more, which count after them.
    ///
    /// # Errors
    /// Every line that cannot be used, with the reason.
    pub fn with(more: &[String]) -> Result<Cow<'static, SecretFiles>, Vec<String>> {
        if more.is_empty() {
            return Ok(Cow::Borrowed(SecretFiles::built_in()));
        }
        let lists: Lists =
            serde_yaml::from_str(BUILT_IN).map_err(|error| vec![error.to_string()])?;
        let names = lists.files.iter().chain(more).map(String::as_str);
        SecretFiles::new(names, &lists.holding).map(Cow::Owned)
    }

    /// Compiles the lists.
    ///
    /// # Errors
    /// Every line that cannot be used, with the reason.
    pub fn new<'a>(
        names: impl IntoIterator<Item = &'a str>,
        holding: &[Holding],
    ) -> Result<SecretFiles, Vec<String>> {
        let mut problems = Vec::new();
        let names = globs(names, &mut problems);
        let mut compiled = Vec::new();
        for Holding { files, text } in holding {
            let globs = globs(files.iter().map(String::as_str), &mut problems);
            match RegexBuilder::new(text).unicode(false).build() {
                Ok(text) => compiled.push((globs, text)),
                Err(error) => problems.push(error.to_string()),
            }
        }
        problems.dedup();
        if problems.is_empty() {
            Ok(SecretFiles { names, holding: compiled })
        } else {
            Err(problems)
        }
    }

    /// Whether this file or folder is secret by its name. The path is relative to the project.
    #[must_use]
    pub fn is_named(&self, path: &Path, is_folder: bool) -> bool {
        self.names.matched(path, is_folder).is_ignore()
    }

    /// Whether a file of a project is secret, by its name, that of a folder on the way, or what it holds.
    #[must_use]
    pub fn is_secret(&self, project: &Path, path: &Path) -> bool {
        let path = project.join(path);
        let real = path.canonicalize().unwrap_or_else(|_| path.clone());
        [path, real].iter().any(|path| {
            let relative = path.strip_prefix(project).unwrap_or(path);
            let on_the_way = relative
                .ancestors()
                .skip(1)
                .any(|folder| !folder.as_os_str().is_empty() && self.is_named(folder, true));
            on_the_way || self.is_named(relative, path.is_dir()) || self.holds(relative, path)
        })
    }

    /// Returns whether a file is secret for its text. A file that the bridge cannot read is not: neither can Kimi.
    fn holds(&self, relative: &Path, path: &Path) -> bool {
        let of_file = |(files, _): &&(Gitignore, Regex)| files.matched(relative, false).is_ignore();
        let mut texts = self.holding.iter().filter(of_file).peekable();
        texts.peek().is_some()
            && beginning(path).is_ok_and(|start| texts.any(|(_, text)| text.is_match(&start)))
    }

    /// The secret files and folders below a folder, which is canonical. Links are not followed, but
    /// a secret name that leads elsewhere in the project closes what it leads to.
    #[must_use]
    pub fn search(&self, project: &Path) -> Found {
        self.search_within(project, Reach::default())
    }

    fn search_within(&self, project: &Path, reach: Reach) -> Found {
        let end = Instant::now() + reach.time;
        let mut left = reach.entries;
        let mut found = Found::default();
        // By levels, so that what remains unseen when the search must end lies deep.
        let mut folders = std::collections::VecDeque::from([project.to_owned()]);
        while let Some(folder) = folders.pop_front() {
            let entries = fs::read_dir(&folder);
            let (Ok(entries), true) = (entries, left > 0 && Instant::now() < end) else {
                found.unseen.push(folder);
                continue;
            };
            for entry in entries.flatten() {
                left = left.saturating_sub(1);
                let Ok(kind) = entry.file_type() else { continue };
                let path = entry.path();
                let relative = path.strip_prefix(project).unwrap_or(&path);
                if self.is_named(relative, kind.is_dir()) {
                    let target = if kind.is_symlink() { path.canonicalize().ok() } else { None };
                    // Where the link itself leads out of the project, it opens nothing.
                    found.secret.extend(target.filter(|target| target.starts_with(project)));
                    if !kind.is_symlink() {
                        found.secret.push(path);
                    }
                } else if kind.is_dir() {
                    if !SKIPPED.iter().any(|skipped| path.ends_with(skipped)) {
                        folders.push_back(path);
                    }
                } else if kind.is_file() && self.holds(relative, &path) {
                    found.secret.push(path);
                }
            }
        }
        found.secret.sort();
        found.secret.dedup();
        found
    }
}

fn globs<'a>(lines: impl IntoIterator<Item = &'a str>, problems: &mut Vec<String>) -> Gitignore {
    let mut builder = GitignoreBuilder::new("");
    for line in lines {
        if let Err(error) = builder.add_line(None, line) {
            problems.push(format!("`{line}`: {error}"));
        }
    }
    builder.build().unwrap_or_else(|error| {
        problems.push(error.to_string());
        Gitignore::empty()
    })
}

fn beginning(path: &Path) -> io::Result<Vec<u8>> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file = File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    let mut start = Vec::new();
    file.take(LOOKED_AT).read_to_end(&mut start)?;
    Ok(start)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn names_tell_secret_files_from_their_like() {
        let check = |path: &str, expected: bool| {
            assert_eq!(
                SecretFiles::built_in().is_named(Path::new(path), false),
                expected,
                "{path}"
            );
        };
        for secret in [
            ".env",
            ".env.local",
            "deploy/.env.production",
            "prod.env",
            ".envrc",
            "id_rsa",
            "tls/server.key",
            "release.keystore",
            "cert.p12",
            ".npmrc",
            "sub/.netrc",
            ".pypirc",
            "kubeconfig",
            "infra/dev.kubeconfig",
            "terraform.tfstate",
            "terraform.tfstate.backup",
            "my-service-account-key.json",
            "client_secret_123.json",
            ".git-credentials",
            ".docker/config.json",
            "config/master.key",
        ] {
            check(secret, true);
        }
        for open in [
            ".env.example",
            ".env.sample",
            "config/.env.template",
            "example.env",
            "src/env.rs",
            "environment.ts",
            "keys.rs",
            "key",
            "id_rsa.pub",
            "public.pem",
            "package.json",
            "monkey",
            "docs/secrets.md",
            "kubeconfig.go",
            ".npmignore",
            "Cargo.toml",
            "config.json",
        ] {
            check(open, false);
        }
        for folder in [".ssh", "a/.aws", ".kube", ".config/gcloud"] {
            assert!(SecretFiles::built_in().is_named(Path::new(folder), true), "{folder}");
        }
        for folder in [".env.d/x", "ssh", "aws", ".github", ".config"] {
            assert!(!SecretFiles::built_in().is_named(Path::new(folder), true), "{folder}");
        }
    }

    #[test]
    fn what_a_file_holds_tells_where_its_name_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let check = |name: &str, text: &str, expected: bool| {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            assert_eq!(
                SecretFiles::built_in().is_secret(dir.path(), &path),
                expected,
                "{name}: {text}"
            );
        };
        check("a.pem", "-----BEGIN RSA PRIVATE KEY-----\nx", true);
        check("b.pem", "-----BEGIN CERTIFICATE-----\nx", false);
        check("prod.json", "{\n \"type\": \"service_account\"", true);
        check("tsconfig.json", "{\"type\": \"module\"}", false);
        check("credentials.json", "{\"client_secret\": \"x\"}", true);
        check("credentials.json", "{\"user\": \"x\"}", false);
        check(".git/config", "[http]\n extraheader = AUTHORIZATION: basic x", true);
        check(".git/config", "url = https://u:tok@host/r", true);
        check(".git/config", "url = https://host/r\n url = git@host:r", false);
        check("late.json", &format!("{}\"type\": \"service_account\"", " ".repeat(20_000)), false);
    }

    #[test]
    fn a_search_finds_what_lies_deep_and_follows_no_link_out() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let project = root.join("p");
        for path in
            ["a/b/.env", "node_modules/x/.npmrc", ".ssh/id_rsa", ".git/objects/.env", "plain"]
        {
            fs::create_dir_all(project.join(path).parent().unwrap()).unwrap();
            fs::write(project.join(path), "").unwrap();
        }
        fs::write(root.join("outside"), "").unwrap();
        symlink("plain", project.join("id_rsa")).unwrap();
        symlink("../outside", project.join("id_dsa")).unwrap();
        symlink("..", project.join("up")).unwrap();
        let found = SecretFiles::built_in().search(&project);
        let secret = [".ssh", "a/b/.env", "node_modules/x/.npmrc", "plain"];
        let expected = secret.map(|path| project.join(path)).into();
        assert_eq!(found, Found { secret: expected, unseen: vec![] });
    }

    #[test]
    fn a_search_that_has_to_end_says_what_it_did_not_see() {
        let project = tempfile::tempdir().unwrap();
        for path in ["a/b/.env", "c/.env", ".env"] {
            fs::create_dir_all(project.path().join(path).parent().unwrap()).unwrap();
            fs::write(project.path().join(path), "").unwrap();
        }
        let reach = Reach { entries: 3, ..Reach::default() };
        let found = SecretFiles::built_in().search_within(project.path(), reach);
        assert_eq!(found.secret, [project.path().join(".env")]);
        let mut unseen = found.unseen;
        unseen.sort();
        assert_eq!(unseen, [project.path().join("a"), project.path().join("c")]);
    }

    #[test]
    fn a_person_adds_lines_and_takes_some_back() {
        let more = ["*.secret".to_owned(), "!public.key".to_owned()];
        let files = SecretFiles::with(&more).unwrap();
        for (path, expected) in [("a.secret", true), ("b.key", true), ("public.key", false)] {
            assert_eq!(files.is_named(Path::new(path), false), expected, "{path}");
        }
        assert!(SecretFiles::with(&["[z-a]".to_owned()]).is_err());
    }

    #[test]
    fn every_line_that_cannot_be_used_is_named() {
        let holding = [Holding { files: vec!["[y-b]".to_owned()], text: "(".to_owned() }];
        let problems = SecretFiles::new(["[z-a]", "fine"], &holding).unwrap_err();
        assert_eq!(problems.len(), 3, "{problems:?}");
        for (problem, named) in problems.iter().zip(["[z-a]", "[y-b]", "unclosed group"]) {
            assert!(problem.contains(named), "{problem}");
        }
    }
}
