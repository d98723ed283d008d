//! PostgreSQL: the pool, and the wait for a server that is still starting. The pool never makes a
//! request wait longer than [`ACQUIRE_DEADLINE`], and drops connections that do not answer.

mod held;
mod silence;

use std::{
    io,
    sync::{self, Arc, PoisonError},
    time::Duration,
};

use sqlx::{
    Connection, PgConnection, PgPool,
    postgres::{PgConnectOptions, PgPoolOptions, PgSslMode},
};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep, timeout},
};

use crate::config::{DatabaseConfig, Secret};
pub use held::{Begun, Held};
use silence::Silence;

/// A request that cannot have a connection after this long is answered with 503.
pub const ACQUIRE_DEADLINE: Duration = Duration::from_millis(1500);
/// A pooled connection that does not answer a ping in this time is thrown away. Short, so that
/// several dead ones fit into one acquire deadline.
const PING_DEADLINE: Duration = Duration::from_millis(300);
/// A connection that answered so lately is not asked again before it is used: under load a ping for
/// every statement would be half of all that PostgreSQL has to answer.
const PING_UNNEEDED: Duration = Duration::from_millis(100);
/// How long finding out why there is no connection may take: within the wait for one.
const REASON_DEADLINE: Duration = Duration::from_secs(1);
/// How long PostgreSQL may take for what is done in a moment, where nobody waits who would give up: a server
/// that went silent would otherwise be waited for until somebody looks.
pub(crate) const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// How long one attempt of the start-up wait may take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);
/// Between two rounds of trying every password, while the database refuses them all.
const PASSWORD_PAUSE: Duration = Duration::from_millis(100);
const POOL_SIZE: u32 = 10;
/// What PostgreSQL calls a request's connection.
const APPLICATION: &str = "backend";

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

/// How to connect with one of the role's passwords.
fn options(
    config: &DatabaseConfig,
    password: &Secret<String>,
    application: &str,
) -> PgConnectOptions {
    // Not `new`: it would read `.pgpass` besides our own variables.
    PgConnectOptions::new_without_pgpass()
        .host(&config.host)
        .port(config.port)
        .username(&config.user)
        .password(password.expose())
        .database(&config.dbname)
        .ssl_mode(PgSslMode::Disable)
        .application_name(application)
}

/// One connection, for what is done once. While a password is being replaced the database takes
/// either the new one or the previous one: all that the secret's file names are tried.
pub async fn connect(
    config: &DatabaseConfig,
    application: &str,
    settings: &[(&str, &str)],
) -> Result<PgConnection, sqlx::Error> {
    answered(ANSWER_DEADLINE, connect_at_last(config, application, settings)).await
}

async fn connect_at_last(
    config: &DatabaseConfig,
    application: &str,
    settings: &[(&str, &str)],
) -> Result<PgConnection, sqlx::Error> {
    config.password.refresh();
    let mut refused = sqlx::Error::PoolTimedOut;
    for password in config.password.accepted().iter() {
        let options = options(config, password, application).options(settings.iter().copied());
        match PgConnection::connect_with(&options).await {
            Err(error) if is_wrong_password(&error) => refused = error,
            outcome => return outcome,
        }
    }
    Err(refused)
}

/// What PostgreSQL answers within the deadline. After an error the connection is of no use: its answer may
/// still come.
pub(crate) async fn answered<T>(
    deadline: Duration,
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    timeout(deadline, answer).await.unwrap_or_else(|_| {
        let text = format!("no answer within {} s", deadline.as_secs());
        Err(sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, text)))
    })
}

/// The pool that requests use. It connects when first asked, so it can be made while the database
/// is down, and recovers by itself when it comes back or when the role's password was replaced.
/// Cloning shares it.
#[derive(Clone)]
pub struct Database {
    pool: PgPool,
    config: Arc<DatabaseConfig>,
    /// The password that new connections use.
    in_use: Arc<sync::Mutex<Secret<String>>>,
    /// Held by whoever finds out which password is good.
    finding: Arc<Mutex<()>>,
    silence: Arc<Silence>,
}

