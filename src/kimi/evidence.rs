//! The evidence of a run: the record of Kimi's own tool calls, which shows what it read and looked up.

mod bounds;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::mem;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use self::bounds::Bounds;
use super::dialect::Dialect;
use super::event::{Call, MAX_CALLS};
use super::text::{clean, first_chars};
use crate::redact::Secrets;

/// Characters of a tool's result that are kept.
const SUMMARY_CHARS: usize = 800;
/// Characters of an argument that the activity names.
const ACTIVITY_CHARS: usize = 80;
/// Results that are kept until their call arrives: more than a model asks for at once.
const MAX_ORPHANS: usize = 64;
/// Files that one search result is believed to have shown.
const MAX_SHOWN: usize = 2_000;

/// One tool call of Kimi's and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Evidence {
    /// `ReadFile`, `Glob`, `Grep`, `SearchWeb` or `FetchURL`; any other name is a call that was refused.
    pub tool: String,
    /// Kimi's id of the call.
    pub tool_call_id: String,
    /// The arguments as Kimi gave them, redacted.
    pub args: Map<String, Value>,
    /// The first 800 characters of the result, redacted.
    pub summary: String,
    /// Whether the tool did what was asked; false when it was refused or failed.
    pub ok: bool,
}

/// A call in progress.
#[derive(Debug)]
struct Entry {
    evidence: Evidence,
    /// The path among the arguments, unredacted: a citation is compared with it.
    path: Option<String>,
    answered: bool,
}

/// Pairs calls with their results, once each, in whatever order they arrive.
#[derive(Debug)]
pub struct Trace {
    dialect: Dialect,
    bounds: Bounds,
    calls: Vec<Entry>,
    /// The place of each call by its id.
    index: HashMap<String, usize>,
    /// The number of calls over the limit.
    not_kept: usize,
    /// Results that arrived before their call, or without one, by the call's id.
    orphans: HashMap<String, String>,
    shown: BTreeSet<String>,
    /// Whether a result or a file that was shown could not be kept.
    is_cut: bool,
}

impl Trace {
    /// An empty trace of a run of this dialect, from which these secrets are kept.
    #[must_use]
    pub fn new(dialect: Dialect, secrets: &Secrets) -> Trace {
        Trace {
            dialect,
            bounds: Bounds::new(secrets),
            calls: Vec::new(),
            index: HashMap::new(),
            not_kept: 0,
            orphans: HashMap::new(),
            shown: BTreeSet::new(),
            is_cut: false,
        }
    }

    /// Takes a call. One that is still running only fills in what the first line left open, since
    /// kimi-code repeats such calls; the id of one that was answered may come again with another
    /// turn, and then is another call.
    pub fn call(&mut self, call: Call) {
        if let Some(&at) = self.index.get(&call.id)
            && !self.calls[at].answered
        {
            if self.calls[at].evidence.args.is_empty() {
                (self.calls[at].path, self.calls[at].evidence.args) = self.bounds.args(&call.args);
            }
            return;
        }
        let result = self.orphans.remove(&call.id);
        if self.calls.len() == MAX_CALLS {
            self.not_kept += 1;
            return;
        }
        let at = self.calls.len();
        let (path, args) = self.bounds.args(&call.args);
        let evidence = Evidence {
            tool: self.bounds.name(self.dialect.common_tool_name(&call.name)),
            tool_call_id: self.bounds.name(&call.id),
            args,
            summary: String::new(),
            ok: false,
        };
        self.calls.push(Entry { evidence, path, answered: false });
        self.index.insert(call.id, at);
        if let Some(text) = result {
            self.answer(at, &text);
        }
    }

    /// Counts calls that the reader of the stream did not keep.
    pub fn more_calls(&mut self, count: usize) {
        self.not_kept += count;
    }

