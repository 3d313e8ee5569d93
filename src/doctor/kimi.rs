//! The checks of the programs, the login, and ripgrep.

use std::cmp::Ordering;

use semver::Version;

use super::check::Check;
use crate::error::Kind;
use crate::kimi::examination::{Examination, Start};
use crate::kimi::login::{self, Key, Login, TokenState};
use crate::kimi::node::Node;
use crate::kimi::profile::profiles;
use crate::kimi::program::Candidate;
use crate::kimi::ripgrep::{self, Ripgrep};
use crate::kimi::{Dialect, Identity, Program};
use crate::settings::Config;

pub(super) fn checks(config: &Config, found: &Examination) -> Vec<Check> {
    let mut checks = vec![match &found.used {
        Ok(program) => used_program(program),
        Err(error) => {
            let check = Check::error("program", error);
            let mut starts = found.candidates.iter().filter_map(|(_, start)| start.as_ref());
            match starts.find_map(|start| opening(config, start)) {
                Some(remedy) if error.kind == Kind::Sandbox => check.with_remedy(remedy),
                _ => check,
            }
        }
    }];
    let failure = found.used.as_ref().err().map(|error| error.message.as_str());
    let node = found.node.as_ref().map(|node| self::node(node, found.used.is_ok()));
    // A problem of Node that the first check already reports is not repeated.
    checks.extend(node.filter(|check| failure != Some(check.says.as_str())));
    let candidates = found.candidates.iter();
    checks.extend(
        candidates.filter_map(|(one, start)| unused_program(config, found, one, start.as_ref())),
    );
    checks.extend(found.ignored.iter().map(|path| {
        Check::note("other", format!("{} was not asked: a setting names another", path.display()))
    }));
    if let Ok(program) = &found.used {
        checks.push(version(program.dialect, &program.version));
        let login = login::find(&config.environment, program.dialect);
        checks.extend(logins(&login, program.dialect));
        checks.push(ripgrep(&ripgrep::find(config, program.dialect), program.dialect));
    }
    checks
}

/// Checks the Node.js that Kimi runs on. A version that is too old is only a warning if Kimi starts.
fn node(node: &Node, starts: bool) -> Check {
    match (node.problem(), node) {
        (Some(error), _) if starts => Check::warning("node", &error.message, &error.hint),
        (Some(error), _) => Check::error("node", &error),
        (None, Node::Found(path, version)) => {
            Check::ok("node", format!("{version} at {}", path.display()))
        }
        (None, Node::Missing) => Check::ok("node", "none is needed"),
    }
}

fn used_program(program: &Program) -> Check {
    let why = match program.found.as_str() {
        "PATH" => "the first usable one, and on PATH".to_owned(),
        "a usual place" => "the first usable one, and in a usual place".to_owned(),
        setting => format!("{setting} names it"),
    };
    let Program { dialect, version, path, .. } = program;
    Check::ok("program", format!("{dialect} {version} at {}: {why}", path.display()))
}

/// Returns the check of a program that is not used, with the reason; `None` if another check reports it.
fn unused_program(
    config: &Config,
    found: &Examination,
    one: &Candidate,
    start: Option<&Start>,
) -> Option<Check> {
    let Candidate { path, identity, output, .. } = one;
    if found.used.as_ref().is_ok_and(|program| program.path == *path) {
        return None;
    }
    let place = format!("{} ({})", path.display(), one.found);
    let says = match (identity, start) {
        (Identity::Usable(..), _) => format!("{identity} at {place}: the first usable one is used"),
        (Identity::Retired(_), _) => {
            format!("{identity} at {place}: retired, it only prints a notice")
        }
        (Identity::Unknown, Some(start @ Start::OnlyOutside { identity, why, .. })) => {
            let says = format!("{identity} at {place}: it does not start inside the sandbox");
            if found.used.is_ok() {
                let remedy = opening(config, start).unwrap_or_else(|| why.error.hint.clone());
                return Some(Check::warning("other", says, remedy));
            }
            // The problem of the first check already has this remedy.
            says
        }
        (Identity::Unknown, Some(Start::Failed(_))) => {
            let is_reported = found.used.as_ref().is_err_and(|error| error.message == *output);
            return (!is_reported).then(|| Check::note("other", output));
        }
        (Identity::Unknown, Some(Start::Succeeded(_) | Start::NotKimi(_)) | None) => {
            format!("{place} does not answer --version as a Kimi does: {output}")
        }
    };
    Some(Check::note("other", says))
}

