//! What a user is told, and what is left running, when a program in Kimi's place misbehaves: every fault
//! of the [`table`] with every [`ending`], and what fits into no table.
//!
//! Only where there is a `/proc` to look who is left, and a keeper that leaves nobody. Without it the bridge
//! ends a process group, and what left that is the test's to end.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};

use libtest_mimic::Trial;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use self::ending::{Ending, Held};
use self::table::Case;
use crate::support::answers::ANSWER;
use crate::support::fake::{Dialect, HERE, Pipe, Place, Script, Step};
use crate::support::server::{Era, Server};
use crate::support::world::{Ran, World, processes_with, proposal, wait_until};
use crate::support::{fake, test};

mod ending;
mod length;
mod table;

pub(crate) fn tests() -> Vec<Trial> {
    let mut trials: Vec<Trial> = table::rows().into_iter().map(row).collect();
    trials.extend(length::tests());
    trials.extend([
        test("faults::the_longest_line_is_a_setting", the_longest_line_is_a_setting),
        test("faults::interrupting_the_shell_command_ends_kimi", interrupting_ends_kimi),
        test("faults::half_an_answer_is_no_answer", half_an_answer),
        test("faults::kimi_cli_may_think_before_its_first_line", kimi_cli_thinks_first),
        test("faults::a_later_run_of_a_server_leaves_nobody", a_later_run_of_a_server),
        test("faults::a_version_that_never_ends_or_floods", a_version_that_never_ends),
        test("faults::interrupting_a_read_of_standard_input", interrupting_a_read),
        test("faults::the_log_holds_no_secret", the_log_holds_no_secret),
        test("faults::the_child_gets_none_of_the_hosts_tokens", the_childs_environment),
    ]);
    trials
}

/// One fault in one dialect, with every ending at the same time: most of it is waiting.
fn row((dialect, held, case): (Dialect, Held, Case)) -> Trial {
    let held_by = match held {
        Held::ByKeeper => "",
        Held::ByNobody => "::without_a_keeper",
    };
    let row = format!("faults::{}::{}{held_by}", case.name, dialect.name());
    test(&row.clone(), move || {
        std::thread::scope(|scope| {
            let cells = Ending::of(&case).into_iter().map(|ending| {
                // The name stands in the message of a cell that fails.
                let cell = std::thread::Builder::new().name(format!("{row}::{ending:?}"));
                let case = &case;
                let play = move || ending::check(case, dialect, held, ending);
                (ending, cell.spawn_scoped(scope, play).unwrap())
            });
            let cells: Vec<_> = cells.collect();
            let failed =
                cells.into_iter().filter_map(|(ending, cell)| cell.join().err().map(|_| ending));
            assert_eq!(failed.collect::<Vec<_>>(), [], "endings that failed");
        });
    })
}

#[track_caller]
fn check(ran: &Ran, code: i32, message: &str) {
    let error = &ran.json()["error"];
    assert_eq!((ran.code, error["message"].as_str().unwrap()), (Some(code), message), "{ran:?}");
}

/// Nobody of this world is running any more.
#[track_caller]
fn nobody_left(world: &World) {
    let root = world.root().display().to_string();
    wait_until("everybody of the run is gone", || processes_with(&root).is_empty());
}

fn the_longest_line_is_a_setting() {
    let steps = vec![Step::Begin, Step::Line(Some(100_000)), Step::Say(fake::ANSWER.to_owned())];
    let world = Script::new(Dialect::KimiCode, steps)
        .world()
        .with(&[("KIMI_BRIDGE_MAX_LINE_BYTES", "5000")]);
    let ran = world.consult(&[]);
    let warning = "a line of 100000 bytes was skipped: it is over max_line_bytes";
    assert_eq!((ran.code, &ran.json()["warnings"]), (Some(0), &json!([warning])));
}

