//! What the scripted model says: reads and verdicts in the words of each CLI.

use serde_json::{Value, json};

use super::kimi::Real;
use super::model::Step;

/// How a program in Kimi's place says its version, as a shell command.
pub(crate) const VERSION: &str =
    r#"echo '{"role":"meta","type":"system.version","version":"2.1.0"}'"#;

/// How it answers without a finding, likewise.
pub(crate) const ANSWER: &str =
    r#"echo '{"role":"assistant","content":"{\"response\":\"r\",\"findings\":[]}"}'"#;

/// The same with one finding.
pub(crate) const WITH_A_FINDING: &str = r#"echo '{"role":"assistant","content":"{\"response\":\"r\",\"findings\":[{\"severity\":\"minor\",\"claim\":\"c\",\"citations\":[]}]}"}'"#;

impl Real {
    /// The read tool as this CLI names it.
    pub(crate) fn read_tool(self) -> &'static str {
        match self {
            Real::KimiCode => "Read",
            Real::KimiCli | Real::Retired => "ReadFile",
        }
    }

    /// The tools that the model is offered, sorted. Searching the web needs a login, which the
    /// scripted model has none of.
    pub(crate) fn tools(self) -> Vec<String> {
        ["FetchURL", "Glob", "Grep", self.read_tool()].map(str::to_owned).into()
    }
}

/// An answer about the sample project with one finding that cites this line and quote.
pub(crate) fn verdict(line: u32, quote: &str) -> Value {
    json!({
        "response": "The store loses data on a torn write.",
        "findings": [{
            "severity": "blocker",
            "claim": "`add` drops the write error",
            "failure_scenario": "disk full: the total in memory grows, the restart forgets it",
            "suggestion": "return the io::Result",
            "citations": [{"path": "src/store.rs", "line_start": line, "line_end": line, "quote": quote}],
        }],
        "key_risks": ["silent loss"],
        "assumptions": ["one process"],
        "alternatives": [],
        "survived": ["append mode"],
        "not_examined": ["main.rs"],
        "confidence": "high: read",
    })
}

/// The usual verdict, in a fence after a word of prose.
pub(crate) fn say_verdict() -> Step {
    Step::Text(format!(
        "Done.\n\n```json\n{:#}\n```\n",
        verdict(24, "let _ = writeln!(self.file, \"{key} {value}\");")
    ))
}

/// Reads the store, searches, lists, then answers.
pub(crate) fn a_whole_consultation(real: Real) -> Vec<Step> {
    let first = Step::TextAndCalls(
        "I will read the store first.".to_owned(),
        vec![
            (real.read_tool(), json!({"path": "src/store.rs"})),
            ("Grep", json!({"pattern": "unwrap", "path": "src", "output_mode": "content"})),
            ("Glob", json!({"pattern": "src/*.rs"})),
        ],
    );
    vec![Step::Think("look at the store".to_owned(), Box::new(first)), say_verdict()]
}
