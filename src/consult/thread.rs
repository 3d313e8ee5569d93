//! The challenge loop as a state machine: up to three rounds on one proposal, every finding answered, and no step after
//! the thread is closed. It is pure: it knows no disk, no clock and no Kimi.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fact::is_substantial;
use crate::error::Violation;

/// The most rounds of a thread.
pub(crate) const MAX_ROUNDS: u8 = 3;

/// The caller's verdict on a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Ruling {
    /// The finding holds; the proposal changes.
    Adopt,
    /// The finding does not hold, for a reason.
    Reject,
}

/// The caller's answer to a finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Adjudication {
    /// The finding, such as `F1`
    pub finding: String,
    /// ADOPT or REJECT
    pub verdict: Ruling,
    /// Why; required for a REJECT
    #[serde(default)]
    pub reasoning: String,
}

/// Kimi's position on a rejection.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Stance {
    /// Kimi gives the finding up.
    Withdraw,
    /// Kimi keeps the finding in another form.
    Refine,
    /// Kimi keeps the finding.
    Maintain,
}

impl Stance {
    /// The name on the wire.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Stance::Withdraw => "withdraw",
            Stance::Refine => "refine",
            Stance::Maintain => "maintain",
        }
    }
}

/// Kimi's answer to a rejection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RejectionReply {
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

/// The state of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// A round is open and has no answer of Kimi's; it can be asked again.
    Unfinished,
    /// The caller must answer the open findings.
    AwaitingAdjudication,
    /// Nothing is open: there was no finding, or all were adopted or withdrawn.
    Settled,
    /// A finding is still rejected and maintained; the caller decides.
    Contested,
    /// The caller decided; the thread is closed.
    Decided,
    /// The caller decided while findings were open, which were never answered; the thread is closed.
    GivenUp,
}

/// One consultation of a thread, with the answers to it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Round {
    /// True once Kimi's answer arrived and could be read.
    pub answered: bool,
    /// The new findings of this round.
    pub findings: Vec<String>,
    /// Kimi's replies to the caller's earlier rejections.
    pub rejoinders: Vec<RejectionReply>,
    /// The caller's answers to the findings that were open after this round.
    pub adjudications: Vec<Adjudication>,
    /// The caller's remark for this round.
    #[serde(default)]
    pub remark: String,
}

/// All rounds on one proposal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Thread {
    /// The rounds, in order; at most [`MAX_ROUNDS`].
    pub rounds: Vec<Round>,
    /// True once the caller's decision is recorded.
    pub decided: bool,
}

/// The next step after adjudications.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Every open finding was adopted: Kimi is not asked again.
    Settled,
    /// Kimi is asked about these rejections.
    Ask(Vec<Adjudication>),
    /// Kimi may not be asked again; the caller decides on these findings.
    Contested(Vec<String>),
}

impl Thread {
    /// A thread whose first round is open.
    pub(crate) fn open() -> Thread {
        Thread { rounds: vec![Round::default()], decided: false }
    }

    pub(crate) fn round(&self) -> u8 {
        u8::try_from(self.rounds.len()).unwrap_or(MAX_ROUNDS)
    }

    /// The state of the thread.
    pub(crate) fn state(&self) -> State {
        match self.argument() {
            State::AwaitingAdjudication if self.decided => State::GivenUp,
            _ if self.decided => State::Decided,
            state => state,
        }
    }

    /// The state of the discussion, without regard to a decision.
    fn argument(&self) -> State {
        let Some(last) = self.rounds.last() else { return State::Unfinished };
        if !last.answered {
            return State::Unfinished;
        }
        if last.adjudications.is_empty() {
            let nothing = self.open_findings().is_empty();
            return if nothing { State::Settled } else { State::AwaitingAdjudication };
        }
        if rejected(&last.adjudications).next().is_none() {
            State::Settled
        } else {
            State::Contested
        }
    }

