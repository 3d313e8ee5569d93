//! The evidence of a run: the record of Kimi's tool calls, with the files that it read and its searches. It does not
//! judge whether an answer fits the evidence.

mod bounds;
pub mod shown;

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher as _};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use self::bounds::Bounds;
use self::shown::{LineRange, Shown};
use super::dialect::Dialect;
use super::event::{Call, MAX_CALLS};
use super::profile::profiles;
use super::text::{clean, first_bytes, first_chars};
use crate::redact::Secrets;

/// The most characters of a result that are kept.
const SUMMARY_CHARS: usize = 800;
/// The most characters of an argument in the activity.
const ACTIVITY_CHARS: usize = 80;
/// The most bytes of a result that are searched for the summary.
const SUMMARY_BYTES: usize = 32 * 1024;
/// The most results that are kept until their calls arrive. A model makes fewer calls at once.
const MAX_ORPHANS: usize = 64;
/// The most bytes of all results without a call.
const ORPHAN_BYTES: usize = 2 * 1024 * 1024;
/// The most lines of one search that count as shown.
const MAX_SHOWN: usize = 4_000;

/// One tool call of Kimi and its result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Evidence {
    /// `ReadFile`, `Glob`, `Grep`, `SearchWeb` or `FetchURL`; a call of any other tool was refused.
    pub tool: String,
    /// Kimi's id of the call.
    pub tool_call_id: String,
    /// The arguments as Kimi gave them, redacted.
    pub args: Map<String, Value>,
    /// The first 800 characters of the result, redacted.
    pub summary: String,
    /// False if the tool failed or the call was refused.
    pub ok: bool,
    /// The lines that the result showed, for later rounds; only the ledger stores them. A file name with a secret or
    /// an invisible character is left out.
    #[serde(default, skip_serializing_if = "Shown::is_empty")]
    #[schemars(skip)]
    pub shown: Shown,
}

/// A call, with or without its result.
#[derive(Debug)]
struct Entry {
    evidence: Evidence,
    /// The path argument, unredacted, because citations are compared with it.
    path: Option<String>,
    /// A digest of the arguments, which distinguishes a repeated call from another one.
    digest: u64,
    /// A digest of the length and beginning of the result, which distinguishes a repeated result from another one.
    answer: Option<u64>,
}

/// Pairs each call with its result, in any order of arrival.
#[derive(Debug)]
pub struct Trace {
    dialect: Dialect,
    bounds: Bounds,
    calls: Vec<Entry>,
    /// The indices into `calls` by the id of the call, in order.
    index: HashMap<String, Vec<usize>>,
    /// The number of calls over the limit.
    not_kept: usize,
    /// The ids and texts of results without a call so far, in order.
    orphans: Vec<(String, String)>,
    shown: Shown,
    /// True if a result or a shown line was dropped.
    is_cut: bool,
}

impl Trace {
    /// An empty trace of a run. It removes the secrets from everything that it keeps.
    #[must_use]
    pub fn new(dialect: Dialect, secrets: &Secrets) -> Trace {
        Trace {
            dialect,
            bounds: Bounds::new(secrets),
            calls: Vec::new(),
            index: HashMap::new(),
            not_kept: 0,
            orphans: Vec::new(),
            shown: Shown::new(),
            is_cut: false,
        }
    }

    /// Adds the calls of one message. kimi-code repeats a running call, so one with a known id only completes the
    /// arguments. Two calls of one message are different calls even with the same id, and an id may be reused after
    /// its result.
    pub fn calls(&mut self, calls: Vec<Call>) {
        let mut in_message: HashMap<(String, u64), usize> = HashMap::new();
        let earlier = self.calls.len();
        for call in calls {
            let args = bounds::parse(&call.args);
            let digest = digest(&args);
            let before = in_message.entry((call.id.clone(), digest)).or_default();
            let is_same = |entry: &Entry| {
                entry.answer.is_none() && (entry.digest == digest || entry.evidence.args.is_empty())
            };
            let known = self.index.get(&call.id).into_iter().flatten().copied();
            let known = known.filter(|&at| at < earlier);
            let repeated = known.filter(|&at| is_same(&self.calls[at])).nth(*before);
            *before += 1;
            match repeated {
                Some(at) if self.calls[at].evidence.args.is_empty() => {
                    let entry = &mut self.calls[at];
                    entry.digest = digest;
                    (entry.path, entry.evidence.args) = self.bounds.args(args);
                }
                Some(_) => {}
                None => self.begin(call, args, digest),
            }
        }
    }