    /// Takes a result. A second result of one call is dropped.
    pub fn result(&mut self, id: &str, text: &str) {
        match self.index.get(id) {
            Some(&at) => self.answer(at, text),
            // It may belong to a call over the limit.
            None if self.not_kept > 0 || self.orphans.contains_key(id) => {}
            None if self.orphans.len() == MAX_ORPHANS => self.is_cut = true,
            None => {
                self.orphans.insert(id.to_owned(), text.to_owned());
            }
        }
    }

    fn answer(&mut self, at: usize, text: &str) {
        let Entry { evidence: call, path, answered } = &mut self.calls[at];
        if mem::replace(answered, true) {
            return;
        }
        call.ok = self.dialect.tool_succeeded(&call.tool, text);
        call.summary = self.bounds.text(text, SUMMARY_CHARS);
        if !call.ok {
            return;
        }
        let path = path.clone();
        match call.tool.as_str() {
            "ReadFile" => self.show(path),
            // A search in one file gives its lines without the file's name.
            "Grep" if begins_with_a_line_number(text) => self.show(path),
            "Grep" => self.show(files_of_a_search(text)),
            _ => {}
        }
    }

    fn show(&mut self, files: impl IntoIterator<Item = String>) {
        for file in files {
            if self.shown.contains(&file) {
                continue;
            }
            if self.bounds.takes(file.len()) {
                self.shown.insert(file);
            } else {
                self.is_cut = true;
            }
        }
    }

    /// The current activity, in words for a person.
    #[must_use]
    pub fn activity(&self) -> String {
        let running = self.calls.last().filter(|call| !call.answered);
        let Some(Entry { evidence: call, .. }) = running else { return "thinking".to_owned() };
        let (doing, argument) = match call.tool.as_str() {
            "ReadFile" => ("reading", "path"),
            "Glob" => ("listing", "pattern"),
            "Grep" => ("searching for", "pattern"),
            "SearchWeb" => ("searching the web for", "query"),
            "FetchURL" => ("fetching", "url"),
            _ => return "thinking".to_owned(),
        };
        let argument = call.args.get(argument).and_then(Value::as_str).unwrap_or_default();
        let argument = first_chars(&clean(argument), ACTIVITY_CHARS).replace('\n', " ");
        format!("{doing} {argument}")
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

    /// The whole trace, in the order of the calls.
    #[must_use]
    pub fn finish(&self) -> Seen {
        Seen {
            incomplete: self.calls.iter().any(|call| !call.answered)
                || !self.orphans.is_empty()
                || self.is_cut,
            evidence: self.calls.iter().map(|call| call.evidence.clone()).collect(),
            not_kept: self.not_kept,
            shown: self.shown.clone(),
            hidden: self.bounds.hidden,
            redactions: self.bounds.redactions,
        }
    }
}

/// Everything that a run showed of Kimi's reading.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Seen {
    /// The calls, in order.
    pub evidence: Vec<Evidence>,
    /// Whether a call or a result has no partner, or more was shown than is kept.
    pub incomplete: bool,
    /// Calls over the number that is kept.
    pub not_kept: usize,
    /// The files whose content Kimi saw, as its tools named them.
    pub shown: BTreeSet<String>,
    /// The number of invisible characters that were removed from arguments and results.
    pub hidden: usize,
    /// The number of secrets that were replaced in the calls.
    pub redactions: usize,
}

/// The files that a search result names: a line each, or at the start of `path:line:text`.
fn files_of_a_search(text: &str) -> impl Iterator<Item = String> {
    let files = text.lines().take(MAX_SHOWN).map(|line| {
        let end = line
            .match_indices([':', '-'])
            .find(|(at, _)| begins_with_a_line_number(&line[at + 1..]))
            .map_or(line.len(), |(at, _)| at);
        line[..end].to_owned()
    });
    files.filter(|file| !file.is_empty() && file.len() < 1024)
}

