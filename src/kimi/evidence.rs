//! What Kimi's own tool calls show that it read or looked up.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::dialect::Dialect;
use super::event::{Call, MAX_CALLS};
use super::hidden::Cleaned;
use super::text::{clean, first_chars};
use crate::redact::Secrets;

/// Characters of a tool's result that are kept.
const SUMMARY_CHARS: usize = 800;
/// Characters kept of a result whose call has not been seen yet: more than is looked at for a summary.
const ORPHAN_CHARS: usize = 30_000;
/// Bytes kept of all such results: as many as a model asks for at once.
const ORPHANS_BYTES: usize = 1024 * 1024;
/// Characters that one argument of a call may take; a refused call to write a file can carry all of it.
const ARG_CHARS: usize = 2_000;
/// Characters that the name of a tool, a call or an argument may take.
const NAME_CHARS: usize = 100;
/// Ids of calls that are not kept; the results of more are dropped, whosever they are.
const MAX_OVERFLOW: usize = 4 * MAX_CALLS;
/// Files that one search result is believed to have shown.
const MAX_SHOWN: usize = 2_000;
/// Bytes in memory that the arguments of all calls, their paths and the files that were shown may take.
const ROOM: usize = 2 * 1024 * 1024;
/// Bytes in memory that a value takes besides its text.
const VALUE: usize = 128;

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

/// Pairs calls with their results, once each, in whatever order they arrive.
#[derive(Debug)]
pub struct Trace {
    dialect: Dialect,
    secrets: Secrets,
    calls: Vec<Evidence>,
    /// The path that each call names, as Kimi gave it: what a citation is held against.
    paths: Vec<Option<String>>,
    redactions: usize,
    index: HashMap<String, usize>,
    answered: BTreeSet<usize>,
    /// Files that a call read, each counted once.
    files_read: usize,
    /// Results that arrived before their call, or without one.
    orphans: BTreeMap<String, String>,
    orphans_bytes: usize,
    not_kept: usize,
    /// Ids of calls that were not kept; their results are partners all the same.
    overflow: BTreeSet<String>,
    /// Whether there are calls whose id is not known.
    forgets_ids: bool,
    shown: BTreeSet<String>,
    /// Whether a result or a file that was shown could not be kept.
    is_cut: bool,
    /// What is left of [`ROOM`].
    room: usize,
    /// Characters taken out of arguments and results because nobody can see them.
    hidden: usize,
    last: Option<usize>,
}

impl Trace {
    /// An empty trace of a run of this dialect, from which these secrets are kept.
    #[must_use]
    pub fn new(dialect: Dialect, secrets: &Secrets) -> Trace {
        Trace {
            dialect,
            secrets: secrets.clone(),
            calls: Vec::new(),
            paths: Vec::new(),
            redactions: 0,
            index: HashMap::new(),
            answered: BTreeSet::new(),
            files_read: 0,
            orphans: BTreeMap::new(),
            orphans_bytes: 0,
            not_kept: 0,
            overflow: BTreeSet::new(),
            forgets_ids: false,
            shown: BTreeSet::new(),
            is_cut: false,
            room: ROOM,
            hidden: 0,
            last: None,
        }
    }

    /// Takes a call. One that is still running only fills in what the first line left open, since
    /// kimi-code repeats such calls; the id of one that was answered may come again with another
    /// turn, and then is another call.
    pub fn call(&mut self, call: Call) {
        if let Some(&known) = self.index.get(&call.id)
            && !self.answered.contains(&known)
        {
            if self.calls[known].args.is_empty() {
                self.paths[known] = self.path_in(&call.args);
                self.calls[known].args = self.taken(call.args);
            }
            return;
        }
        if self.overflow.contains(&call.id) {
            return;
        }
        if self.calls.len() >= MAX_CALLS {
            self.not_kept += 1;
            if self.orphan(&call.id).is_none() {
                self.forgets_ids |= self.overflow.len() == MAX_OVERFLOW;
                if !self.forgets_ids {
                    self.overflow.insert(call.id);
                }
            }
            return;
        }
        let at = self.calls.len();
        let path = self.path_in(&call.args);
        self.paths.push(path);
        let args = self.taken(call.args);
        let brief = |text: &str| self.secrets.redact_start(&clean(text), NAME_CHARS).into_text();
        self.calls.push(Evidence {
            tool: brief(self.dialect.common_tool_name(&call.name)),
            tool_call_id: brief(&call.id),
            args,
            summary: String::new(),
            ok: false,
        });
        self.last = Some(at);
        if let Some(text) = self.orphan(&call.id) {
            self.answer(at, &text);
        }
        self.index.insert(call.id, at);
    }

