//! The login of a run: copies in the private home of the tokens that its providers use. The rest of the user's
//! `credentials/`, such as tokens of MCP servers, is not copied.
//!
//! Both programs renew tokens, and the service then refuses the old one. So a token that the run renewed is copied to
//! the user's folder within a second, and one that the user's own Kimi renewed is copied to the run. A hash of the last
//! common version, stored where no run can write, shows which side changed.
//!
//! Guarantees: the user's file is replaced atomically, only by a token, only if it is unchanged since it was copied,
//! and under the dialect's lock for a refresh. Bridges with one state folder do this one after another. Two runs that
//! share a home share Kimi's lock too.
//!
//! Limits: the user's own Kimi, or a run in another home, may renew the same token at the same time, because a run must
//! not reach the folder of that lock. Both programs read the file again after a refusal; if the other token has not
//! arrived by then, the call fails as not logged in. A token of another account is not copied back, but the account is
//! not verified: a program in Kimi's place can forge a token for the user's account.

use std::ffi::OsString;
use std::fs::File;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use data_encoding::BASE64URL_NOPAD;
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;
use serde_json::Value as Json;
use sha2::{Digest as _, Sha256};
use toml::{Table, Value};

use super::dialect::Dialect;
use super::token_file::{FOLDER, TOKEN_BYTES, TOKENS, is_usable_token};
use super::untrusted::Folder;
use crate::settings::Environment;

/// The name of the token of the default service, in both programs.
const DEFAULT_TOKEN: &str = "kimi-code";
/// The prefix of tokens for a service from a variable (kimi-code).
const CUSTOM_PREFIX: &str = "kimi-code-env-";
/// The variables that select another service.
const SERVICE_VARIABLES: [&str; 3] =
    ["KIMI_CODE_BASE_URL", "KIMI_CODE_OAUTH_HOST", "KIMI_OAUTH_HOST"];
/// The time between two comparisons while Kimi runs.
const INTERVAL: Duration = Duration::from_secs(1);
/// The number of further comparisons after a run, if the user's own Kimi holds the lock.
const LAST_TRIES: usize = 20;
/// The time between two comparisons after a run.
const LAST_WAIT: Duration = Duration::from_millis(200);
/// The age at which kimi-code ignores a lock (`stale` in its sources).
const ABANDONED: Duration = Duration::from_secs(5);

/// The tokens of one run.
#[derive(Debug)]
pub(crate) struct Tokens {
    dialect: Dialect,
    /// The user's data folder.
    user: PathBuf,
    /// The private home.
    home: Folder,
    /// The folder of the hashes.
    hashes: Folder,
    /// The folder that every bridge locks for a comparison.
    lock: Folder,
    /// The names of the token files.
    names: Vec<OsString>,
}

/// The moment of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// Before Kimi starts: a copy that is not a token is replaced.
    Before,
    /// While Kimi runs, or after it has ended.
    Running,
}

/// Returns the names of the token files that a configuration uses.
pub(super) fn names(
    config: &Table,
    environment: &Environment,
    dialect: Dialect,
    user: &Path,
) -> Vec<OsString> {
    let mut names = vec![DEFAULT_TOKEN.to_owned()];
    for section in ["providers", "models", "services"] {
        let entries = config.get(section).and_then(Value::as_table).into_iter().flatten();
        let keys = entries.filter_map(|(_, entry)| entry.get("oauth")?.get("key")?.as_str());
        // `oauth/NAME`, or `NAME`.
        names.extend(keys.map(|key| key.rsplit('/').next().unwrap_or(key).to_owned()));
    }
    let is_custom = SERVICE_VARIABLES.iter().any(|variable| environment.var(variable).is_some());
    if dialect == Dialect::KimiCode && is_custom {
        let files = Folder::trusted(&user.join(FOLDER)).and_then(|folder| folder.entries(TOKENS));
        let files =
            files.unwrap_or_default().into_iter().filter_map(|file| file.into_string().ok());
        let tokens = files.filter_map(|file| Some(file.strip_suffix(".json")?.to_owned()));
        names.extend(tokens.filter(|name| name.starts_with(CUSTOM_PREFIX)));
    }
    names.retain(|name| !name.is_empty() && !name.starts_with('.') && !name.contains('\0'));
    names.sort();
    names.dedup();
    names.into_iter().map(|name| format!("{name}.json").into()).collect()
}

