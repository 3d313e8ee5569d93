//! Why a run brought no answer: the class comes from the exit code, the error line, the plain text
//! and the last retry together, since no one of them says it for both dialects.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use regex::Regex;

use super::dialect::is_retirement_notice;
use super::event::Retry;
use super::text::clean;
use crate::error::{Error, Kind};
use crate::redact::Secrets;
use crate::sandbox::Rules;
use crate::sandbox::keeper::{SANDBOX_FAILED, START_FAILED};

/// kimi-cli's exit code for what may pass by itself.
pub(super) const MAY_PASS: i32 = 75;
/// The most of the service's words that a message repeats, characters.
const WORDS: usize = 400;

/// What ended a program.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// It exited with this code.
    Code(i32),
    /// A signal.
    #[default]
    Signal,
    /// The bridge, when the program had closed its standard output and lived on.
    Closed,
}

/// How a run ended that brought no answer.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct Ending<'a> {
    /// What ended it.
    pub(crate) how: How,
    /// The end of what it wrote to standard error.
    pub(crate) stderr: &'a str,
    /// The lines of standard output that were no JSON, in order. kimi-cli wraps its errors at 80
    /// columns, in the middle of words.
    pub(crate) plain: &'a [String],
    /// The last retry that it told of.
    pub(crate) retry: Option<&'a Retry>,
}

/// The error for it, in the words that came, without their secrets.
pub(crate) fn classify(program: &Path, ending: &Ending<'_>, secrets: &Secrets) -> Error {
    let plain = ending.plain.concat();
    if is_retirement_notice(&plain) || is_retirement_notice(ending.stderr) {
        return retired(program);
    }
    let (error_line, last_line) = lines_of(ending.stderr);
    let retry = ending.retry.map(|retry| retry.message.as_str()).unwrap_or_default();
    // In the order in which they are believed: other lines of standard error may be mere warnings.
    let all = [error_line, &plain, last_line, retry];
    let words = all.into_iter().find(|words| !words.trim().is_empty()).unwrap_or_default();
    if let Some(why) =
        error_line.strip_prefix(START_FAILED).or(last_line.strip_prefix(START_FAILED))
    {
        return Error::of(Kind::Spawn, format!("could not start {why}"));
    }
    let kind = kind_of(&all.join("\n"), ending);
    let shown = secrets.redact_start(clean(words.trim()).trim(), WORDS).into_text();
    let shown = shown.strip_prefix("error: failed to run prompt: ").unwrap_or(&shown);
    let message = match (kind, shown.is_empty()) {
        (Kind::Crashed, true) => match ending.how {
            How::Code(code) => {
                format!("Kimi exited with code {code} without an answer and without a word")
            }
            How::Signal => "a signal ended Kimi before it answered".to_owned(),
            How::Closed => {
                "Kimi closed its standard output without an answer, and did not end".to_owned()
            }
        },
        (Kind::EmptyAnswer, true) => "Kimi ended without an answer".to_owned(),
        (kind, _) => format!("{}: {shown}", kind.meaning()),
    };
    Error::of(kind, message)
}

/// The error for a retired program.
pub(crate) fn retired(path: &Path) -> Error {
    let path = path.display();
    Error::of(
        Kind::KimiRetired,
        format!("{path} is the retired release of kimi-cli, which answers nothing any more"),
    )
}

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

/// The last line that says `error:`, and the last line that says anything.
fn lines_of(stderr: &str) -> (&str, &str) {
    let mut lines = stderr.lines().rev().filter(|line| {
        let line = line.trim();
        !(line.is_empty()
            || line.starts_with("See log:")
            || line.starts_with("To resume this session:"))
    });
    let last = lines.clone().next().unwrap_or_default();
    (lines.find(|line| line.trim_start().starts_with("error:")).unwrap_or_default(), last)
}

/// Words that name a kind, in the order in which they are believed; they count for more than a status.
const NAMED: [(&[&str], Kind); 4] = [
    (
        &[
            "llm not set",
            "no model configured",
            "/login",
            "not logged in",
            "login required",
            "no credential configured",
        ],
        Kind::NotLoggedIn,
    ),
    (
        &[
            "usage limit",
            "quota",
            "access_terminated",
            "insufficient balance",
            "insufficient_balance",
            "billing",
        ],
        Kind::Quota,
    ),
    (&["max number of steps", "max_steps_exceeded"], Kind::StepLimit),
    (&["empty response"], Kind::EmptyAnswer),
];

