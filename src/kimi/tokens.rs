//! The login of a run: copies of the tokens that its providers name, in the private home, and nothing else of the user's
//! `credentials/`, where tokens of other services lie too (those of MCP servers, for one).
//!
//! Both programs renew a token by themselves, and the service then refuses the one before. So a copy that Kimi renewed
//! goes back into the user's folder within a second, and one that the user's own Kimi renewed goes to the run. The
//! state of a copy is told by a hash of what was last the same on both sides, kept where no run can write.
//!
//! Holds: the user's file is replaced whole, by one that is a token, only if it is still as it was copied, and under
//! the lock that the dialect takes for a refresh. Bridges of one state folder do so one after another. Two runs that
//! share a home share Kimi's own lock too. Does not hold: while a run renews its token, neither the user's own Kimi nor
//! a run in another home is kept from renewing the same one, since the lock of a refresh lies in folders that a run
//! must not reach. Both programs then read the file again after a refusal; where the other one's token has not
//! arrived by then, that call fails as not logged in. And a token that names another account than the user's does not come
//! back, but its word is not verified: a program in Kimi's place can forge a token for the user's account.

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

/// The token of an ordinary login, in both programs.
const ORDINARY: &str = "kimi-code";
/// The beginning of the tokens for a service that a variable names (kimi-code).
const ELSEWHERE: &str = "kimi-code-env-";
/// The variables that name one.
const MOVED_BY: [&str; 3] = ["KIMI_CODE_BASE_URL", "KIMI_CODE_OAUTH_HOST", "KIMI_OAUTH_HOST"];
/// The time between two comparisons while Kimi runs.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often, and how long, the last comparison waits for a refresh of the user's own Kimi.
const LAST_TRIES: usize = 20;
const LAST_WAIT: Duration = Duration::from_millis(200);
/// The age at which kimi-code takes a lock for abandoned (`stale` in its sources).
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
    /// The folder whose lock every bridge takes for a comparison.
    lock: Folder,
    /// The files.
    names: Vec<OsString>,
}

/// The moment of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    /// Before Kimi starts: a copy that is no token is replaced.
    Before,
    /// While it runs, or afterwards.
    Running,
}

/// The files of the tokens that a configuration names.
pub(super) fn names(
    config: &Table,
    environment: &Environment,
    dialect: Dialect,
    user: &Path,
) -> Vec<OsString> {
    let mut names = vec![ORDINARY.to_owned()];
    for section in ["providers", "models", "services"] {
        let entries = config.get(section).and_then(Value::as_table).into_iter().flatten();
        let keys = entries.filter_map(|(_, entry)| entry.get("oauth")?.get("key")?.as_str());
        // `oauth/NAME`, or `NAME`.
        names.extend(keys.map(|key| key.rsplit('/').next().unwrap_or(key).to_owned()));
    }
    let moved = MOVED_BY.iter().any(|variable| environment.var(variable).is_some());
    if dialect == Dialect::KimiCode && moved {
        let files = Folder::trusted(&user.join(FOLDER)).and_then(|folder| folder.entries(TOKENS));
        let files =
            files.unwrap_or_default().into_iter().filter_map(|file| file.into_string().ok());
        let tokens = files.filter_map(|file| Some(file.strip_suffix(".json")?.to_owned()));
        names.extend(tokens.filter(|name| name.starts_with(ELSEWHERE)));
    }
    names.retain(|name| !name.is_empty() && !name.starts_with('.') && !name.contains('\0'));
    names.sort();
    names.dedup();
    names.into_iter().map(|name| format!("{name}.json").into()).collect()
}

impl Tokens {
    /// Puts the tokens into the private home.
    pub(super) fn carry(
        dialect: Dialect,
        user: PathBuf,
        home: Folder,
        hashes: Folder,
        lock: Folder,
        names: Vec<OsString>,
    ) -> io::Result<Tokens> {
        let tokens = Tokens { dialect, user, home, hashes, lock, names };
        tokens.home.make(FOLDER)?;
        tokens.compare(Moment::Before)?;
        Ok(tokens)
    }

