//! The plugin as hosts read it: Claude Code accepts it, starts its server, runs a skill, and shows what its hook says.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::clients::{claude_code, found, run};
use crate::support::messages::{LAST_WORDS, Messages, PLAN_FILE, THREAD_ID};
use crate::support::world::{Ran, World, place, proposal, write_program};
use crate::support::{needs, test};

const BRIDGE: &str = env!("CARGO_BIN_EXE_kimi-bridge");
const REPOSITORY: &str = env!("CARGO_MANIFEST_DIR");

pub(crate) fn tests() -> Vec<Trial> {
    let claude = |name: &str, run: fn(&Path)| {
        let claude = found("claude-code/claude");
        needs(&format!("plugin::claude_code::{name}"), "Claude Code", claude, move |claude| {
            run(&claude);
        })
    };
    let in_a_terminal = |name: &str, run: fn(&Path, &Path)| {
        let both = found("claude-code/claude").zip(found("terminal/bin/python"));
        let name = format!("plugin::claude_code::{name}");
        needs(&name, "Claude Code and a terminal", both, move |(claude, python)| {
            run(&claude, &python);
        })
    };
    vec![
        claude("accepts_it", claude_code_accepts_it),
        claude("runs_the_loop_and_shows_the_findings", claude_code_runs_the_loop),
        in_a_terminal("shows_what_ended_in_the_background", in_the_background),
        in_a_terminal("has_a_plan_challenged_first", a_plan),
        test("plugin::the_launcher_finds_the_program", the_launcher_finds_the_program),
        test("plugin::without_the_right_program_only_the_server_complains", without_a_program),
    ]
}

fn plugin() -> PathBuf {
    Path::new(REPOSITORY).join("plugin")
}

fn claude_code_accepts_it(claude: &Path) {
    let (world, messages) = (World::new(), Messages::start(Vec::new()));
    let check = |args: &[&str], target: &Path| {
        let mut command = claude_code(claude, &world, &messages);
        command.args(["plugin", "validate", "--strict"]).args(args).arg(target);
        let ran = run(&world, &mut command);
        assert!(ran.code == Some(0) && ran.stdout.contains("Validation passed"), "{}", ran.stdout);
        ran.stdout
    };
    let said = check(&["--profile", "directory"], &plugin());
    assert!(said.contains("These checks found nothing to report"), "{said}");
    for skill in [
        "challenge",
        "architect",
        "debug",
        "judge",
        "adjudicate",
        "threads",
        "setup",
        "second-opinion",
    ] {
        assert!(said.contains(&format!("skills: kimi-bridge:{skill}\n")), "{said}");
    }
    check(&[], Path::new(REPOSITORY));
}

/// A machine with the program on PATH and a Kimi that has an answer, after this command.
fn world_with_the_program(first: &str) -> World {
    let answer = format!("{REPOSITORY}/tests/fixtures/captures/kimi-code/fenced.stdout");
    let world = World::with_fake("2.1.0", &format!("{first}\ncat > /dev/null; cat '{answer}'"));
    let bin = world.home().join("bin");
    fs::create_dir_all(&bin).unwrap();
    place(Path::new(BRIDGE), &bin.join("kimi-bridge"));
    let path = format!("{}:{}", bin.display(), world.env["PATH"]);
    world.with(&[("PATH", &path)])
}

const CONSULT: &str = "mcp__plugin_kimi-bridge_kimi__consult_kimi";
const DECIDE: &str = "mcp__plugin_kimi-bridge_kimi__record_decision";

/// The calls of a whole argument, in which both findings are adopted.
fn whole_argument() -> Vec<(&'static str, Value)> {
    let adopt = |finding: &str| json!({"finding": finding, "verdict": "ADOPT", "reasoning": "It stands there."});
    vec![
        ("ToolSearch", json!({"query": format!("select:{CONSULT},{DECIDE}")})),
        (CONSULT, proposal()),
        (
            CONSULT,
            json!({"thread_id": THREAD_ID, "initiated_by": "user",
                "prior_exchange": {"adjudications": [adopt("F1"), adopt("F2")]}}),
        ),
        (
            DECIDE,
            json!({"thread_id": THREAD_ID, "decision": "Return the error.", "rationale": "F1"}),
        ),
    ]
}

