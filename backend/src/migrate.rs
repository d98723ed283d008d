//! The one migration engine: plain SQL files, applied in order, each once, under a lock.
//!
//! docs/database-migrations.md tells what it promises and why it is ours. In short: a file is
//! applied whole or not at all, a file that was applied is never changed, and nothing is skipped
//! silently. The parts: [`files`] reads them, [`history`] compares them with the database,
//! [`lock`] keeps other migrators out, this module applies, [`status`] only looks.

pub mod files;
pub mod history;
pub mod lock;
mod sql;
pub mod status;

use std::{
    io,
    time::{Duration, Instant},
};

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::{config::DatabaseConfig, db};
use files::{Migration, Set};
use history::History;

/// A statement that cannot get its lock on a table in this time fails. Until then every later query of
/// that table waits behind it: shorter than a request waits for a connection
/// ([`db::ACQUIRE_DEADLINE`]), so that no request fails for it.
const LOCK_TIMEOUT: &str = "800ms";
/// The same for a statement outside a transaction. What it waits for is the end of other
/// transactions; nobody waits behind it, and trying again means to build an index again.
const LOCK_TIMEOUT_ALONE: &str = "5s";
/// How often a file is tried whose statement ran into its time-out, and the pause between, in which
/// those who waited get through.
const LOCK_ATTEMPTS: u32 = 10;
const LOCK_PAUSE: Duration = Duration::from_secs(1);
/// For what may wait for others or write much, and yet is no statement of a file.
const LONG_DEADLINE: Duration = Duration::from_secs(60);
/// The step that tells the history that a file was applied.
const RECORD: &str = "writing its row into schema_migrations";
/// SQLSTATE of a statement that ran into `lock_timeout`.
const LOCK_NOT_AVAILABLE: &str = "55P03";

/// Where the engine tells what it does; one call is one line.
pub type Report<'a> = &'a (dyn Fn(&str) + Sync);

/// Why migrating stopped. Every message names the file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// A file that can never be applied as it is.
    #[error("{0}")]
    File(String),
    /// The files and the database disagree.
    #[error("the migrations and the database disagree:{0}")]
    Disagree(String),
    /// Another migrator did not finish.
    #[error("{0}")]
    Locked(String),
    /// A file's SQL was refused.
    #[error("{0}")]
    Failed(String),
    /// The connection, or a query of the engine itself.
    #[error("{during}: {}", db::describe(.source))]
    Database {
        /// What the engine was doing.
        during: &'static str,
        /// What the database said.
        source: sqlx::Error,
    },
}

/// Gives an error of the database the engine's step as context.
pub(crate) fn during(step: &'static str) -> impl Fn(sqlx::Error) -> MigrateError {
    move |source| MigrateError::Database { during: step, source }
}

