//! Shell: only where Rust cannot be, strict, and with its reason. (`cargo xtask ci` runs
//! shellcheck over the same files.)

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::repo::{self, File, expect_none};

fn is_shell(file: &File) -> bool {
    let first = file.text.lines().next().unwrap_or_default();
    first.starts_with("#!") && first.ends_with("sh")
}

/// Read by another script with `.`, so that its settings are that script's.
fn is_sourced(file: &File) -> bool {
    file.name().ends_with(".envsh")
}

fn scripts() -> Vec<File> {
    repo::files().into_iter().filter(is_shell).collect()
}

/// The lines of the first comment, after the `#!` line.
fn first_comment(file: &File) -> String {
    let lines = file.text.lines().skip(1);
    let lines: Vec<&str> = lines.take_while(|line| line.starts_with('#')).collect();
    lines.join("\n")
}

fn findings(is_wrong: impl Fn(&File) -> bool, what: &str) -> Vec<String> {
    let wrong = scripts().into_iter().filter(is_wrong);
    wrong.map(|file| format!("{}: {what}", file.path)).collect()
}

#[test]
fn a_script_stops_at_the_first_error_and_at_an_unset_variable() {
    let is_lax = |file: &File| {
        !is_sourced(file) && !file.text.lines().any(|line| line.trim_end() == "set -eu")
    };
    expect_none(
        &findings(is_lax, "no `set -eu`"),
        "add the line `set -eu` after the first comment",
    );
}

#[test]
fn a_script_can_be_run_by_its_name() {
    let is_locked = |file: &File| {
        let data = fs::metadata(repo::root().join(&file.path)).unwrap();
        data.permissions().mode() & 0o111 != 0o111
    };
    expect_none(&findings(is_locked, "not executable"), "chmod +x, and commit the mode");
}

#[test]
fn a_script_says_why_it_is_shell() {
    let has_no_reason = |file: &File| !first_comment(file).contains("because");
    let fix =
        "begin the first comment with `Shell, because …`; where there is no reason, write Rust";
    expect_none(&findings(has_no_reason, "no reason in the first comment"), fix);
}

#[test]
fn continuous_integration_runs_what_a_person_runs() {
    let is_code = |line: &&str| !line.starts_with('#') && !line.is_empty();
    let file = repo::file(".ci/run");
    let code: Vec<&str> = file.text.lines().filter(is_code).collect();
    assert_eq!(
        code,
        ["set -eu", "cd \"$(dirname \"$0\")/..\"", "exec cargo xtask ci --yes"],
        "\n\nfix: move what else .ci/run does into `cargo xtask ci`, where a person has it too\n"
    );
    let mut findings = Vec::new();
    for file in repo::files().iter().filter(|file| file.path.starts_with(".github/workflows/")) {
        for (number, line) in file.lines() {
            let run = line.trim_start().trim_start_matches("- ").strip_prefix("run:");
            findings.extend(
                run.filter(|command| command.trim() != ".ci/run")
                    .map(|command| format!("{}:{number}: runs{command}", file.path)),
            );
        }
    }
    expect_none(&findings, "let the workflow run .ci/run alone, and put the rest into `xtask ci`");
}
