//! What a program needs to start: its own folder, its runtime, and what a wrapper script names.
//!
//! Kimi is installed in many ways: with npm or pnpm, in a virtual environment, with uv or pipx, as a
//! native program, as a copied folder, behind a script of the user's own. All that matters here lies
//! in the user's home, since everything outside may be read anyway.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::path::{Component, Path, PathBuf};
use std::sync::LazyLock;

use regex::Regex;

use crate::settings::Environment;

/// Files that are followed: a program, its interpreter, what its wrapper names, and so on.
const FOLLOWED: usize = 40;
/// A longer script is no wrapper.
const SCRIPT_BYTES: u64 = 64 * 1024;
/// What a runtime keeps beside its `bin`.
const BESIDE_BIN: [&str; 4] = ["lib", "lib64", "libexec", "ssl"];

/// The files and folders that a program needs, each as it is named and with all links resolved.
#[must_use]
pub fn needed_by(program: &Path, environment: &Environment) -> Vec<PathBuf> {
    let mut walk =
        Walk { environment, needed: BTreeSet::new(), seen: BTreeSet::new(), next: Vec::new() };
    walk.next.push(program.to_owned());
    while let Some(file) = walk.next.pop() {
        if walk.seen.len() >= FOLLOWED {
            break;
        }
        if walk.seen.insert(file.clone()) {
            walk.follow(&file);
        }
    }
    walk.needed.into_iter().collect()
}

struct Walk<'a> {
    environment: &'a Environment,
    needed: BTreeSet<PathBuf>,
    seen: BTreeSet<PathBuf>,
    next: Vec<PathBuf>,
}

impl Walk<'_> {
    /// Takes in a file, what surrounds it and what it names.
    fn follow(&mut self, file: &Path) {
        let Ok(kind) = fs::symlink_metadata(file) else { return };
        self.virtual_environment(file);
        if kind.is_symlink() {
            if let (Ok(target), Some(folder)) = (fs::read_link(file), file.parent()) {
                self.next.push(normal(&folder.join(target)));
            }
            // The folders on the way may be links as well.
            self.next.extend(file.canonicalize());
            return;
        }
        if !kind.is_file() {
            return;
        }
        self.needed.insert(file.to_owned());
        self.surroundings(file);
        self.script(file);
    }

    /// The folder that a program belongs to.
    fn surroundings(&mut self, file: &Path) {
        if let Some(modules) = outermost(file, "node_modules") {
            self.needed.insert(modules);
            return;
        }
        let Some(folder) = file.parent() else { return };
        let prefix = folder.parent().unwrap_or(folder);
        if folder.ends_with("bin") {
            // A folder of programs is not one program's own.
            let beside = BESIDE_BIN.map(|name| prefix.join(name));
            self.needed.extend(beside.into_iter().filter(|path| path.is_dir()));
        } else {
            self.needed.insert(folder.to_owned());
        }
    }

    /// A Python of a virtual environment needs the environment and the Python that it was made from.
    fn virtual_environment(&mut self, file: &Path) {
        let Some(root) = file.parent().and_then(Path::parent) else { return };
        let Ok(config) = fs::read_to_string(root.join("pyvenv.cfg")) else { return };
        self.needed.insert(root.to_owned());
        let value = |name: &str| {
            config.lines().find_map(|line| {
                let (key, value) = line.split_once('=')?;
                (key.trim() == name).then(|| PathBuf::from(value.trim()))
            })
        };
        if let Some(bin) = value("home") {
            self.next.extend([bin.join("python3"), bin.join("python")]);
        }
        self.next.extend(value("base-executable"));
    }

    /// What a script names: its interpreter, and paths in it.
    fn script(&mut self, file: &Path) {
        let Some(text) = script_text(file) else { return };
        let first = text.lines().next().unwrap_or_default().trim_start_matches("#!");
        let mut words = first.split_whitespace().filter(|word| !word.starts_with('-'));
        let path = self.environment.var("PATH");
        let on_path = |name: &str| which::which_in(name, path, &self.environment.current_dir).ok();
        let mut named: Vec<PathBuf> = Vec::new();
        match words.next() {
            Some(env) if env.ends_with("/env") => {
                named.extend(words.find(|word| !word.contains('=')).and_then(on_path));
            }
            Some(interpreter) => named.push(interpreter.into()),
            None => {}
        }
        let folder = file.parent().unwrap_or(Path::new("/"));
        // A wrapper that runs `node` by its name.
        let programs = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-'));
        let runtimes =
            programs.filter(|word| ["node", "bun", "python3", "python", "uv"].contains(word));
        named.extend(runtimes.collect::<BTreeSet<_>>().into_iter().filter_map(on_path));
        for found in PATHS.as_ref().into_iter().flat_map(|paths| paths.captures_iter(&text)) {
            let rest = found["rest"].trim_start_matches('/');
            named.push(normal(&match found.name("start").map_or("", |start| start.as_str()) {
                "" => Path::new("/").join(rest),
                "~" | "$HOME" | "${HOME}" => self.environment.home.join(rest),
                // Any other variable most likely holds the folder of the script.
                _ => folder.join(rest),
            }));
        }
        // What a script names as data may be anything; what it runs is a file.
        self.next.extend(named.into_iter().filter(|path| path.is_file()));
    }
}

/// Paths as scripts write them, from the root, the home or a variable.
static PATHS: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"(?P<start>~|\$\{?\w+(?:%/\*)?\}?|)(?P<rest>/(?:[\w@.+-]+/?)+)").ok()
});

