//! Classifies a run without an answer. The same cause has the same kind in both dialects: the HTTP status counts first,
//! then the message of the service, then the exit code. Words in a path or an address are ignored.

use std::path::Path;
use std::sync::LazyLock;

use regex::Regex;

use super::dialect::is_retirement_notice;
use super::event::Retry;
use super::text::clean;
use crate::error::{Error, Kind};
use crate::redact::Secrets;
use crate::sandbox::keeper::START_FAILED;

/// The exit code of kimi-cli for a temporary failure.
pub(super) const MAY_PASS: i32 = 75;
/// The most characters of the service's message that an error quotes.
const WORDS: usize = 400;

/// The way in which a program ended.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The program exited with this code.
    Code(i32),
    /// A signal ended the program.
    #[default]
    Signal,
    /// The bridge ended the program, because the program had closed its standard output and kept running.
    Closed,
}

/// The end of a run without an answer.
#[derive(Debug, Default, Clone, PartialEq)]
pub(crate) struct FailedRun<'a> {
    /// The way in which the program ended.
    pub(crate) exit: Exit,
    /// The end of standard error.
    pub(crate) stderr: &'a str,
    /// The lines of standard output that were no JSON, in order. kimi-cli wraps its errors at 80
    /// columns, in the middle of words.
    pub(crate) plain: &'a [String],
    /// The last retry that the stream reported.
    pub(crate) retry: Option<&'a Retry>,
}

/// Returns the error of a failed run. The message quotes the program, without secrets.
pub(crate) fn classify(program: &Path, ending: &FailedRun<'_>, secrets: &Secrets) -> Error {
    let plain = ending.plain.concat();
    if is_retirement_notice(&plain) || is_retirement_notice(ending.stderr) {
        return retired(program);
    }
    let (error_line, last_line) = error_and_last_line(ending.stderr);
    let configuration = configuration_error(ending.stderr);
    let retry = ending.retry.map(|retry| retry.message.as_str()).unwrap_or_default();
    // The most reliable text comes first; other lines of standard error may be mere warnings.
    let texts = [configuration.as_str(), error_line, &plain, last_line];
    let words =
        texts.into_iter().chain([retry]).find(|words| !words.trim().is_empty()).unwrap_or_default();
    if let Some(why) =
        error_line.strip_prefix(START_FAILED).or(last_line.strip_prefix(START_FAILED))
    {
        return Error::from_kind(Kind::Spawn, format!("could not start {why}"));
    }
    let kind = error_kind(&texts, ending);
    let shown = secrets.redact_start(clean(words.trim()).trim(), WORDS).into_text();
    let shown = shown.strip_prefix("error: failed to run prompt: ").unwrap_or(&shown);
    let message = match (kind, shown.is_empty()) {
        (Kind::Crashed, true) => match ending.exit {
            Exit::Code(code) => {
                format!("Kimi exited with code {code} without an answer and without a word")
            }
            Exit::Signal => "a signal ended Kimi before it answered".to_owned(),
            Exit::Closed => {
                "Kimi closed its standard output without an answer, and did not end".to_owned()
            }
        },
        (Kind::EmptyAnswer, true) => "Kimi ended without an answer".to_owned(),
        (kind, _) => format!("{}: {shown}", kind.meaning()),
    };
    Error::from_kind(kind, message)
}

/// Returns the error for a retired program.
pub(crate) fn retired(path: &Path) -> Error {
    let path = path.display();
    Error::from_kind(
        Kind::KimiRetired,
        format!("{path} is the retired release of kimi-cli, which answers nothing any more"),
    )
}

/// Returns the last line that begins with `error:`, and the last line with any content.
fn error_and_last_line(stderr: &str) -> (&str, &str) {
    let mut lines = stderr.lines().rev().filter(|line| {
        let line = line.trim();
        !(line.is_empty()
            || line.starts_with("See log:")
            || line.starts_with("To resume this session:"))
    });
    let last = lines.clone().next().unwrap_or_default();
    (lines.find(|line| line.trim_start().starts_with("error:")).unwrap_or_default(), last)
}

