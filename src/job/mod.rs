//! One prompt put to Kimi, with everything that calls share: finding the program, one deadline for the whole call,
//! redaction of the prompt, one repair turn, the comparison of the project before and after, and the run's row in the
//! ledger with its transcript.
//!
//! This room knows no role, no round and no finding: each brief has its own reader.

mod changes;
pub mod citation;
mod entry;
pub(crate) mod injection;
pub(crate) mod objects;
pub(crate) mod place;
pub(crate) mod provenance;
pub(crate) mod secrets;
pub(crate) mod texts;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use self::changes::ProjectSnapshot;
use self::entry::RunEntry;
use crate::error::Result;
use crate::kimi::{self, Deadline, Profile, Program, Reply, TurnRequest, Watch};
use crate::ledger::RunRow;
use crate::redact::Secrets;
use crate::settings::Config;
use crate::workspace::Changes;

/// The time beyond the deadline in which the citations of an answer are checked.
const CHECKING: Duration = Duration::from_secs(5);

/// A call under way, from its first look at the project to its last.
pub(crate) struct Job<'a> {
    config: &'a Config,
    secrets: &'a Secrets,
    work_dir: PathBuf,
    watch: Watch<'a>,
    deadline: Deadline,
    before: ProjectSnapshot,
}

/// A prompt that is ready to be put to Kimi.
pub(crate) struct Brief<'a, R> {
    pub(crate) program: &'a Program,
    pub(crate) profile: Profile,
    pub(crate) system_prompt: &'a str,
    /// The prompt for a question in a file; `{path}` is replaced by the path of the file.
    pub(crate) read_from_file: &'a str,
    pub(crate) prompt: String,
    /// The session to resume.
    pub(crate) session: Option<String>,
    /// The tool's part of the run's row in the ledger; `None` if nothing is saved.
    pub(crate) row: Option<RunRow>,
    /// Parses Kimi's text.
    pub(crate) read: &'a dyn Fn(&str) -> ReadResult<R>,
}

/// The result of parsing a text.
pub(crate) struct ReadResult<R> {
    pub(crate) reading: R,
    /// The prompt that asks for a complete, readable answer; `None` if this answer is one.
    pub(crate) repair: Option<String>,
    /// True if any part of the text could be read.
    pub(crate) is_readable: bool,
}

/// The answer to a brief.
pub(crate) struct Answered<R> {
    pub(crate) reply: Reply,
    pub(crate) reading: R,
}