    /// The findings that the caller must answer: all of the first round; later, the new ones and those that Kimi
    /// maintained or refined. A rejection without a reply counts as maintained.
    pub(crate) fn open_findings(&self) -> Vec<&str> {
        let Some(last) = self.rounds.last().filter(|round| round.answered) else {
            return Vec::new();
        };
        let before = self.rounds.len().checked_sub(2).map(|at| &self.rounds[at]);
        let contested = before.into_iter().flat_map(|round| rejected(&round.adjudications));
        let kept = contested.filter(|finding| {
            !last.rejoinders.iter().any(|r| r.finding == **finding && r.stance == Stance::Withdraw)
        });
        kept.chain(last.findings.iter().map(String::as_str)).collect()
    }

    /// The findings that are still rejected when Kimi may not be asked again.
    pub(crate) fn contested(&self) -> Vec<String> {
        let last = self.rounds.last().filter(|round| round.answered);
        last.into_iter()
            .flat_map(|round| rejected(&round.adjudications))
            .map(str::to_owned)
            .collect()
    }

    pub(crate) fn next_finding(&self) -> usize {
        let ids = self.rounds.iter().flat_map(|round| &round.findings);
        let numbers = ids.filter_map(|id| id.strip_prefix('F')?.parse::<usize>().ok());
        numbers.max().unwrap_or_default() + 1
    }

    /// Records the caller's answers to the open findings. On [`Step::Ask`] the next round is open.
    pub(crate) fn adjudicate(&mut self, answers: &[Adjudication]) -> Result<Step, Vec<Violation>> {
        let state = self.state();
        if state != State::AwaitingAdjudication {
            return Err(vec![Violation::new(
                "",
                format!("nothing to adjudicate: the thread is {}", state.name()),
            )]);
        }
        let open: Vec<String> = self.open_findings().into_iter().map(str::to_owned).collect();
        let violations = misfits(&open, answers);
        if !violations.is_empty() {
            return Err(violations);
        }
        let may_ask = self.may_ask_again();
        if let Some(last) = self.rounds.last_mut() {
            last.adjudications = answers.to_vec();
        }
        let disputed: Vec<Adjudication> =
            answers.iter().filter(|answer| answer.verdict == Ruling::Reject).cloned().collect();
        Ok(match (disputed.is_empty(), may_ask) {
            (true, _) => Step::Settled,
            (false, true) => {
                self.rounds.push(Round::default());
                Step::Ask(disputed)
            }
            (false, false) => {
                Step::Contested(disputed.into_iter().map(|answer| answer.finding).collect())
            }
        })
    }

    /// Repeats the answers to the previous round after a failed call. A reason may change, but no verdict.
    pub(crate) fn repeat(&mut self, answers: &[Adjudication]) -> Result<Step, Vec<Violation>> {
        let refused = |why: &str| Err(vec![Violation::new("/prior_exchange", why)]);
        let (State::Unfinished, [.., before, _]) = (self.state(), self.rounds.as_mut_slice())
        else {
            return refused("there is no round whose findings can be answered: leave it out");
        };
        let open: Vec<String> =
            before.adjudications.iter().map(|one| one.finding.clone()).collect();
        let mut violations = misfits(&open, answers);
        for (at, answer) in answers.iter().enumerate() {
            let earlier = before.adjudications.iter().find(|one| one.finding == answer.finding);
            if earlier.is_some_and(|earlier| earlier.verdict != answer.verdict) {
                let expected = format!(
                    "`{}` had another verdict in the call that failed, and Kimi has not answered that yet",
                    answer.finding
                );
                violations.push(Violation::new(place(at, "verdict"), expected));
            }
        }
        if !violations.is_empty() {
            return Err(violations);
        }
        before.adjudications = answers.to_vec();
        Ok(Step::Ask(self.disputed()))
    }

    /// Returns whether another round is allowed: round 2 always, round 3 only after new findings in round 2.
    fn may_ask_again(&self) -> bool {
        match self.rounds.as_slice() {
            [_] => true,
            [_, second] => !second.findings.is_empty(),
            _ => false,
        }
    }

