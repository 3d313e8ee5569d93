//! What a user sees at the shell.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::Command;

use libtest_mimic::Trial;

use crate::support::answers::WITH_A_FINDING;
use crate::support::server::{Era, Server};
use crate::support::test;
use crate::support::world::{Ran, World, proposal};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("commands::the_demo_needs_nothing_installed", demo),
        test("commands::every_role_prints_an_example_that_is_accepted", examples_are_accepted),
        test("commands::a_context_that_does_not_fit_is_explained", a_context_that_does_not_fit),
        test("commands::a_context_comes_from_standard_input_too", context_from_standard_input),
        test("commands::status_says_what_is_there", status),
        test("commands::bad_settings_are_all_named", bad_settings),
        test("commands::a_readable_answer", a_readable_answer),
        test("commands::an_answer_to_findings_names_its_thread", adopting_without_a_thread),
        test("commands::a_script_gets_json_of_every_error", json_of_every_error),
        test("commands::a_warning_in_a_pipe_has_no_colours", warnings_in_a_pipe),
        test("commands::what_matches_no_thread_is_named", what_matches_nothing),
        test("commands::threads_are_found_by_what_was_said", searching),
        test("commands::what_is_said_again_beside_a_thread_is_taken", said_again),
        test("commands::a_hint_names_flags", hints_name_flags),
        test("commands::a_pipe_that_closes_is_no_error", closed_pipes),
        test("commands::a_path_that_is_no_text_is_refused_in_words", paths_that_are_no_text),
        test("commands::a_name_in_the_project_may_be_no_text", names_that_are_no_text),
        test("commands::a_byte_order_mark_is_skipped", byte_order_marks),
    ]
}

fn adopting_without_a_thread() {
    let world = World::with_fake("2.1.0", ANSWER);
    let ran = world.consult(&["--adopt", "F1"]);
    let message = "--adopt and --reject answer the findings of a thread, and none is named";
    assert_eq!(ran.failed(), (2, message.to_owned()));
    assert_eq!(world.run(&["threads"]).stdout, "No threads.\n", "nothing was asked");
}

fn json_of_every_error() {
    let world = World::with_fake("2.1.0", ANSWER);
    let check = |args: &[&str], code: i32, kind: &str, message: &str| {
        let ran = world.run(args);
        assert_eq!(ran.code, Some(code), "{ran:?}");
        let error = &ran.json()["error"];
        assert_eq!(error["kind"], kind, "{error}");
        assert!(error["message"].as_str().unwrap().contains(message), "{error}");
        assert!(!ran.stderr.is_empty());
    };
    let missing = "the following required arguments were not provided";
    check(&["consult", "--json"], 2, "request", missing);
    check(&["consult", "--json", "--nope"], 2, "request", "unexpected argument '--nope'");
    check(&["consult", "--json", "-m", "m", "-c", "nowhere.yaml"], 2, "request", "cannot be read");
    check(&["consult", "--json", "--thread", "nope"], 3, "round", "there is no thread nope");
    check(&["threads", "--json", "--state", "nope"], 2, "request", "no such state");
    let world = world.with(&[("KIMI_BRIDGE_TIMEOUT_SECONDS", "soon")]);
    let ran = world.consult(&[]);
    assert_eq!((ran.code, &ran.json()["error"]["kind"]), (Some(15), &"settings".into()));
}

fn warnings_in_a_pipe() {
    let ran = World::new().with(&[("KIMI_BRIDGE_NOPE", "1")]).run(&["threads"]);
    assert!(ran.stderr.contains("KIMI_BRIDGE_NOPE is no setting of this version"), "{ran:?}");
    assert!(!ran.stderr.contains('\u{1b}'), "{ran:?}");
}

fn what_matches_nothing() {
    let world = World::with_fake("2.1.0", ANSWER);
    let run = |args: &[&str]| world.run(&[&["threads"], args].concat());
    let ran = run(&["--state", "open"]);
    assert_eq!(ran.code, Some(2));
    for said in
        ["there is no such state: unknown variant `open`, expected one of ", "`settled`", "--state"]
    {
        assert!(ran.stderr.contains(said), "{ran:?}");
    }
    let ran = run(&["--project", "/nowhere", "--state", "settled", "--search", "torn"]);
    let expected =
        "No threads of the project /nowhere in the state settled with the words \"torn\".\n";
    assert_eq!(ran.stdout, expected);
}

