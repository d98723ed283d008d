//! What the statements so far tell about tables: which ones this file makes, and which columns a
//! validated check keeps from being NULL.

use std::collections::{BTreeMap, BTreeSet};

use squawk_syntax::ast::{
    AlterColumnOption, AlterTable, AlterTableAction, AstNode, BinOp, Constraint, Expr, LitKind,
    Stmt, TableName,
};
use squawk_syntax::{SyntaxNode, SyntaxToken};

/// Statements are to be read in the order in which they are applied.
#[derive(Default)]
pub(crate) struct Tables {
    made: BTreeSet<String>,
    checks: BTreeMap<Place, Check>,
}

/// A table, and the name of a constraint of it.
type Place = (String, String);

/// A check that holds for no row in which one of the columns is NULL.
struct Check {
    columns: Vec<String>,
    is_validated: bool,
}

impl Tables {
    /// A table that a file makes is nobody's until the file is applied; in the next one it is in use.
    pub(crate) fn next_file(&mut self) {
        self.made.clear();
    }

    /// Whether the statement changes a table that this file makes.
    pub(crate) fn has_made_table_of(&self, stmt: &Stmt) -> bool {
        matches!(stmt, Stmt::AlterTable(alter) if self.made.contains(&table_of(alter)))
    }

    /// The columns for which the statement says `SET NOT NULL` though no check proves it: each by the first
    /// word of its action.
    pub(crate) fn unproven_not_null(&self, stmt: &Stmt) -> Vec<SyntaxToken> {
        let Stmt::AlterTable(alter) = stmt else { return Vec::new() };
        let table = table_of(alter);
        let is_proven = |column: &str| {
            self.checks.iter().any(|((of, _), check)| {
                *of == table && check.is_validated && check.columns.iter().any(|one| one == column)
            })
        };
        let sets = alter.actions().filter_map(|action| match action {
            AlterTableAction::AlterColumn(alter) => match alter.option() {
                Some(AlterColumnOption::SetNotNull(_)) => Some(alter),
                _ => None,
            },
            _ => None,
        });
        sets.filter(|alter| {
            !alter.column_name_ref().is_some_and(|column| is_proven(&name(column.syntax())))
        })
        .filter_map(|alter| alter.syntax().first_token())
        .collect()
    }

    /// Takes in what a statement changes, after it was looked at: `VALIDATE CONSTRAINT` beside
    /// `SET NOT NULL` in one statement has the lock of both.
    pub(crate) fn read(&mut self, stmt: &Stmt) {
        match stmt {
            // With IF NOT EXISTS it may be there already, in use and with rows.
            Stmt::CreateTable(create) if create.if_not_exists().is_none() => {
                self.make(create.table_name());
            }
            Stmt::CreateTableAs(create) if create.if_not_exists().is_none() => {
                self.make(create.table_name());
            }
            Stmt::AlterTable(alter) => {
                let table = table_of(alter);
                alter.actions().for_each(|action| self.change(&table, action));
            }
            _ => {}
        }
    }

    fn make(&mut self, table: Option<TableName>) {
        let table = table.map(|table| name(table.syntax())).unwrap_or_default();
        // What an earlier table of that name had is gone with it.
        self.forget(&table);
        self.made.insert(table);
    }

    fn change(&mut self, table: &str, action: AlterTableAction) {
        let place = |constraint: &SyntaxNode| (table.to_owned(), name(constraint));
        match action {
            AlterTableAction::AddConstraint(add) => {
                let Some(constraint) = add.constraint() else { return };
                let is_validated = !constraint.is_not_valid();
                let Constraint::CheckConstraint(check) = constraint else { return };
                let named =
                    check.constraint_name_clause().and_then(|named| named.constraint_name());
                if let (Some(named), Some(expr)) = (named, check.expr()) {
                    let check = Check { columns: not_null(&expr), is_validated };
                    self.checks.insert(place(named.syntax()), check);
                }
            }
            AlterTableAction::ValidateConstraint(validate) => {
                let named = validate.constraint_name_ref();
                let check = named.and_then(|named| self.checks.get_mut(&place(named.syntax())));
                check.into_iter().for_each(|check| check.is_validated = true);
            }
            AlterTableAction::DropConstraint(drop) => {
                drop.constraint_name_ref()
                    .and_then(|named| self.checks.remove(&place(named.syntax())));
            }
            // A check goes with its column, and has another one after a new name.
            AlterTableAction::DropColumn(drop) => self.forget_column(table, drop.syntax()),
            AlterTableAction::RenameColumn(rename) => self.forget_column(table, rename.syntax()),
            // Under another name nothing is known of it.
            AlterTableAction::RenameConstraint(_)
            | AlterTableAction::TableRenameTo(_)
            | AlterTableAction::SetSchema(_) => self.forget(table),
            _ => {}
        }
    }

    /// Forgets the checks of a column that an action names, and of whatever else it names.
    fn forget_column(&mut self, table: &str, action: &SyntaxNode) {
        let text = action.text().to_string().to_lowercase();
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let words: Vec<&str> = text.split(|c| !is_word(c)).collect();
        self.checks.retain(|(of, _), check| {
            of != table || !check.columns.iter().any(|column| words.contains(&column.as_str()))
        });
    }

    fn forget(&mut self, table: &str) {
        self.checks.retain(|(of, _), _| of != table);
    }
}

/// The columns that are not NULL where the expression is true.
fn not_null(expr: &Expr) -> Vec<String> {
    match expr {
        Expr::ParenExpr(inner) => inner.expr().as_ref().map(not_null).unwrap_or_default(),
        Expr::BinExpr(both) => match (both.lhs(), both.op(), both.rhs()) {
            (Some(left), Some(BinOp::And(_)), Some(right)) => {
                [not_null(&left), not_null(&right)].concat()
            }
            (Some(Expr::NameRef(column)), Some(BinOp::IsNot(_)), Some(Expr::Literal(literal)))
                if matches!(literal.kind(), Some(LitKind::Null(_))) =>
            {
                vec![name(column.syntax())]
            }
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

fn table_of(alter: &AlterTable) -> String {
    let table = alter.table_relation_name().and_then(|relation| relation.table_name_ref());
    table.map(|table| name(table.syntax())).unwrap_or_default()
}

/// A name as the catalogue has it. The schema where everything is made need not be said.
fn name(node: &SyntaxNode) -> String {
    let tokens = node.descendants_with_tokens().filter_map(|element| element.into_token());
    let words = tokens.filter(|token| !token.kind().is_trivia()).map(|token| {
        let text = token.text();
        let quoted = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
        quoted.map_or_else(|| text.to_ascii_lowercase(), |text| text.replace("\"\"", "\""))
    });
    let name: String = words.collect();
    name.strip_prefix("public.").map(str::to_owned).unwrap_or(name)
}
