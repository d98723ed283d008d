//! Which of Squawk's rules count here, and the safe way in terms of our engine.

use squawk_linter::Rule;

/// Rules that are not about a table in use, or that the engine has settled already.
pub(crate) const LEFT_OUT: &[Rule] = &[
    // The engine sets `lock_timeout` for every file, and gives filling a table the time it needs.
    Rule::RequireLockTimeout,
    Rule::RequireStatementTimeout,
    // The engine refuses a file that begins or ends a transaction.
    Rule::TransactionNesting,
    Rule::BanUncommittedTransaction,
    // Only for a file of several statements: ours is in `ours.rs`.
    Rule::BanConcurrentIndexCreationInTransaction,
    // Looks at one file, and takes the check of any column for the one that is asked for: ours is in
    // `ours.rs`.
    Rule::AddingNotNullableField,
    // A file is applied whole or not at all, and what failed outside a transaction is removed:
    // there is nothing that `IF NOT EXISTS` would have to get over.
    Rule::PreferRobustStmts,
    // The names of our own rules are not among Squawk's. What a wrong name does not accept is found.
    Rule::UnusedIgnore,
    // Matters of taste: which type a column has blocks nobody.
    Rule::PreferBigintOverInt,
    Rule::PreferBigintOverSmallint,
    Rule::PreferIdentity,
    Rule::PreferTextField,
    Rule::PreferTimestampTz,
    Rule::BanCharField,
];

/// The way that does not hold anybody up, where ours is not the one that Squawk tells.
pub(crate) fn safe_way(rule: Rule) -> Option<&'static str> {
    Some(match rule {
        Rule::RequireConcurrentIndexCreation => {
            "CREATE INDEX CONCURRENTLY IF NOT EXISTS, alone in a file whose first line is \
             `-- no-transaction`"
        }
        Rule::RequireConcurrentIndexDeletion => {
            "DROP INDEX CONCURRENTLY IF EXISTS, alone in a file whose first line is \
             `-- no-transaction`"
        }
        Rule::RequireConcurrentReindex => {
            "REINDEX … CONCURRENTLY, alone in a file whose first line is `-- no-transaction`"
        }
        Rule::ConstraintMissingNotValid | Rule::AddingForeignKeyConstraint => {
            "ADD CONSTRAINT … NOT VALID in this file, and VALIDATE CONSTRAINT in the next one: that \
             looks at the rows while everybody goes on"
        }
        Rule::DisallowedUniqueConstraint | Rule::AddingSerialPrimaryKeyField => {
            "CREATE UNIQUE INDEX CONCURRENTLY in a `-- no-transaction` file, then ADD CONSTRAINT … \
             USING INDEX in the next one"
        }
        Rule::AddingFieldWithDefault => {
            "add the column without a default, SET DEFAULT for new rows, and fill the old ones in a \
             file of its own"
        }
        Rule::AddingRequiredField => {
            "add the column as one that may be NULL or with a constant default: the version that \
             runs does not know it and inserts rows without it"
        }
        Rule::ChangingColumnType => {
            "add a column of the new type, have the program write both, fill the old rows, and drop \
             the old column two releases later"
        }
        Rule::BanDropColumn | Rule::BanDropTable | Rule::BanDropView => {
            "only once no release that is in use asks for it; then say so: \
             `-- squawk-ignore RULE -- unused since release N` above the statement"
        }
        Rule::RenamingColumn | Rule::RenamingTable | Rule::RenamingObject => {
            "the version that runs asks for the old name: add the new one beside it, and drop the old \
             one two releases later"
        }
        _ => return None,
    })
}
