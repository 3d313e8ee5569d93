//! The files that packages install beside the program.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use libtest_mimic::Trial;

use crate::support::test;
use crate::support::world::World;

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("packaging::every_shell_gets_completions", completions),
        test("packaging::every_command_has_a_man_page", man_pages),
    ]
}

/// A shell's start and a package's build go on whatever the settings are.
fn world_with_bad_settings() -> World {
    World::new().with(&[("KIMI_BRIDGE_TIMEOUT_SECONDS", "soon")])
}

fn completions() {
    let world = world_with_bad_settings();
    let script = |shell: &str| {
        let ran = world.run(&["completions", shell]);
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{shell}");
        assert!(ran.stdout.contains("kimi-bridge") && ran.stdout.contains("consult"), "{shell}");
        ran.stdout
    };
    for shell in ["elvish", "fish", "powershell", "zsh"] {
        script(shell);
    }
    let mut bash = Command::new("bash")
        .arg("-n")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    bash.stdin.take().unwrap().write_all(script("bash").as_bytes()).unwrap();
    let parsed = bash.wait_with_output().unwrap();
    assert_eq!((parsed.status.code(), parsed.stderr), (Some(0), Vec::new()));
}

fn man_pages() {
    let world = world_with_bad_settings();
    let folder = world.root().join("share/man1");
    let ran = world.run(&["man", &folder.display().to_string()]);
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (Some(0), "", ""));
    let help = world.run(&["--help"]).stdout;
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands = commands.map_while(|line| line.split_whitespace().next());
    let commands: Vec<&str> = commands.filter(|command| *command != "help").collect();
    assert!(commands.contains(&"consult"), "{help}");
    let mut pages: Vec<String> =
        commands.iter().map(|command| format!("kimi-bridge-{command}.1")).collect();
    pages.push("kimi-bridge.1".to_owned());
    for page in pages {
        let text = fs::read_to_string(folder.join(&page))
            .unwrap_or_else(|error| panic!("{page}: {error}"));
        assert!(text.contains(".SH SYNOPSIS"), "{page}");
    }

    let ran = world.run(&["man", "/dev/null/man1"]);
    let message = "/dev/null/man1: Not a directory (os error 20)";
    assert_eq!(ran.failed(), (2, message.to_owned()));
}
