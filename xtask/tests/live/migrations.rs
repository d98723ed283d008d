//! `migrate --dry-run` on a copy, and `seed --reset`.

use crate::stand::Stand;

/// Everything that a dry run could change, as the superuser sees it.
fn state(stand: &Stand) -> String {
    let query = "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database;
                 SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class
                  WHERE relnamespace = 'public'::regnamespace;
                 SELECT string_agg(version::text || applied_at, ' ' ORDER BY version)
                   FROM schema_migrations;";
    stand.sql(query)
}

#[test]
fn pending_migrations_are_tried_on_a_copy_and_the_database_stays_as_it_is() {
    let stand = Stand::new();
    stand.up().ok();
    stand.xtask(&["migrate", "--dry-run"]).ok().says(&["0 migrations applied now"]);

    // As before the fourth file, or however many there are: it is pending again.
    stand.sql("DELETE FROM schema_migrations WHERE version = 4");
    let before = state(&stand);
    stand.xtask(&["migrate", "--dry-run"]).ok().says(&["1 migrations applied now", "on a copy"]);
    assert_eq!(state(&stand), before);

    // What is there already is in the copy too, and what fails there has not happened here.
    stand.sql("DELETE FROM schema_migrations");
    let before = state(&stand);
    let failed = stand.xtask(&["migrate", "--dry-run"]);
    failed.fails(1, &["0001_accounts.sql failed", "already exists"]);
    assert_eq!(state(&stand), before);
}

#[test]
fn a_reset_leaves_the_samples_and_nothing_else() {
    let stand = Stand::new();
    stand.up().ok();
    stand.xtask(&["seed"]).ok();
    let samples = "SELECT min(id), count(*), min(email) FROM accounts";
    let fresh = stand.sql(samples);
    stand.sql("INSERT INTO accounts (email, password_hash) VALUES ('a@example.com', '')");
    stand.xtask(&["redis-cli", "--", "set", "session:old", "1"]).ok();
    assert_ne!(stand.sql(samples), fresh);

    stand.xtask(&["seed", "--reset"]).fails(1, &["delete every row", "--yes"]);
    assert_ne!(stand.sql(samples), fresh);
    stand.xtask(&["seed", "--reset", "--yes"]).ok();
    assert_eq!(stand.sql(samples), fresh);
    let left = stand.xtask(&["redis-cli", "--", "exists", "session:old"]).ok().stdout;
    assert_eq!(left.trim(), "0");
    stand.xtask(&["migrate", "status"]).ok();

    // Nothing is asked, and nothing is done, where the data are real.
    stand.set("APP_ENV", "production");
    stand
        .xtask(&["seed", "--reset", "--yes"])
        .fails(1, &["is a production stack, and was left alone"]);
    assert_eq!(stand.sql(samples), fresh);
}
