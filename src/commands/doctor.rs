//! `kimi-bridge doctor`.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Instant;

use serde_json::json;

use super::render::{BAD, BOLD, DIM, GOOD, WARN, styled, width};
use super::shutdown::ShutdownSignals;
use super::{output, sample, status_line};
use crate::cli::Doctor;
use crate::consult::{decision, record, round};
use crate::doctor::live::{self, Trial};
use crate::doctor::{self, Check, CheckStatus, Report, Section};
use crate::error::{Error, Kind, Result};
use crate::ledger::Filter;
use crate::settings::Config;

/// The time limit of the trial consultation, in seconds.
const TRIAL_SECONDS: u64 = 300;

pub(super) async fn run(args: &Doctor, config: &Config, stop: &ShutdownSignals) -> Result<u8> {
    let mut report = doctor::examine(config, args.live, stop.watch()).await;
    if stop.asked.is_cancelled() {
        let hint = "Nothing is left running.";
        return Err(Error::new(Kind::Cancelled, "the examination was interrupted", hint));
    }
    let home = &config.environment.home;
    if !args.json {
        output::print(&header_and_sections(&report, home, width()))?;
    }
    if args.live {
        let section = live::section(&consult(config, stop).await?);
        if !args.json {
            output::print(&one_section(&section, home, width()))?;
        }
        report.sections.push(section);
    }
    let code = report.first_problem().map_or(0, Kind::exit_code);
    output::print(&if args.json {
        output::json(&json!({
            "bridge_version": report.bridge_version,
            "exit_code": code,
            "sections": report.sections,
        }))?
    } else {
        closing_words(&report, args.live)
    })?;
    Ok(code)
}

/// Consults Kimi about the sample with the user's own state, then deletes the thread.
async fn consult(config: &Config, stop: &ShutdownSignals) -> Result<Trial> {
    let cannot = |error: std::io::Error| {
        let message = format!("the sample could not be set up: {error}");
        Error::new(Kind::Spawn, message, "Check the temporary folder.")
    };
    let folder = tempfile::tempdir().map_err(cannot)?;
    let project = folder.path().join("tally");
    sample::unpack(&project).map_err(cannot)?;
    let project = project.canonicalize().map_err(cannot)?;
    let fields = json!({
        "message": "Read src/store.rs, then name one risk in a sentence. Be quick: this is only a trial.",
        "context": {
            "proposed_approach": "Append each increment to tally.log and rebuild the totals from it at start.",
            "goals": ["no acknowledged increment is lost"],
        },
        "work_dir": project,
        "files": ["src/store.rs"],
        "timeout_seconds": TRIAL_SECONDS.min(config.settings.timeout_seconds),
    });
    // The temporary folder may be inside a folder that the sandbox hides.
    let mut config = config.clone();
    config.settings.readable.push(project.clone());
    let config = &config;
    let start = Instant::now();
    let mut result = status_line::consult(status_line::request(fields), config, None, stop).await;
    let took = start.elapsed();
    let unchanged = sample::is_unchanged(&project);
    let of_sample = Filter {
        project: Some(project.display().to_string()),
        limit: usize::MAX,
        ..Filter::default()
    };
    for thread in record::list(config, &of_sample).unwrap_or_default() {
        if let Err(error) = &mut result {
            for hint in [round::ask_again_hint(&thread.id), round::continue_hint(&thread.id)] {
                error.hint = error.hint.replace(&hint, "");
            }
        }
        // If deleting fails, the user still finds the thread with `kimi-bridge threads`, and can delete it there.
        let _ = decision::forget(&thread.id, config);
    }
    Ok(Trial { result, took, unchanged })
}

fn header_and_sections(report: &Report, home: &Path, width: usize) -> String {
    let mut text = format!("{} {}\n\n", styled(BOLD, "kimi-bridge"), report.bridge_version);
    for section in &report.sections {
        text.push_str(&one_section(section, home, width));
    }
    text
}

