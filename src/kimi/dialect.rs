//! The two programs called `kimi`, and the differences between them.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::{clean, first_chars};

/// One of the two CLIs called `kimi`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Dialect {
    /// Kimi Code CLI, the Node program.
    KimiCode,
    /// kimi-cli, the retired Python program.
    KimiCli,
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The program that printed an output of `--version`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Identity {
    /// A program that can be used.
    Usable(Dialect, String),
    /// The retired release, which answers everything with a notice.
    Retired(String),
    /// A program that does not answer as a Kimi does.
    Unknown,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Identity::Usable(dialect, version) => write!(f, "{dialect} {version}"),
            Identity::Retired(version) => write!(f, "kimi-cli {version}"),
            Identity::Unknown => f.write_str("no Kimi"),
        }
    }
}

/// A Kimi that can be run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Program {
    /// The file to start.
    pub(crate) path: PathBuf,
    /// Arguments before those of the dialect. The program of the demo needs one.
    #[serde(skip)]
    pub(crate) leading_args: Vec<OsString>,
    /// The CLI that the program is.
    pub(crate) dialect: Dialect,
    /// The version that the program printed.
    pub(crate) version: String,
    /// The source of the path: a setting, `PATH`, or a usual place.
    pub(crate) found: String,
}

impl Dialect {
    /// Both dialects.
    pub const ALL: [Dialect; 2] = [Dialect::KimiCode, Dialect::KimiCli];

    /// Returns the name for JSON and for display.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Dialect::KimiCode => "kimi-code",
            Dialect::KimiCli => "kimi-cli",
        }
    }

    /// Identifies a program by its output of `--version`.
    pub(crate) fn identify(output: &str) -> Identity {
        if let Some(version) = output.lines().find_map(|line| line.strip_prefix("kimi, version ")) {
            let version = first_chars(clean(version).trim(), 40).to_owned();
            return if is_retirement_notice(output) {
                Identity::Retired(version)
            } else {
                Identity::Usable(Dialect::KimiCli, version)
            };
        }
        let first = output.lines().next().unwrap_or_default().trim();
        let is_version = first.split('.').count() >= 3
            && first.starts_with(|c: char| c.is_ascii_digit())
            && first.chars().all(|c| c.is_ascii_alphanumeric() || ".-+".contains(c));
        if is_version {
            Identity::Usable(Dialect::KimiCode, first.to_owned())
        } else {
            Identity::Unknown
        }
    }

    /// Returns the name of the variable that moves the data folder.
    pub(crate) fn home_variable(self) -> &'static str {
        match self {
            Dialect::KimiCode => "KIMI_CODE_HOME",
            Dialect::KimiCli => "KIMI_SHARE_DIR",
        }
    }

    /// Returns the name of the data folder in the home of the user.
    pub(crate) fn home_folder(self) -> &'static str {
        match self {
            Dialect::KimiCode => ".kimi-code",
            Dialect::KimiCli => ".kimi",
        }
    }

    /// Returns whether a tool succeeded, by its result.
    ///
    /// kimi-cli marks failures. kimi-code does not, but a successful read begins with a line number, and the error
    /// messages of its other tools are known.
    pub(crate) fn tool_succeeded(self, common_name: &str, result: &str) -> bool {
        match self {
            Dialect::KimiCli => !result.starts_with("<system>ERROR:"),
            Dialect::KimiCode if common_name == "ReadFile" => {
                let text = result.trim_start_matches(|c: char| c.is_ascii_digit());
                result.is_empty()
                    || (text.len() < result.len() && text.starts_with('\t'))
                    || result.starts_with("<system>")
            }
            Dialect::KimiCode => {
                let first = result.lines().next().unwrap_or_default();
                !(KIMI_CODE_FAILURES_BEGIN.iter().any(|words| first.starts_with(words))
                    || KIMI_CODE_FAILURES_END.iter().any(|words| first.ends_with(words)))
            }
        }
    }
}

/// Returns whether a text is the notice that kimi-cli 1.52 prints for every prompt.
pub(crate) fn is_retirement_notice(text: &str) -> bool {
    text.contains("kimi-cli is no longer maintained")
}

/// The first words of the error messages of kimi-code's tools other than Read (sources of version 2.1.0).
const KIMI_CODE_FAILURES_BEGIN: [&str; 14] = [
    "Tool \"",
    "Invalid args for tool",
    "Runtime changed before execution",
    "Glob failed",
    "Glob aborted",
    "Glob cannot fit",
    "Grep aborted",
    "Grep timed out",
    "Aborted before search",
    "Failed to grep",
    "ripgrep (rg) is not available",
    "Search failed",
    "Search timed out",
    "Failed to fetch URL",
];

/// The last words of the error messages of kimi-code's tools other than Read (sources of version 2.1.0).
const KIMI_CODE_FAILURES_END: [&str; 5] = [
    " does not exist",
    " is not a directory",
    "Access is blocked to protect secrets.",
    "Access is blocked.",
    "permission denied",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_identified_by_its_version() {
        let check =
            |output: &str, expected: Identity| assert_eq!(Dialect::identify(output), expected);
        check("kimi, version 1.51.0\n", Identity::Usable(Dialect::KimiCli, "1.51.0".into()));
        check("2.1.0\n", Identity::Usable(Dialect::KimiCode, "2.1.0".into()));
        check("2.2.0-beta.1\n", Identity::Usable(Dialect::KimiCode, "2.2.0-beta.1".into()));
        check(
            "kimi, version 1.52.0\nkimi-cli is no longer maintained. Please use the new Kimi Code CLI.",
            Identity::Retired("1.52.0".into()),
        );
        check("kimi: the window manager 3.4", Identity::Unknown);
        check("", Identity::Unknown);
    }

    #[test]
    fn a_failed_tool_is_recognized_in_both_dialects() {
        let check = |dialect: Dialect, tool: &str, result: &str, expected: bool| {
            assert_eq!(
                dialect.tool_succeeded(tool, result),
                expected,
                "{dialect} {tool}: {result}"
            );
        };
        let (code, cli) = (Dialect::KimiCode, Dialect::KimiCli);
        check(cli, "ReadFile", "<system>ERROR: `src/nope.rs` does not exist.</system>", false);
        check(cli, "Grep", "src/a.rs:1:ERROR: in the text", true);
        check(code, "ReadFile", "1\tfn main() {}", true);
        check(code, "ReadFile", "", true);
        check(code, "ReadFile", "\"src/nope.rs\" does not exist.", false);
        check(code, "ReadFile", "read failed: permission denied", false);
        check(code, "Bash", "Tool \"Bash\" not found", false);
        check(code, "Glob", "/p/src does not exist", false);
        check(code, "Glob", "src/main.rs\nsrc/does not exist", true);
        check(code, "Grep", "src/a.rs:4: // Tool \"x\"", true);
        check(code, "Grep", "Failed to grep: ripgrep exited with code 2", false);
    }
}