    /// Counts calls of which nothing else is known.
    pub fn more_calls(&mut self, count: usize) {
        self.not_kept += count;
        self.forgets_ids |= count > 0;
    }

    /// Takes a result. A second result of one call is dropped.
    pub fn result(&mut self, id: &str, text: &str) {
        if let Some(&at) = self.index.get(id) {
            self.answer(at, text);
        } else if !self.forgets_ids && !self.overflow.contains(id) && !self.orphans.contains_key(id)
        {
            let text = first_chars(text, ORPHAN_CHARS);
            let bytes = id.len() + text.len() + VALUE;
            if self.orphans_bytes + bytes <= ORPHANS_BYTES {
                self.orphans_bytes += bytes;
                self.orphans.insert(id.to_owned(), text.to_owned());
            } else {
                self.is_cut = true;
            }
        }
    }

    /// Takes out the result that arrived before this call.
    fn orphan(&mut self, id: &str) -> Option<String> {
        let text = self.orphans.remove(id)?;
        self.orphans_bytes -= id.len() + text.len() + VALUE;
        Some(text)
    }

    fn answer(&mut self, at: usize, text: &str) {
        if !self.answered.insert(at) {
            return;
        }
        let call = &mut self.calls[at];
        call.ok = self.dialect.tool_succeeded(&call.tool, text);
        let cleaned = Cleaned::of(text);
        self.hidden += cleaned.hidden;
        let summary = self.secrets.redact_start(&cleaned.text, SUMMARY_CHARS);
        self.redactions += summary.count();
        call.summary = summary.into_text();
        if call.ok {
            let path = self.paths[at].clone();
            match call.tool.as_str() {
                "ReadFile" => {
                    self.files_read += usize::from(self.is_first_read(at));
                    self.show(path);
                }
                // A search in one file gives its lines without the file's name.
                "Grep" if begins_with_a_line_number(text) => self.show(path),
                "Grep" => self.show(files_of_a_search(text)),
                _ => {}
            }
        }
    }

    /// Whether a call that read a file is the only one so far that read it.
    fn is_first_read(&self, at: usize) -> bool {
        let has_read = |&other: &usize| {
            let call = &self.calls[other];
            other != at && call.ok && call.tool == "ReadFile" && self.paths[other] == self.paths[at]
        };
        self.paths[at].is_some() && !(0..self.calls.len()).any(|other| has_read(&other))
    }

    fn show(&mut self, files: impl IntoIterator<Item = String>) {
        for file in files {
            if self.shown.contains(&file) {
                continue;
            }
            if takes(&mut self.room, VALUE + file.len()) {
                self.shown.insert(file);
            } else {
                self.is_cut = true;
            }
        }
    }

    /// What Kimi is doing now, in words for a person.
    #[must_use]
    pub fn activity(&self) -> Activity {
        match self.last {
            Some(at) if !self.answered.contains(&at) => {
                let call = &self.calls[at];
                let of = |key: &str| {
                    let value = call.args.get(key).and_then(Value::as_str).unwrap_or_default();
                    first_chars(&clean(value), 80).replace('\n', " ")
                };
                match call.tool.as_str() {
                    "ReadFile" => Activity::Reading(of("path")),
                    "Glob" => Activity::Listing(of("pattern")),
                    "Grep" => Activity::Searching(of("pattern")),
                    "SearchWeb" => Activity::SearchingTheWeb(of("query")),
                    "FetchURL" => Activity::Fetching(of("url")),
                    _ => Activity::Thinking,
                }
            }
            _ => Activity::Thinking,
        }
    }

