//! The files of the repository, and the report of what is wrong with them.

use std::fs;
use std::path::{Path, PathBuf};

/// Hidden folders that belong to the repository; every other one is a tool's own.
const HIDDEN: [&str; 3] = [".cargo", ".ci", ".github"];
/// Made by the tools, ignored by git.
const MADE: [&str; 2] = ["target", "backups"];

/// The project's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A text file of the repository.
#[derive(Clone)]
pub(crate) struct File {
    /// Relative to the root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

impl File {
    pub(crate) fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap()
    }

    pub(crate) fn folder(&self) -> &str {
        self.path.rsplit_once('/').map_or("", |(folder, _)| folder)
    }

    /// Its lines with their numbers, from 1.
    pub(crate) fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text.lines().enumerate().map(|(index, line)| (index + 1, line))
    }

    /// A Compose file, wherever it lies.
    pub(crate) fn is_compose(&self) -> bool {
        self.name().starts_with("compose") && self.name().ends_with(".yaml")
    }

    pub(crate) fn is_dockerfile(&self) -> bool {
        self.name().starts_with("Dockerfile")
    }

    pub(crate) fn is_markdown(&self) -> bool {
        self.name().ends_with(".md")
    }
}

/// Every text file, sorted by path. What is not UTF-8 (a picture, an archive) is left out.
pub(crate) fn files() -> Vec<File> {
    let mut found = Vec::new();
    collect(&root(), "", &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// The file at `path`.
#[track_caller]
pub(crate) fn file(path: &str) -> File {
    match fs::read_to_string(root().join(path)) {
        Ok(text) => File { path: path.to_owned(), text },
        Err(error) => panic!("{path}: {error}\nfix: restore it"),
    }
}

fn collect(folder: &Path, prefix: &str, found: &mut Vec<File>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{prefix}{name}");
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            let foreign = name.starts_with('.') && !HIDDEN.contains(&name.as_str());
            // Certificates, made on the machine that runs the stack.
            let foreign = foreign || path == "deploy/certs";
            if !foreign && !MADE.contains(&name.as_str()) {
                collect(&entry.path(), &format!("{path}/"), found);
            }
        } else if kind.is_file() && !is_private(&name) {
            let text = fs::read_to_string(entry.path());
            found.extend(text.ok().map(|text| File { path, text }));
        }
    }
}

/// Environment files hold secrets and are no part of the repository.
fn is_private(name: &str) -> bool {
    name.starts_with(".env") && name != ".env.example"
}

/// Fails with all findings at once, and then with the fix.
#[track_caller]
pub(crate) fn expect_none(findings: &[String], fix: &str) {
    assert!(findings.is_empty(), "\n\n  {}\n\nfix: {fix}\n", findings.join("\n  "));
}

/// Fails where an exception names what is not there any more.
#[track_caller]
pub(crate) fn expect_used(exceptions: &[&str], used: impl Fn(&str) -> bool) {
    let idle: Vec<String> =
        exceptions.iter().filter(|name| !used(name)).map(|name| (*name).to_owned()).collect();
    expect_none(&idle, "these exceptions are needed no longer; remove them from the test's list");
}

/// Whether `word` stands in `text` by itself, and not as a part of a longer word.
pub(crate) fn has_word(text: &str, word: &str) -> bool {
    let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        !is_part(before) && !is_part(after)
    })
}
