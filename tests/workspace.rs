//! What a user is told of a project that changed while Kimi ran.

use std::fs;

use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::support::answers::{ANSWER, VERSION};
use crate::support::test;
use crate::support::world::{World, wait_until};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("workspace::an_editor_that_saves_meanwhile_is_no_accusation", an_editor_saves),
        test("workspace::a_program_that_got_through_is_noticed", a_program_that_got_through),
        test("workspace::a_failed_run_tells_as_well", a_failed_run_tells),
        test("workspace::a_secret_file_that_appears_is_told", a_secret_file_appears),
    ]
}

#[track_caller]
fn check(result: &Value, changed: bool, warnings: &Value) {
    assert_eq!(
        (&result["provenance"]["workspace_changed"], &result["warnings"]),
        (&json!(changed), warnings)
    );
}

/// A program that waits for a mark before it answers, and what happens before the mark is made.
fn meanwhile(happens: impl FnOnce(&World)) -> Value {
    let wait = "touch \"$KIMI_CODE_HOME/started\"; while [ ! -e \"$KIMI_CODE_HOME/go\" ]; do sleep 0.02; done";
    let world = World::with_fake("2.1.0", &format!("{VERSION}; {wait}; {ANSWER}"));
    let ran = std::thread::scope(|scope| {
        let running = scope.spawn(|| world.consult(&[]));
        wait_until("Kimi runs", || world.kimis().join("started").exists());
        happens(&world);
        fs::write(world.kimis().join("go"), "").unwrap();
        running.join().unwrap()
    });
    assert_eq!(ran.code, Some(0), "{ran:?}");
    ran.json()
}

fn an_editor_saves() {
    let result = meanwhile(|world| {
        fs::write(world.project().join("src/store.rs"), "fn other() {}\n").unwrap();
        fs::write(world.project().join("notes.txt"), "x").unwrap();
    });
    let words = "changed while Kimi ran: notes.txt (created), src/store.rs (modified)";
    check(&result, true, &json!([words]));
    // Saved with the contents that it had.
    let result = meanwhile(|world| {
        let file = world.project().join("src/store.rs");
        fs::write(&file, fs::read(&file).unwrap()).unwrap();
    });
    check(&result, true, &json!(["changed while Kimi ran: src/store.rs (modified)"]));
    // Not saved.
    check(&meanwhile(|_| ()), false, &json!([]));
}

fn a_program_that_got_through() {
    let world = World::with_fake("2.1.0", &format!("{VERSION}; rm src/main.rs; {ANSWER}"))
        .with(&[("KIMI_BRIDGE_SANDBOX", "off")]);
    let result = world.consult(&[]).json();
    assert_eq!(result["provenance"]["workspace_changed"], true);
    let warnings = result["warnings"].to_string();
    assert!(warnings.contains("changed while Kimi ran: src/main.rs (removed)"), "{warnings}");
}

fn a_failed_run_tells() {
    let world = World::with_fake("2.1.0", &format!("{VERSION}; rm src/main.rs; exit 7"))
        .with(&[("KIMI_BRIDGE_SANDBOX", "off")]);
    let error = &world.consult(&[]).json()["error"];
    assert_eq!(error["kind"], "crashed");
    let hint = error["hint"].as_str().unwrap();
    assert!(hint.contains("changed while Kimi ran: src/main.rs (removed)"), "{hint}");
}

fn a_secret_file_appears() {
    let result = meanwhile(|world| fs::write(world.project().join("src/.env"), "K=1").unwrap());
    check(
        &result,
        true,
        &json!([
            "secret files appeared while Kimi ran, and were open to it: src/.env",
            "changed while Kimi ran: src/.env (created)"
        ]),
    );
}
