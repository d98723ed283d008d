//! Connections in the hands of requests. Where a request ends in the middle of a statement, the library asks
//! the server on the way back into the pool, and waits for the answer without a deadline. A server that went
//! silent, behind something that still takes what is sent, would so keep every place of the pool for good.

use std::{
    ops::{Deref, DerefMut},
    time::Duration,
};

use sqlx::{Executor, PgConnection, Postgres, pool::PoolConnection};
use tokio::time::timeout;

/// How long the server may take until a connection is free for somebody else. Longer than the role lets a
/// statement run (5 s, roles.sql): one that nobody waits for any more ends first.
const RETURN_DEADLINE: Duration = Duration::from_secs(6);

/// A connection, which goes back into the pool when this is dropped.
pub struct Held(Option<PoolConnection<Postgres>>);

impl Held {
    pub(super) fn new(connection: PoolConnection<Postgres>) -> Self {
        Self(Some(connection))
    }

    /// Closes it; its place in the pool is free.
    pub fn discard(mut self) {
        drop(self.0.take().map(PoolConnection::detach));
    }
}

impl Deref for Held {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.0.as_ref().unwrap_or_else(|| unreachable!("{HERE}"))
    }
}

impl DerefMut for Held {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.0.as_mut().unwrap_or_else(|| unreachable!("{HERE}"))
    }
}

const HERE: &str = "it has a connection until it is dropped";

impl Drop for Held {
    fn drop(&mut self) {
        let Some(mut connection) = self.0.take() else { return };
        tokio::spawn(async move {
            // Given up, it is closed, and its place is free.
            if timeout(RETURN_DEADLINE, connection.return_to_pool()).await.is_err() {
                tracing::warn!("a connection to PostgreSQL was closed, because it does not answer");
            }
        });
    }
}

/// A transaction, which ends without effect unless it is committed.
pub struct Begun(Option<Held>);

impl Begun {
    /// Begins one. Runs to its end, whoever waits: what was begun and is not known to be would take in what the
    /// next request writes there, which was acknowledged, and be rolled back with it.
    pub(super) async fn begin(mut connection: Held) -> Result<Self, sqlx::Error> {
        match timeout(RETURN_DEADLINE, connection.execute("BEGIN")).await {
            Ok(begun) => begun.map(|_| Self(Some(connection))),
            Err(_) => {
                connection.discard();
                Err(sqlx::Error::PoolTimedOut)
            }
        }
    }

    /// Makes it count.
    pub async fn commit(mut self) -> Result<(), sqlx::Error> {
        self.execute("COMMIT").await?;
        drop(self.0.take());
        Ok(())
    }
}

impl Deref for Begun {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.0.as_ref().unwrap_or_else(|| unreachable!("{HERE}"))
    }
}

impl DerefMut for Begun {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.0.as_mut().unwrap_or_else(|| unreachable!("{HERE}"))
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        let Some(mut connection) = self.0.take() else { return };
        tokio::spawn(async move {
            match timeout(RETURN_DEADLINE, connection.execute("ROLLBACK")).await {
                Ok(Ok(_)) => drop(connection),
                // Nobody knows what is open there.
                Ok(Err(_)) | Err(_) => connection.discard(),
            }
        });
    }
}
