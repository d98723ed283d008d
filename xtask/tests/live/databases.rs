//! What is legal in a database, and seldom seen: a backup has it, and a restore brings it back.

use std::fs;

use crate::stand::{Run, Stand, docker, root};

const CREATE: &str = "CREATE DATABASE odd TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'de-DE' \
    CONNECTION LIMIT 7";

const FILL: &str = r#"
COMMENT ON DATABASE odd IS E'it''s :odd\nand goes on';
-- Another program's, which has no names in it.
CREATE TABLE schema_migrations (version bigint);
-- pg_dump gives all rows to the table as a whole, as the values of an enum may have other numbers.
CREATE TYPE mood AS ENUM ('sad', 'glad', 'calm', 'cross');
CREATE TABLE felt (mood mood, n int) PARTITION BY HASH (mood);
CREATE TABLE felt_0 PARTITION OF felt FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE felt_1 PARTITION OF felt FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO felt SELECT (enum_range(NULL::mood))[1 + n % 4], n FROM generate_series(1, 4000) AS n;
CREATE TABLE months (day date, n int) PARTITION BY RANGE (day);
CREATE TABLE months_1 PARTITION OF months FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
INSERT INTO months SELECT '2026-01-02', n FROM generate_series(1, 300) AS n;
CREATE TABLE nothing ();
INSERT INTO nothing DEFAULT VALUES;
CREATE TABLE numbers
  (id bigint GENERATED ALWAYS AS IDENTITY, n int, twice int GENERATED ALWAYS AS (n * 2) STORED);
INSERT INTO numbers (n) VALUES (4), (5);
CREATE UNLOGGED TABLE passing (n int);
INSERT INTO passing VALUES (1);
CREATE TABLE "it's; ""odd""" ("a b" text);
INSERT INTO "it's; ""odd""" VALUES (E'\\.\n\t');
CREATE TABLE hidden (n int);
INSERT INTO hidden VALUES (1);
ALTER TABLE hidden ENABLE ROW LEVEL SECURITY;
ALTER TABLE hidden FORCE ROW LEVEL SECURITY;
CREATE MATERIALIZED VIEW seen AS SELECT count(*) FROM felt;
SELECT lo_from_bytea(4711, 'large');
-- For whoever connects; not for a backup or a restore.
ALTER DATABASE odd SET default_transaction_read_only = on;
ALTER DATABASE odd SET statement_timeout = '500ms';
ALTER ROLE backup IN DATABASE odd SET statement_timeout = '1ms';
"#;

const LOOK: &str = r#"
SET statement_timeout = 0;
SELECT datlocprovider, daticulocale, datconnlimit, shobj_description(oid, 'pg_database')
  FROM pg_database WHERE datname = 'odd';
SELECT 'ä' < 'b';
SELECT count(*), sum(n) FROM felt;
SELECT count(*) FROM months_1;
SELECT count(*) FROM nothing;
SELECT string_agg(id || ' ' || twice, ', ' ORDER BY id) FROM numbers;
SELECT count(*) FROM passing;
SELECT quote_literal("a b") FROM "it's; ""odd""";
SELECT count(*) FROM hidden;
SELECT count FROM seen;
SELECT lo_get(4711);
SELECT string_agg(setting, ' ' ORDER BY setting)
  FROM pg_db_role_setting, unnest(setconfig) AS setting
  WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = 'odd');
"#;

const DAMAGE: &str = "SET statement_timeout = 0; BEGIN READ WRITE; DELETE FROM felt; COMMIT";

fn psql(stand: &Stand, sql: &str) -> Run {
    let words = ["psql", "--", "-U", "postgres", "-d", "odd", "-v", "ON_ERROR_STOP=1", "-Atqc"];
    stand.xtask(&[&words[..], &[sql]].concat())
}

#[test]
fn databases_of_every_legal_kind_come_back() {
    let stand = Stand::new();
    stand.up().ok();
    stand.sql(CREATE);
    psql(&stand, FILL).ok();
    let look = || psql(&stand, LOOK).ok().stdout;
    let before = look();
    let expected = "i|de-DE|7|it's :odd\nand goes on\nt\n4000|8002000\n300\n1\n1 8, 2 10\n1\n";
    assert!(before.starts_with(expected), "{before}");
    // A volume of before this right was given.
    stand.sql("ALTER ROLE backup NOBYPASSRLS");
    stand
        .xtask(&["backup"])
        .fails(1, &["the role `backup` may not read all of it", "-f - <deploy/postgres/roles.sql"]);
    // As it is advised: the file of the checkout, because the container may have one of before.
    let roles = fs::File::open(root().join("deploy/postgres/roles.sql")).unwrap();
    let mut mend = stand.command(&["psql", "--", "-U", "postgres", "-q", "-f", "-"]);
    assert!(mend.stdin(roles).status().unwrap().success());
    // The drill reads every row back, and the restore of what it has proven counts them.
    stand.xtask(&["backup", "--verify"]).ok();
    for how in [&["--compare"][..], &[]] {
        psql(&stand, DAMAGE).ok();
        assert_ne!(look(), before);
        let words = ["restore", "latest", "--skip-safety-backup", "--yes"];
        stand.xtask(&[&words[..], how].concat()).ok();
        assert_eq!(look(), before, "{how:?}");
    }
}

/// An extension may fill a table of its own, as PostGIS does: a dump has only what came to that. It may
/// bind its tables to each other, so that their rows have an order. And the server may have a later
/// version of it by the time of the restore.
#[test]
fn the_rows_of_an_extension_are_kept_and_their_order_too() {
    const FILES: &str = "\
cd \"$(dirname \"$(find /usr -name plpgsql.control | head -n 1)\")\"
printf \"default_version = '$1'\\nrelocatable = false\\nschema = public\\n\" >trial.control
cat >\"trial--$1.sql\" <<'SQL'
CREATE TABLE trial_words (word text PRIMARY KEY);
INSERT INTO trial_words VALUES ('theirs');
CREATE TABLE trial_uses (word text REFERENCES trial_words, line int);
SELECT pg_catalog.pg_extension_config_dump('trial_words', 'WHERE word <> ''theirs''');
SELECT pg_catalog.pg_extension_config_dump('trial_uses', '');
SQL";
    let stand = Stand::new();
    stand.up().ok();
    let postgres = stand.container("postgres");
    let provide = |version: &str| {
        docker(&["exec", "--user=0", &postgres, "sh", "-euc", FILES, "sh", version]).ok();
    };
    provide("1.0");
    // The table that refers to the other is the larger one.
    stand.sql(
        "CREATE EXTENSION trial; INSERT INTO trial_words VALUES ('ours'); \
         INSERT INTO trial_uses SELECT 'ours', n FROM generate_series(1, 5000) AS n",
    );
    stand.xtask(&["backup"]).ok();
    stand.sql("DELETE FROM trial_uses; DELETE FROM trial_words");
    provide("1.1");
    let restored = stand.xtask(&["restore", "latest", "--skip-safety-backup", "--yes"]).ok();
    restored.says(&["trial 1.1", "trial 1.0 were saved"]);
    let words = stand.sql("SELECT string_agg(word, ' ' ORDER BY word) FROM trial_words");
    let uses = stand.sql("SELECT count(*) FROM trial_uses");
    assert_eq!((&*words, &*uses), ("ours theirs", "5000"));
}
