//! A user's machine in a temporary folder: a home, a project in it, and nothing of the developer's.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rustix::process::Pid;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::kimi::Real;
use super::model::Model;

/// The machine. Everything is gone when it is dropped.
pub(crate) struct World {
    root: tempfile::TempDir,
    /// The environment of every program that is started here.
    pub(crate) env: BTreeMap<String, String>,
    /// Whether the bridge runs as [`World::ORDINARY`].
    is_ordinary: bool,
}

impl World {
    /// A user and a group without rights, `nobody` on most systems.
    pub(crate) const ORDINARY: u32 = 65_534;

    /// A machine with the sample project and no Kimi.
    pub(crate) fn new() -> World {
        let root = tempfile::tempdir().unwrap();
        let world = World { root, env: BTreeMap::new(), is_ordinary: false };
        let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/tally");
        fs::create_dir_all(world.project().join("src")).unwrap();
        for file in ["Cargo.toml", "src/main.rs", "src/store.rs"] {
            fs::copy(sample.join(file), world.project().join(file)).unwrap();
        }
        let path = std::env::var("PATH").unwrap();
        let home = world.home().display().to_string();
        world.with(&[("PATH", &path), ("HOME", &home), ("LANG", "C.UTF-8")])
    }

    /// A machine whose `kimi` is the real one and talks to the scripted model.
    pub(crate) fn with_real(real: Real, program: &Path, model: &Model) -> World {
        let mut world = World::new().with(&[("KIMI_PATH", &program.display().to_string())]);
        world.env.extend(real.model_env(model));
        world
    }

    /// A machine whose `kimi` is this shell script; `--version` is answered before it runs.
    pub(crate) fn with_fake(version: &str, script: &str) -> World {
        let world = World::new();
        let path = world.root().join("fake/kimi");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let version = format!("[ \"$1\" = --version ] && {{ echo '{version}'; exit 0; }}");
        write_program(&path, &format!("#!/bin/bash\n{version}\n{script}\n"));
        let path = path.display().to_string();
        // Something that leads to a model, or nothing is started.
        world.with(&[
            ("KIMI_PATH", &path),
            ("KIMI_API_KEY", "sk-scripted"),
            ("KIMI_MODEL_NAME", "scripted"),
            ("KIMI_MODEL_API_KEY", "sk-scripted"),
        ])
    }

    /// The same with more variables.
    pub(crate) fn with(mut self, variables: &[(&str, &str)]) -> World {
        self.env.extend(
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        );
        self
    }

    /// The folder of it all.
    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    /// The user's home.
    pub(crate) fn home(&self) -> PathBuf {
        self.root().join("home")
    }

    /// The project.
    pub(crate) fn project(&self) -> PathBuf {
        self.home().join("tally")
    }

    /// The bridge's state folder.
    pub(crate) fn state(&self) -> PathBuf {
        self.home().join(".local/state/kimi-bridge")
    }