fn searching() {
    let world = World::with_fake("2.1.0", ANSWER);
    let file = world.root().join("context.yaml");
    fs::write(&file, "proposed_approach: p\ngoals: [g]\n").unwrap();
    let file = file.display().to_string();
    assert_eq!(world.run(&["consult", "-m", "数据库迁移会丢数据吗", "-c", &file]).code, Some(0));
    let found = |words: &str| {
        let list = world.run(&["threads", "--json", "--search", words]).json();
        list.as_array().unwrap().len()
    };
    for words in ["数据库", "迁移 丢", "", " ", "It HOLDS"] {
        assert_eq!(found(words), 1, "{words:?}");
    }
    for words in ["proposed_approach", "goals", "message", "数据仓库"] {
        assert_eq!(found(words), 0, "{words:?}");
    }
}

/// What is said again beside a thread is taken where it is the same, and named where it is not.
fn said_again() {
    let world = World::with_fake("2.1.0", WITH_A_FINDING);
    let write = |name: &str, goal: &str| {
        let file = world.root().join(name);
        fs::write(&file, format!("proposed_approach: p\ngoals: [{goal}]\n")).unwrap();
        file.display().to_string()
    };
    let (same, other) = (write("same.yaml", "g"), write("other.yaml", "h"));
    for (again, warns) in [(&same, false), (&other, true)] {
        let first = world.run(&["consult", "--json", "-m", "m", "-c", &same]).json();
        let thread = first["thread"]["id"].as_str().unwrap();
        let reject = "F1=src/main.rs:6 adds the key before it is read";
        let args =
            ["consult", "--json", "--thread", thread, "-m", "m", "-c", again, "--reject", reject];
        let second = world.run(&args).json();
        assert_eq!(second["thread"]["round"], 2, "{second:#}");
        assert_eq!(second["warnings"].to_string().contains("context"), warns, "{second:#}");
    }
}

fn hints_name_flags() {
    let world = World::with_fake("2.1.0", "sleep 60");
    let ran = world.consult(&["--timeout", "0", "--file", "nope"]);
    for said in ["- --timeout: expected 1 or more", "- --file: expected an existing path"] {
        assert!(ran.stderr.contains(said), "{ran:?}");
    }
    // A script reads the names of the fields.
    assert_eq!(ran.json()["error"]["violations"][0]["pointer"], "/timeout_seconds");
    let ran = world.consult(&["--timeout", "1"]);
    assert!(
        ran.stderr.contains("hint: Raise `--timeout`, or ask about a smaller part."),
        "{ran:?}"
    );
}

fn closed_pipes() {
    let world = World::with_fake("2.1.0", ANSWER);
    let file = world.root().join("context.yaml");
    fs::write(&file, "proposed_approach: p\ngoals: [g]\n").unwrap();
    let file = file.display().to_string();
    let closed = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        writer
    };
    let greeting = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}"#;
    let greet = world.root().join("greeting");
    fs::write(&greet, format!("{greeting}\n")).unwrap();
    for args in [
        &["--help"][..],
        &["roles"],
        &["threads"],
        &["consult", "-m", "m", "-c", &file],
        &["serve"],
    ] {
        let mut command = world.bridge(args);
        command.stdin(fs::File::open(&greet).unwrap()).stdout(closed());
        let ran = Ran::from(command.output().unwrap());
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{args:?}");
    }
    let refused = world.bridge(&["consult", "--nope"]).stderr(closed()).status().unwrap();
    assert_eq!(refused.code(), Some(2));
}

fn no_text(name: &[u8]) -> &OsStr {
    OsStr::from_bytes(name)
}

fn paths_that_are_no_text() {
    let world = World::with_fake("2.1.0", ANSWER);
    let project = world.home().join(no_text(b"caf\xe9"));
    fs::create_dir(&project).unwrap();
    let file = world.root().join("context.yaml");
    fs::write(&file, "proposed_approach: p\ngoals: [g]\n").unwrap();
    let args = ["consult", "-m", "m", "-c", &file.display().to_string()];
    let shown = project.display();
    let run = |command: &mut Command| Ran::from(command.output().unwrap()).failed();
    let not_text = (2, format!("the path of the project is not UTF-8: {shown}"));
    assert_eq!(run(world.bridge(&args).current_dir(&project)), not_text);
    assert_eq!(run(world.bridge(&args).arg("--work-dir").arg(&project)), not_text);
    let link = world.home().join("link");
    symlink(&project, &link).unwrap();
    let ran = Ran::from(world.bridge(&args).arg("--work-dir").arg(&link).output().unwrap());
    assert!(
        ran.stderr.contains(&format!(
            "--work-dir: expected a path in UTF-8, which Kimi and JSON need; rename {shown}"
        )),
        "{ran:?}"
    );
    for command in ["status", "threads", "doctor"] {
        let output = world.bridge(&[command, "--json"]).current_dir(&project).output().unwrap();
        Ran::from(output).json();
    }
    let output = world.bridge(&["status"]).env("HOME", &project).output().unwrap();
    let ran = Ran::from(output);
    assert_eq!(ran.failed(), (15, format!("{shown}: the path is not UTF-8")));

    let world = world.with(&[("KIMI_BRIDGE_TOOL_ENABLED", "1")]);
    let mut server = Server::start_in(&world, Era::Legacy, &project);
    let refused = server.call("consult_kimi", &proposal());
    assert!(
        refused["content"][0]["text"].as_str().unwrap().contains("expected a path in UTF-8"),
        "{refused}"
    );
}

