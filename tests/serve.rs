//! What a host and its user see of `kimi-bridge serve`, in both protocol eras.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::answers::{ANSWER, verdict};
use crate::support::server::{Era, Server};
use crate::support::test;
use crate::support::world::{Ran, World, processes_with, proposal, wait_until};

pub(crate) fn tests() -> Vec<Trial> {
    let mut trials = Vec::new();
    for era in [Era::Legacy, Era::Modern] {
        let mut add = |name: &str, run: fn(Era)| {
            trials.push(test(&format!("serve::{name}::{era:?}"), move || run(era)));
        };
        add("disabled_by_default", disabled_by_default);
        add("manual_mode", manual_mode);
        add("auto_mode", auto_mode);
        add("a_refusal_says_all", a_refusal_says_all);
        add("progress_while_kimi_works", progress_while_kimi_works);
        add("a_cancelled_call_ends_kimi", a_cancelled_call_ends_kimi);
        add("a_ping_is_answered_meanwhile", a_ping_is_answered_meanwhile);
        add("the_end_of_input_ends_kimi_and_the_server", the_end_of_input);
        add("a_signal_ends_kimi_and_the_server", a_signal);
        add("answers_before_the_end_of_input_are_written", answers_before_the_end);
        add("a_short_question_is_answered_before_the_end", a_short_question);
        add("a_thread_is_read_as_a_resource", a_thread_as_a_resource);
        add("a_prompt_walks_through_the_loop", a_prompt);
    }
    trials.push(test("serve::a_wrong_setting_does_not_end_the_server", a_wrong_setting));
    trials.push(test("serve::in_a_plugin_there_are_no_prompts", in_a_plugin));
    trials.push(test("serve::whatever_a_host_writes_is_answered", whatever_is_written));
    trials.push(test("serve::an_odd_greeting_does_not_end_the_server", odd_greeting));
    trials.push(test("serve::json_as_text_is_taken", json_as_text));
    trials.push(test("serve::a_kimi_that_takes_its_time_is_waited_for", takes_its_time));
    trials.push(test("serve::over_sockets_and_files", over_sockets_and_files));
    trials.push(test(
        "serve::what_was_answered_is_written_before_the_end",
        what_was_answered_is_written,
    ));
    trials
}

fn fake(script: &str, mode: &[(&str, &str)]) -> World {
    World::with_fake("2.1.0", script).with(mode)
}

const MANUAL: [(&str, &str); 1] = [("KIMI_BRIDGE_TOOL_ENABLED", "1")];

fn tool_names(server: &mut Server) -> Vec<String> {
    let list = server.request("tools/list", json!({}));
    list["tools"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tool| tool["name"].as_str().unwrap().to_owned())
        .collect()
}

fn capabilities(server: &mut Server) -> Value {
    server.request("server/discover", json!({}))["capabilities"].clone()
}

fn disabled_by_default(era: Era) {
    let world = fake(ANSWER, &[]);
    let mut server = Server::start(&world, era);
    assert_eq!(tool_names(&mut server), ["kimi_status"]);
    let status = server.call("kimi_status", &json!({}));
    let structured = &status["structuredContent"];
    assert_eq!(structured["mode"], "disabled");
    assert!(structured["mode_hint"].as_str().unwrap().contains("KIMI_BRIDGE_TOOL_ENABLED=1"));
    assert_eq!(structured["kimi"]["dialect"], "kimi-code");
    assert_eq!(structured["kimi"]["login_seen"], true);
    assert_eq!(
        serde_json::from_str::<Value>(status["content"][0]["text"].as_str().unwrap()).unwrap(),
        *structured
    );
    let refused = server.call("consult_kimi", &proposal());
    assert_eq!(refused["isError"], true);
    assert!(refused["content"][0]["text"].as_str().unwrap().contains("KIMI_BRIDGE_TOOL_ENABLED=1"));
    for (method, field) in [
        ("resources/list", "resources"),
        ("resources/templates/list", "resourceTemplates"),
        ("prompts/list", "prompts"),
    ] {
        assert_eq!(server.request(method, json!({}))[field], json!([]), "{method}");
    }
    for (method, params) in [
        ("resources/read", json!({"uri": "kimi-bridge://threads"})),
        ("prompts/get", json!({"name": "challenge"})),
    ] {
        let refused = server.request(method, params);
        let said = refused["message"].as_str().unwrap();
        assert!(said.contains("KIMI_BRIDGE_TOOL_ENABLED=1"), "{refused:#}");
    }
    if era == Era::Modern {
        assert_eq!(capabilities(&mut server), json!({"tools": {}}));
    }
    let unknown = server.call("ask_kimi", &json!({}));
    assert_eq!(
        unknown["message"],
        "there is no tool `ask_kimi`; there are consult_kimi, record_decision and kimi_status"
    );
}