    /// A file beside the program in Kimi's place, which may read it as `"${0%/*}/name"`.
    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.root().join("fake").join(name)
    }

    /// Kimi's private home for the project: the one folder where a program in Kimi's place may write. What lies there is gone before
    /// the next run.
    pub(crate) fn kimis(&self) -> PathBuf {
        self.private_home("kimi-code")
    }

    /// The same for the dialect of this name.
    pub(crate) fn private_home(&self, dialect: &str) -> PathBuf {
        let project = self.project().canonicalize().unwrap();
        let hash = Sha256::digest(project.as_os_str().as_encoded_bytes());
        let hash: Vec<String> = hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let name = format!("tally-{}", hash.concat());
        self.state().join("homes").join(dialect).join("reader").join(name)
    }

    /// Whether a program in Kimi's place left this mark, in the private home or in the home of a version call. That
    /// one lasts as long as the call.
    #[cfg(target_os = "linux")]
    pub(crate) fn is_marked(&self, dialect: &str, mark: &str) -> bool {
        let runs = fs::read_dir(self.state().join("runs")).into_iter().flatten().flatten();
        let homes = runs
            .flat_map(|run| [".kimi-code", ".kimi"].map(|home| run.path().join("tmp").join(home)));
        homes.chain([self.private_home(dialect)]).any(|home| home.join(mark).exists())
    }

    /// The bridge, started in the project.
    pub(crate) fn bridge(&self, args: &[&str]) -> Command {
        let own = self.root().join("kimi-bridge");
        let built = Path::new(env!("CARGO_BIN_EXE_kimi-bridge"));
        let mut command = Command::new(if self.is_ordinary { &own } else { built });
        command.args(args).env_clear().envs(&self.env).current_dir(self.project());
        if self.is_ordinary {
            command.uid(World::ORDINARY).gid(World::ORDINARY);
        }
        command
    }

    /// Gives the machine as it is now to a user without root's rights, as whom the bridge runs from then on. Only root
    /// can do that.
    #[cfg(target_os = "linux")]
    pub(crate) fn give_to_an_ordinary_user(&mut self) {
        let own = self.root().join("kimi-bridge");
        place(Path::new(env!("CARGO_BIN_EXE_kimi-bridge")), &own);
        self.write_context();
        let owner = format!("{0}:{0}", World::ORDINARY);
        // The program is the one that was built, under another name.
        let chown = "find \"$0\" ! -type f -exec chown -h \"$1\" {} + && find \"$0\" -type f -links 1 -exec chown \"$1\" {} +";
        let done = Command::new("sh").args(["-c", chown]).arg(self.root()).arg(owner).status();
        assert!(done.unwrap().success());
        self.is_ordinary = true;
    }

    /// Runs the bridge to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        Ran::from(self.bridge(args).stdin(Stdio::null()).output().unwrap())
    }

    /// Asks as the skeptic of the sample project and gets the JSON result.
    pub(crate) fn consult(&self, extra: &[&str]) -> Ran {
        let context = self.write_context().display().to_string();
        let message = proposal()["message"].as_str().unwrap().to_owned();
        let mut args = vec!["consult", "--json", "--message", &message, "--context", &context];
        args.extend(extra);
        self.run(&args)
    }

    fn write_context(&self) -> PathBuf {
        let context = self.root().join("context.json");
        fs::write(&context, proposal()["context"].to_string()).unwrap();
        context
    }

    /// Every file below a folder with its content, for comparing before and after.
    pub(crate) fn content_of(folder: &Path) -> BTreeMap<PathBuf, String> {
        let mut content = BTreeMap::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten() {
                let path = entry.unwrap().path();
                if path.is_dir() && !path.is_symlink() {
                    folders.push(path);
                } else {
                    let bytes = fs::read(&path).unwrap_or_default();
                    content.insert(path, String::from_utf8_lossy(&bytes).into_owned());
                }
            }
        }
        content
    }
}

/// A request that fits the sample project.
pub(crate) fn proposal() -> Value {
    json!({
        "role": "skeptic",
        "message": "Where does this lose data?",
        "context": {
            "proposed_approach": "Append each increment to tally.log and rebuild the totals from it at start.",
            "goals": ["no acknowledged increment is lost"],
        },
    })
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Ran {
        Ran {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ran {
    /// Standard output as JSON, of a command that ended well.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The kind of the error by its exit code and the first line of the message.
    pub(crate) fn failed(&self) -> (i32, String) {
        let line = self.stderr.lines().find_map(|line| line.strip_prefix("error: "));
        (self.code.unwrap_or(-1), line.unwrap_or(&self.stderr).to_owned())
    }
}

/// Puts a program into a folder, where users find it who may not enter the folder that it was built in.
pub(crate) fn place(program: &Path, path: &Path) {
    fs::hard_link(program, path).or_else(|_| fs::copy(program, path).map(drop)).unwrap();
}

/// Writes an executable file.
pub(crate) fn write_program(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The processes whose command line holds the text: who is left when nobody should be.
pub(crate) fn processes_with(text: &str) -> Vec<String> {
    running_with(text).into_iter().map(|(_, line)| line).collect()
}

/// Kills them, until none is left.
#[cfg(target_os = "linux")]
#[track_caller]
pub(crate) fn kill_all_with(text: &str) {
    use rustix::process::{Signal, kill_process};

    wait_until("all are killed", || {
        let running = running_with(text);
        for (pid, _) in &running {
            // One that has ended since is as good.
            let _ = kill_process(*pid, Signal::KILL);
        }
        running.is_empty()
    });
}

/// The processes in whose command line this text stands.
pub(crate) fn running_with(text: &str) -> Vec<(Pid, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let pid = entry.file_name().to_str().and_then(|name| Pid::from_raw(name.parse().ok()?));
        let Some((pid, bytes)) = pid.zip(fs::read(entry.path().join("cmdline")).ok()) else {
            continue;
        };
        let line = String::from_utf8_lossy(&bytes).replace('\0', " ");
        if line.contains(text) {
            found.push((pid, line));
        }
    }
    found
}

/// Waits until a condition holds; panics when it does not within the time.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !holds() {
        assert!(std::time::Instant::now() < end, "never happened: {what}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