    fn begin(&mut self, call: Call, args: Map<String, Value>, digest: u64) {
        let orphan = self.orphans.iter().position(|(id, _)| *id == call.id);
        let result = orphan.map(|at| self.orphans.remove(at).1);
        if self.calls.len() == MAX_CALLS {
            self.not_kept += 1;
            return;
        }
        let (path, args) = self.bounds.args(args);
        let at = self.calls.len();
        let evidence = Evidence {
            tool: self.bounds.name(profiles().common_tool_name(self.dialect, &call.name)),
            tool_call_id: self.bounds.name(&call.id),
            args,
            summary: String::new(),
            ok: false,
            shown: Shown::new(),
        };
        self.calls.push(Entry { evidence, path, digest, answer: None });
        self.index.entry(call.id).or_default().push(at);
        if let Some(text) = result {
            self.answer(at, &text);
        }
    }

    /// Counts calls that the reader of the stream did not keep.
    pub fn more_calls(&mut self, count: usize) {
        self.not_kept += count;
    }

    /// Adds a result to the first call with its id that has none. A result without such a call is dropped, and makes
    /// the trace incomplete unless it repeats an earlier one.
    pub fn result(&mut self, id: &str, text: &str) {
        if let Some(calls) = self.index.get(id) {
            let open = calls.iter().find(|&&at| self.calls[at].answer.is_none());
            if let Some(&at) = open {
                self.answer(at, text);
            } else {
                let answer = Some(result_digest(text));
                self.is_cut |= !calls.iter().any(|&at| self.calls[at].answer == answer);
            }
            return;
        }
        // The result may belong to a call over the limit.
        if self.not_kept > 0 {
            return;
        }
        let bytes: usize = self.orphans.iter().map(|(_, text)| text.len()).sum();
        if self.orphans.len() == MAX_ORPHANS || bytes + text.len() > ORPHAN_BYTES {
            self.is_cut = true;
        } else {
            self.orphans.push((id.to_owned(), text.to_owned()));
        }
    }

    /// Records that a part of a result was not read.
    pub fn cut(&mut self) {
        self.is_cut = true;
    }

    fn answer(&mut self, at: usize, text: &str) {
        let Entry { evidence: call, path, answer, .. } = &mut self.calls[at];
        *answer = Some(result_digest(text));
        call.ok = self.dialect.tool_succeeded(&call.tool, text);
        call.summary = self.bounds.text(first_bytes(text, SUMMARY_BYTES), SUMMARY_CHARS);
        if !call.ok {
            return;
        }
        let path = path.clone();
        match call.tool.as_str() {
            "ReadFile" => {
                if let Some((path, lines)) = path.zip(shown::lines_of_read(text)) {
                    self.show(at, path, lines);
                }
            }
            "Grep" if quotes_lines(&call.args) => {
                let mut lines = shown::lines_of_search(text, path.as_deref(), self.dialect);
                for (file, line) in lines.by_ref().take(MAX_SHOWN) {
                    self.show(at, file, (line, line));
                }
                self.is_cut |= lines.next().is_some();
            }
            _ => {}
        }
    }

    /// Adds lines that a call showed, for this round and for later ones.
    fn show(&mut self, at: usize, file: String, lines: LineRange) {
        if self.shown.get(&file).is_some_and(|ranges| ranges.holds(lines)) {
            return;
        }
        if !self.bounds.reserve(2 * file.len()) {
            self.is_cut = true;
            return;
        }
        if self.bounds.is_clean(&file) {
            self.calls[at].evidence.shown.entry(file.clone()).or_default().add(lines);
        }
        self.shown.entry(file).or_default().add(lines);
    }

