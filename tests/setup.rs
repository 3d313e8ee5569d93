//! A user registers the bridge with the hosts of the machine, and takes it out again.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use libtest_mimic::Trial;
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::{Value, json};

use crate::support::kimi::installed;
use crate::support::report::{normal, report, with_kimi, write};
use crate::support::world::{Ran, World, place, write_program};
use crate::support::{needs, test};

const BRIDGE: &str = env!("CARGO_BIN_EXE_kimi-bridge");

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("setup::every_host_twice_and_back", every_host_twice_and_back),
        test("setup::it_shows_what_would_change", it_shows_what_would_change),
        test("setup::a_broken_file_stays_as_it_is", a_broken_file),
        test("setup::a_link_and_a_mode_are_kept", a_link_and_a_mode),
        test("setup::an_edit_since_then_stays", an_edit_since_then),
        test("setup::for_the_project", for_the_project),
        test("setup::claude_code_that_is_not_on_path", claude_code_not_on_path),
        test("setup::it_asks_at_a_terminal", it_asks_at_a_terminal),
        test("setup::a_plugin_is_enough", a_plugin_is_enough),
        test("setup::nothing_to_set_up", nothing_to_set_up),
        test("setup::a_copy_of_npx", a_copy_of_npx),
        test("setup::values_of_others_are_never_shown", values_of_others),
        test("setup::a_key_in_an_old_entry_stays_and_is_never_shown", a_key_in_an_old_entry),
        test("setup::a_pipe_is_refused_at_once", a_pipe),
        test("setup::files_of_another_user_stay_as_they_are", another_users_files),
        real("claude-code", "claude", claude_code_connects),
        real("codex", "codex", codex_knows_it),
        real("gemini", "gemini", gemini_connects),
    ]
}

/// The files of six hosts, each with something of the user's.
const FILES: [(&str, &str); 6] = [
    (".codex/config.toml", "model = 'm' # mine\r\n\r\n[mcp_servers.a]\r\ncommand = 'x'\r\n# end"),
    (".cursor/mcp.json", "{\"mcpServers\": {\"a\": {\"command\": \"x\"}}}"),
    (".config/Code/User/mcp.json", "{\n\t// none yet\n\t\"servers\": {},\n}\n"),
    (".gemini/settings.json", "{\r\n  \"ui\": {}, // mine\r\n}\r\n"),
    (".config/opencode/opencode.jsonc", ""),
    (
        ".config/zed/settings.json",
        "{\n  \"context_servers\": {\n    \"kimi-bridge\": {\"command\": {\"path\": \"kimi-bridge\", \"args\": [\"serve\"]}}\n  }\n}\n",
    ),
];

/// A machine without the hosts of the one that runs the tests.
fn without_hosts() -> World {
    let world = with_kimi("2.1.0");
    let bin = world.home().join("bin").display().to_string();
    world.with(&[("PATH", &bin)])
}

fn machine() -> World {
    let world = without_hosts();
    for (file, text) in FILES {
        write(&world.home().join(file), text);
    }
    world
}

/// Every file of the home but the bridge's own.
fn files(world: &World) -> BTreeMap<PathBuf, String> {
    let mut files = World::content_of(&world.home());
    files.retain(|file, _| !file.starts_with(world.state()));
    files
}

#[track_caller]
fn done(ran: &Ran) {
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{}", ran.stdout);
}

fn every_host_twice_and_back() {
    let world = machine();
    let before = files(&world);
    done(&world.run(&["setup", "--yes"]));
    let after = files(&world);
    let seen = report(&world);
    for host in ["Codex", "Cursor", "VS Code", "Gemini CLI", "opencode", "Zed"] {
        let (status, says, _) = &seen.checks("hosts", host)[0];
        assert_eq!(status, "ok");
        assert!(says.ends_with(" (user): this program, manual mode"), "{says}");
    }
    let again = world.run(&["setup", "--yes"]);
    done(&again);
    assert!(again.stdout.starts_with("Registered already in Codex"), "{}", again.stdout);
    assert_eq!(files(&world), after);

    done(&world.run(&["setup", "--yes", "--auto"]));
    let (_, says, _) = &report(&world).checks("hosts", "Cursor")[0];
    assert!(says.ends_with("auto mode"), "{says}");

    done(&world.run(&["setup", "--remove", "--yes"]));
    assert_eq!(files(&world), before);
}

