//! A host's client talks to the server: the official Python client, the MCP Inspector and Claude Code,
//! as `install-kimi` leaves them, each in both protocol eras.
//!
//! `serve.rs` says what the server has to say line by line. This file is for what only somebody
//! else's client can tell: whether it takes what is said.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::support::answers::say_verdict;
use crate::support::kimi::{Real, installed};
use crate::support::messages::{LAST_WORDS, Messages};
use crate::support::model::{Model, Step};
use crate::support::needs;
use crate::support::server::Era;
use crate::support::world::{Ran, World, proposal, wait_until};

/// How long a client may take before it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(180);
const BRIDGE: &str = env!("CARGO_BIN_EXE_kimi-bridge");
const MANUAL: (&str, &str) = ("KIMI_BRIDGE_TOOL_ENABLED", "1");

pub(crate) fn tests() -> Vec<Trial> {
    [Era::Legacy, Era::Modern].into_iter().flat_map(of_era).chain([claude_code_adds_it()]).collect()
}

fn of_era(era: Era) -> Vec<Trial> {
    let python = |name: &str, run: fn(Era, &Path)| {
        let name = format!("clients::python_mcp::{}::{name}", name_of(era));
        needs(&name, "the Python client", found("mcp-client/bin/python"), move |python| {
            run(era, &python);
        })
    };
    let inspector = |name: &str, run: fn(Era, &Path)| {
        let name = format!("clients::inspector::{}::{name}", name_of(era));
        needs(&name, "the MCP Inspector", found("inspector/inspector"), move |inspector| {
            run(era, &inspector);
        })
    };
    let consults = [Real::KimiCode, Real::KimiCli].map(|real| {
        let name = format!("clients::python_mcp::{}::{}", name_of(era), real.name());
        let what = format!("the Python client and {}", real.name());
        let both = found("mcp-client/bin/python").zip(real.program());
        needs(&name, &what, both, move |(python, program)| {
            python_consults(era, real, &python, &program);
        })
    });
    let claude = needs(
        &format!("clients::claude_code::{}::its_model_gets_the_whole_result", name_of(era)),
        "Claude Code",
        found("claude-code/claude"),
        move |claude| claude_codes_model_gets_the_whole_result(era, &claude),
    );
    let others = [
        python("a_refusal_says_what_to_mend", python_is_refused),
        python("only_the_status_is_there_until_switched_on", python_asks_for_the_status),
        inspector("finds_nothing_to_warn_of", inspector_lints),
        inspector("a_result_and_a_refusal_arrive", inspector_calls),
        claude,
    ];
    consults.into_iter().chain(others).collect()
}

fn name_of(era: Era) -> &'static str {
    match era {
        Era::Legacy => "legacy",
        Era::Modern => "modern",
    }
}

/// What the newest clients settle on.
fn version_of(era: Era) -> &'static str {
    match era {
        Era::Legacy => "2025-11-25",
        Era::Modern => "2026-07-28",
    }
}

pub(crate) fn found(program: &str) -> Option<PathBuf> {
    Some(installed().join(program)).filter(|path| path.is_file())
}

/// A client in this world, in none of its projects: a host may stand anywhere.
fn client(world: &World, program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().envs(&world.env).current_dir(world.root());
    command
}

/// Runs a client to its end; nothing that it started may outlive it.
#[track_caller]
pub(crate) fn run(world: &World, command: &mut Command) -> Ran {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let stdout = reading(child.stdout.take().unwrap());
    let stderr = reading(child.stderr.take().unwrap());
    let end = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() >= end {
            // The server goes when its input does.
            child.kill().unwrap();
        }
        thread::sleep(Duration::from_millis(20));
    };
    let ran =
        Ran { code: status.code(), stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() };
    wait_until("nobody is left", || left_in(world).is_empty());
    ran
}

fn reading(mut pipe: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut text = String::new();
        pipe.read_to_string(&mut text).unwrap();
        text
    })
}

/// The processes of this world, which carry its home in their environment.
fn left_in(world: &World) -> Vec<PathBuf> {
    let home = world.home().display().to_string();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .map(|entry| entry.path())
        .filter(|process| {
            let environment = fs::read(process.join("environ")).unwrap_or_default();
            String::from_utf8_lossy(&environment).contains(&home)
        })
        .collect()
}