fn manual_mode(era: Era) {
    let world = fake(ANSWER, &MANUAL);
    let mut server = Server::start(&world, era);
    assert_eq!(tool_names(&mut server), ["consult_kimi", "record_decision", "kimi_status"]);
    let answer = server.call("consult_kimi", &proposal());
    assert_eq!(answer["structuredContent"]["parse_ok"], true, "{answer:#}");
    assert_eq!(answer["isError"], false);
    let mut unasked = proposal();
    unasked["initiated_by"] = json!("agent");
    let refused = server.call("consult_kimi", &unasked);
    assert_eq!(refused["isError"], true);
    assert_eq!(
        refused["structuredContent"]["error"]["message"],
        "manual mode takes no consultation that the agent starts by itself"
    );
}

/// Hosts say nothing of a server that ends, so that it serves what it can, and names the setting in every place where
/// somebody may look.
fn a_wrong_setting() {
    let setting = [("KIMI_BRIDGE_TIMEOUT_SECONDS", "15m")];
    let world = fake(ANSWER, &MANUAL).with(&setting);
    let hint = "consult_kimi is off, because a setting cannot be used. KIMI_BRIDGE_TIMEOUT_SECONDS: timeout_seconds: \
                expected a whole number. The user fixes or removes it at the place that is named first, then restarts \
                the server.";
    let mut server = Server::start_ungreeted(&world);
    let greeting = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}});
    let greeting = server.request("initialize", greeting);
    assert!(greeting["instructions"].as_str().unwrap().contains(hint), "{greeting:#}");
    server.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
    assert_eq!(tool_names(&mut server), ["kimi_status"]);
    let status = server.call("kimi_status", &json!({}));
    let status = &status["structuredContent"];
    assert_eq!((&status["mode"], &status["mode_hint"]), (&json!("disabled"), &json!(hint)));
    let refused = server.call("consult_kimi", &proposal());
    assert_eq!(refused["structuredContent"]["error"]["hint"], hint);
    let log = Ran::from(world.bridge(&["serve"]).stdin(Stdio::null()).output().unwrap());
    assert!(log.code == Some(0) && log.stderr.contains(hint), "{log:?}");

    let error = world.run(&["status"]);
    assert_eq!(error.failed(), (15, "the settings cannot be used".to_owned()));
    // A placeholder is no value, and so the default holds.
    let world = fake(ANSWER, &MANUAL).with(&[("KIMI_BRIDGE_TIMEOUT_SECONDS", "${TIMEOUT}")]);
    let mut server = Server::start(&world, Era::Modern);
    assert_eq!(tool_names(&mut server).len(), 3);
}