fn it_shows_what_would_change() {
    let world = without_hosts();
    write(&world.home().join(".codex/config.toml"), "model = 'm'\n");
    write(&world.home().join(".cursor/mcp.json"), "{\"mcpServers\": {\n  \"a\": {}\n}}");
    // In the home, where a path is as long on every machine.
    let (bridge, kimi) = (world.home().join("bin/kimi-bridge"), world.home().join("bin/kimi"));
    symlink(BRIDGE, &bridge).unwrap();
    write_program(&kimi, "#!/bin/sh\necho 2.1.0\n");
    let world = world.with(&[("KIMI_PATH", &kimi.display().to_string())]);
    let before = files(&world);
    let ran = world.run(&["setup", "--dry-run", "--auto"]);
    done(&ran);
    let near = |text: &str| text.replace(&world.home().display().to_string(), "HOME");
    insta::assert_snapshot!("plan", near(&ran.stdout));
    let ran = world.run(&["setup"]);
    assert_eq!(ran.failed(), (2, "nothing was changed: there is no terminal to ask at".to_owned()));
    assert_eq!(files(&world), before);

    let ran = world.run(&["setup", "--yes"]);
    done(&ran);
    let (_, shown) = ran.stdout.split_once("✓ Codex:").unwrap();
    insta::assert_snapshot!("done", normal(&near(shown)));

    assert_eq!(
        world.run(&["setup", "curser"]).failed(),
        (2, "`curser` is no host that setup knows".to_owned())
    );
    assert!(world.run(&["setup", "curser"]).stderr.contains("Did you mean cursor?"));
}

fn a_broken_file() {
    let world = machine();
    let broken = world.home().join(".gemini/settings.json");
    write(&broken, "{\n  \"a\": 1\n  \"key\": \"sk-secret\"\n}");
    let ran = world.run(&["setup", "gemini", "cursor", "--yes"]);
    assert_eq!(ran.code, Some(15));
    let place = format!("{}: Expected comma on line 2 column 9", broken.display());
    assert!(ran.stderr.contains(&place), "{}", ran.stderr);
    assert!(!format!("{ran:?}").contains("secret"), "{ran:?}");
    assert_eq!(fs::read_to_string(&broken).unwrap(), "{\n  \"a\": 1\n  \"key\": \"sk-secret\"\n}");
    assert_eq!(report(&world).checks("hosts", "Cursor")[0].0, "ok");
}

fn a_link_and_a_mode() {
    let world = without_hosts();
    let (link, file) = (world.home().join(".cursor/mcp.json"), world.home().join("dotfiles/mcp"));
    write(&file, "{}");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    fs::create_dir_all(link.parent().unwrap()).unwrap();
    symlink("../dotfiles/mcp", &link).unwrap();
    done(&world.run(&["setup", "cursor", "--yes"]));
    assert_eq!(fs::read_link(&link).unwrap(), Path::new("../dotfiles/mcp"));
    assert!(fs::read_to_string(&file).unwrap().contains("kimi-bridge"));
    let mode = |file: &Path| fs::metadata(file).unwrap().permissions().mode() & 0o777;
    let backup = file.with_file_name("mcp.before-kimi-bridge");
    assert_eq!((mode(&file), mode(&backup)), (0o640, 0o640));
    assert_eq!(fs::read_to_string(&backup).unwrap(), "{}");
    done(&world.run(&["setup", "cursor", "--yes", "--remove"]));
    assert_eq!((fs::read_to_string(&link).unwrap().as_str(), backup.exists()), ("{}", false));
}

