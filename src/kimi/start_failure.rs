//! The reason why a program did not start inside the sandbox, read from its output, and the path to open. It starts
//! nothing.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use regex::Regex;

use super::text::clean;
use crate::error::{Error, Kind};
use crate::redact::Secrets;
use crate::sandbox::Rules;
use crate::sandbox::keeper::SANDBOX_FAILED;
use crate::sandbox::rules::canonical;

/// The most characters of the output that a message quotes.
const QUOTED: usize = 400;

/// The failure of a start inside the sandbox.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StartFailure {
    /// The error, which names the closed path and the setting that opens it.
    pub(crate) error: Error,
    /// The path to add to the setting `readable`, if the output shows it.
    pub(crate) open: Option<PathBuf>,
}

impl From<Error> for StartFailure {
    /// Converts an error that no setting can fix.
    fn from(error: Error) -> StartFailure {
        StartFailure { error, open: None }
    }
}

/// Returns the failure of a start if the output of the program shows that the sandbox caused it.
pub(crate) fn explain(
    output: &str,
    rules: &Rules,
    home: &Path,
    secrets: &Secrets,
) -> Option<StartFailure> {
    let output = clean(output);
    let lower = output.to_lowercase();
    let sandbox_error = output.lines().find_map(|line| line.strip_prefix(SANDBOX_FAILED));
    if let Some(why) = sandbox_error {
        let error = Error::new(
            Kind::Sandbox,
            format!("the sandbox could not be entered: {why}"),
            "Please report it; `sandbox: off` goes without.",
        );
        return Some(StartFailure { error, open: None });
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
    if !denied.iter().any(|words| lower.contains(words)) {
        return None;
    }
    let shown = secrets.redact_start(output.trim(), QUOTED).into_text();
    // A link in an open folder may lead to a file in a closed one.
    let mut named = paths_in(&output, home).into_iter().map(|path| canonical(&path));
    let Some(path) = named.find(|path| path.exists() && !rules.allow_reading(path)) else {
        return Some(StartFailure { error: unexplained(&shown), open: None });
    };
    let closed = path.display();
    let message =
        format!("Kimi could not start inside the sandbox, which closes {closed} to it: {shown}");
    if rules.secret.contains(&path) {
        let hint = format!(
            "{closed} is a secret file of the project, which `readable` does not open. Install Kimi outside the project, \
             or take the file from the list with `files: [\"!{}\"]` in secrets.yaml.",
            path.file_name().unwrap_or_default().display()
        );
        return Some(StartFailure { error: Error::new(Kind::Sandbox, message, hint), open: None });
    }
    let open = path_to_open(&path, &canonical(home));
    let hint = format!(
        "Open it with `readable: [{0}]` in settings.yaml (KIMI_BRIDGE_READABLE={0} in the environment), or set \
         `sandbox: off`; `kimi-bridge doctor` tries whether that is enough.",
        open.display()
    );
    Some(StartFailure { error: Error::new(Kind::Sandbox, message, hint), open: Some(open) })
}

/// Returns the folder of a closed file, so that the files next to it open too; the path itself if it is a folder, or
/// if its parent contains the home.
fn path_to_open(path: &Path, home: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !path.is_dir() && !home.starts_with(folder) => folder.to_owned(),
        _ => path.to_owned(),
    }
}

/// The error of a program that starts only outside the sandbox, if its output does not show why.
pub(crate) fn unexplained(output: &str) -> Error {
    Error::from_kind(Kind::Sandbox, format!("Kimi could not start inside the sandbox: {output}"))
}

/// Finds the paths in a text: absolute ones, and those with `~/`, as mise writes them.
fn paths_in(text: &str, home: &Path) -> Vec<PathBuf> {
    static PATHS: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r#"(?:^|[\s'"`(=:])(~?/[^\s'"`:;,()]+)"#).ok());
    let found = PATHS.as_ref().into_iter().flat_map(|paths| paths.captures_iter(text));
    let named = found.filter_map(|path| path.get(1));
    let path = |named: &str| match named.strip_prefix("~/") {
        Some(rest) => home.join(rest),
        None => named.into(),
    };
    named.map(|named| path(named.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::sandbox::rules::Access;

    /// Compares the path to open for an output, in a home that is closed except for `open`.
    #[track_caller]
    fn check(output: &str, open: &str, expected: Option<&str>) {
        let root = tempfile::tempdir().unwrap();
        let home = root.path().canonicalize().unwrap().join("a/b/home");
        for folder in ["open", "apps/kimi/bin", ".config/mise"] {
            fs::create_dir_all(home.join(folder)).unwrap();
        }
        for file in ["apps/kimi/bin/kimi", ".config/mise/config.toml", ".kimirc"] {
            fs::write(home.join(file), "").unwrap();
        }
        symlink("../apps/kimi/bin/kimi", home.join("open/link")).unwrap();
        let list = vec![(Access::Run, home.join(open))];
        let rules = Rules { list, ..Rules::default() };
        let output = output.replace("HOME", home.to_str().unwrap());
        let failure = explain(&output, &rules, &home, &Secrets::default());
        assert_eq!(failure.unwrap().open, expected.map(|open| home.join(open)), "{output}");
    }

    #[test]
    fn the_closed_path_is_suggested_but_never_the_home() {
        check("kimi: 2: exec: HOME/open/link: Permission denied", "open", Some("apps/kimi/bin"));
        check(
            "mise ERROR ~/.config/mise/config.toml\nmise ERROR Permission denied",
            "open",
            Some(".config/mise"),
        );
        check("EACCES: permission denied, open 'HOME/.kimirc'", "open", Some(".kimirc"));
        check("Permission denied: HOME/apps/kimi", "open", Some("apps/kimi"));
        check("Permission denied: HOME/apps/kimi/bin/kimi", "apps", None);
        check("Permission denied: HOME/none", "open", None);
    }

    #[test]
    fn a_secret_file_of_the_project_is_not_suggested() {
        let root = tempfile::tempdir().unwrap();
        let secret = root.path().canonicalize().unwrap().join(".env");
        fs::write(&secret, "").unwrap();
        let rules = Rules { secret: vec![secret.clone()], ..Rules::default() };
        let output = format!("{}: Permission denied", secret.display());
        let failure = explain(&output, &rules, Path::new("/home/me"), &Secrets::default()).unwrap();
        assert_eq!(failure.open, None);
        assert!(
            failure.error.hint.contains("which `readable` does not open"),
            "{}",
            failure.error.hint
        );
    }
}