fn names_that_are_no_text() {
    let world = World::with_fake("2.1.0", ANSWER);
    let folder = world.project().join(no_text(b"d\xff"));
    fs::create_dir(&folder).unwrap();
    for file in [
        folder.join(".env"),
        world.project().join(no_text(b".env.\xff")),
        folder.join(no_text(b"\xfe.rs")),
    ] {
        fs::write(file, "TOKEN=x").unwrap();
    }
    assert_eq!(world.consult(&[]).code, Some(0));
}

fn byte_order_marks() {
    let world = World::with_fake("2.1.0", ANSWER);
    let config = world.home().join(".config/kimi-bridge");
    fs::create_dir_all(&config).unwrap();
    fs::write(config.join("settings.yaml"), "\u{feff}timeout_seconds: 77\n").unwrap();
    fs::write(config.join("secrets.yaml"), "\u{feff}files: ['*.mine']\n").unwrap();
    assert!(world.run(&["status"]).stdout.contains("limits    77 s a run"));
    let file = world.root().join("context.yaml");
    fs::write(&file, "\u{feff}proposed_approach: p\ngoals: [g]\n").unwrap();
    let file = file.display().to_string();
    let ran = world.run(&["consult", "-m", "m", "-c", &file]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let ran = Ran::from(
        world
            .bridge(&["consult", "-m", "m", "-c", "-"])
            .stdin(fs::File::open(&file).unwrap())
            .output()
            .unwrap(),
    );
    assert_eq!(ran.code, Some(0), "{ran:?}");
}

const ANSWER: &str =
    r#"echo '{"role":"assistant","content":"{\"response\":\"It holds.\",\"findings\":[]}"}'"#;

fn demo() {
    let world = World::new();
    let path = world.root().join("no-programs").display().to_string();
    let world = world.with(&[("PATH", &path)]);
    let before = World::content_of(world.root());
    let ran = world.run(&["demo"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    for said in [
        "A stand-in answers: two recorded answers that are part of kimi-bridge, no model.",
        "F1 BLOCKER",
        "✓ src/store.rs:24",
        "│ let _ = writeln!(self.file, \"{key} {value}\");",
        "Kimi looked at Glob src/**/*.rs · ReadFile src/main.rs · ReadFile src/store.rs",
        "F3 REJECT: Nobody asks for another key",
        "F3 Kimi withdraws",
        "The thread is decided.",
        "demo/thread.html",
        "That was the stand-in, since no `kimi` on PATH",
    ] {
        assert!(ran.stdout.contains(said), "{said} is not in:\n{}", ran.stdout);
    }
    assert!(!ran.stdout.contains('\u{1b}'), "no colours where nobody sees them");
    let mut after = World::content_of(world.root());
    after.retain(|path, _| !path.starts_with(world.state().join("demo")));
    assert_eq!(after, before, "the demo leaves nothing behind but its record");
    for folder in [world.state(), world.state().join("demo")] {
        assert_eq!(fs::metadata(folder).unwrap().permissions().mode() & 0o777, 0o700);
    }
    let record = fs::read_to_string(world.state().join("demo/thread.md")).unwrap();
    for said in ["Nobody asks for another key", "store.add", "Return write errors"] {
        assert!(record.contains(said), "{said} is not in:\n{record}");
    }

    let result = world.run(&["demo", "--json"]).json();
    let grounded: Vec<bool> = result["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| finding["grounded"] == true)
        .collect();
    assert_eq!(grounded, [true; 4]);
    assert_eq!(result["evidence"].as_array().unwrap().len(), 3);
}

fn examples_are_accepted() {
    let answer = r#"echo '{"role":"assistant","content":"{\"response\":\"r\",\"verdict\":{},\"findings\":[]}"}'"#;
    let world = World::with_fake("2.1.0", answer);
    for role in ["skeptic", "architect", "debugger", "judge"] {
        let text = world.run(&["roles", role]).stdout;
        let example: Vec<&str> = text
            .lines()
            .skip_while(|line| !line.starts_with("# An example"))
            .take_while(|line| !line.starts_with("kimi-bridge consult"))
            .collect();
        let file = world.root().join("context.yaml");
        fs::write(&file, example.join("\n")).unwrap();
        let ran =
            world.run(&["consult", "--role", role, "-m", "m", "-c", &file.display().to_string()]);
        assert_eq!(ran.code, Some(0), "{role}: {ran:?}");
    }
    assert!(world.run(&["roles"]).stdout.contains("requires proposed_approach, goals[]"));
}

fn a_context_that_does_not_fit() {
    let world = World::with_fake("2.1.0", ANSWER);
    let file = world.root().join("context.yaml");
    fs::write(&file, "proposed_aproach: x\n").unwrap();
    let ran = world.run(&["consult", "-m", "why", "-c", &file.display().to_string()]);
    assert_eq!(ran.code, Some(2));
    assert_eq!(
        ran.stderr,
        "error: the request does not fit the role skeptic: 3 problems\n  \
         - /context/proposed_approach: required and missing: What you propose, in enough detail to attack\n  \
         - /context/goals: required and missing: What it must achieve\n  \
         - /context/proposed_aproach: no such field; known are proposed_approach, goals, constraints, known_risks \
         (did you mean /context/proposed_approach?)\n\
         hint: Fix what is listed and call again; nothing was sent to Kimi. `kimi-bridge roles skeptic` shows an \
         example.\n"
    );
    let ran = world.run(&["consult", "-m", "why", "-c", "nowhere.yaml"]);
    assert_eq!(
        ran.failed().1,
        "the context nowhere.yaml cannot be read: No such file or directory (os error 2)"
    );
    fs::write(&file, "goals: [").unwrap();
    let ran = world.run(&["consult", "-m", "why", "-c", &file.display().to_string()]);
    assert!(ran.failed().1.contains("cannot be read: did not find expected"), "{}", ran.stderr);
}

fn context_from_standard_input() {
    let world = World::with_fake("2.1.0", ANSWER);
    let file = world.root().join("context.json");
    fs::write(&file, r#"{"proposed_approach": "p", "goals": ["g"]}"#).unwrap();
    let mut command = world.bridge(&["consult", "-m", "why", "-c", "-"]);
    let output = command.stdin(fs::File::open(&file).unwrap()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

fn status() {
    let world = World::with_fake("2.1.0", ANSWER);
    let ran = world.run(&["status"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    let program = world.root().join("fake/kimi").display().to_string();
    for said in [
        "mode      disabled: ".to_owned(),
        format!("kimi      kimi-code 2.1.0 at {program} (from KIMI_PATH)"),
        "login     seen; only a consultation shows that it works".to_owned(),
        "sandbox   landlock".to_owned(),
        "limits    900 s a run".to_owned(),
    ] {
        assert!(ran.stdout.contains(&said), "{said} is not in:\n{}", ran.stdout);
    }
    let none = World::new().with(&[("PATH", "/nowhere")]).run(&["status"]);
    assert!(none.stdout.contains("no `kimi` on PATH or in its usual places"), "{}", none.stdout);
}

fn bad_settings() {
    let world = World::new()
        .with(&[("KIMI_BRIDGE_TIMEOUT_SECONDS", "soon"), ("KIMI_BRIDGE_GRACE_SECONDS", "900")]);
    let ran = world.run(&["status"]);
    assert_eq!(ran.code, Some(15));
    assert_eq!(
        ran.stderr,
        "error: the settings cannot be used\n  \
         - KIMI_BRIDGE_GRACE_SECONDS: grace_seconds: expected 0 to 60\n  \
         - KIMI_BRIDGE_TIMEOUT_SECONDS: timeout_seconds: expected a whole number\n\
         hint: Fix the problems listed; docs/settings.md describes every setting.\n"
    );
}

fn a_readable_answer() {
    let capture =
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/captures/kimi-code/fenced.stdout");
    let world = World::with_fake("2.1.0", &format!("cat '{capture}'"));
    let file = world.root().join("context.yaml");
    fs::write(&file, "proposed_approach: p\ngoals: [g]\n").unwrap();
    let ran = world.run(&["consult", "-m", "why", "-c", &file.display().to_string()]);
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    let text = ran.stdout;
    let (head, rest) = text.split_once('\n').unwrap();
    assert!(head.starts_with("Kimi's second opinion  kimi-code 2.1.0 · "), "{head}");
    // A thread's id is random.
    let id = regex::Regex::new(r"\b[0-9a-f]{10}\b").unwrap();
    insta::assert_snapshot!("a_readable_answer", id.replace_all(rest, "THREAD"));
}
