//! The two programs called `kimi`, and the handful of ways in which they differ.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::{clean, first_chars};

/// Which of the two CLIs a program is.
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

/// What `kimi --version` said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Identity {
    /// A program that can be used.
    Usable(Dialect, String),
    /// The retired release, which answers everything with a notice.
    Retired(String),
    /// Not a Kimi at all, as far as can be told.
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
    /// Arguments before the dialect's own; the demo's stand-in needs one.
    #[serde(skip)]
    pub(crate) leading_args: Vec<OsString>,
    /// Which CLI it is.
    pub(crate) dialect: Dialect,
    /// Its version, as it says.
    pub(crate) version: String,
    /// Where it was found: a setting, `PATH`, or a usual place.
    pub(crate) found: String,
}

impl Dialect {
    /// Both.
    pub const ALL: [Dialect; 2] = [Dialect::KimiCode, Dialect::KimiCli];

    /// The name on the wire.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Dialect::KimiCode => "kimi-code",
            Dialect::KimiCli => "kimi-cli",
        }
    }

    /// Tells the programs apart by what `--version` printed.
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

    /// The variable that moves this program's data folder.
    pub(crate) fn home_variable(self) -> &'static str {
        match self {
            Dialect::KimiCode => "KIMI_CODE_HOME",
            Dialect::KimiCli => "KIMI_SHARE_DIR",
        }
    }

    /// The data folder in the user's home.
    pub(crate) fn home_folder(self) -> &'static str {
        match self {
            Dialect::KimiCode => ".kimi-code",
            Dialect::KimiCli => ".kimi",
        }
    }

    /// Whether a tool's result says that it did what was asked.
    ///
    /// kimi-cli marks a failure. kimi-code's stream does not: a read that succeeded begins with a
    /// line number, and for the rest its own error messages are known.
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

/// Whether this is what kimi-cli 1.52 answers to everything.
pub(crate) fn is_retirement_notice(text: &str) -> bool {
    text.contains("kimi-cli is no longer maintained")
}

/// How the error messages of kimi-code's tools other than Read begin (its sources, version 2.1.0).
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

/// How they end.
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
    fn programs_are_told_apart_by_their_version() {
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
    fn a_failed_tool_is_recognised_in_both_dialects() {
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
