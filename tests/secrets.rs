//! A user has secrets: none that is in a request or in the environment reaches the model, and none that
//! Kimi comes across is handed on or kept.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::Path;

use flate2::read::MultiGzDecoder;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::support::answers::verdict;
use crate::support::kimi::Real;
use crate::support::model::{Model, Step};
use crate::support::server::{Era, Server};
use crate::support::world::{World, proposal};
use crate::support::{both, test};

pub(crate) fn tests() -> Vec<Trial> {
    let mut trials: Vec<Trial> = [
        both("secrets::stay_home_and_do_not_come_back", stay_home),
        both("secrets::do_not_pass_a_host", do_not_pass_a_host),
    ]
    .into_iter()
    .flatten()
    .collect();
    trials.extend([
        test("secrets::an_error_and_what_had_arrived_hold_none", in_an_error),
        test("secrets::a_secret_that_is_wrapped_over_lines_is_found", wrapped),
        test("secrets::an_earlier_answer_and_a_decision_hold_none", in_an_argument),
        test("secrets::a_key_in_disguise_is_not_kept", in_disguise),
        test("secrets::the_users_own_patterns_count", own_patterns),
        test("secrets::a_bad_file_of_the_users_is_refused_whole", bad_file),
    ]);
    trials
}

/// Secrets of several kinds, put together here so that no scanner takes this file for a leak.
struct Planted {
    /// In the message, in the context, and in the environment.
    going: [String; 4],
    /// In a file of the project, in a call of Kimi's, and in its answer.
    coming: [String; 5],
}

fn planted() -> Planted {
    Planted {
        going: [
            format!("AKIA{}", "Q3ZKD7WXN5JRTM2H"),
            format!("ghp_{}", "a1B2c3D4".repeat(5)),
            "Winter42sun!".to_owned(),
            "q8Zr2LmXv9WcYb4sT7kP".to_owned(),
        ],
        coming: [
            format!("AKIA{}", "ZZ3KD7WXN5JRTM2H"),
            format!("xoxb-{}", "2048-4096-hN5tRd2WqYx8Kz3V"),
            format!("sk-proj-{}", "Lw6Jf1Ub9Sg4Ec7Mh2Ax8Zv3"),
            format!("glpat-{}", "Ko5Ij8Nt3Ry6Db1Vq9Xw"),
            "Summer17moon!".to_owned(),
        ],
    }
}

/// A world in which they are planted.
fn planted_in(real: Real, program: &Path, model: &Model) -> World {
    let Planted { going, coming } = planted();
    let world = World::with_real(real, program, model).with(&[
        ("ACME_TOKEN", &going[3]),
        ("ANTHROPIC_API_KEY", "sk-ant-of-the-host"),
        ("KIMI_BRIDGE_TOOL_ENABLED", "1"),
    ]);
    let config = format!("// Where it all is.\npub const KEY: &str = \"{}\";\n", coming[0]);
    fs::write(world.project().join("src/config.rs"), config).unwrap();
    world
}

/// A request with secrets in its words.
fn request() -> Value {
    let [key, token, password, variable] = planted().going;
    json!({
        "message": format!("Why does {key} not work, and {variable} does?"),
        "context": {
            "proposed_approach": format!("Set password = \"{password}\" and clone with {token}."),
            "goals": ["g"],
        },
    })
}

/// A model that comes across secrets: it reads a file with one, searches for one, and tells of others.
fn model_that_talks(real: Real) -> Model {
    let [key, searched, told, field, password] = planted().coming;
    let calls = vec![
        (real.read_tool(), json!({"path": "src/config.rs"})),
        ("Grep", json!({"pattern": searched, "path": "src"})),
    ];
    let mut answer = verdict(24, "let _ = writeln!(self.file, \"{key} {value}\");");
    answer["response"] = json!(format!("The key {told} is in the code."));
    answer["findings"][0]["claim"] = json!(format!("password: {password}"));
    answer["findings"][0]["citations"] = json!([{"path": "src/config.rs", "line_start": 2, "line_end": 2,
        "quote": format!("pub const KEY: &str = \"{key}\";")}]);
    answer[&field] = json!("a field that nobody knows");
    Model::start(vec![
        Step::TextAndCalls(format!("I look for {searched}."), calls),
        Step::Text(format!("```json\n{answer:#}\n```")),
    ])
}

