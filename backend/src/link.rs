//! The one connection to Redis, shared by whoever needs it. It reconnects by itself, and nothing
//! waits for it longer than [`DEADLINE`].

use std::time::Duration;

use redis::{
    Client, ConnectionAddr, FromRedisValue, IntoConnectionInfo, RedisConnectionInfo, RedisError,
    ScriptInvocation,
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
pub struct Link(ConnectionManager);

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
            let reason = match Self::attempt(config).await {
                Ok(link) => return Ok(link),
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

    async fn attempt(config: &RedisConfig) -> Result<Self, RedisError> {
        // Without the user time-out a host that vanished would be written to for a quarter of an
        // hour before the kernel gives the connection up, and the manager reconnects only then.
        let tcp = TcpSettings::default().set_nodelay(true).set_user_timeout(Duration::from_secs(2));
        let address = ConnectionAddr::Tcp(config.host.clone(), config.port);
        let info = address.into_connection_info()?.set_tcp_settings(tcp);
        let user = RedisConnectionInfo::default()
            .set_username(REDIS_USER)
            .set_password(config.password.expose());
        let client = Client::open(info.set_redis_settings(user))?;
        let options = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(1)))
            .set_response_timeout(Some(RESPONSE))
            .set_number_of_retries(1)
            .set_max_delay(Duration::from_millis(200));
        let link = Self(ConnectionManager::new_with_config(client, options).await?);
        // LOADING and a read-only replica answer the handshake, and this not.
        link.ping().await.map(|()| link)
    }

    /// Asks Redis for a sign of life.
    pub async fn ping(&self) -> Result<(), RedisError> {
        let mut redis = self.0.clone();
        redis::cmd("PING").exec_async(&mut redis).await
    }

    /// Runs a command, once more if the connection turned out to be dead, within [`DEADLINE`].
    /// Every command here may run twice without harm.
    pub async fn run<T, F>(&self, command: impl Fn(ConnectionManager) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, RedisError>>,
    {
        let attempts = async {
            match command(self.0.clone()).await {
                Err(error) if error.is_io_error() => command(self.0.clone()).await,
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