fn an_edit_since_then() {
    let world = machine();
    let file = world.home().join(".config/Code/User/mcp.json");
    done(&world.run(&["setup", "vscode", "--yes"]));
    let text = fs::read_to_string(&file).unwrap();
    write(
        &file,
        &text.replace("// none yet", "// one").replace("\"serve\"", "\"serve\", \"--debug\""),
    );
    done(&world.run(&["setup", "vscode", "--yes"]));
    done(&world.run(&["setup", "vscode", "--yes", "--remove"]));
    let left = fs::read_to_string(&file).unwrap();
    assert_eq!(left, "{\n\t// one\n\t\"servers\": {\n\t},\n}\n");
    let backup = fs::read_to_string(file.with_file_name("mcp.json.before-kimi-bridge")).unwrap();
    assert_eq!(backup, FILES[2].1, "the first of both is kept");
    let again = world.run(&["setup", "vscode", "--yes", "--remove"]);
    done(&again);
    assert_eq!(again.stdout, "Not registered in VS Code (~/.config/Code/User/mcp.json).\n");
}

fn for_the_project() {
    let world = without_hosts();
    symlink(BRIDGE, world.home().join("bin/kimi-bridge")).unwrap();
    let ran = world.run(&["setup", "claude-code", "gemini", "--project", "--yes"]);
    done(&ran);
    let read = |file: &str| -> Value {
        serde_json::from_str(&fs::read_to_string(world.project().join(file)).unwrap()).unwrap()
    };
    let env = json!({"KIMI_BRIDGE_TOOL_ENABLED": "1"});
    assert_eq!(
        read(".mcp.json"),
        json!({"mcpServers": {"kimi-bridge": {"type": "stdio", "command": "kimi-bridge", "args": ["serve"], "env": env}}})
    );
    assert_eq!(
        read(".gemini/settings.json"),
        json!({"mcpServers": {"kimi-bridge": {"command": "kimi-bridge", "args": ["serve"], "env": env, "timeout": 1_000_000}}})
    );
    assert!(ran.stdout.contains("choose to use it"), "{}", ran.stdout);
    done(&world.run(&["setup", "--project", "--remove", "--yes", "claude-code", "gemini"]));
    assert!(!world.project().join(".mcp.json").exists());
}

fn claude_code_not_on_path() {
    let world = without_hosts();
    write(&world.home().join(".claude.json"), "{\"numStartups\": 1}");
    let ran = world.run(&["setup", "--yes"]);
    done(&ran);
    let entry = json!({"type": "stdio", "command": BRIDGE, "args": ["serve"], "env": {"KIMI_BRIDGE_TOOL_ENABLED": "1"}});
    let line = format!("claude mcp add-json kimi-bridge '{entry}' -s user\n");
    assert!(ran.stdout.contains(&line), "{}", ran.stdout);
    assert_eq!(
        fs::read_to_string(world.home().join(".claude.json")).unwrap(),
        "{\"numStartups\": 1}"
    );
}

fn it_asks_at_a_terminal() {
    let world = machine();
    let before = files(&world);
    let answer = |answer: &[u8]| {
        let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        let name = ptsname(&terminal, Vec::new()).unwrap();
        let stdin = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
        rustix::io::write(terminal.as_fd(), answer).unwrap();
        Ran::from(world.bridge(&["setup", "cursor"]).stdin(Stdio::from(stdin)).output().unwrap())
    };
    let no = answer(b"\n");
    assert_eq!((no.code, no.stderr.as_str()), (Some(0), "\nMake this change? [y/N] "));
    assert!(no.stdout.ends_with("Nothing was changed.\n"), "{}", no.stdout);
    assert_eq!(files(&world), before);
    let yes = answer(b"y\n");
    assert_eq!(yes.code, Some(0), "{yes:?}");
    assert_eq!(report(&world).checks("hosts", "Cursor")[0].0, "ok");
}

