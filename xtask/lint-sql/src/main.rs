//! `lint-sql FILE…`: what in these migrations would hold up a table in use, or break the version of
//! the program that still runs. One finding: file, line, why, and the safe way. Exit code 1 if there
//! is one.
//!
//! Most rules are Squawk's. This program chooses among them, adds some, and tells the safe way in terms
//! of our migration engine. `cargo xtask migrate lint` knows which files are new, and calls it.

mod ours;
mod rules;

use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use squawk_line_index::LineIndex;
use squawk_linter::Linter;
use squawk_syntax::{SourceFile, SyntaxToken};

/// The first line of a file that the engine applies outside a transaction.
const NO_TRANSACTION: &str = "-- no-transaction";

fn main() -> Result<ExitCode> {
    let files: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    if files.is_empty() {
        bail!("name the files to look at: `lint-sql FILE…`");
    }
    let mut count = 0;
    for file in &files {
        let text = std::fs::read_to_string(file);
        let text = text.with_context(|| format!("read {}", file.display()))?;
        for finding in lint(&text) {
            println!("{}:{finding}\n", file.display());
            count += 1;
        }
    }
    Ok(if count == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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

/// What one file has, in the order of its lines.
fn lint(text: &str) -> Vec<Finding> {
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
    // Squawk assumes PostgreSQL 15 unless told otherwise.
    let mut linter = Linter::with_rules(&[], rules::LEFT_OUT);
    let in_transaction = text.lines().next().map(str::trim_end) != Some(NO_TRANSACTION);
    linter.settings.assume_in_transaction = in_transaction;
    let violations = linter.lint(&parsed, text).into_iter();
    // Some are reported whether they are left out or not.
    let violations = violations.filter(|found| !rules::LEFT_OUT.contains(&found.code));
    let found = violations.map(|violation| Finding {
        line: lines.line_col(violation.text_range.start()).line + 1,
        rule: violation.code.to_string(),
        why: violation.message,
        instead: rules::safe_way(violation.code).map(str::to_owned).or(violation.help),
    });
    let mut found: Vec<Finding> = found.collect();
    let line_of = |token: &SyntaxToken| lines.line_col(token.text_range().start()).line + 1;
    found.extend(ours::lint(parsed.tree().stmts(), text, in_transaction, &line_of));
    found.sort_by_key(|finding| finding.line);
    found
}

#[cfg(test)]
mod tests;
