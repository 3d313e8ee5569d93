//! The command line and environment of a Kimi run, as plain data. Nothing here runs a program.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::dialect::{Dialect, Program};
use super::guard;
use crate::sandbox::Rules;

/// The longest prompt to pass as an argument. Linux allows up to 131,071 bytes.
pub(crate) const ARGUMENT_BYTES: usize = 100 * 1024;

/// A program, its arguments and its environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Invocation {
    pub(crate) program: PathBuf,
    pub(crate) args: Vec<OsString>,
    pub(crate) env: BTreeMap<String, String>,
    /// The project, in which the program starts.
    pub(crate) work_dir: PathBuf,
    /// The text for its standard input.
    pub(crate) stdin: String,
    pub(crate) under: Under,
}

/// The supervision of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Under {
    /// A process group of its own, without a helper.
    Nothing,
    /// The helper that ends every descendant.
    Keeper,
    /// The helper that ends every descendant, and first enters a sandbox with these rules.
    Sandbox(Box<Rules>),
}

/// Returns whether to write a prompt to a file, and send a short prompt with its path. Other prompts go to standard
/// input for kimi-cli, and into an argument for kimi-code.
pub(crate) fn goes_by_file(dialect: Dialect, prompt_bytes: usize, private_prompts: bool) -> bool {
    dialect == Dialect::KimiCode && (private_prompts || prompt_bytes > ARGUMENT_BYTES)
}

/// The paths for the command line and environment of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RunPaths<'a> {
    pub(crate) work_dir: &'a Path,
    /// The agent file of this run.
    pub(crate) agent_file: &'a Path,
    /// An MCP configuration without servers.
    pub(crate) empty_mcp_config: &'a Path,
    /// A folder without skills, which replaces the skills of the user and the project.
    pub(crate) empty_folder: &'a Path,
    pub(crate) home: &'a Path,
    /// The folder for temporary files.
    pub(crate) temporary: &'a Path,
    /// The folder of the run.
    pub(crate) run_dir: &'a Path,
    /// The configuration file for ripgrep, which Kimi uses to search.
    pub(crate) ripgrep_config: &'a Path,
}

/// Returns the invocation for one prompt, in a new session or in the session to `resume`.
pub(crate) fn invocation(
    program: &Program,
    mut env: BTreeMap<String, String>,
    paths: RunPaths<'_>,
    prompt: &str,
    resume: Option<&str>,
    under: Under,
) -> Invocation {
    let mut args = program.leading_args.clone();
    let mut add = |words: &[&dyn AsRef<std::ffi::OsStr>]| {
        args.extend(words.iter().map(|word| word.as_ref().to_owned()));
    };
    let mut stdin = String::new();
    match program.dialect {
        Dialect::KimiCode => {
            add(&[&"--output-format", &"stream-json", &"--skills-dir", &paths.empty_folder]);
            // A resumed session keeps its agent, and kimi-code refuses `--agent-file` for it.
            match resume {
                Some(session) => add(&[&"-S", &session]),
                None => add(&[&"--agent-file", &paths.agent_file]),
            }
            add(&[&"-p", &prompt]);
        }
        Dialect::KimiCli => {
            add(&[&"--print", &"--output-format", &"stream-json"]);
            // The project is the current folder, since `--work-dir` refuses a folder that is not writable.
            add(&[&"--agent-file", &paths.agent_file]);
            add(&[&"--mcp-config-file", &paths.empty_mcp_config]);
            add(&[&"--skills-dir", &paths.empty_folder]);
            if let Some(session) = resume {
                add(&[&"-S", &session]);
            }
            prompt.clone_into(&mut stdin);
        }
    }
    for (name, path) in [
        (program.dialect.home_variable(), paths.home),
        ("TMPDIR", paths.temporary),
        (guard::RUN_DIR, paths.run_dir),
        ("RIPGREP_CONFIG_PATH", paths.ripgrep_config),
    ] {
        env.insert(name.to_owned(), path.display().to_string());
    }
    Invocation {
        program: program.path.clone(),
        args,
        env,
        work_dir: paths.work_dir.to_owned(),
        stdin,
        under,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(dialect: Dialect, resume: Option<&str>) -> Invocation {
        let program = Program {
            path: "/bin/kimi".into(),
            leading_args: vec![],
            dialect,
            version: "1".into(),
            found: "PATH".into(),
        };
        let paths = RunPaths {
            work_dir: Path::new("/p"),
            agent_file: Path::new("/r/agent"),
            empty_mcp_config: Path::new("/r/mcp.json"),
            empty_folder: Path::new("/r/none"),
            home: Path::new("/h"),
            temporary: Path::new("/r/tmp"),
            run_dir: Path::new("/r"),
            ripgrep_config: Path::new("/r/ripgrep"),
        };
        invocation(
            &program,
            [("PATH".to_owned(), "/bin".to_owned())].into(),
            paths,
            "Ask",
            resume,
            Under::Keeper,
        )
    }

    fn expected(args: &[&str], home: &str, stdin: &str) -> Invocation {
        Invocation {
            program: "/bin/kimi".into(),
            args: args.iter().map(OsString::from).collect(),
            env: [
                ("PATH", "/bin"),
                (home, "/h"),
                ("TMPDIR", "/r/tmp"),
                ("KIMI_BRIDGE_RUN_DIR", "/r"),
                ("RIPGREP_CONFIG_PATH", "/r/ripgrep"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
            work_dir: "/p".into(),
            stdin: stdin.into(),
            under: Under::Keeper,
        }
    }

    #[test]
    fn kimi_code_gets_the_prompt_as_an_argument() {
        let args = [
            "--output-format",
            "stream-json",
            "--skills-dir",
            "/r/none",
            "--agent-file",
            "/r/agent",
            "-p",
            "Ask",
        ];
        assert_eq!(made(Dialect::KimiCode, None), expected(&args, "KIMI_CODE_HOME", ""));
    }

    #[test]
    fn kimi_code_resumes_without_an_agent_file() {
        let args =
            ["--output-format", "stream-json", "--skills-dir", "/r/none", "-S", "s1", "-p", "Ask"];
        assert_eq!(made(Dialect::KimiCode, Some("s1")), expected(&args, "KIMI_CODE_HOME", ""));
    }

    #[test]
    fn kimi_cli_gets_the_prompt_on_standard_input() {
        let args = [
            "--print",
            "--output-format",
            "stream-json",
            "--agent-file",
            "/r/agent",
            "--mcp-config-file",
            "/r/mcp.json",
            "--skills-dir",
            "/r/none",
            "-S",
            "s1",
        ];
        assert_eq!(made(Dialect::KimiCli, Some("s1")), expected(&args, "KIMI_SHARE_DIR", "Ask"));
    }

    #[test]
    fn long_and_private_prompts_stay_out_of_the_arguments() {
        let check = |dialect, bytes, private, expected| {
            assert_eq!(goes_by_file(dialect, bytes, private), expected);
        };
        check(Dialect::KimiCode, ARGUMENT_BYTES, false, false);
        check(Dialect::KimiCode, ARGUMENT_BYTES + 1, false, true);
        check(Dialect::KimiCode, 1, true, true);
        check(Dialect::KimiCli, 1 << 20, true, false);
    }
}
