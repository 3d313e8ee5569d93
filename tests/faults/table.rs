//! Every way in which a program in Kimi's place misbehaves, and what the user gets of it.

use serde_json::{Value, json};

use super::ending::Held;
use crate::support::fake::Step::{
    AwaitTerm, Begin, Bomb, Calls, CloseStdout, Complain, Cut, Die, Exit, Flood, Foreign, Hang,
    Hold, IgnoreTerm, NoNewline, Read, Retry, SayAtLength, Session, Stop,
};
use crate::support::fake::{ANSWER, Child, Death, Dialect, HERE, Pipe, Place, SO_FAR, Step};

/// A fault.
pub(super) struct Case {
    pub(super) name: &'static str,
    /// What the program does when it is asked for its version.
    pub(super) version: Vec<Step>,
    /// What it does when it is asked a question. At its mark [`HERE`], which is in either, a disturbance
    /// comes.
    pub(super) steps: Vec<Step>,
    /// How long it may take to end, and to live on in silence once it has closed standard output, seconds.
    pub(super) grace: &'static str,
    /// The settings that end it where nobody else does.
    pub(super) limits: &'static [(&'static str, &'static str)],
    /// What the caller gets where nobody disturbs.
    pub(super) outcome: Outcome,
    /// What has arrived when the call is cut off.
    pub(super) arrived: Arrived,
    pub(super) amount: Amount,
    /// Who of it is left where no keeper runs.
    pub(super) unkept: Unkept,
    /// Whether the program is still at work when the disturbance comes.
    pub(super) at_the_mark: AtTheMark,
    /// How long the context is, bytes: a prompt that fills the pipe has nowhere to go.
    pub(super) context_bytes: usize,
}

/// What the caller gets.
pub(super) enum Outcome {
    /// An answer with this text and these warnings.
    Answer(&'static str, Vec<String>),
    /// A long text that could not be read, with these warnings.
    Text(Vec<String>),
    /// An error: its exit code, its kind and its message.
    Error(i32, &'static str, &'static str),
}

/// What an error keeps.
pub(super) enum Arrived {
    Nothing,
    /// The call of a tool, and words beside it.
    Read,
    /// A whole answer.
    Answer(&'static str),
}

impl Arrived {
    /// The same as it stands in the error.
    pub(super) fn partial(&self) -> Value {
        match self {
            Arrived::Nothing => Value::Null,
            Arrived::Read => json!({
                "response": SO_FAR,
                "evidence": [{"tool": "ReadFile", "tool_call_id": "a",
                    "args": {"path": "src/store.rs"}, "summary": "", "ok": false}],
                "session_id": null,
                "warnings": [],
                "thread": "unfinished",
            }),
            Arrived::Answer(text) => {
                // This Kimi names a session that holds nothing: there is nothing to go on with.
                json!({"response": text, "evidence": [], "session_id": null, "warnings": [],
                    "thread": "unfinished"})
            }
        }
    }
}

/// What stands in the table for a text that is too long for it.
pub(super) const LONG: &str = "I would not. … Reject it.";

/// How much there is to read, or to end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Amount {
    Little,
    /// So much that it takes its time: in one dialect, since one reader reads both, and with the endings
    /// that leave the time for it.
    Much,
}

/// Who is left of a fault where no keeper runs, and nobody kills the bridge outright.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Unkept {
    /// Nobody: all stay in the program's group.
    Nobody,
    /// Those that left the group.
    Strays,
    /// It cannot be played: it is about what the keeper does.
    Unplayable,
}

/// Where the program stands at its mark.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum AtTheMark {
    /// At work: a call that is cut off brings no answer.
    Working,
    /// It has ended, and its children are being ended: the answer and the disturbance race.
    Ended,
}

const SILENCE: &[(&str, &str)] = &[("KIMI_BRIDGE_SILENCE_SECONDS", "1")];
const FIRST_LINE: &[(&str, &str)] =
    &[("KIMI_BRIDGE_FIRST_LINE_SECONDS", "1"), ("KIMI_BRIDGE_SILENCE_SECONDS", "1")];
/// With [`AT_EASE`] for the calls that are cut off.
const CLOSED: &[(&str, &str)] = &[("KIMI_BRIDGE_GRACE_SECONDS", "1")];
/// A grace period that no disturbance comes too late for.
const AT_EASE: &str = "30";
const MEGABYTE: &[(&str, &str)] = &[("KIMI_BRIDGE_MAX_RUN_BYTES", "1000000")];
const SILENT_FROM_THE_START: Outcome =
    Outcome::Error(31, "stalled", "Kimi wrote nothing within first_line_seconds (1 s)");
