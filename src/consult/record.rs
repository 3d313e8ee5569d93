//! A thread for its readers: the proposal, every round with its findings, verdicts and replies, and the decision. The
//! terminal, the exports and the resources are made from it.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::result::ConsultResult;
use super::role::Role;
use super::standing::unreadable;
use super::thread::{Adjudication, Stance, State, Thread};
use crate::error::{Error, Kind, Result};
use crate::ledger::{Filter, Ledger, RoundRow, ThreadRow};
use crate::settings::Config;

/// The most bytes of a transcript that are shown.
const TRANSCRIPT_SHOWN: u64 = 2_000_000;

/// A thread in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Summary {
    pub id: String,
    /// The role.
    pub role: String,
    pub project: String,
    /// The name of the thread's state.
    pub state: String,
    /// The number of open findings, or of those that stayed open when the thread was given up.
    #[serde(skip_serializing_if = "is_zero")]
    pub open: usize,
    /// The question, redacted.
    pub message: String,
    /// The time of opening, seconds since 1970 UTC.
    pub opened_at: i64,
    /// The time of the last change, seconds since 1970 UTC.
    pub updated_at: i64,
}

/// A thread with all its rounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub id: String,
    /// The role.
    pub role: Role,
    pub project: PathBuf,
    /// The question, redacted.
    pub message: String,
    /// The context of the request, redacted.
    pub context: Value,
    /// The state of the thread.
    pub state: State,
    /// The time of opening, seconds since 1970 UTC.
    pub opened_at: i64,
    /// The time of the last change, seconds since 1970 UTC.
    pub updated_at: i64,
    /// The rounds, in order.
    pub rounds: Vec<RoundRecord>,
    /// The findings that are rejected and maintained at the end.
    pub contested: Vec<String>,
    /// The caller's decision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
}

impl Record {
    /// Kimi's answers, in the order of the rounds.
    pub(crate) fn results(&self) -> impl DoubleEndedIterator<Item = &ConsultResult> + Clone {
        self.rounds.iter().filter_map(|round| round.result.as_ref())
    }

    /// The claim of a finding, in the form to which Kimi refined it.
    pub(crate) fn claim(&self, finding: &str) -> Option<&str> {
        let refined = self
            .results()
            .flat_map(|result| &result.answer.replies)
            .rfind(|reply| reply.finding == finding && reply.stance == Stance::Refine);
        refined.map(|reply| reply.because.as_str()).or_else(|| {
            let mut findings = self.results().flat_map(|result| &result.answer.findings);
            findings.find(|one| one.id == finding).map(|one| one.claim.as_str())
        })
    }

    /// Builds a record from the rows of the ledger.
    pub(crate) fn from_rows(row: &ThreadRow, rounds: &[RoundRow]) -> Result<Record> {
        let at = |error| unreadable(&row.id, &error);
        let request = &row.request;
        let thread = Thread::from_row(row)?;
        let mut records = Vec::new();
        for round in rounds {
            let of_thread = thread.rounds.get(usize::from(round.number).saturating_sub(1));
            records.push(RoundRecord {
                number: round.number,
                opened_at: round.opened_at,
                result: round
                    .result
                    .as_deref()
                    .map(serde_json::from_str)
                    .transpose()
                    .map_err(at)?,
                error: round.error.clone(),
                adjudications: of_thread
                    .map(|round| round.adjudications.clone())
                    .unwrap_or_default(),
                transcripts: round.transcripts.clone(),
            });
        }
        Ok(Record {
            id: row.id.clone(),
            role: serde_json::from_value(request["role"].clone()).map_err(at)?,
            project: row.project.clone().into(),
            message: request["message"].as_str().unwrap_or_default().to_owned(),
            context: request["context"].clone(),
            state: thread.state(),
            opened_at: row.opened_at,
            updated_at: row.updated_at,
            rounds: records,
            contested: thread.contested(),
            decision: row.decision.clone().map(|(decision, rationale, at)| Decision {
                decision,
                rationale,
                at,
            }),
        })
    }
}

/// The threads that match a filter, the latest first.
pub(crate) fn list(config: &Config, filter: &Filter) -> Result<Vec<Summary>> {
    let ledger = Ledger::open(config.state_dir())?;
    let rows = ledger.threads(filter)?;
    let summaries = rows.into_iter().map(|row| Summary {
        open: open_count(&row),
        id: row.id,
        role: row.role,
        project: row.project,
        state: row.state,
        message: row.request["message"].as_str().unwrap_or_default().to_owned(),
        opened_at: row.opened_at,
        updated_at: row.updated_at,
    });
    Ok(summaries.collect())
}

/// The project that the host works in.
pub(crate) fn project_of(config: &Config) -> PathBuf {
    let project = config.environment.project_dir();
    project.canonicalize().unwrap_or(project)
}

