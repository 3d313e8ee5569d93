//! Answer ─► `ConsultResult`: the caller's result, checked against the disk and the trace.

mod host;

pub(crate) use self::host::{max_result_chars, shorten_error};

use std::path::Path;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::answer::{Answer, Finding};
use super::reading::{Form, Reading};
use super::request::Context;
use super::thread::State;
use crate::hidden;
use crate::job::citation::{Citations, is_closed};
use crate::job::provenance::Provenance;
use crate::kimi::evidence::shown::{self, Shown};
use crate::kimi::{self, Evidence, Program};
use crate::redact::Secrets;
use crate::sandbox::SecretFiles;

/// The length of `raw_response_preview`, characters.
const PREVIEW_CHARS: usize = 500;
/// The result of a consultation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct ConsultResult {
    /// Whether Kimi's answer could be read; if not, `response` is its text, a long one without its middle
    pub parse_ok: bool,
    /// What Kimi says, and what the bridge found out about it
    #[serde(flatten)]
    pub answer: Answer,
    /// True if the answer lacks `findings`, so that its round stays open. Callers see this in the state of the thread.
    #[serde(skip)]
    pub(crate) lacks_findings: bool,
    /// Kimi's own tool calls
    pub evidence: Vec<Evidence>,
    /// Whether a call or a result has no partner
    pub incomplete_trace: bool,
    /// The first 500 characters of Kimi's text
    pub raw_response_preview: String,
    /// Where the argument stands, and what to do next
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread: Option<Standing>,
    /// What produced this answer
    pub provenance: Provenance,
    /// What to bear in mind about this answer
    pub warnings: Vec<String>,
}

/// The state of a thread, for its caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Standing {
    /// The thread's id; a later call names it as `thread_id`
    pub id: String,
    /// The round that this answer belongs to
    pub round: u8,
    /// Where the thread stands
    pub state: State,
    /// What you must do now, in one sentence
    pub next: String,
    /// The findings that you must answer, or that were never answered
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub open: Vec<String>,
}

/// The facts of a consultation besides Kimi's reply.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub context: Context,
    pub program: Program,
    /// The number of secrets that were replaced in the request.
    pub redactions: usize,
    pub secrets: Secrets,
    pub first_finding: usize,
    /// The lines that Kimi's tools showed in earlier rounds.
    pub shown_before: Shown,
}

impl ConsultResult {
    /// Combines an answer with its run. It reads the cited files: a quote is compared with the disk before its secrets
    /// are replaced. Once `stop` returns `true`, the remaining citations stay unchecked.
    pub(crate) fn new(
        reply: kimi::Reply,
        reading: Reading,
        origin: &Origin,
        stop: &dyn Fn() -> bool,
    ) -> ConsultResult {
        let provenance = Provenance::new(&reply, &origin.program, origin.redactions);
        let mut warnings = reply.warnings;
        warnings.extend(reading.warnings);
        if reply.seen.not_kept > 0 {
            warnings
                .push(format!("{} tool calls more than the evidence lists", reply.seen.not_kept));
        }
        warnings.extend(hidden::warning(reply.hidden + reading.hidden, reply.seen.hidden));
        let parse_ok = reading.answer.is_ok();
        let lacks_findings = reading.form == Form::WithoutFindings;
        let preview = origin.secrets.redact_start(&reply.text, PREVIEW_CHARS).into_text();
        let mut answer = reading.answer.unwrap_or_else(|why| {
            let why: Vec<String> = why.iter().map(ToString::to_string).collect();
            warnings.push(format!("Kimi's answer could not be read: {}", why.join("; ")));
            Answer { response: reply.text, ..Answer::default() }
        });
        let mut shown = reply.seen.shown;
        shown::extend(&mut shown, &origin.shown_before);
        let work_dir = &origin.context.work_dir;
        let secret = SecretFiles::with_or_built_in(origin.secrets.files());
        let is_closed = |path: &Path| is_closed(path, work_dir, &reply.closed, &secret);
        let mut citations = Citations::new(work_dir, &shown, &is_closed, stop);
        check(&mut answer, &mut citations, origin.first_finding);
        if citations.unchecked() > 0 {
            warnings.push(format!(
                "{} citations were not checked, since the time of the call was over; they are called missing",
                citations.unchecked()
            ));
        }
        let result = ConsultResult {
            parse_ok,
            lacks_findings,
            answer,
            evidence: reply.seen.evidence,
            incomplete_trace: reply.seen.incomplete,
            raw_response_preview: preview,
            thread: None,
            provenance,
            warnings,
        };
        result.without_secrets(&origin.secrets)
    }
}

