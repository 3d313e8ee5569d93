//! What `kimi-bridge doctor` says, and the machines that it is asked on.

use std::fs;
use std::path::Path;

use regex::Regex;
use serde_json::Value;

use super::world::{Ran, World, write_program};

/// A path with the few programs that scripts need, and ripgrep, whatever this machine has.
pub(crate) fn bare(world: World) -> World {
    let bin = world.home().join("bin");
    write_program(&bin.join("rg"), "#!/bin/sh\n");
    let path = format!("{}:/usr/bin:/bin", bin.display());
    world.with(&[("PATH", &path)])
}

/// A machine whose `kimi` says only its version, and that has a key.
pub(crate) fn with_kimi(version: &str) -> World {
    bare(World::with_fake(version, "exit 1")).with(&[("KIMI_MODEL_API_KEY", "sk-scripted")])
}

pub(crate) fn report(world: &World) -> Report {
    Report::of(&world.run(&["doctor", "--json"]))
}

/// What `--json` printed.
pub(crate) struct Report {
    pub(crate) code: i32,
    pub(crate) json: Value,
}

impl Report {
    #[track_caller]
    pub(crate) fn of(ran: &Ran) -> Report {
        assert_eq!(ran.stderr, "", "{ran:?}");
        let json = ran.json();
        let code = ran.code.unwrap();
        assert_eq!(json["exit_code"], code);
        Report { code, json }
    }

    /// Every check of a part by this name: its status, what was found, and what to do.
    pub(crate) fn checks(&self, part: &str, name: &str) -> Vec<(String, String, String)> {
        let sections = self.json["sections"].as_array().unwrap();
        let section = sections.iter().find(|section| section["part"] == part).unwrap();
        let checks = section["checks"].as_array().unwrap();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let named = checks.iter().filter(|check| check["name"] == name);
        named
            .map(|check| (text(&check["status"]), text(&check["says"]), text(&check["remedy"])))
            .collect()
    }

    #[track_caller]
    pub(crate) fn check(&self, part: &str, name: &str, expected: &[(&str, &str, &str)]) {
        let expected: Vec<_> = expected
            .iter()
            .map(|(status, says, remedy)| {
                ((*status).to_owned(), (*says).to_owned(), (*remedy).to_owned())
            })
            .collect();
        assert_eq!(self.checks(part, name), expected);
    }

    /// Every warning and every problem says what to do; a problem has a kind, nothing else has one.
    #[track_caller]
    pub(crate) fn is_whole(&self) {
        for section in self.json["sections"].as_array().unwrap() {
            for check in section["checks"].as_array().unwrap() {
                let status = check["status"].as_str().unwrap();
                let remedy = check["remedy"].as_str().unwrap_or_default();
                let is_problem = status == "problem";
                assert_eq!(check["kind"].is_string(), is_problem, "{check}");
                let needs_remedy = is_problem || status == "warning";
                assert!(!needs_remedy || remedy.ends_with(['.', '?']), "{check}");
            }
        }
    }
}

/// What differs from machine to machine, from run to run. Everything that is named lies in the home, so
/// lines end at the same words everywhere.
pub(crate) fn normal(text: &str) -> String {
    // This machine's own Kimi, if it has one.
    let lines = text.lines().filter(|line| !line.starts_with("  · other"));
    let mut text = lines.collect::<Vec<_>>().join("\n");
    for (pattern, instead) in [
        (r"127\.0\.0\.1:\d+", "127.0.0.1:PORT"),
        (r"in \d+\.\d s", "in N s"),
        (r"after \d+\.\d s", "after N s"),
        (r"in \d+ ms", "in N ms"),
        (r"\d+ [GM]B are free", "N GB are free"),
        (r"Landlock[^\n]*", "Landlock…"),
        (r"(session_)?[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]+", "SESSION"),
    ] {
        text = Regex::new(pattern).unwrap().replace_all(&text, instead).into_owned();
    }
    text + "\n"
}

pub(crate) fn served(extra: &str) -> String {
    let bridge = env!("CARGO_BIN_EXE_kimi-bridge");
    format!(
        r#"{{"mcpServers": {{"kimi-bridge": {{"command": "{bridge}", "args": ["serve"], "env": {{"KIMI_BRIDGE_TOOL_ENABLED": "1"}}{extra}}}}}}}"#
    )
}

pub(crate) fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}