/// The plugin has skills in their place, and its own option for the mode.
fn in_a_plugin() {
    let world = fake(ANSWER, &MANUAL).with(&[
        ("CLAUDE_PLUGIN_ROOT", "/plugin"),
        ("KIMI_BRIDGE_AUTO_ENABLED", "${user_config.auto}"),
    ]);
    let mut server = Server::start(&world, Era::Modern);
    assert_eq!(capabilities(&mut server), json!({"tools": {}, "resources": {}}));
    assert_eq!(server.request("prompts/list", json!({}))["prompts"], json!([]));
    assert!(
        !server.request("resources/list", json!({}))["resources"].as_array().unwrap().is_empty()
    );
    let status = server.call("kimi_status", &json!({}));
    let hint = "Only when the user asks. The option `Consult Kimi unasked` of the plugin lets the agent consult \
                unasked: `/plugin configure kimi-bridge@kimi-bridge`.";
    let status = &status["structuredContent"];
    assert_eq!((&status["mode"], &status["mode_hint"]), (&json!("manual"), &json!(hint)));
    let mut unasked = proposal();
    unasked["initiated_by"] = json!("agent");
    let refused = server.call("consult_kimi", &unasked);
    assert_eq!(refused["structuredContent"]["error"]["hint"], hint);
}

fn whatever_is_written() {
    let world = fake(ANSWER, &MANUAL);
    let mut server = Server::start(&world, Era::Legacy);
    let call = |id: u64, message: &str| {
        let mut arguments = proposal();
        arguments["message"] = json!("MESSAGE");
        let params = json!({"name": "consult_kimi", "arguments": arguments});
        let line = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params})
            .to_string();
        line.replace("MESSAGE", message).into_bytes()
    };
    server.send_bytes(&call(101, "half a smile \\ud83d, please"));
    assert_eq!(server.answer(101)["structuredContent"]["parse_ok"], true);
    let mut line = call(102, "no text: ?");
    *line.iter_mut().rfind(|byte| **byte == b'?').unwrap() = 0xff;
    server.send_bytes(&line);
    assert_eq!(server.answer(102)["structuredContent"]["parse_ok"], true);
    server.send_bytes(b"{\"jsonrpc\":\"2.0\",\"id\":103,\"method\":\"tools/call\",");
    let refused = server.answer(103);
    assert!(refused["message"].as_str().unwrap().starts_with("the line is no JSON: "), "{refused}");
    server.send(&json!({"jsonrpc": "2.0", "id": 104, "method": "tools/call", "params": 7}));
    assert_eq!(server.answer(104)["message"], "the line is no request of the protocol");
    assert_eq!(tool_names(&mut server).len(), 3);
}

fn odd_greeting() {
    for params in [json!({"capabilities": {"roots": true}, "clientInfo": {"name": 7}}), json!(null)]
    {
        let world = fake(ANSWER, &MANUAL);
        let mut server = Server::start_ungreeted(&world);
        let greeting = server.request("initialize", params);
        assert_eq!(greeting["serverInfo"]["name"], "kimi-bridge", "{greeting}");
        server.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        assert_eq!(tool_names(&mut server).len(), 3);
    }
}

fn json_as_text() {
    let world = fake(ANSWER, &MANUAL);
    let mut server = Server::start(&world, Era::Legacy);
    let mut arguments = proposal();
    arguments["context"] = json!(arguments["context"].to_string());
    arguments["timeout_seconds"] = json!("60");
    arguments["thread_id"] = json!("");
    arguments["prior_exchange"] = json!({});
    arguments["wait_for_previous"] = json!(false);
    let answer = server.call("consult_kimi", &json!(arguments.to_string()));
    assert_eq!(answer["structuredContent"]["parse_ok"], true, "{answer:#}");
    let warnings = answer["structuredContent"]["warnings"].to_string();
    for said in
        ["`/context` came as text and was read as an object", "`/timeout_seconds` came as text"]
    {
        assert!(warnings.contains(said), "{warnings}");
    }
}

fn auto_mode(era: Era) {
    let world = fake(ANSWER, &MANUAL).with(&[("KIMI_BRIDGE_AUTO_ENABLED", "1")]);
    let mut server = Server::start(&world, era);
    let mut unasked = proposal();
    unasked["initiated_by"] = json!("agent");
    assert_eq!(server.call("consult_kimi", &unasked)["structuredContent"]["parse_ok"], true);
}

