//! The map of the rooms in `lib.rs`, held against the sources.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use libtest_mimic::Trial;
use regex::Regex;

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
    &["doctor", "hook", "mcp", "setup"],
    &["cli", "commands", "main"],
];

/// Files that only tests are compiled with.
const TESTS: [&str; 4] =
    ["job/citation/forms.rs", "consult/export/fixture.rs", "mcp/skills.rs", "workspace/fixture.rs"];

static TESTS_AT_THE_END: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"#\[cfg\(test\)\]\n(pub\(crate\) )?mod tests").unwrap());

/// The most lines of a file, without its tests and comments.
const LONGEST: usize = 400;

/// Types whose name is right in two rooms, each with the reason.
const SHARED_NAMES: [(&str, &str); 0] = [];

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("rooms::nobody_calls_upwards", nobody_calls_upwards),
        test("rooms::only_settings_reads_the_environment", only_settings_reads_the_environment),
        test("rooms::only_mcp_knows_rmcp", only_mcp_knows_rmcp),
        test("rooms::no_files_use_each_other_in_a_circle", no_circles),
        test("rooms::no_two_rooms_have_a_type_of_one_name", no_two_types),
        test("rooms::no_file_is_too_long", no_long_file),
    ]
}

/// Every file by its path in `src`, without its tests and comments; files that are tests as a whole are left out.
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
                if TESTS.contains(&name.as_str()) {
                    continue;
                }
                let code = TESTS_AT_THE_END.split(&text).next().unwrap();
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

/// The module of a file, `job::citation` for `job/citation/mod.rs`.
fn module_of(file: &str) -> String {
    let module = file.trim_end_matches(".rs").trim_end_matches("/mod");
    if module == "lib" { String::new() } else { module.replace('/', "::") }
}

/// The paths that a file names: those of its `use` lines, and those in its code that lead to another file. What it only
/// shows to others does not count.
fn paths_in(code: &str, children: &[&str]) -> Vec<String> {
    let strip =
        Regex::new(r#"(?s)pub\(in [^)]*\)|pub(\([a-z]+\))? use [^;]*;|"(\\.|[^"\\])*""#).unwrap();
    let code = strip.replace_all(code, "");
    let uses = Regex::new(r"(?s)\buse ([^;]*);").unwrap();
    let mut paths = Vec::new();
    for tree in uses.captures_iter(&code) {
        expand("", &tree[1].split_whitespace().collect::<Vec<_>>().join(" "), &mut paths);
    }
    let rest = uses.replace_all(&code, "");
    let inline = Regex::new(r"\b(?:crate|super|self)(?:::\w+)+").unwrap();
    paths.extend(inline.find_iter(&rest).map(|path| path.as_str().to_owned()));
    let heads = Regex::new(r"(?:^|[^\w:])(\w+)::").unwrap();
    let heads = heads.captures_iter(&rest).map(|head| head[1].to_owned());
    paths.extend(
        heads.filter(|head| children.contains(&head.as_str())).map(|head| format!("self::{head}")),
    );
    paths
}

/// Takes a tree of `use` apart: `a::{b, c::{d}}` is `a::b` and `a::c::d`.
fn expand(before: &str, tree: &str, paths: &mut Vec<String>) {
    let tree = tree.trim();
    let Some((head, rest)) = tree.split_once('{') else {
        paths.push(format!("{before}{}", tree.split(" as ").next().unwrap()));
        return;
    };
    let inside = rest.rsplit_once('}').unwrap().0;
    let (mut depth, mut start) = (0, 0);
    for (at, mark) in inside.char_indices().chain([(inside.len(), ',')]) {
        match mark {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if !inside[start..at].trim().is_empty() {
                    expand(&format!("{before}{head}"), &inside[start..at], paths);
                }
                start = at + 1;
            }
            _ => {}
        }
    }
}

/// The module that a path leads to from another one: the longest part of it that is a file.
fn target<'m>(path: &str, from: &str, modules: &'m BTreeSet<String>) -> Option<&'m String> {
    let mut base: Vec<&str> = from.split("::").filter(|part| !part.is_empty()).collect();
    let mut parts = path.split("::").peekable();
    match parts.next()? {
        "crate" => base.clear(),
        "self" => {}
        "super" => {
            base.pop();
            while parts.next_if_eq(&"super").is_some() {
                base.pop();
            }
        }
        _ => return None,
    }
    base.extend(parts);
    (1..=base.len()).rev().find_map(|length| modules.get(&base[..length].join("::")))
}

fn no_circles() {
    let sources = sources();
    let modules: BTreeSet<String> = sources.iter().map(|(file, _)| module_of(file)).collect();
    let mut uses: BTreeMap<&String, BTreeSet<&String>> = BTreeMap::new();
    for (file, code) in sources.iter().filter(|(file, _)| file != "lib.rs") {
        let module = modules.get(&module_of(file)).unwrap();
        let children: Vec<&str> =
            modules.iter().filter_map(|other| other.strip_prefix(&format!("{module}::"))).collect();
        let paths = paths_in(code, &children);
        let targets = paths.iter().filter_map(|path| target(path, module, &modules));
        uses.insert(module, targets.filter(|other| *other != module).collect());
    }
    let links: usize = uses.values().map(BTreeSet::len).sum();
    assert!(links > 300, "the uses are found: {links}");
    // Files that use nothing that is left are no part of a circle.
    loop {
        let left: BTreeSet<&String> = uses.keys().copied().collect();
        let before = uses.len();
        uses.retain(|_, used| used.iter().any(|used| left.contains(used)));
        if uses.len() == before {
            break;
        }
    }
    // Neither are files that nothing that is left uses.
    loop {
        let targets: BTreeSet<&String> = uses.values().flatten().copied().collect();
        let before = uses.len();
        uses.retain(|module, _| targets.contains(module));
        if uses.len() == before {
            break;
        }
    }
    assert_eq!(uses.keys().collect::<Vec<_>>(), Vec::<&&String>::new(), "{uses:#?}");
}

fn no_two_types() {
    let types =
        Regex::new(r"(?m)^\s*(?:pub(?:\([^)]*\))? )?(?:struct|enum|union|trait|type) ([A-Z]\w*)\b")
            .unwrap();
    let mut rooms: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (file, code) in sources() {
        for found in types.captures_iter(&code) {
            rooms.entry(found[1].to_owned()).or_default().insert(room_of(&file).to_owned());
        }
    }
    assert!(rooms.len() > 200, "the types are found: {}", rooms.len());
    rooms.retain(|name, rooms| {
        rooms.len() > 1 && !SHARED_NAMES.iter().any(|(shared, _)| shared == name)
    });
    assert_eq!(rooms, BTreeMap::new());
}

fn no_long_file() {
    let long = sources().into_iter().map(|(file, code)| (file, code.lines().count()));
    let long: Vec<(String, usize)> = long.filter(|(_, lines)| *lines > LONGEST).collect();
    assert_eq!(long, []);
}
