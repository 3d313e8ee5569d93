//! What a user can do with kimi-bridge, tried with the real binary: a file for each thing.
//!
//! The harness is libtest-mimic, since whether the real Kimi CLIs are installed is known only when
//! the tests run: a test that needs one and does not find it is counted as ignored, and says so. With
//! `KIMI_BRIDGE_REQUIRE_REAL=1` it fails instead.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "tests")]

mod captures;
mod citations;
mod clients;
mod commands;
mod consult;
mod doctor;
mod failures;
#[cfg(target_os = "linux")]
mod faults;
mod hooks;
#[cfg(target_os = "linux")]
mod hostile;
mod injection;
mod judge;
mod packaging;
mod plugin;
mod reading;
mod registrations;
mod retries;
mod rooms;
mod rounds;
mod runs;
#[cfg(target_os = "linux")]
mod sandbox;
mod secrets;
mod serve;
mod setup;
mod support;
#[cfg(target_os = "linux")]
mod walls;
mod workspace;

fn main() {
    #[cfg(target_os = "linux")]
    support::attempt::if_asked();
    #[cfg(target_os = "linux")]
    support::fake::play::if_asked();
    let arguments = libtest_mimic::Arguments::from_args();
    let trials = [
        captures::tests(),
        citations::tests(),
        clients::tests(),
        commands::tests(),
        consult::tests(),
        doctor::tests(),
        failures::tests(),
        #[cfg(target_os = "linux")]
        faults::tests(),
        hooks::tests(),
        #[cfg(target_os = "linux")]
        hostile::tests(),
        injection::tests(),
        judge::tests(),
        packaging::tests(),
        plugin::tests(),
        reading::tests(),
        registrations::tests(),
        retries::tests(),
        rooms::tests(),
        rounds::tests(),
        runs::tests(),
        #[cfg(target_os = "linux")]
        sandbox::tests(),
        secrets::tests(),
        serve::tests(),
        setup::tests(),
        #[cfg(target_os = "linux")]
        walls::tests(),
        workspace::tests(),
    ];
    libtest_mimic::run(&arguments, trials.into_iter().flatten().collect()).exit();
}
