//! Runs a consultation with a status line in the terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use super::shutdown::ShutdownSignals;
use crate::consult::{ConsultResult, Request};
use crate::error::Result;
use crate::kimi::{Program, Progress, Watch};
use crate::settings::Config;

/// Consults, with a live status line if standard error is a terminal.
pub(super) async fn consult(
    request: Request,
    config: &Config,
    program: Option<Program>,
    stop: &ShutdownSignals,
) -> Result<ConsultResult> {
    let line = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {wide_msg}") {
        line.set_style(style);
    }
    line.enable_steady_tick(Duration::from_millis(120));
    let progress = |progress: &Progress| line.set_message(progress.to_string());
    let watch = Watch { progress: &progress, ..stop.watch() };
    let result = crate::consult::consult(request, config, program, watch).await;
    line.finish_and_clear();
    result
}

/// Makes a request from the fields of a JSON object.
pub(super) fn request(fields: Value) -> Request {
    Request(serde_json::from_value(fields).unwrap_or_default())
}
