//! Documents that are true: the command table is clap's, links and paths lead somewhere, and each
//! folder of deploy/ is described file by file.

use std::fs;
use std::process::{Command, Stdio};

use crate::repo::{self, File, expect_none};

/// The verbs and their first sentence, as `--help` prints them.
fn verbs() -> Vec<(String, String)> {
    let mut xtask = Command::new(env!("CARGO_BIN_EXE_xtask"));
    xtask.arg("--help").env("COLUMNS", "100").env("NO_COLOR", "1");
    let output = xtask.stdin(Stdio::null()).stderr(Stdio::null()).output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let inside = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let mut found: Vec<(String, String)> = Vec::new();
    for line in inside.take_while(|line| !line.is_empty()) {
        let indent = line.len() - line.trim_start().len();
        if indent == 2 {
            let (name, about) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
            found.push((name.to_owned(), about.trim().to_owned()));
        } else if let Some((_, about)) = found.last_mut() {
            // A long sentence goes on below its beginning.
            *about = format!("{about} {}", line.trim());
        }
    }
    found.retain(|(name, _)| name != "help");
    found
}

#[test]
fn the_command_table_is_the_one_of_help() {
    let verbs = verbs();
    assert!(verbs.len() > 10, "only {} verbs were found: mend the search", verbs.len());
    let row = |(name, about): &(String, String)| format!("| `{name}` | {about} |");
    let wanted: Vec<String> = verbs.iter().map(row).collect();
    let readme = repo::file("README.md");
    let inside = readme.text.lines().skip_while(|line| *line != "| command | does |").skip(2);
    let table: Vec<&str> = inside.take_while(|line| line.starts_with('|')).collect();
    assert!(
        table == wanted,
        "README.md's command table is not what `cargo xtask --help` says\n\n\
         fix: write these rows there, in this order:\n\n{}\n",
        wanted.join("\n")
    );
}

/// The lines of a document outside fenced code, with their numbers.
fn prose(file: &File) -> Vec<(usize, &str)> {
    let mut is_fenced = false;
    let mut lines = Vec::new();
    for (number, line) in file.lines() {
        if line.trim_start().starts_with("```") {
            is_fenced = !is_fenced;
        } else if !is_fenced {
            lines.push((number, line));
        }
    }
    lines
}

/// Where the document's links lead.
fn links(file: &File) -> Vec<(usize, String)> {
    let of_line = |line: &str| -> Vec<String> {
        let targets = line.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
        targets.map(|(target, _)| target.to_owned()).collect()
    };
    let lines = prose(file).into_iter();
    lines.flat_map(|(n, line)| of_line(line).into_iter().map(move |target| (n, target))).collect()
}

/// The words between backticks.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

fn documents() -> Vec<File> {
    repo::files().into_iter().filter(File::is_markdown).collect()
}

#[test]
fn links_lead_somewhere() {
    let mut findings = Vec::new();
    let mut count = 0;
    for file in documents() {
        for (number, target) in links(&file) {
            let is_elsewhere = target.contains("://") || target.starts_with("mailto:");
            let (path, heading) = target.split_once('#').unwrap_or((&target, ""));
            if is_elsewhere {
                continue;
            }
            count += 1;
            let folder = repo::root().join(file.folder());
            let goal =
                if path.is_empty() { repo::root().join(&file.path) } else { folder.join(path) };
            let text = fs::read_to_string(&goal).unwrap_or_default();
            let has_heading = heading.is_empty() || headings(&text).iter().any(|h| h == heading);
            if !goal.exists() || !has_heading {
                findings.push(format!("{}:{number}: {target}", file.path));
            }
        }
    }
    assert!(count > 10, "only {count} links were found: mend the search");
    expect_none(&findings, "let the link name a file that exists, relative to its own folder");
}

/// The anchors of a document, as the usual hosts make them from its headings.
fn headings(text: &str) -> Vec<String> {
    let titles = text.lines().filter(|line| line.starts_with('#'));
    let anchor = |line: &str| {
        let title = line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        title.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
    };
    titles.map(anchor).collect()
}

/// They stand for a name that the reader chooses.
const PLACEHOLDERS: [&str; 2] = ["NNNN", "NAME"];

#[test]
fn paths_in_the_documents_at_the_top_exist() {
    let tops =
        ["xtask/", "backend/", "deploy/", "scripts/", "docs/", ".ci/", ".github/", ".cargo/"];
    let mut findings = Vec::new();
    let mut count = 0;
    let is_checked = |file: &File| !file.path.contains('/') || file.path.starts_with("docs/");
    for file in documents().into_iter().filter(is_checked) {
        let words = prose(&file).into_iter();
        for (number, word) in words.flat_map(|(n, line)| quoted(line).map(move |word| (n, word))) {
            // `NNNN_name.sql` and the like stand for any name; a script may have arguments.
            let path = word.split([' ', '#']).next().unwrap_or_default();
            let is_path = tops.iter().any(|top| path.starts_with(top));
            let is_pattern = path.contains(['*', '{', '<', '…'])
                || PLACEHOLDERS.iter().any(|p| path.contains(p));
            // Made on the machine that runs the stack, and ignored by git.
            let is_made = path.starts_with("deploy/certs");
            if is_path && !is_pattern && !is_made {
                count += 1;
                if !repo::root().join(path).exists() {
                    findings.push(format!("{}:{number}: {path}", file.path));
                }
            }
        }
    }
    assert!(count > 40, "only {count} paths were found: mend the search");
    expect_none(&findings, "name the file as it is called now");
}

/// What a table names: the words between backticks in the first cell of each row.
fn first_cells(file: &File) -> Vec<String> {
    let rows = file.text.lines().filter(|line| line.starts_with("| "));
    let cells = rows.filter_map(|row| row.split('|').nth(1));
    cells.flat_map(quoted).map(str::to_owned).collect()
}

#[test]
fn each_folder_of_deploy_is_described_file_by_file() {
    let files = repo::files();
    let mut findings = Vec::new();
    let mut folders = vec!["deploy/".to_owned()];
    for file in &files {
        let inside = file.path.strip_prefix("deploy/").and_then(|path| path.split_once('/'));
        folders.extend(inside.map(|(folder, _)| format!("deploy/{folder}/")));
    }
    folders.dedup();
    for folder in folders {
        let Some(readme) = files.iter().find(|file| file.path == format!("{folder}README.md"))
        else {
            findings.push(format!("{folder}README.md is missing"));
            continue;
        };
        let named = first_cells(readme);
        for file in files.iter().filter(|file| file.path.starts_with(&folder)) {
            let inside = file.path.trim_start_matches(&folder);
            let is_covered = |name: &String| {
                inside == name || name.ends_with('/') && inside.starts_with(name.as_str())
            };
            // An overlay is described in the text: no container sees it.
            let is_told = file.is_compose() && readme.text.contains(file.name());
            if inside != "README.md" && !is_told && !named.iter().any(is_covered) {
                findings.push(format!("{folder}README.md does not name {inside}"));
            }
        }
        let is_gone = |name: &&String| !repo::root().join(&folder).join(name.as_str()).exists();
        for name in named.iter().filter(is_gone) {
            findings.push(format!("{folder}README.md names {name}, which does not exist"));
        }
    }
    findings.dedup();
    expect_none(
        &findings,
        "add or remove a row: the file, its path in the container, what to do after a change",
    );
}