/// Returns the message of kimi-cli about an unusable `config.toml`: the line with the path, and the reason below.
fn configuration_error(stderr: &str) -> String {
    let lines = stderr.lines().skip_while(|line| !line.starts_with("Invalid configuration file "));
    lines.take(3).map(str::trim).collect::<Vec<_>>().join(" ")
}

/// Words of a service for an exhausted quota. kimi-code leaves out the error type that names it.
const QUOTA_WORDS: &[&str] = &[
    "usage limit",
    "exceeded_current_quota",
    "exceeded your current quota",
    "insufficient balance",
    "insufficient_balance",
];

/// Words that name a kind if there is no HTTP status, the most reliable first.
const KIND_WORDS: [(&[&str], Kind); 10] = [
    (
        &[
            "llm not set",
            "no model configured",
            "no default model configured",
            "not logged in",
            "login required",
            "no credential configured",
            "auth.login_required",
            "auth.token_missing",
        ],
        Kind::NotLoggedIn,
    ),
    (
        &[
            "is not configured in config.toml",
            "referenced by model",
            "must declare a wire protocol",
            "invalid configuration file",
        ],
        Kind::Settings,
    ),
    (&["max number of steps", "max_steps_exceeded"], Kind::StepLimit),
    (&["empty response"], Kind::EmptyAnswer),
    (QUOTA_WORDS, Kind::Quota),
    (&["provider.filtered", "context.overflow"], Kind::Declined),
    (&["provider.rate_limit"], Kind::RateLimited),
    (&["provider.auth_error", "auth.token_unauthorized", "invalid authentication"], Kind::BadKey),
    (&["provider.overloaded", "provider.connection_error"], Kind::Unavailable),
    (&["provider.api_error", "connection error", "timed out"], Kind::Unavailable),
];

/// Returns the kind of the first text that names one by its HTTP status or its words.
fn error_kind(texts: &[&str], ending: &FailedRun<'_>) -> Kind {
    let named = texts.iter().find_map(|text| {
        let normalized = NormalizedText::new(text);
        match status(text) {
            Some(status) => kind_from_status(status, &normalized),
            None => KIND_WORDS.iter().find(|(any, _)| normalized.holds(any)).map(|(_, kind)| *kind),
        }
    });
    let is_silent = texts.iter().all(|text| text.trim().is_empty());
    named.unwrap_or_else(|| match (ending.exit, ending.retry) {
        (Exit::Code(MAY_PASS), _) => Kind::Unavailable,
        (Exit::Code(0), _) => Kind::EmptyAnswer,
        (_, Some(retry)) if is_silent => retry
            .status
            .and_then(|status| kind_from_status(status, &NormalizedText::new(&retry.message)))
            .unwrap_or(Kind::Unavailable),
        _ => Kind::Crashed,
    })
}

/// Returns the kind of an HTTP status. The message decides where services use one status for several causes.
fn kind_from_status(status: u64, text: &NormalizedText) -> Option<Kind> {
    Some(match status {
        402 if text.holds(&["membership"]) => Kind::Unavailable,
        402 => Kind::Quota,
        403 if text.holds(&["only available for coding agents"]) => Kind::NotAdmitted,
        403 | 429 if text.holds(QUOTA_WORDS) => Kind::Quota,
        401 | 403 => Kind::BadKey,
        429 => Kind::RateLimited,
        407 | 408 | 500..=599 => Kind::Unavailable,
        400..=499 => Kind::Declined,
        _ => return None,
    })
}

/// Returns the HTTP status that a text names. A page of a proxy has it in its title.
fn status(text: &str) -> Option<u64> {
    static STATUS: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new(
            r"(?:Error code: |(?:provider|context)\.\w+: |API\w*Error: |<title>)([45]\d\d)\b",
        )
        .ok()
    });
    let found = STATUS.as_ref()?.captures(text)?;
    found.get(1)?.as_str().parse().ok()
}