fn begins_with_a_line_number(text: &str) -> bool {
    let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
    rest.len() < text.len() && rest.starts_with([':', '-'])
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

    fn call(id: &str, name: &str, args: Value) -> Call {
        Call { id: id.into(), name: name.into(), args: Value::from(fields(args)).to_string() }
    }

    fn evidence(tool: &str, id: &str, args: Value, summary: &str, ok: bool) -> Evidence {
        Evidence {
            tool: tool.into(),
            tool_call_id: id.into(),
            args: fields(args),
            summary: summary.into(),
            ok,
        }
    }

    #[test]
    fn calls_and_results_are_paired_once_in_any_order() {
        let mut trace = empty(Dialect::KimiCode);
        trace.result("b", "2\tearly");
        trace.call(call("a", "Read", json!({"path": "x"})));
        trace.call(call("a", "Read", json!({"path": "x"})));
        trace.call(call("b", "Read", json!({"path": "y"})));
        assert_eq!(trace.activity(), "thinking");
        trace.call(call("c", "Bash", json!({"command": "rm"})));
        trace.result("c", "Tool \"Bash\" not found");
        trace.result("a", "1\tfirst");
        trace.result("a", "1\tsecond");
        assert_eq!(trace.files_read(), 2);
        assert_eq!(
            trace.finish(),
            Seen {
                evidence: vec![
                    evidence("ReadFile", "a", json!({"path": "x"}), "1\tfirst", true),
                    evidence("ReadFile", "b", json!({"path": "y"}), "2\tearly", true),
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
                shown: ["x".to_owned(), "y".to_owned()].into(),
                hidden: 0,
                redactions: 0,
            }
        );
    }

    #[test]
    fn a_call_or_a_result_without_a_partner_makes_the_trace_incomplete() {
        let mut trace = empty(Dialect::KimiCli);
        trace.call(call("a", "ReadFile", json!({"path": "src/store.rs"})));
        assert_eq!(trace.activity(), "reading src/store.rs");
        assert!(trace.finish().incomplete);

        let mut trace = empty(Dialect::KimiCli);
        trace.result("nobody", "text");
        assert!(trace.finish().incomplete);
    }

    #[test]
    fn a_search_shows_the_files_that_it_quotes() {
        let mut trace = empty(Dialect::KimiCli);
        trace.call(call("a", "Grep", json!({"pattern": "x", "path": "src"})));
        trace.result("a", "src/store-v2.rs:17:  x\nsrc/main.rs-4-  y\nsrc/lib.rs");
        let shown: Vec<_> = trace.finish().shown.into_iter().collect();
        assert_eq!(shown, ["src/lib.rs", "src/main.rs", "src/store-v2.rs"]);
    }

    #[test]
    fn a_search_in_one_file_shows_that_file_when_it_finds_something() {
        for (result, expected) in
            [("17:  x\n18-  y", vec!["a.rs"]), ("No matches found", vec!["No matches found"])]
        {
            let mut trace = empty(Dialect::KimiCode);
            trace.call(call("a", "Grep", json!({"pattern": "x", "path": "a.rs"})));
            trace.result("a", result);
            assert_eq!(trace.finish().shown.into_iter().collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn an_id_that_comes_again_after_its_result_is_another_call() {
        let mut trace = empty(Dialect::KimiCli);
        for path in ["a.rs", "b.rs", "c.rs"] {
            trace.call(call("call_0", "ReadFile", json!({"path": path})));
            trace.result("call_0", path);
        }
        let seen = trace.finish();
        assert_eq!((seen.evidence.len(), seen.incomplete), (3, false));
        assert_eq!(seen.shown.into_iter().collect::<Vec<_>>(), ["a.rs", "b.rs", "c.rs"]);
    }

    #[test]
    fn what_nobody_can_see_is_taken_out_and_counted_to_the_end_of_a_result() {
        let mut trace = empty(Dialect::KimiCode);
        trace.call(call("a", "Read", json!({"path": "a\u{200b}.rs", "x": ["\u{1b}[2J"]})));
        trace.result("a", &format!("1\tfirst{}\u{e0041}", "x".repeat(SUMMARY_CHARS)));
        let seen = trace.finish();
        assert_eq!(
            (seen.evidence[0].args.clone(), seen.hidden),
            (fields(json!({"path": "a.rs", "x": [""]})), 6)
        );
    }

    #[test]
    fn secrets_are_replaced_before_anything_is_cut() {
        // Put together here, so that no scanner takes this file for a leak.
        let key = format!("AKIA{}", "ABCDEFGHIJKLMNOP");
        let path = format!("src/{key}.rs");
        let long = format!("{} {key}", "x".repeat(ARG_CHARS - 10));
        let mut trace = empty(Dialect::KimiCli);
        trace.call(call("a", "Grep", json!({"pattern": key})));
        assert_eq!(trace.activity(), "searching for [redacted:aws-key]");
        trace.result("a", "No matches found");
        trace.call(call(
            "b",
            "ReadFile",
            json!({"path": path, "why": [long], "token": "q8Zr2LmXv9WcYb4s"}),
        ));
        trace.result("b", &format!("{} {key}\n", "x".repeat(790)));
        let seen = trace.finish();
        assert_eq!(
            seen.evidence[1],
            evidence(
                "ReadFile",
                "b",
                json!({"path": "src/[redacted:aws-key].rs", "why": ["x".repeat(ARG_CHARS - 10) + " "],
                    "token": "[redacted:token]"}),
                &("x".repeat(790) + " "),
                true
            )
        );
        // What is cited is held against the path as it is.
        assert!(seen.shown.contains(&path), "{:?}", seen.shown);
        assert_eq!(seen.redactions, 5);
    }

    #[test]
    fn calls_over_the_limit_are_counted_and_long_arguments_cut() {
        let mut trace = empty(Dialect::KimiCode);
        for n in 0..MAX_CALLS + 5 {
            trace.call(call(&n.to_string(), "Read", json!({"path": "x".repeat(5_000)})));
            trace.result(&n.to_string(), "1\t");
        }
        let seen = trace.finish();
        assert_eq!((seen.evidence.len(), seen.not_kept, seen.incomplete), (MAX_CALLS, 5, false));
        assert_eq!(seen.evidence[0].args["path"].as_str().unwrap().len(), ARG_CHARS);
    }

    #[test]
    fn however_much_is_named_what_is_kept_of_it_is_bounded_and_every_call_counts() {
        let mut trace = empty(Dialect::KimiCli);
        let calls = 5 * MAX_CALLS + 10;
        for n in 0..calls {
            let many = if n < MAX_CALLS { 60 } else { 1 };
            let args = json!({"path": format!("{n}{}", "中".repeat(3_000)), "x": vec!["y".repeat(300); many]});
            let name = if n % 2 == 0 { "Grep" } else { "ReadFile" };
            trace.call(call(&n.to_string(), name, args));
            let files: Vec<String> =
                (0..many).map(|file| format!("{n}/{file}{}:1:x", "z".repeat(900))).collect();
            trace.result(&n.to_string(), &files.join("\n"));
        }
        trace.more_calls(5);
        trace.result("of one of those", "");
        let kept: usize = trace.shown.iter().map(String::len).sum::<usize>()
            + trace.calls.iter().flat_map(|call| &call.path).map(String::len).sum::<usize>();
        assert!(kept < ROOM && trace.index.len() == MAX_CALLS && trace.orphans.is_empty());
        let seen = trace.finish();
        assert!(serde_json::to_string(&seen.evidence).unwrap().len() < 2 * ROOM);
        assert_eq!((seen.evidence.len() + seen.not_kept, seen.incomplete), (calls + 5, true));
    }

    #[test]
    fn results_that_nobody_asked_for_are_bounded() {
        let mut trace = empty(Dialect::KimiCli);
        for n in 0..200 {
            trace.result(&n.to_string(), "x");
        }
        assert_eq!(trace.orphans.len(), MAX_ORPHANS);
        trace.call(call("0", "ReadFile", json!({"path": "a.rs"})));
        assert_eq!(trace.files_read(), 1);
        assert!(trace.finish().incomplete);
    }
}
