//! Node, which runs a Kimi Code CLI that npm installed. A host often starts the bridge with another `PATH` than the
//! user's shell has, so Node may be another one, too old, or missing.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind};
use crate::settings::Environment;

/// The release of Node that Kimi Code CLI needs.
const NEEDED: u64 = 24;
const HINT: &str = "Install Node 24 (nodejs.org, or `nvm install 24`) and put it first on the PATH that kimi-bridge is \
                    started with; a host has a PATH of its own. Or set KIMI_PATH to a `kimi` with its own `node` beside it.";
/// The most links that are followed from a program to its file.
const LINKS: usize = 16;
/// The bytes that are read of a program, to find its first line.
const FIRST_LINE: u64 = 512;

/// The Node of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    /// No `node` was found.
    Missing,
    /// The file, and the version that it printed.
    Found(PathBuf, String),
}

impl Node {
    /// Returns an error if Kimi Code CLI cannot run on this Node.
    pub(crate) fn problem(&self) -> Option<Error> {
        let message = match self {
            Node::Missing => {
                format!("there is no `node` on PATH; Kimi Code CLI needs Node {NEEDED}")
            }
            Node::Found(_, version) if major(version).is_none_or(|major| major >= NEEDED) => {
                return None;
            }
            Node::Found(path, version) => format!(
                "`node` {version} at {} is too old; Kimi Code CLI needs Node {NEEDED}",
                path.display()
            ),
        };
        Some(Error::new(Kind::Spawn, message, HINT))
    }
}

/// Returns the first number of a version such as `v24.1.0`; `None` for other text.
fn major(version: &str) -> Option<u64> {
    version.trim().strip_prefix('v')?.split('.').next()?.parse().ok()
}

/// Returns whether a program is a script that runs on the `node` on `PATH`.
pub(super) fn is_script(program: &Path) -> bool {
    let first_line = || {
        let mut line = String::new();
        BufReader::new(fs::File::open(program)?.take(FIRST_LINE)).read_line(&mut line).map(|_| line)
    };
    let line = first_line().unwrap_or_default();
    let words: Vec<&str> = line.split_whitespace().collect();
    words.first().is_some_and(|first| first.starts_with("#!") && first.ends_with("/env"))
        && words.last() == Some(&"node")
}

/// Returns the `node` of a script.
pub(super) fn on_path(program: &Path, environment: &Environment) -> Option<PathBuf> {
    let path = path_for(program, environment);
    which::which_in("node", path, &environment.current_dir).ok()
}

/// Returns the `PATH` for a program. The folder with the script's own `node` comes first, because nvm, mise and npm
/// install both in one folder.
pub(super) fn path_for(program: &Path, environment: &Environment) -> Option<String> {
    let path = environment.var("PATH").map(str::to_owned);
    let Some(folder) = folder_with_node(program).filter(|_| is_script(program)) else {
        return path;
    };
    let Some(folder) = folder.to_str() else { return path };
    Some(path.map_or_else(|| folder.to_owned(), |path| format!("{folder}:{path}")))
}

/// Returns the first folder with a `node`, among the folders of the program and of its links.
fn folder_with_node(program: &Path) -> Option<PathBuf> {
    let mut file = program.to_owned();
    for _ in 0..LINKS {
        let folder = file.parent()?;
        let node = fs::metadata(folder.join("node"));
        if node.is_ok_and(|node| node.is_file() && node.permissions().mode() & 0o111 != 0) {
            return Some(folder.to_owned());
        }
        file = folder.join(fs::read_link(&file).ok()?);
    }
    None
}

/// Returns the options of `NODE_OPTIONS` that select certificates. Other options are dropped, because some load code.
pub(super) fn certificate_options(options: &str) -> Option<String> {
    let known = ["--use-system-ca", "--use-openssl-ca", "--use-bundled-ca"];
    let kept: Vec<&str> = options.split_whitespace().filter(|word| known.contains(word)).collect();
    (!kept.is_empty()).then(|| kept.join(" "))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn a_node_that_is_too_old_or_missing_is_reported() {
        let check = |node: Node, expected: Option<&str>| {
            let message = node.problem().map(|error| error.message);
            assert_eq!(message.as_deref(), expected);
        };
        let found = |version: &str| Node::Found("/n/node".into(), version.to_owned());
        check(found("v24.0.0"), None);
        check(found("v30.1.2\n"), None);
        check(found("another program"), None);
        let old = "`node` v22.9.0 at /n/node is too old; Kimi Code CLI needs Node 24";
        check(found("v22.9.0"), Some(old));
        check(Node::Missing, Some("there is no `node` on PATH; Kimi Code CLI needs Node 24"));
    }

    #[test]
    fn the_node_beside_a_script_comes_first() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        let script = "#!/usr/bin/env -S node\n";
        write(&at("nvm/v24/lib/node_modules/k/main.mjs"), script);
        write(&at("nvm/v24/bin/node"), "");
        symlink("../lib/node_modules/k/main.mjs", at("nvm/v24/bin/kimi")).unwrap();
        fs::create_dir_all(at("local")).unwrap();
        symlink(at("nvm/v24/bin/kimi"), at("local/kimi")).unwrap();
        write(&at("npm/bin/kimi"), script);
        write(&at("python/bin/kimi"), "#!/usr/bin/env python3\n");
        write(&at("python/bin/node"), "");
        symlink("circle", at("circle")).unwrap();
        let environment = Environment {
            vars: [("PATH".to_owned(), "/bin".to_owned())].into(),
            ..Environment::default()
        };
        let check = |program: &str, first: Option<&str>| {
            let first = first.map(|folder| format!("{}:/bin", at(folder).display()));
            let expected = first.unwrap_or_else(|| "/bin".to_owned());
            assert_eq!(path_for(&at(program), &environment), Some(expected), "{program}");
        };
        check("nvm/v24/bin/kimi", Some("nvm/v24/bin"));
        check("local/kimi", Some("nvm/v24/bin"));
        check("npm/bin/kimi", None);
        check("python/bin/kimi", None);
        check("circle", None);
        check("none", None);
        assert_eq!(on_path(&at("local/kimi"), &environment), Some(at("nvm/v24/bin/node")));
    }

    #[test]
    fn only_options_about_certificates_are_kept() {
        let check = |options: &str, expected: Option<&str>| {
            assert_eq!(certificate_options(options).as_deref(), expected, "{options}");
        };
        check("--use-system-ca", Some("--use-system-ca"));
        check("--require=/tmp/evil.js --use-openssl-ca  --inspect", Some("--use-openssl-ca"));
        check("--require /tmp/evil.js --max-old-space-size=4096", None);
        check("", None);
    }
}
