use super::*;

fn lint(text: &str) -> Vec<Finding> {
    super::lint(text, &mut Tables::default())
}

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
    ("ALTER TABLE notes ADD n int CHECK (n > 0);", "column-with-check"),
    ("ALTER TABLE notes ADD n int CONSTRAINT p CHECK (n > 0);", "column-with-check"),
    (
        "ALTER TABLE notes ADD n int CHECK (n > 0), ADD CONSTRAINT c CHECK (id > 0) NOT VALID;",
        "column-with-check",
    ),
    ("ALTER TABLE notes ADD n bigint REFERENCES accounts (id);", "adding-foreign-key-constraint"),
    ("ALTER TABLE notes ADD n int UNIQUE;", "disallowed-unique-constraint"),
    ("ALTER TABLE notes ADD n int PRIMARY KEY;", "adding-serial-primary-key-field"),
    ("ALTER TABLE notes ADD n int NOT NULL;", "adding-required-field"),
    ("ALTER TABLE notes ADD n uuid DEFAULT gen_random_uuid();", "adding-field-with-default"),
    ("ALTER TABLE notes ADD n serial8;", "serial-column"),
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
        "CREATE TABLE t (id int); ALTER TABLE t ADD n int CHECK (n > 0);",
        "CREATE TABLE t (id int); ALTER TABLE t ALTER id SET NOT NULL;",
        "CREATE TABLE t AS SELECT 1 AS id; ALTER TABLE t ALTER id SET NOT NULL;",
        "CREATE TABLE IF NOT EXISTS t (id bigint PRIMARY KEY, n int CHECK (n > 0));",
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

/// It may be there already, in use and with rows: then the first statement does nothing.
#[test]
fn a_table_that_may_exist_is_none_of_the_file() {
    for (statement, rule) in [
        ("CREATE INDEX i ON t (n);", "require-concurrent-index-creation"),
        ("ALTER TABLE t ADD CONSTRAINT u UNIQUE (n);", "disallowed-unique-constraint"),
        ("ALTER TABLE t ADD CONSTRAINT c CHECK (n > 0);", "constraint-missing-not-valid"),
        ("ALTER TABLE t ADD n int CHECK (n > 0);", "column-with-check"),
        ("ALTER TABLE t ALTER n SET NOT NULL;", "adding-not-nullable-field"),
    ] {
        let may_exist = format!("CREATE TABLE IF NOT EXISTS t (\n  n int -- ü\n);\n{statement}");
        let found = lint(&may_exist);
        assert!(found.iter().any(|finding| finding.rule == rule), "{statement}: {found:?}");
        assert!(found.iter().all(|finding| finding.line == 4), "{statement}: {found:?}");
        let new = format!("CREATE TABLE t (\n  n int -- ü\n);\n{statement}");
        assert_eq!(rules(&new), Vec::<String>::new(), "{new}");
    }
}

#[test]
fn only_a_validated_check_of_the_same_column_makes_set_not_null_quick() {
    const CHECK: &str = "ALTER TABLE t ADD CONSTRAINT c CHECK (n IS NOT NULL) NOT VALID;";
    const VALIDATE: &str = "ALTER TABLE t VALIDATE CONSTRAINT c;";
    const SET: &str = "ALTER TABLE t ALTER COLUMN n SET NOT NULL;";
    let cases: &[(&[&str], &str, bool)] = &[
        (&[CHECK, VALIDATE], SET, true),
        (
            &[CHECK],
            "ALTER TABLE t VALIDATE CONSTRAINT c; ALTER TABLE t ALTER n SET NOT NULL;",
            true,
        ),
        (&[CHECK, VALIDATE], "ALTER TABLE ONLY public.\"t\" ALTER N SET NOT NULL;", true),
        (
            &[
                "ALTER TABLE t ADD CONSTRAINT c CHECK ((m > 0) AND (n IS NOT NULL)) NOT VALID;",
                VALIDATE,
            ],
            SET,
            true,
        ),
        (&[CHECK], SET, false),
        (&[VALIDATE], SET, false),
        (&[], "ALTER TABLE t VALIDATE CONSTRAINT c; ALTER TABLE t ALTER n SET NOT NULL;", false),
        // One statement has the lock of the stronger action while it looks at the rows.
        (&[CHECK], "ALTER TABLE t VALIDATE CONSTRAINT c, ALTER n SET NOT NULL;", false),
        (&[CHECK, VALIDATE], "ALTER TABLE t ALTER m SET NOT NULL;", false),
        (&[CHECK, VALIDATE], "ALTER TABLE u ALTER n SET NOT NULL;", false),
        (&[CHECK, VALIDATE], "ALTER TABLE other.t ALTER n SET NOT NULL;", false),
        (&[CHECK, "ALTER TABLE u VALIDATE CONSTRAINT c;"], SET, false),
        (&[CHECK, VALIDATE, "ALTER TABLE t DROP CONSTRAINT c;"], SET, false),
        (&[CHECK, VALIDATE, "ALTER TABLE t DROP COLUMN old, DROP o;"], SET, true),
        (&[CHECK, VALIDATE, "ALTER TABLE t RENAME COLUMN o TO p;"], SET, true),
        (&[CHECK, VALIDATE, "ALTER TABLE t RENAME n TO p;"], SET, false),
        (&[CHECK, VALIDATE, "ALTER TABLE t DROP n; ALTER TABLE t ADD n int;"], SET, false),
        (&[CHECK, VALIDATE, "DROP TABLE t; CREATE TABLE t (n int);"], SET, false),
        (&["ALTER TABLE t ADD CONSTRAINT c CHECK (n > 0) NOT VALID;", VALIDATE], SET, false),
        (
            &["ALTER TABLE t ADD CONSTRAINT c CHECK (n IS NOT NULL OR m) NOT VALID;", VALIDATE],
            SET,
            false,
        ),
    ];
    for (before, file, is_quick) in cases {
        let mut tables = Tables::default();
        before.iter().for_each(|text| learn(text, &mut tables));
        let found = super::lint(file, &mut tables);
        let is_found = found.iter().any(|finding| finding.rule == "adding-not-nullable-field");
        assert_eq!(is_found, !is_quick, "{before:?} {file}: {found:?}");
    }
}

#[test]
fn the_files_before_are_those_of_the_folder_with_a_lower_number() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../backend/migrations");
    let all = files_before(&Path::new(folder).join("9999_last.sql")).unwrap();
    assert!(all.len() > 1 && all.is_sorted(), "{all:?}");
    assert_eq!(files_before(&all[1]).unwrap(), all[..1]);
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