fn a_refusal_says_all(era: Era) {
    let world = fake("echo asked >> \"$KIMI_CODE_HOME/asked\"", &MANUAL);
    let mut server = Server::start(&world, era);
    let refused = server.call("consult_kimi", &json!({"mesage": "m", "context": {"goals": []}}));
    assert_eq!(refused["isError"], true);
    let text = refused["content"][0]["text"].as_str().unwrap();
    for said in [
        "/message: required and missing: The question, in your words",
        "/context/proposed_approach: required and missing",
        "/context/goals: expected 1 or more items",
        "/mesage: no such field",
        "did you mean /message?",
        "\"proposed_approach\": \"Append each increment",
    ] {
        assert!(text.contains(said), "{said} is not in {text}");
    }
    let error = &refused["structuredContent"]["error"];
    assert_eq!((&error["kind"], &error["retryable"]), (&json!("request"), &json!(false)));
    assert_eq!(error["violations"].as_array().unwrap().len(), 4);
    assert!(
        !world.kimis().join("asked").exists(),
        "Kimi was started for a request that does not fit"
    );
}

/// Waits at each point until the test has seen what it wants to see.
fn stepwise() -> String {
    let wait =
        |file: &str| format!("while [ ! -e \"$KIMI_CODE_HOME/{file}\" ]; do sleep 0.02; done");
    let read = r#"echo '{"role":"assistant","tool_calls":[{"id":"a","function":{"name":"Read","arguments":"{\"path\":\"src/store.rs\"}"}}]}'"#;
    let limited = r#"echo '{"role":"meta","type":"turn.step.retrying","next_attempt":2,"max_attempts":10,"delay_ms":11500,"status_code":429,"error_message":"slow"}'"#;
    format!("{read}; {}; {limited}; {}; {ANSWER}", wait("one"), wait("two"))
}

fn call_with_progress(server: &mut Server) -> u64 {
    let params =
        json!({"name": "consult_kimi", "arguments": proposal(), "_meta": {"progressToken": "p1"}});
    server.ask("tools/call", params)
}

fn progress_saying(notification: &Value, words: &str) -> bool {
    let params = &notification["params"];
    notification["method"] == "notifications/progress"
        && params["progressToken"] == "p1"
        && params["message"]
            .as_str()
            .is_some_and(|message| message.starts_with(words) && message.ends_with(" s"))
}

fn progress_while_kimi_works(era: Era) {
    let world = fake(&stepwise(), &MANUAL).with(&[("KIMI_BRIDGE_HEARTBEAT_SECONDS", "1")]);
    let mut server = Server::start(&world, era);
    let id = call_with_progress(&mut server);
    server.wait_for(|note| progress_saying(note, "reading src/store.rs · "));
    // A heartbeat comes although nothing happens.
    server.notifications.truncate(0);
    server.wait_for(|note| progress_saying(note, "reading src/store.rs · "));
    fs::write(world.kimis().join("one"), "").unwrap();
    server.wait_for(|note| progress_saying(note, "rate limited, attempt 2 of 10, next in 12 s · "));
    fs::write(world.kimis().join("two"), "").unwrap();
    assert_eq!(server.answer(id)["structuredContent"]["parse_ok"], true);
    let steps: Vec<f64> = server
        .notifications
        .iter()
        .filter_map(|note| note["params"]["progress"].as_f64())
        .collect();
    assert!(steps.windows(2).all(|pair| pair[0] < pair[1]), "{steps:?}");
}

/// A Kimi that never ends by itself, with a child of its own.
const ENDLESS: &str = "touch \"$KIMI_CODE_HOME/started\"; (exec -a \"$0-child\" sleep 1000) & wait";

fn started(server: &mut Server, world: &World) -> u64 {
    let id = call_with_progress(server);
    wait_until("Kimi runs", || world.kimis().join("started").exists());
    id
}

#[track_caller]
fn nobody_left(world: &World) {
    let fake = world.root().join("fake").display().to_string();
    wait_until("Kimi and its child are gone", || processes_with(&fake).is_empty());
}

fn a_cancelled_call_ends_kimi(era: Era) {
    let world = fake(ENDLESS, &MANUAL);
    let mut server = Server::start(&world, era);
    let id = started(&mut server, &world);
    server.send(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled",
        "params": {"requestId": id, "reason": "the user changed their mind"}}));
    nobody_left(&world);
    assert_eq!(tool_names(&mut server).len(), 3, "the server goes on");
}

