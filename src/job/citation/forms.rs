//! The forms in which models write an honest citation, and their dishonest neighbours.

use super::Status::{self, Mismatch, Missing, Moved, NotInTrace, Outside, Verified};
use super::tests::{Cited, NONE, Project, at, whole};
use super::*;

/// The file `src/store.rs`, from line 1.
const STORE: &str = r#"use std::fs::File;

/// Counts what is added.
pub struct Store {
    file: File,
}

impl Store {
    pub fn add(&mut self, key: &str, value: i32) {
        let _ = writeln!(self.file, "{key} {value}\n");
        self.unlock(&mut self.file);
        if key == "say \"hi\"" {
            self.total(key, ...);
        }
    }

    pub fn total(&self, key: &str) -> i32 {
        let parts = key.split('\t');
        true
    }
}
"#;

/// A project in a folder named `project`.
fn project() -> Project {
    let project = Project::new();
    project.write("src/store.rs", STORE);
    project.write("src/a/mod.rs", "pub fn only_in_a() {}\n");
    project.write("src/b/mod.rs", "pub fn only_in_b() {}\n");
    project.write("src/unread.rs", "fn nobody_read_this() {}\n");
    project.write("docs/2024-01-15-notes.md", "# Notes of the day\n\nNothing was decided today.\n");
    project.write("Makefile", "all:\n\tcargo build --release\n");
    project
}

fn shown() -> Shown {
    let files =
        ["src/store.rs", "src/a/mod.rs", "src/b/mod.rs", "docs/2024-01-15-notes.md", "Makefile"];
    whole(files.map(str::to_owned))
}

/// Checks a quote from `src/store.rs`.
#[track_caller]
fn check(quote: &str, cited: Cited, expected: (Status, Cited)) {
    let citation = project().citation_shown("src/store.rs", cited, quote, &shown());
    let found = (citation.status, (citation.line_start, citation.line_end));
    assert_eq!(found, expected, "{quote}");
}

/// Checks quotes that are at the cited lines.
#[track_caller]
fn holds(cited: Cited, quotes: &[&str]) {
    for quote in quotes {
        check(quote, cited, (Verified, cited));
    }
}

/// Checks a quote of line 9 that is cited with this path.
#[track_caller]
fn check_path(path: &str, cited: Cited, expected: (Status, &str, Cited)) {
    let quote = "pub fn add(&mut self, key: &str, value: i32) {";
    let citation = project().citation_shown(path, cited, quote, &shown());
    let lines = (citation.line_start, citation.line_end);
    assert_eq!((citation.status, citation.path.as_str(), lines), expected, "{path}");
}

#[test]
fn marks_around_a_quote_are_ignored() {
    holds(
        at(5, 5),
        &[
            "file: File,",
            "    file: File,\n",
            "`file: File,`",
            "``file: File,``",
            "```file: File,```",
            "```rust\nfile: File,\n```",
            "```\n    file: File,\n```\n",
            "~~~rs\nfile: File,\n~~~",
            "\"file: File,\"",
            "'file: File,'",
            "“file: File,”",
            "„file: File,“",
            "‘file: File,’",
            "«file: File,»",
            "「file: File,」",
            "\"`file: File,`\"",
            "```\n`file: File,`\n```",
        ],
    );
    // A mark on one side only is part of the quote.
    for quote in ["`file: File,", "file: File,\"", "```rust\nfile: File,"] {
        check(quote, at(5, 5), (Mismatch, at(5, 5)));
    }
}

#[test]
fn gaps_in_a_quote_are_skipped_in_order() {
    holds(
        at(4, 6),
        &[
            "pub struct Store {\n...\n}",
            "pub struct Store {\n    ...\n}",
            "pub struct Store { … }",
            "pub struct Store {...}",
            "pub struct Store {\n    // ...\n}",
            "pub struct Store {\n    /* ... */\n}",
            "pub struct Store { [...] }",
            "...pub struct Store {\n    file: File,...",
            "pub struct Store { // ...\n}",
            "pub struct Store {\n    // ... the fields ...\n}",
            "pub struct Store { /* ... the fields */ }",
            "pub struct Store {\n    <!-- ... -->\n}",
            "pub struct Store {\n    (...)\n}",
            "pub struct Store {\n    ⋮\n}",
        ],
    );
    // At most as far apart as the cited lines.
    holds(
        at(9, 15),
        &["pub fn add(&mut self, key: &str, value: i32) {\n...\n}", "pub fn add( ... }\n ... }"],
    );
    // Dots that mark no gap are found literally.
    holds(at(13, 13), &["self.total(key, ...);"]);
    // Pieces in the wrong order, a missing piece, and text with too little weight.
    for (quote, cited) in [
        ("file: File,\n...\npub struct Store {", at(4, 5)),
        ("pub struct Store {\n...\nlines: u32,", at(4, 6)),
        ("pub struct Store { /* ... */ lines: u32, }", at(4, 6)),
        ("pub struct Store { // ...\nlines: u32,", at(4, 6)),
        ("pub struct Store ; ... lines: u32,", at(4, 6)),
        ("a ... b", at(1, 15)),
        ("...", at(4, 6)),
    ] {
        check(quote, cited, (Mismatch, cited));
    }
    check(
        "impl Store {\n...\npub fn total(&self, key: &str) -> i32 {",
        at(1, 2),
        (Moved, at(8, 17)),
    );
}