#[track_caller]
fn holds_none(what: &str, text: &str, secrets: &[String]) {
    for secret in secrets {
        let near = text.find(secret.as_str()).map(|at| text[..at].chars().rev().take(80).collect());
        let near: Option<String> = near.map(|near: String| near.chars().rev().collect());
        assert_eq!(near, None, "{what} holds {secret} behind this");
    }
}

/// What the bridge keeps of the argument: the ledger, and the transcripts in plain text.
fn kept(world: &World) -> String {
    let mut kept = String::new();
    for (path, text) in World::content_of(&world.state()) {
        if path.extension().is_some_and(|extension| extension == "gz") {
            MultiGzDecoder::new(File::open(&path).unwrap()).read_to_string(&mut kept).unwrap();
        } else if path.parent() == Some(&world.state()) {
            kept += &text;
        }
    }
    kept
}

fn stay_home(real: Real, program: &Path) {
    let Planted { going, coming } = planted();
    let model = model_that_talks(real);
    let world = planted_in(real, program, &model);
    let context = world.root().join("context.json");
    fs::write(&context, request()["context"].to_string()).unwrap();
    let message = request()["message"].as_str().unwrap().to_owned();
    let context = context.display().to_string();
    let args = ["--debug", "consult", "--json", "-m", &message, "-c", &context];
    let ran = world.run(&args);
    let result = ran.json();

    let sent = json!(model.requests()).to_string();
    holds_none("what was sent", &sent, &going);
    for marker in ["aws-key", "environment", "password", "github-token"] {
        assert!(sent.contains(&format!("[redacted:{marker}]")), "{marker}: {sent}");
    }

    let all = [going.as_slice(), coming.as_slice()].concat();
    holds_none("standard output", &ran.stdout, &all);
    holds_none("standard error", &ran.stderr, &all);
    assert!(ran.stderr.contains("started"), "the log is there: {}", ran.stderr);
    let kept = kept(&world);
    holds_none("what is kept", &kept, &all);
    assert!(kept.contains("I look for [redacted:slack-token]."), "the transcript is there: {kept}");
    for (path, text) in World::content_of(&world.state()) {
        let path = path.display().to_string();
        holds_none(&path, &text, &going);
        holds_none(&path, &text, &["sk-ant-of-the-host".to_owned()]);
    }

    // A quote is held against the disk as Kimi gave it, and then redacted.
    assert_eq!(
        result["findings"][0]["citations"],
        json!([{"path": "src/config.rs", "line_start": 2, "line_end": 2,
            "quote": "pub const KEY: &str = \"[redacted:aws-key]\";", "status": "verified"}])
    );
    assert_eq!(result["response"], "The key [redacted:openai-key] is in the code.");
    assert_eq!(result["findings"][0]["claim"], "password: [redacted:password]");
    assert_eq!(
        result["warnings"],
        json!([
            "the answer's field `[redacted:gitlab-token]` was left out; it said: a field that nobody knows"
        ])
    );
    assert_eq!(
        result["evidence"][1]["args"],
        json!({"pattern": "[redacted:slack-token]", "path": "src"})
    );
    let summary = result["evidence"][0]["summary"].as_str().unwrap();
    assert!(summary.contains("KEY: &str = \"[redacted:aws-key]\";"), "{summary}");
    // Four that went, and of those that came: the file, the search, the response, the claim, the
    // field and the quote.
    assert_eq!(result["provenance"]["redactions"], 10);
}

fn do_not_pass_a_host(real: Real, program: &Path) {
    let Planted { going, coming } = planted();
    let model = model_that_talks(real);
    let world = planted_in(real, program, &model);
    let mut server = Server::start(&world, Era::Modern);
    let call =
        json!({"name": "consult_kimi", "arguments": request(), "_meta": {"progressToken": 1}});
    let result = server.request("tools/call", call);
    assert_eq!(result["isError"], false, "{result:#}");
    let told = json!(server.notifications).to_string();
    assert!(told.contains("notifications/progress"), "{told}");
    let thread = result["structuredContent"]["thread"]["id"].as_str().unwrap();
    let transcript = format!("kimi-bridge://threads/{thread}/rounds/1/transcript");
    let transcript = server.request("resources/read", json!({"uri": transcript}));
    let record =
        server.request("resources/read", json!({"uri": format!("kimi-bridge://threads/{thread}")}));
    assert!(transcript.to_string().contains("I look for [redacted:slack-token]."), "{transcript}");
    let all = [going.as_slice(), coming.as_slice()].concat();
    for text in [result.to_string(), told, transcript.to_string(), record.to_string()] {
        holds_none("what a host sees", &text, &all);
    }
}