/// A machine whose Kimi once gave this answer.
fn world_with_an_answer() -> World {
    let answer = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/captures/kimi-code/fenced.stdout");
    World::with_fake("2.1.0", &format!("cat > /dev/null; cat '{}'", answer.display()))
}

/// The usual request, in the project of this world.
fn request(world: &World) -> Value {
    let mut request = proposal();
    request["work_dir"] = json!(world.project());
    request
}

/// The same without what the skeptic needs most.
fn unfit_request(world: &World) -> Value {
    let mut request = request(world);
    request["context"].as_object_mut().unwrap().remove("goals");
    request
}

/// What the shell gives for the same request, without what differs from run to run.
fn brief_result_of_the_shell(world: &World) -> Value {
    let mut result = timeless(world.consult(&[]).json());
    assert!(!result["raw_response_preview"].as_str().unwrap().is_empty(), "{result:#}");
    assert!(result["provenance"]["session_id"].is_string(), "{result:#}");
    let fields = result.as_object_mut().unwrap();
    fields.remove("raw_response_preview");
    assert!(fields["evidence"][0]["summary"].as_str().unwrap().contains("HashMap"), "{fields:#?}");
    fields["evidence"] = json!({"read": ["src/store.rs"], "searched": ["unwrap", "src/*.rs"]});
    let provenance = fields["provenance"].as_object_mut().unwrap();
    provenance.retain(|name, field| name != "session_id" && *field != json!(0));
    fields.retain(|_, field| ![json!([]), json!(""), json!(false)].contains(field));
    result
}

/// Without the time it took and the thread's id, which each consultation draws anew.
fn timeless(mut result: Value) -> Value {
    assert!(result["provenance"]["elapsed_ms"].take().is_u64(), "{result:#}");
    let id = result["thread"]["id"].take();
    let id = id.as_str().unwrap_or_else(|| panic!("no thread: {result:#}"));
    let next = result["thread"]["next"].as_str().unwrap();
    assert!(!id.is_empty() && next.contains(id), "{result:#}");
    result["thread"]["next"] = json!(next.replace(id, "ID"));
    result
}

/// The text of a refusal names the problem and shows a request that fits, and its structure agrees.
#[track_caller]
fn check_refusal(text: &str, structure: &Value) {
    let error = &structure["error"];
    assert_eq!(error["kind"], "request", "{structure:#}");
    assert_eq!(error["violations"][0]["pointer"], "/context/goals");
    assert!(error["example"]["context"]["goals"].is_array(), "{structure:#}");
    check_refusal_text(text);
    assert!(text.contains(&format!("{:#}", error["example"])), "{text}");
}

#[track_caller]
fn check_refusal_text(text: &str) {
    assert!(text.starts_with("request: the request does not fit the role skeptic"), "{text}");
    assert!(text.contains("\n- /context/goals: required and missing"), "{text}");
    assert!(text.contains("\nexample of a request that fits:\n{"), "{text}");
}

/// The session that the Python client had: see `mcp_client.py`.
#[track_caller]
fn python_session(era: Era, python: &Path, world: &World, tool: &str, arguments: &Value) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/mcp_client.py");
    let call = json!({"name": tool, "arguments": arguments}).to_string();
    let mut command = client(world, python);
    command.arg(script).args([name_of(era), &call, BRIDGE, "serve"]);
    let ran = run(world, &mut command);
    // Neither the client nor the server had anything to complain of.
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
    let session = ran.json();
    assert_eq!(session["protocol_version"], version_of(era));
    assert_eq!(session["server"], "kimi-bridge");
    let instructions = session["instructions"].as_str().unwrap();
    assert!(instructions.starts_with("kimi-bridge puts your proposal before Kimi"));
    session
}

/// A result's structure, which its one text repeats.
#[track_caller]
fn structure(session: &Value) -> Value {
    assert_eq!(session["is_error"], false, "{session:#}");
    let [text] = session["texts"].as_array().unwrap().as_slice() else { panic!("{session:#}") };
    let text: Value = serde_json::from_str(text.as_str().unwrap()).unwrap();
    assert_eq!(text, session["structured_content"]);
    text
}

