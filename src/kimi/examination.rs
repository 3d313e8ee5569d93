//! Tries every Kimi on the machine, to learn which one is used and how it starts inside the sandbox.
//!
//! A program that fails inside the sandbox is also tried outside, to distinguish a broken program from a closed path.
//! If its error names a path, it is tried again with that path open. The `doctor` judges the results.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::confinement::decide;
use super::dialect::{Dialect, Identity, Program};
use super::node::Node;
use super::program::{self, Candidate, choose};
use super::reply::Watch;
use super::start_failure::{StartFailure, unexplained};
use super::version::{ask_version, find_node, node_on_path, repeated};
use crate::error::{Error, Kind, Result};
use crate::sandbox::{Sandbox, kernel};
use crate::settings::{Config, SandboxSetting};

/// The most closed paths that are opened, one after another, until a program starts.
const OPENED: usize = 8;

/// The result of an examination.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Examination {
    /// The programs that were tried, in the order of preference. An unknown program has the result of starting it.
    pub(crate) candidates: Vec<(Candidate, Option<Start>)>,
    /// The programs that were not tried, since a setting names another one.
    pub(crate) ignored: Vec<PathBuf>,
    /// The program that is used, or the reason why there is none.
    pub(crate) used: Result<Program>,
    /// The result of starting the used program now.
    pub(crate) start: Option<Start>,
    /// The Node of the used program, or of the first candidate if none is usable; without any Kimi, the one on PATH.
    pub(crate) node: Option<Node>,
}

/// The result of starting a program.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Start {
    /// The program starts with the current settings, after this time.
    Succeeded(Duration),
    /// The program starts only outside the sandbox.
    OnlyOutside {
        identity: Identity,
        /// The reason, with a hint.
        why: Box<StartFailure>,
        /// The paths that must be open for a start inside the sandbox; empty if unknown.
        opened: Vec<PathBuf>,
    },
    /// The program starts neither inside nor outside the sandbox.
    Failed(Box<Error>),
    /// The program prints this text instead of a version of Kimi.
    NotKimi(String),
}

/// Finds every Kimi, and tries the used one and those that failed.
pub(crate) async fn examine(config: &Config, watch: Watch<'_>) -> Examination {
    // If the setting requires a sandbox that this machine lacks, no program starts, so all are tried without one.
    let config = &match decide(config.settings.sandbox, kernel()) {
        Ok(_) => config.clone(),
        Err(_) => outside(config),
    };
    let mut seen = program::all(config, watch).await;
    let mut starts = Vec::new();
    for candidate in &mut seen {
        if candidate.identity != Identity::Unknown {
            starts.push(None);
            continue;
        }
        let Candidate { path, output, failure, .. } = candidate;
        let start = start_outside(config, path, output, failure.take(), watch).await;
        match &start {
            Start::OnlyOutside { why, .. } => *failure = Some(StartFailure::clone(why)),
            Start::Failed(error) => {
                output.clone_from(&error.message);
                *failure = Some(Error::clone(error).into());
            }
            Start::NotKimi(words) => output.clone_from(words),
            Start::Succeeded(_) => {}
        }
        starts.push(Some(start));
    }
    let used = choose(config, &seen);
    let start = match &used {
        Ok(program) => Some(start(config, &program.path, watch).await),
        Err(_) => None,
    };
    let project = config.environment.project_dir();
    let program = used.as_ref().map(|program| &program.path);
    let program = program.ok().or(seen.first().map(|candidate| &candidate.path));
    let node = match program {
        Some(program) => find_node(config, &project, program, watch).await,
        None => node_on_path(config, &project, watch).await,
    };
    let candidates = seen.into_iter().zip(starts).collect();
    Examination { candidates, ignored: program::ignored(config), used, start, node }
}

/// Starts the used program, and ignores its cached version.
async fn start(config: &Config, path: &Path, watch: Watch<'_>) -> Start {
    let begun = Instant::now();
    let project = config.environment.project_dir();
    let (output, failure) = match ask_version(config, &project, path, watch).await {
        Ok(output) if Dialect::identify(&output) != Identity::Unknown => {
            return Start::Succeeded(begun.elapsed());
        }
        Ok(output) => (repeated(config, &output), None),
        Err(why) => (why.error.message.clone(), Some(why)),
    };
    start_outside(config, path, &output, failure, watch).await
}

/// Starts a program outside the sandbox, after it failed inside.
async fn start_outside(
    config: &Config,
    path: &Path,
    output: &str,
    failure: Option<StartFailure>,
    watch: Watch<'_>,
) -> Start {
    match decide(config.settings.sandbox, kernel()) {
        Ok((Sandbox::Landlock, _)) => {}
        Ok((Sandbox::None, _)) | Err(_) => {
            return failure.map_or_else(
                || Start::NotKimi(output.to_owned()),
                |why| Start::Failed(Box::new(why.error)),
            );
        }
    }
    let identity =
        match ask_version(&outside(config), &config.environment.project_dir(), path, watch).await {
            Ok(output) => match Dialect::identify(&output) {
                Identity::Unknown => return Start::NotKimi(repeated(config, &output)),
                identity @ (Identity::Usable(..) | Identity::Retired(_)) => identity,
            },
            Err(why) => return Start::Failed(Box::new(why.error)),
        };
    let closed = failure.filter(|why| why.error.kind == Kind::Sandbox);
    let mut why = closed.unwrap_or_else(|| StartFailure::from(unexplained(output)));
    let tried = open_until_it_starts(config, path, why.open.clone(), watch).await;
    let opened = tried.unwrap_or_else(|(tried, words)| {
        if !tried.is_empty() {
            why.error.hint = not_enough(&tried, &words);
        }
        Vec::new()
    });
    Start::OnlyOutside { identity, why: Box::new(why), opened }
}

/// Returns the hint for a program that does not start even with these paths open, and its last output.
fn not_enough(tried: &[PathBuf], words: &str) -> String {
    let tried: Vec<String> = tried.iter().map(|path| path.display().to_string()).collect();
    format!(
        "With {} open, the program failed too: {words}. Add the other paths that it needs to `readable`, set KIMI_PATH \
         to the program itself if this is a wrapper, or set `sandbox: off`.",
        tried.join(", ")
    )
}

/// Opens the paths that the errors of a program name, one after another, and returns the paths with which it starts.
/// The error holds the paths that were tried, and the last output.
async fn open_until_it_starts(
    config: &Config,
    path: &Path,
    first: Option<PathBuf>,
    watch: Watch<'_>,
) -> std::result::Result<Vec<PathBuf>, (Vec<PathBuf>, String)> {
    let mut wider = config.clone();
    let mut opened = Vec::new();
    let mut words = String::new();
    let mut next = first;
    while let Some(open) = next.filter(|open| opened.len() < OPENED && !opened.contains(open)) {
        wider.settings.readable.push(open.clone());
        opened.push(open);
        next = match ask_version(&wider, &wider.environment.project_dir(), path, watch).await {
            Ok(output) if Dialect::identify(&output) != Identity::Unknown => return Ok(opened),
            Ok(output) => {
                words = repeated(config, &output);
                None
            }
            Err(why) => {
                words = why.error.message;
                why.open
            }
        };
    }
    Err((opened, words))
}

/// Returns the settings without the sandbox.
fn outside(config: &Config) -> Config {
    let mut outside = config.clone();
    outside.settings.sandbox = SandboxSetting::Off;
    outside
}
