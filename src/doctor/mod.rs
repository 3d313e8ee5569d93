//! The report on an installation: its problems and their remedies. Other rooms find the facts, and this room judges
//! them. It prints nothing.

mod check;
mod hosts;
mod kimi;
pub(crate) mod live;
mod network;
mod sandbox;
mod settings;
mod state;

use serde::Serialize;

pub(crate) use self::check::{Check, CheckStatus, Section};
use crate::error::Kind;
use crate::kimi::{Dialect, Watch, examination, folders};
use crate::settings::Config;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Report {
    pub(crate) bridge_version: &'static str,
    /// The sections, in the order in which to fix their problems.
    pub(crate) sections: Vec<Section>,
}

impl Report {
    pub(crate) fn count(&self, status: CheckStatus) -> usize {
        self.checks().filter(|check| check.status == status).count()
    }

    /// Returns the kind of the first problem, which decides the exit code of the shell command.
    pub(crate) fn first_problem(&self) -> Option<Kind> {
        self.checks().find_map(|check| check.kind)
    }

    fn checks(&self) -> impl Iterator<Item = &Check> {
        self.sections.iter().flat_map(|section| &section.checks)
    }
}

/// Runs all checks that need no answer of Kimi. If `live` is true, also connects to the service.
pub(crate) async fn examine(config: &Config, live: bool, watch: Watch<'_>) -> Report {
    // Leftovers of earlier runs are counted first, because the runs below remove them.
    let left_behind = folders::left_behind(config.state_dir());
    let found = examination::examine(config, watch).await;
    let dialect = found.used.as_ref().map_or(Dialect::KimiCode, |program| program.dialect);
    let mut network = network::checks(&config.environment, dialect);
    if live {
        network.push(network::reached(&config.environment, dialect).await);
    }
    let sections = [
        ("settings", settings::checks(config)),
        ("state", state::checks(config, left_behind)),
        ("kimi", kimi::checks(config, &found)),
        ("network", network),
        ("sandbox", sandbox::checks(config, &found)),
        ("hosts", hosts::checks(config)),
    ];
    let sections = sections.map(|(part, checks)| Section { part, checks });
    Report { bridge_version: env!("CARGO_PKG_VERSION"), sections: sections.into() }
}
