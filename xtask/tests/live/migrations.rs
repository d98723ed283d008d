//! `migrate --dry-run` on a copy, migrations that take longer than a health check waits, and `seed --reset`.

use std::thread;
use std::time::{Duration, Instant};

use crate::stand::{Stand, Visitor, docker};

/// A health check that has given up long before [`SLOW`] is over; and a version, as far as Compose can tell.
fn impatient(stand: &Stand, shade: &str) {
    stand.overlay(&format!(
        "services:\n  backend:\n    environment: {{SHADE: {shade}}}\n    healthcheck:\n      start_period: 1s\n      \
         interval: 1s\n      retries: 2\n"
    ));
}

/// Seconds that the last migration takes.
const SLOW: u32 = 15;

/// The last file is pending, and does this before it does what it says.
fn hold_up(stand: &Stand, deed: &str) {
    stand.sql(&format!(
        "DROP EVENT TRIGGER IF EXISTS held_up;
         CREATE OR REPLACE FUNCTION held_up() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN {deed}; END $$;
         CREATE EVENT TRIGGER held_up ON ddl_command_start WHEN TAG IN ('CREATE INDEX')
             EXECUTE FUNCTION held_up();
         DELETE FROM schema_migrations WHERE version = 4"
    ));
}

fn slowly(stand: &Stand) {
    hold_up(stand, &format!("PERFORM pg_sleep({SLOW})"));
}

/// Whether it is applied, and took as long as it takes.
fn is_applied(stand: &Stand) -> bool {
    let query =
        format!("SELECT duration_ms >= {SLOW} * 1000 FROM schema_migrations WHERE version = 4");
    stand.sql(&query) == "t"
}

fn id_of_backend(stand: &Stand) -> String {
    docker(&["inspect", "--format", "{{.Id}}", &stand.container("backend")]).ok().stdout
}

#[test]
fn a_migration_takes_as_long_as_it_needs_while_the_old_version_serves() {
    let stand = Stand::new();
    impatient(&stand, "red");
    stand.up().ok();
    let visitor = Visitor::new(&stand);
    for (shade, command) in [("blue", &["deploy", "--watch", "1"][..]), ("green", &["up"])] {
        slowly(&stand);
        impatient(&stand, shade);
        let before = id_of_backend(&stand);
        let dry = [command, &["--dry-run"]].concat();
        stand.xtask(&dry).ok().says(&["migrate   postgres  0004_", " first, beside what runs"]);
        let started = Instant::now();
        let mut run = stand.spawn(command);
        while started.elapsed() < Duration::from_secs(u64::from(SLOW) - 5) {
            assert_eq!(
                (visitor.get("/api/session").0, id_of_backend(&stand)),
                (401, before.clone())
            );
            thread::sleep(Duration::from_millis(200));
        }
        assert!(run.wait().unwrap().success(), "{command:?}");
        assert!(is_applied(&stand), "{command:?}");
        assert_ne!(id_of_backend(&stand), before);
    }

    // One that fails replaces nothing.
    hold_up(&stand, "RAISE EXCEPTION 'not today'");
    impatient(&stand, "white");
    let before = id_of_backend(&stand);
    for command in ["deploy", "up"] {
        stand.xtask(&[command]).fails(1, &["0004_", "not today", "nothing was replaced"]);
        assert_eq!((visitor.get("/api/session").0, id_of_backend(&stand)), (401, before.clone()));
    }
    stand.sql("DROP EVENT TRIGGER held_up");
    stand.xtask(&["deploy", "--watch", "1"]).ok();
    stand.up().ok().says(&["nothing to do"]);
}

#[test]
fn a_migration_under_way_is_waited_for_and_not_ended() {
    let stand = Stand::new();
    impatient(&stand, "red");
    stand.up().ok();
    // As plain Compose starts it: nobody applied anything before.
    slowly(&stand);
    docker(&["restart", &stand.container("backend")]).ok();
    let began = Instant::now();
    let health = || {
        let format =
            ["inspect", "--format", "{{.State.Health.Status}}", &stand.container("backend")];
        docker(&format).ok().stdout.trim().to_owned()
    };
    while health() != "unhealthy" {
        assert!(began.elapsed() < Duration::from_secs(10), "{}", health());
        thread::sleep(Duration::from_millis(100));
    }
    stand.xtask(&["wait"]).fails(1, &["its health check gave up", "applying a migration"]);
    stand
        .up()
        .ok()
        .says(&["are being applied, and are waited for", "waiting for another migrator"]);
    // Ended half way and begun anew, it would have taken longer.
    assert!(began.elapsed() < Duration::from_secs(u64::from(SLOW) + 6), "{:?}", began.elapsed());
    assert!(is_applied(&stand));

    // And as it goes where PostgreSQL has to start as well.
    slowly(&stand);
    stand.xtask(&["down"]).ok();
    stand.up().ok().says(&["are being applied, and are waited for"]);
    assert!(is_applied(&stand));
    assert_eq!(stand.status()["ready"], true);
    stand.up().ok().says(&["nothing to do"]);
}

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
