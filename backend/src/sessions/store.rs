//! The records in Redis. The key is a keyed hash of the id, so that whoever reads Redis (or a
//! backup of it) holds no cookie; the record is small and never changed after it was made.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use redis::{
    AsyncCommands, Client, ConnectionAddr, Expiry, IntoConnectionInfo, RedisError,
    aio::{ConnectionManager, ConnectionManagerConfig},
    io::tcp::TcpSettings,
};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use tokio::time::{Instant, sleep, timeout};

use super::SessionId;
use crate::{
    config::{Key, RedisConfig},
    error::Error,
};

/// Without a request for this long, a session ends.
pub(super) const IDLE: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Whatever is requested, a session ends after this long.
pub(super) const ABSOLUTE: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// A request that Redis does not answer in this time is answered with 503.
const DEADLINE: Duration = Duration::from_millis(1500);
/// One attempt of a command. Less than half of [`DEADLINE`], so that a second one fits.
const RESPONSE: Duration = Duration::from_millis(600);

/// Who is signed in, as it stands in Redis.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The account.
    pub account_id: i64,
    /// Seconds since 1970 at which it began; the absolute time-out counts from here.
    pub created: u64,
}

/// The store. Cloning it shares the connection.
#[derive(Clone)]
pub struct Sessions {
    redis: ConnectionManager,
    key: Key,
}

impl Sessions {
    /// Connects, waiting at most `limit` for a Redis that is still starting.
    pub async fn connect(
        config: &RedisConfig,
        key: Key,
        limit: Duration,
        report: &(dyn Fn(&str) + Sync),
    ) -> Result<Self, String> {
        let address = format!("{}:{}", config.host, config.port);
        let start = Instant::now();
        let mut last = String::new();
        loop {
            let reason = match Self::attempt(config, key.clone()).await {
                Ok(sessions) => return Ok(sessions),
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

    async fn attempt(config: &RedisConfig, key: Key) -> Result<Self, RedisError> {
        // Without the user time-out a host that vanished would be written to for a quarter of an
        // hour before the kernel gives the connection up, and the manager reconnects only then.
        let tcp = TcpSettings::default().set_nodelay(true).set_user_timeout(Duration::from_secs(2));
        let address = ConnectionAddr::Tcp(config.host.clone(), config.port);
        let client = Client::open(address.into_connection_info()?.set_tcp_settings(tcp))?;
        let options = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(Duration::from_secs(1)))
            .set_response_timeout(Some(RESPONSE))
            .set_number_of_retries(1)
            .set_max_delay(Duration::from_millis(200));
        let redis = ConnectionManager::new_with_config(client, options).await?;
        let sessions = Self { redis, key };
        // LOADING and a read-only replica answer the handshake, and this not.
        sessions.ping().await.map(|()| sessions)
    }

    /// Asks Redis for a sign of life.
    pub async fn ping(&self) -> Result<(), RedisError> {
        let mut redis = self.redis.clone();
        redis::cmd("PING").exec_async(&mut redis).await
    }

    /// Starts a session for an account, under a new id.
    pub async fn create(&self, account_id: i64) -> Result<SessionId, Error> {
        let id = SessionId::generate()?;
        let record = serde_json::to_string(&Session { account_id, created: now() })
            .map_err(Error::internal)?;
        let key = self.key_of(id);
        self.run(|mut redis| {
            let (key, record) = (key.clone(), record.clone());
            async move { redis.set_ex::<_, _, ()>(key, record, IDLE.as_secs()).await }
        })
        .await?;
        Ok(id)
    }

    /// The session of an id, if it is alive. Asking for it starts its idle time-out anew.
    pub async fn find(&self, id: SessionId) -> Result<Option<Session>, Error> {
        let key = self.key_of(id);
        // One command: between a read and a separate EXPIRE a sign-out could come.
        let record: Option<String> = self
            .run(|mut redis| {
                let key = key.clone();
                async move { redis.get_ex(key, Expiry::EX(IDLE.as_secs())).await }
            })
            .await?;
        let Some(record) = record else {
            return Ok(None);
        };
        let session: Session = serde_json::from_str(&record).map_err(Error::internal)?;
        let end = session.created + ABSOLUTE.as_secs();
        if now() >= end {
            self.delete(id).await?;
            return Ok(None);
        }
        if end - now() < IDLE.as_secs() {
            // The idle time-out would outlive the absolute one: let Redis forget it on time.
            self.run(|mut redis| {
                let key = key.clone();
                async move { redis.expire_at::<_, ()>(key, i64::try_from(end).unwrap_or(0)).await }
            })
            .await?;
        }
        Ok(Some(session))
    }

    /// Ends a session at once, whoever still holds its cookie.
    pub async fn delete(&self, id: SessionId) -> Result<(), Error> {
        let key = self.key_of(id);
        self.run(|mut redis| {
            let key = key.clone();
            async move { redis.del::<_, ()>(key).await }
        })
        .await
    }

    /// Runs a command, once more if the connection turned out to be dead, within [`DEADLINE`].
    /// Every command here may run twice without harm.
    async fn run<T, F>(&self, command: impl Fn(ConnectionManager) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, RedisError>>,
    {
        let attempts = async {
            match command(self.redis.clone()).await {
                Err(error) if error.is_io_error() => command(self.redis.clone()).await,
                outcome => outcome,
            }
        };
        match timeout(DEADLINE, attempts).await {
            Ok(outcome) => Ok(outcome?),
            Err(_) => Err(Error::unavailable("the session store", "Redis did not answer in time")),
        }
    }

    fn key_of(&self, id: SessionId) -> String {
        format!("session:{}", hex::encode(keyed_hash(&self.key, id.as_bytes())))
    }
}

fn keyed_hash(key: &Key, message: &[u8]) -> [u8; 32] {
    // HMAC takes keys of every length, so this cannot fail; the empty key is never reached.
    let mut mac = Hmac::<Sha256>::new_from_slice(key.expose())
        .unwrap_or_else(|_| Hmac::<Sha256>::new(&Default::default()));
    mac.update(message);
    mac.finalize().into_bytes().into()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231, test case 1: the key is padded by us as HMAC itself pads it.
    #[test]
    fn the_key_in_redis_is_an_hmac_of_the_id() {
        let mut key = [0; 64];
        key[..20].copy_from_slice(&[0x0b; 20]);
        let hash = hex::encode(keyed_hash(&Key::new(key), b"Hi There"));
        let expected = "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7";
        assert_eq!(hash, expected);
    }
}
