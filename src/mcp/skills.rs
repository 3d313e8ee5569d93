//! The skills of the plugin, made from the texts of the slash commands in `templates/mcp`.
//! `INSTA_UPDATE=always cargo test skills` writes them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::prompts::COMMANDS;

const TOOLS: [&str; 3] = ["consult_kimi", "record_decision", "kimi_status"];
/// The tools of the plugin's server, and of a server that was registered by hand.
const SERVERS: [&str; 2] = ["mcp__plugin_kimi-bridge_kimi__", "mcp__kimi-bridge__"];

/// One skill: its name, the other fields of its head, and its text.
fn skill(name: &str, description: &str, fields: &[(&str, &str)], text: &str) -> (String, String) {
    let fields =
        [("name", name), ("description", description)].into_iter().chain(fields.iter().copied());
    let head: Vec<String> = fields.map(|(field, value)| format!("{field}: {value}")).collect();
    (format!("{name}/SKILL.md"), format!("---\n{}\n---\n\n{}\n", head.join("\n"), text.trim_end()))
}

/// Every file of the folder of skills.
fn skills() -> BTreeMap<String, String> {
    let tools: Vec<_> =
        SERVERS.iter().flat_map(|server| TOOLS.map(|tool| format!("{server}{tool}"))).collect();
    let tools = tools.join(" ");
    let typed = ("disable-model-invocation", "true");
    let walks = COMMANDS.iter().map(|walk| {
        let hint = format!("\"[{}]\"", walk.argument.name.replace('_', " "));
        let fields = [("argument-hint", hint.as_str()), typed, ("allowed-tools", &tools)];
        let text = format!("{}\nThe user's words: $ARGUMENTS", walk.text);
        skill(walk.name, walk.description, &fields, &text)
    });
    let second_opinion = skill(
        "second-opinion",
        "How to consult Kimi, a second coding agent that reads this project, and argue its findings to an end. Use when \
         the user asks for Kimi, for a second opinion or for a review by another model, and before you call consult_kimi.",
        &[("user-invocable", "false")],
        concat!(
            include_str!("../../templates/mcp/second_opinion.md"),
            "\n",
            include_str!("../../templates/mcp/loop.md")
        ),
    );
    let threads = skill(
        "threads",
        "List the arguments with Kimi, or show one.",
        &[
            ("argument-hint", "\"[thread id]\""),
            typed,
            ("allowed-tools", "Bash(kimi-bridge threads *)"),
        ],
        &format!(
            "{}\nThe user's words: $ARGUMENTS",
            include_str!("../../templates/mcp/threads.md")
        ),
    );
    let setup = skill(
        "setup",
        "Find what stands in the way of consulting Kimi, and what to do about it.",
        &[typed, ("allowed-tools", "Bash(kimi-bridge doctor *)")],
        include_str!("../../templates/mcp/setup.md"),
    );
    walks.chain([second_opinion, threads, setup]).collect()
}

/// The files that exist.
fn written(folder: &Path) -> BTreeMap<String, String> {
    let skills = fs::read_dir(folder).into_iter().flatten().flatten();
    let files = skills.flat_map(|skill| fs::read_dir(skill.path()).unwrap().flatten());
    let name = |file: PathBuf| file.strip_prefix(folder).unwrap().display().to_string();
    files.map(|file| (name(file.path()), fs::read_to_string(file.path()).unwrap())).collect()
}

#[test]
fn the_skills_of_the_plugin_are_made_from_the_words_of_the_slash_commands() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("plugin/skills");
    let expected = skills();
    if std::env::var("INSTA_UPDATE").is_ok_and(|update| update == "always") {
        let _ = fs::remove_dir_all(&folder);
        for (file, text) in &expected {
            let path = folder.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }
    let found = written(&folder);
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (file, text) in &expected {
        assert_eq!(
            &found[file], text,
            "plugin/skills/{file}: `INSTA_UPDATE=always cargo test skills` writes it anew"
        );
        // A host reads the head as YAML, where a colon in a description would begin a field.
        let head = text.split("---\n").nth(1).unwrap();
        let head: BTreeMap<String, serde_yaml::Value> = serde_yaml::from_str(head).unwrap();
        assert!(head["description"].is_string() && head["name"].is_string(), "{file}");
    }
}
