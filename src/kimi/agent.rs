//! The agent file: how each dialect is told which tools there are.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::consultant::consultant;
use super::dialect::Dialect;
use crate::error::{Error, Kind, Result};

/// A file to write, as plain data.
#[derive(Debug, PartialEq, Eq)]
pub struct File {
    /// Its name inside the private folder.
    pub name: &'static str,
    /// Its whole text.
    pub text: String,
}

/// The files that make up this dialect's agent; the first is the one to name on the command line.
///
/// # Errors
/// [`Kind::Spawn`] when the YAML cannot be written, which no input can bring about.
pub fn files(dialect: Dialect, system_prompt: &str) -> Result<Vec<File>> {
    let consultant = consultant();
    let tools: Vec<&str> =
        consultant.tools.iter().map(|tool| tool.in_agent_file(dialect)).collect();
    // Both CLIs expand `${…}` in a system prompt, and kimi-cli runs it through Jinja; what is meant
    // literally must not look like either.
    let system_prompt =
        ["${", "{{", "{%", "{#"].iter().fold(system_prompt.to_owned(), |text, opening| {
            text.replace(opening, &format!("{} {}", &opening[..1], &opening[1..]))
        });
    match dialect {
        Dialect::KimiCode => {
            let front_matter = yaml(&json!({
                "name": consultant.name,
                "description": consultant.description,
                "tools": tools,
                "subagents": [],
            }))?;
            Ok(vec![File {
                name: "agent.md",
                text: format!("---\n{front_matter}---\n\n{system_prompt}"),
            }])
        }
        Dialect::KimiCli => Ok(vec![
            File {
                name: "agent.yaml",
                text: yaml(&json!({
                    "version": 1,
                    "agent": {
                        "name": consultant.name,
                        "system_prompt_path": "./system_prompt.md",
                        "tools": tools,
                        "subagents": {},
                    },
                }))?,
            },
            File { name: "system_prompt.md", text: system_prompt },
        ]),
    }
}

/// Writes the agent into the folder of a run, and returns the file to name on the command line.
///
/// # Errors
/// [`Kind::Spawn`] when a file cannot be written.
pub fn write(dialect: Dialect, system_prompt: &str, folder: &Path) -> Result<PathBuf> {
    let files = files(dialect, system_prompt)?;
    for file in &files {
        super::folders::write_anew(&folder.join(file.name), file.text.as_bytes())?;
    }
    Ok(folder.join(files[0].name))
}

fn yaml(value: &serde_json::Value) -> Result<String> {
    serde_yaml::to_string(value).map_err(|error| {
        Error::new(
            Kind::Spawn,
            format!("the agent file could not be made: {error}"),
            "This is a fault of kimi-bridge; please report it.",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(dialect: Dialect) -> String {
        let files = files(dialect, "You are ${x} {% y %}.\n").unwrap();
        let texts: Vec<_> =
            files.iter().map(|file| format!("== {}\n{}", file.name, file.text)).collect();
        texts.join("\n")
    }

    #[test]
    fn kimi_code_is_told_of_five_reading_tools_and_no_subagent() {
        insta::assert_snapshot!(shown(Dialect::KimiCode));
    }

    #[test]
    fn kimi_cli_is_told_of_five_reading_tools_and_no_subagent() {
        insta::assert_snapshot!(shown(Dialect::KimiCli));
    }
}