/// A question of the engine itself, which PostgreSQL answers at once or not at all. The statements of the files
/// have no deadline: filling a large table may take long.
pub(crate) async fn asked<T>(
    step: &'static str,
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, MigrateError> {
    db::answered(db::ANSWER_DEADLINE, answer).await.map_err(during(step))
}

/// The same around a file, whose error tells what the file met.
async fn asked_for_file<T>(
    step: &str,
    deadline: Duration,
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    db::answered(deadline, answer).await.map_err(|error| match error {
        sqlx::Error::Io(cause) => {
            sqlx::Error::Io(io::Error::new(cause.kind(), format!("{step}: {cause}")))
        }
        error => error,
    })
}

/// What a run did.
#[derive(Debug, PartialEq, Eq)]
pub struct Summary {
    /// How many files were applied now.
    pub applied: usize,
    /// How many the database has in all.
    pub total: usize,
}

/// Applies every file that the database does not have yet.
///
/// In one session, which holds the lock: see [`lock`].
pub async fn run(
    config: &DatabaseConfig,
    set: &Set,
    report: Report<'_>,
) -> Result<Summary, MigrateError> {
    let mut lock = lock::acquire(config, lock::WAIT, report).await?;
    let outcome = run_locked(set, &mut lock, report).await;
    // After an error too. Closing the connection would free the lock as well, only later.
    lock.release().await;
    outcome
}

async fn run_locked(
    set: &Set,
    lock: &mut lock::Lock,
    report: Report<'_>,
) -> Result<Summary, MigrateError> {
    history::prepare_table(lock.session()).await?;
    // Read after the lock was taken: another migrator may just have finished.
    let history = History::read(lock.session()).await?;
    let comparison = history.compare(set);
    if let Some(problems) = comparison.problems() {
        return Err(MigrateError::Disagree(problems));
    }
    for newer in &comparison.newer {
        report(&format!(
            "migration {newer} is in the database and not in this program, which is older than \
             the schema: going on, as after a rollback"
        ));
    }
    let pending = comparison.pending;
    for migration in &pending {
        lock.check().await?;
        report(&format!("applying {}", migration.file));
        let took = apply(lock.session(), migration, report).await?;
        report(&format!("applied {} in {} ms", migration.file, took.as_millis()));
    }
    Ok(Summary { applied: pending.len(), total: history.len() + pending.len() })
}

/// A connection with the engine's own time-outs, whatever the role's defaults are.
async fn connect(config: &DatabaseConfig) -> Result<PgConnection, MigrateError> {
    let settings = [
        ("lock_timeout", LOCK_TIMEOUT_ALONE),
        // Filling a large table may take long; a limit would make it impossible.
        ("statement_timeout", "0"),
        ("idle_in_transaction_session_timeout", "60s"),
    ];
    let connection = db::connect(config, "backend migrate", &settings).await;
    connection.map_err(during("connecting to migrate"))
}

/// Applies one file, again if another session held a lock that it needs.
async fn apply(
    connection: &mut PgConnection,
    migration: &Migration,
    report: Report<'_>,
) -> Result<Duration, MigrateError> {
    for attempt in 1.. {
        let start = Instant::now();
        let outcome = if migration.transactional {
            apply_in_transaction(connection, migration, start).await
        } else {
            apply_alone(connection, migration, start, report).await
        };
        let error = match outcome {
            Ok(()) => return Ok(start.elapsed()),
            Err(error) => error,
        };
        if !is_lock_timeout(&error) || attempt == LOCK_ATTEMPTS {
            return Err(failure(migration, &error));
        }
        report(&format!(
            "{} waits for a lock that another session holds: attempt {attempt} of {LOCK_ATTEMPTS}",
            migration.file
        ));
        tokio::time::sleep(LOCK_PAUSE).await;
    }
    unreachable!("the loop above returns at its last attempt")
}

/// The usual case: the file and its row in the history are one transaction.
async fn apply_in_transaction(
    connection: &mut PgConnection,
    migration: &Migration,
    start: Instant,
) -> Result<(), sqlx::Error> {
    let quick = db::ANSWER_DEADLINE;
    let mut transaction = asked_for_file("BEGIN", quick, connection.begin()).await?;
    let timeout = format!("SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'");
    let timeout = sqlx::raw_sql(AssertSqlSafe(timeout)).execute(&mut *transaction);
    asked_for_file("SET lock_timeout", quick, timeout).await?;
    // The simple protocol: a file holds many statements.
    sqlx::raw_sql(AssertSqlSafe(migration.sql.as_str())).execute(&mut *transaction).await?;
    // What the file left for its end (deferred constraints) is a part of it, and takes as long as it needs. In COMMIT it
    // would have to be done before a deadline.
    sqlx::raw_sql("SET CONSTRAINTS ALL IMMEDIATE").execute(&mut *transaction).await?;
    let record = history::record(&mut transaction, migration, start.elapsed());
    asked_for_file(RECORD, quick, record).await?;
    asked_for_file("COMMIT", LONG_DEADLINE, transaction.commit()).await
}

/// A file marked `-- no-transaction`: one statement that PostgreSQL does not allow in a
/// transaction. What it leaves when it fails is an invalid index, which is removed.
async fn apply_alone(
    connection: &mut PgConnection,
    migration: &Migration,
    start: Instant,
    report: Report<'_>,
) -> Result<(), sqlx::Error> {
    // Left by a run that was killed: the statement would stop at "already exists", or worse,
    // `IF NOT EXISTS` would take the broken index for a good one.
    drop_invalid_indexes(connection, migration, report).await?;
    let outcome =
        sqlx::raw_sql(AssertSqlSafe(migration.sql.as_str())).execute(&mut *connection).await;
    if let Err(error) = outcome {
        if let Err(cleaning) = drop_invalid_indexes(connection, migration, report).await {
            report(&format!(
                "an invalid index may be left: {}; the next run removes it",
                db::describe(&cleaning)
            ));
        }
        return Err(error);
    }
    let record = history::record(connection, migration, start.elapsed());
    // There is no way back any more: after a long build the disk may be busy for a while.
    asked_for_file(RECORD, LONG_DEADLINE, record).await
}

/// Removes the invalid indexes that an earlier try of the file has left: the lock keeps other migrators
/// away, and no query uses an invalid index.
async fn drop_invalid_indexes(
    connection: &mut PgConnection,
    migration: &Migration,
    report: Report<'_>,
) -> Result<(), sqlx::Error> {
    let invalid = sqlx::query_as(
        "SELECT relname::text, format('%I.%I', nspname, relname)
         FROM pg_index
         JOIN pg_class ON pg_class.oid = indexrelid
         JOIN pg_namespace ON pg_namespace.oid = relnamespace
         WHERE NOT indisvalid",
    )
    .fetch_all(&mut *connection);
    let invalid: Vec<(String, String)> =
        asked_for_file("looking for invalid indexes", db::ANSWER_DEADLINE, invalid).await?;
    for (name, qualified) in invalid {
        if sql::leaves(&migration.sql, &name) {
            report(&format!("removing the invalid index {qualified} that an earlier try left"));
            let statement = format!("DROP INDEX CONCURRENTLY {qualified}");
            let drop = sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut *connection);
            asked_for_file("removing an invalid index", LONG_DEADLINE, drop).await?;
        }
    }
    Ok(())
}

