//! Answer ─► `ConsultResult`: what the caller gets, checked against the disk and the trace.

mod shorten;

pub use self::shorten::shorten_error;

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::answer::{Answer, Claim, Reading, Score, Severity, Verdict};
use super::citation::{Citation, Citations};
use super::request::Context;
use super::role::RoleContext;
use super::thread::{Rejoinder, Stance, State, says_something};
use crate::kimi::text::first_chars;
use crate::kimi::{self, Dialect, Evidence, Program, hidden};
use crate::redact::Secrets;
use crate::sandbox::Sandbox;

/// Characters of Kimi's text in `raw_response_preview`.
const PREVIEW_CHARS: usize = 500;
/// The longest id of a session that is taken for one, bytes.
const SESSION_BYTES: usize = 200;
/// Characters of a name that a warning repeats.
const NAMED: usize = 100;

/// Whether a text can be the id of a session.
#[must_use]
pub fn is_session(id: &str) -> bool {
    id.len() <= SESSION_BYTES
}

/// What a consultation brought.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ConsultResult {
    /// Whether Kimi's answer could be read; if not, `response` is its text, a long one without its middle
    pub parse_ok: bool,
    /// The verdict, and what you must know to act on it
    pub response: String,
    /// In rounds 2 and 3: what Kimi makes of each rejection
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replies: Vec<Reply>,
    /// The judge's choice
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Choice>,
    /// What is wrong, the most severe first; grounded ones first of the same severity
    pub findings: Vec<Finding>,
    /// What remains risky
    pub key_risks: Vec<String>,
    /// What Kimi took for granted
    pub assumptions: Vec<String>,
    /// Other ways
    pub alternatives: Vec<String>,
    /// What Kimi attacked, and it held
    pub survived: Vec<String>,
    /// What Kimi did not look at
    pub not_examined: Vec<String>,
    /// How sure Kimi is, and why
    pub confidence: String,
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

/// One point of the answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Finding {
    /// `F1`, `F2`…
    pub id: String,
    /// How bad it is
    pub severity: Severity,
    /// What is wrong
    pub claim: String,
    /// How it comes to fail
    pub failure_scenario: String,
    /// What to do instead
    pub suggestion: String,
    /// What it rests on, checked by the bridge
    pub citations: Vec<Citation>,
    /// Whether a citation is `verified` or `moved`
    pub grounded: bool,
}

/// Kimi's answer to one rejection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reply {
    /// The finding
    pub finding: String,
    /// `withdraw`, `refine` or `maintain`
    pub stance: Stance,
    /// Why; for a withdrawal, the fact that changed its mind
    pub because: String,
    /// It gave in without naming such a fact
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub capitulated: bool,
}

/// Where the argument stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Standing {
    /// The thread's id; a later call names it as `thread_id`
    pub id: String,
    /// The round that this answer belongs to
    pub round: u8,
    /// Where the thread stands
    pub state: State,
    /// What you must do now, in one sentence
    pub next: String,
    /// The findings that you must answer
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub open: Vec<String>,
}

/// What the judge chose.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Choice {
    /// The option's name, as the caller gave it; absent when none is acceptable
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub winner: Option<String>,
    /// Every option by every criterion, 0 to 10
    pub scores: Vec<Score>,
    /// Whether the winner changed with the order of the options; then there is none
    #[serde(default)]
    pub contested: bool,
}

/// Which program, version and session produced an answer, and how long it took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Provenance {
    /// `kimi-code` or `kimi-cli`
    pub dialect: Dialect,
    /// The CLI's version
    pub version: String,
    /// Kimi's session
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_id: Option<String>,
    /// What the kernel enforced besides the tool list; `none` when nothing
    pub sandbox: Sandbox,
    /// Whether files of the project changed while Kimi ran, by whomever; absent when that is not known
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace_changed: Option<bool>,
    /// How long Kimi took, milliseconds
    pub elapsed_ms: u64,
    /// Secrets replaced in what was sent, and in what came back
    pub redactions: u64,
}

/// What is known of a consultation besides its answer.
#[derive(Debug, Clone)]
pub struct Origin {
    /// The request.
    pub context: Context,
    /// The program that answered.
    pub program: Program,
    /// Secrets that were replaced in the request.
    pub redactions: usize,
    /// What is taken for a secret.
    pub secrets: Secrets,
    /// The number of the first new finding.
    pub first_finding: usize,
    /// Files that Kimi read in earlier rounds.
    pub read_before: BTreeSet<String>,
}