fn python_consults(era: Era, real: Real, python: &Path, program: &Path) {
    let arguments = json!({"path": "src/store.rs"});
    let model = Model::start(vec![Step::Calls(vec![(real.read_tool(), arguments)]), say_verdict()]);
    let world = World::with_real(real, program, &model).with(&[MANUAL]);
    let session = python_session(era, python, &world, "consult_kimi", &request(&world));
    assert_eq!(session["tools"], json!(["consult_kimi", "record_decision", "kimi_status"]));
    let result = structure(&session);
    assert_eq!(result["parse_ok"], true, "{result:#}");
    assert_eq!(result["provenance"]["dialect"], real.name());
    assert_eq!(result["evidence"], json!({"read": ["src/store.rs"]}));
    let [finding] = result["findings"].as_array().unwrap().as_slice() else { panic!("{result:#}") };
    assert_eq!(finding["grounded"], true, "{finding:#}");
    assert_eq!(finding["citations"][0]["status"], "verified");
    let progress = session["progress"].as_array().unwrap();
    assert!(!progress.is_empty(), "{session:#}");
    for message in progress {
        assert!(message.as_str().is_some_and(|message| message.ends_with(" s")), "{message}");
    }
}

fn python_is_refused(era: Era, python: &Path) {
    let world = World::with_fake("2.1.0", "touch \"$0.ran\"").with(&[MANUAL]);
    let session = python_session(era, python, &world, "consult_kimi", &unfit_request(&world));
    assert_eq!(session["is_error"], true, "{session:#}");
    let [text] = session["texts"].as_array().unwrap().as_slice() else { panic!("{session:#}") };
    check_refusal(text.as_str().unwrap(), &session["structured_content"]);
    assert!(!world.root().join("fake/kimi.ran").exists(), "nothing was sent to Kimi");
}

fn python_asks_for_the_status(era: Era, python: &Path) {
    let world = world_with_an_answer();
    let session = python_session(era, python, &world, "kimi_status", &json!({}));
    assert_eq!(session["tools"], json!(["kimi_status"]));
    assert_eq!(structure(&session)["mode"], "disabled");
    let world = world.with(&[MANUAL]);
    let session = python_session(era, python, &world, "kimi_status", &json!({}));
    assert_eq!(structure(&session)["mode"], "manual");
}

#[track_caller]
fn inspect(era: Era, inspector: &Path, world: &World, args: &[&str]) -> Ran {
    let mut command = client(world, inspector);
    command.args(["--cli", BRIDGE, "serve", "--protocol-era", name_of(era)]).args(args);
    for (name, value) in &world.env {
        command.arg("-e").arg(format!("{name}={value}"));
    }
    run(world, &mut command)
}

fn inspector_lints(era: Era, inspector: &Path) {
    let all = vec!["consult_kimi", "record_decision", "kimi_status"];
    for (enabled, tools) in [("1", all), ("0", vec!["kimi_status"])] {
        let world = World::new().with(&[("KIMI_BRIDGE_TOOL_ENABLED", enabled)]);
        let ran = inspect(era, inspector, &world, &["--method", "tools/list", "--strict"]);
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{}", ran.stderr);
        let list = ran.json();
        let listed: Vec<_> =
            list["tools"].as_array().unwrap().iter().map(|tool| &tool["name"]).collect();
        assert_eq!(listed, tools);
    }
    // The Inspector asks for nothing that the server did not announce.
    let world = World::new().with(&[MANUAL]);
    for (method, field, first) in [
        ("resources/list", "resources", "threads"),
        ("resources/templates/list", "resourceTemplates", "thread"),
        ("prompts/list", "prompts", "challenge"),
    ] {
        let ran = inspect(era, inspector, &world, &["--method", method]);
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{}", ran.stderr);
        assert_eq!(ran.json()[field][0]["name"], first, "{method}");
    }
}

/// Unlike the Python client, this one holds errors against the output schema as well, and shows a
/// user only that they do not fit. So does the 1.x TypeScript SDK, on which many hosts are built.
fn inspector_calls(era: Era, inspector: &Path) {
    let world = world_with_an_answer().with(&[MANUAL]);
    let call = |arguments: &Value| {
        let call = ["--method", "tools/call", "--tool-name", "consult_kimi", "--tool-args-json"];
        let arguments = arguments.to_string();
        inspect(era, inspector, &world, &[call.as_slice(), &[arguments.as_str()]].concat())
    };
    let ran = call(&request(&world));
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
    assert_eq!(
        timeless(ran.json()["structuredContent"].clone()),
        brief_result_of_the_shell(&world)
    );
    let ran = call(&unfit_request(&world));
    // 5 is the Inspector's own word for a result that says isError.
    assert_eq!(ran.code, Some(5), "{}", ran.stderr);
    let result = ran.json();
    check_refusal(result["content"][0]["text"].as_str().unwrap(), &result["structuredContent"]);
}