    /// Waits for a run, and compares meanwhile and afterwards. A renewed token that could not be written back is a
    /// warning.
    pub(super) async fn alongside<T>(
        &self,
        mut run: impl Future<Output = T> + Unpin,
    ) -> (T, Option<String>) {
        let ran = loop {
            tokio::select! {
                ran = &mut run => break ran,
                () = tokio::time::sleep(INTERVAL) => drop(self.compare(Moment::Running)),
            }
        };
        let mut compared = self.compare(Moment::Running);
        for _ in 0..LAST_TRIES {
            match compared {
                Ok(true) | Err(_) => break,
                Ok(false) => tokio::time::sleep(LAST_WAIT).await,
            }
            compared = self.compare(Moment::Running);
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

    /// Brings both sides up to date, and returns `false` when a renewed token has to wait for a lock of the user's own
    /// Kimi.
    fn compare(&self, moment: Moment) -> io::Result<bool> {
        flock(&self.lock, FlockOperation::LockExclusive)?;
        let compared = self
            .names
            .iter()
            .try_fold(true, |all, name| self.compare_one(name, moment).map(|done| all && done));
        flock(&self.lock, FlockOperation::Unlock)?;
        compared
    }

    fn compare_one(&self, name: &OsString, moment: Moment) -> io::Result<bool> {
        let copies = self.home.below(FOLDER);
        let theirs = Folder::trusted(&self.user.join(FOLDER))
            .and_then(|folder| folder.read(name, TOKEN_BYTES));
        let theirs = match theirs {
            Ok(theirs) => Some(theirs),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            // It is there, and may be readable again: nothing that a run renewed may be lost.
            Err(error) => match moment {
                Moment::Before => return Ok(true),
                Moment::Running => return Err(error),
            },
        };
        let ours = copies.as_ref().ok().and_then(|copies| copies.read(name, TOKEN_BYTES).ok());
        let known = self.hashes.read(name, TOKEN_BYTES).ok();
        let Some(theirs) = theirs else {
            // The user logged out, or was never logged in this way.
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
                let Some(_lock) = self.lock_of_kimi(name)? else { return Ok(false) };
                let folder = Folder::trusted(&self.user.join(FOLDER))?;
                // Read again under the lock.
                if folder.read(name, TOKEN_BYTES)? == theirs {
                    folder.write_durably(name, &ours)?;
                    self.hashes.write(name, &hash(&ours))?;
                }
                return Ok(true);
            }
            // kimi-code marks a token that the service refused. That is for this run alone.
            Some(_) if unchanged && moment == Moment::Running => return Ok(true),
            // A file that is being written just now is compared the next time.
            Some(ours) if is_usable_token(&ours) && !is_usable_token(&theirs) => return Ok(true),
            Some(_) | None => {
                let given = copies.and_then(|copies| copies.write(name, &theirs));
                match moment {
                    Moment::Before => given?,
                    // A run that put something else in the place of its token goes without one.
                    Moment::Running if given.is_err() => return Ok(true),
                    Moment::Running => {}
                }
            }
        }
        self.hashes.write(name, &hash(&theirs))?;
        Ok(true)
    }

    /// The lock that this dialect takes while it renews a token, in the user's folder; nothing while it is taken.
    fn lock_of_kimi(&self, name: &OsString) -> io::Result<Option<LockOfKimi>> {
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
                    Ok(()) => Ok(Some(LockOfKimi::File(File::from(file)))),
                    Err(Errno::WOULDBLOCK) => Ok(None),
                    Err(error) => Err(error.into()),
                }
            }
            Dialect::KimiCode => {
                let path = self.user.join("oauth");
                super::folders::make(&path).map_err(io::Error::other)?;
                let folder = Folder::trusted(&path)?;
                match rustix::fs::mkdirat(&folder, &name, Mode::RWXU) {
                    Ok(()) => Ok(Some(LockOfKimi::Folder(folder, name))),
                    Err(Errno::EXIST) if folder.age(&name) > ABANDONED => {
                        Ok(Some(LockOfKimi::Abandoned))
                    }
                    Err(Errno::EXIST) => Ok(None),
                    Err(error) => Err(error.into()),
                }
            }
        }
    }
}

/// A lock for a refresh, as a dialect takes it.
enum LockOfKimi {
    /// kimi-cli locks a file.
    File(#[expect(dead_code, reason = "closing it gives the lock back")] File),
    /// kimi-code makes a folder.
    Folder(Folder, PathBuf),
    /// A folder that was not removed, which kimi-code passes too.
    Abandoned,
}

impl Drop for LockOfKimi {
    fn drop(&mut self) {
        match self {
            LockOfKimi::Folder(folder, name) => {
                let _ = rustix::fs::unlinkat(folder, &*name, AtFlags::REMOVEDIR);
            }
            LockOfKimi::File(_) | LockOfKimi::Abandoned => {}
        }
    }
}

/// Whether one file can be the renewal of another: a usable token for the same account.
fn renews(new: &[u8], old: &[u8]) -> bool {
    is_usable_token(new) && accounts(new) == accounts(old)
}

/// The accounts of a file's access token and refresh token.
fn accounts(bytes: &[u8]) -> [Option<Json>; 2] {
    let stored: Json = serde_json::from_slice(bytes).unwrap_or_default();
    ["access_token", "refresh_token"].map(|name| account(stored.get(name)?.as_str()?))
}

/// The account that a token names, unverified; `None` for a token that is no JWT. kimi-code reads the same two claims.
fn account(token: &str) -> Option<Json> {
    let [_, claims, _] = token.split('.').collect::<Vec<_>>()[..] else { return None };
    let claims = BASE64URL_NOPAD.decode(claims.trim_end_matches('=').as_bytes()).ok()?;
    let claims: Json = serde_json::from_slice(&claims).ok()?;
    claims.get("sub").or_else(|| claims.get("user_id")).cloned()
}

fn hash(bytes: &[u8]) -> Vec<u8> {
    Sha256::digest(bytes).to_vec()
}