const SILENT: Outcome =
    Outcome::Error(31, "stalled", "Kimi wrote nothing for silence_seconds (1 s)");
const LIMITED: Outcome = Outcome::Error(
    31,
    "stalled",
    "Kimi wrote nothing for silence_seconds (1 s); it was waiting to ask the service again: 429 slow down",
);
const NOT_ASKED_AGAIN: &[(&str, &str)] = &[("KIMI_BRIDGE_REPAIR", "0")];
/// The longest line that is read, bytes.
const LINE: usize = 2_097_152;
const TOO_MUCH: Outcome =
    Outcome::Error(32, "too_much_output", "Kimi wrote more than max_run_bytes (1000000)");

fn mark() -> Step {
    Step::Mark(HERE.to_owned())
}

fn say(text: &str) -> Step {
    Step::Say(text.to_owned())
}

fn raw(bytes: &[u8]) -> Step {
    Step::Raw(bytes.to_owned())
}

/// An answer with the warnings of a program that gave it.
fn answered(warnings: &[&str]) -> Outcome {
    Outcome::Answer("r", warnings.iter().map(|&warning| warning.to_owned()).collect())
}

/// A fault of a program that answers all the same.
fn answering(name: &'static str, before: Vec<Step>, after: Vec<Step>, outcome: Outcome) -> Case {
    let answer = vec![say(ANSWER), Session];
    let steps = [before, answer, after].concat();
    let arrived = Arrived::Answer(ANSWER);
    Case { steps, arrived, ..case(name, outcome) }
}

/// A fault of a program that has read a file and said a few words.
fn reading(name: &'static str, after: Vec<Step>, outcome: Outcome) -> Case {
    let steps = [vec![Begin, Read], after].concat();
    Case { steps, arrived: Arrived::Read, ..case(name, outcome) }
}

fn case(name: &'static str, outcome: Outcome) -> Case {
    Case {
        name,
        version: vec![Step::Version],
        steps: Vec::new(),
        grace: "1",
        limits: &[],
        outcome,
        arrived: Arrived::Nothing,
        amount: Amount::Little,
        unkept: Unkept::Nobody,
        at_the_mark: AtTheMark::Working,
        context_bytes: 0,
    }
}

fn much(case: Case) -> Case {
    Case { amount: Amount::Much, ..case }
}

/// A child that lets TERM pass, and is there when the steps go on.
fn child(place: Place, holds_pipes: bool, steps: Vec<Step>) -> Vec<Step> {
    let born = "born".to_owned();
    let steps = [vec![IgnoreTerm, Step::Mark(born.clone())], steps].concat();
    vec![Step::Child(Child { place, holds_pipes, steps }), Step::Await(born)]
}

/// The program answers and ends, and a child stays that holds its pipes.
fn left_behind(name: &'static str, place: Place, steps: Vec<Step>) -> Case {
    let after = [child(place, true, steps), vec![Hold, Exit(0)]].concat();
    let unkept = if place == Place::Group { Unkept::Nobody } else { Unkept::Strays };
    Case { unkept, ..answering(name, vec![Begin], after, answered(&[])) }
}

/// All of them.
pub(super) fn cases() -> Vec<Case> {
    [silence(), closed(), children(), output(), ends()].into_iter().flatten().collect()
}

fn silence() -> Vec<Case> {
    let late =
        "Kimi had answered but did not end by itself: Kimi wrote nothing for silence_seconds (1 s)";
    vec![
        Case {
            steps: vec![mark(), Hang],
            limits: FIRST_LINE,
            ..case("a_hang_before_the_first_line", SILENT_FROM_THE_START)
        },
        Case {
            steps: vec![IgnoreTerm, mark(), Hang],
            limits: FIRST_LINE,
            // More than a pipe takes: the prompt is still being written when the run must end.
            context_bytes: 200_000,
            ..case("a_prompt_that_is_never_read", SILENT_FROM_THE_START)
        },
        Case { limits: SILENCE, ..reading("a_hang_in_the_middle", vec![mark(), Hang], SILENT) },
        Case {
            limits: SILENCE,
            ..reading("a_hang_that_ignores_term", vec![IgnoreTerm, mark(), Hang], SILENT)
        },
        Case {
            limits: SILENCE,
            ..answering(
                "a_hang_after_the_answer",
                vec![Begin],
                vec![mark(), Hang],
                answered(&[late]),
            )
        },
        Case {
            limits: SILENCE,
            ..reading("a_program_that_stops_itself", vec![mark(), Stop, Hang], SILENT)
        },
        Case {
            steps: vec![Begin, Retry, mark(), Hang],
            limits: SILENCE,
            ..case("a_silence_after_a_rate_limit", LIMITED)
        },
    ]
}

