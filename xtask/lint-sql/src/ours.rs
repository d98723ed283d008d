//! What Squawk has no rule for, or cannot know about our engine.

use squawk_syntax::ast::{AstNode, Stmt};
use squawk_syntax::{SyntaxNode, SyntaxToken};

use crate::Finding;

/// A statement by its words: comments and space left out, in capitals.
struct Words {
    tokens: Vec<SyntaxToken>,
    words: Vec<String>,
}

/// A rule: its name, whether a statement breaks it, why that matters, and the safe way.
type Rule = (&'static str, fn(&Stmt, &Words) -> bool, &'static str, &'static str);

const RULES: &[Rule] = &[
    (
        "lock-table",
        |stmt, _| matches!(stmt, Stmt::Lock(_)),
        "It holds everybody who uses the table up until the whole file is applied.",
        "let each statement take the lock that it needs, for as short as it needs it",
    ),
    (
        "table-rewrite",
        |stmt, words| match stmt {
            Stmt::Cluster(_) => true,
            Stmt::Vacuum(_) => words.has(&["FULL"]),
            Stmt::AlterTable(_) => {
                words.has(&["SET", "TABLESPACE"])
                    || words.has(&["SET", "LOGGED"])
                    || words.has(&["SET", "UNLOGGED"])
            }
            _ => false,
        },
        "It writes the whole table anew, and nobody can even read it meanwhile.",
        "pg_repack, or a new table that is filled in a file of its own",
    ),
    (
        "serial-column",
        |stmt, words| {
            matches!(stmt, Stmt::AlterTable(_))
                && words.has(&["ADD"])
                && ["SERIAL", "BIGSERIAL", "SMALLSERIAL"].iter().any(|word| words.has(&[word]))
        },
        "Every row gets a number, so the whole table is written anew, and nobody can read it meanwhile.",
        "add the column without a default, fill the old rows in a file of its own, and SET DEFAULT \
         nextval(…) for new ones",
    ),
    (
        "column-with-check",
        |stmt, words| {
            matches!(stmt, Stmt::AlterTable(_))
                && words.has(&["ADD", "COLUMN"])
                && words.has(&["CHECK"])
                && !words.has(&["NOT", "VALID"])
        },
        "The check of a column that is added looks at every row, and nobody can read the table meanwhile.",
        "ADD COLUMN without it, then ADD CONSTRAINT … CHECK … NOT VALID, and VALIDATE CONSTRAINT in the \
         next file",
    ),
    (
        "refresh-concurrently",
        |stmt, words| matches!(stmt, Stmt::Refresh(_)) && !words.has(&["CONCURRENTLY"]),
        "Nobody can read the view until it is filled.",
        "REFRESH MATERIALIZED VIEW CONCURRENTLY, which needs a unique index on the view",
    ),
    (
        "truncate",
        |stmt, _| matches!(stmt, Stmt::Truncate(_)),
        "Every row is gone, and the version that still runs may need them.",
        "only once no release that is in use asks for them; then say so above the statement",
    ),
    (
        "lock-timeout-changed",
        |stmt, words| matches!(stmt, Stmt::Set(_) | Stmt::Reset(_)) && words.has(&["LOCK_TIMEOUT"]),
        "The engine's own lock_timeout is what keeps requests from failing behind a lock that is waited \
         for.",
        "leave it out: the engine tries the file again when it runs out",
    ),
];

/// What a file has of it. A comment above a statement accepts a rule, as with Squawk's.
pub(crate) fn lint(
    statements: impl Iterator<Item = Stmt>,
    text: &str,
    in_transaction: bool,
    line_of: &dyn Fn(&SyntaxToken) -> u32,
) -> Vec<Finding> {
    let mut found = Vec::new();
    for stmt in statements {
        let words = Words::of(stmt.syntax());
        let Some(first) = words.tokens.first() else { continue };
        let line = line_of(first);
        for (rule, is_broken, why, instead) in RULES {
            if is_broken(&stmt, &words) && !is_accepted(text, line, rule) {
                found.push(finding(line, rule, why, instead));
            }
        }
        if in_transaction && !matches!(stmt, Stmt::Refresh(_)) {
            found.extend(concurrently(&words, line_of));
        }
    }
    found
}

/// `CONCURRENTLY` in a file that is one transaction. Squawk has this rule for a file of several
/// statements only, because it cannot know that our engine makes a transaction of a single one too.
fn concurrently(words: &Words, line_of: &dyn Fn(&SyntaxToken) -> u32) -> Option<Finding> {
    let place = words.words.iter().position(|word| word == "CONCURRENTLY")?;
    Some(finding(
        line_of(&words.tokens[place]),
        "concurrently-in-transaction",
        "PostgreSQL refuses CONCURRENTLY inside a transaction, and this file is one.",
        "the statement alone in a file whose first line is `-- no-transaction`",
    ))
}

fn finding(line: u32, rule: &str, why: &str, instead: &str) -> Finding {
    let instead = Some(instead.to_owned());
    Finding { line, rule: rule.to_owned(), why: why.to_owned(), instead }
}

/// Whether the line above (lines count from 1) has the comment.
fn is_accepted(text: &str, line: u32, rule: &str) -> bool {
    let above = usize::try_from(line).ok().and_then(|line| line.checked_sub(2));
    let comment = above.and_then(|above| text.lines().nth(above));
    let names = comment.and_then(|comment| comment.trim().strip_prefix("-- squawk-ignore "));
    let names = names.map(|names| names.split("--").next().unwrap_or_default());
    names.is_some_and(|names| names.split(',').any(|name| name.trim() == rule))
}

impl Words {
    fn of(node: &SyntaxNode) -> Words {
        let tokens = node.descendants_with_tokens().filter_map(|element| element.into_token());
        let tokens: Vec<_> = tokens.filter(|token| !token.kind().is_trivia()).collect();
        let words = tokens.iter().map(|token| token.text().to_ascii_uppercase()).collect();
        Words { tokens, words }
    }

    /// Whether these words follow each other in it.
    fn has(&self, wanted: &[&str]) -> bool {
        self.words.windows(wanted.len()).any(|words| words == wanted)
    }
}