/// Checks the citations of an answer, then sorts and numbers its findings.
fn check(answer: &mut Answer, citations: &mut Citations<'_>, first_finding: usize) {
    let cited = answer.findings.iter_mut().flat_map(|finding| &mut finding.citations);
    let checked = citations.check(cited.map(|citation| citation.clone()).collect());
    let cited = answer.findings.iter_mut().flat_map(|finding| &mut finding.citations);
    cited.zip(checked).for_each(|(citation, checked)| *citation = checked);
    for finding in &mut answer.findings {
        finding.grounded = finding.citations.iter().any(|citation| citation.status.grounds());
    }
    number(&mut answer.findings, first_finding);
    for reply in &mut answer.replies {
        reply.finding = reply.finding.trim().to_uppercase();
    }
}

/// Sorts findings, and gives them ids from this number on.
pub(crate) fn number(findings: &mut [Finding], first: usize) {
    findings.sort_by_key(|finding| (finding.severity, !finding.grounded));
    for (at, finding) in findings.iter_mut().enumerate() {
        finding.id = format!("F{}", at + first);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::consult::role::Role;
    use crate::kimi::{Dialect, Seen};
    use crate::sandbox::Sandbox;

    pub(super) fn made(text: &str, evidence: usize) -> ConsultResult {
        let role = Role::Judge;
        let context = Context {
            about: role.read_context(role.example()["context"].clone()).unwrap(),
            message: "m".into(),
            work_dir: "/nowhere".into(),
            files: vec![],
            language: None,
            timeout_seconds: None,
            prior_exchange: None,
        };
        let program = Program {
            path: "/bin/kimi".into(),
            leading_args: vec![],
            dialect: Dialect::KimiCli,
            version: "1.51.0".into(),
            found: "PATH".into(),
        };
        let evidence = (0..evidence).map(|n| Evidence {
            tool: "ReadFile".into(),
            tool_call_id: n.to_string(),
            args: serde_json::Map::from_iter([("path".to_owned(), json!("x"))]),
            summary: "s".repeat(800),
            ok: true,
            shown: Shown::new(),
        });
        let reading = crate::consult::reading::read(text, role);
        let reply = kimi::Reply {
            text: text.to_owned(),
            hidden: 0,
            seen: Seen { evidence: evidence.collect(), ..Seen::default() },
            session_id: Some("s1".into()),
            warnings: vec![],
            failure: None,
            sandbox: Sandbox::Landlock,
            closed: Vec::new(),
            elapsed: Duration::from_millis(12),
        };
        ConsultResult::new(
            reply,
            reading,
            &Origin {
                context,
                program,
                redactions: 1,
                secrets: Secrets::default(),
                first_finding: 1,
                shown_before: Shown::new(),
            },
            &|| false,
        )
    }

    #[test]
    fn findings_are_ordered_and_numbered() {
        let answer = json!({"response": "r", "verdict": {"winner": "SQLite", "scores": []}, "findings": [
            {"severity": "note", "claim": "c"}, {"severity": "blocker", "claim": "b"}]});
        let result = made(&answer.to_string(), 0);
        let ids: Vec<_> = result
            .answer
            .findings
            .iter()
            .map(|f| (f.id.as_str(), f.claim.as_str(), f.grounded))
            .collect();
        assert_eq!(ids, [("F1", "b", false), ("F2", "c", false)]);
        assert_eq!(result.warnings, Vec::<String>::new());
    }

    #[test]
    fn a_secret_is_replaced_before_the_preview_is_cut() {
        // Put together here, so that no scanner takes this file for a leak.
        let text = format!("{}AKIA{} and more", "x ".repeat(245), "ABCDEFGHIJKLMNOP");
        let result = made(&text, 0);
        assert!(
            result.answer.response.ends_with("x [redacted:aws-key] and more"),
            "{}",
            result.answer.response
        );
        assert_eq!(result.raw_response_preview, "x ".repeat(245));
        assert_eq!(result.provenance.redactions, 2);
    }

    proptest! {
        #[test]
        fn a_text_without_an_answer_is_returned_whole(text in "[^{]{0,200}") {
            let result = made(&text, 0);
            let visible = kimi::text::clean(&text).into_owned();
            prop_assert_eq!((result.parse_ok, result.answer.response), (false, visible));
        }
    }
}