impl Database {
    /// Makes the pool; nothing is connected yet. How long a statement may take and wait is the
    /// role's: deploy/postgres/roles.sql.
    pub fn new(config: &DatabaseConfig) -> Self {
        let password = config.password.current();
        let pool = PgPoolOptions::new()
            .max_connections(POOL_SIZE)
            .acquire_timeout(ACQUIRE_DEADLINE)
            // The library's own test has no deadline, so a frozen server would use up the acquire
            // deadline again and again; ours takes its place.
            .test_before_acquire(false)
            .before_acquire(|connection, metadata| {
                Box::pin(async move {
                    if metadata.idle_for < PING_UNNEEDED {
                        return Ok(true);
                    }
                    match timeout(PING_DEADLINE, connection.ping()).await {
                        Ok(answer) => answer.map(|()| true),
                        Err(_) => Err(sqlx::Error::PoolTimedOut),
                    }
                })
            })
            .connect_lazy_with(options(config, &password, APPLICATION));
        let in_use = Arc::new(sync::Mutex::new(password));
        let config = Arc::new(config.clone());
        Self { pool, config, in_use, finding: Arc::default(), silence: Arc::default() }
    }

    /// A connection.
    pub async fn acquire(&self) -> Result<Held, sqlx::Error> {
        self.with_a_good_password(async || self.pool.acquire().await.map(Held::new)).await
    }

    /// A transaction, which ends without effect unless it is committed.
    pub async fn begin(&self) -> Result<Begun, sqlx::Error> {
        self.with_a_good_password(|| begin_to_the_end(self.pool.clone())).await
    }

    /// Why nobody gets a connection, for a person. The pool only says that there was none in time: a
    /// connection that is tried right now is answered with the reason, or with none, and then all are taken.
    pub async fn reason(&self) -> String {
        match timeout(REASON_DEADLINE, connect_at_last(&self.config, APPLICATION, &[])).await {
            Ok(Ok(connection)) => {
                let _ = timeout(REASON_DEADLINE, connection.close()).await;
                "every connection of the pool is in use".to_owned()
            }
            Ok(Err(error)) => describe(&error),
            Err(_) => "it does not answer".to_owned(),
        }
    }

    /// The pool itself, to be counted and closed.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Takes over a password whose file has changed: new connections use it. Those that exist stay.
    pub fn refresh_password(&self) {
        if self.config.password.refresh() {
            self.connect_with(&self.config.password.current());
        }
    }

    fn connect_with(&self, password: &Secret<String>) {
        let mut in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        self.pool.set_connect_options(options(&self.config, password, APPLICATION));
        in_use.clone_from(password);
    }