/// Standard output is closed, and nothing can follow.
fn closed() -> Vec<Case> {
    let outcome = Outcome::Error(
        33,
        "crashed",
        "Kimi closed its standard output without an answer, and did not end",
    );
    let late = "Kimi had answered but did not end by itself: it had closed its standard output";
    let reason = "error: failed to run prompt: provider.rate_limit: 429 slow down";
    let limited = Outcome::Error(
        20,
        "rate_limited",
        "the service asked to slow down: provider.rate_limit: 429 slow down",
    );
    let close = |case: Case| Case { grace: AT_EASE, ..case };
    let live_on = |case: Case| Case { limits: CLOSED, ..close(case) };
    let hang = || vec![CloseStdout, mark(), Hang];
    let reasoned = vec![CloseStdout, mark(), Complain(reason.to_owned()), Hang];
    vec![
        live_on(reading("standard_output_closed_and_alive", hang(), outcome)),
        live_on(reading("standard_output_closed_and_the_reason_named", reasoned, limited)),
        live_on(answering(
            "standard_output_closed_and_alive_after_the_answer",
            vec![Begin],
            hang(),
            answered(&[late]),
        )),
        close(answering(
            "standard_output_closed_after_the_answer",
            vec![Begin],
            vec![CloseStdout, Hold, Exit(0)],
            answered(&[]),
        )),
    ]
}

fn children() -> Vec<Case> {
    let daemon = [child(Place::Orphan, false, vec![Hang]), vec![IgnoreTerm, mark(), Hang]];
    // The child tells that the program has ended: TERM comes from the keeper then.
    let witness = child(Place::OwnSession, true, vec![AwaitTerm, mark(), Hang]);
    let slow = [child(Place::Orphan, true, vec![Hang]), vec![Hold, Step::Version]];
    vec![
        // Nothing has been asked yet when the disturbance comes.
        Case {
            version: slow.concat(),
            steps: vec![Begin, say(ANSWER)],
            unkept: Unkept::Strays,
            ..case("a_version_with_a_daemon", answered(&[]))
        },
        left_behind("a_child_in_the_group", Place::Group, vec![Hang]),
        left_behind("a_child_in_a_group_of_its_own", Place::OwnGroup, vec![Hang]),
        left_behind("a_child_in_a_session_of_its_own", Place::OwnSession, vec![Hang]),
        left_behind("a_daemon", Place::Orphan, vec![Hang]),
        left_behind("a_daemon_that_floods", Place::Orphan, vec![Flood(Pipe::Stdout)]),
        Case {
            limits: SILENCE,
            unkept: Unkept::Strays,
            ..reading("a_hang_with_a_daemon", daemon.concat(), SILENT)
        },
        much(Case {
            limits: SILENCE,
            ..reading("a_fork_bomb", vec![Bomb(200), mark(), Hang], SILENT)
        }),
        Case {
            at_the_mark: AtTheMark::Ended,
            unkept: Unkept::Unplayable,
            ..answering("a_child_after_the_end", vec![Begin], witness, answered(&[]))
        },
    ]
}

