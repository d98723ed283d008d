//! The one connection to Redis, shared by whoever needs it. It reconnects by itself, and nothing
//! waits for it longer than [`DEADLINE`].

use std::{
    fmt::Display,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use redis::{
    Client, ConnectionAddr, ErrorKind, FromRedisValue, IntoConnectionInfo, RedisConnectionInfo,
    RedisError, ScriptInvocation,
    aio::{ConnectionManager, ConnectionManagerConfig},
    io::tcp::TcpSettings,
};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep, timeout},
};

use crate::{
    config::{RedisConfig, Secret},
    error::Error,
};

/// A request that Redis does not answer in this time is answered with 503.
const DEADLINE: Duration = Duration::from_millis(1500);
/// One attempt of a command. Less than half of [`DEADLINE`], so that a second one fits.
const RESPONSE: Duration = Duration::from_millis(600);
/// How often a command is tried: a connection may be cut again while it is made anew, and the password
/// be changed meanwhile.
const ATTEMPTS: u32 = 4;
/// Before a further attempt to connect, where the last one failed.
const PAUSE: Duration = Duration::from_millis(30);

/// Redis. Cloning it shares the connection.
#[derive(Clone)]
pub struct Link(Arc<Inner>);

struct Inner {
    config: RedisConfig,
    connection: RwLock<Connection>,
    /// Held by whoever makes another one.
    remaking: Mutex<()>,
}

#[derive(Clone)]
struct Connection {
    /// Reconnects by itself when the connection ends, with the password that it was made with. It
    /// does not when the connection goes silent.
    manager: ConnectionManager,
    /// One more for each that was made anew.
    number: u64,
}

