//! The walls around a hostile program, model, project and host. Each attempt is also made outside the bridge, where
//! it must succeed: one that fails anyway shows nothing.

mod leftovers;
mod login;

use std::fs;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::Path;
use std::process::Command;

use libtest_mimic::Trial;

use crate::support::answers::{ANSWER, VERSION};
use crate::support::world::{World, write_program};
use crate::support::{attempt, test};

pub(crate) fn tests() -> Vec<Trial> {
    let attempts = ATTEMPTS.iter().map(|&(name, setup, script)| {
        test(&format!("walls::a_program_cannot::{name}"), move || cannot(setup, script))
    });
    attempts
        .chain([test("walls::a_descriptor_of_the_host_is_closed", a_descriptor_of_the_host)])
        .chain(leftovers::tests())
        .chain(login::tests())
        .collect()
}

/// A name, a command that prepares the home, and one that exits with 0 only if it got through. `$HOME` is the
/// user's home, `$TRY` the program that makes system calls, `$OUTSIDE` a process of the user's.
const ATTEMPTS: [(&str, &str, &str); 11] = [
    ("talk_to_a_socket", "", "\"$TRY\" stream \"$HOME/stream.sock\""),
    ("send_to_a_socket", "", "\"$TRY\" datagram \"$HOME/datagram.sock\""),
    ("limit_another_process", "", "\"$TRY\" limits $OUTSIDE"),
    ("slow_another_process", "", "\"$TRY\" priority $OUTSIDE"),
    ("move_another_process", "", "\"$TRY\" affinity $OUTSIDE"),
    ("slow_the_input_of_another_process", "", "\"$TRY\" input_priority $OUTSIDE"),
    ("add_an_attribute", "", "\"$TRY\" attribute \"$HOME/tally/src/main.rs\""),
    ("share_memory", "", "\"$TRY\" shared_memory"),
    ("join_a_key_ring", "", "\"$TRY\" key_ring"),
    ("set_up_a_ring", "", "\"$TRY\" ring"),
    ("open_a_terminal", "", "exec 3<> /dev/ptmx"),
];

fn cannot(setup: &str, script: &str) {
    // Each way gets a world of its own, so that neither leaves anything to the other.
    let prepared = |fake: &str| {
        let world = World::with_fake("2.1.0", fake);
        attempt::install(&world);
        let done = Command::new("sh").args(["-ec", setup]).current_dir(world.home()).status();
        assert!(done.unwrap().success(), "{setup}");
        let stream = UnixListener::bind(world.home().join("stream.sock")).unwrap();
        let datagram = UnixDatagram::bind(world.home().join("datagram.sock")).unwrap();
        (world, stream, datagram)
    };
    let mut other = Command::new("sleep").arg("1000").spawn().unwrap();
    let set = format!("TRY=\"${{0%/*}}/attempt\" OUTSIDE={};", other.id());

    let inside = format!(
        "{set} if ({script}) > /dev/null 2> \"$KIMI_CODE_HOME/why\"; then echo yes > \"$KIMI_CODE_HOME/through\"; fi; \
         {VERSION}; {ANSWER}"
    );
    let (world, ..) = prepared(&inside);
    let ran = world.consult(&[]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(ran.json()["provenance"]["sandbox"], "landlock");
    let why = fs::read_to_string(world.kimis().join("why")).unwrap();
    let through = world.kimis().join("through").exists();

    let (world, _stream, _datagram) = prepared("");
    let outside = world.root().join("fake/outside");
    write_program(&outside, &format!("#!/bin/bash\n{set} {script}\n"));
    let control = Command::new(&outside).env("HOME", world.home()).output().unwrap();
    other.kill().unwrap();
    other.wait().unwrap();
    assert!(control.status.success(), "{script} fails outside as well: {control:?}");
    assert!(!through, "{script} got through");
    assert!(why.contains("ermission denied") || why.contains("not permitted"), "{script}: {why}");
}

fn a_descriptor_of_the_host() {
    let script = format!("echo x >&9; cat <&9; {VERSION}; {ANSWER}");
    let world = World::with_fake("2.1.0", &script);
    let left = world.home().join("left");
    let with_descriptor = |program: &str| {
        fs::write(&left, "").unwrap();
        let open = format!("exec 9<> \"$HOME/left\"; {program}");
        let done =
            Command::new("sh").args(["-c", &open]).env_clear().envs(&world.env).output().unwrap();
        (done, fs::read_to_string(&left).unwrap())
    };
    let bridge = Path::new(env!("CARGO_BIN_EXE_kimi-bridge"));
    let context = world.root().join("context.json");
    fs::write(&context, r#"{"proposed_approach": "p", "goals": ["g"]}"#).unwrap();
    let consult = format!(
        "cd \"$HOME/tally\"; exec {} consult --message m --context {}",
        bridge.display(),
        context.display()
    );
    let (done, text) = with_descriptor(&consult);
    assert!(done.status.success(), "{done:?}");
    assert_eq!(text, "", "the program wrote through a descriptor of the host");
    assert_eq!(with_descriptor("sh -c 'echo x >&9'").1, "x\n");
}