    /// Records Kimi's answer to the open round: the number of new findings, and its replies. Replies to anything but
    /// the rejections of the previous round are dropped. Returns the ids of the new findings.
    pub(crate) fn answer(
        &mut self,
        new: usize,
        replies: Vec<RejectionReply>,
    ) -> Result<Vec<String>, Vec<Violation>> {
        if self.state() != State::Unfinished || self.rounds.is_empty() {
            return Err(vec![Violation::new("", "no round is open")]);
        }
        let first = self.next_finding();
        let disputed: Vec<String> =
            self.disputed().into_iter().map(|answer| answer.finding).collect();
        let ids: Vec<String> = (first..first + new).map(|number| format!("F{number}")).collect();
        if let Some(last) = self.rounds.last_mut() {
            last.answered = true;
            last.findings.clone_from(&ids);
            let replies = replies.into_iter().filter(|reply| disputed.contains(&reply.finding));
            last.rejoinders = one_each(replies.collect()).0;
        }
        Ok(ids)
    }

    /// The rejections that the last round discusses.
    pub(crate) fn disputed(&self) -> Vec<Adjudication> {
        let before = self.rounds.len().checked_sub(2).map(|at| &self.rounds[at]);
        let answers = before.into_iter().flat_map(|round| &round.adjudications);
        answers.filter(|answer| answer.verdict == Ruling::Reject).cloned().collect()
    }

    /// Closes the thread with the caller's decision, in any state.
    pub(crate) fn decide(&mut self) -> Result<(), &'static str> {
        if self.decided {
            return Err("the thread is decided already");
        }
        self.decided = true;
        Ok(())
    }
}

impl State {
    /// The name on the wire.
    pub(crate) fn name(self) -> &'static str {
        match self {
            State::Unfinished => "unfinished",
            State::AwaitingAdjudication => "awaiting_adjudication",
            State::Settled => "settled",
            State::Contested => "contested",
            State::Decided => "decided",
            State::GivenUp => "given_up",
        }
    }
}

/// Splits replies into one for each finding and the others. Of several, the one that keeps more of the finding is
/// chosen.
pub(crate) fn one_each(replies: Vec<RejectionReply>) -> (Vec<RejectionReply>, Vec<RejectionReply>) {
    let (mut kept, mut others) = (Vec::<RejectionReply>::new(), Vec::new());
    for reply in replies {
        match kept.iter_mut().find(|earlier| earlier.finding == reply.finding) {
            Some(earlier) if earlier.stance < reply.stance => {
                others.push(std::mem::replace(earlier, reply));
            }
            Some(_) => others.push(reply),
            None => kept.push(reply),
        }
    }
    (kept, others)
}

fn rejected(answers: &[Adjudication]) -> impl Iterator<Item = &str> {
    let rejections = answers.iter().filter(|answer| answer.verdict == Ruling::Reject);
    rejections.map(|answer| answer.finding.as_str())
}

/// The pointer to a field of an answer.
fn place(at: usize, field: &str) -> String {
    format!("/prior_exchange/adjudications/{at}/{field}")
}

