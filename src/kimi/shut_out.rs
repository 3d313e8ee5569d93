//! Why a program did not start inside the sandbox, from its own words, and what would open it.

use std::path::PathBuf;
use std::sync::LazyLock;

use regex::Regex;

use super::text::clean;
use crate::error::{Error, Kind};
use crate::redact::Secrets;
use crate::sandbox::Rules;
use crate::sandbox::keeper::SANDBOX_FAILED;

/// The most of a program's words that a message repeats, characters.
const WORDS: usize = 400;

/// Why a program did not start inside the sandbox.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ShutOut {
    /// The path that it could not open, and the setting that opens it.
    pub(crate) error: Error,
    /// What that setting would have to name, as far as the program's words tell.
    pub(crate) open: Option<PathBuf>,
}

impl From<Error> for ShutOut {
    /// For a program that could not even be tried.
    fn from(error: Error) -> ShutOut {
        ShutOut { error, open: None }
    }
}

/// Why a program did not start inside the sandbox, when its words tell that the sandbox was in its way.
pub(crate) fn in_sandbox(words: &str, rules: &Rules, secrets: &Secrets) -> Option<ShutOut> {
    let words = clean(words);
    let lower = words.to_lowercase();
    let entered = words.lines().find_map(|line| line.strip_prefix(SANDBOX_FAILED));
    if let Some(why) = entered {
        let error = Error::new(
            Kind::Sandbox,
            format!("the sandbox could not be entered: {why}"),
            "Please report it; `sandbox: off` goes without.",
        );
        return Some(ShutOut { error, open: None });
    }
    let denied = [
        "permission denied",
        "eacces",
        "eperm",
        "operation not permitted",
        "cannot find module",
        "modulenotfounderror",
        "no module named",
        "error while loading shared libraries",
    ];
    if !denied.iter().any(|said| lower.contains(said)) {
        return None;
    }
    let shown = secrets.redact_start(words.trim(), WORDS).into_text();
    let Some(path) = paths_in(&words).find(|path| path.exists() && !rules.allow_reading(path))
    else {
        return Some(ShutOut { error: shut_out(&shown), open: None });
    };
    // The folder, so that the next file beside it is open as well.
    let open = match path.parent() {
        Some(folder) if !path.is_dir() && folder.components().count() > 3 => folder.to_owned(),
        _ => path.clone(),
    };
    let error = Error::new(
        Kind::Sandbox,
        format!(
            "Kimi could not start inside the sandbox, which closes {} to it: {shown}",
            path.display()
        ),
        format!(
            "Open it with `readable: [{0}]` in settings.yaml (KIMI_BRIDGE_READABLE={0} in the environment), or set \
             `sandbox: off`; `kimi-bridge doctor` tries whether that is enough.",
            open.display()
        ),
    );
    Some(ShutOut { error, open: Some(open) })
}

/// The error of a program that starts, though not inside the sandbox, and whose words do not tell why.
pub(crate) fn shut_out(words: &str) -> Error {
    Error::of(Kind::Sandbox, format!("Kimi could not start inside the sandbox: {words}"))
}

/// The absolute paths that a text names.
fn paths_in(text: &str) -> impl Iterator<Item = PathBuf> + '_ {
    static PATHS: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r#"(?:^|[\s'"`(=:])(/[^\s'"`:;,()]+)"#).ok());
    let found = PATHS.as_ref().into_iter().flat_map(move |paths| paths.captures_iter(text));
    found.filter_map(|path| Some(PathBuf::from(path.get(1)?.as_str())))
}
