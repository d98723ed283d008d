//! The pool of connections, with a network between that holds back what is sent.

use std::time::Duration;

use backend::db;
use sqlx::Connection;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    database::{Database, connect},
    relay::Relay,
};

/// A transaction that nobody knows of would take in what the next request writes, and be rolled back
/// with it ten seconds later.
#[tokio::test]
async fn a_transaction_that_is_given_up_while_it_begins_leaves_none_open() {
    let database = Database::new();
    let relay = Relay::to(database.app.host.clone(), database.app.port).await;
    let pool = db::Database::new(&relay.instead_of(&database.app));
    pool.begin().await.unwrap().commit().await.unwrap();
    // It goes back in a task of its own.
    while pool.pool().num_idle() == 0 {
        tokio::task::yield_now().await;
    }
    relay.open(false);
    assert!(timeout(Duration::from_millis(200), pool.begin()).await.is_err());
    relay.open(true);
    let mut observer = connect(&database.app).await;
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        let statement = "SELECT coalesce(string_agg(state || ' after ' || query, ', '), '') \
                         FROM pg_stat_activity WHERE application_name = 'backend' \
                         AND datname = current_database()";
        let found: String = sqlx::query_scalar(statement).fetch_one(&mut observer).await.unwrap();
        if found.starts_with("idle after ROLLBACK") {
            break;
        }
        assert!(Instant::now() < deadline, "the pool's connection is {found}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// A network that goes silent in the middle of every request at once takes no place of the pool for good.
#[tokio::test]
async fn connections_that_went_silent_give_their_places_back() {
    let database = Database::new();
    let mut relay = Relay::to(database.app.host.clone(), database.app.port).await;
    let pool = db::Database::new(&relay.instead_of(&database.app));
    // All that there are: six in a statement, and four in a transaction of theirs.
    let mut held = Vec::new();
    for _ in 0..6 {
        held.push(pool.acquire().await.unwrap());
    }
    let mut begun = Vec::new();
    for _ in 0..4 {
        begun.push(pool.begin().await.unwrap());
    }
    let _silent = relay.silence();
    let moment = Duration::from_millis(20);
    for mut connection in held {
        assert!(timeout(moment, connection.ping()).await.is_err(), "it is not silent");
    }
    for mut transaction in begun {
        assert!(timeout(moment, transaction.ping()).await.is_err(), "it is not silent");
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Ok(mut connection) = pool.acquire().await
            && let Ok(Ok(())) = timeout(Duration::from_secs(1), connection.ping()).await
        {
            break;
        }
        assert!(Instant::now() < deadline, "no connection was to be had, half a minute later");
    }
}
