//! PostgreSQL: the pool, and the wait for a server that is still starting. The pool never makes a
//! request wait longer than [`ACQUIRE_DEADLINE`], and drops connections that do not answer.

use std::time::Duration;

use sqlx::{
    Connection, PgConnection, PgPool, Postgres,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPoolOptions, PgSslMode},
};
use tokio::time::{Instant, sleep, timeout};

use crate::config::DatabaseConfig;

/// A request that cannot have a connection after this long is answered with 503.
pub const ACQUIRE_DEADLINE: Duration = Duration::from_millis(1500);
/// A pooled connection that does not answer a ping in this time is thrown away. Short, so that
/// several dead ones fit into one acquire deadline.
const PING_DEADLINE: Duration = Duration::from_millis(300);
/// How long one attempt of the start-up wait may take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);
/// Connections that one process holds at most.
pub const POOL_SIZE: u32 = 10;

/// Why the start-up wait gave up.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// Waiting would not help.
    #[error("{0}")]
    Refused(String),
    /// The server did not become ready in time.
    #[error(
        "PostgreSQL at {address} was not ready after {seconds} s. The last answer: {reason}. \
         Is it running, and are PG_HOST and PG_PORT right?"
    )]
    Deadline {
        /// Host and port.
        address: String,
        /// How long was waited.
        seconds: u64,
        /// The last attempt's error.
        reason: String,
    },
}

/// How to connect, for pools and single connections alike.
pub fn options(config: &DatabaseConfig, application: &str) -> PgConnectOptions {
    // Not `new`: it would read `.pgpass` besides our own variables.
    PgConnectOptions::new_without_pgpass()
        .host(&config.host)
        .port(config.port)
        .username(&config.user)
        .password(config.password.accepted().expose())
        .database(&config.dbname)
        .ssl_mode(PgSslMode::Disable)
        .application_name(application)
}

/// The pool that requests use. Clones share it. It connects when first asked, so it can be made while
/// the database is down, and recovers by itself when it comes back.
#[derive(Clone)]
pub struct Database {
    pool: PgPool,
    config: DatabaseConfig,
}

impl Database {
    /// Connects to nothing yet.
    pub fn new(config: &DatabaseConfig) -> Self {
        Self { pool: pool(config), config: config.clone() }
    }

    /// A connection, within [`ACQUIRE_DEADLINE`]. A password that was changed a moment ago is read
    /// again and tried again until then: whoever asks does not notice a rotation.
    pub async fn acquire(&self) -> Result<PoolConnection<Postgres>, sqlx::Error> {
        let deadline = Instant::now() + ACQUIRE_DEADLINE;
        loop {
            match self.pool.acquire().await {
                Err(error) if is_wrong_password(&error) && Instant::now() < deadline => {
                    self.config.password.refused();
                    self.renew();
                    sleep(Duration::from_millis(20)).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// Makes new connections with what the password is now; those that are open stay.
    pub fn renew(&self) {
        self.pool.set_connect_options(pool_options(&self.config));
    }

    /// Says goodbye to the server.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// How many connections there are, and how many of them are idle.
    pub fn usage(&self) -> (u32, usize) {
        (self.pool.size(), self.pool.num_idle())
    }
}

fn pool_options(config: &DatabaseConfig) -> PgConnectOptions {
    // The role's own time-outs (deploy/postgres/roles.sql) are the same. Here they are what this
    // program relies on, whichever role it is given.
    options(config, "backend").options([
        // No request may hold a connection for long: the caller has given up by then.
        ("statement_timeout", "5s"),
        ("lock_timeout", "3s"),
        ("idle_in_transaction_session_timeout", "10s"),
    ])
}

fn pool(config: &DatabaseConfig) -> PgPool {
    PgPoolOptions::new()
        .max_connections(POOL_SIZE)
        .acquire_timeout(ACQUIRE_DEADLINE)
        // The library's own test has no deadline, so a frozen server would use up the acquire
        // deadline again and again; ours takes its place.
        .test_before_acquire(false)
        .before_acquire(|connection, _| {
            Box::pin(async move {
                match timeout(PING_DEADLINE, connection.ping()).await {
                    Ok(answer) => answer.map(|()| true),
                    Err(_) => Err(sqlx::Error::PoolTimedOut),
                }
            })
        })
        .connect_lazy_with(pool_options(config))
}

/// Waits until the database accepts a connection with the configured role, or `deadline` is over.
/// Each new reason is reported once.
pub async fn wait(
    config: &DatabaseConfig,
    deadline: Duration,
    report: &(dyn Fn(&str) + Sync),
) -> Result<(), WaitError> {
    let start = Instant::now();
    let mut last = String::new();
    let mut refusals = 0;
    loop {
        let options = options(config, "backend wait");
        let attempt = timeout(CONNECT_DEADLINE, PgConnection::connect_with(&options)).await;
        let reason = match attempt {
            Ok(Ok(connection)) => {
                // Failing to say goodbye does not make the server less ready.
                let _ = timeout(PING_DEADLINE, connection.close()).await;
                return Ok(());
            }
            // In the middle of a rotation the server may still have the previous one.
            Ok(Err(error)) if is_wrong_password(&error) && refusals < config.password.refused() => {
                refusals += 1;
                continue;
            }
            Ok(Err(error)) => match refusal(&error, config) {
                Some(refusal) => return Err(WaitError::Refused(refusal)),
                None => describe(&error),
            },
            Err(_) => format!("no answer within {} s", CONNECT_DEADLINE.as_secs()),
        };
        if start.elapsed() >= deadline {
            let address = format!("{}:{}", config.host, config.port);
            return Err(WaitError::Deadline { address, seconds: deadline.as_secs(), reason });
        }
        if reason != last {
            report(&format!("waiting for PostgreSQL: {reason}"));
            last = reason;
        }
        sleep(Duration::from_millis(200)).await;
    }
}

fn is_wrong_password(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.code()).is_some_and(|code| code == "28P01")
}

/// The answers that no waiting changes, with what to do about them.
fn refusal(error: &sqlx::Error, config: &DatabaseConfig) -> Option<String> {
    let code = error.as_database_error()?.code()?;
    let user = &config.user;
    match code.as_ref() {
        "28P01" => Some(format!(
            "PostgreSQL refused the password of role `{user}`. It is set in the database when its \
             volume is first made: give the variable that value again, or have roles.sql set the \
             new one"
        )),
        "28000" => Some(format!(
            "PostgreSQL does not let role `{user}` in: {}. Check PG_USER and pg_hba.conf",
            describe(error)
        )),
        _ => None,
    }
}

/// An error for a person. The library's own text adds the line of PostgreSQL's C source, which
/// reads as if it were the line of the statement.
pub fn describe(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(error) => match error.code() {
            Some(code) => format!("{} (SQLSTATE {code})", error.message()),
            None => error.message().to_owned(),
        },
        sqlx::Error::PoolTimedOut => "no connection was to be had in time".to_owned(),
        error => crate::error::chain(error),
    }
}

/// Whether an error means that the database is away or overloaded, not that a statement is wrong.
pub fn is_unavailable(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::Protocol(_) => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            // 08: connection; 53: out of resources; 57: cancelled, shutting down, starting up;
            // 55P03: a lock was not to be had in time; 25006: a standby that was not promoted;
            // 28 and 3D000: the role or the database went away, which a restore does for a moment.
            ["08", "53", "57", "55P03", "25006", "28", "3D000"]
                .iter()
                .any(|class| code.starts_with(class))
        }),
        _ => false,
    }
}
