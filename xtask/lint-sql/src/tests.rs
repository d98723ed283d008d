use super::*;

/// The rules that a text breaks.
fn rules(text: &str) -> Vec<String> {
    lint(text).into_iter().map(|finding| finding.rule).collect()
}

/// What blocks a table in use: the statement, and the rule that finds it.
const BLOCKING: &[(&str, &str)] = &[
    ("CREATE INDEX i ON notes (text);", "require-concurrent-index-creation"),
    ("CREATE UNIQUE INDEX i ON notes (text);", "require-concurrent-index-creation"),
    ("CREATE INDEX CONCURRENTLY i ON notes (text);", "concurrently-in-transaction"),
    ("DROP INDEX CONCURRENTLY notes_by_account;", "concurrently-in-transaction"),
    ("REINDEX TABLE notes;", "require-concurrent-reindex"),
    ("DROP INDEX notes_by_account;", "require-concurrent-index-deletion"),
    ("ALTER TABLE notes ADD COLUMN u uuid DEFAULT gen_random_uuid();", "adding-field-with-default"),
    (
        "ALTER TABLE notes ADD COLUMN n timestamptz DEFAULT clock_timestamp();",
        "adding-field-with-default",
    ),
    ("ALTER TABLE notes ADD COLUMN n int NOT NULL;", "adding-required-field"),
    ("ALTER TABLE notes ALTER COLUMN text TYPE varchar(9);", "changing-column-type"),
    ("ALTER TABLE notes ALTER COLUMN text SET NOT NULL;", "adding-not-nullable-field"),
    ("ALTER TABLE notes ADD CONSTRAINT c CHECK (id > 0);", "constraint-missing-not-valid"),
    (
        "ALTER TABLE notes ADD CONSTRAINT f FOREIGN KEY (account_id) REFERENCES accounts (id);",
        "adding-foreign-key-constraint",
    ),
    ("ALTER TABLE notes ADD CONSTRAINT u UNIQUE (text);", "disallowed-unique-constraint"),
    ("ALTER TABLE notes DROP COLUMN text;", "ban-drop-column"),
    ("DROP TABLE notes;", "ban-drop-table"),
    ("ALTER TABLE notes RENAME COLUMN text TO body;", "renaming-column"),
    ("ALTER TABLE notes RENAME TO memos;", "renaming-table"),
    ("TRUNCATE notes CASCADE;", "ban-truncate-cascade"),
    ("TRUNCATE notes;", "truncate"),
    ("LOCK TABLE notes IN ACCESS EXCLUSIVE MODE;", "lock-table"),
    ("CLUSTER notes USING notes_by_account;", "table-rewrite"),
    ("VACUUM FULL notes;", "table-rewrite"),
    ("ALTER TABLE notes SET UNLOGGED;", "table-rewrite"),
    ("ALTER TABLE notes SET TABLESPACE slow;", "table-rewrite"),
    ("ALTER TABLE notes ADD COLUMN n bigserial;", "serial-column"),
    ("ALTER TABLE notes ADD COLUMN n int CHECK (n > 0);", "column-with-check"),
    ("REFRESH MATERIALIZED VIEW v;", "refresh-concurrently"),
    ("SET LOCAL lock_timeout = 0;", "lock-timeout-changed"),
    ("RESET lock_timeout;", "lock-timeout-changed"),
];

#[test]
fn what_blocks_is_found_with_a_safe_way() {
    for (statement, rule) in BLOCKING {
        let found = lint(&format!("-- A comment.\n{statement}\n"));
        let finding = found.iter().find(|finding| finding.rule == *rule);
        let finding = finding.unwrap_or_else(|| panic!("{statement}: {found:?}"));
        assert_eq!(finding.line, 2, "{statement}");
        assert!(!finding.why.is_empty(), "{statement}");
        assert!(finding.instead.is_some(), "{statement}: {finding}");
    }
}

#[test]
fn what_blocks_nobody_is_left_alone() {
    let texts = [
        "CREATE TABLE t (id bigint PRIMARY KEY, n int NOT NULL); CREATE INDEX i ON t (n);",
        "ALTER TABLE notes ADD COLUMN done boolean NOT NULL DEFAULT false;",
        "ALTER TABLE notes ADD COLUMN at timestamptz DEFAULT now();",
        "ALTER TABLE notes ADD CONSTRAINT c CHECK (id > 0) NOT VALID;",
        "ALTER TABLE notes VALIDATE CONSTRAINT c;",
        "ALTER TABLE notes ADD CONSTRAINT u UNIQUE USING INDEX i;",
        "-- no-transaction\nCREATE INDEX CONCURRENTLY IF NOT EXISTS i ON notes (text);",
        "REFRESH MATERIALIZED VIEW CONCURRENTLY v;",
        "CREATE TABLE t (id bigserial PRIMARY KEY, n int CHECK (n > 0));",
        "VACUUM notes;",
        "SET LOCAL work_mem = '64MB';",
        "INSERT INTO notes (text) VALUES ('LOCK TABLE notes; SET lock_timeout = 0');",
        "-- no-transaction\nDROP INDEX CONCURRENTLY IF EXISTS i;",
        "INSERT INTO notes (text) VALUES ('CREATE INDEX i ON notes (text);');",
    ];
    for text in texts {
        assert_eq!(rules(text), Vec::<String>::new(), "{text}");
    }
}

#[test]
fn a_comment_above_the_statement_accepts_a_rule_and_no_other() {
    let accepted = "-- squawk-ignore ban-drop-table -- unused since release 7\nDROP TABLE notes;";
    assert_eq!(rules(accepted), Vec::<String>::new());
    let ours = "-- squawk-ignore truncate -- unused since release 7\nTRUNCATE notes;";
    assert_eq!(rules(ours), Vec::<String>::new());
    let other = "-- squawk-ignore ban-drop-column -- unused since release 7\nDROP TABLE notes;";
    assert!(rules(other).contains(&"ban-drop-table".to_owned()));
}

#[test]
fn what_is_no_sql_is_a_finding() {
    let found = lint("CREATE TABLE t (\n  id bigint,,\n);");
    assert_eq!(found[0].rule, "syntax-error");
    assert_eq!(found[0].line, 2);
}

#[test]
fn the_files_that_are_there_are_in_order() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../backend/migrations");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "sql") {
            let found = lint(&std::fs::read_to_string(&path).unwrap());
            assert!(found.is_empty(), "{}: {found:?}", path.display());
        }
    }
}