/// The text of a script; nothing for another file.
fn script_text(file: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    fs::File::open(file).ok()?.take(SCRIPT_BYTES + 1).read_to_end(&mut bytes).ok()?;
    let is_script = bytes.starts_with(b"#!") && bytes.len() as u64 <= SCRIPT_BYTES;
    if is_script { String::from_utf8(bytes).ok() } else { None }
}

/// The part of the path up to the first component of this name.
fn outermost(path: &Path, name: &str) -> Option<PathBuf> {
    let components: Vec<Component<'_>> = path.components().collect();
    let at = components.iter().position(|component| component.as_os_str() == name)?;
    Some(components[..=at].iter().collect())
}

/// The path without `.` and `..`, by its words alone.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                normal.pop();
            }
            Component::CurDir => {}
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => {
                normal.push(component);
            }
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    /// Makes files (with their text), links (`path -> target`) and says what is needed, relative to the
    /// home.
    #[track_caller]
    fn check(made: &[&str], program: &str, expected: &[&str]) {
        let home = tempfile::tempdir().unwrap();
        let home = home.path().canonicalize().unwrap();
        for line in made {
            let (path, rest) = line.split_once(' ').unwrap_or((line, ""));
            let path = home.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            match rest.strip_prefix("-> ") {
                Some(target) => {
                    symlink(target.replace("HOME", home.to_str().unwrap()), path).unwrap();
                }
                None => fs::write(path, rest.replace("HOME", home.to_str().unwrap())).unwrap(),
            }
        }
        // `which` finds only what may be executed.
        if let Ok(there) = fs::metadata(home.join("nvm/v24/bin/node")) {
            let mut rights = there.permissions();
            rights.set_mode(0o755);
            fs::set_permissions(home.join("nvm/v24/bin/node"), rights).unwrap();
        }
        let environment = Environment {
            home: home.clone(),
            current_dir: home.clone(),
            vars: [("PATH".to_owned(), home.join("nvm/v24/bin").display().to_string())].into(),
            ..Environment::default()
        };
        let needed = needed_by(&home.join(program), &environment);
        let inside = needed.iter().filter_map(|path| path.strip_prefix(&home).ok());
        assert_eq!(inside.collect::<Vec<_>>(), expected.iter().map(Path::new).collect::<Vec<_>>());
    }

    #[test]
    fn a_package_of_npm_needs_its_modules_and_the_node_on_the_path() {
        check(
            &[
                "npm/bin/kimi -> ../lib/node_modules/@m/kimi-code/dist/main.mjs",
                "npm/lib/node_modules/@m/kimi-code/dist/main.mjs #!/usr/bin/env node\n",
                "nvm/v24/bin/node ELF",
                "nvm/v24/lib/x",
            ],
            "npm/bin/kimi",
            &[
                "npm/lib/node_modules",
                "npm/lib/node_modules/@m/kimi-code/dist/main.mjs",
                "nvm/v24/bin/node",
                "nvm/v24/lib",
            ],
        );
    }

    #[test]
    fn a_virtual_environment_needs_the_python_that_it_was_made_from() {
        check(
            &[
                ".local/bin/kimi -> ../share/uv/tools/kimi-cli/bin/kimi",
                ".local/share/uv/tools/kimi-cli/bin/kimi #!HOME/.local/share/uv/tools/kimi-cli/bin/python\n",
                ".local/share/uv/tools/kimi-cli/bin/python -> HOME/pythons/3.13/bin/python3.13",
                ".local/share/uv/tools/kimi-cli/pyvenv.cfg home = HOME/pythons/3.13/bin\n",
                "pythons/3.13/bin/python3 -> python3.13",
                "pythons/3.13/bin/python3.13 ELF",
                "pythons/3.13/lib/x",
            ],
            ".local/bin/kimi",
            &[
                ".local/share/uv/tools/kimi-cli",
                ".local/share/uv/tools/kimi-cli/bin/kimi",
                "pythons/3.13/bin/python3.13",
                "pythons/3.13/lib",
            ],
        );
    }

    #[test]
    fn a_native_program_beside_the_login_needs_itself_alone() {
        check(
            &[".kimi-code/bin/kimi ELF", ".kimi-code/credentials/k.json {}"],
            ".kimi-code/bin/kimi",
            &[".kimi-code/bin/kimi"],
        );
    }

    #[test]
    fn a_copied_folder_is_needed_whole_and_a_wrapper_is_followed() {
        check(
            &[
                "apps/kimi/kimi #!/bin/sh\nhere=$(dirname $0)\nexec \"$here/node/bin/node\" \"$here/main.mjs\"\n",
                "apps/kimi/node/bin/node ELF",
                "apps/kimi/main.mjs x",
            ],
            "apps/kimi/kimi",
            &["apps/kimi", "apps/kimi/kimi", "apps/kimi/main.mjs", "apps/kimi/node/bin/node"],
        );
        check(
            &[
                "bin/kimi #!/bin/sh\nexec node ~/src/k/main.mjs --flag=$HOME/notes \"$@\"\n",
                "src/k/main.mjs x",
                "notes/secret x",
                "nvm/v24/bin/node ELF",
            ],
            "bin/kimi",
            &["bin/kimi", "nvm/v24/bin/node", "src/k", "src/k/main.mjs"],
        );
    }

    #[test]
    fn links_in_a_circle_end() {
        check(&["a/kimi -> ../b/kimi", "b/kimi -> ../a/kimi"], "a/kimi", &[]);
        check(&[], "none", &[]);
    }
}