fn interrupting_ends_kimi() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 34)] {
        let steps = vec![Step::Begin, Step::Mark(HERE.to_owned()), Step::Hang];
        let world = Script::new(Dialect::KimiCode, steps).world();
        let context = world.root().join("context.json");
        fs::write(&context, r#"{"proposed_approach": "p", "goals": ["g"]}"#).unwrap();
        let context = context.display().to_string();
        let child = started(world.bridge(&["consult", "-m", "why", "-c", &context]));
        wait_until("Kimi runs", || world.kimis().join(HERE).exists());
        send(&child, signal);
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), output.status.signal()), (Some(code), None));
        assert!(
            String::from_utf8(output.stderr)
                .unwrap()
                .starts_with("error: the call was cancelled\n")
        );
        nobody_left(&world);
    }
}

/// A command that nobody types into.
fn started(mut command: Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_raw(child.id().cast_signed()).unwrap(), signal).unwrap();
}

fn half_an_answer() {
    let half = r#"echo '{"role":"assistant","content":"I found that the"}'"#;
    let error =
        "echo 'error: failed to run prompt: provider.connection_error: terminated' >&2; exit 1";
    let ran = World::with_fake("2.1.0", &format!("{half}; {error}")).consult(&[]);
    check(
        &ran,
        21,
        "the service failed or could not be reached: provider.connection_error: terminated",
    );
    assert_eq!(ran.json()["error"]["partial"]["response"], "I found that the");
}

fn kimi_cli_thinks_first() {
    let script = format!("cat > /dev/null; sleep 2; {ANSWER}");
    let limits = [("KIMI_BRIDGE_FIRST_LINE_SECONDS", "1"), ("KIMI_BRIDGE_SILENCE_SECONDS", "60")];
    assert_eq!(
        World::with_fake("kimi, version 1.51.0", &script).with(&limits).consult(&[]).code,
        Some(0)
    );
    let world = World::with_fake("2.1.0", &script).with(&limits);
    check(&world.consult(&[]), 31, "Kimi wrote nothing within first_line_seconds (1 s)");
    nobody_left(&world);
}

/// The table's calls are the first of their servers.
fn a_later_run_of_a_server() {
    for dialect in [Dialect::KimiCode, Dialect::KimiCli] {
        for cut_off in [None, Some(Signal::TERM), Some(Signal::INT), Some(Signal::KILL)] {
            let world = Script::answering(dialect)
                .world()
                .with(&[("KIMI_BRIDGE_TOOL_ENABLED", "1"), ("KIMI_BRIDGE_GRACE_SECONDS", "1")]);
            let mut server = Server::start(&world, Era::Legacy);
            let answer = server.call("consult_kimi", &proposal());
            assert_eq!(answer["structuredContent"]["parse_ok"], true, "{answer:#}");
            wait_until("no keeper is left between two runs", || server.keepers().is_empty());
            let steps = vec![Step::IgnoreTerm, Step::Mark("stays".to_owned()), Step::Hang];
            let child = fake::Child { place: Place::Orphan, holds_pipes: true, steps };
            let steps = vec![
                Step::Begin,
                Step::IgnoreTerm,
                Step::Child(child),
                Step::Await("stays".to_owned()),
                Step::Mark(HERE.to_owned()),
                Step::Hang,
            ];
            Script::new(dialect, steps).install(&world);
            let call = json!({"name": "consult_kimi", "arguments": proposal()});
            let id = server.ask("tools/call", call);
            let here = world.private_home(dialect.name()).join(HERE);
            wait_until("the program is at its mark", || here.exists());
            if let Some(signal) = cut_off {
                drop(server.signal(signal));
            } else {
                server.send(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled",
                    "params": {"requestId": id}}));
                nobody_left(&world);
                wait_until("the keeper exits", || server.keepers().is_empty());
                drop(server.close());
            }
            nobody_left(&world);
        }
    }
}