#[test]
fn columns_that_tools_print_are_ignored() {
    holds(
        at(4, 6),
        &[
            "4\tpub struct Store {\n5\t    file: File,\n6\t}",
            "     4\tpub struct Store {\n     5\t    file: File,",
            "4→pub struct Store {\n5→    file: File,",
            "4 | pub struct Store {\n5 |     file: File,",
            "4│pub struct Store {\n5│    file: File,",
            "L4: pub struct Store {\nL5:     file: File,",
            "4:pub struct Store {\n5:    file: File,",
            "4:pub struct Store {\n5-    file: File,\n6-}",
            // With a gap.
            "4\tpub struct Store {\n6\t}",
            "4\tpub struct Store {\n...\n6\t}",
            "4:pub struct Store {\n--\n6:}",
            // With the name of the file.
            "src/store.rs:4:pub struct Store {",
            "./src/store.rs:4:pub struct Store {\nsrc/store.rs-5-    file: File,",
            "store.rs:4:pub struct Store {\nstore.rs-5-    file: File,",
            "/home/someone/src/store.rs:4:pub struct Store {\n/home/someone/src/store.rs-5-    file: File,",
            // A search without line numbers.
            "src/store.rs:pub struct Store {",
            "src/store.rs: pub struct Store {\nsrc/store.rs:}",
            "```\n4\tpub struct Store {\n5\t    file: File,\n```",
            // The same column of a diff on every line.
            "+pub struct Store {\n+    file: File,\n+}",
            "+ pub struct Store {\n+     file: File,",
            "-pub struct Store {\n-    file: File,",
            " pub struct Store {\n+    file: File,\n }",
            "> pub struct Store {\n>     file: File,",
            "```diff\n+pub struct Store {\n+    file: File,\n```",
            "@@ -4,2 +4,3 @@ use std::fs::File;\n pub struct Store {\n+    file: File,\n }",
            "@@ -4 +4 @@\n+pub struct Store {\n@@ -5 +6 @@\n+}",
        ],
    );
    // The numbers give the place.
    check("4\tpub struct Store {", NONE, (Moved, at(4, 4)));
    check("4\tpub struct Store {\n6\t}", at(9, 9), (Moved, at(4, 6)));
    for quote in [
        "5\tpub struct Store {",
        "4\tpub struct Store {\n7\t}",
        "other.rs:4:pub struct Store {",
        "other.rs:pub struct Store {",
        "tore.rs:pub struct Store {",
        "src/store.rs:pub struct Store {\nother.rs:}",
        ":pub struct Store {",
        "./:pub struct Store {",
        "L5: pub struct Store {",
        "4\tpub struct Store {\n    file: File,",
        "+pub struct Store {\n-    lines: u32,",
        "+pub struct Store {\n    file: File,\nand more",
    ] {
        check(quote, at(4, 6), (Mismatch, at(4, 6)));
    }
}

