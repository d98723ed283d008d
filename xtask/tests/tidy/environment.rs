//! `.env.example` documents every variable once: no more, no less.

use std::collections::{BTreeMap, BTreeSet};

use crate::repo::{self, File, expect_none, expect_used};

const EXAMPLE: &str = ".env.example";

/// In .env.example though no Compose file reads them.
const READ_BY_OTHERS: [(&str, &str); 7] = [
    ("BACKUP_DIR", "xtask writes backups there"),
    ("BACKUP_REMOTE", "xtask copies backups there"),
    ("BACKUP_RECIPIENTS", "xtask encrypts copies for them"),
    ("IMAGE_SOURCE", "`cargo xtask up` reads it, and writes its choice there"),
    ("COMPOSE_FILE", "Compose itself reads it, and so does xtask"),
    ("SECRETS_COMMAND", "xtask runs it for the secrets that the file does not have"),
    ("DISTRO_MIRROR", "xtask reads it when it builds the base image"),
];

/// Read by the backend though they are not in .env.example.
const OWN_TO_THE_BACKEND: [(&str, &str); 1] =
    [("BIND", "where it listens inside its container; the image and nginx agree on the default")];

/// The variables of .env.example with their values.
pub(crate) fn example() -> BTreeMap<String, String> {
    let file = repo::file(EXAMPLE);
    let lines = file.text.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.filter_map(|line| line.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// A variable that a Compose file reads.
pub(crate) struct Use {
    pub(crate) place: String,
    pub(crate) name: String,
    /// What stands after `:-`.
    pub(crate) default: Option<String>,
}

/// Every `${NAME…}` of the Compose files.
pub(crate) fn compose_variables() -> Vec<Use> {
    let files = repo::files().into_iter().filter(File::is_compose);
    files.flat_map(|file| variables_of(&file)).collect()
}

fn variables_of(file: &File) -> Vec<Use> {
    let mut found = Vec::new();
    for (number, line) in file.lines().filter(|(_, line)| !line.trim_start().starts_with('#')) {
        // `$${` is a dollar sign of the container's own.
        let text = line.replace("$$", "  ");
        for piece in text.split("${").skip(1) {
            let inside = piece.split('}').next().unwrap_or_default();
            let name: String = inside.chars().take_while(|c| is_name(*c)).collect();
            let default = inside[name.len()..].strip_prefix(":-").map(str::to_owned);
            found.push(Use { place: format!("{}:{number}", file.path), name, default });
        }
    }
    found
}

fn is_name(c: char) -> bool {
    c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'
}

/// The secrets of compose.yaml, by the variable whose value is in their file.
fn compose_secrets() -> BTreeSet<String> {
    let compose = repo::file("compose.yaml");
    let secrets = compose.text.split("\nsecrets:\n").nth(1).unwrap_or_default();
    let names = secrets.lines().filter_map(|line| line.trim().split_once(": {file:"));
    names.map(|(name, _)| name.to_uppercase()).collect()
}

#[test]
fn every_secret_reaches_the_containers_as_a_file() {
    let text = repo::file(EXAMPLE).text;
    let paragraphs = text.split("\n\n").filter(|paragraph| paragraph.starts_with("# Secret"));
    let names = paragraphs.filter_map(|paragraph| paragraph.trim().lines().next_back());
    let names: BTreeSet<String> =
        names.filter_map(|line| line.split_once('=')).map(|(name, _)| name.to_owned()).collect();
    assert!(names.len() > 3, "only {} secrets were found: mend the search", names.len());
    let differ: Vec<_> = names.symmetric_difference(&compose_secrets()).cloned().collect();
    expect_none(&differ, "one paragraph `# Secret` in .env.example, and one file in `secrets:`");
}

#[test]
fn what_compose_files_read_is_documented() {
    let example = example();
    let uses = compose_variables();
    assert!(uses.len() > 10, "only {} variables were found: mend the search", uses.len());
    let unknown = uses.iter().filter(|variable| !example.contains_key(&variable.name));
    let unknown: Vec<_> = unknown.map(|v| format!("{}: ${{{}}}", v.place, v.name)).collect();
    expect_none(&unknown, "describe it in .env.example: a sentence, and the local value");
}

#[test]
fn what_is_documented_is_read() {
    let mut read: BTreeSet<String> = compose_variables().into_iter().map(|v| v.name).collect();
    read.extend(compose_secrets());
    let is_excused = |name: &str| READ_BY_OTHERS.iter().any(|(known, _)| *known == name);
    let names = example().into_keys();
    let idle: Vec<_> = names.filter(|name| !read.contains(name) && !is_excused(name)).collect();
    expect_none(&idle, "no Compose file reads it: remove it from .env.example, or pass it on");
    let example = example();
    expect_used(&READ_BY_OTHERS.map(|(name, _)| name), |name| {
        example.contains_key(name) && !read.contains(name)
    });
}

#[test]
fn defaults_in_compose_files_are_the_documented_values() {
    let example = example();
    let differs = |v: &&Use| v.default.as_ref().is_some_and(|d| example.get(&v.name) != Some(d));
    let wrong = compose_variables();
    let wrong: Vec<_> = wrong
        .iter()
        .filter(differs)
        .map(|v| format!("{}: {} is {:?}", v.place, v.name, v.default.as_deref().unwrap()))
        .collect();
    expect_none(&wrong, "write the value of .env.example after `:-`");
}

/// The variables that the backend's Config asks for, with the reader's method.
fn backend_variables() -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    let is_config = |file: &File| file.path == "backend/src/config.rs";
    for file in repo::files().iter().filter(|file| is_config(file) || is_main(file)) {
        let text = file.text.split("#[cfg(test)]").next().unwrap_or_default();
        for (index, line) in text.lines().enumerate() {
            let asked = line.split_once("reader.").and_then(|(_, call)| call.split_once("(\""));
            let told = line.split_once("env = \"").map(|(_, name)| ("env", name));
            for (method, rest) in asked.into_iter().chain(told) {
                let name: String = rest.chars().take_while(|c| is_name(*c)).collect();
                let is_whole = rest[name.len()..].starts_with('"');
                if is_whole {
                    let place = format!("{}:{}", file.path, index + 1);
                    found.push((place, method.to_owned(), name));
                }
            }
        }
    }
    found
}

fn is_main(file: &File) -> bool {
    file.path == "backend/src/main.rs"
}

#[test]
fn what_the_backend_reads_is_documented() {
    let example = example();
    let variables = backend_variables();
    assert!(variables.len() > 8, "only {} variables were found: mend the search", variables.len());
    let is_excused = |name: &str| OWN_TO_THE_BACKEND.iter().any(|(known, _)| *known == name);
    let unknown =
        variables.iter().filter(|(_, _, name)| !example.contains_key(name) && !is_excused(name));
    let unknown: Vec<_> = unknown.map(|(place, _, name)| format!("{place}: {name}")).collect();
    expect_none(&unknown, "describe it in .env.example, and pass it on in compose.yaml");
    expect_used(&OWN_TO_THE_BACKEND.map(|(name, _)| name), |name| {
        !example.contains_key(name) && variables.iter().any(|(_, _, known)| known == name)
    });
}

#[test]
fn what_the_backend_cannot_do_without_reaches_its_container() {
    let compose = repo::file("compose.yaml");
    let must = backend_variables().into_iter();
    let must =
        must.filter(|(_, method, _)| matches!(method.as_str(), "required" | "password" | "key"));
    let is_passed = |name: &str| {
        let starts = [format!("{name}: "), format!("{name}_FILE: /run/secrets/")];
        let mut lines = compose.text.lines().map(str::trim_start);
        lines.any(|line| starts.iter().any(|start| line.starts_with(start)))
    };
    let lost = must.filter(|(_, _, name)| !is_passed(name));
    let lost: Vec<_> = lost.map(|(place, _, name)| format!("{place}: {name}")).collect();
    expect_none(&lost, "add `NAME: ${NAME:?…}` to the backend's `environment` in compose.yaml");
}
