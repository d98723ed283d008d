//! The statements about notes, which the compiler compares with the schema (backend/.sqlx). Each names the account: nobody reads another's.

use serde::Serialize;
use time::OffsetDateTime;

use crate::{db::Database, error::Error};

/// A note as it is stored and sent.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Note {
    pub(super) id: i64,
    pub(super) text: String,
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    pub(super) created_at: OffsetDateTime,
}

pub(super) async fn list(
    db: &Database,
    account_id: i64,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<Note>, Error> {
    let mut connection = db.acquire().await?;
    let query = sqlx::query_as!(
        Note,
        "SELECT id, text, created_at FROM notes
         WHERE account_id = $1 AND id < $2
         ORDER BY id DESC LIMIT $3",
        account_id,
        before.unwrap_or(i64::MAX),
        limit,
    );
    Ok(query.fetch_all(&mut *connection).await?)
}

/// What identifies a request that may be sent again.
pub(super) struct Retry<'a> {
    /// The client's `Idempotency-Key`.
    pub(super) key: &'a str,
    /// A hash of what came with it.
    pub(super) hash: [u8; 32],
}

/// Writes a note once, however often and however simultaneously it is asked for under one key.
/// Nothing if the key was used for something else.
pub(super) async fn insert_once(
    db: &Database,
    account_id: i64,
    text: &str,
    retry: &Retry<'_>,
) -> Result<Option<Note>, Error> {
    let mut connection = db.acquire().await?;
    // Beside a transaction that has the key and is not committed, this waits for its end.
    let insert = sqlx::query_as!(
        Note,
        "INSERT INTO notes (account_id, text, request_key, request_hash) VALUES ($1, $2, $3, $4)
         ON CONFLICT (account_id, request_key) WHERE request_key IS NOT NULL DO NOTHING
         RETURNING id, text, created_at",
        account_id,
        text,
        retry.key,
        &retry.hash[..],
    );
    if let Some(note) = insert.fetch_optional(&mut *connection).await.map_err(refused)? {
        return Ok(Some(note));
    }
    let earlier = sqlx::query_as!(
        Note,
        "SELECT id, text, created_at FROM notes
         WHERE account_id = $1 AND request_key = $2 AND request_hash = $3",
        account_id,
        retry.key,
        &retry.hash[..],
    );
    Ok(earlier.fetch_optional(&mut *connection).await?)
}

pub(super) async fn insert(db: &Database, account_id: i64, text: &str) -> Result<Note, Error> {
    let mut connection = db.acquire().await?;
    let insert = sqlx::query_as!(
        Note,
        "INSERT INTO notes (account_id, text) VALUES ($1, $2) RETURNING id, text, created_at",
        account_id,
        text,
    );
    insert.fetch_one(&mut *connection).await.map_err(refused)
}

/// An account may be removed while a session of it is alive.
fn refused(error: sqlx::Error) -> Error {
    match error.as_database_error().and_then(|error| error.constraint()) {
        Some("notes_account_id_fkey") => Error::Unauthorized("Sign in first."),
        _ => error.into(),
    }
}