fn in_an_error() {
    let coming = planted().coming;
    let [key, searched, told, field, password] = &coming;
    let call = json!({"role": "assistant", "content": format!("so far: {told}"), "tool_calls": [
        {"id": "a", "function": {"name": "Read", "arguments": json!({"path": searched}).to_string()}}]});
    let result = json!({"role": "tool", "tool_call_id": "a", "content": format!("1\t{key}")});
    let script = format!(
        "cat > /dev/null; echo '{call}'; echo '{result}'; echo '{{\"role\":\"{field}\"}}'; \
         echo 'error: failed to run prompt: provider.api_error: 500 password: {password}' >&2; exit 1"
    );
    let world = World::with_fake("2.1.0", &script);
    let ran = world.consult(&[]);
    let error = &ran.json()["error"];
    assert_eq!(
        (ran.code, &error["message"], &error["partial"]["response"]),
        (
            Some(21),
            &json!(
                "the service failed or could not be reached: provider.api_error: 500 password: [redacted:password]"
            ),
            &json!("so far: [redacted:openai-key]")
        )
    );
    assert_eq!(
        error["partial"]["evidence"],
        json!([{"tool": "ReadFile", "tool_call_id": "a", "args": {"path": "[redacted:slack-token]"},
            "summary": "1\t[redacted:aws-key]", "ok": true}])
    );
    for text in [&ran.stdout, &ran.stderr, &kept(&world)] {
        holds_none("the error", text, &coming);
    }

    // A request that is refused before anything runs says no more of its secrets.
    let context = world.root().join("context.json");
    fs::write(&context, json!({"goals": ["g"], going_key(): 1}).to_string()).unwrap();
    let ran = world.run(&["consult", "--json", "-m", "m", "-c", &context.display().to_string()]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stdout.contains("/context/[redacted:aws-key]"), "{ran:?}");
    holds_none("the refusal", &format!("{ran:?}"), &[going_key()]);
}

fn going_key() -> String {
    planted().going[0].clone()
}

fn wrapped() {
    let key = going_key();
    let (half, rest) = key.split_at(9);
    let script = format!(
        "cat > /dev/null; echo 'Error code: 401 - the key {half}'; echo '{rest} is wrong'; exit 1"
    );
    let world = World::with_fake("kimi, version 1.51.0", &script);
    let ran = world.consult(&[]);
    let expected = "the service refused the key or login: Error code: 401 - the key [redacted:aws-key] is wrong";
    assert_eq!(ran.json()["error"]["message"], expected);
    holds_none("what is kept", &kept(&world), &[key.clone(), rest.to_owned()]);
}

/// Keys that hold a character which cannot be seen, or that stand in an escaped text, on the way out and back.
fn in_disguise() {
    let Planted { going, coming } = planted();
    let split = |key: &str| format!("{}\u{200b}{}", &key[..9], &key[9..]);
    let said = format!("{} and \\n{} and \\u0022{}", split(&coming[0]), coming[1], coming[3]);
    let answer = json!({"response": said, "findings": []}).to_string();
    let line = json!({"role": "assistant", "content": answer}).to_string();
    let script =
        format!("printf '%s' \"$*\" > \"$KIMI_CODE_HOME/asked\"; cat <<'END'\n{line}\nEND");
    let world = World::with_fake("2.1.0", &script);
    let context = world.root().join("context.json");
    let about = json!({"proposed_approach": format!("%22{}", going[0]), "goals": ["g"]});
    fs::write(&context, about.to_string()).unwrap();
    let message = format!("Why {}?", split(&going[1]));
    let ran =
        world.run(&["consult", "--json", "-m", &message, "-c", &context.display().to_string()]);
    let result = ran.json();
    assert_eq!(
        result["response"],
        "[redacted:aws-key] and \\n[redacted:slack-token] and \\u0022[redacted:gitlab-token]"
    );
    let warnings = result["warnings"].to_string();
    assert!(
        warnings.contains("1 invisible or control character was removed from the request"),
        "{warnings}"
    );
    let thread = result["thread"]["id"].as_str().unwrap();
    let mut texts = vec![ran.stdout, kept(&world)];
    texts.push(fs::read_to_string(world.kimis().join("asked")).unwrap());
    for format in ["md", "html", "json"] {
        texts.push(world.run(&["threads", "export", thread, "--format", format]).stdout);
    }
    let all = [&going[..2], &coming[..2], &coming[3..4]].concat();
    for text in texts {
        assert!(text.contains("[redacted:"), "{text}");
        holds_none("a text", &text.replace(['\u{200b}', '\u{ad}'], ""), &all);
        holds_none("a text", &text.replace("\\u200b", ""), &all);
    }
}

