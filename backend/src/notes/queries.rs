//! The statements about notes. Each names the account: nobody reads another's.

use serde::Serialize;
use sqlx::PgPool;
use time::OffsetDateTime;

use crate::error::Error;

/// A note as it is stored and sent.
#[derive(Debug, Serialize)]
pub(super) struct Note {
    pub(super) id: i64,
    pub(super) text: String,
    #[serde(with = "time::serde::rfc3339")]
    pub(super) created_at: OffsetDateTime,
}

type Row = (i64, String, OffsetDateTime);

impl From<Row> for Note {
    fn from((id, text, created_at): Row) -> Self {
        Self { id, text, created_at }
    }
}

pub(super) async fn list(
    db: &PgPool,
    account_id: i64,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<Note>, Error> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT id, text, created_at FROM notes
         WHERE account_id = $1 AND id < $2
         ORDER BY id DESC LIMIT $3",
    )
    .bind(account_id)
    .bind(before.unwrap_or(i64::MAX))
    .bind(limit)
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(Note::from).collect())
}

pub(super) async fn insert(db: &PgPool, account_id: i64, text: &str) -> Result<Note, Error> {
    let row: Row = sqlx::query_as(
        "INSERT INTO notes (account_id, text) VALUES ($1, $2) RETURNING id, text, created_at",
    )
    .bind(account_id)
    .bind(text)
    .fetch_one(db)
    .await?;
    Ok(row.into())
}
