//! The files and folders that a program needs to start: its own folder and its runtime. It does not run the program.
//!
//! Kimi is installed in many ways: with npm or pnpm, in a virtual environment, with uv or pipx, as a native program, as
//! a copied folder. Only paths in the user's home matter, because a run may read everything outside of it. Of a script,
//! only the interpreter in the first line is followed, so that a false Kimi cannot open a file by naming it. A wrapper
//! may need more paths; the user adds them with `readable`.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

use super::node;
use crate::sandbox::rules::lexical;
use crate::settings::Environment;

/// The most programs, targets of links and interpreters that are followed.
const FOLLOWED: usize = 60;
/// The bytes that are read of a program.
const FIRST_LINE: u64 = 512;
/// The folders of a runtime next to its `bin`.
const BESIDE_BIN: [&str; 4] = ["lib", "lib64", "libexec", "ssl"];
/// The runtimes that a wrapper script may start by name.
const RUNTIMES: [&str; 4] = ["node", "bun", "deno", "python3"];

/// Returns the files and folders that programs need, each with and without its links. A script runs on the `node` next
/// to it if there is one.
pub(crate) fn needed_by<'a>(
    programs: impl IntoIterator<Item = &'a Path>,
    environment: &Environment,
) -> Vec<PathBuf> {
    let mut walk =
        InstallationWalk { needed: BTreeSet::new(), seen: BTreeSet::new(), next: Vec::new() };
    let programs: Vec<&Path> = programs.into_iter().collect();
    let first = programs.first().copied().unwrap_or(Path::new("/"));
    let path = node::path_for(first, environment);
    let on_path =
        |name: &str| which::which_in(name, path.as_deref(), &environment.current_dir).ok();
    // The last item is followed first: programs come before runtimes, so that their whole folders are added.
    walk.next
        .extend(RUNTIMES.iter().filter_map(|name| Some((on_path(name)?, InstalledPart::Runtime))));
    walk.next
        .extend(programs.into_iter().map(|program| (program.to_owned(), InstalledPart::Program)));
    while let Some((file, part)) = walk.next.pop() {
        if walk.seen.len() >= FOLLOWED {
            break;
        }
        if walk.seen.insert(file.clone()) {
            walk.follow(&file, part, &on_path);
        }
    }
    walk.needed.into_iter().collect()
}

/// The role of a file in an installation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InstalledPart {
    /// The program, with its whole folder.
    Program,
    /// A runtime, with its usual folders.
    Runtime,
}

struct InstallationWalk {
    needed: BTreeSet<PathBuf>,
    seen: BTreeSet<PathBuf>,
    next: Vec<(PathBuf, InstalledPart)>,
}

impl InstallationWalk {
    /// Adds a file and the folders that belong to it.
    fn follow(
        &mut self,
        file: &Path,
        part: InstalledPart,
        on_path: &dyn Fn(&str) -> Option<PathBuf>,
    ) {
        let Ok(kind) = fs::symlink_metadata(file) else { return };
        self.add_virtual_environment(file);
        if kind.is_symlink() {
            if let (Ok(target), Some(folder)) = (fs::read_link(file), file.parent()) {
                self.next.push((lexical(&folder.join(target)), part));
            }
            // The parent folders may be links as well.
            self.next.extend(file.canonicalize().map(|real| (real, part)));
            return;
        }
        // A file that is not a program stays closed, even if a link or a first line names it.
        let Some(start) = start_of_program(file) else { return };
        self.needed.insert(file.to_owned());
        self.add_folders(file, part);
        if let Some(line) = start.strip_prefix("#!") {
            let mut words = line.split_whitespace().filter(|word| !word.starts_with('-'));
            let interpreter = match words.next() {
                Some(env) if env.ends_with("/env") => {
                    words.find(|word| !word.contains('=')).and_then(on_path)
                }
                named => named.map(PathBuf::from),
            };
            self.next.extend(interpreter.map(|interpreter| (interpreter, InstalledPart::Runtime)));
        }
    }

    /// Adds the folders that belong to a file.
    fn add_folders(&mut self, file: &Path, part: InstalledPart) {
        if let Some(modules) = outermost(file, "node_modules") {
            self.needed.insert(modules);
            return;
        }
        let Some(folder) = file.parent() else { return };
        let prefix = folder.parent().unwrap_or(folder);
        if folder.ends_with("bin") {
            // `bin` itself holds other programs too.
            let beside = BESIDE_BIN.map(|name| prefix.join(name));
            self.needed.extend(beside.into_iter().filter(|path| path.is_dir()));
        } else if part == InstalledPart::Program {
            self.needed.insert(folder.to_owned());
        }
    }

    /// Adds the virtual environment of a Python, and the base Python that it was created from.
    fn add_virtual_environment(&mut self, file: &Path) {
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
            let pythons = [bin.join("python3"), bin.join("python")];
            self.next.extend(pythons.map(|python| (python, InstalledPart::Runtime)));
        }
        self.next.extend(value("base-executable").map(|python| (python, InstalledPart::Runtime)));
    }
}

