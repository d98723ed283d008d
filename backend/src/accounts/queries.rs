//! The statements about accounts.

use serde::Serialize;
use sqlx::PgExecutor;

use super::email::Email;
use crate::{db::Database, error::Error};

/// What an account shows of itself.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Account {
    /// Its number.
    pub id: i64,
    /// Its address.
    pub email: String,
}

pub(super) async fn insert(
    db: impl PgExecutor<'_>,
    email: &Email,
    hash: &str,
) -> Result<Account, Error> {
    let id = sqlx::query_scalar(
        "INSERT INTO accounts (email, password_hash) VALUES ($1, $2) RETURNING id",
    )
    .bind(email.as_str())
    .bind(hash)
    .fetch_one(db)
    .await
    .map_err(|error| match error.as_database_error().and_then(|error| error.constraint()) {
        Some("accounts_email_key") => Error::Conflict("This e-mail address has an account."),
        _ => error.into(),
    })?;
    Ok(Account { id, email: email.as_str().to_owned() })
}

pub(super) async fn find(db: &Database, id: i64) -> Result<Option<Account>, Error> {
    let email: Option<String> = sqlx::query_scalar("SELECT email FROM accounts WHERE id = $1")
        .bind(id)
        .fetch_optional(&mut *db.acquire().await?)
        .await?;
    Ok(email.map(|email| Account { id, email }))
}

/// The account of an address, with its password's hash.
pub(super) async fn find_by_email(
    db: &Database,
    email: &Email,
) -> Result<Option<(Account, String)>, Error> {
    let row: Option<(i64, String, String)> =
        sqlx::query_as("SELECT id, email, password_hash FROM accounts WHERE email = $1")
            .bind(email.as_str())
            .fetch_optional(&mut *db.acquire().await?)
            .await?;
    Ok(row.map(|(id, email, hash)| (Account { id, email }, hash)))
}

/// The account of a number, with its password's hash.
pub(super) async fn find_with_hash(
    db: &Database,
    id: i64,
) -> Result<Option<(Account, String)>, Error> {
    let row: Option<(String, String)> =
        sqlx::query_as("SELECT email, password_hash FROM accounts WHERE id = $1")
            .bind(id)
            .fetch_optional(&mut *db.acquire().await?)
            .await?;
    Ok(row.map(|(email, hash)| (Account { id, email }, hash)))
}

/// Whether the account still has this hash. Waits for a change that is under way.
pub(super) async fn still_has_hash(db: &Database, id: i64, hash: &str) -> Result<bool, Error> {
    let now: Option<String> =
        sqlx::query_scalar("SELECT password_hash FROM accounts WHERE id = $1 FOR SHARE")
            .bind(id)
            .fetch_optional(&mut *db.acquire().await?)
            .await?;
    Ok(now.is_some_and(|now| now == hash))
}

/// Sets a new hash, unless another change was faster; then false.
pub(super) async fn replace_hash(
    db: impl PgExecutor<'_>,
    id: i64,
    old: &str,
    new: &str,
) -> Result<bool, Error> {
    let outcome =
        sqlx::query("UPDATE accounts SET password_hash = $3 WHERE id = $1 AND password_hash = $2")
            .bind(id)
            .bind(old)
            .bind(new)
            .execute(db)
            .await?;
    Ok(outcome.rows_affected() == 1)
}
