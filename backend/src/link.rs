//! The one connection to Redis, shared by whoever needs it. It reconnects by itself, and nothing
//! waits for it longer than [`DEADLINE`].

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use redis::{
    Client, ConnectionAddr, ErrorKind, FromRedisValue, IntoConnectionInfo, RedisConnectionInfo,
    RedisError, ScriptInvocation,
    aio::{ConnectionManager, ConnectionManagerConfig},
    io::tcp::TcpSettings,
};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    config::{REDIS_USER, RedisConfig},
    error::Error,
};

/// A request that Redis does not answer in this time is answered with 503.
const DEADLINE: Duration = Duration::from_millis(1500);
/// One attempt of a command. Less than half of [`DEADLINE`], so that a second one fits.
const RESPONSE: Duration = Duration::from_millis(600);

/// Redis. Cloning it shares the connection.
#[derive(Clone)]
pub struct Link {
    /// Replaced when the password is another one: the manager would reconnect with the old one.
    manager: Arc<RwLock<ConnectionManager>>,
    config: RedisConfig,
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
        let mut refusals = 0;
        loop {
            let reason = match Self::attempt(config).await {
                Ok(manager) => {
                    let manager = Arc::new(RwLock::new(manager));
                    return Ok(Self { manager, config: config.clone() });
                }
                // In the middle of a rotation the server may still have the previous password.
                Err(error) if is_refusal(&error) && refusals < config.password.refused() => {
                    refusals += 1;
                    continue;
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

    async fn attempt(config: &RedisConfig) -> Result<ConnectionManager, RedisError> {
        // Without the user time-out a host that vanished would be written to for a quarter of an
        // hour before the kernel gives the connection up, and the manager reconnects only then.
        let tcp = TcpSettings::default().set_nodelay(true).set_user_timeout(Duration::from_secs(2));
        let address = ConnectionAddr::Tcp(config.host.clone(), config.port);
        let info = address.into_connection_info()?.set_tcp_settings(tcp);
        let user = RedisConnectionInfo::default()
            .set_username(REDIS_USER)
            .set_password(config.password.accepted().expose());
        let client = Client::open(info.set_redis_settings(user))?;
        let options = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(1)))
            .set_response_timeout(Some(RESPONSE))
            .set_number_of_retries(1)
            .set_max_delay(Duration::from_millis(200));
        let mut manager = ConnectionManager::new_with_config(client, options).await?;
        // LOADING and a read-only replica answer the handshake, and this not.
        ping(&mut manager).await.map(|()| manager)
    }

    /// Asks Redis for a sign of life.
    pub async fn ping(&self) -> Result<(), Error> {
        self.run(|mut redis| async move { ping(&mut redis).await }).await
    }

    fn manager(&self) -> ConnectionManager {
        self.manager.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Connects anew, with what the password is now. The connection that is there stays until then,
    /// and for good if that fails.
    pub async fn renew(&self) -> Result<(), RedisError> {
        let manager = Self::attempt(&self.config).await?;
        *self.manager.write().unwrap_or_else(PoisonError::into_inner) = manager;
        Ok(())
    }

    /// Redis refused the password: takes the next that is known, until one is accepted. The caller's
    /// deadline is the limit.
    async fn sign_in_again(&self) {
        loop {
            self.config.password.refused();
            if self.renew().await.is_ok() {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Runs a command, once more if the connection turned out to be dead, within [`DEADLINE`].
    /// Every command here may run twice without harm.
    pub async fn run<T, F>(&self, command: impl Fn(ConnectionManager) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, RedisError>>,
    {
        let attempts = async {
            match command(self.manager()).await {
                Err(error) if error.is_io_error() => match command(self.manager()).await {
                    Err(error) if is_refusal(&error) => {
                        self.sign_in_again().await;
                        command(self.manager()).await
                    }
                    outcome => outcome,
                },
                Err(error) if is_refusal(&error) => {
                    self.sign_in_again().await;
                    command(self.manager()).await
                }
                outcome => outcome,
            }
        };
        match timeout(DEADLINE, attempts).await {
            Ok(outcome) => Ok(outcome?),
            Err(_) => Err(Error::unavailable("the session store", "Redis did not answer in time")),
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

async fn ping(manager: &mut ConnectionManager) -> Result<(), RedisError> {
    redis::cmd("PING").exec_async(manager).await
}

/// Whether Redis does not take the password, now that it is asked for one.
fn is_refusal(error: &RedisError) -> bool {
    error.kind() == ErrorKind::AuthenticationFailed
        || matches!(error.code(), Some("WRONGPASS" | "NOAUTH"))
}
