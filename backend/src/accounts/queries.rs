//! The statements about accounts, which the compiler compares with the schema (backend/.sqlx).

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
    // Not as an error of the constraint: PostgreSQL would write the address into its log.
    let insert = sqlx::query_as!(
        Account,
        "INSERT INTO accounts (email, password_hash) VALUES ($1, $2)
         ON CONFLICT (email) DO NOTHING RETURNING id, email",
        email.as_str(),
        hash,
    );
    let account = insert.fetch_optional(db).await?;
    account.ok_or(Error::Conflict("This e-mail address has an account."))
}

/// Whether an account that was inserted is there, when nobody knows how the transaction ended. Waits for its end,
/// if that is still to come.
pub(super) async fn was_made(
    db: &Database,
    id: i64,
    email: &Email,
    hash: &str,
) -> Result<bool, Error> {
    let mut transaction = db.begin().await?;
    // Never committed: to insert the address again is what waits for whoever inserts it.
    match insert(&mut *transaction, email, hash).await {
        Ok(_) => return Ok(false),
        Err(Error::Conflict(_)) => {}
        Err(error) => return Err(error),
    }
    drop(transaction);
    // Another sign-up may have been faster with the same address, and may even have the number, which a sequence
    // gives again after a crash. The hash is salted: nobody else has it.
    still_has_hash(db, id, hash).await
}

pub(super) async fn find(db: &Database, id: i64) -> Result<Option<Account>, Error> {
    let mut connection = db.acquire().await?;
    let query = sqlx::query_as!(Account, "SELECT id, email FROM accounts WHERE id = $1", id);
    Ok(query.fetch_optional(&mut *connection).await?)
}

/// The account of an address, with its password's hash.
pub(super) async fn find_by_email(
    db: &Database,
    email: &Email,
) -> Result<Option<(Account, String)>, Error> {
    let mut connection = db.acquire().await?;
    let query = sqlx::query!(
        "SELECT id, email, password_hash FROM accounts WHERE email = $1",
        email.as_str(),
    );
    let row = query.fetch_optional(&mut *connection).await?;
    Ok(row.map(|row| (Account { id: row.id, email: row.email }, row.password_hash)))
}

/// The account of a number, with its password's hash.
pub(super) async fn find_with_hash(
    db: &Database,
    id: i64,
) -> Result<Option<(Account, String)>, Error> {
    let mut connection = db.acquire().await?;
    let query = sqlx::query!("SELECT email, password_hash FROM accounts WHERE id = $1", id);
    let row = query.fetch_optional(&mut *connection).await?;
    Ok(row.map(|row| (Account { id, email: row.email }, row.password_hash)))
}

/// Whether the account still has this hash. Waits for a change that is under way.
pub(super) async fn still_has_hash(db: &Database, id: i64, hash: &str) -> Result<bool, Error> {
    let mut connection = db.acquire().await?;
    let query =
        sqlx::query_scalar!("SELECT password_hash FROM accounts WHERE id = $1 FOR SHARE", id);
    let now = query.fetch_optional(&mut *connection).await?;
    Ok(now.is_some_and(|now| now == hash))
}

/// Sets a new hash, unless another change was faster; then false.
pub(super) async fn replace_hash(
    db: impl PgExecutor<'_>,
    id: i64,
    old: &str,
    new: &str,
) -> Result<bool, Error> {
    let update = sqlx::query!(
        "UPDATE accounts SET password_hash = $3 WHERE id = $1 AND password_hash = $2",
        id,
        old,
        new,
    );
    Ok(update.execute(db).await?.rows_affected() == 1)
}
