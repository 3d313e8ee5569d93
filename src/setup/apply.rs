//! A planned change made: the file written at once and whole, or the host's own command run.

use std::fs::{self, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use super::plan::{Backup, FileEdit, backup_of, read, target};
use crate::error::{Error, Kind, Result};
use crate::kimi::text::clean;
use crate::redact::Secrets;
use crate::settings::Environment;

/// The longest that a host's command may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// The end of a change.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Applied {
    /// The file was written; the one from before setup is kept there.
    Written(Option<PathBuf>),
    /// The file is as it was before setup.
    Restored,
    /// The host's command did it.
    ByTheHost,
    /// The host's command is not on PATH; a person can type these lines.
    ToType(Vec<String>),
}

/// Makes one change.
pub(crate) async fn apply(edit: &FileEdit, environment: &Environment) -> Result<Applied> {
    let file = target(&edit.file);
    if edit.commands.is_empty() {
        return write(&file, edit).map_err(|why| failed(edit, &why));
    }
    let Some(program) = edit.host.program(environment) else {
        let typed = |words: &Vec<String>| {
            let words = edit.host.programs.iter().take(1).chain(words);
            words.map(|word| shell_word(word)).collect::<Vec<_>>().join(" ")
        };
        return Ok(Applied::ToType(edit.commands.iter().map(typed).collect()));
    };
    for words in &edit.commands {
        run(&program, words).await.map_err(|why| failed(edit, &why))?;
    }
    Ok(Applied::ByTheHost)
}

fn failed(edit: &FileEdit, why: &str) -> Error {
    let message = format!("{} was not set up: {}: {why}", edit.host.name, edit.file.display());
    Error::new(Kind::Settings, message, "Fix this, and run `kimi-bridge setup` again.")
}

/// Runs a command of the host to its end.
async fn run(program: &Path, words: &[String]) -> std::result::Result<(), String> {
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::null()).kill_on_drop(true);
    let ended = tokio::time::timeout(PATIENCE, command.output()).await;
    let shown = format!("`{} {}`", program.display(), words[..2].join(" "));
    match ended {
        Err(_) => Err(format!("{shown} did not end")),
        Ok(Err(error)) => Err(format!("{shown}: {error}")),
        Ok(Ok(output)) if output.status.success() => Ok(()),
        Ok(Ok(output)) => {
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said).trim().to_owned();
            Err(format!("{shown}: {}", Secrets::default().redact(&clean(&said)).into_text()))
        }
    }
}

/// Writes the file, unless it is no longer as it was planned from.
fn write(file: &Path, edit: &FileEdit) -> std::result::Result<Applied, String> {
    if read(file)? != edit.before {
        return Err("the file has changed meanwhile".to_owned());
    }
    let backup = backup_of(file);
    let written = || -> io::Result<Applied> {
        if let (Backup::Write, Some(before)) = (edit.backup, &edit.before) {
            replace(&backup, before, file)?;
        }
        match &edit.after {
            Some(after) => replace(file, after, file)?,
            None => fs::remove_file(file)?,
        }
        if edit.backup == Backup::Remove {
            if backup.exists() {
                fs::remove_file(&backup)?;
            }
            return Ok(Applied::Restored);
        }
        Ok(Applied::Written(Some(backup).filter(|backup| backup.exists())))
    };
    written().map_err(|error| error.to_string())
}

/// Puts a whole new file in the place of another, with the mode of `like`, if that exists.
fn replace(file: &Path, text: &str, like: &Path) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut builder = tempfile::Builder::new();
    let mut new = builder.permissions(Permissions::from_mode(0o666)).tempfile_in(folder)?;
    if let Ok(there) = fs::metadata(like) {
        new.as_file().set_permissions(there.permissions())?;
    }
    new.write_all(text.as_bytes())?;
    new.as_file().sync_all()?;
    new.persist(file)?;
    Ok(())
}

/// A word as a shell takes it.
fn shell_word(word: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./".contains(letter);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}