    /// How many files were read.
    #[must_use]
    pub fn files_read(&self) -> usize {
        self.files_read
    }

    /// What was seen, in the order of the calls.
    #[must_use]
    pub fn finish(self) -> Seen {
        Seen {
            incomplete: self.answered.len() != self.calls.len()
                || !self.orphans.is_empty()
                || self.is_cut,
            evidence: self.calls,
            not_kept: self.not_kept,
            shown: self.shown,
            hidden: self.hidden,
            redactions: self.redactions,
        }
    }

    /// The path among the arguments of a call.
    fn path_in(&mut self, args: &Map<String, Value>) -> Option<String> {
        let path = clean(args.get("path")?.as_str()?);
        let path = first_chars(&path, ARG_CHARS);
        takes(&mut self.room, path.len()).then(|| path.to_owned())
    }

    /// The arguments of a call without secrets and without what nobody can see, each bounded.
    fn taken(&mut self, args: Map<String, Value>) -> Map<String, Value> {
        let room = &mut self.room;
        let mut bounds = Bounds { secrets: &self.secrets, redactions: 0, hidden: 0, room };
        let mut args = bounds.fields(args);
        let Bounds { redactions, hidden, secrets: _, room: _ } = bounds;
        self.hidden += hidden;
        self.redactions += redactions + self.secrets.redact_fields(&mut args);
        args
    }
}

/// Takes so much of what is left, if there is as much.
fn takes(room: &mut usize, bytes: usize) -> bool {
    let left = room.checked_sub(bytes);
    *room = left.unwrap_or(*room);
    left.is_some()
}

/// All that a run showed of what Kimi saw.
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
    /// Characters that nobody can see, in all that the tools were asked and returned; what is kept of
    /// that is without them.
    pub hidden: usize,
    /// Secrets that were replaced in the calls.
    pub redactions: usize,
}

/// What Kimi does at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Activity {
    /// Waiting until one of so many consultations under way ends.
    Waiting(usize),
    /// Started, and nothing heard yet.
    Starting,
    /// No tool is running.
    Thinking,
    /// Reading this file.
    Reading(String),
    /// Listing files by this pattern.
    Listing(String),
    /// Searching the project for this pattern.
    Searching(String),
    /// Searching the web.
    SearchingTheWeb(String),
    /// Fetching this address.
    Fetching(String),
    /// Waiting to ask the model again: why, next attempt, attempts, wait in milliseconds.
    Retrying(String, u64, u64, u64),
}

impl fmt::Display for Activity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Activity::Waiting(1) => {
                f.write_str("waiting in turn: another consultation is under way")
            }
            Activity::Waiting(running) => {
                write!(f, "waiting in turn: {running} consultations are under way")
            }
            Activity::Starting => f.write_str("starting Kimi"),
            Activity::Thinking => f.write_str("thinking"),
            Activity::Reading(path) => write!(f, "reading {path}"),
            Activity::Listing(pattern) => write!(f, "listing {pattern}"),
            Activity::Searching(pattern) => write!(f, "searching for {pattern}"),
            Activity::SearchingTheWeb(query) => write!(f, "searching the web for {query}"),
            Activity::Fetching(url) => write!(f, "fetching {url}"),
            Activity::Retrying(why, next, max, delay_ms) => {
                let seconds = delay_ms.div_ceil(1000);
                write!(f, "{why}, attempt {next} of {max}, next in {seconds} s")
            }
        }
    }
}

/// The files that a search result names: a line each, or at the start of `path:line:text`.
fn files_of_a_search(text: &str) -> impl Iterator<Item = String> {
    let files = text.lines().take(MAX_SHOWN).map(|line| {
        let end = line
            .match_indices([':', '-'])
            .find(|(at, _)| {
                let rest = &line[at + 1..];
                let digits =
                    rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
                digits > 0 && rest[digits..].starts_with([':', '-'])
            })
            .map_or(line.len(), |(at, _)| at);
        line[..end].to_owned()
    });
    files.filter(|file| !file.is_empty() && file.len() < 1024)
}