/// Longer than the runtime keeps an idle thread: a run must not end with the thread that started its keeper.
fn takes_its_time() {
    let world = fake(&format!("sleep 12; {ANSWER}"), &MANUAL);
    let mut server = Server::start(&world, Era::Modern);
    let answer = server.call("consult_kimi", &proposal());
    assert_eq!(answer["structuredContent"]["parse_ok"], true, "{answer:#}");
    drop(server.close());
    let ran = world.consult(&[]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
}

/// Hosts hand over pipes, as the other tests do, or sockets; a shell may hand over files.
fn over_sockets_and_files() {
    let world = fake(ANSWER, &MANUAL);
    let request = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {}}}});
    let check = |answers: &str| {
        let lines: Vec<Value> =
            answers.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let [answer] = lines.as_slice() else { panic!("{lines:#?}") };
        assert_eq!(answer["result"]["tools"].as_array().unwrap().len(), 3);
    };

    let (mut host, server) = UnixStream::pair().unwrap();
    let mut command = world.bridge(&["serve"]);
    let stdin = Stdio::from(OwnedFd::from(server.try_clone().unwrap()));
    let mut child = command.stdin(stdin).stdout(OwnedFd::from(server)).spawn().unwrap();
    // It holds the sockets too.
    drop(command);
    writeln!(host, "{request}").unwrap();
    host.shutdown(Shutdown::Write).unwrap();
    let mut answers = String::new();
    host.read_to_string(&mut answers).unwrap();
    check(&answers);
    assert!(child.wait().unwrap().success());

    let [asked, told] = ["asked", "told"].map(|name| world.root().join(name));
    fs::write(&asked, format!("{request}\n")).unwrap();
    let mut command = world.bridge(&["serve"]);
    command.stdin(File::open(&asked).unwrap()).stdout(File::create(&told).unwrap());
    assert!(command.status().unwrap().success());
    check(&fs::read_to_string(&told).unwrap());
}

fn a_ping_is_answered_meanwhile(era: Era) {
    let world = fake(ENDLESS, &MANUAL);
    let mut server = Server::start(&world, era);
    started(&mut server, &world);
    assert_eq!(tool_names(&mut server).len(), 3);
    if era == Era::Legacy {
        assert_eq!(server.request("ping", json!({})), json!({}));
    }
    drop(server.close());
    nobody_left(&world);
}

fn the_end_of_input(era: Era) {
    let world = fake(ENDLESS, &MANUAL);
    let mut server = Server::start(&world, era);
    started(&mut server, &world);
    let (status, _) = server.close();
    assert_eq!(status.code(), Some(0));
    nobody_left(&world);
}

fn a_signal(era: Era) {
    for signal in [Signal::INT, Signal::TERM] {
        let world = fake(ENDLESS, &MANUAL);
        let mut server = Server::start(&world, era);
        started(&mut server, &world);
        assert_eq!(server.signal(signal).0.code(), Some(0));
        nobody_left(&world);
    }
}

fn answers_before_the_end(era: Era) {
    let world = fake(ANSWER, &MANUAL);
    let mut server = Server::start(&world, era);
    let ids: Vec<u64> = (0..20).map(|_| server.ask("tools/list", json!({}))).collect();
    let (status, lines) = server.close();
    assert_eq!(status.code(), Some(0));
    for id in ids {
        assert!(
            lines.iter().any(|line| line["id"] == id && line["result"]["tools"].is_array()),
            "{id} got no answer"
        );
    }
}

/// How a host leaves.
#[derive(Clone, Copy)]
enum Leaving {
    ClosesInput,
    Signals(Signal),
}

impl Leaving {
    const ALL: [Leaving; 3] =
        [Leaving::ClosesInput, Leaving::Signals(Signal::TERM), Leaving::Signals(Signal::INT)];

