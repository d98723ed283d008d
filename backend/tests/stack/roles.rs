//! What the roles of PostgreSQL may do, and what not: deploy/postgres/roles.sql made them.

use backend::{
    config::{DatabaseConfig, Rotating},
    db,
};
use sqlx::AssertSqlSafe;

use crate::{
    database::{Database, connect},
    support::database_config,
};

/// SQLSTATE of what a role may not do.
const REFUSED: &str = "42501";

#[tokio::test]
async fn the_application_changes_rows_and_no_table() {
    let database = Database::new();
    let mut app = connect(&database.app).await;
    let refused = [
        "CREATE TABLE extra (id int)",
        "CREATE TEMP TABLE extra (id int)",
        "ALTER TABLE accounts ADD extra int",
        "DROP TABLE accounts",
        "TRUNCATE accounts CASCADE",
        "CREATE INDEX extra ON accounts (created_at)",
        "CREATE SCHEMA extra",
        "CREATE FUNCTION extra() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "ALTER ROLE owner PASSWORD 'mine'",
        "CREATE ROLE extra",
        "CREATE DATABASE extra",
        "SET ROLE owner",
        "SET ROLE postgres",
        "SELECT pg_read_file('/etc/passwd')",
        "COPY accounts TO PROGRAM 'cat'",
        "SELECT * FROM pg_authid",
    ];
    for statement in refused {
        let outcome = sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut app).await;
        let error = outcome.err().unwrap_or_else(|| panic!("it may: {statement}"));
        let code = error.as_database_error().unwrap().code().unwrap().into_owned();
        assert_eq!(code, REFUSED, "{statement}: {error}");
    }
    let rows = "INSERT INTO accounts (email, password_hash) VALUES ('a@b.example', 'x');
                UPDATE accounts SET password_hash = 'y';
                DELETE FROM accounts";
    sqlx::raw_sql(rows).execute(&mut app).await.unwrap();
}

/// Beside the stack's own database: a database of a test has no rules about who may connect.
#[tokio::test]
async fn no_other_role_comes_over_the_network() {
    for user in ["postgres", "backup"] {
        for password in ["", "postgres", "password"] {
            let password = Rotating::fixed(password.to_owned());
            let config = DatabaseConfig { user: user.to_owned(), password, ..database_config() };
            let error = db::connect(&config, "test", &[]).await.err().unwrap();
            let code = error.as_database_error().unwrap().code().unwrap().into_owned();
            assert_eq!(code, "28000", "{user}: {error}");
        }
    }
}

/// The backend sets none itself: whoever connects as the role has them.
#[tokio::test]
async fn the_application_has_its_deadlines_from_its_role() {
    let mut app = connect(&database_config()).await;
    let expected = [
        ("statement_timeout", "5s"),
        ("lock_timeout", "3s"),
        ("idle_in_transaction_session_timeout", "10s"),
    ];
    for (setting, value) in expected {
        let query = "SELECT current_setting($1)";
        let found: String =
            sqlx::query_scalar(query).bind(setting).fetch_one(&mut app).await.unwrap();
        assert_eq!(found, value, "{setting}");
    }
}
