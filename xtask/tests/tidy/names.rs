//! Names that stay in their place, so that the sample domain can be deleted and the product
//! renamed; and files that nothing names.

use crate::environment::example;
use crate::repo::{self, File, expect_none, expect_used, has_word};

/// The sample domain, as singular and plural.
const SAMPLE: [&str; 4] = ["note", "notes", "Note", "Notes"];

/// Where it lives: files and folders that begin so go with it.
const SAMPLE_LIVES: [&str; 14] = [
    "backend/README.md",
    "backend/migrations/0002_notes.sql",
    "backend/migrations/0003_note_keys.sql",
    "backend/migrations/0004_note_keys_unique.sql",
    "backend/seeds/0002_notes.sql",
    "backend/src/notes.rs",
    "backend/src/notes/",
    "backend/tests/browser/sample",
    "backend/tests/stack/sample",
    "deploy/nginx/site/",
    "xtask/drill/rivals/",
    "xtask/drill/src/workload/domain.rs",
    "xtask/drill/tests/sabotage/model.rs",
    "xtask/tests/live/domain.rs",
];

/// Generated from the code: made again once the domain is gone.
const SAMPLE_FOLLOWS: [&str; 2] = ["backend/openapi.json", "backend/schema.sql"];

/// Lines elsewhere, as they begin: those by which the backend takes the domain in, and the English
/// word.
const SAMPLE_LINES: [(&str, &str); 11] = [
    ("backend/src/", "pub mod notes;"),
    ("backend/src/", "notes,"),
    ("backend/src/", ".merge(notes::router())"),
    ("backend/src/config/reader.rs", "/// Notes an error."),
    ("backend/src/migrate/history.rs", "/// Notes that a file was applied."),
    ("backend/src/sessions/create.lua", "-- Starts a session and notes it"),
    // The guard of data directories makes a note of which images made them.
    ("deploy/flavour-guard.sh", "# It notes in DATA_DIR/.flavour which C library"),
    ("deploy/flavour-guard.sh", "# usage: note FLAVOUR MARK"),
    ("deploy/flavour-guard.sh", "note() {"),
    ("deploy/flavour-guard.sh", "refuse \"there is data in $1, and no note of"),
    ("deploy/flavour-guard.sh", "note \"$here\" \"$mark\""),
];

fn is_searched(file: &File) -> bool {
    let folders = ["backend/", "deploy/", "scripts/", "xtask/drill/", "xtask/tests/live/"];
    folders.iter().any(|folder| file.path.starts_with(folder))
        || file.is_compose()
        || file.path == ".env.example"
}

/// Files of those folders in which the domain may be named nowhere, with the lines that name it.
fn lines_that_name_it() -> Vec<(String, usize, String)> {
    let places = || SAMPLE_LIVES.iter().chain(&SAMPLE_FOLLOWS);
    let lives_there = |file: &File| places().any(|place| file.path.starts_with(place));
    let mut found = Vec::new();
    for file in repo::files().iter().filter(|file| is_searched(file) && !lives_there(file)) {
        let named = file.lines().filter(|(_, line)| SAMPLE.iter().any(|word| has_word(line, word)));
        found.extend(named.map(|(n, line)| (file.path.clone(), n, line.trim().to_owned())));
    }
    found
}

#[test]
fn the_sample_domain_stays_in_its_own_files() {
    let lines = lines_that_name_it();
    let is = |known: &(&str, &str), path: &str, line: &str| {
        path.starts_with(known.0) && line.starts_with(known.1)
    };
    let stray =
        lines.iter().filter(|(path, _, line)| !SAMPLE_LINES.iter().any(|k| is(k, path, line)));
    let stray: Vec<_> = stray.map(|(path, n, line)| format!("{path}:{n}: {line}")).collect();
    let fix = "move it into the sample domain's own files, or say it in other words; a new file of \
               the domain's goes into SAMPLE_LIVES and into backend/README.md, `Make it yours`";
    expect_none(&stray, fix);
    // Once the domain is deleted, so are these two tests.
    let idle =
        SAMPLE_LINES.iter().filter(|k| !lines.iter().any(|(path, _, line)| is(k, path, line)));
    let idle: Vec<_> = idle.map(|(path, line)| format!("{path}: {line}")).collect();
    expect_none(&idle, "no such line is left: remove it from SAMPLE_LINES");
}

#[test]
fn the_sample_domain_is_where_its_list_says() {
    let files = repo::files();
    let list = files.iter().find(|file| file.path == SAMPLE_LIVES[0]).unwrap();
    let untold = SAMPLE_LIVES[1..].iter().filter(|place| !list.text.contains(&format!("`{place}")));
    let untold: Vec<String> = untold.map(|place| (*place).to_owned()).collect();
    expect_none(&untold, "name it in backend/README.md, `Make it yours`");
    expect_used(&SAMPLE_LIVES, |place| {
        let names_it = |file: &&File| SAMPLE.iter().any(|word| has_word(&file.text, word));
        files.iter().filter(|file| file.path.starts_with(place)).any(|file| names_it(&file))
    });
}

