//! The allow-list of the hook that both programs ask before each tool call. It holds without a sandbox too.
//!
//! The bridge writes the policy of a run into the run folder, where Kimi cannot write, and the hook reads it there.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use ignore::overrides::OverrideBuilder;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{address, folders};
use crate::error::{Error, Kind, Result};
use crate::sandbox::SYSTEM_FOLDERS;
use crate::sandbox::SecretFiles;
use crate::sandbox::rules::{canonical, lexical};

/// The hidden command of the binary that runs the hook.
pub(crate) const COMMAND: &str = "guard";
/// The variable of a run's environment that names the run's folder to the hook.
pub(crate) const RUN_DIR: &str = "KIMI_BRIDGE_RUN_DIR";
/// The arguments of a call that are not paths.
const NO_PATHS: [&str; 8] =
    ["pattern", "glob", "type", "output_mode", "query", "url", "limit", "sort"];

/// The longest glob of a search, bytes. Deep nesting in a longer one could make its parser abort.
const GLOB_BYTES: usize = 500;

/// The paths that one run may read, for the hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GuardPolicy {
    /// The project, without links.
    pub(crate) project: PathBuf,
    /// The user's home.
    pub(crate) home: PathBuf,
    pub(crate) private_home: PathBuf,
    /// The file with the prompt, if the prompt goes by a file.
    pub(crate) prompt: Option<PathBuf>,
    /// The paths of the setting `readable`.
    pub(crate) readable: Vec<PathBuf>,
    /// The folders of the bridge and of Kimi's login, without links. They stay closed inside an open folder too.
    pub(crate) private: Vec<PathBuf>,
    /// The closed files and folders of the project.
    #[serde(with = "as_bytes")]
    pub(crate) closed: Vec<PathBuf>,
    /// The user's own patterns of secret files.
    pub(crate) secret_files: Vec<String>,
    /// True if Kimi fetches through a proxy.
    pub(crate) is_proxied: bool,
}

/// Serializes paths as bytes, because a path in JSON must be UTF-8.
mod as_bytes {
    use std::ffi::OsString;
    use std::path::PathBuf;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(paths: &[PathBuf], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(paths.iter().map(|path| path.as_os_str()))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<PathBuf>, D::Error> {
        let paths = Vec::<OsString>::deserialize(from)?;
        Ok(paths.into_iter().map(PathBuf::from).collect())
    }
}

fn policy_file(run_dir: &Path) -> PathBuf {
    run_dir.join("guard.json")
}

impl GuardPolicy {
    /// Writes the policy into the folder of a run.
    pub(crate) fn write(&self, run_dir: &Path) -> Result<()> {
        let json = serde_json::to_vec(self);
        let json = json.map_err(|error| {
            Error::from_kind(
                Kind::Spawn,
                format!("could not write the policy of the hook: {error}"),
            )
        })?;
        folders::write_new(&policy_file(run_dir), &json)
    }

    /// Reads the policy from the folder of a run.
    pub(crate) fn read(run_dir: &Path) -> Option<GuardPolicy> {
        serde_json::from_slice(&fs::read(policy_file(run_dir)).ok()?).ok()
    }

    /// Returns the reason to refuse a call; `None` allows it.
    pub(crate) fn refusal(&self, call: &Value) -> Option<String> {
        let field = |snake: &str, camel: &str| call.get(snake).or(call.get(camel)).cloned();
        let tool = field("tool_name", "toolName").unwrap_or_default();
        let input = field("tool_input", "toolInput").unwrap_or_default();
        let session = field("session_id", "sessionId").unwrap_or_default();
        let Some(input) = input.as_object() else {
            return Some("the arguments are not a JSON object".to_owned());
        };
        if input.values().any(|value| value.is_array() || value.is_object()) {
            return Some("an argument is a list or an object; pass plain values".to_owned());
        }
        let session = session.as_str().unwrap_or_default();
        let named = paths(input);
        let closed = named.iter().find_map(|path| self.path_refusal(path, session));
        closed.or_else(|| match tool.as_str().unwrap_or_default() {
            "Read" | "ReadFile" if named.is_empty() => Some("the path is missing".to_owned()),
            "Read" | "ReadFile" | "WebSearch" | "SearchWeb" => None,
            "Glob" if has_parent_part(input) => Some("a pattern may not contain `..`".to_owned()),
            "Glob" => self.path_refusal(&fixed_part(input, &named), session),
            // kimi-cli ignores unknown arguments, so a path under another name is checked besides the real one.
            "Grep" => {
                let default = input.get("path").is_none_or(|path| !path.is_string());
                let mut paths = default.then_some(".").into_iter().chain(named);
                paths.find_map(|path| self.search_refusal(path, input))
            }
            "FetchURL" => {
                let url = input.get("url").and_then(Value::as_str).unwrap_or_default();
                address::refusal(url, self.is_proxied)
            }
            other => Some(format!("this run has no tool `{other}`")),
        })
    }

