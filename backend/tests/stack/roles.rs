//! What the roles of PostgreSQL may do, and what not: deploy/postgres/roles.sql made them.

use backend::{
    config::{DatabaseConfig, Rotating},
    db,
};
use sqlx::{AssertSqlSafe, Connection};

use crate::{
    database::{Database, connect, execute},
    support::{database_config, stack},
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
        "DELETE FROM schema_migrations",
        "UPDATE schema_migrations SET checksum = ''",
        "INSERT INTO schema_migrations VALUES (9999, 'x', '', now(), 1)",
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

/// The backend sets none itself: whoever connects as a role has its deadlines.
#[tokio::test]
async fn every_role_has_its_deadlines() {
    let mut app = connect(&database_config()).await;
    let own_password = stack("STACK_PG_OWNER_PASSWORD");
    let (user, password) = ("owner".to_owned(), Rotating::fixed(own_password));
    let owner_config = DatabaseConfig { user, password, ..database_config() };
    let mut owner = connect(&owner_config).await;
    for (setting, of_app, of_owner) in [
        ("statement_timeout", "5s", "0"),
        ("lock_timeout", "3s", "800ms"),
        ("idle_in_transaction_session_timeout", "10s", "1min"),
    ] {
        for (connection, value) in [(&mut app, of_app), (&mut owner, of_owner)] {
            let found: String = sqlx::query_scalar("SELECT current_setting($1)")
                .bind(setting)
                .fetch_one(connection)
                .await
                .unwrap();
            assert_eq!(found, value, "{setting}");
        }
    }
    // Not over the network, so that its settings are read and not felt.
    let query = "SELECT rolconfig FROM pg_roles WHERE rolname = 'backup'";
    let backup: Vec<String> = sqlx::query_scalar(query).fetch_one(&mut app).await.unwrap();
    for expected in [
        "default_transaction_read_only=on",
        "lock_timeout=60s",
        "idle_in_transaction_session_timeout=0",
    ] {
        assert!(backup.iter().any(|found| found == expected), "{expected} is not in {backup:?}");
    }
}

/// A deadline that is set is one that ends something: who waits for a lock is told so.
#[tokio::test]
async fn a_lock_is_not_waited_for_for_ever() {
    let database = Database::new();
    let mut owner = connect(&database.owner).await;
    let mut transaction = owner.begin().await.unwrap();
    execute(&mut transaction, "LOCK TABLE accounts IN ACCESS EXCLUSIVE MODE").await;
    let mut app = connect(&database.app).await;
    let error = sqlx::raw_sql("SELECT FROM accounts").execute(&mut app).await.err().unwrap();
    assert_eq!(error.as_database_error().unwrap().code().unwrap(), "55P03", "{error}");
}
