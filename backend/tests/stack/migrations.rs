//! The migration engine against a real PostgreSQL, each test in a database of its own.

use std::sync::Mutex;

use backend::{
    config::{DatabaseConfig, Rotating},
    db,
    migrate::{self, MigrateError, Summary, files::Set, lock, status},
};
use sqlx::{Connection, PgConnection};

use crate::{
    database::{Database, connect, execute},
    relay::Relay,
    support::admin_config,
};

type File = (&'static str, &'static str);

const ONE: File = ("0001_one.sql", "CREATE TABLE one (id int); INSERT INTO one VALUES (1);");
const TWO: File = ("0002_two.sql", "CREATE TABLE two (id int);");
const THREE: File = ("0003_three.sql", "CREATE TABLE three (id int);");

impl Database {
    async fn run(&self, files: &[File]) -> Result<Summary, MigrateError> {
        migrate::run(&self.owner, &set(files), &|_| {}).await
    }

    async fn error(&self, files: &[File]) -> String {
        self.run(files).await.unwrap_err().to_string()
    }

    /// The tables, and how many rows the history has.
    async fn schema(&self) -> String {
        self.text(
            "SELECT string_agg(relname, ' ' ORDER BY relname) FROM pg_class
             WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'i')
               AND relname NOT LIKE 'schema_migrations%'",
        )
        .await
    }

    async fn text(&self, query: &'static str) -> String {
        let mut connection = connect(&self.owner).await;
        let text: Option<String> =
            sqlx::query_scalar(query).fetch_one(&mut connection).await.unwrap();
        text.unwrap_or_default()
    }
}

fn set(files: &[File]) -> Set {
    Set::parse(files.iter().copied()).unwrap()
}

#[tokio::test]
async fn files_are_applied_once_and_in_order() {
    let database = Database::empty();
    let summary = database.run(&[TWO, ONE]).await.unwrap();
    assert_eq!(summary, Summary { applied: 2, total: 2 });
    let summary = database.run(&[ONE, TWO, THREE]).await.unwrap();
    assert_eq!(summary, Summary { applied: 1, total: 3 });
    assert_eq!(database.schema().await, "one three two");
    assert_eq!(database.text("SELECT count(*)::text FROM one").await, "1");
}

#[tokio::test]
async fn edited_missing_and_late_files_stop_it_before_it_changes_anything() {
    let database = Database::empty();
    database.run(&[ONE, THREE]).await.unwrap();
    let four = ("0004_four.sql", "CREATE TABLE four (id int);");

    let edited = ("0001_one.sql", "CREATE TABLE one (id bigint);");
    let message = database.error(&[edited, THREE, four]).await;
    assert!(message.contains("0001_one.sql is not what was applied"), "{message}");
    let message = database.error(&[THREE, four]).await;
    assert!(message.contains("0001_one.sql was applied and is gone"), "{message}");
    let message = database.error(&[ONE, TWO, THREE, four]).await;
    assert!(message.contains("0002_two.sql comes before"), "{message}");

    assert_eq!(database.schema().await, "one three");
    database.run(&[ONE, THREE, four]).await.unwrap();
}

#[tokio::test]
async fn a_failure_leaves_nothing_and_can_be_mended() {
    let database = Database::empty();
    let broken = ("0002_two.sql", "CREATE TABLE two (id int);\nINSERT INTO nowhere VALUES (1);");
    let message = database.error(&[ONE, broken, THREE]).await;
    assert!(message.contains("migrations/0002_two.sql failed"), "{message}");
    assert!(message.contains("does not exist (SQLSTATE 42P01), line 2"), "{message}");
    assert_eq!(database.schema().await, "one");

    let summary = database.run(&[ONE, TWO, THREE]).await.unwrap();
    assert_eq!(summary, Summary { applied: 2, total: 3 });
}

#[tokio::test]
async fn many_migrators_at_once_apply_each_file_once() {
    let database = Database::empty();
    // The statement that deadlocks with a lock that is waited for inside PostgreSQL.
    let slow = ("0002_slow.sql", "SELECT pg_sleep(0.5); CREATE TABLE slow (id int);");
    let index = ("0003_index.sql", "-- no-transaction\nCREATE INDEX CONCURRENTLY i ON one (id);");
    let files = [ONE, slow, index];
    let (a, b, c) = tokio::join!(database.run(&files), database.run(&files), database.run(&files));
    let applied: usize = [a, b, c].into_iter().map(|run| run.unwrap().applied).sum();
    assert_eq!(applied, 3);
    assert_eq!(database.schema().await, "i one slow");
}