    /// Returns the reason to refuse a path. The path is resolved in both orders, because the programs resolve `..`
    /// before links and the system resolves it after them.
    fn path_refusal(&self, named: &str, session: &str) -> Option<String> {
        let Some(path) = self.absolute(named) else {
            return Some(format!("{named} is not the path of a file"));
        };
        let secret = SecretFiles::with_or_built_in(&self.secret_files);
        for real in [resolved(&lexical(&path)), resolved(&path)] {
            if !self.is_open(&real, session) {
                return Some(format!("{named} is outside the folders that this run may read"));
            }
            let root =
                if real.starts_with(&self.project) { &*self.project } else { Path::new("/") };
            let is_closed = self.closed.iter().any(|closed| real.starts_with(closed));
            if is_closed || secret.is_secret(root, &real) || secret.is_secret(root, &path) {
                return Some(format!(
                    "this run may not read {named}: its name or content marks it as a secret file"
                ));
            }
        }
        None
    }

    /// Resolves a path as a program does: from the project, or from the home. Returns `None` for another user's home.
    fn absolute(&self, named: &str) -> Option<PathBuf> {
        if named.contains("://") || named.contains('\0') {
            return None;
        }
        match named.strip_prefix('~') {
            Some("") => Some(self.home.clone()),
            Some(rest) => Some(self.home.join(rest.strip_prefix('/')?)),
            None => Some(self.project.join(named)),
        }
    }

    /// Returns whether a path without links may be read. The innermost listed folder decides.
    fn is_open(&self, path: &Path, session: &str) -> bool {
        if self.prompt.as_deref().map(canonical).as_deref() == Some(path) {
            return true;
        }
        if let Ok(output) = path.strip_prefix(canonical(&self.private_home)) {
            // kimi-code saves a long result there, and asks the model to read the file.
            let parts: Vec<_> = output.iter().filter_map(|part| part.to_str()).collect();
            return parts.first() == Some(&"sessions")
                && !session.is_empty()
                && parts.contains(&session)
                && parts.contains(&"tool-results");
        }
        let readable = self.readable.iter().map(|path| (canonical(path), true));
        let private = self.private.iter().map(|path| (path.clone(), false));
        let home = canonical(&self.home);
        // A home that is `/` closes nothing.
        let closed_home = (home.parent().is_some()).then_some((home, false));
        let system = SYSTEM_FOLDERS.map(|folder| (PathBuf::from(folder), true));
        let folders = [(self.project.clone(), true)].into_iter().chain(readable).chain(private);
        let around =
            folders.chain(closed_home).chain(system).filter(|(folder, _)| path.starts_with(folder));
        // If a folder is listed as open and as closed, the setting that opens it counts.
        let innermost =
            around.max_by_key(|(folder, is_open)| (folder.components().count(), *is_open));
        innermost.is_some_and(|(_, is_open)| is_open)
    }

    /// Returns a secret file that a search would read outside the project, where the configuration of ripgrep does not
    /// exclude any. In the folders of the system the owner of a file decides.
    fn secret_outside(&self, folder: &Path, closed: &[PathBuf]) -> Option<PathBuf> {
        let is_outside = |path: &&PathBuf| !path.starts_with(&self.project);
        if let Some(closed) = closed.iter().find(is_outside) {
            return Some(closed.clone());
        }
        if folder.starts_with(&self.project)
            || SYSTEM_FOLDERS.iter().any(|known| folder.starts_with(known))
        {
            return None;
        }
        let secret = SecretFiles::with_or_built_in(&self.secret_files);
        let found = secret.search(folder, &|| false);
        let found = found.secret.into_iter().chain(found.unseen);
        found.into_iter().find(|path| is_outside(&path))
    }