pub(super) fn one_section(section: &Section, home: &Path, width: usize) -> String {
    let (initial, rest) = section.part.split_at(1);
    let mut text = styled(BOLD, &format!("{}{rest}", initial.to_uppercase())) + "\n";
    let mut above = "";
    for check in &section.checks {
        // A name is shown only once for consecutive checks.
        let name = if check.name == above { "" } else { &check.name };
        text.push_str(&check_text(check, name, home, width));
        above = &check.name;
    }
    text + "\n"
}

/// Formats a check: mark, name and finding, and the remedy below.
fn check_text(check: &Check, name: &str, home: &Path, width: usize) -> String {
    let (mark, style) = match check.status {
        CheckStatus::Ok => ("✓", GOOD),
        CheckStatus::Note => ("·", DIM),
        CheckStatus::Warning => ("!", WARN),
        CheckStatus::Problem => ("✗", BAD),
    };
    let name = styled(DIM, &format!("{name:<NAME_WIDTH$}"));
    let says = match check.status {
        CheckStatus::Ok | CheckStatus::Note => with_tilde(&check.says, home),
        CheckStatus::Warning | CheckStatus::Problem => {
            styled(style, &with_tilde(&check.says, home))
        }
    };
    let mut text = hanging(&format!("  {} {name} ", styled(style.bold(), mark)), &says, width);
    if let Some(remedy) = &check.remedy {
        let arrow = format!("{:1$}{2} ", "", INDENT - 2, styled(DIM, "→"));
        text.push_str(&hanging(&arrow, &with_tilde(remedy, home), width));
    }
    text
}

/// The width of the column of names.
const NAME_WIDTH: usize = 12;
/// The column where the text begins.
const INDENT: usize = NAME_WIDTH + 5;

/// Wraps a text behind a head, with a hanging indent. Paths and commands stay unbroken, so that they can be copied.
fn hanging(head: &str, words: &str, width: usize) -> String {
    let indent = " ".repeat(INDENT);
    let options = textwrap::Options::new(width)
        .initial_indent(head)
        .subsequent_indent(&indent)
        .break_words(false)
        .word_separator(textwrap::WordSeparator::AsciiSpace)
        .word_splitter(textwrap::WordSplitter::NoHyphenation);
    let parts = words.split('`').enumerate();
    let kept: Vec<String> = parts
        .map(
            |(at, part)| {
                if at % 2 == 1 { part.replace(' ', NO_BREAK_SPACE) } else { part.to_owned() }
            },
        )
        .collect();
    let mut text = String::new();
    for line in textwrap::wrap(&kept.join("`"), options) {
        let _ = writeln!(text, "{}", line.trim_end().replace(NO_BREAK_SPACE, " "));
    }
    text
}

/// The space at which a line is never broken.
const NO_BREAK_SPACE: &str = "\u{a0}";

/// Shortens the home folder in paths to `~`.
pub(super) fn with_tilde(words: &str, home: &Path) -> String {
    match home.to_str().filter(|home| home.len() > 1) {
        Some(home) => words.replace(&format!("{home}/"), "~/"),
        None => words.to_owned(),
    }
}

fn closing_words(report: &Report, live: bool) -> String {
    let counted = |status, one: &str| match report.count(status) {
        0 => None,
        1 => Some(format!("1 {one}")),
        count => Some(format!("{count} {one}s")),
    };
    let problems = counted(CheckStatus::Problem, "problem");
    let warnings = counted(CheckStatus::Warning, "warning");
    match (problems, warnings) {
        (Some(problems), warnings) => {
            let warnings = warnings.map(|some| format!(", {some}")).unwrap_or_default();
            let found = styled(BAD.bold(), &format!("{problems}{warnings}."));
            format!("{found} Begin with the first problem; later ones may come from it.\n")
        }
        (None, Some(warnings)) => {
            format!(
                "{} {}",
                styled(WARN.bold(), &format!("No problem, {warnings}.")),
                next_step(live)
            )
        }
        (None, None) => format!("{} {}", styled(GOOD.bold(), "All is well."), next_step(live)),
    }
}

fn next_step(live: bool) -> &'static str {
    if live { "\n" } else { "`kimi-bridge doctor --live` asks Kimi one short question.\n" }
}