fn in_an_argument() {
    let [key, _, password, _] = planted().going;
    let answer =
        json!({"role": "assistant", "content": verdict(24, "let _ = writeln!").to_string()});
    let script = format!(
        "printf '%s' \"$*\" > \"$KIMI_CODE_HOME/asked\"; echo '{}'",
        answer.to_string().replace('\'', "’")
    );
    let world = World::with_fake("2.1.0", &script).with(&[("KIMI_BRIDGE_TOOL_ENABLED", "1")]);
    let mut server = Server::start(&world, Era::Legacy);
    let mut request = proposal();
    request["prior_exchange"] = json!({"round": 1, "kimi_response": format!("F1: {key} is in the code"),
        "adjudications": [{"finding": "F1", "verdict": "REJECT", "reasoning": format!("password: {password} is not")}]});
    let result = server.call("consult_kimi", &request);
    assert_eq!(result["isError"], false, "{result:#}");
    let thread = &result["structuredContent"]["thread"]["id"];
    let decided = server.call(
        "record_decision",
        &json!({"thread_id": thread, "decision": format!("rotate {key}"), "rationale": "it leaked"}),
    );
    assert_eq!(decided["structuredContent"]["thread"]["state"], "given_up", "{decided:#}");
    let asked = fs::read_to_string(world.kimis().join("asked")).unwrap();
    assert!(asked.contains("F1: [redacted:aws-key] is in the code"), "{asked}");
    for text in [asked, kept(&world), result.to_string(), decided.to_string()] {
        holds_none("an argument", &text, &[key.clone(), password.clone()]);
    }
}

/// Writes the user's own file, and returns where.
fn users_file(world: &World, text: &str) -> String {
    let file = world.home().join(".config/kimi-bridge/secrets.yaml");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, text).unwrap();
    file.display().to_string()
}

fn own_patterns() {
    let answer = json!({"role": "assistant", "content": "The door is HK-123456."});
    let script = format!("printf '%s' \"$*\" > \"$KIMI_CODE_HOME/asked\"; echo '{answer}'");
    let world = World::with_fake("2.1.0", &script);
    users_file(&world, "values:\n  - { kind: house-key, pattern: 'HK-[0-9]{6}' }\n");
    let context = world.root().join("context.json");
    fs::write(&context, proposal()["context"].to_string()).unwrap();
    let context = context.display().to_string();
    let ran = world.run(&["consult", "--json", "-m", "Who has HK-654321?", "-c", &context]);
    assert_eq!(ran.json()["response"], "The door is [redacted:house-key].");
    let asked = fs::read_to_string(world.kimis().join("asked")).unwrap();
    assert!(asked.contains("Who has [redacted:house-key]?"), "{asked}");
}

fn bad_file() {
    let world = World::with_fake("2.1.0", "touch \"$KIMI_CODE_HOME/asked\"");
    let file = users_file(&world, "vales: []\nvalues:\n  - { kind: house-key, pattern: 'HK-(' }\n");
    let ran = world.consult(&[]);
    let error = &ran.json()["error"];
    assert_eq!((ran.code, &error["kind"]), (Some(15), &json!("settings")));
    assert_eq!(error["message"], format!("{file} cannot be used"));
    assert_eq!(
        error["violations"],
        json!([
            {"pointer": "/vales", "expected": "there is no such key; there are `values` and `files`"},
            {"pointer": "/values/0",
                "expected": "house-key: regex parse error:\n    HK-(\n       ^\nerror: unclosed group"},
        ])
    );
    assert!(!world.kimis().join("asked").exists(), "nothing was sent");
    let status = world.run(&["status", "--json"]).json();
    let problem = status["problem"].as_str().unwrap();
    assert!(problem.starts_with(&format!("{file} cannot be used: /vales: ")), "{problem}");
    let decided =
        world.run(&["threads", "decide", "nobody", "--decision", "d", "--rationale", "r"]);
    assert_eq!(decided.code, Some(15), "{decided:?}");
}