#[test]
fn escapes_may_be_decoded_once_too_often_or_too_rarely() {
    holds(
        at(10, 10),
        &[
            r#"let _ = writeln!(self.file, "{key} {value}\n");"#,
            "let _ = writeln!(self.file, \"{key} {value}\n\");",
            r#"let _ = writeln!(self.file, \"{key} {value}\\n\");"#,
        ],
    );
    holds(at(12, 12), &[r#"if key == "say \"hi\"" {"#, r#"if key == "say "hi"" {"#]);
    holds(at(18, 18), &[r"let parts = key.split('\t');", "let parts = key.split('\t');"]);
    holds(
        at(4, 5),
        &[r"pub struct Store {\n    file: File,", r"pub struct Store {\r\n\tfile: File,"],
    );
    holds(at(8, 8), &[r"impl Store \u007b"]);
    for (quote, cited) in [
        (r#"let _ = writeln!(self.file, "{key} {value}");"#, at(10, 10)),
        (r#"let _ = writeln!(self.file, "{key} {value} ");"#, at(10, 10)),
        ("let parts = key.split('\n');", at(18, 18)),
        ("let parts = key.split(' ');", at(18, 18)),
    ] {
        check(quote, cited, (Mismatch, cited));
    }
}

#[test]
fn a_quote_begins_and_ends_at_word_boundaries() {
    check("unlock(&mut self.file)", at(11, 11), (Verified, at(11, 11)));
    check("lock(&mut self.file)", at(11, 11), (Mismatch, at(11, 11)));
    check("lock(&mut self.file)", at(9, 9), (Mismatch, at(9, 9)));
    check("fn add(&mut self, key: &str, val", at(9, 9), (Mismatch, at(9, 9)));
    check("pubfn add", at(9, 9), (Mismatch, at(9, 9)));
    check("pub structStore {", at(4, 4), (Mismatch, at(4, 4)));
    check("pub fn ad d(", at(9, 9), (Mismatch, at(9, 9)));
    let numbers = Project::new();
    numbers.write(
        "a.toml",
        "timeout = 1.5\nretries = 12\nversion = \"2.10.3\"\nend = 7.\n5. 6 pears\n",
    );
    let shown = whole(["a.toml".to_owned()]);
    for (quote, line, status) in [
        ("timeout = 1.5", 1, Verified),
        ("timeout =", 1, Verified),
        ("timeout = 1", 1, Mismatch),
        ("timeout = 1.", 1, Mismatch),
        ("5", 1, Mismatch),
        ("retries = 1", 2, Mismatch),
        ("version = \"2.1", 3, Mismatch),
        ("10.3", 3, Mismatch),
        ("end = 7", 4, Verified),
        ("end = 7.", 4, Verified),
        ("5. 6", 5, Verified),
        ("6 pears", 5, Verified),
        ("5.6 pears", 5, Mismatch),
    ] {
        let citation = numbers.citation_shown("a.toml", at(line, line), quote, &shown);
        assert_eq!(citation.status, status, "{quote}");
    }
    check("pub  fn\tadd ( & mut self", at(9, 9), (Verified, at(9, 9)));
}

#[test]
fn a_quote_moves_only_to_an_unambiguous_place() {
    // A common word.
    for quote in ["self", "key", "i32", "fn", "Store", "pub fn", "&str", "}", "File,"] {
        check(quote, at(2, 2), (Mismatch, at(2, 2)));
        check(quote, NONE, (Mismatch, NONE));
    }
    // A whole line, or twelve letters that occur once.
    check("pub struct Store {", at(1, 1), (Moved, at(4, 4)));
    check("true", at(2, 2), (Moved, at(19, 19)));
    check("writeln!(self.file", at(1, 1), (Moved, at(10, 10)));
    check("&mut self, key", at(1, 1), (Mismatch, at(1, 1)));
    check("key: &str", at(1, 1), (Mismatch, at(1, 1)));
    // At its own lines, a word is enough.
    check("self", at(11, 11), (Verified, at(11, 11)));
    check("}", at(6, 6), (Verified, at(6, 6)));
    let two = Project::new();
    two.write("two.rs", "if a {\n    true\n} else {\n    true\n} else {\n}\nlet x = true;\n");
    let shown = whole(["two.rs".to_owned()]);
    for quote in ["true", "} else {", "else"] {
        let citation = two.citation_shown("two.rs", at(7, 7), quote, &shown);
        let expected = if quote == "true" { Verified } else { Mismatch };
        assert_eq!(citation.status, expected, "{quote}");
        assert_eq!(
            two.citation_shown("two.rs", at(1, 1), quote, &shown).status,
            Mismatch,
            "{quote}"
        );
    }
}

#[test]
fn paths_of_tools_and_diffs_are_understood() {
    for path in [
        "src/store.rs",
        "./src/store.rs",
        "`src/store.rs`",
        "\"src/store.rs\"",
        "a/src/store.rs",
        "b/src/store.rs",
        "/src/store.rs",
        "project/src/store.rs",
        "/home/someone/project/src/store.rs",
        "Project/src/store.rs",
        "ROOT/src/store.rs",
        "file://ROOT/src/store.rs",
        "SRC/Store.rs",
        "store.rs",
        "Store.RS",
    ] {
        check_path(path, at(9, 9), (Verified, "src/store.rs", at(9, 9)));
    }
    for path in [
        "src/store.rs:9",
        "src/store.rs:9:",
        "src/store.rs:9:5",
        "src/store.rs#L9",
        "src/store.rs#9",
        "src/store.rs:L9",
        "src/store.rs#L9C5",
        "src/store.rs (line 9)",
        "src/store.rs, line 9",
        "src/store.rs line 9",
        "src/store.rs (at line 9)",
        "src/store.rs [lines 9-9]",
        "src/store.rs (L9)",
        "src/store.rs (9)",
        "src/store.rs(9)",
        "src/store.rs [9]",
        "src/store.rs, L9",
        "src/store.rs L9",
        "src/store.rs: 9",
        "src/store.rs: line 9",
        "src/store.rs#line=9",
        "[src/store.rs](src/store.rs#L9)",
        "@src/store.rs#L9",
        "**src/store.rs:9**",
        "<src/store.rs:9>,",
        "a/src/store.rs:9",
        "/src/store.rs#L9",
        "store.rs:9",
        "`src/store.rs:9`",
    ] {
        check_path(path, NONE, (Verified, "src/store.rs", at(9, 9)));
    }
    for path in [
        "src/store.rs:9-10",
        "src/store.rs:9–10",
        "src/store.rs#L9-L10",
        "src/store.rs#L9-10",
        "src/store.rs:9:1-10:4",
        "src/store.rs#L9C1-L10C4",
        "src/store.rs (lines 9-10)",
        "src/store.rs, lines 9 to 10",
        "src/store.rs:10-9",
        "src/store.rs:L9-L10",
        "src/store.rs#L9:L10",
        "src/store.rs (9-10)",
        "src/store.rs:9..=10",
        "src/store.rs, lines 9 and 10",
    ] {
        check_path(path, NONE, (Verified, "src/store.rs", at(9, 10)));
    }
    let scoped = Project::new();
    scoped.write("@types/a.ts", "export type A = string;\n");
    let shown = whole(["@types/a.ts".to_owned()]);
    for path in ["@types/a.ts:1", "@@types/a.ts:1"] {
        let citation = scoped.citation_shown(path, NONE, "export type A = string;", &shown);
        assert_eq!((citation.status, citation.path.as_str()), (Verified, "@types/a.ts"), "{path}");
    }
    // The lines of the citation win over those of its path.
    check_path("src/store.rs:4", at(9, 9), (Verified, "src/store.rs", at(9, 9)));
    check_path("src/store.rs:4", NONE, (Moved, "src/store.rs", at(9, 9)));
}

#[test]
fn a_path_is_never_guessed() {
    for (path, status) in [
        // The end of two paths.
        ("mod.rs", Missing),
        // The end of a name, and a file that Kimi was not shown.
        ("tore.rs", Missing),
        ("unread.rs", Missing),
        ("c/src/store.rs", Missing),
        ("other/src/store.rs", Missing),
        ("src/store.rs/", Missing),
        ("src/store", Missing),
        ("src/store.rs:x", Missing),
        ("src/store.rs9", Missing),
        ("</code>`](src/store.rs", Missing),
        ("[src/store.rs](src/other.rs#L9)", Missing),
        ("../src/store.rs", Outside),
        ("/other/src/store.rs", Outside),
        ("", Missing),
    ] {
        check_path(path, at(9, 9), (status, path, at(9, 9)));
    }
    let citation =
        project().citation_shown("a/mod.rs", at(1, 1), "pub fn only_in_a() {}", &shown());
    assert_eq!((citation.status, citation.path.as_str()), (Verified, "src/a/mod.rs"));
}

#[test]
fn a_citation_is_verified_only_for_lines_that_were_shown() {
    let project = project();
    let check = |ranges: &[LineRange], cited: Cited, quote: &str, expected: (Status, Cited)| {
        let mut shown = Shown::new();
        for &lines in ranges {
            shown.entry("src/store.rs".to_owned()).or_default().add(lines);
        }
        let citation = project.citation_shown("src/store.rs", cited, quote, &shown);
        let found = (citation.status, (citation.line_start, citation.line_end));
        assert_eq!(found, expected, "{ranges:?} {quote}");
    };
    let line_9 = "pub fn add(&mut self, key: &str, value: i32) {";
    check(&[(10, 12)], at(9, 9), line_9, (NotInTrace, at(9, 9)));
    check(&[(9, 9)], at(9, 9), line_9, (Verified, at(9, 9)));
    check(&[], at(9, 9), line_9, (NotInTrace, at(9, 9)));
    check(&[(10, 12)], at(1, 1), line_9, (NotInTrace, at(9, 9)));
    check(&[(8, 9)], at(1, 1), line_9, (Moved, at(9, 9)));
    // All lines of the quote must be shown, but not all cited lines.
    let two = "pub struct Store {\n    file: File,";
    check(&[(4, 4)], at(4, 5), two, (NotInTrace, at(4, 5)));
    check(&[(4, 4), (5, 5)], at(4, 5), two, (Verified, at(4, 5)));
    check(&[(4, 5)], at(3, 6), two, (Verified, at(3, 6)));
    check(&[(4, 4), (6, 6)], at(4, 6), "pub struct Store {\n...\n}", (Verified, at(4, 6)));
    check(&[(4, 4)], at(4, 6), "4\tpub struct Store {\n6\t}", (NotInTrace, at(4, 6)));
    // A repeated text was seen where it was shown.
    project.write("src/store.rs", "let same = 1;\n\n\n\nlet same = 1;\n");
    check(&[(1, 1)], at(5, 5), "let same = 1;", (Moved, at(1, 1)));
    check(&[(5, 5)], at(2, 2), "let same = 1;", (Moved, at(5, 5)));
    check(&[], at(4, 4), "let same = 1;", (NotInTrace, at(5, 5)));
}

#[test]
fn a_file_is_searched_once_for_all_its_quotes() {
    let project = Project::new();
    let lines = (1..=2_000).map(|n| format!("line number {n} of many\n"));
    project.write("many.txt", lines.collect::<String>());
    let shown = whole(["many.txt".to_owned()]);
    let looks = |quotes: u32| {
        let looked = std::cell::Cell::new(0);
        let stop = || {
            looked.set(looked.get() + 1);
            false
        };
        let mut citations = Citations::new(project.dir(), &shown, &|_| false, &stop);
        let wanted = (1..=quotes)
            .map(|n| tests::citation("many.txt", at(n, n), &format!("line number {n} of many")));
        let checked = citations.check(wanted.collect());
        assert!(checked.iter().all(|citation| citation.status == Verified));
        assert_eq!(citations.left + project.size("many.txt"), MAX_READ, "read more than once");
        looked.get()
    };
    // One look before the file, and one before the pass over it.
    assert_eq!((looks(1), looks(2_000)), (2, 2));
}

#[test]
fn citations_without_time_are_missing_and_counted() {
    let project = project();
    let quotes = ["pub struct Store {", "impl Store {"];
    let wanted = || -> Vec<Citation> {
        let in_store = quotes.map(|quote| tests::citation("src/store.rs", at(4, 4), quote));
        let in_a = tests::citation("src/a/mod.rs", at(1, 1), "pub fn only_in_a() {}");
        [in_a].into_iter().chain(in_store).collect()
    };
    let check = |looks: u32, expected: [Status; 3]| {
        let left = std::cell::Cell::new(looks);
        let stop = || {
            let is_over = left.get() == 0;
            left.set(left.get().saturating_sub(1));
            is_over
        };
        let shown = shown();
        let mut citations = Citations::new(project.dir(), &shown, &|_| false, &stop);
        let checked = citations.check(wanted());
        assert_eq!([0, 1, 2].map(|at| checked[at].status), expected);
        let missing = expected.iter().filter(|&&status| status == Missing).count();
        assert_eq!(citations.unchecked(), missing);
    };
    check(0, [Missing; 3]);
    check(1, [Missing; 3]);
    check(2, [Verified, Missing, Missing]);
    check(3, [Verified, Missing, Missing]);
    check(4, [Verified, Verified, Moved]);
    // In the middle of a file that matches everywhere.
    let braces = Project::new();
    braces.write("braces", "{ ".repeat(100_000));
    let looked = std::cell::Cell::new(0);
    let stop = || {
        looked.set(looked.get() + 1);
        looked.get() > 5
    };
    let shown = whole(["braces".to_owned()]);
    let mut citations = Citations::new(braces.dir(), &shown, &|_| false, &stop);
    let checked = citations.check(vec![tests::citation("braces", at(9, 9), "{")]);
    assert_eq!((checked[0].status, looked.get()), (Missing, 6));
}
