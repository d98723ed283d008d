//! What Squawk has no rule for, or cannot know about our engine.

use squawk_syntax::ast::{AlterTableAction, AstNode, Constraint, Stmt};
use squawk_syntax::{SyntaxNode, SyntaxToken};

use crate::Finding;
use crate::tables::Tables;

/// A statement by its words: comments and space left out, in capitals.
struct Words {
    tokens: Vec<SyntaxToken>,
    words: Vec<String>,
}

/// A rule: its name, whether a statement breaks it, why that matters, and the safe way.
type Rule = (&'static str, fn(&Stmt, &Words) -> bool, &'static str, &'static str);

/// The types that number the rows by themselves.
const SERIALS: [&str; 6] = ["SERIAL", "BIGSERIAL", "SMALLSERIAL", "SERIAL2", "SERIAL4", "SERIAL8"];

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
                && SERIALS.iter().any(|word| words.has(&[word]))
        },
        "Every row gets a number, so the whole table is written anew, and nobody can read it meanwhile.",
        "add the column without a default, fill the old rows in a file of its own, and SET DEFAULT \
         nextval(…) for new ones",
    ),
    (
        "column-with-check",
        |stmt, _| adds_a_checked_column(stmt),
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

/// Squawk has a rule of this name, for which any `VALIDATE CONSTRAINT` of the table is proof enough.
const NOT_NULL: &str = "adding-not-nullable-field";

/// What a file has of it. A comment above a statement accepts a rule, as with Squawk's. `tables` is what
/// the files before it tell.
pub(crate) fn lint(
    statements: impl Iterator<Item = Stmt>,
    tables: &mut Tables,
    text: &str,
    in_transaction: bool,
    line_of: &dyn Fn(&SyntaxToken) -> u32,
) -> Vec<Finding> {
    let mut found = Vec::new();
    for stmt in statements {
        let words = Words::of(stmt.syntax());
        let Some(first) = words.tokens.first() else { continue };
        let line = line_of(first);
        // Nobody uses a table that this file makes.
        if !tables.has_made_table_of(&stmt) {
            for (rule, is_broken, why, instead) in RULES {
                if is_broken(&stmt, &words) && !is_accepted(text, line, rule) {
                    found.push(finding(line, rule, why, instead));
                }
            }
            let unproven = tables.unproven_not_null(&stmt).into_iter().map(|at| line_of(&at));
            let unproven = unproven.filter(|at| {
                !is_accepted(text, line, NOT_NULL) && !is_accepted(text, *at, NOT_NULL)
            });
            found.extend(unproven.map(set_not_null));
        }
        tables.read(&stmt);
        if in_transaction && !matches!(stmt, Stmt::Refresh(_)) {
            found.extend(concurrently(&words, line_of));
        }
    }
    found
}

/// Not by the words of the statement: `COLUMN` may be left out, and `NOT VALID` may be another action's.
fn adds_a_checked_column(stmt: &Stmt) -> bool {
    let Stmt::AlterTable(alter) = stmt else { return false };
    alter.actions().any(|action| match action {
        AlterTableAction::AddColumn(column) => {
            column.constraints().any(|one| matches!(one, Constraint::CheckConstraint(_)))
        }
        _ => false,
    })
}

fn set_not_null(line: u32) -> Finding {
    finding(
        line,
        NOT_NULL,
        "It looks at every row, and nobody can read the table meanwhile; no validated CHECK of this \
         column and table spares that.",
        "ADD CONSTRAINT … CHECK (column IS NOT NULL) NOT VALID; in the next file VALIDATE CONSTRAINT, and \
         after it SET NOT NULL, which then takes PostgreSQL's word for it",
    )
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