fn a_plugin_is_enough() {
    let world = without_hosts();
    let on = json!({"enabledPlugins": {"kimi-bridge@kimi-bridge": true, "other@x": true}});
    write(&world.home().join(".claude.json"), "{}");
    write(&world.home().join(".claude/settings.json"), &on.to_string());
    write(
        &world.home().join(".codex/config.toml"),
        "[plugins.\"kimi-bridge@kimi-bridge\"]\nenabled = true\n",
    );
    let before = files(&world);
    let ran = world.run(&["setup", "--yes"]);
    done(&ran);
    let says = "Brought along by the plugin in Claude Code, Codex.\n";
    assert!(ran.stdout.starts_with(says), "{}", ran.stdout);
    assert_eq!(files(&world), before);
    // For one that is switched off, the registration is needed.
    let off = json!({"enabledPlugins": {"kimi-bridge@kimi-bridge": false}});
    write(&world.home().join(".claude/settings.json"), &off.to_string());
    let ran = world.run(&["setup", "claude-code", "--dry-run"]);
    assert!(ran.stdout.contains("\"kimi-bridge\": {"), "{}", ran.stdout);
}

fn nothing_to_set_up() {
    let world = without_hosts();
    let expected = (2, "no host that setup knows was found".to_owned());
    assert_eq!(world.run(&["setup", "--yes"]).failed(), expected);
    let nowhere = world.home().join(".cursor/mcp.json");
    fs::create_dir_all(nowhere.parent().unwrap()).unwrap();
    symlink("/no/such/file", &nowhere).unwrap();
    let ran = world.run(&["setup", "--yes"]);
    assert_eq!(
        ran.failed(),
        (15, format!("{}: it is a link that leads nowhere", nowhere.display()))
    );
    done(&world.run(&["setup", "zed", "--yes"]));
    let zed = fs::read_to_string(world.home().join(".config/zed/settings.json")).unwrap();
    assert!(zed.contains("\"timeout\": 1000"), "{zed}");
}

fn a_copy_of_npx() {
    let world = machine();
    let copy = world.home().join(".npm/_npx/1/node_modules/kimi-bridge");
    fs::create_dir_all(copy.parent().unwrap()).unwrap();
    place(Path::new(BRIDGE), &copy);
    let mut command = Command::new(&copy);
    command.args(["setup", "--yes"]).env_clear().envs(&world.env).current_dir(world.project());
    let ran = Ran::from(command.stdin(Stdio::null()).output().unwrap());
    let says = "npx runs a copy of kimi-bridge that does not stay";
    assert_eq!(ran.failed(), (2, says.to_owned()));
}

fn values_of_others() {
    let world = without_hosts();
    let text = r#"{"mcpServers": {"db": {"command": "db", "env": {"DB": "hunter2pass"}, "url": "https://u:p4ss@h"}}}"#;
    write(&world.home().join(".cursor/mcp.json"), text);
    for args in [&["setup", "cursor", "--yes"][..], &["setup", "cursor", "--remove", "--dry-run"]] {
        let ran = world.run(args);
        done(&ran);
        assert!(ran.stdout.contains("kimi-bridge"), "{}", ran.stdout);
        let shown = ["hunter2pass", "p4ss"].map(|secret| ran.stdout.contains(secret));
        assert_eq!(shown, [false, false], "{}", ran.stdout);
    }
}

fn a_key_in_an_old_entry() {
    let world = without_hosts();
    let file = world.home().join(".claude.json");
    let env = json!({"KIMI_MODEL_API_KEY": "plain-pass-1234567"});
    let old = json!({"command": "/old/kimi-bridge", "args": ["serve"], "env": env});
    write(&file, &json!({"mcpServers": {"kimi-bridge": old}}).to_string());
    let ran = world.run(&["setup", "claude-code", "--yes"]);
    done(&ran);
    assert!(!ran.stdout.contains("plain-pass"), "{}", ran.stdout);
    let entry: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    let entry = &entry["mcpServers"]["kimi-bridge"];
    assert_eq!(entry["env"]["KIMI_MODEL_API_KEY"], "plain-pass-1234567");
    assert_eq!(
        (&entry["command"], &entry["env"]["KIMI_BRIDGE_TOOL_ENABLED"]),
        (&json!(BRIDGE), &json!("1"))
    );
}

