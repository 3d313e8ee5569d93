//! What the tests stand on.

pub(crate) mod answers;
#[cfg(target_os = "linux")]
pub(crate) mod attempt;
#[cfg(target_os = "linux")]
pub(crate) mod fake;
pub(crate) mod kimi;
pub(crate) mod messages;
pub(crate) mod model;
pub(crate) mod report;
pub(crate) mod server;
#[cfg(target_os = "linux")]
pub(crate) mod tries;
pub(crate) mod world;

use std::path::Path;

use libtest_mimic::Trial;

use kimi::Real;

/// A test that needs nothing but the binary.
pub(crate) fn test(name: &str, run: impl FnOnce() + Send + 'static) -> Trial {
    Trial::test(name, move || {
        run();
        Ok(())
    })
}

/// A test that needs a program or a right: it gets it, or is ignored and says so. Where everything is
/// required it fails instead.
pub(crate) fn needs<T: Send + 'static>(
    name: &str,
    what: &str,
    found: Option<T>,
    run: impl FnOnce(T) + Send + 'static,
) -> Trial {
    let required = std::env::var_os("KIMI_BRIDGE_REQUIRE_REAL").is_some_and(|value| value == "1");
    let what = what.to_owned();
    if found.is_none() && !required && !std::env::args().any(|arg| arg == "--list") {
        eprintln!("skipped: {name} needs {what}");
    }
    let ignored = found.is_none() && !required;
    Trial::test(name, move || {
        run(found.ok_or(format!("{what} is required here"))?);
        Ok(())
    })
    .with_ignored_flag(ignored)
}

/// The same test against each of the CLIs that work.
pub(crate) fn both(name: &str, run: fn(Real, &Path)) -> Vec<Trial> {
    [Real::KimiCode, Real::KimiCli].map(|real| one(name, real, run)).into()
}

/// A test against one CLI.
pub(crate) fn one(name: &str, real: Real, run: fn(Real, &Path)) -> Trial {
    let name = format!("{name}::{}", real.name());
    let what = format!("{}, which tests/support/install-kimi installs", real.name());
    needs(&name, &what, real.program(), move |program| run(real, &program))
}
