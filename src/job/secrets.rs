//! The secrets that no text of a call may hold.

use crate::error::{Error, Result};
use crate::redact::Secrets;
use crate::settings::{Config, Environment};

/// Loads the rules that hold for this call. The user's file is read each time, so that a new rule applies at once.
pub(crate) fn load(config: &Config) -> Result<Secrets> {
    Secrets::load(&config.environment.config_dir, &config.environment.vars)
}

/// Redacts an error that arose outside of a call.
pub(crate) fn redact_error(error: Error, environment: &Environment) -> Error {
    // The error may be about the user's file; then the rules that are built in must suffice.
    let secrets = Secrets::load(&environment.config_dir, &environment.vars).unwrap_or_default();
    secrets.redact_error(error)
}
