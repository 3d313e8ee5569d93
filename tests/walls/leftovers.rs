//! What a program leaves in the folders that it may write, and the next run: it must open nothing, run nothing, hold
//! up nothing and stay nowhere.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use rustix::process::{Signal, kill_process};
use serde_json::json;

use crate::support::answers::{ANSWER, VERSION};
use crate::support::server::{Era, Server};
use crate::support::world::{
    Ran, World, kill_all_with, processes_with, proposal, wait_until, write_program,
};
use crate::support::{attempt, test};

pub(crate) fn tests() -> Vec<Trial> {
    let opened = OPENED.iter().map(|&(name, plant, take)| {
        test(&format!("walls::a_planted::{name}"), move || opens_nothing(plant, take))
    });
    let held_up = HELD_UP.iter().map(|&(name, plant, control)| {
        test(&format!("walls::a_leftover::{name}"), move || holds_nothing_up(plant, control))
    });
    let asked = test("walls::a_version_call_leaves_nothing", a_version_call);
    let deep = test("walls::a_deep_tree_in_the_run_folder_is_removed", a_deep_tree);
    let rejected = test("walls::a_link_in_place_of_the_private_home", a_link_for_a_home);
    let killed = test("walls::a_killed_keeper_leaves_nobody", a_killed_keeper);
    let domain = test("walls::the_keeper_is_in_a_domain_around_the_program", an_outer_domain);
    let hidden = test("walls::without_a_domain_processes_are_found_in_proc", without_a_domain);
    let foreign = test("walls::children_of_the_shell_before_are_spared", foreign_children);
    let swarm = test("walls::processes_that_replace_themselves_are_ended", swarms);
    let nameless = test("walls::a_file_without_a_name_has_a_bound", a_nameless_file);
    let full = test("walls::a_run_that_fills_the_disk_is_ended", fills_the_disk);
    let large = test("walls::a_private_home_that_is_too_large_is_removed", a_large_home);
    opened
        .chain(held_up)
        .chain([
            asked, deep, rejected, killed, domain, hidden, foreign, swarm, nameless, full, large,
        ])
        .collect()
}

/// A name, a command that prepares the next run from inside a run, and one that takes what was prepared. The home is
/// prepared so that `$HOME/.ssh/id` is a secret and `$HOME/.ssh/program` runs.
const OPENED: [(&str, &str, &str); 4] = [
    ("folder_of_programs", "ln -sfn \"$HOME/.ssh\" \"$D/bin\"", "cat \"$HOME/.ssh/id\""),
    ("folder_of_programs_runs", "ln -sfn \"$HOME/.ssh\" \"$D/bin\"", "\"$HOME/.ssh/program\""),
    ("ripgrep", "rm -rf \"$D/bin\"; mkdir \"$D/bin\"; cp /bin/true \"$D/bin/rg\"", "\"$D/bin/rg\""),
    ("list_of_trusted_folders", "mkdir -p \"$D/workspace-trust/x\"", "ls \"$D/workspace-trust/x\""),
];

/// The home with a secret and a program in it.
fn with_secret(world: &World) {
    let folder = world.home().join(".ssh");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("id"), "secret\n").unwrap();
    write_program(&folder.join("program"), "#!/bin/sh\ntrue\n");
}

pub(super) fn install(world: &World, script: &str) {
    let version = "[ \"$1\" = --version ] && { echo 2.1.0; exit 0; }";
    let script = format!("#!/bin/bash\n{version}\nD=\"$KIMI_CODE_HOME\"\n{script}\n");
    write_program(&world.root().join("fake/kimi"), &script);
}

