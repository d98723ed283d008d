//! The records in Redis. The key is a keyed hash of the id, so that whoever reads Redis (or a
//! backup of it) holds no cookie; the record is small and never changed after it was made.
//!
//! An account's list (`sessions-of:ID`, a sorted set of hashes by their beginning) makes it
//! possible to show and to end its sessions. Whatever touches both does so in one script.

use std::{
    sync::LazyLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::http::HeaderMap;
use redis::{AsyncCommands, Expiry, Script, aio::ConnectionManager};
use serde::{Deserialize, Serialize};

use super::{Handle, SessionId, agent};
use crate::{config::Keys, error::Error, link::Link};

/// Without a request for this long, a session ends.
pub(super) const IDLE: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Whatever is requested, a session ends after this long.
pub(super) const ABSOLUTE: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How many sessions an account has at most. One more ends the oldest: more browsers than anybody
/// has, and a bound on what one account can take up in Redis.
const MOST: usize = 50;

static CREATE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("create.lua")));
static END: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("end.lua")));
static END_ONE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("end_one.lua")));
static END_ALL: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("end_all.lua")));
static MOVE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("move.lua")));
static LIST: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("list.lua")));

/// Who is signed in, as it stands in Redis.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The account.
    pub account_id: i64,
    /// Seconds since 1970 at which it began; the absolute time-out counts from here.
    pub created: u64,
    /// What the browser is called, for the owner's eyes.
    #[serde(default)]
    pub agent: String,
}

/// A session as its owner sees it in a list.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) handle: String,
    pub(super) session: Session,
    /// Seconds since 1970.
    pub(super) last_used: u64,
}

/// The store. Cloning it shares the connection.
#[derive(Clone)]
pub struct Sessions {
    link: Link,
    keys: Keys,
}

impl Sessions {
    /// With the key `SESSION_SECRET`, and previous ones under which sessions may still be stored.
    pub fn new(link: Link, keys: Keys) -> Self {
        Self { link, keys }
    }

    /// Starts a session for an account, under a new id.
    pub async fn create(&self, account_id: i64, headers: &HeaderMap) -> Result<SessionId, Error> {
        let id = SessionId::generate()?;
        let handle = self.handle(id);
        let session = Session { account_id, created: now(), agent: agent::name(headers) };
        let record = serde_json::to_string(&session).map_err(Error::internal)?;
        let mut script = CREATE.key(record_key(&handle));
        script.key(list_key(account_id)).arg(handle.as_str()).arg(record);
        script.arg(IDLE.as_secs()).arg(ABSOLUTE.as_secs()).arg(session.created).arg(MOST);
        let () = self.link.script(&script).await?;
        Ok(id)
    }

    /// The session of an id, if it is alive. Asking for it starts its idle time-out anew.
    pub async fn find(&self, id: SessionId) -> Result<Option<Session>, Error> {
        let record = match self.record(id).await? {
            Some(record) => Some(record),
            None => self.moved(id).await?,
        };
        let Some(record) = record else {
            return Ok(None);
        };
        let session: Session = serde_json::from_str(&record).map_err(Error::internal)?;
        if session.is_over() {
            self.end(id).await?;
            return Ok(None);
        }
        Ok(Some(session))
    }

    async fn record(&self, id: SessionId) -> Result<Option<String>, Error> {
        let key = record_key(&self.handle(id));
        // One command: between a read and a separate EXPIRE a sign-out could come. A full Redis
        // does not refuse it. The time to live is never cut at the absolute end, so that it always
        // tells when the session was last used; what is past that end is refused here.
        let read = |mut redis: ConnectionManager| {
            let key = key.clone();
            async move { redis.get_ex(key, Expiry::EX(IDLE.as_secs())).await }
        };
        self.link.run(read).await
    }

    /// A session that is stored under a previous key, moved to the current one.
    async fn moved(&self, id: SessionId) -> Result<Option<String>, Error> {
        // Another replica may know a newer key than we do, and have moved the session already.
        if self.keys.reload()
            && let Some(record) = self.record(id).await?
        {
            return Ok(Some(record));
        }
        let now = self.handle(id);
        for key in &self.keys.all()[1..] {
            let before = Handle::of(id, key);
            let mut script = MOVE.key(record_key(&before));
            script.key(record_key(&now)).arg(before.as_str()).arg(now.as_str()).arg(IDLE.as_secs());
            let record: Option<String> = self.link.script(&script).await?;
            if record.is_some() {
                return Ok(record);
            }
        }
        Ok(None)
    }

    /// Ends a session at once, whoever still holds its cookie.
    pub async fn end(&self, id: SessionId) -> Result<(), Error> {
        for key in self.keys.all().iter() {
            let handle = Handle::of(id, key);
            let () = self.link.script(END.key(record_key(&handle)).arg(handle.as_str())).await?;
        }
        Ok(())
    }

    /// Ends one session of an account; false if the account has none of that name.
    pub async fn end_one(&self, account_id: i64, handle: &Handle) -> Result<bool, Error> {
        self.link.script(END_ONE.key(list_key(account_id)).arg(handle.as_str())).await
    }

    /// Ends an account's sessions, all or all but one, and says how many they were.
    pub async fn end_all(&self, account_id: i64, keep: Option<SessionId>) -> Result<u64, Error> {
        let keep = keep.map(|id| self.handle(id).to_string()).unwrap_or_default();
        self.link.script(END_ALL.key(list_key(account_id)).arg(keep)).await
    }

    /// An account's sessions that are alive, the last used first.
    pub(super) async fn list(&self, account_id: i64) -> Result<Vec<Listed>, Error> {
        let found: Vec<(String, String, u64)> =
            self.link.script(&LIST.key(list_key(account_id))).await?;
        let now = now();
        let mut sessions = Vec::with_capacity(found.len());
        for (handle, record, left) in found {
            let session: Session = serde_json::from_str(&record).map_err(Error::internal)?;
            if !session.is_over() {
                let last_used = now.saturating_sub(IDLE.as_secs().saturating_sub(left));
                // Two clocks and whole seconds: it shall not seem used before it began.
                let last_used = last_used.max(session.created);
                sessions.push(Listed { handle, session, last_used });
            }
        }
        sessions.sort_by_key(|listed| std::cmp::Reverse(listed.last_used));
        Ok(sessions)
    }

    /// The name under which the owner sees a session.
    pub fn handle(&self, id: SessionId) -> Handle {
        Handle::of(id, &self.keys.current())
    }
}

impl Session {
    fn is_over(&self) -> bool {
        now() >= self.created + ABSOLUTE.as_secs()
    }
}

fn record_key(handle: &Handle) -> String {
    format!("session:{handle}")
}

fn list_key(account_id: i64) -> String {
    format!("sessions-of:{account_id}")
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}