/// Claude Code in the project, which asks `messages` and nobody else.
pub(crate) fn claude_code(claude: &Path, world: &World, messages: &Messages) -> Command {
    let mut command = client(world, claude);
    command.current_dir(world.project()).env("ANTHROPIC_BASE_URL", messages.base_url()).envs([
        ("ANTHROPIC_API_KEY", "sk-ant-scripted"),
        ("IS_SANDBOX", "1"),
        ("DISABLE_TELEMETRY", "1"),
        ("DISABLE_AUTOUPDATER", "1"),
        ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
    ]);
    command
}

fn claude_code_adds_it() -> Trial {
    let claude = found("claude-code/claude");
    needs("clients::claude_code::adds_it_and_connects", "Claude Code", claude, |claude| {
        let messages = Messages::start(Vec::new());
        let world = World::new();
        let mut add = claude_code(&claude, &world, &messages);
        let variable = format!("{}={}", MANUAL.0, MANUAL.1);
        add.args(["mcp", "add", "kimi-bridge", "-e", &variable, "--", BRIDGE, "serve"]);
        let ran = run(&world, &mut add);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        let ran = run(&world, claude_code(&claude, &world, &messages).args(["mcp", "list"]));
        let line = format!("kimi-bridge: {BRIDGE} serve - ");
        let health = ran.stdout.lines().find_map(|shown| shown.strip_prefix(&line));
        assert!(health.is_some_and(|health| health.contains("Connected")), "{ran:?}");
    })
}

/// The model finds the tool, as tools are found there, asks amiss, and then asks well.
fn claude_codes_model_gets_the_whole_result(era: Era, claude: &Path) {
    const CONSULT: &str = "mcp__kimi-bridge__consult_kimi";
    let world = world_with_an_answer().with(&[MANUAL]);
    let messages = Messages::start(vec![
        ("ToolSearch", json!({"query": format!("select:{CONSULT}")})),
        (CONSULT, unfit_request(&world)),
        (CONSULT, request(&world)),
    ]);
    let config = world.root().join("mcp.json");
    let server = json!({"type": "stdio", "command": BRIDGE, "args": ["serve"]});
    fs::write(&config, json!({"mcpServers": {"kimi-bridge": server}}).to_string()).unwrap();
    let mut command = claude_code(claude, &world, &messages);
    command
        .args(["-p", "Ask Kimi", "--output-format", "json", "--strict-mcp-config"])
        .args(["--allowedTools", "mcp__kimi-bridge", "--mcp-config", &config.display().to_string()])
        .env("MCP_PROTOCOL_NEGOTIATION", if era == Era::Legacy { "legacy" } else { "auto" });
    let ran = run(&world, &mut command);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let end = ran.json();
    assert_eq!((&end["result"], &end["permission_denials"]), (&json!(LAST_WORDS), &json!([])));

    let [found, refused, answered] =
        messages.tool_results().try_into().unwrap_or_else(|results: Vec<Value>| {
            panic!("not three results: {:#}", Value::Array(results))
        });
    assert_eq!(found["content"][0]["tool_name"], CONSULT, "{found:#}");
    assert_eq!(refused["is_error"], true, "{refused:#}");
    check_refusal_text(&text_of(&refused));
    assert_ne!(answered["is_error"], true, "{answered:#}");
    let result: Value = serde_json::from_str(&text_of(&answered)).expect("the model gets the JSON");
    assert_eq!(timeless(result), brief_result_of_the_shell(&world));

    // Only Claude Code's own log, somewhere in the home, tells which era it was.
    let settled = format!(r#"negotiatedProtocolVersion\":\"{}"#, version_of(era));
    let home = World::content_of(&world.home());
    assert!(home.values().any(|text| text.contains(&settled)));
}

/// The text of a `tool_result`.
fn text_of(result: &Value) -> String {
    match &result["content"] {
        Value::String(text) => text.clone(),
        blocks => {
            let blocks = blocks.as_array().into_iter().flatten();
            blocks.filter_map(|block| block["text"].as_str()).collect()
        }
    }
}
