//! A release, made by the scripts in `packaging/`: packed, published to an npm registry on loopback, installed and run.

use std::env::consts::{ARCH, OS};
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use ignore::WalkBuilder;
use libtest_mimic::Trial;
use regex::Regex;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::support::world::{Ran, World, write_program};
use crate::support::{needs, test};

const VERSION: &str = env!("CARGO_PKG_VERSION");
const TARGETS: [&str; 4] = [
    "aarch64-apple-darwin",
    "aarch64-unknown-linux-musl",
    "x86_64-apple-darwin",
    "x86_64-unknown-linux-musl",
];

pub(crate) fn tests() -> Vec<Trial> {
    let npm = which::which("npm").ok().zip(which::which("python3").ok());
    vec![
        needs("packaging::a_release_is_published_installed_and_run", "npm and Python", npm, |_| {
            release();
        }),
        test("packaging::every_version_is_cargos", versions),
        test("packaging::every_address_names_one_owner", owners),
        test("packaging::no_lock_file_names_a_registry_on_loopback", lock_files),
        test("packaging::the_workflows_call_scripts_that_exist", workflows),
        test("packaging::every_shell_gets_completions", completions),
        test("packaging::every_command_has_a_man_page", man_pages),
    ]
}

/// A shell's start and a package's build go on whatever the settings are.
fn world_with_bad_settings() -> World {
    World::new().with(&[("KIMI_BRIDGE_TIMEOUT_SECONDS", "soon")])
}

fn completions() {
    let world = world_with_bad_settings();
    let script = |shell: &str| {
        let ran = world.run(&["completions", shell]);
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{shell}");
        assert!(ran.stdout.contains("kimi-bridge") && ran.stdout.contains("consult"), "{shell}");
        ran.stdout
    };
    for shell in ["elvish", "fish", "powershell", "zsh"] {
        script(shell);
    }
    let mut bash = Command::new("bash")
        .arg("-n")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    bash.stdin.take().unwrap().write_all(script("bash").as_bytes()).unwrap();
    let parsed = bash.wait_with_output().unwrap();
    assert_eq!((parsed.status.code(), parsed.stderr), (Some(0), Vec::new()));
}

fn man_pages() {
    let world = world_with_bad_settings();
    let folder = world.root().join("share/man1");
    let ran = world.run(&["man", &folder.display().to_string()]);
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (Some(0), "", ""));
    let help = world.run(&["--help"]).stdout;
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands = commands.map_while(|line| line.split_whitespace().next());
    let commands: Vec<&str> = commands.filter(|command| *command != "help").collect();
    assert!(commands.contains(&"consult"), "{help}");
    let mut pages: Vec<String> =
        commands.iter().map(|command| format!("kimi-bridge-{command}.1")).collect();
    pages.push("kimi-bridge.1".to_owned());
    for page in pages {
        let text = fs::read_to_string(folder.join(&page))
            .unwrap_or_else(|error| panic!("{page}: {error}"));
        assert!(text.contains(".SH SYNOPSIS"), "{page}");
    }

    let ran = world.run(&["man", "/dev/null/man1"]);
    let message = "/dev/null/man1: Not a directory (os error 20)";
    assert_eq!(ran.failed(), (2, message.to_owned()));
}

/// Runs a script or a program in the world, to a good end.
#[track_caller]
fn run(world: &World, program: impl AsRef<Path>, args: &[&str]) -> String {
    let mut command = Command::new(program.as_ref());
    command.args(args).env_clear().envs(&world.env).current_dir(world.root());
    let ran = Ran::from(command.stdin(Stdio::null()).output().unwrap());
    assert_eq!(ran.code, Some(0), "{} {args:?}: {ran:?}", program.as_ref().display());
    ran.stdout
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(name)
}

/// The names in a folder, sorted.
fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = entries.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