#[tokio::test]
async fn a_migrator_says_whom_it_waits_for_and_gives_up() {
    let database = Database::empty();
    let held = lock::acquire(&database.owner, lock::WAIT, &|_| {}).await.unwrap();
    let said = Mutex::new(Vec::new());
    let report = |line: &str| said.lock().unwrap().push(line.to_owned());
    let limit = std::time::Duration::from_millis(500);
    let outcome = lock::acquire(&database.owner, limit, &report).await;
    let message = outcome.err().unwrap().to_string();
    assert!(message.contains("another migrator (pid "), "{message}");
    let said = said.into_inner().unwrap();
    assert!(said[0].contains("waiting for another migrator to finish: pid "), "{said:?}");

    held.release().await;
    lock::acquire(&database.owner, limit, &|_| {}).await.unwrap().release().await;
}

/// The advice that a waiting migrator gives: whoever ends the holder ends its work, before the lock is free.
#[tokio::test]
async fn who_ends_the_holder_of_the_lock_ends_its_work() {
    let database = Database::empty();
    // Longer than the test takes: it ends with its session, and the second one has nothing of the kind.
    let slow = set(&[("0001_slow.sql", "CREATE TABLE slow (id int); SELECT pg_sleep(600);")]);
    let quick = set(&[("0001_slow.sql", "CREATE TABLE slow (id int);")]);
    let (tell, told) = tokio::sync::oneshot::channel();
    let tell = Mutex::new(Some(tell));
    let report = |line: &str| {
        if let Some((_, rest)) = line.split_once("to finish: pid ")
            && let Some(tell) = tell.lock().unwrap().take()
        {
            tell.send(rest.split(' ').next().unwrap().to_owned()).unwrap();
        }
    };
    let (begin, begun) = tokio::sync::oneshot::channel();
    let begin = Mutex::new(Some(begin));
    let first = |line: &str| {
        if line.starts_with("applying ") {
            begin.lock().unwrap().take().unwrap().send(()).unwrap();
        }
    };
    let second = async {
        begun.await.unwrap();
        migrate::run(&database.owner, &quick, &report).await
    };
    let end = async {
        let told = tokio::time::timeout(std::time::Duration::from_secs(60), told);
        let pid = told.await.expect("the second one waits, and says for whom").unwrap();
        let mut other = connect(&database.owner).await;
        execute(&mut other, &format!("SELECT pg_terminate_backend({pid})")).await;
    };
    let (first, second, ()) =
        tokio::join!(migrate::run(&database.owner, &slow, &first), second, end);
    let message = first.unwrap_err().to_string();
    assert!(message.contains("0001_slow.sql failed"), "{message}");
    assert_eq!(second.unwrap(), Summary { applied: 1, total: 1 });
}

/// Until a statement of this database waits for an advisory lock.
async fn until_somebody_waits(observer: &mut PgConnection) {
    let waiting = "SELECT count(*) FROM pg_stat_activity
                   WHERE datname = current_database() AND wait_event = 'advisory'";
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut *observer).await.unwrap() == 0 {
        assert!(std::time::Instant::now() < deadline, "the statement does not begin");
    }
}

/// PostgreSQL notices only after a while that the process of a statement is gone: until then nobody else may begin.
#[tokio::test]
async fn a_migrator_that_died_keeps_others_out_while_its_statement_runs() {
    let database = Database::empty();
    // The statement ends when this test lets go of its lock.
    let slow = ("0001_slow.sql", "-- no-transaction\nSELECT pg_advisory_lock(1);");
    let mut holder = connect(&database.owner).await;
    execute(&mut holder, "SELECT pg_advisory_lock(1)").await;
    let owner = database.owner.clone();
    let (begin, begun) = tokio::sync::oneshot::channel();
    let begin = Mutex::new(Some(begin));
    let first = tokio::spawn(async move {
        let report = |line: &str| {
            if line.starts_with("applying ") {
                begin.lock().unwrap().take().unwrap().send(()).unwrap();
            }
        };
        migrate::run(&owner, &set(&[slow]), &report).await
    });
    begun.await.unwrap();
    until_somebody_waits(&mut holder).await;
    first.abort();
    let _ = first.await;
    let limit = std::time::Duration::from_secs(1);
    let outcome = lock::acquire(&database.owner, limit, &|_| {}).await;
    let message = outcome.err().unwrap().to_string();
    assert!(message.contains("another migrator (pid "), "{message}");
    execute(&mut holder, "SELECT pg_advisory_unlock(1)").await;
    lock::acquire(&database.owner, lock::WAIT, &|_| {}).await.unwrap().release().await;
}