/// The number of findings that wait for an answer or never got one.
fn open_count(row: &ThreadRow) -> usize {
    let thread = Thread::from_row(row).unwrap_or_default();
    match thread.state() {
        State::AwaitingAdjudication | State::GivenUp => thread.open_findings().len(),
        State::Unfinished | State::Settled | State::Contested | State::Decided => 0,
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

pub(crate) fn load(config: &Config, id: &str) -> Result<Record> {
    let ledger = Ledger::open(config.state_dir())?;
    let found = ledger.thread(id)?;
    let (row, rounds) = found.ok_or_else(|| unknown(id))?;
    Record::from_rows(&row, &rounds)
}

/// The transcript of one round, a JSON object per line, up to 2 MB.
pub(crate) fn transcript(config: &Config, id: &str, number: u8) -> Result<String> {
    let record = load(config, id)?;
    let absent = |message| {
        let hint = format!("`kimi-bridge threads show {id}` shows what is remembered.");
        Err(Error::new(Kind::Round, message, hint))
    };
    let Some(round) = record.rounds.iter().find(|round| round.number == number) else {
        return absent(format!("the thread {id} has no round {number}"));
    };
    let mut text = String::new();
    for path in &round.transcripts {
        let file = File::open(path).map_err(|error| {
            Error::new(
                Kind::Ledger,
                format!("the transcript {} cannot be read: {error}", path.display()),
                "Look at who may read the file.",
            )
        })?;
        let limit = TRANSCRIPT_SHOWN.saturating_sub(text.len() as u64);
        text.push_str(&unpacked(file, path, limit));
    }
    if round.transcripts.is_empty() {
        return absent(format!("there is no transcript of round {number} of the thread {id}"));
    }
    Ok(text)
}

/// Decompresses a text up to a limit. The file of a killed run has no end; its beginning is returned with a note.
fn unpacked(file: impl io::Read, path: &Path, limit: u64) -> String {
    let mut bytes = Vec::new();
    // Each turn of Kimi is a member of the gzip file.
    let read = MultiGzDecoder::new(file).take(limit + 1).read_to_end(&mut bytes);
    let over = bytes.len() as u64 > limit;
    if over {
        bytes.pop();
        let line_end = bytes.iter().rposition(|&byte| byte == b'\n');
        bytes.truncate(line_end.map_or(bytes.len(), |at| at + 1));
    }
    let mut text = String::from_utf8_lossy(&bytes).into_owned();
    let note = match read {
        Ok(_) if !over => return text,
        Ok(_) => format!("… cut at {limit} bytes; all of it stands in {}", path.display()),
        Err(error) => format!("… the rest cannot be read: {error}"),
    };
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text + &note + "\n"
}

/// The error for the id of an unknown thread.
pub(crate) fn unknown(id: &str) -> Error {
    Error::new(Kind::Round, format!("there is no thread {id}"), "`kimi-bridge threads` lists them.")
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RoundRecord {
    /// The number of the round, from 1.
    pub number: u8,
    /// The time of opening, seconds since 1970 UTC.
    pub opened_at: i64,
    /// Kimi's answer; absent until it arrives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<ConsultResult>,
    /// The reason why there is no answer, as an error report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Value>,
    /// The caller's answers to the findings that were open after this round.
    pub adjudications: Vec<Adjudication>,
    /// The compressed files with everything that Kimi wrote, one for each run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub transcripts: Vec<PathBuf>,
}

/// The caller's decision, which closes a thread.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_field_names, reason = "a stored name")]
pub(crate) struct Decision {
    /// The action that was decided on.
    pub decision: String,
    pub rationale: String,
    /// The time of the decision, seconds since 1970 UTC.
    pub at: i64,
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn packed(text: &str) -> Vec<u8> {
        let mut out = GzEncoder::new(Vec::new(), Compression::fast());
        out.write_all(text.as_bytes()).unwrap();
        out.finish().unwrap()
    }

    #[track_caller]
    fn check(bytes: &[u8], limit: u64, expected: &str) {
        assert_eq!(unpacked(bytes, Path::new("/t.gz"), limit), expected);
    }

    #[test]
    fn a_transcript_without_its_end_is_shown() {
        let whole = [packed("one\n"), packed("two\n")].concat();
        check(&whole, 8, "one\ntwo\n");
        check(&whole, 7, "one\n… cut at 7 bytes; all of it stands in /t.gz\n");
        check(&packed("ééé"), 3, "é\u{fffd}\n… cut at 3 bytes; all of it stands in /t.gz\n");
        check(
            &whole[..packed("one\n").len() + 3],
            8,
            "one\n… the rest cannot be read: unexpected end of file\n",
        );
        check(b"no gzip at all", 8, "… the rest cannot be read: invalid gzip header\n");
        check(&packed(""), 8, "");
    }
}
