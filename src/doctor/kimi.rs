//! The programs, the login, and ripgrep.

use super::Check;
use crate::error::Kind;
use crate::kimi::examination::{Examination, Examined, Start};
use crate::kimi::login::{self, Key, Login, TokenState};
use crate::kimi::ripgrep::{self, Ripgrep};
use crate::kimi::version::{Age, age};
use crate::kimi::{Dialect, Identity, Program, consultant};
use crate::settings::Loaded;

pub(super) fn checks(loaded: &Loaded, found: &Examination) -> Vec<Check> {
    let mut checks = Vec::new();
    match &found.used {
        Ok(program) => checks.push(used(program)),
        Err(error) => {
            let mut check = Check::error("program", error);
            let mut starts = found.candidates.iter().filter_map(|one| one.start.as_ref());
            if error.kind == Kind::Sandbox
                && let Some(remedy) = starts.find_map(|start| opening(loaded, start))
            {
                check = check.mended_by(remedy);
            }
            checks.push(check);
        }
    }
    checks.extend(found.candidates.iter().filter_map(|one| other(loaded, found, one)));
    checks.extend(found.passed_over.iter().map(|path| {
        Check::note("other", format!("{} was not asked: a setting names another", path.display()))
    }));
    if let Ok(program) = &found.used {
        checks.push(version(program));
        checks.extend(logins(&login::look(&loaded.environment, program.dialect)));
        checks.push(ripgrep(&ripgrep::look(loaded, program.dialect)));
    }
    checks
}

fn used(program: &Program) -> Check {
    let why = match program.found.as_str() {
        "PATH" => "the first usable one, and on PATH".to_owned(),
        "a usual place" => "the first usable one, and in a usual place".to_owned(),
        setting => format!("{setting} names it"),
    };
    let Program { dialect, version, path, .. } = program;
    Check::ok("program", format!("{dialect} {version} at {}: {why}", path.display()))
}

/// A program that is not used, and why.
fn other(loaded: &Loaded, found: &Examination, one: &Examined) -> Option<Check> {
    let candidate = &one.candidate;
    if found.used.as_ref().is_ok_and(|program| program.path == candidate.path) {
        return None;
    }
    let place = format!("{} ({})", candidate.path.display(), candidate.found);
    let named = |identity: &Identity| match identity {
        Identity::Usable(dialect, version) => format!("{dialect} {version}"),
        Identity::Retired(version) => format!("kimi-cli {version}"),
        Identity::Unknown => "no Kimi".to_owned(),
    };
    let what = named(&candidate.identity);
    Some(match (&candidate.identity, &one.start) {
        (Identity::Usable(..), _) => {
            Check::note("other", format!("{what} at {place}: the first usable one is used"))
        }
        (Identity::Retired(_), _) => {
            Check::note("other", format!("{what} at {place}: retired, it only prints a notice"))
        }
        (Identity::Unknown, Some(start @ Start::OnlyOutside { identity, why, .. })) => {
            let what = named(identity);
            let says = format!("{what} at {place}: it does not start inside the sandbox");
            match &found.used {
                Ok(_) => {
                    let hint = why.error.hint.clone();
                    Check::warning("other", says, opening(loaded, start).unwrap_or(hint))
                }
                // The remedy stands with the problem already.
                Err(_) => Check::note("other", says),
            }
        }
        (Identity::Unknown, Some(Start::Well(_) | Start::NotAtAll(_)) | None) => {
            let says =
                format!("{place} does not answer --version as a Kimi does: {}", candidate.said);
            Check::note("other", says)
        }
    })
}

/// What opens the sandbox far enough, when that was tried and found.
pub(super) fn opening(loaded: &Loaded, start: &Start) -> Option<String> {
    let Start::OnlyOutside { opened, .. } = start else { return None };
    let shown = |paths: &[std::path::PathBuf], between: &str| {
        paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(between)
    };
    let all: Vec<_> = loaded.settings.readable.iter().chain(opened).cloned().collect();
    (!opened.is_empty()).then(|| {
        format!(
            "Set `readable: [{}]` in {} (or KIMI_BRIDGE_READABLE={} in the environment): this was tried, and it starts then.",
            shown(&all, ", "),
            loaded.environment.config_dir.join("settings.yaml").display(),
            shown(&all, ":"),
        )
    })
}

