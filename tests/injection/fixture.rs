//! A hostile project as `fixtures/injection/projects` describes it. They are descriptions and not
//! files, since their rules, hooks and links would work on whoever opens this repository with an
//! agent.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::support::kimi::Real;
use crate::support::model::Step;
use crate::support::world::{World, write_program};

/// What the files of a project and the caller's words hold, and must not bring into what the model
/// is told.
pub(super) const CANARY: &str = "OVERRIDE";

/// A project, what the model reads of it, what it answers, and what must come of that.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fixture {
    /// The attacks, for the index.
    pub(super) tries: Vec<String>,
    /// The caller's question.
    #[serde(default = "question")]
    pub(super) message: String,
    /// What Kimi gets of it, where that is not the question as it stands.
    pub(super) sent: Option<String>,
    /// The project's files with their texts.
    files: BTreeMap<String, String>,
    /// Files in the home.
    #[serde(default)]
    outside: BTreeMap<String, String>,
    /// Links with their targets.
    #[serde(default)]
    links: BTreeMap<String, String>,
    /// The model's tool calls: `read`, `glob` or `grep` with its argument.
    reads: Vec<BTreeMap<String, String>>,
    /// What the model says before its answer.
    #[serde(default)]
    says_before: String,
    /// The answer.
    pub(super) answer: Value,
    /// What must come of it.
    pub(super) expected: Expected,
}

/// What must come of an answer.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Expected {
    /// The response, where it is not the answer's as it stands.
    pub(super) response: Option<String>,
    /// The findings without their citations, where they are not the answer's as they stand.
    pub(super) findings: Option<Value>,
    /// The statuses of all citations, in their order.
    pub(super) statuses: Vec<String>,
    /// The paths of all citations, where they are not the answer's.
    pub(super) paths: Option<Vec<String>>,
    /// All warnings.
    pub(super) warnings: Vec<String>,
}

fn question() -> String {
    "Where does this lose data?".to_owned()
}

/// The folder of the fixtures.
pub(super) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/injection")
}

/// The files that describe the projects.
pub(super) fn all() -> Vec<PathBuf> {
    let entries = fs::read_dir(folder().join("projects")).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// A program of this world that leaves a mark when it runs.
pub(super) fn evil(world: &World) -> PathBuf {
    world.root().join("evil")
}

/// The mark.
pub(super) fn mark(world: &World) -> PathBuf {
    world.root().join("it-ran")
}

impl Fixture {
    /// The fixture, with `{HOME}` and `{EVIL}` as they are in this world.
    pub(super) fn read(path: &Path, world: &World) -> Fixture {
        let text = fs::read_to_string(path).unwrap();
        let text = text
            .replace("{HOME}", &world.home().display().to_string())
            .replace("{EVIL}", &evil(world).display().to_string());
        serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Puts the project where the sample project is.
    pub(super) fn make(&self, world: &World) {
        let mark = mark(world).display().to_string();
        write_program(&evil(world), &format!("#!/bin/sh\necho \"$0 $*\" >> '{mark}'\n"));
        let write = |path: PathBuf, text: &str| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        };
        for (name, text) in &self.files {
            write(world.project().join(name), text);
        }
        for (name, text) in &self.outside {
            write(world.home().join(name), text);
        }
        for (name, target) in &self.links {
            symlink(target, world.project().join(name)).unwrap();
        }
    }

    /// The paths of the rules for agents, as a CLI names them.
    pub(super) fn rules(&self, world: &World) -> Vec<String> {
        let project = world.project().canonicalize().unwrap();
        let rules = self.files.keys().filter(|name| name.ends_with("AGENTS.md"));
        rules.map(|name| project.join(name).display().to_string()).collect()
    }

    /// What the model does: it reads, and answers.
    pub(super) fn script(&self, real: Real) -> Vec<Step> {
        let calls = self.reads.iter().flatten().map(|(tool, argument)| match tool.as_str() {
            "read" => (real.read_tool(), json!({"path": argument})),
            "glob" => ("Glob", json!({"pattern": argument})),
            "grep" => ("Grep", json!({"pattern": argument, "path": ".", "output_mode": "content"})),
            unknown => panic!("no tool {unknown}"),
        });
        let answer = format!("{}\n\n```json\n{:#}\n```\n", self.says_before, self.answer);
        vec![Step::Calls(calls.collect()), Step::Text(answer)]
    }
}
