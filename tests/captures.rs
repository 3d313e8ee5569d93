//! What the real CLIs once wrote, byte for byte, played back by a program in their place: each
//! capture gives one whole result or error.

use std::fs;
use std::path::{Path, PathBuf};

use libtest_mimic::Trial;
use serde_json::Value;

use crate::support::test;
use crate::support::world::World;

pub(crate) fn tests() -> Vec<Trial> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/captures");
    let mut trials = Vec::new();
    for dialect in ["kimi-cli", "kimi-code"] {
        let mut names: Vec<PathBuf> = fs::read_dir(fixtures.join(dialect))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "stdout"))
            .collect();
        names.sort();
        for stdout in names {
            let name = format!("captures::{dialect}::{}", stdout.file_stem().unwrap().display());
            let snapshot = name.replace("::", "__");
            trials.push(test(&name, move || play_back(dialect, &stdout, &snapshot)));
        }
    }
    trials
}

fn play_back(dialect: &str, stdout: &Path, snapshot: &str) {
    let version = if dialect == "kimi-cli" { "kimi, version 1.51.0" } else { "2.1.0" };
    let path = |extension: &str| stdout.with_extension(extension).display().to_string();
    let code = fs::read_to_string(path("exit")).unwrap();
    // Read to the end as a real one does, so that nobody writes into a closed pipe.
    let script = format!(
        "cat > /dev/null; cat '{}'; cat '{}' >&2; exit {}",
        path("stdout"),
        path("stderr"),
        code.trim()
    );
    let world = World::with_fake(version, &script);
    let ran = world.consult(&[]);
    let root = world.root().canonicalize().unwrap().display().to_string();
    let mut result: Value = ran.json();
    if let Some(provenance) = result.get_mut("provenance") {
        provenance["elapsed_ms"] = Value::from("…");
    }
    // A thread's id is random.
    let id = regex::Regex::new(r"(thread_id \\?\x22|The thread |\x22id\x22: \x22)[0-9a-f]{10}\b")
        .unwrap();
    let shown = format!("exit {}\n{result:#}", ran.code.unwrap());
    insta::assert_snapshot!(
        snapshot,
        id.replace_all(&shown, "${1}THREAD")
            .replace(&root, "ROOT")
            .replace(&world.root().display().to_string(), "ROOT")
    );
}
