//! The agent file, which gives each dialect its system prompt and its tools.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::dialect::Dialect;
use super::folders;
use super::profile::Profile;
use crate::error::{Error, Kind, Result};

/// Returns the names and contents of the agent files. The first one goes on the command line.
fn files(
    dialect: Dialect,
    profile: Profile,
    system_prompt: &str,
) -> Result<Vec<(&'static str, String)>> {
    let tools: Vec<&str> = profile.tools().map(|tool| tool.in_agent_file(dialect)).collect();
    // Both CLIs expand `${…}` in a system prompt, and kimi-cli runs it through Jinja. A space breaks such marks.
    let system_prompt =
        ["${", "{{", "{%", "{#"].iter().fold(system_prompt.to_owned(), |text, opening| {
            text.replace(opening, &format!("{} {}", &opening[..1], &opening[1..]))
        });
    match dialect {
        Dialect::KimiCode => {
            let front_matter = yaml(&json!({
                "name": profile.agent_name(),
                "description": profile.description(),
                "tools": tools,
                "subagents": [],
            }))?;
            Ok(vec![("agent.md", format!("---\n{front_matter}---\n\n{system_prompt}"))])
        }
        Dialect::KimiCli => {
            let agent = yaml(&json!({
                "version": 1,
                "agent": {
                    "name": profile.agent_name(),
                    "system_prompt_path": "./system_prompt.md",
                    "tools": tools,
                    "subagents": {},
                },
            }))?;
            Ok(vec![("agent.yaml", agent), ("system_prompt.md", system_prompt)])
        }
    }
}

/// Writes the agent files into the folder of a run, and returns the one for the command line.
pub(super) fn write(
    dialect: Dialect,
    profile: Profile,
    system_prompt: &str,
    folder: &Path,
) -> Result<PathBuf> {
    let files = files(dialect, profile, system_prompt)?;
    for (name, text) in &files {
        folders::write_new(&folder.join(name), text.as_bytes())?;
    }
    Ok(folder.join(files[0].0))
}

fn yaml(value: &Value) -> Result<String> {
    serde_yaml::to_string(value).map_err(|error| {
        let hint = "This is a fault of kimi-bridge; please report it.";
        Error::new(Kind::Spawn, format!("the agent file could not be made: {error}"), hint)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(dialect: Dialect) -> String {
        let files = files(dialect, Profile::reader(), "You are ${x} {% y %}.\n").unwrap();
        let texts: Vec<_> = files.iter().map(|(name, text)| format!("== {name}\n{text}")).collect();
        texts.join("\n")
    }

    #[test]
    fn kimi_code_gets_five_reading_tools_and_no_subagent() {
        insta::assert_snapshot!(shown(Dialect::KimiCode));
    }

    #[test]
    fn kimi_cli_gets_five_reading_tools_and_no_subagent() {
        insta::assert_snapshot!(shown(Dialect::KimiCli));
    }
}