fn a_pipe() {
    let world = without_hosts();
    let file = world.home().join(".cursor/mcp.json");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
    let why = format!("{}: it is no ordinary file, or larger than 64 MB", file.display());
    assert_eq!(world.run(&["setup", "cursor", "--yes"]).failed(), (15, why));
    let seen = report(&world).checks("hosts", "Cursor");
    assert!(seen[0].1.contains("it is no ordinary file"), "{seen:?}");
}

fn another_users_files() {
    // Only root can give a home away.
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let world = machine();
    let nobody = Some(rustix::fs::Uid::from_raw(65_534));
    rustix::fs::chown(world.home(), nobody, None).unwrap();
    let before = files(&world);
    let says = format!("{} belongs to another user", world.home().display());
    assert_eq!(world.run(&["setup", "--yes"]).failed(), (2, says));
    assert_eq!(files(&world), before);
}

fn real(host: &str, program: &str, run: fn(&World, &Path)) -> Trial {
    let path = installed().join(host).join(program);
    let name = format!("setup::real::{host}");
    needs(&name, host, Some(path).filter(|path| path.is_file()), move |path| {
        let world = with_kimi("2.1.0");
        // A host runs in a folder that its user trusts, and finds the program that it was told.
        let named = world.home().join("bin").join(path.file_name().unwrap());
        write_program(&named, &format!("#!/bin/sh\nexec '{}' \"$@\"\n", path.display()));
        run(&world, &named);
    })
}

#[track_caller]
fn host(world: &World, program: &Path, args: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(args).env_clear().envs(&world.env).current_dir(world.project());
    for (name, value) in [
        ("DISABLE_TELEMETRY", "1"),
        ("DISABLE_AUTOUPDATER", "1"),
        ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
        ("GEMINI_CLI_TRUST_WORKSPACE", "true"),
    ] {
        command.env(name, value);
    }
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

fn claude_code_connects(world: &World, claude: &Path) {
    done(&world.run(&["setup", "claude-code", "--yes"]));
    let listed = host(world, claude, &["mcp", "list"]);
    assert!(listed.contains("kimi-bridge") && listed.contains("Connected"), "{listed}");
    let again = world.run(&["setup", "claude-code", "--yes"]);
    assert!(again.stdout.starts_with("Registered already in Claude Code"), "{}", again.stdout);
    // An entry that exists is changed in the file.
    done(&world.run(&["setup", "claude-code", "--yes", "--auto"]));
    let says = &report(world).checks("hosts", "Claude Code")[0].1;
    assert!(says.ends_with("(user): this program, auto mode"), "{says}");
    done(&world.run(&["setup", "claude-code", "--yes", "--remove"]));
    assert!(!host(world, claude, &["mcp", "list"]).contains("kimi-bridge"));
}

fn codex_knows_it(world: &World, codex: &Path) {
    done(&world.run(&["setup", "codex", "--yes"]));
    let known = host(world, codex, &["mcp", "get", "kimi-bridge", "--json"]);
    let known: Value =
        serde_json::from_str(&known[known.find('{').unwrap()..=known.rfind('}').unwrap()]).unwrap();
    assert_eq!(
        (&known["enabled"], &known["tool_timeout_sec"]),
        (&json!(true), &json!(1000.0)),
        "{known}"
    );
    assert_eq!(known["transport"]["command"], BRIDGE);
    assert_eq!(known["transport"]["env_vars"][0], "KIMI_PATH", "{known}");
}

fn gemini_connects(world: &World, gemini: &Path) {
    done(&world.run(&["setup", "gemini", "--yes"]));
    let listed = host(world, gemini, &["mcp", "list"]);
    assert!(listed.contains("kimi-bridge") && listed.contains("Connected"), "{listed}");
}