    /// Describes the current activity, for progress messages.
    #[must_use]
    pub fn activity(&self) -> String {
        let known = |Entry { evidence: call, answer, .. }: &Entry| {
            let (doing, argument) = match call.tool.as_str() {
                "ReadFile" => ("reading", "path"),
                "Glob" => ("listing", "pattern"),
                "Grep" => ("searching for", "pattern"),
                "SearchWeb" => ("searching the web for", "query"),
                "FetchURL" => ("fetching", "url"),
                _ => return None,
            };
            let argument = call.args.get(argument).and_then(Value::as_str)?;
            let argument = first_chars(&clean(argument), ACTIVITY_CHARS).replace('\n', " ");
            let doing = if answer.is_none() { doing } else { "thinking, after" };
            Some(format!("{doing} {argument}"))
        };
        self.calls.last().and_then(known).unwrap_or_else(|| "thinking".to_owned())
    }

    /// The number of files that were read.
    #[must_use]
    pub fn files_read(&self) -> usize {
        let read = self.calls.iter().filter(|call| {
            let Evidence { tool, ok, .. } = &call.evidence;
            *ok && tool == "ReadFile"
        });
        read.filter_map(|call| call.path.as_deref()).collect::<HashSet<_>>().len()
    }

    /// Returns the whole trace.
    #[must_use]
    pub fn finish(&self) -> Seen {
        Seen {
            incomplete: self.calls.iter().any(|call| call.answer.is_none())
                || !self.orphans.is_empty()
                || self.not_kept > 0
                || self.is_cut,
            evidence: self.calls.iter().map(|call| call.evidence.clone()).collect(),
            not_kept: self.not_kept,
            shown: self.shown.clone(),
            hidden: self.bounds.hidden,
            redactions: self.bounds.redactions,
        }
    }
}

/// The evidence of a whole run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Seen {
    /// The calls, in order.
    pub evidence: Vec<Evidence>,
    /// True if a call lacks its result, a result lacks its call, or something was over a limit.
    pub incomplete: bool,
    /// The number of calls over the limit.
    pub not_kept: usize,
    /// The lines that Kimi saw of each file, by the file name in the result.
    pub shown: Shown,
    /// The number of invisible characters that were removed.
    pub hidden: usize,
    /// The number of secrets that were replaced.
    pub redactions: usize,
}

/// Returns whether a search with these arguments prints lines with their numbers. By default it lists file names,
/// and `a.rs-10-old.rs` looks like such a line.
fn quotes_lines(args: &Map<String, Value>) -> bool {
    let is_numbered = args.get("-n").and_then(Value::as_bool).unwrap_or(true);
    is_numbered && args.get("output_mode").and_then(Value::as_str) == Some("content")
}

fn result_digest(text: &str) -> u64 {
    digest(&(text.len(), first_bytes(text, SUMMARY_BYTES)))
}