#[test]
fn the_product_is_named_once() {
    let example = example();
    let product = &example["COMPOSE_PROJECT_NAME"];
    let mut findings = Vec::new();
    for file in repo::files() {
        let is_title = |line: &str| {
            line.starts_with("# ") && ["README.md", "ARCHITECTURE.md"].contains(&file.path.as_str())
        };
        for (number, line) in file.lines().filter(|(_, line)| !is_title(line)) {
            let is_the_place =
                file.path == ".env.example" && line.starts_with("COMPOSE_PROJECT_NAME=");
            if has_word(&line.to_lowercase(), product) && !is_the_place {
                findings.push(format!("{}:{number}: {}", file.path, line.trim()));
            }
        }
    }
    let fix = "say `the stack` or `the project`, or read COMPOSE_PROJECT_NAME: whoever renames the \
               product edits .env.example and the titles of README.md and ARCHITECTURE.md alone. \
               (A name that is a common word here, such as `app`, cannot be told from it: delete \
               this test then.)";
    expect_none(&findings, fix);
}

/// Folders of which a program reads every file with this ending, whatever its name.
const READ_WHOLE: [(&str, &str); 2] = [
    // nginx's entrypoint renders them all.
    ("deploy/nginx/templates/", ".template"),
    // The entrypoint of the image runs or sources them all.
    ("deploy/distro/nginx/docker-entrypoint.d/", "sh"),
];

/// Taken by their name alone: a README, a page at `/`, what `docker build` looks for.
const READ_BY_CONVENTION: [&str; 3] = ["README.md", "index.html", "Dockerfile"];

/// Whether something that runs reads `file`; for scripts a document that calls them counts, too.
fn is_alive(file: &File, files: &[File]) -> bool {
    let is_whole =
        |(folder, end): &(&str, &str)| file.path.starts_with(folder) && file.path.ends_with(end);
    if READ_WHOLE.iter().any(is_whole) || READ_BY_CONVENTION.contains(&file.name()) {
        return true;
    }
    let stem = file.name().strip_suffix(".html");
    let clean = stem.map(|stem| format!("\"/{stem}\""));
    // One of two files, by a variable.
    let is_named = |text: &str| {
        let schemes = ["http", "https"].map(|scheme| text.replace("${NGINX_SCHEME}", scheme));
        schemes
            .iter()
            .flat_map(|text| text.lines())
            .filter(|line| !line.trim_start().starts_with("# "))
            .any(|line| {
                has_word(line, file.name()) || clean.as_ref().is_some_and(|c| line.contains(c))
            })
    };
    let is_reader = |other: &File| {
        if other.path == file.path || other.path.starts_with("xtask/tests/tidy/") {
            return false;
        }
        let is_document = other.is_markdown();
        let is_read_by_xtask = file.is_compose() || file.name().ends_with(".json");
        let is_overlay = is_read_by_xtask && other.path.starts_with("xtask/src/");
        let calls_scripts = file.path.starts_with("scripts/") && !other.path.ends_with(".rs");
        let is_machine = other.is_compose() || other.path.starts_with("deploy/") && !is_document;
        is_machine || is_overlay || calls_scripts
    };
    files.iter().any(|other| is_reader(other) && is_named(&other.text))
}

#[test]
fn no_file_of_deploy_and_scripts_is_dead() {
    let files = repo::files();
    let is_checked =
        |file: &&File| ["deploy/", "scripts/"].iter().any(|f| file.path.starts_with(f));
    let checked: Vec<&File> = files.iter().filter(is_checked).collect();
    assert!(checked.len() > 20, "only {} files were found: mend the search", checked.len());
    let dead = checked.into_iter().filter(|file| !is_alive(file, &files));
    let dead: Vec<_> = dead.map(|file| format!("{}: nothing reads it", file.path)).collect();
    expect_none(
        &dead,
        "delete it, or name it where it is read (a mount, a COPY, an include, a link)",
    );
}

/// No part of the stack: `bench http` and `bench backup` build them.
const BUILT_BY_XTASK: [&str; 2] = ["xtask/drill/rivals/express", "xtask/drill/rivals/pgbackrest"];

#[test]
fn every_dockerfile_is_built() {
    let files = repo::files();
    let compose: Vec<&File> = files.iter().filter(|file| file.is_compose()).collect();
    let is_built = |file: &File| {
        let whole = format!("dockerfile: {}", file.path);
        let folder = format!("context: {}", file.folder());
        let is_built_by_xtask = BUILT_BY_XTASK.contains(&file.folder());
        is_built_by_xtask
            || compose
                .iter()
                .any(|c| c.text.lines().any(|l| l.trim() == whole || l.trim() == folder))
    };
    let idle = files.iter().filter(|file| file.is_dockerfile() && !is_built(file));
    let idle: Vec<_> = idle.map(|file| file.path.clone()).collect();
    expect_none(&idle, "name it in a Compose file (`context:` or `dockerfile:`), or delete it");
}