fn json_of(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn release() {
    let world = World::new();
    let release = world.root().join("release");
    pack(&world, &release);
    let registry = Registry::start(&world);
    let dist = release.display().to_string();
    assert_eq!(run(&world, script("publish"), &[&dist]).matches("+ ").count(), 5);
    let again = run(&world, script("publish"), &[&dist]);
    assert_eq!(again.matches("is published already").count(), 5, "{again}");
    install_for_everybody(&world);
    install_from_a_lock_file(&world, &registry);
}

/// Packs the built program as the one of this machine. Those of other machines would not run here.
fn pack(world: &World, release: &Path) {
    let system = if OS == "macos" { "apple-darwin" } else { "unknown-linux-musl" };
    let own = format!("{ARCH}-{system}");
    let (built, other) = (world.root().join("built"), world.root().join("other"));
    let built_path = built.display().to_string();
    run(world, "strip", &["-o", &built_path, env!("CARGO_BIN_EXE_kimi-bridge")]);
    write_program(&other, "#!/bin/sh\nexit 9\n");
    let others = TARGETS.iter().filter(|target| **target != own);
    let others = others.map(|target| format!("{target}={}", other.display()));
    let mut args = vec![release.display().to_string(), format!("{own}={built_path}")];
    args.extend(others);
    run(world, script("pack"), &args.iter().map(String::as_str).collect::<Vec<_>>());

    let platforms = ["darwin-arm64", "darwin-x64", "linux-arm64", "linux-x64"];
    let archive = |target: &str| format!("kimi-bridge-{target}-v{VERSION}");
    let mut expected: Vec<String> = TARGETS.map(|target| archive(target) + ".tgz").into();
    expected.extend(platforms.map(|platform| format!("kimi-bridge-{platform}.mcpb")));
    expected.extend(["kimi-bridge.rb", "npm", "server.json"].map(str::to_owned));
    expected.sort();
    assert_eq!(names_in(release), expected);
    let mut expected = vec![format!("kimi-bridge-{VERSION}.tgz")];
    expected.extend(platforms.map(|platform| format!("kimi-bridge-{platform}-{VERSION}.tgz")));
    assert_eq!(names_in(&release.join("npm")), expected);

    let own = archive(&own);
    let tgz = release.join(format!("{own}.tgz")).display().to_string();
    run(world, "tar", &["-xzf", &tgz]);
    let unpacked = world.root().join(own);
    let expected = ["CHANGELOG.md", "LICENSE", "README.md", "completions", "kimi-bridge", "man"];
    assert_eq!(names_in(&unpacked), expected);
    let version = format!("kimi-bridge {VERSION}\n");
    assert_eq!(run(world, unpacked.join("kimi-bridge"), &["--version"]), version);
    let shells = ["_kimi-bridge", "kimi-bridge.bash", "kimi-bridge.fish"];
    assert_eq!(names_in(&unpacked.join("completions")), shells);

    let formula = fs::read_to_string(release.join("kimi-bridge.rb")).unwrap();
    for target in TARGETS {
        let name = archive(target) + ".tgz";
        let sum =
            data_encoding::HEXLOWER.encode(&Sha256::digest(fs::read(release.join(&name)).unwrap()));
        let lines = format!("/releases/download/v{VERSION}/{name}\"\n      sha256 \"{sum}\"\n");
        assert!(formula.contains(&lines), "{lines} in {formula}");
    }
    let server = json_of(&release.join("server.json"));
    let packages = server["packages"].as_array().unwrap().iter();
    assert!(packages.chain([&server]).all(|entry| entry["version"] == VERSION), "{server:#}");
    // The registry refuses a longer one.
    assert!(server["description"].as_str().unwrap().len() <= 100);
}

/// An npm registry on loopback. It ends when it is dropped.
struct Registry {
    server: Child,
    port: String,
}

impl Registry {
    /// Starts it, and makes it the one of the world's npm.
    fn start(world: &World) -> Registry {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/npm_registry.py");
        let mut server = Command::new("python3")
            .arg(script)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut port = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut port).unwrap();
        let port = port.trim().to_owned();
        let npmrc = format!(
            "registry=http://127.0.0.1:{port}/\n//127.0.0.1:{port}/:_authToken=scripted\n\
             audit=false\nfund=false\nupdate-notifier=false\n"
        );
        fs::write(world.home().join(".npmrc"), npmrc).unwrap();
        Registry { server, port }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn install_for_everybody(world: &World) {
    let prefix = world.root().join("prefix");
    let prefix_path = prefix.display().to_string();
    run(world, "npm", &["i", "-g", "--ignore-scripts", "--prefix", &prefix_path, "kimi-bridge"]);
    let installed = prefix.join("bin/kimi-bridge");
    assert_eq!(run(world, &installed, &["--version"]), format!("kimi-bridge {VERSION}\n"));
    assert!(run(world, &installed, &["demo"]).contains("F1 BLOCKER"));
    assert!(prefix.join("share/man/man1/kimi-bridge.1").is_file());
    #[cfg(target_os = "linux")]
    only_the_program_stays(world, &installed);

    let packages = prefix.join("lib/node_modules/kimi-bridge/node_modules");
    fs::remove_dir_all(packages).unwrap();
    let ran = Command::new(&installed).env_clear().envs(&world.env).output().unwrap();
    let ran = Ran::from(ran);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""));
    assert!(ran.stderr.contains("is not installed; install kimi-bridge again"), "{}", ran.stderr);
}

/// The launcher becomes the program.
#[cfg(target_os = "linux")]
fn only_the_program_stays(world: &World, installed: &Path) {
    let mut command = Command::new(installed);
    command.arg("serve").env_clear().envs(&world.env).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut serving = command.spawn().unwrap();
    let process = format!("/proc/{}/exe", serving.id());
    crate::support::world::wait_until("the launcher became the program", || {
        fs::read_link(&process).is_ok_and(|program| program.ends_with("kimi-bridge"))
    });
    drop(serving.stdin.take());
    serving.wait().unwrap();
}

