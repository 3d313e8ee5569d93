//! The real Kimi CLIs, as `install-kimi` beside this file leaves them: where each one is, and the
//! environment that makes it talk to a scripted [`Model`] instead of to Moonshot.
//!
//! Their homes are not set here. Where Kimi keeps its sessions and its login is what many tests are
//! about, so each of them sets `HOME`, `KIMI_CODE_HOME` and `KIMI_SHARE_DIR` itself; a test that does
//! not would find its developer's own Kimi.

use std::env;
use std::path::{Path, PathBuf};

use super::model::Model;

/// One of the installed programs that call themselves `kimi`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Real {
    /// The Kimi Code CLI, run by the Node.js that was installed with it.
    KimiCode,
    /// The last kimi-cli that works.
    KimiCli,
    /// The kimi-cli after it, which says that it is retired and does nothing else.
    Retired,
}

impl Real {
    /// What a person calls it, and the name of its dialect.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Real::KimiCode => "kimi-code",
            Real::KimiCli => "kimi-cli",
            Real::Retired => "kimi-cli-retired",
        }
    }

    /// The program, if it is installed under `$KIMI_BRIDGE_TEST_KIMI_DIR`, or else `target/kimi`.
    pub(crate) fn program(self) -> Option<PathBuf> {
        let program = installed().join(match self {
            Real::KimiCode => "kimi-code/kimi",
            Real::KimiCli => "kimi-cli-1.51.0/bin/kimi",
            Real::Retired => "kimi-cli-1.52.0/bin/kimi",
        });
        program.is_file().then_some(program)
    }

    /// What points this CLI at `model`, leaves nothing to be sent elsewhere, and makes failures quick.
    ///
    /// kimi-cli has no variable for its retries. Left alone it makes three attempts at each answer, and
    /// the client inside it three requests for each attempt: nine. `--max-retries-per-step 1`, or
    /// `[loop_control] max_retries_per_step = 1` in the `config.toml` of its `KIMI_SHARE_DIR`, leaves
    /// the client's three, about a second and a half; nothing turns those off.
    pub(crate) fn model_env(self, model: &Model) -> Vec<(String, String)> {
        let base_url = model.base_url();
        let own = match self {
            Real::KimiCode => [
                ("KIMI_MODEL_BASE_URL", base_url.as_str()),
                ("KIMI_MODEL_API_KEY", "sk-scripted"),
                ("KIMI_CODE_NO_AUTO_UPDATE", "1"),
                ("KIMI_LOOP_MAX_ATTEMPTS_PER_STEP", "2"),
            ],
            Real::KimiCli | Real::Retired => [
                ("KIMI_BASE_URL", base_url.as_str()),
                ("KIMI_API_KEY", "sk-scripted"),
                ("KIMI_CLI_NO_AUTO_UPDATE", "1"),
                ("KIMI_MODEL_MAX_CONTEXT_SIZE", "262144"),
            ],
        };
        let both = [
            ("KIMI_MODEL_NAME", "kimi-for-coding"),
            ("KIMI_DISABLE_TELEMETRY", "1"),
            // A proxy of the machine that runs the tests must not stand between the two.
            ("NO_PROXY", "127.0.0.1"),
        ];
        let variables = own.into_iter().chain(both);
        variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }
}

/// Where `install-kimi` puts things.
pub(crate) fn installed() -> PathBuf {
    env::var_os("KIMI_BRIDGE_TEST_KIMI_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("target/kimi"), PathBuf::from)
}