    /// The answers to these requests, which came before.
    fn answers<const N: usize>(self, server: Server, ids: [u64; N]) -> [Value; N] {
        let (status, lines) = match self {
            Leaving::ClosesInput => server.close(),
            Leaving::Signals(signal) => server.signal(signal),
        };
        assert_eq!(status.code(), Some(0));
        ids.map(|id| {
            let line = lines.iter().find(|line| line["id"] == id);
            line.unwrap_or_else(|| panic!("{id} got no answer"))["result"]["structuredContent"]
                .clone()
        })
    }
}

/// More than a pipe takes, for a host that reads late: it is still being written when the host leaves.
fn what_was_answered_is_written() {
    let answer = json!({"response": "word ".repeat(100_000), "findings": []});
    let line = json!({"role": "assistant", "content": answer.to_string()});
    let mut request = proposal();
    request["max_result_chars"] = json!(1_000_000);
    for leaving in Leaving::ALL {
        let world = fake("cat \"${0%/*}/answer\"", &MANUAL);
        fs::write(world.beside("answer"), format!("{line}\n")).unwrap();
        let mut server = Server::start_unheard(&world, Era::Modern);
        let params = json!({"name": "consult_kimi", "arguments": request});
        let id = server.ask("tools/call", params);
        wait_until("Kimi has answered", || {
            world.run(&["threads", "--json"]).json()[0]["state"] == "settled"
        });
        let [result] = leaving.answers(server, [id]);
        assert_eq!(result["response"], answer["response"]);
    }
}

/// A Kimi that takes its time to say its version, as those of Node and Python do.
fn a_short_question(era: Era) {
    for leaving in Leaving::ALL {
        let world = World::with_fake("2.1.0'; sleep 0.5; echo '", ANSWER);
        let mut server = Server::start(&world, era);
        let id = server.ask("tools/call", json!({"name": "kimi_status", "arguments": {}}));
        if let Leaving::Signals(_) = leaving {
            // A server that was told to go reads no more: it must have seen the question.
            server.request("tools/list", json!({}));
        }
        let [status] = leaving.answers(server, [id]);
        assert_eq!(status["kimi"]["version"], "2.1.0", "{status:#}");
    }
}

/// What a resource holds, and of which kind it is.
#[track_caller]
fn read(server: &mut Server, uri: &str) -> (String, String) {
    let result = server.request("resources/read", json!({"uri": uri}));
    let [content] = result["contents"].as_array().unwrap().as_slice() else { panic!("{result:#}") };
    assert_eq!(content["uri"], uri);
    let text = |field: &str| content[field].as_str().unwrap().to_owned();
    (text("mimeType"), text("text"))
}

