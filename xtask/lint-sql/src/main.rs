//! `lint-sql FILE…`: what in these migrations would hold up a table in use, or break the version of
//! the program that still runs. One finding: file, line, why, and the safe way. Exit code 1 if there
//! is one.
//!
//! Most rules are Squawk's. This program chooses among them, adds some, and tells the safe way in terms
//! of our migration engine. `cargo xtask migrate lint` knows which files are new, and calls it. What the
//! files before a new one, in the same folder, have proven about its tables counts.

mod ours;
mod rules;
mod tables;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use squawk_line_index::LineIndex;
use squawk_linter::{Linter, Violation};
use squawk_syntax::ast::{AstNode, Stmt};
use squawk_syntax::{Parse, SourceFile, SyntaxToken};

use crate::tables::Tables;

/// The first line of a file that the engine applies outside a transaction.
const NO_TRANSACTION: &str = "-- no-transaction";

fn main() -> Result<ExitCode> {
    let files: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    if files.is_empty() {
        bail!("name the files to look at: `lint-sql FILE…`");
    }
    let mut count = 0;
    for file in &files {
        let mut tables = Tables::default();
        for earlier in files_before(file)? {
            learn(&read(&earlier)?, &mut tables);
        }
        for finding in lint(&read(file)?, &mut tables) {
            println!("{}:{finding}\n", file.display());
            count += 1;
        }
    }
    Ok(if count == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn read(file: &Path) -> Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))
}

/// The migrations of the same folder that are applied before this one: names begin with the number.
fn files_before(file: &Path) -> Result<Vec<PathBuf>> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let listed = || format!("list {}", folder.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(listed)? {
        let path = entry.with_context(listed)?.path();
        let is_migration = path.extension().is_some_and(|extension| extension == "sql");
        if is_migration && path.file_name() < file.file_name() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Takes in what an earlier file tells about tables.
fn learn(text: &str, tables: &mut Tables) {
    SourceFile::parse(text).tree().stmts().for_each(|stmt| tables.read(&stmt));
    tables.next_file();
}

/// A statement that should be written in another way.
#[derive(Debug, PartialEq)]
struct Finding {
    line: u32,
    rule: String,
    why: String,
    instead: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}\n  why:     {}", self.line, self.rule, self.why)?;
        self.instead.iter().try_for_each(|text| write!(f, "\n  instead: {text}"))
    }
}

/// What one file has, in the order of its lines; `tables` is what the files before it tell.
fn lint(text: &str, tables: &mut Tables) -> Vec<Finding> {
    let parsed = SourceFile::parse(text);
    let lines = LineIndex::new(text);
    let errors = parsed.errors();
    if !errors.is_empty() {
        let finding = |error: &squawk_syntax::syntax_error::SyntaxError| Finding {
            line: lines.line_col(error.range().start()).line + 1,
            rule: "syntax-error".to_owned(),
            why: error.message().to_owned(),
            instead: None,
        };
        return errors.iter().map(finding).collect();
    }
    let in_transaction = text.lines().next().map(str::trim_end) != Some(NO_TRANSACTION);
    let mut violations = squawk(&parsed, text, in_transaction);
    if let Some(text) = without_tables_that_may_exist(&parsed, text) {
        let more = squawk(&SourceFile::parse(&text), &text, in_transaction);
        let more = more.into_iter().filter(|found| !violations.contains(found));
        violations.extend(more.collect::<Vec<_>>());
    }
    let found = violations.into_iter().map(|violation| Finding {
        line: lines.line_col(violation.text_range.start()).line + 1,
        rule: violation.code.to_string(),
        why: violation.message,
        instead: rules::safe_way(violation.code).map(str::to_owned).or(violation.help),
    });
    let mut found: Vec<Finding> = found.collect();
    let line_of = |token: &SyntaxToken| lines.line_col(token.text_range().start()).line + 1;
    found.extend(ours::lint(parsed.tree().stmts(), tables, text, in_transaction, &line_of));
    found.sort_by_key(|finding| finding.line);
    found
}

/// What Squawk's rules find. It assumes PostgreSQL 15 unless told otherwise.
fn squawk(parsed: &Parse<SourceFile>, text: &str, in_transaction: bool) -> Vec<Violation> {
    let mut linter = Linter::with_rules(&[], rules::LEFT_OUT);
    linter.settings.assume_in_transaction = in_transaction;
    let violations = linter.lint(parsed, text).into_iter();
    // Some are reported whether they are left out or not.
    violations.filter(|found| !rules::LEFT_OUT.contains(&found.code)).collect()
}

/// The text with blanks in the place of each `CREATE TABLE IF NOT EXISTS`, if it has one: for Squawk such a
/// table is made by this file, though it may be there already, in use and with rows.
fn without_tables_that_may_exist(parsed: &Parse<SourceFile>, text: &str) -> Option<String> {
    let mut bytes = text.as_bytes().to_vec();
    let mut has_one = false;
    for stmt in parsed.tree().stmts() {
        if matches!(&stmt, Stmt::CreateTable(create) if create.if_not_exists().is_some()) {
            has_one = true;
            let range = stmt.syntax().text_range();
            let range = usize::from(range.start())..usize::from(range.end());
            // Every other place, and every line, stays where it is.
            bytes[range].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
        }
    }
    has_one.then(|| String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests;