impl ConsultResult {
    /// Puts an answer and the run that brought it together. Reads the cited files: a quote is held
    /// against the disk as Kimi gave it, and only then are its secrets replaced.
    #[must_use]
    pub fn new(reply: kimi::Reply, reading: Reading, origin: &Origin) -> ConsultResult {
        let mut warnings = reply.warnings;
        warnings.extend(reading.warnings);
        if reply.seen.not_kept > 0 {
            warnings
                .push(format!("{} tool calls more than the evidence lists", reply.seen.not_kept));
        }
        warnings.extend(hidden::warning(reply.hidden + reading.hidden, reply.seen.hidden));
        let parse_ok = reading.answer.is_ok();
        let preview = origin.secrets.redact_start(&reply.text, PREVIEW_CHARS).into_text();
        let answer = reading.answer.unwrap_or_else(|why| {
            let why: Vec<String> = why.iter().map(ToString::to_string).collect();
            warnings.push(format!("Kimi's answer could not be read: {}", why.join("; ")));
            Answer { response: reply.text, ..Answer::default() }
        });
        let shown = reply.seen.shown.union(&origin.read_before).cloned().collect();
        let mut citations = Citations::new(&origin.context.work_dir, &shown);
        let findings = findings(answer.findings, origin.first_finding, &mut citations);
        let verdict =
            answer.verdict.map(|verdict| choice(verdict, &origin.context.about, &mut warnings));
        let result = ConsultResult {
            parse_ok,
            response: answer.response,
            replies: answer.replies.into_iter().map(reply_of).collect(),
            verdict,
            findings,
            key_risks: answer.key_risks,
            assumptions: answer.assumptions,
            alternatives: answer.alternatives,
            survived: answer.survived,
            not_examined: answer.not_examined,
            confidence: answer.confidence,
            evidence: reply.seen.evidence,
            incomplete_trace: reply.seen.incomplete,
            raw_response_preview: preview,
            thread: None,
            provenance: Provenance {
                dialect: origin.program.dialect,
                version: origin.program.version.clone(),
                session_id: reply.session_id.filter(|id| is_session(id)),
                sandbox: reply.sandbox,
                workspace_changed: None,
                elapsed_ms: u64::try_from(reply.elapsed.as_millis()).unwrap_or(u64::MAX),
                redactions: (origin.redactions + reply.seen.redactions) as u64,
            },
            warnings,
        };
        result.without_secrets(&origin.secrets)
    }

    /// Holds a judge's choice against what the same judge said with the options in the other order: a
    /// winner that changes is none.
    pub fn held_against(&mut self, other: Reading, secrets: &Secrets) {
        let Some(choice) = &mut self.verdict else { return };
        let Ok(other) = other.answer else {
            self.warnings.push(
                "the options were judged in one order only: the other answer could not be read"
                    .to_owned(),
            );
            return;
        };
        let reversed = other.verdict.and_then(|verdict| verdict.winner);
        let reversed = reversed.map(|winner| secrets.redact(&winner).into_text());
        if reversed != choice.winner {
            let name = |winner: &Option<String>| match winner {
                Some(winner) => first_chars(winner, NAMED).to_owned(),
                None => "none".to_owned(),
            };
            self.warnings.push(format!(
                "the winner changes with the order of the options: {} in the order given, {} in the other, which \
                 says: {}",
                name(&choice.winner),
                name(&reversed),
                secrets.redact_start(&other.response, 600).as_str()
            ));
            choice.winner = None;
            choice.contested = true;
        }
    }

    /// A result of nothing, for a thread of which nothing was answered.
    #[must_use]
    pub fn nothing() -> ConsultResult {
        ConsultResult {
            parse_ok: true,
            response: String::new(),
            replies: Vec::new(),
            verdict: None,
            findings: Vec::new(),
            key_risks: Vec::new(),
            assumptions: Vec::new(),
            alternatives: Vec::new(),
            survived: Vec::new(),
            not_examined: Vec::new(),
            confidence: String::new(),
            evidence: Vec::new(),
            incomplete_trace: false,
            raw_response_preview: String::new(),
            thread: None,
            provenance: Provenance {
                dialect: Dialect::KimiCode,
                version: String::new(),
                session_id: None,
                sandbox: Sandbox::None,
                workspace_changed: None,
                elapsed_ms: 0,
                redactions: 0,
            },
            warnings: Vec::new(),
        }
    }
}

impl Reply {
    /// The reply as the thread takes it.
    #[must_use]
    pub fn rejoinder(&self) -> Rejoinder {
        let Reply { finding, stance, because, capitulated: _ } = self.clone();
        Rejoinder { finding, stance, because }
    }
}

fn reply_of(rejoinder: Rejoinder) -> Reply {
    let Rejoinder { finding, stance, because } = rejoinder;
    let finding = finding.trim().to_uppercase();
    let capitulated = stance == Stance::Withdraw && !names_a_fact(&because);
    Reply { finding, stance, because, capitulated }
}

