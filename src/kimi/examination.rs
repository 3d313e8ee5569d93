//! Every Kimi there is, tried: which one is used, and how it starts inside the sandbox.
//!
//! A program that says nothing usable inside is tried outside as well, since only that tells a broken
//! program from a closed path; and when a path is named, with that path open, until it starts.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::confinement::decide;
use super::dialect::{Dialect, Identity};
use super::failure::{ShutOut, shut_out};
use super::program::{self, Candidate, Program, ask_version, choose, repeated};
use super::run::Watch;
use crate::error::{Kind, Result};
use crate::sandbox::{Sandbox, kernel};
use crate::settings::{Loaded, SandboxSetting};

/// The most paths that are opened one after another for a program to start.
const OPENED: usize = 8;

/// What there is.
#[derive(Debug, Clone, PartialEq)]
pub struct Examination {
    /// Every program that was asked, in the order of preference.
    pub candidates: Vec<Examined>,
    /// Those that were not, since a setting names another one.
    pub passed_over: Vec<PathBuf>,
    /// The one that is used, or why there is none.
    pub used: Result<Program>,
    /// How that one starts just now.
    pub start: Option<Start>,
}

/// One program.
#[derive(Debug, Clone, PartialEq)]
pub struct Examined {
    /// The file, and what it said.
    pub candidate: Candidate,
    /// How it starts, where it did not say anything usable.
    pub start: Option<Start>,
}

/// How a program starts.
#[derive(Debug, Clone, PartialEq)]
pub enum Start {
    /// As it would for a consultation, and this fast.
    Well(Duration),
    /// Not inside the sandbox.
    OnlyOutside {
        /// What it is.
        identity: Identity,
        /// Why not, and what to do.
        why: Box<ShutOut>,
        /// The paths with which it starts inside, where naming some is enough.
        opened: Vec<PathBuf>,
    },
    /// Neither way: its last words.
    NotAtAll(String),
}

/// Looks for every Kimi, and tries those that matter.
pub async fn examine(loaded: &Loaded, watch: Watch<'_>) -> Examination {
    // Where the setting asks for a sandbox that this machine does not have, nothing would start at all;
    // what there is can be told nevertheless.
    let available = decide(loaded.settings.sandbox, kernel());
    let loaded = &match &available {
        Ok(_) => loaded.clone(),
        Err(_) => outside(loaded),
    };
    let mut candidates = Vec::new();
    for mut candidate in program::all(loaded, watch).await {
        let start = match candidate.identity {
            Identity::Unknown => {
                let Candidate { path, said, held_back, .. } = &candidate;
                Some(start_outside(loaded, path, said, held_back.clone(), watch).await)
            }
            Identity::Usable(..) | Identity::Retired(_) => None,
        };
        match &start {
            Some(Start::OnlyOutside { why, .. }) => {
                candidate.held_back = Some(ShutOut::clone(why));
            }
            Some(Start::NotAtAll(said)) => {
                candidate.held_back = None;
                candidate.said.clone_from(said);
            }
            Some(Start::Well(_)) | None => {}
        }
        candidates.push(Examined { candidate, start });
    }
    let seen: Vec<Candidate> = candidates.iter().map(|one| one.candidate.clone()).collect();
    let used = choose(loaded, &seen);
    let start = match &used {
        Ok(program) => Some(start(loaded, &program.path, watch).await),
        Err(_) => None,
    };
    Examination { candidates, passed_over: program::passed_over(loaded), used, start }
}

/// Tries the one that is used, whatever is remembered of it.
async fn start(loaded: &Loaded, path: &Path, watch: Watch<'_>) -> Start {
    let begun = Instant::now();
    let (said, held_back) = match ask_version(loaded, path, watch).await {
        Ok(said) => match Dialect::identify(&said) {
            Identity::Unknown => (repeated(loaded, &said), None),
            Identity::Usable(..) | Identity::Retired(_) => return Start::Well(begun.elapsed()),
        },
        Err(why) => (why.error.message.clone(), Some(why)),
    };
    start_outside(loaded, path, &said, held_back, watch).await
}

/// Tries one outside the sandbox that did not say inside what it is.
async fn start_outside(
    loaded: &Loaded,
    path: &Path,
    said: &str,
    held_back: Option<ShutOut>,
    watch: Watch<'_>,
) -> Start {
    match decide(loaded.settings.sandbox, kernel()) {
        Ok((Sandbox::Landlock, _)) => {}
        Ok((Sandbox::None, _)) | Err(_) => return Start::NotAtAll(said.to_owned()),
    }
    let identity = match ask_version(&outside(loaded), path, watch).await {
        Ok(said) => match Dialect::identify(&said) {
            Identity::Unknown => return Start::NotAtAll(repeated(loaded, &said)),
            identity @ (Identity::Usable(..) | Identity::Retired(_)) => identity,
        },
        Err(why) => return Start::NotAtAll(why.error.message),
    };
    let closed = held_back.filter(|why| why.error.kind == Kind::Sandbox);
    let why = closed.unwrap_or_else(|| ShutOut::from(shut_out(said)));
    let opened = open_until_it_starts(loaded, path, why.open.clone(), watch).await;
    Start::OnlyOutside { identity, why: Box::new(why), opened }
}

/// Opens what the program's words name, one path after another; nothing if that is not enough.
async fn open_until_it_starts(
    loaded: &Loaded,
    path: &Path,
    first: Option<PathBuf>,
    watch: Watch<'_>,
) -> Vec<PathBuf> {
    let mut wider = loaded.clone();
    let mut opened = Vec::new();
    let mut next = first;
    while let Some(open) = next.filter(|open| opened.len() < OPENED && !opened.contains(open)) {
        wider.settings.readable.push(open.clone());
        opened.push(open);
        next = match ask_version(&wider, path, watch).await {
            Ok(said) if Dialect::identify(&said) != Identity::Unknown => return opened,
            Ok(_) => None,
            Err(why) => why.open,
        };
    }
    Vec::new()
}

/// The same settings without the sandbox.
fn outside(loaded: &Loaded) -> Loaded {
    let mut outside = loaded.clone();
    outside.settings.sandbox = SandboxSetting::Off;
    outside
}