impl Tokens {
    /// Copies the tokens into the private home.
    pub(super) fn copy(
        dialect: Dialect,
        user: PathBuf,
        home: Folder,
        hashes: Folder,
        lock: Folder,
        names: Vec<OsString>,
    ) -> io::Result<Tokens> {
        let tokens = Tokens { dialect, user, home, hashes, lock, names };
        tokens.home.make(FOLDER)?;
        tokens.sync_all(Moment::Before)?;
        Ok(tokens)
    }

    /// Waits for a run, and synchronizes the tokens during and after it. Returns a warning if a renewed token could not
    /// be copied back.
    pub(super) async fn sync_during<T>(
        &self,
        mut run: impl Future<Output = T> + Unpin,
    ) -> (T, Option<String>) {
        let ran = loop {
            tokio::select! {
                ran = &mut run => break ran,
                () = tokio::time::sleep(INTERVAL) => drop(self.sync_all(Moment::Running)),
            }
        };
        let mut compared = self.sync_all(Moment::Running);
        for _ in 0..LAST_TRIES {
            match compared {
                Ok(true) | Err(_) => break,
                Ok(false) => tokio::time::sleep(LAST_WAIT).await,
            }
            compared = self.sync_all(Moment::Running);
        }
        let why = match compared {
            Ok(true) => return (ran, None),
            Ok(false) => "the user's own Kimi is renewing it".to_owned(),
            Err(error) => error.to_string(),
        };
        let folder = self.user.join(FOLDER);
        let warning = format!(
            "Kimi's login may have been renewed in this run and could not be written to {} ({why}): the next run tries \
             again",
            folder.display()
        );
        (ran, Some(warning))
    }

    /// Synchronizes all tokens. Returns `false` if the user's own Kimi holds the lock for a renewed one.
    fn sync_all(&self, moment: Moment) -> io::Result<bool> {
        flock(&self.lock, FlockOperation::LockExclusive)?;
        let compared = self
            .names
            .iter()
            .try_fold(true, |all, name| self.sync_one(name, moment).map(|done| all && done));
        flock(&self.lock, FlockOperation::Unlock)?;
        compared
    }

    fn sync_one(&self, name: &OsString, moment: Moment) -> io::Result<bool> {
        let copies = self.home.below(FOLDER);
        let theirs = Folder::trusted(&self.user.join(FOLDER))
            .and_then(|folder| folder.read(name, TOKEN_BYTES));
        let theirs = match theirs {
            Ok(theirs) => Some(theirs),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            // The file exists and may become readable, so a renewed copy must not be removed.
            Err(error) => match moment {
                Moment::Before => return Ok(true),
                Moment::Running => return Err(error),
            },
        };
        let ours = copies.as_ref().ok().and_then(|copies| copies.read(name, TOKEN_BYTES).ok());
        let known = self.hashes.read(name, TOKEN_BYTES).ok();
        let Some(theirs) = theirs else {
            // The user has logged out, or never had this login.
            if let Ok(copies) = copies {
                copies.remove_file(name)?;
            }
            self.hashes.remove_file(name)?;
            return Ok(true);
        };
        let unchanged = known == Some(hash(&theirs));
        match ours {
            Some(ours) if ours == theirs => {}
            Some(ours) if unchanged && renews(&ours, &theirs) => {
                let Some(_lock) = self.refresh_lock(name)? else { return Ok(false) };
                let folder = Folder::trusted(&self.user.join(FOLDER))?;
                // The user's own Kimi may have written the file before the lock was taken.
                if folder.read(name, TOKEN_BYTES)? == theirs {
                    folder.write_durably(name, &ours)?;
                    self.hashes.write(name, &hash(&ours))?;
                }
                return Ok(true);
            }
            // kimi-code marks a refused token. The mark is not copied to the user's file.
            Some(_) if unchanged && moment == Moment::Running => return Ok(true),
            // The user's file may be half-written; the next comparison handles it.
            Some(ours) if is_usable_token(&ours) && !is_usable_token(&theirs) => {
                return Ok(moment == Moment::Before);
            }
            Some(_) | None => {
                let written = copies.and_then(|copies| copies.write(name, &theirs));
                match moment {
                    Moment::Before => written?,
                    // The run has replaced its own copy, and continues without a token.
                    Moment::Running if written.is_err() => return Ok(true),
                    Moment::Running => {}
                }
            }
        }
        self.hashes.write(name, &hash(&theirs))?;
        Ok(true)
    }

