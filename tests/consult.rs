//! A user asks Kimi and gets a checked answer: the real CLIs, the scripted model, the sample project.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::support::answers::{a_whole_consultation, say_verdict};
use crate::support::kimi::Real;
use crate::support::model::{Model, Step, text_of};
use crate::support::server::{Era, Server};
use crate::support::world::{Ran, World, write_program};
use crate::support::{both, one};

pub(crate) fn tests() -> Vec<Trial> {
    [
        both("consult::an_answer_is_read_and_checked", an_answer_is_read_and_checked),
        both("consult::only_reading_tools_are_offered_and_nothing_is_written", only_reading_tools),
        both("consult::nothing_of_the_users_own_runs", nothing_of_the_users_own_runs),
        vec![one(
            "consult::the_private_home_alone_is_a_wall",
            Real::KimiCode,
            the_private_home_alone,
        )],
        both("consult::a_message_of_300_kb_arrives_whole", a_long_message_arrives_whole),
        both("consult::the_users_model_and_key_are_carried_over", the_users_model_is_carried_over),
        both("consult::an_answer_after_a_retry_counts", an_answer_after_a_retry_counts),
        both("consult::what_cannot_be_read_is_kept", what_cannot_be_read_is_kept),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn an_answer_is_read_and_checked(real: Real, program: &Path) {
    let model = Model::start(a_whole_consultation(real));
    let world = World::with_real(real, program, &model);
    let ran = world.consult(&["--file", "src/store.rs"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let mut result = ran.json();
    let evidence: Vec<_> = result["evidence"]
        .as_array()
        .unwrap()
        .iter()
        .map(|call| {
            (call["tool"].as_str().unwrap().to_owned(), call["args"].clone(), call["ok"] == true)
        })
        .collect();
    assert_eq!(
        evidence,
        [
            ("ReadFile".to_owned(), json!({"path": "src/store.rs"}), true),
            (
                "Grep".to_owned(),
                json!({"pattern": "unwrap", "path": "src", "output_mode": "content"}),
                true
            ),
            ("Glob".to_owned(), json!({"pattern": "src/*.rs"}), true),
        ]
    );
    let summary = result["evidence"][0]["summary"].as_str().unwrap();
    assert!(summary.contains("Append-only counter store"), "{summary}");
    let session = result["provenance"]["session_id"].take();
    assert!(session.as_str().is_some_and(|id| id.len() > 30), "{session}");
    assert!(result["provenance"]["elapsed_ms"].take().as_u64().is_some());
    let version = if real == Real::KimiCode { "2.1.0" } else { "1.51.0" };
    assert_eq!(
        result["provenance"],
        json!({"dialect": real.name(), "version": version, "session_id": null, "sandbox": "landlock",
            "workspace_changed": false,
            "elapsed_ms": null, "redactions": 0})
    );
    assert_eq!(
        (&result["thread"]["round"], &result["thread"]["state"]),
        (&json!(1), &json!("awaiting_adjudication"))
    );
    for taken in ["evidence", "provenance", "raw_response_preview", "thread"] {
        result.as_object_mut().unwrap().remove(taken);
    }
    assert_eq!(
        result,
        json!({
            "parse_ok": true,
            "response": "The store loses data on a torn write.",
            "findings": [{
                "id": "F1",
                "severity": "blocker",
                "claim": "`add` drops the write error",
                "failure_scenario": "disk full: the total in memory grows, the restart forgets it",
                "suggestion": "return the io::Result",
                "citations": [{"path": "src/store.rs", "line_start": 24, "line_end": 24,
                    "quote": "let _ = writeln!(self.file, \"{key} {value}\");", "status": "verified"}],
                "grounded": true,
            }],
            "key_risks": ["silent loss"],
            "assumptions": ["one process"],
            "alternatives": [],
            "survived": ["append mode"],
            "not_examined": ["main.rs"],
            "confidence": "high: read",
            "incomplete_trace": false,
            "warnings": [],
        })
    );
    let asked = model.requests()[0].to_string();
    assert!(
        asked.contains("You are the skeptic.") && asked.contains("Where does this lose data?"),
        "{asked}"
    );
    assert!(asked.contains("You are a second opinion"), "the system prompt arrives");
    assert!(!asked.contains("You are Kimi"), "no other system prompt arrives");
}

fn only_reading_tools(real: Real, program: &Path) {
    let write = if real == Real::KimiCode { "Write" } else { "WriteFile" };
    let shell = if real == Real::KimiCode { "Bash" } else { "Shell" };
    let model = Model::start(vec![
        Step::Calls(vec![
            (write, json!({"path": "pwned.txt", "content": "x"})),
            (shell, json!({"command": "touch pwned"})),
            ("Agent", json!({"description": "d", "prompt": "p"})),
            (real.read_tool(), json!({"path": "src/nope.rs"})),
        ]),
        say_verdict(),
    ]);
    let world = World::with_real(real, program, &model);
    let before = World::content_of(&world.project());
    let result = world.consult(&[]).json();
    assert_eq!(World::content_of(&world.project()), before);
    for offered in model.offered_tools() {
        assert_eq!(offered, real.tools());
    }
    assert!(!model.offered_tools().is_empty());
    let refused: Vec<_> =
        result["evidence"].as_array().unwrap().iter().map(|call| call["ok"] == true).collect();
    assert_eq!(refused, [false; 4], "{result:#}");
    // The store was never read, so the quote stands there but the finding rests on nothing.
    assert_eq!(result["findings"][0]["citations"][0]["status"], "not_in_trace");
    assert_eq!(result["findings"][0]["grounded"], false);
}

/// The user has MCP servers, hooks, plugins, skills and rules; the project has some too.
fn nothing_of_the_users_own_runs(real: Real, program: &Path) {
    let model = Model::start(a_whole_consultation(real));
    let world = World::with_real(real, program, &model);
    let marker = world.root().join("it-ran");
    let evil = world.root().join("evil");
    write_program(&evil, &format!("#!/bin/sh\necho \"$0 $*\" >> '{}'\n", marker.display()));
    let evil = evil.display();
    let servers =
        json!({"mcpServers": {"evil": {"command": evil.to_string(), "args": ["mcp"]}}}).to_string();
    let hook = format!("[[hooks]]\nevent = \"PreToolUse\"\ncommand = \"{evil} hook\"\n");
    let skill = "---\nname: evil\ndescription: EVIL SKILL\n---\nEVIL SKILL\n";
    for folder in [".kimi-code", ".kimi", ".agents"] {
        for place in [world.home(), world.project()] {
            let folder = place.join(folder);
            fs::create_dir_all(folder.join("skills/evil")).unwrap();
            fs::write(folder.join("mcp.json"), &servers).unwrap();
            fs::write(folder.join("config.toml"), &hook).unwrap();
            fs::write(folder.join("skills/evil/SKILL.md"), skill).unwrap();
            fs::write(folder.join("AGENTS.md"), "EVIL INSTRUCTIONS").unwrap();
        }
    }
    fs::write(world.home().join(".profile"), format!("{evil} profile\n")).unwrap();
    fs::write(world.project().join(".mcp.json"), &servers).unwrap();
    fs::write(world.project().join("AGENTS.md"), "EVIL INSTRUCTIONS").unwrap();
    let before = World::content_of(&world.project());
    let result = world.consult(&[]).json();
    assert_eq!(result["parse_ok"], true);
    assert_eq!(fs::read_to_string(&marker).unwrap_or_default(), "", "something of the user's ran");
    assert_eq!(World::content_of(&world.project()), before);
    for (request, offered) in model.requests().iter().zip(model.offered_tools()) {
        assert_eq!(offered, real.tools());
        // The project's AGENTS.md is named to kimi-code's model, and read by nobody.
        assert!(!request["messages"].to_string().contains("EVIL"), "{request}");
    }
    assert_eq!(model.other_requests(), Vec::<String>::new(), "nobody reports home");
    for kept in ["mcp.json", "skills", "AGENTS.md"] {
        assert!(!world.private_home(real.name()).join(kept).exists(), "{kept}");
    }
}

/// Without the agent file, as on a later turn of a session: the settings that the bridge wrote are
/// read whole, and they alone keep every other tool from running.
fn the_private_home_alone(real: Real, program: &Path) {
    let model = Model::start(a_whole_consultation(real));
    let world = World::with_real(real, program, &model);
    fs::create_dir_all(world.home().join(".kimi-code")).unwrap();
    fs::write(
        world.home().join(".kimi-code/config.toml"),
        "[loop_control]\nmax_steps_per_turn = 50\n",
    )
    .unwrap();
    assert_eq!(world.consult(&[]).code, Some(0));
    drop(model);

    let home = world.kimis();
    let config = home.join("config.toml");
    let kimi = |model: &Model, args: &[&str]| {
        let mut command = Command::new(program);
        command.args(args).env_clear().envs(&world.env).env("SHELL", "/bin/false");
        command
            .envs(real.model_env(model))
            .env("KIMI_CODE_HOME", &home)
            .current_dir(world.project());
        Ran::from(command.stdin(Stdio::null()).output().unwrap())
    };
    let checked = kimi(&Model::start(vec![Step::Hang]), &["doctor"]);
    assert_eq!(checked.code, Some(0), "{checked:?}");

    let written: toml::Table = fs::read_to_string(&config).unwrap().parse().unwrap();
    let without = |wall: &str| {
        let mut config = written.clone();
        config.remove(wall).unwrap();
        config.to_string()
    };
    let walls = [written.to_string(), without("hooks"), without("tools")];
    let before = World::content_of(&world.project());
    for wall in walls {
        fs::write(&config, &wall).unwrap();
        let model = Model::start(vec![
            Step::Calls(vec![
                ("Bash", json!({"command": "touch pwned"})),
                ("Write", json!({"path": world.project().join("pwned.txt"), "content": "x"})),
            ]),
            Step::Text("done".to_owned()),
        ]);
        let ran = kimi(&model, &["-p", "go", "--output-format", "stream-json"]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert_eq!(World::content_of(&world.project()), before, "{wall}\n{ran:?}");
        assert_eq!(model.requests().len(), 2, "both calls were answered");
    }
}

fn a_long_message_arrives_whole(real: Real, program: &Path) {
    let lines: Vec<String> =
        (0..5_000).map(|n| format!("line {n} of a pasted log, with \"quotes\" and 中文")).collect();
    let message = lines.join("\n");
    assert!(message.len() > 240_000);
    let message = format!("{message}\n{}", "x".repeat(300_000 - message.len()));
    let model = Model::start_with(move |request, _| read_on(request).unwrap_or_else(say_verdict));
    let world = World::with_real(real, program, &model);
    let world = world.with(&[("KIMI_BRIDGE_TOOL_ENABLED", "1")]);
    // No shell takes an argument of that length, so the message goes the way of a host.
    let mut server = Server::start(&world, Era::Legacy);
    let result = server.call(
        "consult_kimi",
        &json!({"message": message, "context": {"proposed_approach": "p", "goals": ["g"]}}),
    );
    assert_eq!(result["structuredContent"]["parse_ok"], true, "{result:#}");
    let seen = everything_said(&model.requests());
    for n in [0, 1, 2_499, 4_998, 4_999] {
        assert!(seen.contains(&lines[n]), "{}", lines[n]);
    }
    let missing = lines.iter().filter(|line| !seen.contains(line.as_str())).count();
    assert_eq!(missing, 0, "lines that the model never saw");
    assert!(seen.matches('x').count() >= 300_000 - lines.join("\n").len() - 1);
    assert!(seen.contains("## How to answer"), "the request is read to its end");
    if real == Real::KimiCode {
        let evidence = &result["structuredContent"]["evidence"];
        assert!(evidence["read"].is_array() && evidence.get("failed").is_none(), "{evidence:#}");
    }
}

/// Does as it is told: reads the request's file, and goes on where a page ended.
fn read_on(request: &Value) -> Option<Step> {
    // kimi-code adds reminders of its own behind what it was asked.
    let said = request["messages"].as_array()?.iter().rev().map(text_of);
    let text = said.into_iter().find(|text| !text.starts_with("<system-reminder>"))?;
    if let Some(at) = text.find("Next Read: ") {
        let mut values = serde_json::Deserializer::from_str(&text[at + 11..]).into_iter::<Value>();
        return Some(Step::Calls(vec![("Read", values.next()?.ok()?)]));
    }
    let path = text
        .strip_prefix("Your request stands in the file ")?
        .split(". Read that file")
        .next()?
        .to_owned();
    Some(Step::Calls(vec![("Read", json!({"path": path}))]))
}

/// All that the model was sent, each message once: every request repeats the ones before it.
fn everything_said(requests: &[Value]) -> String {
    let last = requests.last().unwrap()["messages"].as_array().unwrap();
    last.iter().map(text_of).collect::<Vec<_>>().join("\n")
}

fn the_users_model_is_carried_over(real: Real, program: &Path) {
    let model = Model::start(a_whole_consultation(real));
    let world = World::new()
        .with(&[("KIMI_PATH", &program.display().to_string()), ("NO_PROXY", "127.0.0.1")]);
    let folder = world.home().join(if real == Real::KimiCode { ".kimi-code" } else { ".kimi" });
    fs::create_dir_all(&folder).unwrap();
    let config = format!(
        r#"
default_model = "mine"
[providers.scripted]
type = "{}"
base_url = "{}"
api_key = "sk-of-the-user"
[models.mine]
provider = "scripted"
model = "the-users-model"
max_context_size = 262144
"#,
        if real == Real::KimiCode { "openai" } else { "openai_legacy" },
        model.base_url()
    );
    fs::write(folder.join("config.toml"), config).unwrap();
    let before = World::content_of(&folder);
    let ran = world.consult(&[]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(ran.json()["warnings"], json!([]));
    assert_eq!(model.requests()[0]["model"], "the-users-model");
    assert_eq!(World::content_of(&folder), before, "the user's own folder is left alone");
}

fn an_answer_after_a_retry_counts(real: Real, program: &Path) {
    let mut script =
        vec![Step::Status(429, json!({"error": {"message": "slow down", "type": "error"}}))];
    script.extend(a_whole_consultation(real));
    let model = Model::start(script);
    let result = World::with_real(real, program, &model).consult(&[]).json();
    assert_eq!(result["parse_ok"], true, "{result:#}");
    assert_eq!(result["findings"][0]["grounded"], true);
}

fn what_cannot_be_read_is_kept(real: Real, program: &Path) {
    let words = "I think the proposal is risky. I would not ship it.";
    let model = Model::start(vec![Step::Text(words.to_owned())]);
    let ran = World::with_real(real, program, &model).consult(&[]);
    let result = ran.json();
    assert_eq!(
        (ran.code, &result["parse_ok"], &result["response"]),
        (Some(4), &json!(false), &json!(words))
    );
}