fn a_version_that_never_ends() {
    let asked = |version| Script { version, ..Script::answering(Dialect::KimiCode) }.world();
    let world = asked(vec![Step::Flood(Pipe::Stdout)]);
    let ran = world.consult(&[]);
    let message = ran.json()["error"]["message"].as_str().unwrap().to_owned();
    let words = "does not answer `--version`: Kimi wrote more than max_run_bytes";
    assert!(ran.code == Some(40) && message.contains(words), "{ran:?}");
    nobody_left(&world);

    // The answer is there at once, and a child that holds the pipes does not delay it for long.
    let child = fake::Child { place: Place::Group, holds_pipes: true, steps: vec![Step::Hang] };
    let world = asked(vec![Step::Version, Step::Child(child)]);
    assert_eq!(world.consult(&[]).code, Some(0));
    nobody_left(&world);

    let world = asked(vec![Step::Mark(HERE.to_owned()), Step::Hang]);
    let child = started(world.bridge(&["status"]));
    wait_until("the version is asked", || world.is_marked("kimi-code", HERE));
    send(&child, Signal::INT);
    child.wait_with_output().unwrap();
    nobody_left(&world);
}

fn interrupting_a_read() {
    let world = World::with_fake("2.1.0", ANSWER);
    let mut command = world.bridge(&["consult", "-m", "why", "-c", "-"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The handlers are there once the reading thread is, which comes after those of the runtime.
    wait_until("it reads", || {
        let threads = fs::read_dir(format!("/proc/{}/task", child.id())).unwrap().count();
        threads > 3
    });
    send(&child, Signal::INT);
    // It ends although its input does not.
    let stdin = child.stdin.take();
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    assert_eq!(output.status.code(), Some(130), "{output:?}");
}

fn the_log_holds_no_secret() {
    let secret = format!("AKIA{}", "ABCDEFGHIJKLMNOP");
    let world = World::with_fake("2.1.0", ANSWER)
        .with(&[("KIMI_BRIDGE_DEBUG", "1"), ("KIMI_BRIDGE_TOOL_ENABLED", "1")]);
    let log = world.root().join("log");
    let request = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
        "name": "consult_kimi",
        "arguments": {"message": format!("why {secret}"), "context": {"proposed_approach": "p", "goals": ["g"]}},
        "_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {}}}});
    let mut command = world.bridge(&["serve"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(fs::File::create(&log).unwrap());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, format!("{request}\n").as_bytes()).unwrap();
    let mut line = String::new();
    let stdout = child.stdout.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
    drop(stdin);
    child.wait().unwrap();
    assert!(line.contains("parse_ok"), "{line}");
    let log = fs::read_to_string(&log).unwrap();
    assert!(log.contains("started") && !log.contains(&secret), "{log}");
}

fn the_childs_environment() {
    let world = World::with_fake("2.1.0", &format!("env > \"$KIMI_CODE_HOME/env\"; {ANSWER}"))
        .with(&[
            ("ANTHROPIC_API_KEY", "sk-ant-of-the-host"),
            ("CLAUDE_CODE_MESSAGING_TOKEN", "host-token"),
            ("AWS_SECRET_ACCESS_KEY", "aws"),
            ("KIMI_MODEL_NAME", "kimi-for-coding"),
        ]);
    assert_eq!(world.consult(&[]).code, Some(0));
    let env = fs::read_to_string(world.kimis().join("env")).unwrap();
    let mut names: Vec<&str> =
        env.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    names.sort_unstable();
    // The last three are the shell's own.
    let shells_own = ["PWD", "SHLVL", "_"];
    names.retain(|name| !shells_own.contains(name));
    assert_eq!(
        names,
        [
            "FASTMCP_ENV_FILE",
            "HOME",
            "KIMI_API_KEY",
            "KIMI_BRIDGE_RUN_DIR",
            "KIMI_CLI_NO_AUTO_UPDATE",
            "KIMI_CODE_HOME",
            "KIMI_CODE_NO_AUTO_UPDATE",
            "KIMI_DISABLE_TELEMETRY",
            "KIMI_MODEL_API_KEY",
            "KIMI_MODEL_NAME",
            "LANG",
            "NO_COLOR",
            "PATH",
            "RIPGREP_CONFIG_PATH",
            "SHELL",
            "TMPDIR",
        ]
    );
}