/// Returns the first line of a script, or the magic number of a native program; `None` for any other file.
fn start_of_program(file: &Path) -> Option<String> {
    let kind = fs::metadata(file).ok()?;
    if !kind.is_file() || kind.permissions().mode() & 0o111 == 0 {
        return None;
    }
    let mut bytes = Vec::new();
    fs::File::open(file).ok()?.take(FIRST_LINE).read_to_end(&mut bytes).ok()?;
    let is_native = bytes.starts_with(b"\x7fELF")
        || bytes.starts_with(&[0xcf, 0xfa, 0xed, 0xfe])
        || bytes.starts_with(&[0xca, 0xfe, 0xba, 0xbe]);
    let first = bytes.split(|&byte| byte == b'\n').next().unwrap_or_default();
    (is_native || first.starts_with(b"#!")).then(|| String::from_utf8_lossy(first).into_owned())
}

/// Returns the path up to its first component of this name.
fn outermost(path: &Path, name: &str) -> Option<PathBuf> {
    let components: Vec<Component<'_>> = path.components().collect();
    let at = components.iter().position(|component| component.as_os_str() == name)?;
    Some(components[..=at].iter().collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const ELF: &str = "\x7fELF";

    /// Creates programs (path and text) and links (`-> target`), and compares the needed paths, relative to the home.
    #[track_caller]
    fn check(made: &[(&str, &str)], program: &str, expected: &[&str]) {
        let home = tempfile::tempdir().unwrap();
        let home = home.path().canonicalize().unwrap();
        for (path, text) in made {
            let path = home.join(path);
            let text = text.replace("HOME", home.to_str().unwrap());
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            if let Some(target) = text.strip_prefix("-> ") {
                symlink(target, path).unwrap();
            } else {
                fs::write(&path, text).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            }
        }
        let environment = Environment {
            home: home.clone(),
            current_dir: home.clone(),
            vars: [("PATH".to_owned(), home.join("nvm/v24/bin").display().to_string())].into(),
            ..Environment::default()
        };
        let needed = needed_by([&*home.join(program)], &environment);
        let inside = needed.iter().filter_map(|path| path.strip_prefix(&home).ok());
        assert_eq!(inside.collect::<Vec<_>>(), expected.iter().map(Path::new).collect::<Vec<_>>());
    }

    #[test]
    fn a_package_of_npm_needs_its_modules_and_the_node_on_the_path() {
        check(
            &[
                ("npm/bin/kimi", "-> ../lib/node_modules/@m/kimi-code/dist/main.mjs"),
                ("npm/lib/node_modules/@m/kimi-code/dist/main.mjs", "#!/usr/bin/env node\n"),
                ("nvm/v24/bin/node", ELF),
                ("nvm/v24/lib/x", ""),
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
    fn a_virtual_environment_needs_its_base_python() {
        let tool = ".local/share/uv/tools/kimi-cli";
        check(
            &[
                (".local/bin/kimi", "-> ../share/uv/tools/kimi-cli/bin/kimi"),
                (&format!("{tool}/bin/kimi"), &format!("#!HOME/{tool}/bin/python\n")),
                (&format!("{tool}/bin/python"), "-> HOME/pythons/3.13/bin/python3.13"),
                (&format!("{tool}/pyvenv.cfg"), "home = HOME/pythons/3.13/bin\n"),
                ("pythons/3.13/bin/python3", "-> python3.13"),
                ("pythons/3.13/bin/python3.13", ELF),
                ("pythons/3.13/lib/x", ""),
            ],
            ".local/bin/kimi",
            &[tool, &format!("{tool}/bin/kimi"), "pythons/3.13/bin/python3.13", "pythons/3.13/lib"],
        );
    }

    #[test]
    fn a_native_program_beside_the_login_needs_only_itself() {
        check(
            &[(".kimi-code/bin/kimi", ELF), (".kimi-code/credentials/k.json", "{}")],
            ".kimi-code/bin/kimi",
            &[".kimi-code/bin/kimi"],
        );
    }

    #[test]
    fn a_copied_program_needs_its_whole_folder() {
        check(
            &[
                ("bin/kimi", "-> ../apps/kimi/kimi"),
                ("apps/kimi/kimi", "#!/bin/sh\nexec \"$(dirname $0)/node\" main.mjs\n"),
                ("apps/kimi/node", ELF),
            ],
            "bin/kimi",
            &["apps/kimi", "apps/kimi/kimi"],
        );
    }

    #[test]
    fn files_that_a_program_names_stay_closed() {
        let evil = "#!HOME/.ssh/id_rsa\ncat HOME/other/tool $HOME/.aws/credentials\n";
        let key = "-----BEGIN OPENSSH PRIVATE KEY-----";
        check(
            &[("bin/kimi", evil), (".ssh/id_rsa", key), ("other/tool", "#!/bin/sh\n")],
            "bin/kimi",
            &["bin/kimi"],
        );
        // The folder of an interpreter stays closed too.
        let evil = "#!HOME/other/tool\n";
        check(
            &[("bin/kimi", evil), ("other/tool", "#!/bin/sh\n"), ("other/notes", "x")],
            "bin/kimi",
            &["bin/kimi", "other/tool"],
        );
        check(&[("bin/kimi", "-> ../.ssh/id_rsa"), (".ssh/id_rsa", key)], "bin/kimi", &[]);
    }

    #[test]
    fn circular_links_are_ignored() {
        check(&[("a/kimi", "-> ../b/kimi"), ("b/kimi", "-> ../a/kimi")], "a/kimi", &[]);
        check(&[], "none", &[]);
    }
}