fn a_thread_as_a_resource(era: Era) {
    let line = json!({"role": "assistant", "content": verdict(1, "x").to_string()});
    let world = fake("cat \"${0%/*}/answer\"", &MANUAL);
    fs::write(world.beside("answer"), format!("{line}\n")).unwrap();
    let mut server = Server::start(&world, era);
    if era == Era::Modern {
        assert_eq!(capabilities(&mut server), json!({"tools": {}, "resources": {}, "prompts": {}}));
    }
    assert_eq!(
        read(&mut server, "kimi-bridge://threads"),
        ("application/json".to_owned(), "[]".to_owned())
    );
    let answer = server.call("consult_kimi", &proposal());
    let id = answer["structuredContent"]["thread"]["id"].as_str().unwrap().to_owned();

    let listed = server.request("resources/list", json!({}));
    assert_eq!(listed["resources"][0]["uri"], "kimi-bridge://threads");
    let thread = &listed["resources"][1];
    assert_eq!(thread["uri"], format!("kimi-bridge://threads/{id}"));
    assert_eq!(thread["title"], proposal()["message"]);
    assert_eq!(thread["description"], "A thread with the skeptic: awaiting_adjudication.");
    let templates = server.request("resources/templates/list", json!({}));
    let templates = templates["resourceTemplates"].as_array().unwrap();
    let of_thread = |template: &Value, round: &str| {
        let uri = template["uriTemplate"].as_str().unwrap();
        uri.replace("{id}", &id).replace("{n}", round)
    };

    let (mime_type, threads) = read(&mut server, "kimi-bridge://threads");
    assert_eq!(mime_type, "application/json");
    let threads: Value = serde_json::from_str(&threads).unwrap();
    assert_eq!(threads, world.run(&["threads", "--json"]).json(), "as the shell lists them");
    let [thread] = threads.as_array().unwrap().as_slice() else { panic!("{threads:#}") };
    assert_eq!(
        (&thread["id"], &thread["role"], &thread["state"], &thread["message"]),
        (
            &json!(id),
            &json!("skeptic"),
            &json!("awaiting_adjudication"),
            &json!("Where does this lose data?")
        )
    );

    let exported = world.run(&["threads", "export", &id, "--format", "md"]).stdout;
    assert!(exported.contains("F1"), "{exported}");
    assert_eq!(
        read(&mut server, &of_thread(&templates[0], "")),
        ("text/markdown".to_owned(), exported)
    );

    let transcript = of_thread(&templates[1], "1");
    assert_eq!(read(&mut server, &transcript), ("text/plain".to_owned(), format!("{line}\n")));

    // 2026-07-28 has no code of its own for what is not there.
    let code = if era == Era::Modern { -32602 } else { -32002 };
    let mut refused = |uri: &str, said: &str| {
        let error = server.request("resources/read", json!({"uri": uri}));
        let message = error["message"].as_str().unwrap_or_else(|| panic!("{error:#}"));
        assert!(message.contains(said), "{said} is not in {message}");
        assert_eq!(error["code"], code, "{error:#}");
    };
    refused("kimi-bridge://threads/nobody", "there is no thread nobody");
    refused("kimi-bridge://threads/nobody/rounds/1/transcript", "there is no thread nobody");
    refused(&of_thread(&templates[1], "2"), &format!("the thread {id} has no round 2"));
    refused(
        "kimi-bridge://rounds",
        "there are kimi-bridge://threads, kimi-bridge://threads/{id} and",
    );
    let kept = world.state().join("transcripts");
    fs::remove_dir_all(kept).unwrap();
    refused(&transcript, &format!("there is no transcript of round 1 of the thread {id}"));

    // A host that works in another project finds none of them.
    let elsewhere = world.beside("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let mut other = Server::start_in(&world, era, &elsewhere);
    let none = ("application/json".to_owned(), "[]".to_owned());
    assert_eq!(read(&mut other, "kimi-bridge://threads"), none);
    for uri in [of_thread(&templates[0], ""), transcript] {
        let error = other.request("resources/read", json!({"uri": uri}));
        let message = error["message"].as_str().unwrap_or_else(|| panic!("{error:#}"));
        assert!(message.contains(&format!("there is no thread {id}")), "{message}");
    }
}

fn a_prompt(era: Era) {
    let world = fake(ANSWER, &MANUAL);
    let mut server = Server::start(&world, era);
    let list = server.request("prompts/list", json!({}));
    let names: Vec<&str> =
        list["prompts"].as_array().unwrap().iter().filter_map(|p| p["name"].as_str()).collect();
    assert_eq!(names, ["challenge", "architect", "debug", "judge", "adjudicate"]);
    for (name, argument) in [("challenge", "question"), ("adjudicate", "thread_id")] {
        let arguments = json!({argument: "ab12"});
        let prompt = server.request("prompts/get", json!({"name": name, "arguments": arguments}));
        let [message] = prompt["messages"].as_array().unwrap().as_slice() else {
            panic!("{prompt:#}")
        };
        assert_eq!(message["role"], "user");
        let text = message["content"]["text"].as_str().unwrap();
        for said in ["consult_kimi", "record_decision", "ab12"] {
            assert!(text.contains(said), "{said} is not in {text}");
        }
    }
    let unknown = server.request("prompts/get", json!({"name": "praise"}));
    assert_eq!(
        unknown["message"],
        "there is no prompt `praise`; there are challenge, architect, debug, judge, adjudicate"
    );
}