impl<'a> Job<'a> {
    /// Begins a call, and its time limit.
    pub(crate) async fn begin(
        config: &'a Config,
        secrets: &'a Secrets,
        work_dir: &Path,
        timeout_seconds: Option<u64>,
        watch: Watch<'a>,
    ) -> Job<'a> {
        let seconds = timeout_seconds.unwrap_or(config.settings.timeout_seconds);
        let deadline = Deadline::after(Duration::from_secs(seconds));
        let before =
            ProjectSnapshot::take(work_dir.to_owned(), config.state_dir(), watch.cancel).await;
        Job { config, secrets, work_dir: work_dir.to_owned(), watch, deadline, before }
    }

    /// Returns whether the call must stop. An answer in the last moment can still be checked.
    pub(crate) fn is_over(&self) -> bool {
        self.watch.is_over() || Instant::now() >= self.deadline.end() + CHECKING
    }

    /// Finds the program to ask, which must have a usable login.
    pub(crate) async fn find_program(&self) -> Result<Program> {
        let cancel = self.watch.cancel.child_token();
        let watch = Watch { cancel: &cancel, ..self.watch };
        let finding = kimi::program::find(self.config, &self.work_dir, watch);
        tokio::pin!(finding);
        let program = tokio::select! {
            found = &mut finding => found?,
            () = sleep_until(self.deadline.end()) => {
                cancel.cancel();
                // Waits until the child that prints its version has ended.
                let _ = finding.await;
                return Err(self.deadline.error());
            }
        };
        kimi::home::expect_login(&self.config.environment, program.dialect)?;
        Ok(program)
    }

    /// Puts the brief to Kimi, with a row in the ledger before and after. A row that cannot be written is a warning.
    pub(crate) async fn run<R>(&self, brief: &Brief<'_, R>) -> Result<Answered<R>> {
        let row = brief.row.clone().map(|row| self.completed(row, brief));
        let opened = row.map(|row| RunEntry::open(row, self.config.state_dir())).transpose();
        let (entry, mut unwritten) = match opened {
            Ok(entry) => (entry, None),
            Err(error) => (None, Some(error)),
        };
        let transcript = entry.as_ref().map(RunEntry::transcript);
        let mut answered = self.ask(brief, transcript.as_deref()).await;
        if let Some(entry) = entry {
            unwritten = entry.close(answered.as_ref().map(|answered| &answered.reply)).err();
        }
        if let Some(error) = unwritten {
            let warning = format!("this run is not remembered: {}", error.message);
            tracing::warn!("{warning}");
            if let Ok(answered) = &mut answered {
                answered.reply.warnings.push(warning);
            }
        }
        answered
    }

    /// Adds the fields that the rows of all tools share.
    fn completed<R>(&self, row: RunRow, brief: &Brief<'_, R>) -> RunRow {
        let mut row = RunRow {
            project: self.work_dir.display().to_string(),
            profile: brief.profile.name.to_owned(),
            dialect: brief.program.dialect.name().to_owned(),
            version: self.secrets.redact(&brief.program.version).into_text(),
            session_id: brief.session.clone(),
            ..row
        };
        self.secrets.redact_all(&mut row.request);
        row
    }

    /// Puts the brief to Kimi, and asks once more in the same session when the answer cannot be read.
    async fn ask<R>(&self, brief: &Brief<'_, R>, transcript: Option<&Path>) -> Result<Answered<R>> {
        let session = brief.session.as_deref();
        let (mut reply, read) = self.turn(brief, &brief.prompt, session, transcript).await?;
        let again = reply.session_id.clone().or(brief.session.clone());
        let (Some(repair), Some(again), true) = (&read.repair, again, self.config.settings.repair)
        else {
            return Ok(Answered { reply, reading: read.reading });
        };
        // Any failure of the repair keeps the first answer.
        let failed = match self.turn(brief, repair, Some(&again), transcript).await {
            Ok((later, ReadResult { reading, repair, is_readable }))
                if repair.is_none() || (is_readable && !read.is_readable) =>
            {
                return Ok(Answered { reply: reply.repaired(later), reading });
            }
            Ok(_) => "the second answer could not be read either".to_owned(),
            Err(error) => self.secrets.redact(&error.message).into_text(),
        };
        reply
            .warnings
            .push(format!("Kimi was asked once more for a form that can be read: {failed}"));
        Ok(Answered { reply, reading: read.reading })
    }

    /// Runs one turn and parses its reply.
    async fn turn<R>(
        &self,
        brief: &Brief<'_, R>,
        prompt: &str,
        session: Option<&str>,
        transcript: Option<&Path>,
    ) -> Result<(Reply, ReadResult<R>)> {
        let question = TurnRequest {
            profile: brief.profile,
            system_prompt: brief.system_prompt,
            prompt: &self.secrets.redact(prompt),
            secrets: self.secrets,
            read_from_file: brief.read_from_file,
            work_dir: &self.work_dir,
            resume: session,
            deadline: self.deadline,
            transcript,
        };
        let asking = kimi::ask(self.config, brief.program, question, self.watch);
        let mut reply = Box::pin(asking).await?;
        let read = (brief.read)(&reply.text);
        if read.repair.is_some()
            && let Some(failure) = reply.failure.take()
        {
            return Err(*failure);
        }
        Ok((reply, read))
    }

    /// Ends a call, and returns the changes of the project.
    pub(crate) async fn end(self) -> Changes {
        self.before.compare(self.watch.closing).await
    }
}