fn misfits(open: &[String], answers: &[Adjudication]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (at, answer) in answers.iter().enumerate() {
        if !open.contains(&answer.finding) {
            let open = open.join(", ");
            violations.push(Violation::new(
                place(at, "finding"),
                format!("`{}` is not open; open are {open}", answer.finding),
            ));
        } else if answers[..at].iter().any(|earlier| earlier.finding == answer.finding) {
            violations.push(Violation::new(
                place(at, "finding"),
                format!("`{}` is answered twice", answer.finding),
            ));
        }
        if answer.verdict == Ruling::Reject && !is_substantial(&answer.reasoning) {
            violations.push(Violation::new(
                place(at, "reasoning"),
                "a REJECT needs a reason that Kimi can answer: the fact or the constraint that speaks against it",
            ));
        }
    }
    let missing = open.iter().filter(|id| !answers.iter().any(|answer| answer.finding == **id));
    violations.extend(missing.map(|id| {
        Violation::new("/prior_exchange/adjudications", format!("`{id}` is open and not answered"))
    }));
    violations
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn adopt(finding: &str) -> Adjudication {
        Adjudication { finding: finding.into(), verdict: Ruling::Adopt, reasoning: String::new() }
    }

    fn reject(finding: &str) -> Adjudication {
        Adjudication {
            finding: finding.into(),
            verdict: Ruling::Reject,
            reasoning: "the lock is held there".into(),
        }
    }

    fn reply(finding: &str, stance: Stance) -> RejectionReply {
        RejectionReply {
            finding: finding.into(),
            stance,
            because: "line 4 shows it".into(),
            capitulated: false,
        }
    }

    fn answered(findings: usize) -> Thread {
        let mut thread = Thread::open();
        thread.answer(findings, vec![]).unwrap();
        thread
    }

    #[test]
    fn the_loop_as_a_table() {
        // No finding: settled at once.
        assert_eq!(answered(0).state(), State::Settled);

        // All adopted: Kimi is not asked again.
        let mut thread = answered(2);
        assert_eq!(thread.state(), State::AwaitingAdjudication);
        assert_eq!(thread.adjudicate(&[adopt("F2"), adopt("F1")]), Ok(Step::Settled));
        assert_eq!(thread.state(), State::Settled);

        // One rejected: round 2, always. Withdrawn: settled.
        let mut thread = answered(2);
        assert_eq!(
            thread.adjudicate(&[adopt("F1"), reject("F2")]),
            Ok(Step::Ask(vec![reject("F2")]))
        );
        assert_eq!(thread.state(), State::Unfinished);
        assert_eq!(thread.answer(0, vec![reply("F2", Stance::Withdraw)]), Ok(vec![]));
        assert_eq!(thread.state(), State::Settled);

        // Maintained without anything new: adopted late, or contested without a third round.
        let mut thread = answered(1);
        thread.adjudicate(&[reject("F1")]).unwrap();
        thread.answer(0, vec![reply("F1", Stance::Maintain)]).unwrap();
        assert_eq!(
            (thread.state(), thread.open_findings()),
            (State::AwaitingAdjudication, vec!["F1"])
        );
        let mut adopted = thread.clone();
        assert_eq!(adopted.adjudicate(&[adopt("F1")]), Ok(Step::Settled));
        assert_eq!(thread.adjudicate(&[reject("F1")]), Ok(Step::Contested(vec!["F1".into()])));
        assert_eq!(thread.state(), State::Contested);

        // New findings in round 2: round 3, and never a round 4.
        let mut thread = answered(1);
        thread.adjudicate(&[reject("F1")]).unwrap();
        assert_eq!(thread.answer(1, vec![reply("F1", Stance::Refine)]), Ok(vec!["F2".into()]));
        assert_eq!(thread.open_findings(), ["F1", "F2"]);
        assert!(matches!(thread.adjudicate(&[reject("F1"), adopt("F2")]), Ok(Step::Ask(_))));
        // No reply to F1: it counts as maintained.
        assert_eq!(thread.answer(1, vec![reply("F9", Stance::Withdraw)]), Ok(vec!["F3".into()]));
        assert_eq!(thread.open_findings(), ["F1", "F3"]);
        let contested = vec!["F1".to_owned(), "F3".to_owned()];
        assert_eq!(
            thread.adjudicate(&[reject("F1"), reject("F3")]),
            Ok(Step::Contested(contested))
        );

        // The decision closes the thread.
        assert_eq!(thread.decide(), Ok(()));
        assert_eq!(thread.state(), State::Decided);
        assert!(
            thread.decide().is_err()
                && thread.adjudicate(&[]).is_err()
                && thread.answer(0, vec![]).is_err()
        );
    }

    #[test]
    fn a_decision_gives_up_open_findings() {
        let check = |mut thread: Thread, expected| {
            assert_eq!(thread.decide(), Ok(()));
            assert_eq!(thread.state(), expected, "{thread:?}");
        };
        check(Thread::open(), State::Decided);
        check(answered(0), State::Decided);
        check(answered(2), State::GivenUp);
        let mut thread = answered(1);
        thread.adjudicate(&[reject("F1")]).unwrap();
        check(thread.clone(), State::Decided);
        thread.answer(0, vec![reply("F1", Stance::Withdraw)]).unwrap();
        check(thread.clone(), State::Decided);
        let mut thread = answered(1);
        thread.adjudicate(&[reject("F1")]).unwrap();
        thread.answer(0, vec![reply("F1", Stance::Maintain)]).unwrap();
        check(thread.clone(), State::GivenUp);
        thread.adjudicate(&[reject("F1")]).unwrap();
        check(thread, State::Decided);
    }

    #[test]
    fn a_failed_call_can_be_repeated() {
        let mut thread = answered(2);
        assert!(thread.repeat(&[adopt("F1"), reject("F2")]).is_err(), "nothing has failed");
        thread.adjudicate(&[adopt("F1"), reject("F2")]).unwrap();
        let asked = thread.clone();
        assert_eq!(thread.repeat(&[adopt("F1"), reject("F2")]), Ok(Step::Ask(vec![reject("F2")])));
        assert_eq!(thread, asked);
        let other_words = Adjudication { reasoning: "line 6 holds it".into(), ..reject("F2") };
        let again = [other_words.clone(), adopt("F1")];
        assert_eq!(thread.repeat(&again), Ok(Step::Ask(vec![other_words])));
        let refusal = thread.repeat(&[reject("F1"), reject("F2")]).unwrap_err();
        assert_eq!(
            refusal[0].to_string(),
            "/prior_exchange/adjudications/0/verdict: `F1` had another verdict in the call that failed, and Kimi has \
             not answered that yet"
        );
        assert!(thread.repeat(&[reject("F2")]).is_err(), "F1 is missing");
        assert!(Thread::open().repeat(&[reject("F1")]).is_err(), "no round before");
    }

    #[test]
    fn the_reply_that_keeps_more_of_a_finding_counts() {
        let mut thread = answered(1);
        thread.adjudicate(&[reject("F1")]).unwrap();
        thread
            .answer(0, vec![reply("F1", Stance::Withdraw), reply("F1", Stance::Maintain)])
            .unwrap();
        assert_eq!(thread.open_findings(), ["F1"]);
        let (kept, others) = one_each(vec![
            reply("F1", Stance::Withdraw),
            reply("F2", Stance::Refine),
            reply("F1", Stance::Maintain),
            reply("F2", Stance::Withdraw),
        ]);
        assert_eq!(kept, [reply("F1", Stance::Maintain), reply("F2", Stance::Refine)]);
        assert_eq!(others, [reply("F1", Stance::Withdraw), reply("F2", Stance::Withdraw)]);
    }

    #[test]
    fn all_problems_of_adjudications_are_reported_at_once() {
        let mut thread = answered(3);
        let before = thread.clone();
        let mut blunt = reject("F2");
        blunt.reasoning = "no".into();
        let violations =
            thread.adjudicate(&[adopt("F1"), adopt("F1"), blunt, adopt("F7")]).unwrap_err();
        let named: Vec<_> = violations.iter().map(ToString::to_string).collect();
        assert_eq!(
            named,
            [
                "/prior_exchange/adjudications/1/finding: `F1` is answered twice",
                "/prior_exchange/adjudications/2/reasoning: a REJECT needs a reason that Kimi can answer: the fact \
                 or the constraint that speaks against it",
                "/prior_exchange/adjudications/3/finding: `F7` is not open; open are F1, F2, F3",
                "/prior_exchange/adjudications: `F3` is open and not answered",
            ]
        );
        assert_eq!(thread, before);
    }

    /// A step that a caller might try, allowed or not.
    #[derive(Debug, Clone)]
    enum Try {
        Answer(usize, Vec<(usize, Stance)>),
        Adjudicate(Vec<(usize, bool, bool)>),
        AdjudicateOpen(Vec<bool>),
        Repeat(Vec<(usize, bool)>),
        Decide,
    }

    fn tries() -> impl Strategy<Value = Vec<Try>> {
        let stance =
            prop_oneof![Just(Stance::Withdraw), Just(Stance::Refine), Just(Stance::Maintain)];
        let one = prop_oneof![
            4 => (0usize..4, proptest::collection::vec((1usize..8, stance), 0..5)).prop_map(|(n, r)| Try::Answer(n, r)),
            2 => proptest::collection::vec((1usize..8, any::<bool>(), any::<bool>()), 0..5).prop_map(Try::Adjudicate),
            4 => proptest::collection::vec(any::<bool>(), 12).prop_map(Try::AdjudicateOpen),
            1 => proptest::collection::vec((1usize..4, any::<bool>()), 0..3).prop_map(Try::Repeat),
            1 => Just(Try::Decide),
        ];
        proptest::collection::vec(one, 0..14)
    }

    proptest! {
        #[test]
        fn the_rules_hold_for_any_steps(tries in tries()) {
            let mut thread = Thread::open();
            let mut closed = false;
            for one in tries {
                let before = thread.clone();
                let taken = match one {
                    Try::Answer(new, replies) => {
                        let replies = replies.into_iter().map(|(n, stance)| reply(&format!("F{n}"), stance));
                        thread.answer(new, replies.collect()).is_ok()
                    }
                    Try::Adjudicate(answers) => {
                        let answers: Vec<_> = answers.into_iter().map(|(n, rejects, blunt)| {
                            let mut answer = if rejects { reject(&format!("F{n}")) } else { adopt(&format!("F{n}")) };
                            if blunt { answer.reasoning.clear(); }
                            answer
                        }).collect();
                        thread.adjudicate(&answers).is_ok()
                    }
                    Try::AdjudicateOpen(rejects) => {
                        let open: Vec<String> = thread.open_findings().into_iter().map(str::to_owned).collect();
                        let answers: Vec<_> = open.iter().zip(rejects.iter().cycle()).map(|(id, &rejects)| {
                            if rejects { reject(id) } else { adopt(id) }
                        }).collect();
                        thread.adjudicate(&answers).is_ok()
                    }
                    Try::Repeat(answers) => {
                        let answers: Vec<_> = answers.into_iter().map(|(n, rejects)| {
                            if rejects { reject(&format!("F{n}")) } else { adopt(&format!("F{n}")) }
                        }).collect();
                        thread.repeat(&answers).is_ok()
                    }
                    Try::Decide => thread.decide().is_ok(),
                };
                prop_assert!(!(closed && taken), "a step out of a closed thread");
                if !taken {
                    prop_assert_eq!(&thread, &before, "a refusal changes nothing");
                }
                closed = matches!(thread.state(), State::Decided | State::GivenUp);

                prop_assert!(thread.rounds.len() <= usize::from(MAX_ROUNDS), "a fourth round");
                let ids: Vec<&String> = thread.rounds.iter().flat_map(|round| &round.findings).collect();
                prop_assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "an id used twice");
                for pair in thread.rounds.windows(2) {
                    prop_assert!(pair[0].answered, "a round before the answer to the one before");
                    let answered: BTreeSet<&String> = pair[0].adjudications.iter().map(|a| &a.finding).collect();
                    for finding in &pair[0].findings {
                        prop_assert!(answered.contains(finding), "an unanswered finding");
                    }
                    prop_assert!(rejected(&pair[0].adjudications).next().is_some(), "a round about nothing");
                }
            }
        }
    }
}