/// Silent for ever, in the middle: the engine says at which step, and does not wait for ever.
#[tokio::test]
async fn a_database_that_goes_silent_is_given_up_with_the_step() {
    let database = Database::empty();
    let limit = std::time::Duration::from_secs(30);
    let place = || Relay::to(database.owner.host.clone(), database.owner.port);

    let relay = place().await;
    let through = relay.instead_of(&database.owner);
    let files = set(&[ONE]);
    let report = |line: &str| relay.open(!line.starts_with("applying "));
    let run = async {
        let outcome = tokio::time::timeout(limit, migrate::run(&through, &files, &report)).await;
        let message = outcome.expect("it is waited for for ever").unwrap_err().to_string();
        assert!(message.contains("0001_one.sql failed: "), "{message}");
        assert!(message.contains("BEGIN: no answer within 10 s"), "{message}");
    };

    // The lock of another database, which is another lock.
    let another = Database::empty();
    let mut other = place().await;
    let through = other.instead_of(&another.owner);
    let mut held = lock::acquire(&through, lock::WAIT, &|_| {}).await.unwrap();
    let _silent = other.silence();
    let check = async {
        let outcome = tokio::time::timeout(limit, held.check()).await;
        let message = outcome.expect("it is waited for for ever").unwrap_err().to_string();
        assert!(message.contains("the migration lock is still held: "), "{message}");
        assert!(message.contains("no answer within 10 s"), "{message}");
    };
    tokio::join!(run, check);
}

#[tokio::test]
async fn a_file_that_frees_the_lock_is_the_last_one() {
    let database = Database::empty();
    let frees = ("0001_frees.sql", "SELECT pg_advisory_unlock_all();");
    let message = database.error(&[frees, TWO]).await;
    assert!(message.contains("freed the migration lock"), "{message}");
    assert_eq!(database.schema().await, "");
    // What the engine has prepared until then goes with it.
    let discards = ("0003_discards.sql", "-- no-transaction\nDISCARD ALL;");
    let four = ("0004_four.sql", "CREATE TABLE four (c int);");
    let message = database.error(&[frees, TWO, discards, four]).await;
    assert!(message.contains("freed the migration lock"), "{message}");
    assert_eq!(database.schema().await, "two");
    database.run(&[frees, TWO, discards, four]).await.unwrap();
}

#[tokio::test]
async fn an_index_that_failed_half_way_is_removed_and_built_again() {
    let database = Database::empty();
    let table = ("0001_t.sql", "CREATE TABLE t (c int); INSERT INTO t VALUES (1), (1);");
    let index = (
        "0002_index.sql",
        "-- no-transaction\nCREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS t_c ON t (c);",
    );
    let message = database.error(&[table, index]).await;
    assert!(message.contains("0002_index.sql failed"), "{message}");
    assert_eq!(database.schema().await, "t", "the invalid index was left");

    // As a run that was killed leaves it: `IF NOT EXISTS` would take it for a good one.
    let mut connection = connect(&database.owner).await;
    let statement = "CREATE UNIQUE INDEX CONCURRENTLY t_c ON t (c)";
    sqlx::raw_sql(statement).execute(&mut connection).await.unwrap_err();
    assert_eq!(database.schema().await, "t t_c");
    execute(&mut connection, "DELETE FROM t").await;
    database.run(&[table, index]).await.unwrap();
    let valid = "SELECT indisvalid::text FROM pg_index WHERE indexrelid = 't_c'::regclass";
    assert_eq!(database.text(valid).await, "true");
}

#[tokio::test]
async fn an_invalid_index_may_be_built_anew_or_dropped_by_a_migration() {
    let table = ("0001_t.sql", "CREATE TABLE t (c int); INSERT INTO t VALUES (1), (1);");
    for (file, left) in [
        ("-- no-transaction\nREINDEX INDEX CONCURRENTLY t_c;", "t t_c"),
        ("-- no-transaction\nDROP INDEX CONCURRENTLY t_c;", "t"),
    ] {
        let database = Database::empty();
        database.run(&[table]).await.unwrap();
        let mut connection = connect(&database.owner).await;
        let broken = "CREATE UNIQUE INDEX CONCURRENTLY t_c ON t (c)";
        sqlx::raw_sql(broken).execute(&mut connection).await.unwrap_err();
        execute(&mut connection, "DELETE FROM t").await;
        database.run(&[table, ("0002_index.sql", file)]).await.unwrap();
        assert_eq!(database.schema().await, left);
    }
}