/// Whether a withdrawal says more than that the other side is right.
fn names_a_fact(because: &str) -> bool {
    let agreement = [
        "you are right",
        "you're right",
        "you are correct",
        "fair point",
        "good point",
        "i agree",
        "agreed",
        "i withdraw this",
        "i withdraw",
        "withdrawn",
        "on reflection",
        "the other side is right",
        "point taken",
        "我同意",
        "你说得对",
        "您说得对",
        "撤回",
    ];
    let rest =
        agreement.iter().fold(because.to_lowercase(), |text, words| text.replace(words, " "));
    says_something(&rest)
}

fn findings(claims: Vec<Claim>, first: usize, citations: &mut Citations<'_>) -> Vec<Finding> {
    let mut findings: Vec<Finding> = claims
        .into_iter()
        .map(|claim| {
            let citations: Vec<Citation> =
                claim.citations.into_iter().map(|quote| citations.check(quote)).collect();
            Finding {
                id: String::new(),
                severity: claim.severity,
                claim: claim.claim,
                failure_scenario: claim.failure_scenario,
                suggestion: claim.suggestion,
                grounded: citations.iter().any(|citation| citation.status.grounds()),
                citations,
            }
        })
        .collect();
    findings.sort_by_key(|finding| (finding.severity, !finding.grounded));
    for (at, finding) in findings.iter_mut().enumerate() {
        finding.id = format!("F{}", at + first);
    }
    findings
}

fn choice(verdict: Verdict, about: &RoleContext, warnings: &mut Vec<String>) -> Choice {
    if let (RoleContext::Judge(judge), Some(winner)) = (about, &verdict.winner)
        && !judge.options.iter().any(|option| option.name == *winner)
    {
        let winner = first_chars(winner, NAMED);
        warnings.push(format!("the winner `{winner}` is none of the options"));
    }
    Choice { winner: verdict.winner, scores: verdict.scores, contested: false }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::consult::role::Role;
    use crate::kimi::Seen;

    pub(super) fn made(text: &str, evidence: usize, limit: usize) -> ConsultResult {
        let role = Role::Judge;
        let context = Context {
            about: role.read_context(role.example()["context"].clone()).unwrap(),
            message: "m".into(),
            work_dir: "/nowhere".into(),
            files: vec![],
            language: None,
            timeout_seconds: None,
            max_result_chars: limit,
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
        });
        let reading = crate::consult::answer::read(text, role);
        let reply = kimi::Reply {
            text: text.to_owned(),
            hidden: 0,
            seen: Seen { evidence: evidence.collect(), ..Seen::default() },
            session_id: Some("s1".into()),
            warnings: vec![],
            sandbox: Sandbox::Landlock,
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
                read_before: BTreeSet::new(),
            },
        )
        .within(limit)
    }

    #[test]
    fn findings_are_ordered_and_numbered_and_a_strange_winner_is_pointed_out() {
        let answer = json!({"response": "r", "verdict": {"winner": "a third way", "scores": []}, "findings": [
            {"severity": "note", "claim": "c"}, {"severity": "blocker", "claim": "b"}]});
        let result = made(&answer.to_string(), 0, 40_000);
        let ids: Vec<_> =
            result.findings.iter().map(|f| (f.id.as_str(), f.claim.as_str(), f.grounded)).collect();
        assert_eq!(ids, [("F1", "b", false), ("F2", "c", false)]);
        assert_eq!(result.warnings, ["the winner `a third way` is none of the options"]);
    }

    #[test]
    fn a_secret_is_replaced_before_the_preview_is_cut() {
        // Put together here, so that no scanner takes this file for a leak.
        let text = format!("{}AKIA{} and more", "x ".repeat(245), "ABCDEFGHIJKLMNOP");
        let result = made(&text, 0, 40_000);
        assert!(result.response.ends_with("x [redacted:aws-key] and more"), "{}", result.response);
        assert_eq!(result.raw_response_preview, "x ".repeat(245));
        assert_eq!(result.provenance.redactions, 2);
    }

    #[test]
    fn a_withdrawal_that_names_no_fact_is_a_capitulation() {
        let capitulated = |because: &str| {
            let stance = Stance::Withdraw;
            reply_of(Rejoinder { finding: "F1".into(), stance, because: because.into() })
                .capitulated
        };
        for because in [
            "",
            "You are right.",
            "Fair point, I withdraw this.",
            "你说得对",
            "Agreed; point taken.",
        ] {
            assert!(capitulated(because), "{because}");
        }
        for because in ["You are right: main.rs line 6 holds the lock.", "调用者在第六行已经持有锁"]
        {
            assert!(!capitulated(because), "{because}");
        }
    }

    proptest! {
        #[test]
        fn a_text_that_holds_no_answer_is_handed_on_whole(text in "[^{]{0,200}") {
            let result = made(&text, 0, 40_000);
            prop_assert_eq!((result.parse_ok, result.response), (false, text));
        }
    }
}
