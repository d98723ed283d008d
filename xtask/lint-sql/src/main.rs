//! `lint-sql FILE…`: what in these migrations would hold up a table in use, or break the version of
//! the program that still runs. One finding: file, line, why, and the safe way. Exit code 1 if there
//! is one.
//!
//! The rules are Squawk's. This program chooses among them, and tells the safe way in terms of our
//! migration engine. `cargo xtask migrate lint` knows which files are new, and calls it.

mod rules;

use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use squawk_line_index::LineIndex;
use squawk_linter::Linter;
use squawk_syntax::ast::{AstNode, Stmt};
use squawk_syntax::{Parse, SourceFile, SyntaxKind};

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
    let found = linter.lint(&parsed, text).into_iter().map(|violation| Finding {
        line: lines.line_col(violation.text_range.start()).line + 1,
        rule: violation.code.to_string(),
        why: violation.message,
        instead: rules::safe_way(violation.code).map(str::to_owned).or(violation.help),
    });
    let mut found: Vec<Finding> = found.collect();
    if in_transaction {
        found.extend(concurrently(&parsed, &lines));
        found.sort_by_key(|finding| finding.line);
    }
    found
}

/// `CONCURRENTLY` in a file that is one transaction. Squawk has this rule for a file of several
/// statements only, because it cannot know that our engine makes a transaction of a single one too.
fn concurrently(parsed: &Parse<SourceFile>, lines: &LineIndex) -> Vec<Finding> {
    // The one statement that may stand in a transaction with that word.
    let statements = parsed.tree().stmts().filter(|stmt| !matches!(stmt, Stmt::Refresh(_)));
    let words = statements.flat_map(|stmt| {
        let tokens = stmt.syntax().descendants_with_tokens();
        tokens.filter(|token| token.kind() == SyntaxKind::CONCURRENTLY_KW).collect::<Vec<_>>()
    });
    let finding = |word: squawk_syntax::SyntaxElement| Finding {
        line: lines.line_col(word.text_range().start()).line + 1,
        rule: "concurrently-in-transaction".to_owned(),
        why: "PostgreSQL refuses CONCURRENTLY inside a transaction, and this file is one."
            .to_owned(),
        instead: Some(
            "the statement alone in a file whose first line is `-- no-transaction`".to_owned(),
        ),
    };
    words.map(finding).collect()
}

#[cfg(test)]
mod tests;