impl Link {
    /// Connects, waiting at most `limit` for a Redis that is still starting.
    pub async fn connect(
        config: &RedisConfig,
        limit: Duration,
        report: &(dyn Fn(&str) + Sync),
    ) -> Result<Self, String> {
        let address = format!("{}:{}", config.host, config.port);
        let start = Instant::now();
        let mut last = String::new();
        loop {
            let reason = match any_password(config).await {
                Ok(manager) => {
                    let connection = RwLock::new(Connection { manager, number: 0 });
                    let (config, remaking) = (config.clone(), Mutex::new(()));
                    return Ok(Self(Arc::new(Inner { config, connection, remaking })));
                }
                Err(error) => error.to_string(),
            };
            if start.elapsed() >= limit {
                return Err(format!(
                    "Redis at {address} was not ready after {} s. The last answer: {reason}. \
                     Is it running, and are REDIS_HOST and REDIS_PORT right?",
                    limit.as_secs()
                ));
            }
            if reason != last {
                report(&format!("waiting for Redis: {reason}"));
                last = reason;
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// The key of something: its kind, then what tells it from others of the kind.
    pub fn key(&self, kind: &str, rest: impl Display) -> String {
        format!("{kind}:{}{rest}", self.0.config.space)
    }

    fn connection(&self) -> Connection {
        // Whoever panicked held it for an assignment: the value is whole.
        self.0.connection.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes over a password whose file has changed, with a new connection. What is under way on
    /// the old one finishes there.
    pub async fn refresh_password(&self) {
        if self.0.config.password.refresh()
            && let Err(error) = self.remake().await
        {
            // The connection that exists goes on, and if it does not, `run` comes here again.
            tracing::warn!(%error, "no connection to Redis with the new password");
        }
    }

    /// Makes a connection with whichever password Redis takes.
    async fn remake(&self) -> Result<(), RedisError> {
        self.0.config.password.refresh();
        let manager = any_password(&self.0.config).await?;
        let mut connection = self.0.connection.write().unwrap_or_else(PoisonError::into_inner);
        *connection = Connection { manager, number: connection.number + 1 };
        Ok(())
    }

    /// Leaves a connection for a new one. Its other end can be gone without a word (a firewall that
    /// forgot it, a host that vanished), and would then never answer again; or its password is not good
    /// any more.
    async fn replace(&self, useless: u64) -> Result<(), RedisError> {
        // One makes the connection and the others, which wait here, use it.
        let _remaking = self.0.remaking.lock().await;
        if self.connection().number == useless { self.remake().await } else { Ok(()) }
    }

    /// Runs a command, again if the connection turned out to be dead or its password was replaced,
    /// within [`DEADLINE`]. Every command here may run more than once without harm.
    pub async fn run<T, F>(&self, command: impl Fn(ConnectionManager) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, RedisError>>,
    {
        match timeout(DEADLINE, self.attempts(command)).await {
            Ok(outcome) => Ok(outcome?),
            Err(_) => Err(Error::unavailable("the session store", "Redis did not answer in time")),
        }
    }

    async fn attempts<T, F>(
        &self,
        command: impl Fn(ConnectionManager) -> F,
    ) -> Result<T, RedisError>
    where
        F: Future<Output = Result<T, RedisError>>,
    {
        let mut left = ATTEMPTS;
        loop {
            let Connection { manager, number } = self.connection();
            let outcome = command(manager).await;
            let Err(error) = outcome else { return outcome };
            left -= 1;
            let is_useless = error.is_timeout() || is_refusal(&error);
            if left == 0 || !(is_useless || error.is_io_error()) {
                return Err(error);
            }
            // What was cut is reconnected by the manager.
            if is_useless && self.replace(number).await.is_err() {
                sleep(PAUSE).await;
            }
        }
    }

    /// Runs a script as [`Link::run`] runs a command. Redis executes it as a whole: nobody sees a
    /// half of it.
    pub async fn script<T: FromRedisValue>(
        &self,
        invocation: &ScriptInvocation<'_>,
    ) -> Result<T, Error> {
        self.run(|mut redis| async move { invocation.invoke_async(&mut redis).await }).await
    }
}

/// Connects with the first password that Redis takes, the current one before the previous ones.
async fn any_password(config: &RedisConfig) -> Result<ConnectionManager, RedisError> {
    let mut outcome = Err(RedisError::from((ErrorKind::AuthenticationFailed, "no password")));
    for password in config.password.accepted().iter() {
        outcome = connect(config, password).await;
        if !matches!(&outcome, Err(error) if is_refusal(error)) {
            break;
        }
    }
    outcome
}

async fn connect(
    config: &RedisConfig,
    password: &Secret<String>,
) -> Result<ConnectionManager, RedisError> {
    // Without the user time-out a host that vanished would be written to for a quarter of an
    // hour before the kernel gives the connection up, and the manager reconnects only then.
    let tcp = TcpSettings::default().set_nodelay(true).set_user_timeout(Duration::from_secs(2));
    let address = ConnectionAddr::Tcp(config.host.clone(), config.port);
    let info = address.into_connection_info()?.set_tcp_settings(tcp);
    let user = RedisConnectionInfo::default()
        .set_username(config.user.as_str())
        .set_password(password.expose().as_str());
    let client = Client::open(info.set_redis_settings(user))?;
    let options = ConnectionManagerConfig::new()
        .set_connection_timeout(Some(Duration::from_secs(1)))
        .set_response_timeout(Some(RESPONSE))
        .set_number_of_retries(1)
        .set_max_delay(Duration::from_millis(200));
    let mut manager = ConnectionManager::new_with_config(client, options).await?;
    // LOADING answers the handshake, and this not. One that cannot persist refuses it, too, and can be read.
    match redis::cmd("PING").exec_async(&mut manager).await {
        Err(error) if !refuses_writes(&error) => Err(error),
        _ => Ok(manager),
    }
}

/// Whether Redis reads and does not write: it cannot persist, or is no primary (any more).
pub fn refuses_writes(error: &RedisError) -> bool {
    matches!(error.code(), Some("MISCONF" | "NOREPLICAS" | "READONLY"))
}

fn is_refusal(error: &RedisError) -> bool {
    error.kind() == ErrorKind::AuthenticationFailed
}
