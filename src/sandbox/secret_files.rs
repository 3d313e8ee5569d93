//! The secret files of a project, by their names and sometimes by their contents. The lists are in
//! `config/secret_files.yaml`. No content that is read here leaves this file.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use regex::bytes::{Regex, RegexBuilder};
use serde::Deserialize;

use super::system::SYSTEM_FOLDERS;

const BUILT_IN: &str = include_str!("../../config/secret_files.yaml");

/// The part of a file that is searched for a secret, bytes.
const LOOKED_AT: u64 = 16 * 1024;
/// Folders of git with thousands of files and no secret.
const SKIPPED: [&str; 2] = [".git/objects", ".git/lfs/objects"];

/// The names of secret files, and the texts that make others secret.
#[derive(Debug, Clone)]
pub(crate) struct SecretFiles {
    names: Gitignore,
    /// The files that are secret if they contain a text, and the text.
    holding: Vec<(Gitignore, Regex)>,
}

/// The form of a name that an editor or a person made from another, which is the group `name`.
#[expect(clippy::expect_used, reason = "the pattern is compiled in, and a test uses it")]
static LEFTOVERS: LazyLock<regex::Regex> =
    LazyLock::new(|| regex::Regex::new(&built_in().leftovers).expect("the pattern compiles"));

/// Files that are secret if they contain a text.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Holding {
    /// The files that are searched, as lines of a `.gitignore`.
    pub(crate) files: Vec<String>,
    /// A regular expression.
    pub(crate) text: String,
}

/// Returns whether a search must end, since its caller is gone.
pub(crate) type Stop<'a> = &'a dyn Fn() -> bool;

/// The limits of a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reach {
    /// The number of files and folders.
    entries: usize,
    /// The time.
    time: Duration,
}

impl Default for Reach {
    fn default() -> Reach {
        Reach { entries: 2_000_000, time: Duration::from_secs(10) }
    }
}

/// The result of a search.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct SecretPaths {
    /// The secret files and folders, absolute and in order.
    pub(crate) secret: Vec<PathBuf>,
    /// Folders that were not searched, absolute: the search had to end, or they cannot be read.
    pub(crate) unseen: Vec<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Lists {
    files: Vec<String>,
    holding: Vec<Holding>,
    leftovers: String,
}

#[expect(clippy::expect_used, reason = "the file is compiled in, and a test reads it")]
fn built_in() -> Lists {
    serde_yaml::from_str(BUILT_IN).expect("config/secret_files.yaml is readable")
}

#[expect(clippy::expect_used, reason = "the file is compiled in, and a test reads it")]
static LISTS: LazyLock<SecretFiles> = LazyLock::new(|| {
    let lists = built_in();
    let names = lists.files.iter().map(String::as_str);
    SecretFiles::new(names, &lists.holding).expect("config/secret_files.yaml can be used")
});