fn is_lock_timeout(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).as_deref() == Some(LOCK_NOT_AVAILABLE)
}

/// The message for a file that the database refused.
fn failure(migration: &Migration, error: &sqlx::Error) -> MigrateError {
    let remedy = if is_lock_timeout(error) {
        "Another session holds a lock that it needs: find it in pg_stat_activity, then run again"
    } else if error.as_database_error().is_some() {
        "Mend the file and run again"
    } else {
        "Run again when the database answers"
    };
    let kept = if error.as_database_error().is_none() && migration.transactional {
        "Whether all of it was kept or nothing, the next run finds out"
    } else if migration.transactional
        || error.as_database_error().is_some() && sql::makes_index(&migration.sql)
    {
        "Nothing of it was kept"
    } else {
        "It is no transaction, so that a part of it may have been done"
    };
    MigrateError::Failed(format!(
        "migrations/{} failed: {}{}. {kept}. {remedy}.",
        migration.file,
        db::describe(error),
        details(error, &migration.sql)
    ))
}

/// Where in the file, and PostgreSQL's own hint.
fn details(error: &sqlx::Error, sql: &str) -> String {
    let Some(error) = error.as_database_error() else {
        return String::new();
    };
    let error = error.downcast_ref::<sqlx::postgres::PgDatabaseError>();
    let mut text = String::new();
    if let Some(sqlx::postgres::PgErrorPosition::Original(position)) = error.position() {
        // Positions count characters from one.
        let line = sql.chars().take(position.saturating_sub(1)).filter(|c| *c == '\n').count() + 1;
        text.push_str(&format!(", line {line}"));
    }
    for extra in [error.detail(), error.hint()].into_iter().flatten() {
        text.push_str(&format!("; {extra}"));
    }
    text
}