/// A text in lower case, without paths and addresses, since they do not describe the failure. White space is removed
/// because kimi-cli loses it at the end of a line.
struct NormalizedText(String);

impl NormalizedText {
    fn new(text: &str) -> NormalizedText {
        let words = text.split_whitespace().filter(|word| !word.contains('/'));
        NormalizedText(words.collect::<String>().to_lowercase())
    }

    fn holds(&self, any: &[&str]) -> bool {
        any.iter().any(|words| self.0.contains(&words.replace(' ', "")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_has_a_kind_and_a_message() {
        let check = |code: i32, stderr: &str, plain: &[&str], expected: (Kind, &str)| {
            let plain: Vec<String> = plain.iter().map(|&line| line.to_owned()).collect();
            let ending = FailedRun { exit: Exit::Code(code), stderr, plain: &plain, retry: None };
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

    /// Wraps a text as kimi-cli does, at 80 columns and without the space there.
    fn wrapped(text: &str) -> Vec<String> {
        let mut rest = text;
        let mut lines = Vec::new();
        while rest.len() > 80 {
            lines.push(rest[..80].to_owned());
            rest = rest[80..].strip_prefix(' ').unwrap_or(&rest[80..]);
        }
        lines.push(rest.to_owned());
        lines
    }

    fn kind(ending: &FailedRun<'_>) -> Kind {
        classify(Path::new("/bin/kimi"), ending, &Secrets::default()).kind
    }

    #[test]
    fn a_status_has_one_kind_in_both_dialects() {
        let check = |status: u64, message: &str, name: &str, expected: Kind| {
            let class = match status {
                401 | 403 => "auth_error",
                429 if !message.contains("quota") => "rate_limit",
                529 => "overloaded",
                _ => "api_error",
            };
            let stderr = format!(
                "error: failed to run prompt: provider.{class}: {status} {message}\nSee log: /quota/x.log\n"
            );
            let exit = Exit::Code(1);
            let code = FailedRun { exit, stderr: &stderr, plain: &[], retry: None };
            assert_eq!(kind(&code), expected, "{stderr}");
            let body = format!(
                "Error code: {status} - {{'error': {{'message': '{message}', 'type': '{name}'}}}}"
            );
            let plain = wrapped(&body);
            let exit =
                Exit::Code(if matches!(status, 429 | 500 | 502 | 503) { MAY_PASS } else { 1 });
            let stderr = "\nTo resume this session: kimi -r 123\n";
            let cli = FailedRun { exit, stderr, plain: &plain, retry: None };
            assert_eq!(kind(&cli), expected, "{plain:#?}");
        };
        let refused = "invalid_request_error";
        check(400, "Invalid request: temperature", refused, Kind::Declined);
        check(400, "Input token length too long", refused, Kind::Declined);
        check(
            400,
            "The request was rejected because it was considered high risk",
            "content_filter",
            Kind::Declined,
        );
        check(401, "Invalid Authentication", "invalid_authentication_error", Kind::BadKey);
        check(401, "the usage limit page moved", "error", Kind::BadKey);
        check(402, "Unable to verify your membership", "error", Kind::Unavailable);
        check(402, "Insufficient balance", "error", Kind::Quota);
        check(402, "Payment required", "error", Kind::Quota);
        let listed =
            "Kimi For Coding is currently only available for Coding Agents such as Kimi CLI";
        check(403, listed, "access_terminated_error", Kind::NotAdmitted);
        let spent = "You have reached your usage limit for this period";
        check(403, spent, "access_terminated_error", Kind::Quota);
        check(403, "Your account has been banned", "permission_denied_error", Kind::BadKey);
        check(403, "blocked, see https://x.example/billing/quota", "error", Kind::BadKey);
        check(
            404,
            "Not found the model kimi-k9 or Permission denied",
            "resource_not_found_error",
            Kind::Declined,
        );
        check(404, "Not found the model with the usage limit", "error", Kind::Declined);
        check(408, "request timeout", "error", Kind::Unavailable);
        check(413, "Request Entity Too Large", "error", Kind::Declined);
        check(422, "Unprocessable: tools.0.name", "error", Kind::Declined);
        check(
            429,
            "You have reached your request rate limit",
            "rate_limit_reached_error",
            Kind::RateLimited,
        );
        check(
            429,
            "The engine is currently overloaded",
            "engine_overloaded_error",
            Kind::RateLimited,
        );
        check(429, "Your account request reached usage limit", "error", Kind::Quota);
        let quota =
            "Your account has exceeded your current quota, please check your account balance";
        check(429, quota, "exceeded_current_quota_error", Kind::Quota);
        check(
            500,
            "upstream exploded in /srv/usage limit/insufficient_balance",
            "error",
            Kind::Unavailable,
        );
        check(502, "no model configured behind the gateway", "error", Kind::Unavailable);
        check(529, "overloaded", "error", Kind::Unavailable);
    }

    #[test]
    fn a_failure_without_an_http_status_is_classified_by_the_message() {
        let check = |stderr: &str, plain: &[&str], expected: Kind| {
            let plain: Vec<String> = plain.iter().map(|&line| line.to_owned()).collect();
            let ending = FailedRun { exit: Exit::Code(1), stderr, plain: &plain, retry: None };
            assert_eq!(kind(&ending), expected, "{stderr}{plain:?}");
        };
        let code = |words: &str| {
            format!("error: failed to run prompt: {words}\nSee log: /srv/billing/quota.log\n")
        };
        check(
            &code("No model configured. Run `kimi` and use /login to sign in"),
            &[],
            Kind::NotLoggedIn,
        );
        check("", &["LLM not set"], Kind::NotLoggedIn);
        check(&code("provider p has no credential configured"), &[], Kind::NotLoggedIn);
        check(&code("Model \"nope\" is not configured in config.toml."), &[], Kind::Settings);
        check(
            &code("Provider \"q\" referenced by model \"k\" is not configured."),
            &[],
            Kind::Settings,
        );
        check(
            "Invalid configuration file /srv/quota/config.toml: 1 validation error for Config\n  Value error, Default \
             model nope not found in models\n    For further information visit https://errors.pydantic.dev\nSee logs: \
             /x\nRun with --debug for full traceback.\n",
            &[],
            Kind::Settings,
        );
        check(
            &code(
                "compaction.failed: APIContextOverflowError: 400 Your request exceeded model token limit",
            ),
            &[],
            Kind::Declined,
        );
        check(&code("provider.filtered: the answer was withheld"), &[], Kind::Declined);
        check(
            "",
            &["<html><head><title>413 Request Entity Too Large</title></head></html>"],
            Kind::Declined,
        );
        check("", &["<html><head><title>403 Forbidden</title></head></html>"], Kind::BadKey);
        check("", &["Max number of steps reached: 3"], Kind::StepLimit);
        check(
            &code("provider.api_error: The API returned an empty response."),
            &[],
            Kind::EmptyAnswer,
        );
        check(&code("ENOENT: no such file /srv/billing/quota/rate_limit"), &[], Kind::Crashed);
        check("node: bad option: --usage\n", &[], Kind::Crashed);
        // The error line counts for more than a warning before it.
        check(
            &format!("warning: usage limit is near\n{}", code("provider.api_error: 500 down")),
            &[],
            Kind::Unavailable,
        );
    }

    #[test]
    fn a_run_that_ends_without_output_after_rate_limits_is_rate_limited() {
        let retry = Retry { status: Some(429), ..Retry::default() };
        let ending = FailedRun { retry: Some(&retry), ..FailedRun::default() };
        assert_eq!(
            classify(Path::new("/bin/kimi"), &ending, &Secrets::default()).kind,
            Kind::RateLimited
        );
    }
}
