//! Applies a planned change: replaces the file atomically, or runs the host's own command.

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

/// The time limit of a host's command.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(120);

/// The outcome of a change.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Applied {
    /// The file was written. Holds the path of the backup, if there is one.
    Written(Option<PathBuf>),
    /// The file is again as it was before setup, and the backup is removed.
    Restored,
    /// The host's command made the change.
    ByTheHost,
    /// The host's command is not on PATH. Holds the command lines for the user to type.
    ToType(Vec<String>),
}

/// Makes one change.
pub(crate) async fn apply(edit: &FileEdit, environment: &Environment) -> Result<Applied> {
    let file = target(&edit.file);
    if edit.commands.is_empty() {
        return write(&file, edit).map_err(|why| failed(edit, &why));
    }
    let Some(program) = edit.host.program(environment) else {
        let command_line = |words: &Vec<String>| {
            let words = edit.host.programs.iter().take(1).chain(words);
            words.map(|word| shell_word(word)).collect::<Vec<_>>().join(" ")
        };
        return Ok(Applied::ToType(edit.commands.iter().map(command_line).collect()));
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

/// Runs a command of the host and waits for it. Fails with its output.
async fn run(program: &Path, words: &[String]) -> std::result::Result<(), String> {
    let mut command = Command::new(program);
    command.args(words).stdin(Stdio::null()).kill_on_drop(true);
    let ended = tokio::time::timeout(COMMAND_TIMEOUT, command.output()).await;
    let shown = format!("`{} {}`", program.display(), words[..2].join(" "));
    match ended {
        Err(_) => Err(format!("{shown} did not end")),
        Ok(Err(error)) => Err(format!("{shown}: {error}")),
        Ok(Ok(output)) if output.status.success() => Ok(()),
        Ok(Ok(output)) => {
            let printed = [output.stdout, output.stderr].concat();
            let printed = String::from_utf8_lossy(&printed).trim().to_owned();
            Err(format!("{shown}: {}", Secrets::default().redact(&clean(&printed)).into_text()))
        }
    }
}

/// Writes the file and its backup. Fails if the file changed after the plan was made.
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

/// Replaces a file atomically. The new file has the mode of `like`, if that exists.
fn replace(file: &Path, text: &str, like: &Path) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut builder = tempfile::Builder::new();
    let mut new = builder.permissions(Permissions::from_mode(0o666)).tempfile_in(folder)?;
    if let Ok(metadata) = fs::metadata(like) {
        new.as_file().set_permissions(metadata.permissions())?;
    }
    new.write_all(text.as_bytes())?;
    new.as_file().sync_all()?;
    new.persist(file)?;
    Ok(())
}

/// Quotes a word for a shell, if it needs quotes.
fn shell_word(word: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./".contains(letter);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}