fn version(program: &Program) -> Check {
    let Program { dialect, version, .. } = program;
    let tested = consultant::consultant().tested(*dialect);
    match age(*dialect, version) {
        Age::Tested => match dialect {
            Dialect::KimiCode => Check::ok("version", format!("{version} is the tested one")),
            Dialect::KimiCli => Check::ok(
                "version",
                format!(
                    "{version} is the tested one, and the last of kimi-cli that works: do not update it"
                ),
            ),
        },
        Age::Newer => {
            Check::note("version", format!("{version} is newer than the tested {tested}"))
                .mended_by(format!("If answers cannot be read, go back: {}.", install(*dialect)))
        }
        Age::Older => Check::warning(
            "version",
            format!("{version} is older than the tested {tested}"),
            format!("Update it: {}.", install(*dialect)),
        ),
        Age::Unclear => {
            Check::note("version", format!("{version} cannot be compared with the tested {tested}"))
        }
    }
}

fn install(dialect: Dialect) -> String {
    let tested = consultant::consultant().tested(dialect);
    match dialect {
        Dialect::KimiCode => format!("`npm install -g @moonshot-ai/kimi-code@{tested}`"),
        Dialect::KimiCli => format!("`uv tool install kimi-cli=={tested}`"),
    }
}

fn logins(login: &Login) -> Vec<Check> {
    let mut checks = Vec::new();
    if let Some(error) = &login.unreadable {
        checks.push(Check::error("login", error));
    }
    if let Some(variable) = login.lacks_key {
        checks.push(Check::problem(
            "login",
            Kind::NotLoggedIn,
            format!(
                "{variable} is set without KIMI_MODEL_API_KEY: Kimi asks without a key, and fails"
            ),
            "Set both, or neither.",
        ));
    }
    for token in &login.tokens {
        let file = token.file.display();
        match token.state {
            TokenState::Good => {}
            TokenState::Expired => checks.push(Check::warning(
                "login",
                format!("the token in {file} has expired, and there is nothing to renew it with"),
                Kind::BadKey.hint(),
            )),
            TokenState::Unclear => checks.push(Check::note(
                "login",
                format!("{file} does not hold a token as Kimi writes it"),
            )),
        }
    }
    for provider in &login.providers {
        if let Key::Variable(variable, false) = &provider.key {
            let says = format!(
                "the provider {} takes its key from {variable}, which is not set here",
                provider.name
            );
            let remedy = format!(
                "Set {variable} where kimi-bridge is started; for a host, under `env` of its entry."
            );
            checks.push(Check::warning("login", says, remedy));
        }
    }
    // What keeps Kimi from starting is told already, and hides the rest.
    if login.unreadable.is_none() && login.lacks_key.is_none() {
        checks.push(seen(login));
    }
    checks
}

/// What there is that a service could accept.
fn seen(login: &Login) -> Check {
    let mut seen = Vec::new();
    let good = login.tokens.iter().filter(|token| token.state == TokenState::Good);
    seen.extend(
        good.filter_map(|token| Some(format!("a token in {}", token.file.file_name()?.to_str()?))),
    );
    seen.extend(login.key_variable.map(|name| format!("a key in {name}")));
    seen.extend(login.providers.iter().filter_map(|provider| match &provider.key {
        Key::Written | Key::Variable(_, true) => {
            Some(format!("a key of the provider {}", provider.name))
        }
        Key::Variable(_, false) | Key::None => None,
    }));
    if !seen.is_empty() {
        let says = format!("{}; only a consultation shows that it works (--live)", seen.join(", "));
        return Check::ok("login", says);
    }
    let remedy = Kind::NotLoggedIn.hint();
    if login.is_seen() || !login.providers.is_empty() {
        // A service that asks for no key is one of them.
        Check::warning("login", "there is no token or key that could be used", remedy)
    } else {
        Check::problem(
            "login",
            Kind::NotLoggedIn,
            "no login, key or provider is to be seen",
            remedy,
        )
    }
}

fn ripgrep(found: &Ripgrep) -> Check {
    match found {
        Ripgrep::OnPath(path) => Check::ok("ripgrep", path.display().to_string()),
        Ripgrep::Fetched(path) => {
            Check::ok("ripgrep", format!("{}, which Kimi fetched", path.display()))
        }
        Ripgrep::Missing => Check::warning(
            "ripgrep",
            "`rg` is not on PATH: Kimi fetches its own at its first search, and can run it from the next consultation on",
            "Install ripgrep (`apt install ripgrep`, `brew install ripgrep`).",
        ),
    }
}