fn output() -> Vec<Case> {
    let split = r#"{"response":"数据 é 🎉","findings":[]}"#;
    let junk =
        [b"\xff\xfe junk\n{\"role\":\"meta\",\"type\":\"new.thing\"}\n[1]\n\n", &b"\0\n"[..]];
    let why = "Kimi's answer could not be read: /: expected a JSON object with `response`";
    let unread = Outcome::Text(vec![why.to_owned()]);
    let unheard = Outcome::Error(
        22,
        "empty_answer",
        "Kimi ended without an answer; a line of 3000057 bytes was skipped: it is over max_line_bytes",
    );
    let broken = b"{\"role\":\"assistant\",\"content\":\"{\\\"response\\\":\\\"a\xffb\xc3\\\",\\\"findings\\\":[]}\"}\n";
    vec![
        Case {
            limits: MEGABYTE,
            ..reading("a_flood", vec![mark(), Flood(Pipe::Stdout)], TOO_MUCH)
        },
        Case {
            limits: MEGABYTE,
            ..reading(
                "a_flood_that_ignores_term",
                vec![IgnoreTerm, mark(), Flood(Pipe::Stdout)],
                TOO_MUCH,
            )
        },
        Case {
            limits: SILENCE,
            ..reading("a_flood_of_standard_error", vec![mark(), Flood(Pipe::Stderr)], SILENT)
        },
        Case {
            limits: MEGABYTE,
            ..reading("a_line_that_never_ends", vec![mark(), Step::Line(None)], TOO_MUCH)
        },
        answering(
            "a_line_of_100_mb",
            vec![Begin, Step::Line(Some(100_000_000))],
            vec![Hold],
            answered(&["a line of 100000000 bytes was skipped: it is over max_line_bytes"]),
        ),
        much(answering(
            "a_huge_line_of_foreign_json",
            vec![Begin, Foreign(LINE)],
            vec![Hold],
            answered(&["a line of Kimi's stream was skipped: unknown role ``"]),
        )),
        much(answering(
            "thousands_of_calls",
            vec![Begin, Calls(3_000)],
            vec![Hold],
            answered(&["2000 tool calls more than the evidence lists"]),
        )),
        much(Case {
            steps: vec![Begin, SayAtLength(1_500_000), Session, Hold],
            limits: NOT_ASKED_AGAIN,
            ..case("a_long_text_that_cannot_be_read", unread)
        }),
        Case {
            steps: vec![Begin, SayAtLength(3_000_000), Session, Hold],
            ..case("an_answer_that_is_longer_than_a_line_may_be", unheard)
        },
        answering("a_retry_before_the_answer", vec![Begin, Retry], vec![Hold], answered(&[])),
        answering(
            "junk_lines",
            vec![raw(&junk.concat()), Begin],
            vec![Hold],
            answered(&[
                "a line of Kimi's stream was skipped: unknown meta `new.thing`",
                "3 lines of Kimi's stream were skipped: they are no JSON",
            ]),
        ),
        Case {
            steps: vec![Begin, raw(broken), Session, Hold],
            arrived: Arrived::Answer("{\"response\":\"a\u{fffd}b\u{fffd}\",\"findings\":[]}"),
            ..case("bytes_that_are_not_utf_8", Outcome::Answer("a\u{fffd}b\u{fffd}", vec![]))
        },
        Case {
            steps: vec![Begin, say(split), Cut, Session, Hold],
            arrived: Arrived::Answer(split),
            ..case("a_character_cut_in_two", Outcome::Answer("数据 é 🎉", vec![]))
        },
        Case {
            steps: vec![Begin, Session, say(ANSWER), NoNewline, Hold],
            arrived: Arrived::Answer(ANSWER),
            ..case("an_answer_without_a_last_newline", answered(&[]))
        },
    ]
}

fn ends() -> Vec<Case> {
    let abnormal =
        |how: &str| answered(&[&format!("Kimi ended abnormally after its answer ({how})")]);
    let code = Outcome::Error(
        33,
        "crashed",
        "Kimi exited with code 3 without an answer and without a word",
    );
    let signal = Outcome::Error(33, "crashed", "a signal ended Kimi before it answered");
    let nothing = Outcome::Error(22, "empty_answer", "Kimi ended without an answer");
    vec![
        reading("an_exit_by_code", vec![Hold, Exit(3)], code),
        Case { steps: vec![Begin, Hold, Exit(0)], ..case("an_exit_without_a_word", nothing) },
        reading("a_death_by_signal", vec![Hold, Die(Death::Segv)], signal),
        answering(
            "an_exit_by_code_after_the_answer",
            vec![Begin],
            vec![Hold, Exit(3)],
            abnormal("exit status: 3"),
        ),
        answering(
            "a_death_by_signal_after_the_answer",
            vec![Begin],
            vec![Hold, Die(Death::Kill)],
            abnormal("signal: 9 (SIGKILL)"),
        ),
    ]
}

/// The table: every fault in both dialects, and without a keeper in one of them, since that has nothing
/// to do with what Kimi says.
pub(super) fn rows() -> Vec<(Dialect, Held, Case)> {
    let all = || {
        Dialect::ALL
            .into_iter()
            .flat_map(|dialect| cases().into_iter().map(move |case| (dialect, case)))
    };
    let is_much = |case: &Case| case.amount == Amount::Much;
    let kept = all().filter(|(dialect, case)| *dialect == Dialect::KimiCode || !is_much(case));
    let playable =
        cases().into_iter().filter(|case| !is_much(case) && case.unkept != Unkept::Unplayable);
    let unkept = Dialect::ALL.into_iter().cycle().zip(playable);
    let kept = kept.map(|(dialect, case)| (dialect, Held::ByKeeper, case));
    kept.chain(unkept.map(|(dialect, case)| (dialect, Held::ByNobody, case))).collect()
}
