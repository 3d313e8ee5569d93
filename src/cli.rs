//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::consult::Role;
use crate::error::Kind;

/// A second opinion from Kimi for coding agents.
///
/// Puts a proposal before Kimi, Moonshot's coding agent, which reads the project and challenges it
/// from evidence in the code. Kimi reads and searches; it changes no file and runs no command.
#[derive(Debug, Parser)]
#[command(name = "kimi-bridge", version, after_long_help = exit_codes(), max_term_width = 100)]
pub(crate) struct Cli {
    /// The subcommand.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Log to stderr what the bridge does.
    #[arg(long, global = true)]
    pub(crate) debug: bool,
}

/// A subcommand.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve the Model Context Protocol on standard input and output; hosts start this
    Serve,
    /// Register this server with the hosts on this machine: Claude Code, Codex, Cursor…
    ///
    /// Shows what would change in the files of each host, asks, and changes it: the entry of this server and nothing
    /// else. The file as it was stays beside it. Then looks for Kimi and its login. No key is stored.
    Setup(Setup),
    /// Ask Kimi about a proposal, a design, a bug or a choice
    Consult(Consult),
    /// Show what a role needs to know, with an example
    Roles(Roles),
    /// Consult a stand-in about a small sample project; nothing needs to be installed
    Demo(Demo),
    /// Find earlier threads: list, show, export, decide or delete one
    Threads(Threads),
    /// List the runs of Kimi, the latest first
    Runs(Runs),
    /// Show which Kimi is used, the mode and the limits
    Status(StatusArgs),
    /// Check the installation, and name the remedy of each problem
    ///
    /// Looks at the settings, the bridge's own folder, every Kimi and its login, the network settings, the sandbox, and
    /// how the hosts on this machine start the bridge. Ends with 0 when a consultation is possible, otherwise with the
    /// code of the first problem.
    Doctor(Doctor),
    /// Print the completions of a shell
    #[command(hide = true)]
    Completions(Completions),
    /// Write the man pages, one a command, into a folder
    #[command(hide = true)]
    Man(Man),
}

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(crate) struct Setup {
    /// claude-code, codex, cursor, vscode, gemini, opencode or zed [default: all that are found]
    #[arg(value_name = "HOST")]
    pub(crate) hosts: Vec<String>,
    /// For you, in every project (the default)
    #[arg(long, conflicts_with = "project")]
    pub(crate) user: bool,
    /// For everybody who works on this project, in the files of its folder
    #[arg(long)]
    pub(crate) project: bool,
    /// Let the agent consult Kimi unasked
    #[arg(long, conflicts_with = "remove")]
    pub(crate) auto: bool,
    /// Only show what would change
    #[arg(long, conflicts_with = "yes")]
    pub(crate) dry_run: bool,
    /// Take the entry out again; a file that only setup changed gets its old bytes back
    #[arg(long)]
    pub(crate) remove: bool,
    /// Change the files without asking
    #[arg(long, short)]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Consult {
    /// The role that Kimi takes [default: skeptic]
    #[arg(long, value_enum)]
    pub(crate) role: Option<Role>,
    /// The question, in your words; with --thread, what you add
    #[arg(long, short, required_unless_present = "thread")]
    pub(crate) message: Option<String>,
    /// A YAML or JSON file with the context that the role needs, or - for standard input
    #[arg(long, short, value_name = "FILE|-", required_unless_present = "thread")]
    pub(crate) context: Option<PathBuf>,
    /// Continue this thread
    #[arg(long, value_name = "ID")]
    pub(crate) thread: Option<String>,
    /// Adopt a finding of the thread; may be repeated
    #[arg(long, value_name = "FINDING")]
    pub(crate) adopt: Vec<String>,
    /// Reject a finding of the thread, with the reason; may be repeated
    #[arg(long, value_name = "FINDING=REASON")]
    pub(crate) reject: Vec<String>,
    /// The project's folder [default: the current one]
    #[arg(long, value_name = "DIR")]
    pub(crate) work_dir: Option<PathBuf>,
    /// A path in the project worth reading first; may be repeated
    #[arg(long = "file", value_name = "PATH")]
    pub(crate) files: Vec<String>,
    /// The language of the answer [default: the question's]
    #[arg(long)]
    pub(crate) language: Option<String>,
    /// The longest the run may take
    #[arg(long, value_name = "SECONDS")]
    pub(crate) timeout: Option<u64>,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Threads {
    /// What to do; without it, list
    #[command(subcommand)]
    pub(crate) command: Option<ThreadsCommand>,
    /// Only threads of this project's folder
    #[arg(long, value_name = "DIR")]
    pub(crate) project: Option<PathBuf>,
    /// Only threads in this state: unfinished, `awaiting_adjudication`, settled, contested, decided,
    /// `given_up`
    #[arg(long)]
    pub(crate) state: Option<String>,
    /// Only threads that hold all these words
    #[arg(long, value_name = "WORDS")]
    pub(crate) search: Option<String>,
    /// At most this many, the latest first
    #[arg(long, default_value_t = 20)]
    pub(crate) limit: usize,
    /// Print the list as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Runs {
    /// At most so many
    #[arg(long, default_value_t = 20)]
    pub(crate) limit: usize,
    /// Print the list as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ThreadsCommand {
    /// Show the whole argument
    Show {
        /// The thread's id
        id: String,
    },
    /// Write the whole argument to standard output
    Export {
        /// The thread's id
        id: String,
        /// Markdown to commit beside the code, a page for the browser, or JSON
        #[arg(long, value_enum, default_value_t)]
        format: ExportFormat,
    },
    /// Close the thread with your decision
    Decide {
        /// The thread's id
        id: String,
        /// What will be done
        #[arg(long)]
        decision: String,
        /// Why
        #[arg(long)]
        rationale: String,
    },
    /// Delete the thread, with Kimi's transcripts and sessions of it
    Delete {
        /// The thread's id
        id: String,
    },
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum ExportFormat {
    /// Markdown
    #[default]
    Md,
    /// One self-contained page
    Html,
    /// JSON
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct Roles {
    /// The role; all of them when none is given
    #[arg(value_enum)]
    pub(crate) role: Option<Role>,
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Ask the installed Kimi instead of the stand-in
    #[arg(long)]
    pub(crate) with_kimi: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Print it as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Also reach the service, and ask Kimi one short question about a sample
    #[arg(long)]
    pub(crate) live: bool,
    /// Print it as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct Man {
    /// The folder, which is created if there is none
    pub(crate) folder: PathBuf,
}

/// The table of exit codes for the help, for use in shell scripts.
fn exit_codes() -> String {
    let mut lines = vec![
        "Exit codes:".to_owned(),
        "   0  done".to_owned(),
        "   4  Kimi answered, but not in a form that could be read".to_owned(),
        " 130  Ctrl-C ended the command".to_owned(),
    ];
    lines.extend(
        Kind::ALL
            .iter()
            .map(|kind| format!("  {:>2}  {}: {}", kind.exit_code(), kind.name(), kind.meaning())),
    );
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_help_reads_well() {
        Cli::command().debug_assert();
        let mut help = Cli::command().term_width(100).render_long_help().to_string();
        help.push_str("\n\n==== consult\n\n");
        let mut command = Cli::command().term_width(100);
        if let Some(consult) = command.find_subcommand_mut("consult") {
            help.push_str(&consult.render_help().to_string());
        }
        help.push_str("\n\n==== doctor\n\n");
        if let Some(doctor) = command.find_subcommand_mut("doctor") {
            help.push_str(&doctor.render_long_help().to_string());
        }
        help.push_str("\n\n==== setup\n\n");
        if let Some(setup) = command.find_subcommand_mut("setup") {
            help.push_str(&setup.render_help().to_string());
        }
        for host in crate::hosts::all() {
            assert!(help.contains(&host.id), "{}", host.id);
        }
        insta::assert_snapshot!(help);
    }
}