/// A folder that depends on the package, as the plugin for Claude Code does.
fn install_from_a_lock_file(world: &World, registry: &Registry) {
    let folder = world.root().join("plugin");
    let package = format!(
        r#"{{"name": "p", "version": "1.0.0", "dependencies": {{"kimi-bridge": "{VERSION}"}}}}"#
    );
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("package.json"), package).unwrap();
    let path = folder.display().to_string();
    run(world, script("lock"), &[&path]);
    let lock = fs::read_to_string(folder.join("package-lock.json")).unwrap();
    assert!(!lock.contains(&registry.port) && !lock.contains("://"), "{lock}");
    for platform in ["darwin-arm64", "darwin-x64", "linux-arm64", "linux-x64"] {
        assert!(lock.contains(&format!("node_modules/@kimi-bridge/{platform}")), "{lock}");
    }
    run(world, "npm", &["ci", "--ignore-scripts", "--prefix", &path]);
    let program = folder.join("node_modules/.bin/kimi-bridge");
    assert_eq!(run(world, program, &["--version"]), format!("kimi-bridge {VERSION}\n"));
}

/// The text files of the repository with their paths, without those that play a part in tests.
fn repository() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut walk = WalkBuilder::new(root);
    walk.hidden(false).filter_entry(|entry| {
        let name = entry.file_name();
        !(name == ".git" || name == "fixtures" || name == "target" || name == "node_modules")
    });
    let files = walk.build().map(|entry| entry.unwrap().into_path()).filter(|path| path.is_file());
    let texts = files.filter_map(|path| {
        let name = path.strip_prefix(root).unwrap().display().to_string();
        Some((name, fs::read_to_string(path).ok()?))
    });
    let texts: Vec<_> = texts.collect();
    assert!(texts.len() > 200, "the repository is read");
    texts
}

fn versions() {
    let mut wrong = Vec::new();
    let mut check = |file: &str, version: &str| {
        if version != VERSION && version != "@VERSION@" {
            wrong.push(format!("{file}: {version}"));
        }
    };
    let in_lock = Regex::new(r#"name = "kimi-bridge"\nversion = "([^"]+)""#).unwrap();
    for (file, text) in repository() {
        if file.ends_with("Cargo.lock") {
            check(&file, &in_lock.captures(&text).unwrap()[1]);
        }
        let name = Path::new(&file).file_name().unwrap();
        let is_json = Path::new(name).extension().is_some_and(|extension| extension == "json");
        // A lock file is written after its version was published.
        if !is_json || name == "package-lock.json" {
            continue;
        }
        let Ok(json) = serde_json::from_str::<Value>(&text) else { continue };
        let depends = ["dependencies", "optionalDependencies"]
            .iter()
            .filter_map(|kind| json[kind].as_object())
            .flatten()
            .filter(|(name, _)| name.contains("kimi-bridge"));
        let entries = json["packages"].as_array().into_iter().flatten();
        let nested = entries.map(|entry| &entry["version"]).chain(depends.map(|(_, value)| value));
        for version in nested.chain([&json["version"]]).filter_map(Value::as_str) {
            check(&file, version);
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
    let changes = fs::read_to_string(script("../CHANGELOG.md")).unwrap();
    assert!(changes.contains(VERSION), "CHANGELOG.md has a section for {VERSION}");
}

fn owners() {
    let owner = fs::read_to_string(script("owner")).unwrap();
    let names = Regex::new(
        r"(?:github\.com/|io\.github\.|--marketplace |marketplace add |brew install )([\w@-]+)/(?:homebrew-)?kimi-bridge\b",
    )
    .unwrap();
    let mut found = 0;
    for (file, text) in repository() {
        for named in names.captures_iter(&text) {
            found += 1;
            assert!(&named[1] == owner.trim() || &named[1] == "@OWNER@", "{file}: {}", &named[0]);
        }
    }
    assert!(found > 8, "the addresses are found: {found}");
}

fn lock_files() {
    let mut locks = repository();
    locks.retain(|(file, _)| {
        ["Cargo.lock", "package-lock.json"].iter().any(|name| file.ends_with(name))
    });
    assert!(locks.len() >= 2, "the lock files are found");
    let loopback = Regex::new(r"127\.0\.0\.1|localhost|\[::1\]").unwrap();
    for (file, text) in locks {
        assert!(!loopback.is_match(&text), "{file} names an address on loopback");
    }
}

fn workflows() {
    let called =
        Regex::new(r"(?:^|\s)((?:packaging|tests/support|\.ci)/[\w-]+(?:[.]\w+)?)").unwrap();
    let mut found = 0;
    for (file, text) in repository() {
        if file.starts_with(".github/workflows/") {
            for path in called.captures_iter(&text) {
                found += 1;
                assert!(script("..").join(&path[1]).is_file(), "{file}: {}", &path[1]);
            }
        }
    }
    assert!(found > 4, "the scripts are found: {found}");
}