/// Words that count for less than a status.
const SUGGESTED: [(&[&str], Kind); 3] = [
    (&["provider.rate_limit"], Kind::RateLimited),
    (&["provider.auth_error", "invalid authentication", "unauthorized"], Kind::BadKey),
    (
        &["provider.connection_error", "connection error", "provider.api_error", "timed out"],
        Kind::Unavailable,
    ),
];

fn kind_of(words: &str, ending: &Ending<'_>) -> Kind {
    let lower = words.to_lowercase();
    let said = |table: &[(&[&str], Kind)]| {
        let row = table.iter().find(|(any, _)| any.iter().any(|part| lower.contains(part)));
        row.map(|(_, kind)| *kind)
    };
    let by_status = || match status(words)? {
        429 => Some(Kind::RateLimited),
        401 | 403 => Some(Kind::BadKey),
        408 | 500..=599 => Some(Kind::Unavailable),
        _ => None,
    };
    let by_words = said(&NAMED).or_else(by_status).or_else(|| said(&SUGGESTED));
    by_words.unwrap_or_else(|| match (ending.how, ending.retry.map(|retry| retry.status)) {
        (How::Code(MAY_PASS), _) => Kind::Unavailable,
        (How::Code(0), _) => Kind::EmptyAnswer,
        (_, Some(Some(429))) if words.trim().is_empty() => Kind::RateLimited,
        (_, Some(_)) if words.trim().is_empty() => Kind::Unavailable,
        _ => Kind::Crashed,
    })
}

/// The HTTP status that the words name: `Error code: 429` or `provider.api_error: 500`.
fn status(words: &str) -> Option<u16> {
    static STATUS: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r"(?:Error code: |provider\.\w+: )(\d{3})\b").ok());
    let found = STATUS.as_ref()?.captures(words)?;
    found.get(1)?.as_str().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_fail_has_its_kind_and_words() {
        let check = |code: i32, stderr: &str, plain: &[&str], expected: (Kind, &str)| {
            let plain: Vec<String> = plain.iter().map(|&line| line.to_owned()).collect();
            let ending = Ending { how: How::Code(code), stderr, plain: &plain, retry: None };
            let error = classify(Path::new("/bin/kimi"), &ending, &Secrets::default());
            assert_eq!((error.kind, error.message.as_str()), expected);
        };
        let hint = "\nTo resume this session: kimi -r 123\n";
        check(
            75,
            hint,
            &[
                "Error code: 429 - {'error': {'message': 'You have reached your request rate limi",
                "t', 'type': 'error'}}",
            ],
            (
                Kind::RateLimited,
                "the service asked to slow down: Error code: 429 - {'error': {'message': 'You have reached your \
                 request rate limit', 'type': 'error'}}",
            ),
        );
        check(
            75,
            hint,
            &["Connection error."],
            (Kind::Unavailable, "the service failed or could not be reached: Connection error."),
        );
        check(
            1,
            "error: failed to run prompt: provider.connection_error: Connection error.\nSee log: /x\n",
            &[],
            (
                Kind::Unavailable,
                "the service failed or could not be reached: provider.connection_error: Connection error.",
            ),
        );
        check(
            1,
            "/lib/x.py:1: SyntaxWarning: return in finally",
            &["Error code: 401 - {'error': {'message': 'Invalid Authentication'}}"],
            (
                Kind::BadKey,
                "the service refused the key or login: Error code: 401 - {'error': {'message': 'Invalid \
                 Authentication'}}",
            ),
        );
        check(
            1,
            "",
            &["Max number of steps reached: 3"],
            (
                Kind::StepLimit,
                "Kimi used up its steps before it answered: Max number of steps reached: 3",
            ),
        );
        check(
            1,
            "",
            &[],
            (Kind::Crashed, "Kimi exited with code 1 without an answer and without a word"),
        );
        check(0, "", &[], (Kind::EmptyAnswer, "Kimi ended without an answer"));
        check(2, "panic: boom", &[], (Kind::Crashed, "Kimi ended without an answer: panic: boom"));
        check(
            0,
            "",
            &["kimi-cli is no longer maintained. Please use"],
            (
                Kind::KimiRetired,
                "/bin/kimi is the retired release of kimi-cli, which answers nothing any more",
            ),
        );
    }

    #[test]
    fn a_silent_end_after_rate_limits_is_a_rate_limit() {
        let retry = Retry { status: Some(429), ..Retry::default() };
        let ending = Ending { retry: Some(&retry), ..Ending::default() };
        assert_eq!(
            classify(Path::new("/bin/kimi"), &ending, &Secrets::default()).kind,
            Kind::RateLimited
        );
    }
}