/// Returns the remedy that opens the sandbox far enough for Kimi to start, if a trial found one.
pub(super) fn opening(config: &Config, start: &Start) -> Option<String> {
    let Start::OnlyOutside { opened, .. } = start else { return None };
    let shown = |paths: &[std::path::PathBuf], between: &str| {
        paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(between)
    };
    let all: Vec<_> = config.settings.readable.iter().chain(opened).cloned().collect();
    (!opened.is_empty()).then(|| {
        format!(
            "Set `readable: [{}]` in {} (or KIMI_BRIDGE_READABLE={} in the environment): in a trial, Kimi then started.",
            shown(&all, ", "),
            config.environment.config_dir.join("settings.yaml").display(),
            shown(&all, ":"),
        )
    })
}

/// Compares a version with the tested one.
fn version(dialect: Dialect, version: &str) -> Check {
    let tested = profiles().tested(dialect);
    let order = Version::parse(version).ok().zip(Version::parse(tested).ok());
    match order.map(|(version, tested)| version.cmp_precedence(&tested)) {
        Some(Ordering::Equal) => {
            let last = match dialect {
                Dialect::KimiCode => "",
                Dialect::KimiCli => ", and the last of kimi-cli that works: do not update it",
            };
            Check::ok("version", format!("{version} is the tested one{last}"))
        }
        Some(Ordering::Greater) => {
            Check::note("version", format!("{version} is newer than the tested {tested}"))
                .with_remedy(format!(
                    "If answers cannot be read, go back: {}.",
                    install_command(dialect)
                ))
        }
        Some(Ordering::Less) => Check::warning(
            "version",
            format!("{version} is older than the tested {tested}"),
            format!("Update it: {}.", install_command(dialect)),
        ),
        None => {
            Check::note("version", format!("{version} cannot be compared with the tested {tested}"))
        }
    }
}

fn install_command(dialect: Dialect) -> String {
    let tested = profiles().tested(dialect);
    match dialect {
        Dialect::KimiCode => format!("`npm install -g @moonshot-ai/kimi-code@{tested}`"),
        Dialect::KimiCli => format!("`uv tool install kimi-cli=={tested}`"),
    }
}

fn logins(login: &Login, dialect: Dialect) -> Vec<Check> {
    let mut checks = Vec::new();
    let problem = login.problem(dialect);
    checks.extend(problem.iter().map(|error| Check::error("login", error)));
    for token in &login.tokens {
        let file = token.file.display();
        match token.state {
            TokenState::Good => {}
            TokenState::Expired => checks.push(Check::warning(
                "login",
                format!("the token in {file} has expired, and cannot be renewed"),
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
    // A problem stops a consultation, whichever other logins exist, so they are listed only without one.
    if problem.is_none() {
        checks.push(usable_logins(login));
    }
    checks
}

/// Lists the logins and keys that a service could accept.
fn usable_logins(login: &Login) -> Check {
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
    // This is only a warning, because a provider without a key may be a service that needs none.
    let says = "there is no token or key that could be used";
    Check::warning("login", says, Kind::NotLoggedIn.hint())
}

fn ripgrep(found: &Ripgrep, dialect: Dialect) -> Check {
    match found {
        Ripgrep::OnPath(path) => Check::ok("ripgrep", path.display().to_string()),
        Ripgrep::Fetched(path) => {
            Check::ok("ripgrep", format!("{}, which Kimi fetched", path.display()))
        }
        Ripgrep::Missing => Check::warning(
            "ripgrep",
            format!("`rg` is not on PATH: Kimi cannot {}", ripgrep::tasks(dialect)),
            "Install ripgrep (`apt install ripgrep`, `brew install ripgrep`).",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number_and_not_as_text() {
        let check = |version: &str, expected: &str| {
            let says = super::version(Dialect::KimiCode, version).says;
            assert!(says.starts_with(&format!("{version} {expected}")), "{says}");
        };
        let tested = profiles().tested(Dialect::KimiCode);
        check(tested, "is the tested one");
        check(&format!("{tested}+build.7"), "is the tested one");
        check(&format!("{tested}-beta.1"), "is older");
        check("0.9.9", "is older");
        check("99.10.0", "is newer");
        check("99.10.0-rc.1", "is newer");
        check("1.51.0rc1", "cannot be compared");
        check("next", "cannot be compared");
        let of_cli = profiles().tested(Dialect::KimiCli);
        let says = version(Dialect::KimiCli, of_cli).says;
        assert!(says.contains("is the tested one"), "{says}");
    }
}