impl SecretFiles {
    /// The lists of `config/secret_files.yaml`, compiled at the first use.
    pub(crate) fn built_in() -> &'static SecretFiles {
        &LISTS
    }

    /// The built-in lists and further lines, which take precedence.
    pub(crate) fn with(more: &[String]) -> Result<Cow<'static, SecretFiles>, Vec<String>> {
        if more.is_empty() {
            return Ok(Cow::Borrowed(SecretFiles::built_in()));
        }
        let lists = built_in();
        let names = lists.files.iter().chain(more).map(String::as_str);
        SecretFiles::new(names, &lists.holding).map(Cow::Owned)
    }

    /// The built-in lists and further lines, or only the built-in lists if a line cannot be used.
    pub(crate) fn with_or_built_in(more: &[String]) -> Cow<'static, SecretFiles> {
        SecretFiles::with(more).unwrap_or(Cow::Borrowed(SecretFiles::built_in()))
    }

    /// Compiles the lists.
    pub(crate) fn new<'a>(
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

    /// Returns whether this file or folder is secret by its name. The path is relative to the project.
    pub(crate) fn is_named(&self, path: &Path, is_folder: bool) -> bool {
        is_listed(&self.names, &forms(path), is_folder)
    }

    /// Returns whether a file of a project is secret, by its name, the name of a parent folder, or its content.
    pub(crate) fn is_secret(&self, project: &Path, path: &Path) -> bool {
        let path = project.join(path);
        let real = path.canonicalize().unwrap_or_else(|_| path.clone());
        [path, real].iter().any(|path| {
            let relative = path.strip_prefix(project).unwrap_or(path);
            let on_the_way = relative
                .ancestors()
                .skip(1)
                .any(|folder| !folder.as_os_str().is_empty() && self.is_named(folder, true));
            on_the_way
                || self.is_named(relative, path.is_dir())
                || self.holds(&forms(relative), path)
        })
    }

    /// Returns whether the content of a file is secret. A file that the bridge cannot read is not, since Kimi cannot read
    /// it either.
    fn holds(&self, forms: &[NameForm], path: &Path) -> bool {
        let of_file = |(files, _): &&(Gitignore, Regex)| is_listed(files, forms, false);
        let mut texts = self.holding.iter().filter(of_file).peekable();
        texts.peek().is_some()
            && beginning(path).is_ok_and(|start| texts.any(|(_, text)| text.is_match(&start)))
    }

    /// The secret files and folders below a folder, which is canonical. Links are not followed, but
    /// a secret name that leads to a file, or elsewhere in the project, closes what it leads to. `stop` is asked at each
    /// folder; once it returns `true`, the rest stays unseen.
    pub(crate) fn search(&self, project: &Path, stop: Stop<'_>) -> SecretPaths {
        self.search_within(project, Reach::default(), stop)
    }

    fn search_within(&self, project: &Path, reach: Reach, stop: Stop<'_>) -> SecretPaths {
        let end = Instant::now() + reach.time;
        let mut left = reach.entries;
        let mut found = SecretPaths::default();
        // By levels, so that only deep folders stay unsearched when the search must end.
        let mut folders = std::collections::VecDeque::from([project.to_owned()]);
        while let Some(folder) = folders.pop_front() {
            let goes_on = left > 0 && Instant::now() < end && !stop();
            let entries = goes_on.then(|| fs::read_dir(&folder).ok()).flatten();
            let Some(entries) = entries else {
                // No deeper folder is searched.
                found.unseen.push(folder);
                continue;
            };
            for entry in entries.flatten() {
                left = left.saturating_sub(1);
                let Ok(kind) = entry.file_type() else { continue };
                let path = entry.path();
                let relative = path.strip_prefix(project).unwrap_or(&path);
                let forms = forms(relative);
                if is_listed(&self.names, &forms, kind.is_dir()) {
                    let target = if kind.is_symlink() { path.canonicalize().ok() } else { None };
                    // A file elsewhere stays closed too, but a project does not decide what of the system is open.
                    let is_systems = |target: &PathBuf| {
                        SYSTEM_FOLDERS.iter().any(|folder| target.starts_with(folder))
                    };
                    let closes = |target: &PathBuf| {
                        target.starts_with(project) || (target.is_file() && !is_systems(target))
                    };
                    found.secret.extend(target.filter(closes));
                    if !kind.is_symlink() {
                        found.secret.push(path);
                    }
                } else if kind.is_dir() {
                    if !SKIPPED.iter().any(|skipped| path.ends_with(skipped)) {
                        folders.push_back(path);
                    }
                } else if kind.is_file() && self.holds(&forms, &path) {
                    found.secret.push(path);
                }
            }
        }
        found.secret.sort();
        found.secret.dedup();
        found
    }
}

/// A path in lower case, with the names that it may be a copy of.
struct NameForm {
    path: PathBuf,
    /// The paths that an editor's or a person's copy may come from.
    others: Vec<PathBuf>,
}

/// The forms of a path: `.env~` is a `.env`.
fn forms(path: &Path) -> Vec<NameForm> {
    let mut forms = Vec::new();
    let mut next = Some(PathBuf::from(path.as_os_str().to_ascii_lowercase()));
    while let Some(path) = next {
        let origins = path.file_name().map(origins).unwrap_or_default();
        let mut origins = origins.into_iter().map(|name| path.with_file_name(name));
        // A name that is made from several in turn ends in the first one.
        next = origins.next();
        forms.push(NameForm { others: origins.collect(), path });
    }
    forms
}

/// Returns whether a list names a file or folder in any of its forms.
fn is_listed(list: &Gitignore, forms: &[NameForm], is_folder: bool) -> bool {
    for form in forms {
        match list.matched(&form.path, is_folder) {
            Match::Ignore(_) => return true,
            Match::Whitelist(_) => return false,
            Match::None => {}
        }
        if form.others.iter().any(|path| list.matched(path, is_folder).is_ignore()) {
            return true;
        }
    }
    false
}