    /// Returns the reason to refuse a search. The configuration of ripgrep excludes closed files by path, but another
    /// spelling of the folder, or a glob of the call, would include them again.
    fn search_refusal(&self, named: &str, input: &Map<String, Value>) -> Option<String> {
        let Some(path) = self.absolute(named.strip_prefix("./").unwrap_or(named)) else {
            return Some(format!("{named} is not the path of a file or folder"));
        };
        let real = resolved(&lexical(&path));
        if self.private.iter().any(|folder| folder.starts_with(&real)) {
            return Some(format!("{named} contains folders that this run may not read"));
        }
        let closed = self.closed.iter().map(|path| canonical(path));
        let closed: Vec<PathBuf> = closed.filter(|path| path.starts_with(&real)).collect();
        if let Some(secret) = self.secret_outside(&real, &closed) {
            return Some(format!(
                "{named} contains {}, which this run may not read; read other files of that folder by name",
                secret.display()
            ));
        }
        if closed.is_empty() {
            return None;
        }
        let spelled = path.as_os_str().as_bytes();
        let spelled = spelled.strip_suffix(b"/.").or(spelled.strip_suffix(b"/")).unwrap_or(spelled);
        if spelled != real.as_os_str().as_bytes() {
            return Some(format!(
                "{named} is another spelling of a folder with secret files; search in {} instead",
                real.display()
            ));
        }
        let glob = input.get("glob").and_then(Value::as_str)?;
        if glob.len() > GLOB_BYTES {
            return Some(format!("the glob is longer than {GLOB_BYTES} bytes"));
        }
        let globs = [&self.project, &real]
            .map(|root| OverrideBuilder::new(root).add(glob).and_then(|globs| globs.build()).ok());
        let [Some(from_project), Some(from_folder)] = globs else {
            return Some(format!("the glob {glob} is not valid"));
        };
        let closed = closed.iter().find(|closed| {
            let is_folder = closed.is_dir();
            [&from_project, &from_folder]
                .iter()
                .any(|globs| globs.matched(closed, is_folder).is_whitelist())
        })?;
        Some(format!(
            "the glob {glob} matches {}, which this run may not read; leave the glob out, or search in a folder \
             without that file",
            closed.display()
        ))
    }
}

/// The beginning of a Glob's pattern without wildcards, in its folder: a link there could lead out of the project.
fn fixed_part(input: &Map<String, Value>, named: &[&str]) -> String {
    let pattern = input.get("pattern").and_then(Value::as_str).unwrap_or_default();
    let parts = pattern.split('/').take_while(|part| !part.contains(['*', '?', '[', '{']));
    let fixed = parts.collect::<Vec<_>>().join("/");
    match (named.first(), fixed.is_empty()) {
        (folder, true) => folder.unwrap_or(&".").to_string(),
        (Some(folder), false) if !pattern.starts_with('/') => format!("{folder}/{fixed}"),
        (_, false) => fixed,
    }
}

/// The paths in the arguments of a call: every text except those of [`NO_PATHS`].
fn paths(input: &Map<String, Value>) -> Vec<&str> {
    let texts = input.iter().filter(|(name, _)| !NO_PATHS.contains(&name.as_str()));
    texts.filter_map(|(_, value)| value.as_str()).collect()
}

fn has_parent_part(input: &Map<String, Value>) -> bool {
    let pattern = input.get("pattern").and_then(Value::as_str).unwrap_or_default();
    pattern.split(['/', '{', ',', '}']).any(|part| part == "..")
}

/// Resolves the links in the part of a path that exists, and only `..` in the rest.
fn resolved(path: &Path) -> PathBuf {
    let existing = path.ancestors().find_map(|part| Some((part, part.canonicalize().ok()?)));
    existing.map_or_else(
        || lexical(path),
        |(part, real)| lexical(&real.join(path.strip_prefix(part).unwrap_or(path))),
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use serde_json::json;

    use super::*;

    struct World {
        root: PathBuf,
        policy: GuardPolicy,
    }

    fn world() -> World {
        let root = tempfile::tempdir().unwrap().keep().canonicalize().unwrap();
        let path = |path: &str| root.join(path);
        let files = [
            "home/p/src/main.rs",
            "home/p/conf/.env",
            "home/p/conf/readme",
            "home/p/plain",
            "home/q/a",
            "home/open/a",
            "home/open2/.npmrc",
            "home/open3/linked",
            "home/.ssh/id_rsa",
            "home/.kimi/config.toml",
            "home/state/runs/r/request.md",
            "home/state/runs/r/ripgrep",
            "home/state/ledger.db",
            "home/state/homes/k/config.toml",
            "home/state/homes/k/sessions/w/s1/agents/main/tool-results/x",
            "home/state/homes/k/sessions/w/s1/state.json",
            "home/state/homes/k/sessions/w/s2/agents/main/tool-results/x",
            "elsewhere/a",
        ];
        for file in files {
            fs::create_dir_all(path(file).parent().unwrap()).unwrap();
            fs::write(path(file), "").unwrap();
        }
        for (target, link) in [("../q", "out"), ("conf", "in"), ("conf/.env", "note")] {
            symlink(target, path("home/p").join(link)).unwrap();
        }
        let policy = GuardPolicy {
            project: path("home/p"),
            home: path("home"),
            private_home: path("home/state/homes/k"),
            prompt: Some(path("home/state/runs/r/request.md")),
            readable: vec![path("home/open"), path("home/open2"), path("home/open3")],
            private: vec![path("home/state"), path("home/.kimi")],
            closed: ["p/conf/.env", "p/plain", "open3/linked"]
                .map(|file| path("home").join(file))
                .into(),
            secret_files: vec!["*.mine".to_owned()],
            is_proxied: false,
        };
        World { root, policy }
    }

    impl World {
        #[track_caller]
        fn check(&self, tool: &str, input: &Value, is_refused: bool) {
            let input = input.to_string().replace("ROOT", self.root.to_str().unwrap());
            let input: Value = serde_json::from_str(&input).unwrap();
            let call = json!({"session_id": "s1", "tool_name": tool, "tool_input": input});
            let refusal = self.policy.refusal(&call);
            assert_eq!(refusal.is_some(), is_refused, "{call} {refusal:?}");
        }
    }

    #[test]
    fn only_listed_folders_are_readable() {
        let world = world();
        for (path, is_refused) in [
            ("src/main.rs", false),
            ("src/none.rs", false),
            ("./src/../src/main.rs", false),
            ("ROOT/home/p/src/main.rs", false),
            ("~/p/src/main.rs", false),
            ("conf/readme", false),
            ("in/readme", false),
            ("ROOT/home/open/a", false),
            ("/usr/share/doc", false),
            ("ROOT/home/state/runs/r/request.md", false),
            ("ROOT/home/state/homes/k/sessions/w/s1/agents/main/tool-results/x", false),
            ("conf/.env", true),
            ("in/.env", true),
            ("note", true),
            ("plain", true),
            ("a.mine", true),
            (".ENV", true),
            ("../q/a", true),
            ("out/a", true),
            ("out/../q/a", true),
            ("in/../../q/a", true),
            ("~/.ssh/id_rsa", true),
            ("~root/x", true),
            ("~", true),
            ("ROOT/home/.kimi/config.toml", true),
            ("ROOT/home/state/ledger.db", true),
            ("ROOT/home/state/runs/r/ripgrep", true),
            ("ROOT/home/state/homes/k/config.toml", true),
            ("ROOT/home/state/homes/k/sessions/w/s1/state.json", true),
            ("ROOT/home/state/homes/k/sessions/w/s2/agents/main/tool-results/x", true),
            ("ROOT/home/state/homes/k/sessions/w/s1/tool-results/../state.json", true),
            ("ROOT/elsewhere/a", true),
            ("/proc/self/environ", true),
            ("/proc/1/environ", true),
            ("/dev/sda", true),
            ("/", true),
            ("/etc/../proc/1/environ", true),
            ("file:///etc/passwd", true),
        ] {
            world.check("Read", &json!({"path": path}), is_refused);
            world.check("ReadFile", &json!({"file_path": path, "n_lines": 3}), is_refused);
            world.check("Glob", &json!({"pattern": "*", "directory": path}), is_refused);
        }
    }

    #[test]
    fn a_search_cannot_include_closed_files() {
        let world = world();
        for (input, is_refused) in [
            (json!({}), false),
            (json!({"path": "."}), false),
            (json!({"path": "conf"}), false),
            (json!({"path": "src", "glob": "*"}), false),
            (json!({"glob": "*.rs"}), false),
            (json!({"glob": "!*.rs"}), false),
            (json!({"glob": "*"}), true),
            (json!({"glob": ".env"}), true),
            (json!({"glob": "**/.e[n]v"}), true),
            (json!({"glob": "{plain,x}"}), true),
            (json!({"path": "conf", "glob": ".*"}), true),
            (json!({"path": "conf", "glob": "/.env"}), true),
            (json!({"path": "conf/.env"}), true),
            (json!({"path": "in"}), true),
            (json!({"path": "~"}), true),
            (json!({"path": "/"}), true),
            (json!({"glob": "[z-a]"}), true),
            (json!({"glob": "{".repeat(GLOB_BYTES)}), true),
            (json!({"glob": "{".repeat(100_000)}), true),
            (json!({"path": "./conf/"}), false),
            (json!({"path": "~/p/conf"}), false),
            (json!({"path": "ROOT/home/p"}), false),
            (json!({"path": "src/../src"}), false),
            (json!({"path": "src/.."}), true),
            (json!({"path": "././."}), true),
            (json!({"path": "../p"}), true),
            (json!({"path": "conf/."}), false),
            (json!({"path": "conf/./."}), true),
            (json!({"path": "/ROOT/home/p"}), true),
            (json!({"path": "ROOT/home/p//conf"}), true),
            (json!({"path": "ROOT/home/p//"}), true),
            (json!({"path": "~/p/src/../"}), true),
            (json!({"aaa": "src", "path": "."}), false),
            (json!({"aaa": "src", "path": ".", "glob": "*"}), true),
            (json!({"aaa": "src", "path": "src/.."}), true),
            (json!({"aaa": "src"}), false),
            (json!({"aaa": "src", "glob": "*"}), true),
            (json!({"-A": "3", "glob": "*"}), true),
            (json!({"path": "~/open"}), false),
            (json!({"path": "~/open2"}), true),
            (json!({"path": "~/open3"}), true),
            (json!({"path": "/usr/share/doc"}), false),
            (json!({"path": "src", "zzz": "src/.."}), true),
        ] {
            let mut input = input;
            input["pattern"] = json!("x");
            world.check("Grep", &input, is_refused);
        }
    }

    #[test]
    fn only_the_tools_of_the_run_are_allowed() {
        let world = world();
        world.check("WebSearch", &json!({"query": "~/.ssh"}), false);
        world.check("Glob", &json!({"pattern": "src/*"}), false);
        world.check("Glob", &json!({"pattern": "../q/*"}), true);
        world.check("Glob", &json!({"pattern": "{..,x}/*"}), true);
        world.check("Glob", &json!({"pattern": "out/*"}), true);
        world.check("Glob", &json!({"pattern": "out/*", "directory": "."}), true);
        world.check("Glob", &json!({"pattern": "in/*"}), false);
        world.check("Glob", &json!({"pattern": "*.rs", "directory": "src"}), false);
        world.check("Glob", &json!({"pattern": "ROOT/home/q/*"}), true);
        world.check("FetchURL", &json!({"url": "http://1.1.1.1/"}), false);
        world.check("FetchURL", &json!({"url": "http://127.0.0.1/"}), true);
        world.check("FetchURL", &json!({}), true);
        world.check("Read", &json!({}), true);
        world.check("Bash", &json!({"command": "true"}), true);
        world.check("Read", &json!("x"), true);
        world.check("Read", &json!({"path": "src/main.rs", "paths": ["../q/a"]}), true);
        assert!(world.policy.refusal(&json!({})).is_some());
    }

    #[test]
    fn a_policy_is_read_as_it_was_written() {
        let World { policy, .. } = world();
        let dir = tempfile::tempdir().unwrap();
        policy.write(dir.path()).unwrap();
        assert_eq!(GuardPolicy::read(dir.path()), Some(policy));
        assert_eq!(GuardPolicy::read(Path::new("/nonexistent")), None);
    }
}
