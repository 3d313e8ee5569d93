//! `config/profiles.yaml`: the tools, variables and files of Kimi's runs. It is compiled in.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

use serde::Deserialize;

use super::dialect::Dialect;
use super::node;
use crate::settings::Environment;

const FILE: &str = include_str!("../../config/profiles.yaml");

/// The contents of `config/profiles.yaml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Profiles {
    tested: Tested,
    tools: Vec<Tool>,
    #[serde(rename = "profiles")]
    agents: BTreeMap<String, Agent>,
    environment: Vec<String>,
    fixed_environment: BTreeMap<String, String>,
    /// The top-level keys of the user's `config.toml` that a private home gets.
    pub(crate) carried_over: Vec<String>,
    /// The files of the user that a private home gets.
    pub(crate) copied: Vec<String>,
    /// The entries of a private home that stay from one run to the next, each with its kind. All others are removed.
    pub(crate) known: BTreeMap<String, EntryKind>,
}

/// An agent as a profile describes it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Agent {
    name: String,
    description: String,
    tools: Vec<String>,
}

/// The kind of a run. It decides the tools and the private home.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Profile {
    /// The name, which is also the name of a folder.
    pub(crate) name: &'static str,
    agent: &'static Agent,
}

impl Profile {
    /// Every profile.
    pub(crate) fn all() -> impl Iterator<Item = Profile> {
        profiles().agents.iter().map(|(name, agent)| Profile { name, agent })
    }

    /// The profile of a run that reads a project.
    #[expect(clippy::expect_used, reason = "the file is compiled in, and a test reads it")]
    pub(crate) fn reader() -> Profile {
        Profile::all().find(|profile| profile.name == "reader").expect("there is a reader")
    }

    /// The name of the agent, in an agent file.
    pub(crate) fn agent_name(self) -> &'static str {
        &self.agent.name
    }

    /// The description of the agent, in an agent file.
    pub(crate) fn description(self) -> &'static str {
        &self.agent.description
    }

    /// The allowed tools.
    pub(crate) fn tools(self) -> impl Iterator<Item = &'static Tool> {
        let names = self.agent.tools.iter();
        names.filter_map(|name| profiles().tools.iter().find(|tool| tool.name == *name))
    }
}

/// The kind of an entry of a private home.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EntryKind {
    File,
    Folder,
}

/// The version of each program that the tests run against.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tested {
    kimi_code: String,
    kimi_cli: String,
}

/// One tool, with the bridge's name and the name in each dialect.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tool {
    pub(crate) name: String,
    kimi_code: String,
    kimi_cli: String,
}

impl Tool {
    /// The tool's name in this dialect's stream.
    pub(crate) fn when_called(&self, dialect: Dialect) -> &str {
        let name = self.in_agent_file(dialect);
        name.rsplit(':').next().unwrap_or(name)
    }

    /// The tool's name in this dialect's agent file.
    pub(crate) fn in_agent_file(&self, dialect: Dialect) -> &str {
        match dialect {
            Dialect::KimiCode => &self.kimi_code,
            Dialect::KimiCli => &self.kimi_cli,
        }
    }
}

#[expect(clippy::expect_used, reason = "the file is compiled in, and a test reads it")]
static PROFILES: LazyLock<Profiles> =
    LazyLock::new(|| serde_yaml::from_str(FILE).expect("config/profiles.yaml is readable"));

pub(crate) fn profiles() -> &'static Profiles {
    &PROFILES
}

impl Profiles {
    /// The version of a dialect's program that the tests run against.
    pub(crate) fn tested(&self, dialect: Dialect) -> &str {
        match dialect {
            Dialect::KimiCode => &self.tested.kimi_code,
            Dialect::KimiCli => &self.tested.kimi_cli,
        }
    }

    /// Converts a tool's name in a dialect's stream into its name in [`super::Evidence`]. Unknown names stay.
    pub(crate) fn common_tool_name<'a>(&'a self, dialect: Dialect, name: &'a str) -> &'a str {
        let known = self.tools.iter().find(|tool| tool.when_called(dialect) == name);
        known.map_or(name, |tool| tool.name.as_str())
    }

    /// Returns the environment of a program: the listed variables, the user's `keys` variables, and the variables that
    /// are set for every run.
    pub(crate) fn environment(
        &self,
        program: &Path,
        user: &Environment,
        keys: &[String],
    ) -> BTreeMap<String, String> {
        let allowed = |name: &str| {
            keys.iter().any(|key| key == name)
                || self.environment.iter().any(|pattern| match pattern.strip_suffix('*') {
                    Some(beginning) => name.starts_with(beginning),
                    None => name == pattern,
                })
        };
        let mut environment: BTreeMap<String, String> = user
            .vars
            .iter()
            .filter(|(name, _)| allowed(name))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let options = user.var("NODE_OPTIONS").and_then(node::certificate_options);
        environment.extend(options.map(|options| ("NODE_OPTIONS".to_owned(), options)));
        environment.extend(node::path_for(program, user).map(|path| ("PATH".to_owned(), path)));
        environment.extend(self.fixed_environment.clone());
        environment
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tested_versions_are_those_that_the_tests_install() {
        const SCRIPT: &str =
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/install-kimi"));
        let check = |dialect: Dialect, variable: &str, before: &str| {
            let line = SCRIPT.lines().find_map(|line| line.strip_prefix(variable)).unwrap();
            let version = line.strip_prefix(before).unwrap().split([' ', ')']).next().unwrap();
            assert_eq!(profiles().tested(dialect), version);
        };
        check(Dialect::KimiCode, "kimi_code=", "@moonshot-ai/kimi-code@");
        check(Dialect::KimiCli, "kimi_cli=", "(");
    }

    #[test]
    fn every_tool_of_a_profile_is_listed() {
        for profile in Profile::all() {
            assert_eq!(profile.tools().count(), profile.agent.tools.len(), "{}", profile.name);
        }
        assert_eq!(Profile::reader().tools().count(), 5);
    }

    #[test]
    fn only_listed_variables_reach_the_child() {
        let vars = [
            ("PATH", "/bin"),
            ("LC_ALL", "C"),
            ("KIMI_MODEL_NAME", "k2"),
            ("ANTHROPIC_API_KEY", "secret"),
            ("CLAUDE_CODE_MESSAGING_TOKEN", "secret"),
            ("MY_KEY", "named by a provider"),
            ("SHELL", "/bin/zsh"),
            ("NODE_OPTIONS", "--require=/tmp/evil.js --use-system-ca"),
            ("NODE_USE_SYSTEM_CA", "1"),
            ("KIMI_CODE_HOME", "/home/me/.kimi-code"),
        ];
        let user = Environment {
            vars: vars.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            ..Environment::default()
        };
        let environment =
            profiles().environment(Path::new("/bin/kimi"), &user, &["MY_KEY".to_owned()]);
        let names: Vec<_> = environment.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                "FASTMCP_ENV_FILE",
                "KIMI_CLI_NO_AUTO_UPDATE",
                "KIMI_CODE_NO_AUTO_UPDATE",
                "KIMI_DISABLE_TELEMETRY",
                "KIMI_MODEL_NAME",
                "LC_ALL",
                "MY_KEY",
                "NODE_OPTIONS",
                "NODE_USE_SYSTEM_CA",
                "NO_COLOR",
                "PATH",
                "SHELL",
            ]
        );
        assert_eq!(environment["SHELL"], "/bin/false");
        assert_eq!(environment["NODE_OPTIONS"], "--use-system-ca");
    }
}
