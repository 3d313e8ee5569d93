//! The map of the rooms in `lib.rs`, held against the sources.

use std::fs;
use std::path::Path;

use libtest_mimic::Trial;

use crate::support::test;

/// The rooms from the bottom up; a room may use those before it. Rooms of one line do not know each
/// other.
const FLOORS: [&[&str]; 8] = [
    &["documents", "error", "hidden"],
    &["redact", "settings", "workspace"],
    &["hosts", "sandbox"],
    &["kimi", "ledger"],
    &["job"],
    &["consult"],
    &["doctor", "mcp"],
    &["cli", "commands", "main"],
];

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("rooms::nobody_calls_upwards", nobody_calls_upwards),
        test("rooms::only_settings_reads_the_environment", only_settings_reads_the_environment),
        test("rooms::only_mcp_knows_rmcp", only_mcp_knows_rmcp),
    ]
}

fn sources() -> Vec<(String, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![src.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(&src).unwrap().display().to_string();
                let text = fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]").next().unwrap();
                let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
                found.push((name, lines.collect::<Vec<_>>().join("\n")));
            }
        }
    }
    assert!(found.len() > 20, "the sources are where they are looked for");
    found
}

fn room_of(file: &str) -> &str {
    file.split('/').next().unwrap().trim_end_matches(".rs")
}

fn floor_of(room: &str) -> usize {
    FLOORS
        .iter()
        .position(|floor| floor.contains(&room))
        .unwrap_or_else(|| panic!("{room} is on no floor"))
}

fn nobody_calls_upwards() {
    let mut upwards = Vec::new();
    for (file, code) in sources().iter().filter(|(file, _)| file != "lib.rs") {
        let room = room_of(file);
        for (_, after) in
            code.match_indices("crate::").map(|(at, word)| code[at..].split_at(word.len()))
        {
            let used: String =
                after.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let alone = ["redact", "settings", "workspace"].contains(&room);
            let same_floor = floor_of(&used) == floor_of(room) && !alone;
            if used != room && floor_of(&used) >= floor_of(room) && !same_floor {
                upwards.push(format!("{file} uses {used}"));
            }
        }
    }
    assert_eq!(upwards, Vec::<String>::new());
}

fn files_with(any: &[&str]) -> Vec<String> {
    let holds = |code: &str| any.iter().any(|&part| code.contains(part));
    let mut files: Vec<String> =
        sources().into_iter().filter(|(_, code)| holds(code)).map(|(file, _)| file).collect();
    files.sort();
    files
}

fn only_settings_reads_the_environment() {
    assert_eq!(files_with(&["env::var", "env::vars", "env::current_dir"]), ["settings.rs"]);
}

fn only_mcp_knows_rmcp() {
    assert_eq!(
        files_with(&["rmcp::"]),
        ["mcp/lines.rs", "mcp/mod.rs", "mcp/prompts.rs", "mcp/resources.rs", "mcp/server.rs"]
    );
}
