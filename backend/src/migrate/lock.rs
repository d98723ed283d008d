//! One migrator at a time, in any number of replicas.
//!
//! The lock is polled. A session that blocks in `pg_advisory_lock` is a running statement, and
//! `CREATE INDEX CONCURRENTLY` in the session that holds the lock would wait for it: a deadlock
//! that PostgreSQL resolves by failing the migration.
//!
//! The session that holds the lock does the work too. Whatever ends it (a person, a network that breaks, the
//! death of this process) ends both together, and PostgreSQL rolls back before it frees the lock. With a
//! session of its own the lock would be free while a statement goes on in the other one.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::time::{Instant, sleep, timeout};

use super::{MigrateError, Report, asked};
use crate::{config::DatabaseConfig, db};

/// How long another migrator is waited for: a migration of a large table may take most of the hour that whoever
/// runs one gives it.
pub const WAIT: Duration = Duration::from_secs(50 * 60);
/// How often the lock is tried.
const POLL: Duration = Duration::from_millis(200);
/// How often a waiting migrator says so.
const REMIND: Duration = Duration::from_secs(10);
/// Saying goodbye is not worth more than this.
const GOODBYE: Duration = Duration::from_secs(1);
/// Any number that no other program uses as an advisory lock in this database.
const KEY: i64 = 0x6d69_6772_6174_6501;
/// Who holds it, in `pg_locks`.
const HELD: &str = "locktype = 'advisory' AND granted AND objsubid = 1
     AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
     AND ((classid::bigint << 32) | objid::bigint) = $1";

/// Held as long as its connection lives, which is the one to migrate with.
pub struct Lock(PgConnection);

/// Takes the lock, waiting for another holder at most `limit`.
pub async fn acquire(
    config: &DatabaseConfig,
    limit: Duration,
    report: Report<'_>,
) -> Result<Lock, MigrateError> {
    let mut connection = super::connect(config).await?;
    let start = Instant::now();
    let mut next_message = start;
    loop {
        let take = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)").bind(KEY);
        let taken: bool =
            asked("taking the migration lock", take.fetch_one(&mut connection)).await?;
        if taken {
            return Ok(Lock(connection));
        }
        if start.elapsed() >= limit {
            return Err(MigrateError::Locked(format!(
                "another migrator ({}) did not finish within {} s. Let it finish, or end it with \
                 `SELECT pg_terminate_backend(pid)`, then run again",
                holder(&mut connection).await,
                limit.as_secs()
            )));
        }
        if Instant::now() >= next_message {
            let holder = holder(&mut connection).await;
            report(&format!("waiting for another migrator to finish: {holder}"));
            next_message = Instant::now() + REMIND;
        }
        sleep(POLL).await;
    }
}

/// Who holds the lock, for a person who wants to look at it.
async fn holder(connection: &mut PgConnection) -> String {
    let query = format!(
        "SELECT pid, coalesce(host(client_addr), 'local'),
                date_trunc('second', clock_timestamp() - backend_start)::text
         FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE {HELD} LIMIT 1"
    );
    let query = sqlx::query_as(AssertSqlSafe(query)).bind(KEY).fetch_optional(connection);
    let row: Result<Option<(i32, String, String)>, _> =
        db::answered(db::ANSWER_DEADLINE, query).await;
    match row {
        Ok(Some((pid, address, age))) => format!("pid {pid} from {address}, connected for {age}"),
        // It finished between the two questions, or the role may not look: not worth failing for.
        _ => "its pid is unknown".to_owned(),
    }
}

impl Lock {
    /// The session that holds the lock, to do in it what the lock is for.
    pub(super) fn session(&mut self) -> &mut PgConnection {
        &mut self.0
    }

    /// Fails if the session is gone, or has the lock no longer: a file may have freed it
    /// (`pg_advisory_unlock_all`, `DISCARD ALL`), and another migrator may be at work.
    pub async fn check(&mut self) -> Result<(), MigrateError> {
        let query =
            format!("SELECT EXISTS (SELECT FROM pg_locks WHERE {HELD} AND pid = pg_backend_pid())");
        // Not prepared: `DISCARD ALL` takes what was, and this has to notice it.
        let look = sqlx::query_scalar(AssertSqlSafe(query)).persistent(false);
        let look = look.bind(KEY).fetch_one(&mut self.0);
        let is_held: bool = asked("checking that the migration lock is still held", look).await?;
        if is_held {
            return Ok(());
        }
        Err(MigrateError::Locked(
            "the last file freed the migration lock, so that another migrator may be at work. Run again; \
             and free no lock in a migration but its own (no pg_advisory_unlock_all, no DISCARD ALL)"
                .to_owned(),
        ))
    }

    /// Frees the lock at once by ending its session.
    pub async fn release(self) {
        let _ = timeout(GOODBYE, self.0.close()).await;
    }
}