#[tokio::test]
async fn a_lock_held_elsewhere_fails_the_file_and_says_so() {
    let database = Database::empty();
    database.run(&[ONE]).await.unwrap();
    let mut other = connect(&database.owner).await;
    let mut transaction = other.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE one IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *transaction)
        .await
        .unwrap();
    let quick = ("0002_quick.sql", "SET lock_timeout = '100ms'; ALTER TABLE one ADD b int;");
    let message = database.error(&[ONE, quick]).await;
    assert!(message.contains("Another session holds a lock"), "{message}");
    transaction.rollback().await.unwrap();
    database.run(&[ONE, quick]).await.unwrap();
}

/// The engine's own time-outs are in force where a file sets none, whatever the role's are.
#[tokio::test]
async fn every_file_runs_under_the_time_outs_of_the_engine() {
    const SETTINGS: &str = "SELECT format('%s %s %s', current_setting('lock_timeout'),
         current_setting('statement_timeout'),
         current_setting('idle_in_transaction_session_timeout'))";
    let database = Database::empty();
    let file = |name, head: &str, table: &str| -> File {
        (name, format!("{head}CREATE TABLE {table} AS {SETTINGS} AS said;").leak())
    };
    let inside = file("0001_inside.sql", "", "inside");
    let alone = file("0002_alone.sql", "-- no-transaction\n", "alone");
    database.run(&[inside, alone]).await.unwrap();
    assert_eq!(database.text("SELECT said FROM inside").await, "800ms 0 1min");
    assert_eq!(database.text("SELECT said FROM alone").await, "5s 0 1min");
}

/// It gives way, says so, and is applied once whoever held the lock has gone.
#[tokio::test]
async fn a_file_that_meets_a_lock_is_tried_again() {
    let database = Database::empty();
    database.run(&[ONE]).await.unwrap();
    let mut other = connect(&database.owner).await;
    execute(&mut other, "BEGIN; LOCK TABLE one IN ACCESS EXCLUSIVE MODE").await;
    let (tell, told) = tokio::sync::oneshot::channel();
    let tell = Mutex::new(Some(tell));
    let report = |line: &str| {
        if line.contains("attempt 1 of ")
            && let Some(tell) = tell.lock().unwrap().take()
        {
            tell.send(line.to_owned()).unwrap();
        }
    };
    let change = ("0002_change.sql", "ALTER TABLE one ADD b int;");
    let files = set(&[ONE, change]);
    let let_go = async {
        let line = told.await.unwrap();
        execute(&mut other, "ROLLBACK").await;
        line
    };
    let (summary, line) = tokio::join!(migrate::run(&database.owner, &files, &report), let_go);
    assert_eq!(summary.unwrap(), Summary { applied: 1, total: 2 });
    assert!(line.contains("0002_change.sql waits for a lock that another session holds"), "{line}");
}

#[tokio::test]
async fn a_schema_newer_than_the_program_does_not_stop_it() {
    let database = Database::empty();
    database.run(&[ONE, TWO, THREE]).await.unwrap();
    let summary = database.run(&[ONE, TWO]).await.unwrap();
    assert_eq!(summary, Summary { applied: 0, total: 3 });
    let status = status::status(&database.owner, &set(&[ONE, TWO])).await.unwrap();
    assert_eq!(status.migrations[2].state, "newer");
}

#[tokio::test]
async fn status_writes_nothing() {
    let database = Database::empty();
    let status = status::status(&database.owner, &set(&[ONE, TWO])).await.unwrap();
    assert_eq!((status.pending, status.ok), (2, true));
    let tables = "SELECT count(*)::text FROM pg_tables WHERE schemaname = 'public'";
    assert_eq!(database.text(tables).await, "0");

    database.run(&[ONE]).await.unwrap();
    let status = status::status(&database.owner, &set(&[ONE, TWO])).await.unwrap();
    let states: Vec<_> = status.migrations.iter().map(|line| line.state).collect();
    assert_eq!(states, ["applied", "pending"]);
}

#[tokio::test]
async fn a_wrong_password_is_told_at_once() {
    let config = DatabaseConfig {
        password: Rotating::fixed("certainly wrong".to_owned()),
        ..admin_config()
    };
    let start = std::time::Instant::now();
    let limit = std::time::Duration::from_secs(60);
    let error = db::wait(&config, limit, &|_| {}).await.unwrap_err().to_string();
    assert!(error.contains("refused the password of role"), "{error}");
    assert!(!error.contains("certainly wrong"), "{error}");
    assert!(start.elapsed().as_secs() < 10);
}
