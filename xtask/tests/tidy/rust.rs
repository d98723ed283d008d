//! Rust: no shortcut outside tests, and sizes that only shrink.

use crate::repo::{self, File, expect_none};
use crate::rust_text::{code_only, functions, test_modules};

const FUNCTION_LIMIT: usize = 70;
const FILE_LIMIT: usize = 400;
/// So many lines below its entry a size is still called the same.
const SLACK: usize = 20;

/// Functions over the limit, as `path: name`, with their lines. It may only get shorter.
const LONG_FUNCTIONS: &[(&str, usize)] = &[];

/// Files over the limit (the lines of their `#[cfg(test)]` modules left out), with their lines. It
/// may only get shorter.
const LONG_FILES: &[(&str, usize)] = &[];

/// What may stand in a test and nowhere else, with what to write in its place.
const SHORTCUTS: [(&str, &str); 4] = [
    (".unwrap()", "`?` with a context, or a default"),
    ("todo!", "the code, or an error that says what is missing"),
    ("unimplemented!", "the code, or an error that says what is missing"),
    ("dbg!", "nothing"),
];

fn rust_files() -> Vec<File> {
    repo::files().into_iter().filter(|file| file.path.ends_with(".rs")).collect()
}

fn is_source(file: &File) -> bool {
    // A module of tests may have a file of its own.
    file.path.contains("/src/") && file.name() != "tests.rs"
}

#[test]
fn no_shortcut_is_taken_outside_tests() {
    let mut findings = Vec::new();
    let sources: Vec<File> = rust_files().into_iter().filter(is_source).collect();
    assert!(sources.len() > 50, "only {} files were found: mend the search", sources.len());
    for file in &sources {
        let code = code_only(&file.text);
        let tests = test_modules(&code);
        let is_tested = |index: &usize| tests.iter().any(|lines| lines.contains(index));
        for (index, line) in code.lines().enumerate().filter(|(index, _)| !is_tested(index)) {
            let found = SHORTCUTS.iter().filter(|(shortcut, _)| line.contains(shortcut));
            for (shortcut, instead) in found {
                let place = format!("{}:{}", file.path, index + 1);
                findings.push(format!("{place}: `{shortcut}`; write {instead}"));
            }
        }
    }
    expect_none(&findings, "handle the case, or move the code into a `#[cfg(test)]` module");
}

#[test]
fn arrows_in_xtask_point_down() {
    let top = ["xtask/src/main.rs", "xtask/src/cli", "xtask/src/commands"];
    let is_below = |file: &File| {
        file.path.starts_with("xtask/src/") && !top.iter().any(|path| file.path.starts_with(path))
    };
    let below: Vec<File> = rust_files().into_iter().filter(is_below).collect();
    // Where the types of the command line are needed below, they belong below.
    let mut findings = found_in(&below, "crate::commands");
    findings.extend(found_in(&below, "crate::cli"));
    expect_none(&findings, "move what both need into `stack`, `host`, `images` or `ctx`");
}

#[test]
fn programs_are_started_by_the_door_alone() {
    let is_door = |file: &File| {
        ["xtask/src/ctx.rs", "xtask/src/ctx/"].iter().any(|path| file.path.starts_with(path))
    };
    let is_other = |file: &File| file.path.starts_with("xtask/src/") && !is_door(file);
    let others: Vec<File> = rust_files().into_iter().filter(is_other).collect();
    let mut findings = found_in(&others, "Command::new(");
    findings.extend(found_in(&others, "duct::"));
    expect_none(
        &findings,
        "describe it as an `Invocation` and give it to `ctx`: run, read, stream",
    );
}

/// The places of code that hold `wanted`.
fn found_in(files: &[File], wanted: &str) -> Vec<String> {
    let mut found = Vec::new();
    for file in files {
        let code = code_only(&file.text);
        let lines = code.lines().enumerate().filter(|(_, line)| line.contains(wanted));
        found.extend(lines.map(|(index, _)| format!("{}:{}: {wanted}", file.path, index + 1)));
    }
    found
}

#[test]
fn long_functions_only_shrink() {
    let mut sizes = Vec::new();
    for file in rust_files() {
        for function in functions(&code_only(&file.text)) {
            let place = format!("{}:{} {}", file.path, function.line, function.name);
            sizes.push((format!("{}: {}", file.path, function.name), place, function.lines));
        }
    }
    assert!(sizes.len() > 300, "only {} functions were found: mend the search", sizes.len());
    ratchet("LONG_FUNCTIONS", FUNCTION_LIMIT, LONG_FUNCTIONS, &sizes);
}

#[test]
fn long_files_only_shrink() {
    let size = |file: &File| {
        let tests = test_modules(&code_only(&file.text));
        let tests: usize = tests.iter().map(|lines| lines.len()).sum();
        (file.path.clone(), file.path.clone(), file.text.lines().count() - tests)
    };
    let sizes: Vec<_> = rust_files().iter().map(size).collect();
    ratchet("LONG_FILES", FILE_LIMIT, LONG_FILES, &sizes);
}

/// Nothing over the limit but what the table knows, at no more than the size it has there; what
/// has clearly shrunk is entered with its new size, so that it does not grow back.
fn ratchet(table: &str, limit: usize, known: &[(&str, usize)], sizes: &[(String, String, usize)]) {
    let mut findings = Vec::new();
    for (name, place, lines) in sizes {
        let allowed = known.iter().find(|(known, _)| known == name).map(|(_, lines)| *lines);
        if *lines > allowed.unwrap_or(limit) {
            findings.push(format!("{place}: {lines} lines; at most {}", allowed.unwrap_or(limit)));
        }
    }
    expect_none(&findings, "take a part out that has a name of its own");
    for (name, lines) in known {
        let now = sizes.iter().filter(|(size, _, _)| size == name).map(|(_, _, now)| *now).max();
        match now {
            Some(now) if now > limit && now + SLACK >= *lines => {}
            Some(now) if now > limit => {
                findings.push(format!("{name} has shrunk to {now} lines: write that"));
            }
            _ => findings.push(format!("{name} is no longer over the limit: remove its line")),
        }
    }
    expect_none(&findings, &format!("bring the table {table} in this file up to date"));
}

#[test]
#[should_panic(expected = "a.rs: 81 lines; at most 80")]
fn what_is_in_the_table_does_not_grow() {
    ratchet("TABLE", 70, &[("a", 80)], &[("a".into(), "a.rs".into(), 81)]);
}

#[test]
#[should_panic(expected = "a is no longer over the limit: remove its line")]
fn what_is_short_leaves_the_table() {
    ratchet("TABLE", 70, &[("a", 80)], &[("a".into(), "a.rs".into(), 70)]);
}

#[test]
#[should_panic(expected = "a has shrunk to 75 lines: write that")]
fn what_has_shrunk_does_not_grow_back() {
    ratchet("TABLE", 70, &[("a", 100)], &[("a".into(), "a.rs".into(), 75)]);
}
