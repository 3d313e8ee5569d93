//! What stands in the way of a consultation, and what to do about it. The rooms below know the facts;
//! this one says what each of them means to the person who asked. It prints nothing.

mod check;
mod hosts;
mod kimi;
pub mod live;
mod network;
mod sandbox;
mod settings;
mod state;

use serde::Serialize;

pub use self::check::{Check, Status};
use crate::error::{Kind, Violation};
use crate::kimi::{Dialect, Watch, examination, folders};
use crate::settings::Loaded;

/// All that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The bridge's own version.
    pub bridge_version: &'static str,
    /// In the order in which problems are best mended.
    pub sections: Vec<Section>,
}

/// What was looked at in one place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Section {
    /// The place.
    pub part: Part,
    /// What was found there.
    pub checks: Vec<Check>,
}

/// Where something may stand in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The bridge's own settings.
    Settings,
    /// The bridge's own folder, without which nothing can be tried.
    State,
    /// The programs and the login.
    Kimi,
    /// The way to the service.
    Network,
    /// What holds Kimi to reading.
    Sandbox,
    /// Who starts the bridge.
    Hosts,
    /// A real question and its answer.
    Consultation,
}

impl Report {
    /// How many checks ended so.
    #[must_use]
    pub fn count(&self, status: Status) -> usize {
        self.checks().filter(|check| check.status == status).count()
    }

    /// The kind of the first problem; the exit code of the shell command comes from it.
    #[must_use]
    pub fn first_problem(&self) -> Option<Kind> {
        self.checks().find_map(|check| check.kind)
    }

    fn checks(&self) -> impl Iterator<Item = &Check> {
        self.sections.iter().flat_map(|section| &section.checks)
    }
}

/// Looks at everything short of asking Kimi a question. `misfits` are the settings that could not be used.
/// With `live` the service is connected to.
pub async fn examine(
    loaded: &Loaded,
    misfits: &[Violation],
    live: bool,
    watch: Watch<'_>,
) -> Report {
    // Before anything is tried: a run clears what was left behind.
    let left_behind = folders::left_behind(loaded.state_dir());
    let found = examination::examine(loaded, watch).await;
    let dialect = found.used.as_ref().map_or(Dialect::KimiCode, |program| program.dialect);
    let mut network = network::checks(&loaded.environment, dialect);
    if live {
        network.push(network::reached(&loaded.environment, dialect).await);
    }
    let sections = [
        (Part::Settings, settings::checks(loaded, misfits)),
        (Part::State, state::checks(loaded, left_behind)),
        (Part::Kimi, kimi::checks(loaded, &found)),
        (Part::Network, network),
        (Part::Sandbox, sandbox::checks(loaded, &found)),
        (Part::Hosts, hosts::checks(loaded)),
    ];
    let sections = sections.into_iter().map(|(part, checks)| Section { part, checks });
    Report { bridge_version: env!("CARGO_PKG_VERSION"), sections: sections.collect() }
}
