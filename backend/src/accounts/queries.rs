//! The statements about accounts.

use serde::Serialize;
use sqlx::PgPool;

use super::email::Email;
use crate::error::Error;

/// What an account shows of itself.
#[derive(Debug, Serialize)]
pub struct Account {
    /// Its number.
    pub id: i64,
    /// Its address.
    pub email: String,
}

pub(super) async fn insert(db: &PgPool, email: &Email, hash: &str) -> Result<Account, Error> {
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

pub(super) async fn find(db: &PgPool, id: i64) -> Result<Option<Account>, Error> {
    let email: Option<String> = sqlx::query_scalar("SELECT email FROM accounts WHERE id = $1")
        .bind(id)
        .fetch_optional(db)
        .await?;
    Ok(email.map(|email| Account { id, email }))
}

/// The account of an address, with its password's hash.
pub(super) async fn find_by_email(
    db: &PgPool,
    email: &Email,
) -> Result<Option<(Account, String)>, Error> {
    let row: Option<(i64, String, String)> =
        sqlx::query_as("SELECT id, email, password_hash FROM accounts WHERE email = $1")
            .bind(email.as_str())
            .fetch_optional(db)
            .await?;
    Ok(row.map(|(id, email, hash)| (Account { id, email }, hash)))
}