fn opens_nothing(plant: &str, take: &str) {
    let world = World::with_fake("2.1.0", "");
    with_secret(&world);
    let taken =
        format!("if ({take}) > /dev/null 2>&1; then touch \"$D/through\"; fi; {VERSION}; {ANSWER}");
    for script in [format!("{plant}; {VERSION}; {ANSWER}"), taken] {
        install(&world, &script);
        let ran = world.consult(&[]);
        assert_eq!((ran.code, &ran.json()["provenance"]["sandbox"]), (Some(0), &json!("landlock")));
    }
    assert!(!world.kimis().join("through").exists(), "{plant}, then {take}");
    outside(&world, &format!("{plant}; {take}"));
    assert_eq!(fs::read(world.home().join(".ssh/id")).unwrap(), b"secret\n");
}

/// The same without any wall, where it must succeed.
#[track_caller]
pub(super) fn outside(world: &World, script: &str) {
    let folder = world.root().join("data");
    fs::create_dir_all(&folder).unwrap();
    let mut command = Command::new("bash");
    command.args(["-c", script]).env("HOME", world.home()).env("D", &folder);
    let control = command.current_dir(world.project()).output().unwrap();
    assert!(control.status.success(), "{script} fails outside as well: {control:?}");
}

/// A program that is asked for its version, and turns out to be none that can be used.
fn a_version_call() {
    let world = World::with_fake("2.1.0", "");
    with_secret(&world);
    let plant = "for D in \"$KIMI_CODE_HOME\" \"$KIMI_SHARE_DIR\"; do ln -sfn \"$HOME/.ssh\" \"$D/bin\"; \
                 touch \"$D/planted\" \"$D/mcp.json\"; done";
    let kimi = world.root().join("fake/kimi");
    write_program(&kimi, &format!("#!/bin/bash\n{plant}\necho 'no Kimi at all'\n"));
    assert_eq!(world.consult(&[]).code, Some(10));
    let take = "cat \"$HOME/.ssh/id\" || cat \"$D/planted\" || cat \"$D/mcp.json\"";
    install(
        &world,
        &format!(
            "if ({take}) > /dev/null 2>&1; then touch \"$D/through\"; fi; {VERSION}; {ANSWER}"
        ),
    );
    let ran = world.consult(&[]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(!world.kimis().join("through").exists());
    outside(&world, &format!("touch \"$D/planted\"; {take}"));
}

/// A name, a command that a run leaves behind, and one that shows that opening it does not end.
const HELD_UP: [(&str, &str, &str); 3] = [
    (
        "pipe_for_settings",
        "rm -f \"$D/config.toml\"; mkfifo \"$D/config.toml\"",
        "cat \"$D/config.toml\"",
    ),
    ("folder_for_settings", "rm -f \"$D/config.toml\"; mkdir -p \"$D/config.toml/x\"", "sleep 9"),
    (
        "pipe_for_a_session",
        "mkdir -p \"$D/sessions/p/s/agents/main\"; mkfifo \"$D/sessions/p/s/agents/main/wire.jsonl\"",
        "cat \"$D/sessions/p/s/agents/main/wire.jsonl\"",
    ),
];

fn holds_nothing_up(plant: &str, control: &str) {
    let world = World::with_fake("2.1.0", "");
    // The run fails, so its session is looked for among what it left.
    install(&world, &format!("{plant}; {VERSION}; exit 1"));
    assert_eq!(consult(&world).code, Some(33), "{plant}");
    install(&world, &format!("{VERSION}; {ANSWER}"));
    assert_eq!(consult(&world).code, Some(0), "{plant}");
    assert_eq!(runs(&world), 0);
    let data = world.root().join("data");
    outside(&world, plant);
    let bounded = format!("timeout 1 bash -c '{control}'; [ $? -eq 124 ]");
    let shown = Command::new("bash").args(["-c", &bounded]).env("D", &data).status().unwrap();
    assert!(shown.success(), "{control} ends");
}

/// A consultation that is ended when it does not end, and that gets no more memory than a bridge needs.
#[track_caller]
pub(super) fn consult(world: &World) -> Ran {
    let context = world.root().join("context.json");
    fs::write(&context, r#"{"proposed_approach": "p", "goals": ["g"]}"#).unwrap();
    let bridge = Path::new(env!("CARGO_BIN_EXE_kimi-bridge"));
    let script = format!(
        "ulimit -v 4000000; exec '{}' consult --json -m m -c '{}'",
        bridge.display(),
        context.display()
    );
    let mut command = Command::new("bash");
    command.args(["-c", &script]).env_clear().envs(&world.env).current_dir(world.project());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > end {
            child.kill().unwrap();
            panic!("the consultation does not end");
        }
        sleep(Duration::from_millis(20));
    }
    Ran::from(child.wait_with_output().unwrap())
}

fn runs(world: &World) -> usize {
    let entries = |folder: &str| fs::read_dir(world.state().join(folder)).into_iter().flatten();
    entries("runs").count() + entries("trash").count()
}

fn a_deep_tree() {
    let world = World::with_fake("2.1.0", "");
    attempt::install(&world);
    let deep = "\"${0%/*}/attempt\" deep";
    install(
        &world,
        &format!(
            "{deep} \"$TMPDIR\" || exit 3; mkdir -m 0 \"$TMPDIR/closed\"; {VERSION}; sleep 1000"
        ),
    );
    let ran = consult(&world);
    assert_eq!(ran.code, Some(32), "{ran:?}");
    assert_eq!(runs(&world), 0);
    // The home as well, by the next run.
    install(&world, &format!("{deep} \"$D\" || exit 3; {VERSION}; sleep 1000"));
    assert_eq!(consult(&world).code, Some(32));
    install(&world, &format!("{VERSION}; {ANSWER}"));
    assert_eq!(consult(&world).code, Some(0));
    assert_eq!((runs(&world), world.kimis().join("deep").exists()), (0, false));

    let folder = world.root().join("data");
    fs::create_dir_all(&folder).unwrap();
    let done = Command::new(world.beside("attempt")).arg("deep").arg(&folder).status().unwrap();
    assert!(done.success());
    // The usual way holds a descriptor for each level.
    let usual = format!(
        "ulimit -n 1024; exec '{}' remove '{}'",
        world.beside("attempt").display(),
        folder.display()
    );
    let usual = Command::new("bash").args(["-c", &usual]).output().unwrap();
    assert!(!usual.status.success(), "the usual way removes it as well");
    let done = Command::new("rm").arg("-rf").arg(&folder).status().unwrap();
    assert!(done.success());
}

/// The kernel's memory killer may choose the keeper, and a person may kill it by hand.
fn a_killed_keeper() {
    let world = World::with_fake("2.1.0", "").with(&[("KIMI_BRIDGE_TOOL_ENABLED", "1")]);
    let seconds = 90_000 + std::process::id() % 9_000;
    let others = format!("setsid sleep {seconds} & (setsid sh -c 'sleep {seconds}; true' &)");
    install(&world, &format!("{others}; sleep 0.2; touch \"$D/ready\"; sleep {seconds}"));
    let mut server = Server::start(&world, Era::Modern);
    let asked = server.ask("tools/call", json!({"name": "consult_kimi", "arguments": proposal()}));
    wait_until("the program runs", || world.kimis().join("ready").exists());
    for (keeper, _) in server.keepers() {
        kill_process(keeper, Signal::KILL).unwrap();
    }
    let result = server.answer(asked);
    assert_eq!(result["isError"], true, "{result}");
    assert_eq!(processes_with(&format!("sleep {seconds}")), Vec::<String>::new());
    // The server goes on.
    install(&world, &format!("{VERSION}; {ANSWER}"));
    assert_ne!(server.call("consult_kimi", &proposal())["isError"], true);
    // Without a keeper they stay.
    outside(&world, &format!("{{ {others}; }} > /dev/null 2>&1"));
    wait_until("all run", || processes_with(&format!("sleep {seconds}")).len() == 3);
    kill_all_with(&format!("sleep {seconds}"));
}

fn kernel_release() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split('.').map(|number| number.parse().unwrap_or_default());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// A process that enters a domain may gain no rights from then on.
fn an_outer_domain() {
    // Older kernels have no domain that keeps signals inside.
    let scoped = if kernel_release() >= (6, 12) { "1" } else { "0" };
    for (sandbox, entered) in [("required", scoped), ("off", "0")] {
        let world = World::with_fake("2.1.0", "").with(&[("KIMI_BRIDGE_SANDBOX", sandbox)]);
        let of_keeper = "grep NoNewPrivs /proc/$PPID/status | cut -f 2 > \"$D/domain\"";
        install(&world, &format!("{of_keeper}; {VERSION}; {ANSWER}"));
        assert_eq!(consult(&world).code, Some(0));
        let domain = fs::read_to_string(world.kimis().join("domain")).unwrap();
        assert_eq!(domain.trim(), entered, "{sandbox}");
    }
}

/// Without rules the keeper has no domain, as on a kernel before Linux 6.12. It is started without a bridge, which
/// would end what it leaves.
fn without_a_domain() {
    let mark = format!("kimi-bridge-hidden-{}", std::process::id());
    let folder = tempfile::tempdir().unwrap();
    let deaf = format!(
        "setsid bash -c \"trap '' TERM HUP INT; touch ready; sleep 1000; true\" {mark} > /dev/null 2>&1 &"
    );
    let script = format!("({deaf}); until [ -e ready ]; do sleep 0.05; done");
    let text = |text: &str| json!({"Unix": text.as_bytes()});
    let order = json!({
        "rules": null, "work_dir": text(folder.path().to_str().unwrap()), "program": text("/bin/bash"),
        "args": [text("-c"), text(&script)], "env": [],
    })
    .to_string();
    let mut keeper = Command::new(env!("CARGO_BIN_EXE_kimi-bridge"));
    keeper.args(["confine", &std::process::id().to_string(), "100", "bash"]);
    let mut keeper = keeper.stdin(Stdio::piped()).spawn().unwrap();
    let bytes = [&(order.len() as u64).to_le_bytes()[..], order.as_bytes()].concat();
    keeper.stdin.take().unwrap().write_all(&bytes).unwrap();
    wait_until("the keeper ends", || keeper.try_wait().unwrap().is_some());
    assert!(folder.path().join("ready").exists());
    assert_eq!(processes_with(&mark), Vec::<String>::new());
}

/// The shell that becomes the bridge has started a program in a session of its own.
fn foreign_children() {
    let seconds = 80_000 + std::process::id() % 9_000;
    let (foreign, own) = (format!("sleep {seconds}.1"), format!("sleep {seconds}.2"));
    let world = World::with_fake("2.1.0", "").with(&[("KIMI_BRIDGE_SANDBOX", "off")]);
    install(&world, &format!("(setsid {own} &); sleep 0.2; kill -9 $PPID; {own}"));
    let start = format!("setsid {foreign} > /dev/null 2>&1 < /dev/null & exec \"$0\" \"$@\"");
    let mut command = Command::new("bash");
    command.args(["-c", &start]).arg(env!("CARGO_BIN_EXE_kimi-bridge"));
    command.args(["consult", "--json", "-m", "m", "-c", "../../context.json"]);
    fs::write(world.root().join("context.json"), r#"{"proposed_approach": "p", "goals": ["g"]}"#)
        .unwrap();
    command.env_clear().envs(&world.env).current_dir(world.project());
    let ran = Ran::from(command.stdin(Stdio::null()).output().unwrap());
    assert_ne!(ran.code, Some(0), "{ran:?}");
    let left = [&own, &foreign].map(|text| processes_with(text).len());
    kill_all_with(&format!("sleep {seconds}"));
    assert_eq!(left, [0, 1], "{ran:?}");
}

/// Processes that replace themselves all the time, and a chain that is deeper than a look at all processes is quick.
fn swarms() {
    for swarm in [
        "hop() { trap '' TERM HUP INT; ( hop ) & exit; }; for n in $(seq 30); do ( setsid bash -c \"$(declare -f hop); hop\" \"$MARK\" & ); done",
        "chain() { if [ $1 -gt 0 ]; then ( chain $(($1 - 1)) ); else sleep 1000; fi; }; \
         ( trap '' TERM HUP INT; exec setsid bash -c \"$(declare -f chain); chain 1500\" \"$MARK\" ) & sleep 6",
    ] {
        let mark = format!("kimi-bridge-swarm-{}", std::process::id());
        let world = World::with_fake("2.1.0", "");
        install(&world, &format!("MARK={mark}; {VERSION}; {ANSWER}; {swarm}"));
        let ran = consult(&world);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        for _ in 0..20 {
            assert_eq!(processes_with(&mark), Vec::<String>::new(), "{swarm}");
        }
    }
}

/// A file that has lost its name counts in no folder.
fn a_nameless_file() {
    let world = World::with_fake("2.1.0", "");
    let fill = "exec 7<> \"$D/big\"; rm \"$D/big\"; for size in 900 1100; do fallocate -l ${size}M /proc/self/fd/7; echo $? >> \"$D/ended\"; done";
    install(&world, &format!("{VERSION}; {fill}; {ANSWER}"));
    assert_eq!(consult(&world).code, Some(0));
    // SIGXFSZ
    assert_eq!(fs::read_to_string(world.kimis().join("ended")).unwrap(), "0\n153\n");
}

fn fills_the_disk() {
    for place in ["$TMPDIR/deep/er", "$D/sessions/x"] {
        let world = World::with_fake("2.1.0", "");
        let fill = format!(
            "mkdir -p \"{place}\"; fallocate -l 600M \"{place}/one\"; fallocate -l 500M \"{place}/two\""
        );
        install(&world, &format!("{VERSION}; {fill}; sleep 1000"));
        let ran = consult(&world);
        assert_eq!(ran.code, Some(32), "{ran:?}");
        let message = ran.json()["error"]["message"].to_string();
        assert!(
            message.contains("more than 1 GB, 100,000 files or 64 nested folders"),
            "{message}"
        );
        assert_eq!(runs(&world), 0);
        install(&world, &format!("[ ! -e \"$D/sessions/x\" ] || exit 1; {VERSION}; {ANSWER}"));
        assert_eq!(consult(&world).code, Some(0));
    }
}

fn a_large_home() {
    let world = World::with_fake("2.1.0", "");
    for (megabytes, stays) in [(450, true), (550, false)] {
        let fill = format!(
            "mkdir -p \"$D/sessions/x\"; for f in one two; do fallocate -l {megabytes}M \"$D/sessions/x/$f\"; done"
        );
        install(&world, &format!("{VERSION}; {ANSWER}; {fill}"));
        let ran = consult(&world);
        assert_eq!((ran.code, world.kimis().exists()), (Some(0), stays), "{ran:?}");
        assert_eq!(
            ran.json()["warnings"].to_string().contains("was removed with its sessions"),
            !stays,
            "{ran:?}"
        );
        assert_eq!(runs(&world), 0);
    }
}

fn a_link_for_a_home() {
    let world = World::with_fake("2.1.0", &format!("{VERSION}; {ANSWER}"));
    with_secret(&world);
    let home = world.kimis();
    fs::create_dir_all(home.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(world.home().join(".ssh"), &home).unwrap();
    assert_eq!(consult(&world).code, Some(0));
    assert!(!fs::symlink_metadata(&home).unwrap().is_symlink());
    let left: Vec<_> = fs::read_dir(world.home().join(".ssh"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left.len(), 2, "{left:?}");
}