/// Hashes a value. The digest is valid only within one run.
fn digest(value: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::bounds::{ARG_CHARS, ROOM};
    use super::*;

    fn fields(args: Value) -> Map<String, Value> {
        serde_json::from_value(args).unwrap()
    }

    fn empty(dialect: Dialect) -> Trace {
        Trace::new(dialect, &Secrets::default())
    }

    /// A message with one call.
    fn call(id: &str, name: &str, args: Value) -> Vec<Call> {
        let args = Value::from(fields(args)).to_string();
        vec![Call { id: id.into(), name: name.into(), args }]
    }

    fn shown(lines: &[(&str, u32, u32)]) -> Shown {
        let mut shown = Shown::new();
        for &(file, start, end) in lines {
            shown.entry(file.to_owned()).or_default().add((start, end));
        }
        shown
    }

    fn evidence(tool: &str, id: &str, args: Value, summary: &str, ok: bool) -> Evidence {
        Evidence {
            shown: Shown::new(),
            tool: tool.into(),
            tool_call_id: id.into(),
            args: fields(args),
            summary: summary.into(),
            ok,
        }
    }

    #[test]
    fn each_call_is_paired_with_its_result_in_any_order() {
        let mut trace = empty(Dialect::KimiCode);
        trace.result("b", "2\tearly");
        trace.calls(call("a", "Read", json!({"path": "x"})));
        trace.calls(call("a", "Read", json!({"path": "x"})));
        trace.calls(call("b", "Read", json!({"path": "y"})));
        assert_eq!(trace.activity(), "thinking, after y");
        trace.calls(call("c", "Bash", json!({"command": "rm"})));
        assert_eq!(trace.activity(), "thinking");
        trace.result("c", "Tool \"Bash\" not found");
        trace.result("a", "1\tfirst");
        trace.result("a", "1\tfirst");
        assert_eq!(trace.files_read(), 2);
        assert_eq!(
            trace.finish(),
            Seen {
                evidence: vec![
                    Evidence {
                        shown: shown(&[("x", 1, 1)]),
                        ..evidence("ReadFile", "a", json!({"path": "x"}), "1\tfirst", true)
                    },
                    Evidence {
                        shown: shown(&[("y", 2, 2)]),
                        ..evidence("ReadFile", "b", json!({"path": "y"}), "2\tearly", true)
                    },
                    evidence(
                        "Bash",
                        "c",
                        json!({"command": "rm"}),
                        "Tool \"Bash\" not found",
                        false
                    ),
                ],
                incomplete: false,
                not_kept: 0,
                shown: shown(&[("x", 1, 1), ("y", 2, 2)]),
                hidden: 0,
                redactions: 0,
            }
        );
    }

    #[test]
    fn a_call_or_a_result_without_a_partner_makes_the_trace_incomplete() {
        let mut trace = empty(Dialect::KimiCli);
        trace.calls(call("a", "ReadFile", json!({"path": "src/store.rs"})));
        assert_eq!(trace.activity(), "reading src/store.rs");
        assert!(trace.finish().incomplete);

        let mut trace = empty(Dialect::KimiCli);
        trace.result("unknown", "text");
        assert!(trace.finish().incomplete);
    }

    #[test]
    fn a_search_shows_the_files_that_it_quotes() {
        let mut trace = empty(Dialect::KimiCli);
        trace.calls(call(
            "a",
            "Grep",
            json!({"pattern": "x", "path": "src", "output_mode": "content"}),
        ));
        trace.result("a", "src/store-v2.rs:17:  x\nsrc/main.rs-4-  y\nsrc/lib.rs");
        let expected = shown(&[("src/store-v2.rs", 17, 17), ("src/main.rs", 4, 4)]);
        assert_eq!(trace.finish().shown, expected);
    }

    #[test]
    fn a_search_that_lists_names_shows_no_line() {
        let lists = "a.rs-10-old.rs\ndocs/2024-01-15-notes.md\nsrc/a.rs:10:30.rs";
        for args in [
            json!({"pattern": "x"}),
            json!({"pattern": "x", "output_mode": "files_with_matches"}),
            json!({"pattern": "x", "output_mode": "count_matches"}),
            json!({"pattern": "x", "output_mode": "content", "-n": false}),
        ] {
            for dialect in [Dialect::KimiCli, Dialect::KimiCode] {
                let mut trace = empty(dialect);
                trace.calls(call("a", "Grep", args.clone()));
                trace.result("a", lists);
                assert_eq!(trace.finish().shown, shown(&[]), "{args}");
            }
        }
    }

    #[test]
    fn a_search_in_one_file_shows_that_file_if_it_finds_something() {
        for (result, expected) in
            [("17:  x\n18-  y", shown(&[("a.rs", 17, 18)])), ("No matches found", shown(&[]))]
        {
            let mut trace = empty(Dialect::KimiCode);
            trace.calls(call(
                "a",
                "Grep",
                json!({"pattern": "x", "path": "a.rs", "output_mode": "content"}),
            ));
            trace.result("a", result);
            assert_eq!(trace.finish().shown, expected);
        }
    }

    #[test]
    fn an_id_that_is_reused_after_its_result_is_another_call() {
        let mut trace = empty(Dialect::KimiCli);
        for path in ["a.rs", "b.rs", "c.rs"] {
            trace.calls(call("call_0", "ReadFile", json!({"path": path})));
            trace.result("call_0", "     3\ttext");
        }
        let seen = trace.finish();
        assert_eq!((seen.evidence.len(), seen.incomplete), (3, false));
        assert_eq!(seen.shown, shown(&[("a.rs", 3, 3), ("b.rs", 3, 3), ("c.rs", 3, 3)]));
    }

    #[test]
    fn two_calls_with_one_id_are_two_and_a_repeated_call_is_one() {
        let read = |path: &str| call("call_0", "ReadFile", json!({"path": path}));
        let check = |messages: &[Vec<Call>], calls: usize| {
            let mut trace = empty(Dialect::KimiCli);
            for message in messages {
                trace.calls(message.clone());
            }
            for line in 1..=calls {
                trace.result("call_0", &format!("{line}\ttext"));
            }
            let seen = trace.finish();
            assert_eq!((seen.evidence.len(), seen.incomplete), (calls, false), "{messages:?}");
            seen.shown
        };
        let both = [read("a.rs"), read("b.rs")].concat();
        let expected = shown(&[("a.rs", 1, 1), ("b.rs", 2, 2)]);
        assert_eq!(check(std::slice::from_ref(&both), 2), expected);
        assert_eq!(check(&[both.clone(), both.clone(), read("b.rs")], 2), expected);
        assert_eq!(check(&[read("a.rs"), read("b.rs")], 2), expected);
        check(&[[read("a.rs"), read("a.rs")].concat()], 2);
        check(&[read("a.rs"), read("a.rs")], 1);
        // The first call has no arguments yet.
        let open = Call { args: String::new(), ..read("a.rs").remove(0) };
        check(&[vec![open.clone(), read("a.rs").remove(0)]], 2);
        check(&[vec![open.clone(), open.clone()], both.clone()], 2);
        // The results arrive before their calls.
        let mut trace = empty(Dialect::KimiCli);
        for line in [1, 2] {
            trace.result("call_0", &format!("{line}\ttext"));
        }
        trace.calls(both);
        assert_eq!((trace.finish().shown, trace.finish().incomplete), (expected, false));
        // kimi-code repeats the same arguments with other white space.
        let spaced = |args: &str| vec![Call { args: args.to_owned(), ..read("a.rs").remove(0) }];
        check(&[spaced(r#"{"path": "a.rs"}"#), spaced(r#"{"path":"a.rs"}"#)], 1);
        check(&[spaced(""), spaced(r#"{"path":"a.rs"}"#), read("a.rs")], 1);
    }

    #[test]
    fn a_trace_that_dropped_something_is_incomplete() {
        let check = |lose: &dyn Fn(&mut Trace)| {
            let mut trace = empty(Dialect::KimiCli);
            lose(&mut trace);
            assert!(trace.finish().incomplete);
        };
        check(&|trace| trace.more_calls(1));
        check(&Trace::cut);
        // More results than calls.
        check(&|trace| {
            trace.calls(call("a", "ReadFile", json!({"path": "x"})));
            trace.result("a", "1\tone");
            trace.result("a", "1\tanother");
        });
        check(&|trace| {
            trace.result("a", "1\tone");
            trace.result("a", "1\tanother");
            trace.calls(call("a", "ReadFile", json!({"path": "x"})));
        });
        check(&|trace| {
            let half = "x".repeat(ORPHAN_BYTES / 2 + 1);
            for id in ["a", "b"] {
                trace.result(id, &half);
            }
            for id in ["a", "b"] {
                trace.calls(call(id, "ReadFile", json!({"path": "x"})));
            }
            trace.result("b", "");
        });
        check(&|trace| {
            let lines: Vec<String> = (0..=MAX_SHOWN).map(|n| format!("a.rs:{n}:x")).collect();
            trace.calls(call("a", "Grep", json!({"pattern": "x", "output_mode": "content"})));
            trace.result("a", &lines.join("\n"));
        });
    }

    #[test]
    fn invisible_characters_are_removed_and_counted_to_the_end_of_a_result() {
        let mut trace = empty(Dialect::KimiCode);
        trace.calls(call("a", "Read", json!({"path": "a\u{200b}.rs", "x": ["\u{1b}[2J"]})));
        trace.result("a", &format!("1\tfirst{}\u{e0041}", "x".repeat(SUMMARY_CHARS)));
        let seen = trace.finish();
        assert_eq!(
            (seen.evidence[0].args.clone(), seen.hidden),
            (fields(json!({"path": "a.rs", "x": [""]})), 6)
        );
    }

    #[test]
    fn secrets_are_replaced_before_anything_is_cut() {
        // Assembled here, so that no scanner reports this file as a leak.
        let key = format!("AKIA{}", "ABCDEFGHIJKLMNOP");
        let path = format!("src/{key}.rs");
        let long = format!("{} {key}", "x".repeat(ARG_CHARS - 10));
        let mut trace = empty(Dialect::KimiCli);
        trace.calls(call("a", "Grep", json!({"pattern": key})));
        assert_eq!(trace.activity(), "searching for [redacted:aws-key]");
        trace.result("a", "No matches found");
        trace.calls(call(
            "b",
            "ReadFile",
            json!({"path": path, "why": [long], "token": "q8Zr2LmXv9WcYb4s"}),
        ));
        trace.result("b", &format!("     1\t{} {key}\n", "x".repeat(783)));
        let seen = trace.finish();
        assert_eq!(
            seen.evidence[1],
            evidence(
                "ReadFile",
                "b",
                json!({"path": "src/[redacted:aws-key].rs", "why": ["x".repeat(ARG_CHARS - 10) + " "],
                    "token": "[redacted:token]"}),
                &format!("     1\t{} ", "x".repeat(783)),
                true
            )
        );
        // A citation is compared with the unredacted path.
        assert_eq!(seen.shown, shown(&[(&path, 1, 1)]));
        assert_eq!(seen.redactions, 5);
    }

    #[test]
    fn calls_over_the_limit_are_counted_and_long_arguments_are_cut() {
        let mut trace = empty(Dialect::KimiCode);
        for n in 0..MAX_CALLS + 5 {
            trace.calls(call(&n.to_string(), "Read", json!({"path": "x".repeat(5_000)})));
            trace.result(&n.to_string(), "1\t");
        }
        let seen = trace.finish();
        assert_eq!((seen.evidence.len(), seen.not_kept, seen.incomplete), (MAX_CALLS, 5, true));
        assert_eq!(seen.evidence[0].args["path"].as_str().unwrap().len(), ARG_CHARS);
    }

    #[test]
    fn arguments_and_shown_files_are_bounded_and_every_call_is_counted() {
        let mut trace = empty(Dialect::KimiCli);
        let calls = 5 * MAX_CALLS + 10;
        for n in 0..calls {
            let many = if n < MAX_CALLS { 60 } else { 1 };
            let args = json!({"output_mode": "content", "path": format!("{n}{}", "中".repeat(3_000)), "x": vec!["y".repeat(300); many]});
            let name = if n % 2 == 0 { "Grep" } else { "ReadFile" };
            trace.calls(call(&n.to_string(), name, args));
            let files: Vec<String> =
                (0..many).map(|file| format!("{n}/{file}{}:1:x", "z".repeat(900))).collect();
            trace.result(&n.to_string(), &files.join("\n"));
        }
        trace.more_calls(5);
        trace.result("a call over the limit", "");
        let kept: usize = trace.shown.keys().map(String::len).sum::<usize>()
            + trace.calls.iter().flat_map(|call| &call.path).map(String::len).sum::<usize>();
        assert!(kept < ROOM && trace.index.len() == MAX_CALLS && trace.orphans.is_empty());
        let seen = trace.finish();
        assert!(serde_json::to_string(&seen.evidence).unwrap().len() < 2 * ROOM);
        assert_eq!((seen.evidence.len() + seen.not_kept, seen.incomplete), (calls + 5, true));
    }

    #[test]
    fn results_without_a_call_are_bounded() {
        let mut trace = empty(Dialect::KimiCli);
        for n in 0..200 {
            trace.result(&n.to_string(), "x");
        }
        assert_eq!(trace.orphans.len(), MAX_ORPHANS);
        trace.calls(call("0", "ReadFile", json!({"path": "a.rs"})));
        assert_eq!(trace.files_read(), 1);
        assert!(trace.finish().incomplete);
    }
}