/// The names that a name may be a copy of, in lower case, each shorter.
fn origins(name: &OsStr) -> Vec<String> {
    let name = name.to_string_lossy();
    let origin = |name: &str| Some(LEFTOVERS.captures(name)?.name("name")?.as_str().to_owned());
    let whole = origin(&name).filter(|origin| origin.len() < name.len());
    // `secrets-old.yaml`, and `.id_rsa.swp`, where the dot belongs to the addition.
    let (stem, extension) = name.rsplit_once('.').unwrap_or((&name, ""));
    let inner = origin(stem).filter(|origin| origin.len() < stem.len());
    let inner = inner.map(|origin| format!("{origin}.{extension}"));
    let shown = whole.as_ref().and_then(|whole| whole.strip_prefix('.')).map(str::to_owned);
    whole.into_iter().chain(inner).chain(shown).collect()
}

/// The lines as globs. Names are compared in lower case, and a line with a slash inside counts at any depth, unless
/// it begins with one or opens again.
fn globs<'a>(lines: impl IntoIterator<Item = &'a str>, problems: &mut Vec<String>) -> Gitignore {
    let mut builder = GitignoreBuilder::new("");
    for line in lines {
        let mut glob = line.to_ascii_lowercase();
        let is_inner = glob.trim_end().trim_end_matches('/').contains('/');
        if is_inner && !glob.starts_with(['/', '!', '#']) && !glob.starts_with("**/") {
            glob.insert_str(0, "**/");
        }
        if let Err(error) = builder.add_line(None, &glob) {
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
    fn a_name_with_many_additions_takes_no_time() {
        let name = format!("x{}", ".bak".repeat(63));
        assert!(!SecretFiles::built_in().is_named(Path::new(&name), false));
        let name = format!(".env{}", "-old.bak".repeat(31));
        assert!(SecretFiles::built_in().is_named(Path::new(&name), false));
    }

    #[test]
    fn names_distinguish_secret_files_from_similar_ones() {
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
            "docker/config.json",
            ".env.example",
            "secrets.yaml.example",
            "staging.tfvars.sample",
            "id_rsa.pub.bak",
            "main.rs.bak",
            "notes.1",
            "src/auth.json",
            "kubeconfig_test.go",
            "shadow",
        ] {
            check(open, false);
        }
        for folder in
            [".ssh", "a/.aws", ".kube", ".config/gcloud", "a/.config/gcloud", ".SSH", ".aws.bak"]
        {
            assert!(SecretFiles::built_in().is_named(Path::new(folder), true), "{folder}");
        }
        for folder in [".env.d/x", "ssh", "aws", ".github", ".config"] {
            assert!(!SecretFiles::built_in().is_named(Path::new(folder), true), "{folder}");
        }
    }

    #[test]
    fn a_name_counts_at_any_depth_in_any_case_and_with_what_an_editor_adds() {
        for secret in [
            ".ENV",
            "ID_RSA",
            "Server.KEY",
            "sub/.docker/config.json",
            "a/b/.cargo/credentials.toml",
            "a/.CONFIG/gh/hosts.yml",
            ".env~",
            "#.env#",
            ".#.env",
            ".env.swp",
            ".env.orig",
            ".env.old",
            ".env.save",
            "id_rsa.bak",
            "id_rsa.1",
            "id_rsa.bak.2",
            "id_rsa (1)",
            "id_rsa_old",
            "Copy of id_rsa",
            ".id_rsa.swp",
            "server.key~",
            "server.key.20240131",
            "secrets-old.yaml",
            "secrets (2).yaml.bak",
            ".npmrc.bak",
            "sub/.docker/config.json.orig",
            "secrets.yml",
            "config/secrets.yaml",
            ".dev.vars",
            ".streamlit/secrets.toml",
            "staging.tfvars",
            "kubeconfig.yaml",
            ".flaskenv",
            "local.settings.json",
        ] {
            assert!(SecretFiles::built_in().is_named(Path::new(secret), false), "{secret}");
        }
    }

    #[test]
    fn the_content_decides_where_the_name_does_not() {
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
        let fine = "url = https://host/r\n url = git@host:r\n url = https://me@host/r";
        for config in [".git/config", "vendor/x/.git/config", ".git/modules/a/b/config"] {
            check(config, "url = https://q8Zr2LmXv9WcYb4s@host/r", true);
            check(config, "[github]\n token = x", true);
            check(config, fine, false);
        }
        check("deploy_ed25519", "-----BEGIN OPENSSH PRIVATE KEY-----", true);
        check("deploy_ed25519", "notes", false);
        check("a/keys/deploy", "-----BEGIN OPENSSH PRIVATE KEY-----", true);
        check("a/keys/deploy.rs", "-----BEGIN OPENSSH PRIVATE KEY-----", false);
        check("tls/server.crt", "-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----", true);
        check("age-key.txt", "# public key: age1\nAGE-SECRET-KEY-1ABC", true);
        check("a.pem.bak", "-----BEGIN PRIVATE KEY-----", true);
        check("B.PEM", "-----BEGIN PRIVATE KEY-----", true);
        check("auth.json", "{\"http-basic\": {\"host\": {}}}", true);
        check("locales/auth.json", "{\"login\": \"Log in\", \"password\": \"Password\"}", false);
        check("appsettings.Production.json", "{\"Db\": \"Server=x;Password=hunter22;\"}", true);
        check("appsettings.json", "{\"Logging\": {\"Level\": \"Debug\"}}", false);
        check("my-secret.yaml", "kind: Secret\ndata:\n  token: aGVsbG8gd29ybGQ=", true);
        check("my-secret.yaml", "kind: Secret\ndata:\n  token: {{ .Values.token }}", false);
        check("kubeconfig-dev", "users:\n- user:\n    token: abc", true);
        check("database.yml", "production:\n  password: hunter22", true);
        check("database.yml", "production:\n  password: <%= ENV[\"X\"] %>", false);
        check("wg0.conf", &format!("PrivateKey = {}=", "a".repeat(43)), true);
        check("late.json", &format!("{}\"type\": \"service_account\"", " ".repeat(20_000)), false);
    }

    #[test]
    fn a_search_finds_deep_files_and_the_target_of_a_secret_name() {
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
        symlink("/usr", project.join(".aws")).unwrap();
        symlink("/etc/passwd", project.join(".env")).unwrap();
        let found = SecretFiles::built_in().search(&project, &|| false);
        let secret = [".ssh", "a/b/.env", "node_modules/x/.npmrc", "plain"];
        let mut expected = vec![root.join("outside")];
        expected.extend(secret.map(|path| project.join(path)));
        assert_eq!(found, SecretPaths { secret: expected, unseen: vec![] });
    }

    #[test]
    fn a_search_that_must_end_reports_the_unsearched_folders() {
        let project = tempfile::tempdir().unwrap();
        for path in ["a/b/.env", "c/.env", ".env"] {
            fs::create_dir_all(project.path().join(path).parent().unwrap()).unwrap();
            fs::write(project.path().join(path), "").unwrap();
        }
        let reach = Reach { entries: 3, ..Reach::default() };
        let found = SecretFiles::built_in().search_within(project.path(), reach, &|| false);
        assert_eq!(found.secret, [project.path().join(".env")]);
        let mut unseen = found.unseen;
        unseen.sort();
        assert_eq!(unseen, [project.path().join("a"), project.path().join("c")]);
    }

    #[test]
    fn a_search_that_is_stopped_reads_no_further_folder() {
        let project = tempfile::tempdir().unwrap();
        let folders: Vec<_> = (0..50).map(|n| project.path().join(format!("{n:02}/a"))).collect();
        for folder in &folders {
            fs::create_dir_all(folder).unwrap();
        }
        let asked = std::cell::Cell::new(0);
        let stop = || {
            asked.set(asked.get() + 1);
            asked.get() > 10
        };
        let found = SecretFiles::built_in().search(project.path(), &stop);
        // The root and nine of its folders were read: 41 others, and what lies in the nine, is left.
        assert_eq!((found.secret.len(), found.unseen.len(), asked.get()), (0, 50, 60));
    }

    #[test]
    fn a_user_adds_lines_and_takes_some_back() {
        let more = ["*.Secret", "vault/x", "/top/y", "!public.key", "!test/own.key"];
        let files = SecretFiles::with(&more.map(str::to_owned)).unwrap();
        for (path, expected) in [
            ("a.secret", true),
            ("b.key", true),
            ("public.key", false),
            ("a/vault/x", true),
            ("top/y", true),
            ("a/top/y", false),
            ("test/own.key", false),
            ("a/test/own.key", true),
        ] {
            assert_eq!(files.is_named(Path::new(path), false), expected, "{path}");
        }
        assert!(SecretFiles::with(&["[z-a]".to_owned()]).is_err());
    }

    #[test]
    fn every_unusable_line_is_reported() {
        let holding = [Holding { files: vec!["[y-b]".to_owned()], text: "(".to_owned() }];
        let problems = SecretFiles::new(["[z-a]", "fine"], &holding).unwrap_err();
        assert_eq!(problems.len(), 3, "{problems:?}");
        for (problem, named) in problems.iter().zip(["[z-a]", "[y-b]", "unclosed group"]) {
            assert!(problem.contains(named), "{problem}");
        }
    }
}
