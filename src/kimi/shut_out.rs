//! Why a program did not start inside the sandbox, from its own words, and what would open it.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use regex::Regex;

use super::text::clean;
use crate::error::{Error, Kind};
use crate::redact::Secrets;
use crate::sandbox::Rules;
use crate::sandbox::keeper::SANDBOX_FAILED;
use crate::sandbox::rules::canonical;

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
pub(crate) fn in_sandbox(
    words: &str,
    rules: &Rules,
    home: &Path,
    secrets: &Secrets,
) -> Option<ShutOut> {
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
    // A link in an open folder may lead to a file in a closed one.
    let mut named = paths_in(&words, home).into_iter().map(|path| canonical(&path));
    let Some(path) = named.find(|path| path.exists() && !rules.allow_reading(path)) else {
        return Some(ShutOut { error: shut_out(&shown), open: None });
    };
    let closed = path.display();
    let says =
        format!("Kimi could not start inside the sandbox, which closes {closed} to it: {shown}");
    if rules.secret.contains(&path) {
        let hint = format!(
            "{closed} is a secret file of the project, which `readable` does not open. Install Kimi outside the project, \
             or take the file from the list with `files: [\"!{}\"]` in secrets.yaml.",
            path.file_name().unwrap_or_default().display()
        );
        return Some(ShutOut { error: Error::new(Kind::Sandbox, says, hint), open: None });
    }
    let open = to_open(&path, &canonical(home));
    let hint = format!(
        "Open it with `readable: [{0}]` in settings.yaml (KIMI_BRIDGE_READABLE={0} in the environment), or set \
         `sandbox: off`; `kimi-bridge doctor` tries whether that is enough.",
        open.display()
    );
    Some(ShutOut { error: Error::new(Kind::Sandbox, says, hint), open: Some(open) })
}

/// What a setting has to name for a file: its folder, so that the next file beside it is open as well. The home, or a
/// folder that holds it, is no folder of one program.
fn to_open(path: &Path, home: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !path.is_dir() && !home.starts_with(folder) => folder.to_owned(),
        _ => path.to_owned(),
    }
}

/// The error of a program that starts, though not inside the sandbox, and whose words do not tell why.
pub(crate) fn shut_out(words: &str) -> Error {
    Error::of(Kind::Sandbox, format!("Kimi could not start inside the sandbox: {words}"))
}

/// The paths that a text names: absolute ones, and those that begin with `~/`, as mise writes them.
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

    /// What is offered to a program that said these words, in a home that is closed but for `open`.
    #[track_caller]
    fn check(words: &str, open: &str, expected: Option<&str>) {
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
        let words = words.replace("HOME", home.to_str().unwrap());
        let shut_out = in_sandbox(&words, &rules, &home, &Secrets::default());
        assert_eq!(shut_out.unwrap().open, expected.map(|open| home.join(open)), "{words}");
    }

    #[test]
    fn what_a_program_could_not_open_is_offered_and_never_the_home() {
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
    fn a_secret_file_of_the_project_is_said_to_stay_closed() {
        let root = tempfile::tempdir().unwrap();
        let secret = root.path().canonicalize().unwrap().join(".env");
        fs::write(&secret, "").unwrap();
        let rules = Rules { secret: vec![secret.clone()], ..Rules::default() };
        let words = format!("{}: Permission denied", secret.display());
        let shut_out =
            in_sandbox(&words, &rules, Path::new("/home/me"), &Secrets::default()).unwrap();
        assert_eq!(shut_out.open, None);
        assert!(
            shut_out.error.hint.contains("which `readable` does not open"),
            "{}",
            shut_out.error.hint
        );
    }
}