    fn in_use(&self) -> Secret<String> {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tries again with the other passwords when the one in use is refused, so that no request
    /// fails while it is replaced, whichever of file and database is changed first.
    async fn with_a_good_password<T, F>(&self, attempt: impl Fn() -> F) -> Result<T, sqlx::Error>
    where
        F: Future<Output = Result<T, sqlx::Error>>,
    {
        let attempts = async || {
            let mut refused = Some(self.in_use());
            match attempt().await {
                Err(error) if is_wrong_password(&error) => {}
                outcome => return outcome,
            }
            // One finds out and the others, which wait here, go on with what it found.
            let _finding = self.finding.lock().await;
            let in_use = Some(self.in_use());
            if in_use != refused {
                refused = in_use;
                match attempt().await {
                    Err(error) if is_wrong_password(&error) => {}
                    outcome => return outcome,
                }
            }
            // Again and again, as the file may be a moment behind the database.
            loop {
                self.config.password.refresh();
                let accepted = self.config.password.accepted();
                for password in
                    accepted.iter().filter(|password| Some(*password) != refused.as_ref())
                {
                    self.connect_with(password);
                    match attempt().await {
                        Err(error) if is_wrong_password(&error) => {}
                        outcome => return outcome,
                    }
                }
                sleep(PASSWORD_PAUSE).await;
                // The database may know by now what it refused first.
                refused = None;
            }
        };
        let outcome = timeout(ACQUIRE_DEADLINE, self.silence.pass(attempts)).await;
        let outcome = outcome.unwrap_or(Err(sqlx::Error::PoolTimedOut));
        self.silence.tell(matches!(outcome, Err(sqlx::Error::PoolTimedOut)));
        outcome
    }
}

/// Begins a transaction in a task of its own, so that it is never given up half way, whoever leaves.
async fn begin_to_the_end(pool: PgPool) -> Result<Begun, sqlx::Error> {
    let begun = tokio::spawn(async move { Begun::begin(Held::new(pool.acquire().await?)).await });
    // A transaction that nobody takes is rolled back.
    begun.await.unwrap_or(Err(sqlx::Error::WorkerCrashed))
}

/// SQLSTATE of a refused password.
const INVALID_PASSWORD: &str = "28P01";

fn is_wrong_password(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.code().as_deref() == Some(INVALID_PASSWORD))
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
    loop {
        let attempt = timeout(CONNECT_DEADLINE, connect(config, "backend wait", &[])).await;
        let reason = match attempt {
            Ok(Ok(connection)) => {
                // Failing to say goodbye does not make the server less ready.
                let _ = timeout(PING_DEADLINE, connection.close()).await;
                return Ok(());
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

/// The answers that no waiting changes, with what to do about them.
fn refusal(error: &sqlx::Error, config: &DatabaseConfig) -> Option<String> {
    let code = error.as_database_error()?.code()?;
    let user = &config.user;
    match code.as_ref() {
        INVALID_PASSWORD => Some(format!(
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use tokio::net::TcpListener;

    use super::*;
    use crate::config::Rotating;

    /// A server that is stopped: the kernel takes connections for it, and nobody answers.
    async fn stopped_server() -> (Database, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let database = Database::new(&DatabaseConfig {
            host: "127.0.0.1".to_owned(),
            port: listener.local_addr().unwrap().port(),
            user: "app".to_owned(),
            password: Rotating::fixed("secret".to_owned()),
            dbname: "app".to_owned(),
        });
        let asked = Arc::new(AtomicUsize::new(0));
        tokio::spawn({
            let asked = asked.clone();
            async move {
                let mut open = Vec::new();
                while let Ok((stream, _)) = listener.accept().await {
                    open.push(stream);
                    asked.fetch_add(1, Relaxed);
                }
            }
        });
        (database, asked)
    }

    async fn everybody_is_refused(database: &Database) {
        let mut requests = tokio::task::JoinSet::new();
        for _ in 0..30 {
            let database = database.clone();
            requests.spawn(async move { database.acquire().await });
        }
        while let Some(outcome) = requests.join_next().await {
            assert!(matches!(outcome.unwrap(), Err(sqlx::Error::PoolTimedOut)));
        }
    }

    /// The clock stands still but for what is waited for.
    #[tokio::test(start_paused = true)]
    async fn a_silent_server_is_not_waited_for_for_ever() {
        let (database, _) = stopped_server().await;
        let connecting = timeout(ANSWER_DEADLINE * 2, connect(&database.config, "test", &[]));
        let error = connecting.await.unwrap().unwrap_err();
        assert!(describe(&error).contains("no answer within 10 s"), "{error}");
    }

    #[tokio::test]
    async fn a_silent_server_is_asked_by_one_request_at_a_time() {
        let (database, asked) = stopped_server().await;
        everybody_is_refused(&database).await;
        let first = asked.swap(0, Relaxed);
        assert!(first > 1, "nobody knew, so all that fit into the pool asked; {first} did");
        everybody_is_refused(&database).await;
        // One, and once anew.
        assert!(asked.load(Relaxed) <= 2, "{asked:?} asked");
    }
}