/// Nobody is asked for permission: the person typed the command.
fn claude_code_runs_the_loop(claude: &Path) {
    let world = world_with_the_program("");
    let messages = Messages::start(whole_argument());
    let mut command = claude_code(claude, &world, &messages);
    command
        .args(["-p", "/kimi-bridge:challenge some words with spaces", "--verbose"])
        .args(["--output-format", "stream-json", "--include-hook-events", "--plugin-dir"])
        .arg(plugin());
    let ran = run(&world, &mut command);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let events: Vec<Value> =
        ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [start] = of_kind(&events, "init").try_into().unwrap();
    assert_eq!(
        start["mcp_servers"],
        json!([{"name": "plugin:kimi-bridge:kimi", "status": "connected", "source": "plugin"}])
    );
    // The skills stand in place of the server's own prompts.
    let commands = start["slash_commands"].to_string();
    assert!(commands.contains("\"kimi-bridge:challenge\""), "{commands}");
    assert!(!commands.contains("kimi:challenge"), "{commands}");

    let end = events.last().unwrap();
    assert_eq!(
        (&end["result"], &end["permission_denials"]),
        (&json!(LAST_WORDS), &json!([])),
        "{end:#}"
    );
    let results = messages.tool_results();
    assert_eq!(results.len(), 4, "{results:#?}");
    assert!(results.iter().all(|result| result["is_error"] != true), "{results:#?}");
    assert!(results[3].to_string().contains(r#"\"state\":\"decided\""#), "{:#}", results[3]);
    assert!(messages.has_read("some words with spaces"), "the skill gets all words");

    for response in of_kind(&events, "hook_response") {
        assert_eq!(
            (&response["exit_code"], &response["stderr"]),
            (&json!(0), &json!("")),
            "{response:#}"
        );
    }
    let shown: Vec<&str> = of_kind(&events, "informational")
        .into_iter()
        .filter_map(|event| event["content"].as_str())
        .collect();
    for line in [
        "says: Kimi, round 1: The store loses data on a torn write and panics on malformed lines.",
        "says:   F1 blocker: `add` drops the write error, so a full disk loses increments silently",
        "says:      src/store.rs:24 (moved)",
        "says:   F2 major: `open` panics on a torn last line",
    ] {
        assert!(shown.iter().any(|text| text.contains(line)), "{line} is not in {shown:#?}");
    }
}

/// The last screen of Claude Code, where a person is: they have agreed to work in this folder before.
#[track_caller]
fn screen(
    (claude, python): (&Path, &Path),
    world: &World,
    messages: &Messages,
    steps: &[&str],
    args: &[&str],
) -> String {
    let known = json!({
        "hasCompletedOnboarding": true,
        "customApiKeyResponses": {"approved": ["sk-ant-scripted"], "rejected": []},
        "projects": {world.project().display().to_string(): {"hasTrustDialogAccepted": true}},
    });
    fs::write(world.home().join(".claude.json"), known.to_string()).unwrap();
    let script = format!("{REPOSITORY}/tests/support/terminal.py");
    let mut command = claude_code(python, world, messages);
    command.arg(script).args(steps).arg("--").arg(claude).args(args).arg("--plugin-dir");
    let ran = run(
        world,
        command
            .arg(plugin())
            .env("TERM", "xterm-256color")
            .env("CLAUDE_CODE_MCP_AUTO_BACKGROUND_MS", "1000"),
    );
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{}{}", ran.stdout, ran.stderr);
    ran.stdout
}

/// The call goes on while the agent has ended its turn, and the person sees Kimi's words when it ends.
fn in_the_background(claude: &Path, python: &Path) {
    let world = world_with_the_program("while [ ! -e \"${0%/*}/go\" ]; do sleep 0.05; done");
    let messages = Messages::start(whole_argument()[..2].to_vec());
    let go = format!("touch={}", world.beside("go").display());
    let last = format!("see=● {LAST_WORDS}");
    let shown = "see=UserPromptSubmit says: Kimi, round 1: The store loses data on a torn write";
    let steps = [
        "see=❯",
        "type=/kimi-bridge:challenge it\\r",
        &last,
        &go,
        shown,
        "see=F2 major: `open` panics",
    ];
    let screen = screen((claude, python), &world, &messages, &steps, &[]);
    let moved = messages.tool_results()[1].to_string();
    assert!(moved.contains("moved to the background"), "{moved}");
    assert!(screen.contains("F1 blocker: `add` drops the write error"), "{screen}");
    assert!(!screen.contains("hook error"), "{screen}");
}

/// The agent is sent to Kimi before the person is asked, and the argument can be closed in plan mode.
fn a_plan(claude: &Path, python: &Path) {
    let world = world_with_the_program("");
    let plan = format!("# Plan\n\n{}", "Append each increment to a log. ".repeat(20));
    let mut calls = vec![
        ("ToolSearch", json!({"query": "select:ExitPlanMode"})),
        ("Write", json!({"file_path": PLAN_FILE, "content": plan})),
        ("ExitPlanMode", json!({})),
    ];
    calls.extend(whole_argument());
    calls.push(("ExitPlanMode", json!({})));
    for (_, arguments) in &mut calls {
        if arguments.get("context").is_some() || arguments.get("initiated_by").is_some() {
            arguments["initiated_by"] = json!("agent");
        }
    }
    let messages = Messages::start(calls);
    let on = json!({"pluginConfigs": {"kimi-bridge@inline": {"options": {"auto": true}}}});
    fs::create_dir_all(world.home().join(".claude")).unwrap();
    fs::write(world.home().join(".claude/settings.json"), on.to_string()).unwrap();
    let steps = ["see=plan mode on", "type=Plan it\\r", "see=Would you like to proceed?"];
    let args = ["--permission-mode", "plan", "--allowedTools", "mcp__plugin_kimi-bridge_kimi"];
    screen((claude, python), &world, &messages, &steps, &args);
    let results = messages.tool_results();
    assert!(
        results[2].to_string().contains("Not an error: Kimi has not seen this plan"),
        "{results:#?}"
    );
    assert_eq!(results.len(), 7, "the second time the person is asked: {results:#?}");
    assert!(results[3..].iter().all(|result| result["is_error"] != true), "{results:#?}");
    assert!(results[6].to_string().contains(r#"\"state\":\"decided\""#), "{:#}", results[6]);
}

fn of_kind<'e>(events: &'e [Value], kind: &str) -> Vec<&'e Value> {
    events.iter().filter(|event| event["subtype"] == kind).collect()
}

/// The launcher of a copy of the plugin.
fn launcher(world: &World) -> PathBuf {
    let copy = world.root().join("plugin-cache/bin/kimi-bridge");
    fs::create_dir_all(copy.parent().unwrap()).unwrap();
    fs::copy(plugin().join("bin/kimi-bridge"), &copy).unwrap();
    write_program(&world.root().join("plugin-cache/.claude-plugin/plugin.json"), "{}");
    copy
}

fn launched(world: &World, path: &[&Path], args: &[&str]) -> Ran {
    let path = std::env::join_paths(
        path.iter().copied().chain([Path::new("/usr/bin"), Path::new("/bin")]),
    );
    let mut command = Command::new(launcher(world));
    command.args(args).env_clear().env("PATH", path.unwrap()).env("HOME", world.home());
    Ran::from(command.stdin(Stdio::null()).output().unwrap())
}

fn the_launcher_finds_the_program() {
    let world = World::new();
    let check = |path: &[&Path], expected: &str| {
        let ran = launched(&world, path, &["a", "b  c"]);
        let expected = format!("{expected} a,b  c");
        assert_eq!(
            (ran.code, ran.stdout.trim_end(), ran.stderr.as_str()),
            (Some(0), expected.as_str(), "")
        );
    };
    let program = |folder: &Path, name: &str| {
        let script = format!("#!/bin/sh\nIFS=,\necho \"{name} $*\"\n");
        write_program(&folder.join("kimi-bridge"), &script);
    };
    let cache = world.root().join("plugin-cache");
    program(&cache.join("node_modules/.bin"), "npm's");
    check(&[], "npm's");
    program(&world.home().join(".cargo/bin"), "cargo's");
    check(&[], "cargo's");
    // The folder of the launcher itself, and that of another version, stand on PATH as well.
    let other = world.root().join("other/bin");
    program(&other, "another launcher");
    write_program(&world.root().join("other/.claude-plugin/plugin.json"), "{}");
    let linked = world.root().join("linked");
    std::os::unix::fs::symlink(&cache, &linked).unwrap();
    let own = world.root().join("my programs");
    program(&own, "my own");
    check(&[&cache.join("bin"), &linked.join("bin"), &other, &own], "my own");
}

/// A hook that fails would show an error at each prompt.
fn without_a_program() {
    let world = World::new();
    let ran = launched(&world, &[], &["serve"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(1), ""));
    assert!(
        ran.stderr.starts_with("kimi-bridge is not installed: npm install -g kimi-bridge"),
        "{ran:?}"
    );
    for hook in ["show", "plan"] {
        let ran = launched(&world, &[], &["hook", hook]);
        assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (Some(0), "", ""));
    }
    // Nor does one in which the program is too old to know the hook.
    let old = world.root().join("old");
    write_program(&old.join("kimi-bridge"), "#!/bin/sh\necho \"error: $*\" >&2\nexit 2\n");
    let ran = launched(&world, &[&old], &["hook", "show"]);
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (Some(0), "", ""));
    let ran = launched(&world, &[&old], &["serve"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(2), "error: serve\n"));
}
