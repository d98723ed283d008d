//! The records in Redis. The key is a keyed hash of the id, so that whoever reads Redis (or a
//! backup of it) holds no cookie; the record is small and never changed after it was made.
//!
//! An account's list (`sessions-of:ID`, a sorted set of hashes by their beginning) makes it
//! possible to show and to end its sessions. Whatever touches both does so in one script.

use std::{
    fmt::Display,
    sync::LazyLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::http::HeaderMap;
use redis::{AsyncCommands, Expiry, Script};
use serde::{Deserialize, Serialize};

use super::{Handle, SessionId, agent};
use crate::{
    config::Rotating,
    error::Error,
    link::{self, Link},
};

/// Without a request for this long, a session ends.
pub(super) const IDLE: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// Whatever is requested, a session ends after this long.
pub(super) const ABSOLUTE: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How many sessions an account has at most. One more ends the oldest: more browsers than anybody
/// has, and a bound on what one account can take up in Redis.
const MOST: usize = 50;

/// The kind of key under which an account's list stands.
const LIST_KIND: &str = "sessions-of";

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
    key: Rotating<[u8; 64]>,
}

impl Sessions {
    /// With the key `SESSION_SECRET`.
    pub fn new(link: Link, key: Rotating<[u8; 64]>) -> Self {
        Self { link, key }
    }

    /// Starts a session for an account, under a new id.
    pub async fn create(&self, account_id: i64, headers: &HeaderMap) -> Result<SessionId, Error> {
        let id = SessionId::generate()?;
        let handle = Handle::of(id, &self.key.current());
        let session = Session { account_id, created: now(), agent: agent::name(headers) };
        let record = serde_json::to_string(&session).map_err(Error::internal)?;
        let mut script = CREATE.key(self.record_key(""));
        script.key(self.list_key(account_id)).arg(handle.as_str()).arg(record);
        script.arg(IDLE.as_secs()).arg(ABSOLUTE.as_secs()).arg(session.created).arg(MOST);
        let () = self.link.script(&script).await?;
        Ok(id)
    }

    /// The session of an id, if it is alive. Asking for it starts its idle time-out anew.
    pub async fn find(&self, id: SessionId) -> Result<Option<Session>, Error> {
        let before = self.key.accepted();
        let mut record = self.find_record(id).await?;
        // A replica that learnt of a new key a moment earlier may have made the session, or moved it.
        if record.is_none() && self.key.is_other_than(&before) {
            record = self.find_record(id).await?;
        }
        let Some(record) = record else {
            return Ok(None);
        };
        let session: Session = serde_json::from_str(&record).map_err(Error::internal)?;
        if session.is_over() {
            // Over it is, whether or not Redis forgets it now.
            if let Err(error) = self.end(id).await {
                tracing::warn!(%error, "a session that is over could not be removed");
            }
            return Ok(None);
        }
        Ok(Some(session))
    }

    /// One command for a session under the current key. One that is still under a previous key is
    /// moved, so that it outlives that key.
    async fn find_record(&self, id: SessionId) -> Result<Option<String>, Error> {
        let handles = self.handles(id);
        // Between a read and a separate EXPIRE a sign-out could come. A full Redis does not refuse
        // it. The time to live is never cut at the absolute end, so that it always tells when the
        // session was last used; what is past that end is refused by the caller.
        let key = self.record_key(&handles[0]);
        let record: Option<String> = self
            .link
            .run(|mut redis| {
                let key = key.clone();
                async move {
                    match redis.get_ex(&key, Expiry::EX(IDLE.as_secs())).await {
                        // Who is signed in stays so; the idle time-out goes on to run until writes are taken.
                        Err(error) if link::refuses_writes(&error) => redis.get(&key).await,
                        outcome => outcome,
                    }
                }
            })
            .await?;
        if record.is_some() || handles.len() == 1 {
            return Ok(record);
        }
        let mut script = MOVE.key(self.record_key(""));
        script.key(self.link.key(LIST_KIND, "")).arg(IDLE.as_secs());
        handles.iter().for_each(|handle| {
            script.arg(handle.as_str());
        });
        self.link.script(&script).await
    }

    /// Ends a session at once, whoever still holds its cookie.
    pub async fn end(&self, id: SessionId) -> Result<(), Error> {
        // Under a key that this process does not know yet it would stay alive.
        self.key.refresh();
        let mut script = END.key(self.record_key(""));
        script.key(self.link.key(LIST_KIND, ""));
        self.handles(id).iter().for_each(|handle| {
            script.arg(handle.as_str());
        });
        self.link.script(&script).await
    }

    /// Ends one session of an account; false if the account has none of that name.
    pub async fn end_one(&self, account_id: i64, handle: &Handle) -> Result<bool, Error> {
        let mut script = END_ONE.key(self.record_key(""));
        self.link.script(script.key(self.list_key(account_id)).arg(handle.as_str())).await
    }

    /// Ends an account's sessions, all or all but one, and says how many they were.
    pub async fn end_all(&self, account_id: i64, keep: Option<SessionId>) -> Result<u64, Error> {
        // Under a key that this process does not know yet the one to keep would not be known.
        self.key.refresh();
        let mut script = END_ALL.key(self.record_key(""));
        script.key(self.list_key(account_id));
        keep.map(|id| self.handles(id)).unwrap_or_default().iter().for_each(|handle| {
            script.arg(handle.as_str());
        });
        self.link.script(&script).await
    }

    /// An account's sessions that are alive, the last used first.
    pub(super) async fn list(&self, account_id: i64) -> Result<Vec<Listed>, Error> {
        let mut script = LIST.key(self.record_key(""));
        let found: Vec<(String, String, u64)> =
            self.link.script(script.key(self.list_key(account_id))).await?;
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

    /// Whether a name that the owner saw is this session's.
    pub(super) fn is_named(&self, id: SessionId, name: &str) -> bool {
        self.handles(id).iter().any(|handle| handle.as_str() == name)
    }

    /// The names that a session may have: under the current key, and under those before it.
    fn handles(&self, id: SessionId) -> Vec<Handle> {
        self.key.accepted().iter().map(|key| Handle::of(id, key)).collect()
    }

    /// Without a handle, what all of them begin with: the scripts add the rest.
    fn record_key(&self, handle: impl Display) -> String {
        self.link.key("session", handle)
    }

    fn list_key(&self, account_id: i64) -> String {
        self.link.key(LIST_KIND, account_id)
    }
}

impl Session {
    fn is_over(&self) -> bool {
        now() >= self.created + ABSOLUTE.as_secs()
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}