    /// Takes the lock with which this dialect renews a token in the user's folder; `None` if Kimi holds it.
    fn refresh_lock(&self, name: &OsString) -> io::Result<Option<RefreshLock>> {
        let name = Path::new(name).with_extension("lock");
        match self.dialect {
            Dialect::KimiCli => {
                let folder = Folder::trusted(&self.user.join(FOLDER))?;
                let flags = OFlags::RDWR
                    | OFlags::CREATE
                    | OFlags::NOFOLLOW
                    | OFlags::NONBLOCK
                    | OFlags::CLOEXEC;
                let file = rustix::fs::openat(&folder, &name, flags, Mode::RUSR | Mode::WUSR)?;
                match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                    Ok(()) => Ok(Some(RefreshLock::File(File::from(file)))),
                    Err(Errno::WOULDBLOCK) => Ok(None),
                    Err(error) => Err(error.into()),
                }
            }
            Dialect::KimiCode => {
                let path = self.user.join("oauth");
                super::folders::make(&path).map_err(io::Error::other)?;
                let folder = Folder::trusted(&path)?;
                match rustix::fs::mkdirat(&folder, &name, Mode::RWXU) {
                    Ok(()) => Ok(Some(RefreshLock::Folder(folder, name))),
                    Err(Errno::EXIST) if folder.age(&name) > ABANDONED => {
                        Ok(Some(RefreshLock::Abandoned))
                    }
                    Err(Errno::EXIST) => Ok(None),
                    Err(error) => Err(error.into()),
                }
            }
        }
    }
}

/// A dialect's lock for a refresh.
enum RefreshLock {
    /// The locked file of kimi-cli.
    File(#[expect(dead_code, reason = "closing it releases the lock")] File),
    /// The folder that kimi-code creates.
    Folder(Folder, PathBuf),
    /// An old folder, which kimi-code ignores too.
    Abandoned,
}

impl Drop for RefreshLock {
    fn drop(&mut self) {
        match self {
            RefreshLock::Folder(folder, name) => {
                let _ = rustix::fs::unlinkat(folder, &*name, AtFlags::REMOVEDIR);
            }
            RefreshLock::File(_) | RefreshLock::Abandoned => {}
        }
    }
}

/// Returns whether one file is a renewal of another: a usable token for the same account.
fn renews(new: &[u8], old: &[u8]) -> bool {
    is_usable_token(new) && accounts(new) == accounts(old)
}

/// Returns the accounts of the access token and the refresh token of a file.
fn accounts(bytes: &[u8]) -> [Option<Json>; 2] {
    let stored: Json = serde_json::from_slice(bytes).unwrap_or_default();
    ["access_token", "refresh_token"].map(|name| account(stored.get(name)?.as_str()?))
}

/// Returns the account of a token, unverified; `None` if the token is not a JWT. kimi-code reads the same two claims.
fn account(token: &str) -> Option<Json> {
    let [_, claims, _] = token.split('.').collect::<Vec<_>>()[..] else { return None };
    let claims = BASE64URL_NOPAD.decode(claims.trim_end_matches('=').as_bytes()).ok()?;
    let claims: Json = serde_json::from_slice(&claims).ok()?;
    claims.get("sub").or_else(|| claims.get("user_id")).cloned()
}

fn hash(bytes: &[u8]) -> Vec<u8> {
    Sha256::digest(bytes).to_vec()
}
