//! `/readyz` tells the truth: each thing that would make requests fail is named, and it is ready again
//! when that is over, without a restart.

use crate::{
    app::App,
    database::{connect, execute, run_sql},
    redis_user::RedisUser,
    support::while_redis_has_room,
};

impl App {
    fn is_ready(&self) {
        assert_eq!(self.person().get("/readyz").expect(200).json()["status"], "ready");
    }

    /// Asserts that it is not, and that it says so with these words.
    fn is_not_ready(&self, because: &str) {
        let problem = self.person().get("/readyz").problem(503);
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(because), "{because:?} is not in {detail:?}");
    }

    /// A setting of its own database, for new connections: the old ones are ended.
    fn alter_database(&self, change: &str) {
        run_sql(&format!("ALTER DATABASE {} {change}", self.database.app.dbname));
        self.end_connections();
    }

    fn end_connections(&self) {
        let name = &self.database.app.dbname;
        run_sql(&format!(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
             WHERE datname = '{name}' AND usename = '{}'",
            self.database.app.user
        ));
    }
}

#[test]
fn a_database_that_takes_no_write_is_not_ready() {
    let app = App::spawn();
    app.is_ready();
    app.alter_database("SET default_transaction_read_only = on");
    app.is_not_ready("PostgreSQL: it is read-only");
    // It reads all the same: asking for an answer would not have been enough.
    app.person().get("/api/session").problem(401);
    app.alter_database("RESET default_transaction_read_only");
    app.is_ready();
}

/// The pool hands a connection that was used a moment ago out without a ping.
#[test]
fn a_connection_that_was_just_ended_says_nothing_about_the_database() {
    let app = App::spawn();
    for _ in 0..20 {
        app.is_ready();
        app.end_connections();
        app.is_ready();
    }
}

#[test]
fn a_database_that_is_away_is_not_ready() {
    let app = App::spawn();
    app.alter_database("ALLOW_CONNECTIONS false");
    app.is_not_ready("PostgreSQL: ");
    app.alter_database("ALLOW_CONNECTIONS true");
    app.is_ready();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_is_behind_or_another_is_not_ready() {
    let app = tokio::task::spawn_blocking(App::spawn).await.unwrap();
    let mut owner = connect(&app.database.owner).await;
    let last = "WHERE version = (SELECT max(version) FROM schema_migrations)";
    execute(&mut owner, &format!("CREATE TABLE kept AS SELECT * FROM schema_migrations {last}"))
        .await;
    execute(&mut owner, &format!("DELETE FROM schema_migrations {last}")).await;
    tokio::task::block_in_place(|| app.is_not_ready("1 migrations are to be applied"));
    execute(&mut owner, "INSERT INTO schema_migrations SELECT * FROM kept").await;
    tokio::task::block_in_place(|| app.is_ready());
    execute(&mut owner, &format!("UPDATE schema_migrations SET checksum = 'edited' {last}")).await;
    tokio::task::block_in_place(|| app.is_not_ready("the migrations disagree"));
}

#[test]
fn a_redis_that_is_away_is_not_ready() {
    let _room = while_redis_has_room();
    let user = RedisUser::new("first");
    let app = App::with(|config, secrets| {
        config.redis.user.clone_from(&user.0);
        secrets.write("REDIS_PASSWORD", &["first"]);
        config.redis.password.refresh();
    });
    app.is_ready();
    user.set(&["off".to_owned()]);
    user.cut();
    app.is_not_ready("Redis: ");
    user.set(&["on".to_owned()]);
    app.is_ready();
}

/// What readiness writes is nothing that stays, and nothing that a backup could meet.
#[test]
fn asking_leaves_nothing_behind() {
    let app = App::spawn();
    app.is_ready();
    assert_eq!(app.keys("*"), [""; 0]);
}