fn begins_with_a_line_number(text: &str) -> bool {
    let rest = text.trim_start_matches(|c: char| c.is_ascii_digit());
    rest.len() < text.len() && rest.starts_with([':', '-'])
}

/// Bounds what Kimi gave as arguments, and counts what is taken out of them.
struct Bounds<'a> {
    secrets: &'a Secrets,
    redactions: usize,
    hidden: usize,
    room: &'a mut usize,
}

impl Bounds<'_> {
    fn text(&mut self, text: &str, limit: usize) -> String {
        let cleaned = Cleaned::of(text);
        self.hidden += cleaned.hidden;
        let text = self.secrets.redact_start(&cleaned.text, limit);
        self.redactions += text.count();
        text.into_text()
    }

    fn fields(&mut self, args: Map<String, Value>) -> Map<String, Value> {
        let mut kept = Map::new();
        for (name, value) in args {
            let name = self.text(&name, NAME_CHARS);
            if takes(self.room, VALUE + name.len()) {
                let value = self.value(value);
                kept.insert(name, value);
            }
        }
        kept
    }

    fn value(&mut self, value: Value) -> Value {
        match value {
            Value::String(text) => {
                let text = self.text(&text, ARG_CHARS);
                Value::String(if takes(self.room, text.len()) { text } else { String::new() })
            }
            Value::Object(object) => Value::Object(self.fields(object)),
            Value::Array(values) => {
                let mut kept = Vec::new();
                for value in values {
                    if takes(self.room, VALUE) {
                        kept.push(self.value(value));
                    }
                }
                Value::Array(kept)
            }
            plain => plain,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(args: Value) -> Map<String, Value> {
        serde_json::from_value(args).unwrap()
    }

    fn empty(dialect: Dialect) -> Trace {
        Trace::new(dialect, &Secrets::default())
    }

    fn call(id: &str, name: &str, args: Value) -> Call {
        Call { id: id.into(), name: name.into(), args: fields(args) }
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
        assert_eq!(trace.activity(), Activity::Thinking);
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
        assert_eq!(trace.activity().to_string(), "reading src/store.rs");
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
        assert_eq!(trace.activity().to_string(), "searching for [redacted:aws-key]");
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
        let calls = MAX_CALLS + MAX_OVERFLOW + 10;
        for n in 0..calls {
            let args = json!({"path": format!("{n}{}", "中".repeat(3_000)), "x": vec!["y".repeat(3_000); 60]});
            let name = if n % 2 == 0 { "Grep" } else { "ReadFile" };
            trace.call(call(&n.to_string(), name, args));
            let files: Vec<String> =
                (0..60).map(|file| format!("{n}/{file}{}:1:x", "z".repeat(900))).collect();
            trace.result(&n.to_string(), &files.join("\n"));
        }
        trace.more_calls(5);
        trace.result("of one of those", "");
        let kept: usize = trace.shown.iter().map(String::len).sum::<usize>()
            + trace.paths.iter().flatten().map(String::len).sum::<usize>();
        assert!(kept < ROOM && trace.overflow.len() == MAX_OVERFLOW && trace.orphans.is_empty());
        let seen = trace.finish();
        assert!(serde_json::to_string(&seen.evidence).unwrap().len() < 2 * ROOM);
        assert_eq!((seen.evidence.len() + seen.not_kept, seen.incomplete), (calls + 5, true));
    }

    #[test]
    fn results_that_nobody_asked_for_are_bounded() {
        let mut trace = empty(Dialect::KimiCli);
        for n in 0..200 {
            trace.result(&n.to_string(), &"x".repeat(ORPHAN_CHARS));
        }
        assert!(trace.orphans.values().map(String::len).sum::<usize>() <= ORPHANS_BYTES);
        trace.call(call("0", "ReadFile", json!({"path": "a.rs"})));
        assert_eq!(trace.files_read(), 1);
        assert!(trace.finish().incomplete);
    }
}
