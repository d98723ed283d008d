//! The pool of connections, with a network between that holds back what is sent.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use backend::{config::DatabaseConfig, db};
use sqlx::Connection;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    time::{Instant, sleep, timeout},
};

use crate::database::{Database, connect};

/// Passes bytes on between the pool and PostgreSQL, while it is open.
struct Relay {
    port: u16,
    is_open: watch::Sender<bool>,
    gate: Arc<Mutex<watch::Receiver<bool>>>,
}

impl Relay {
    async fn to(host: String, port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let (is_open, gate) = watch::channel(true);
        let gate = Arc::new(Mutex::new(gate));
        let for_new = gate.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect((host.as_str(), port)).await.unwrap();
                let gate = for_new.lock().unwrap().clone();
                tokio::spawn(pass(client, server, gate));
            }
        });
        Self { port: own, is_open, gate }
    }

    /// What is connected stays silent for ever: it takes what is sent, and the server never sees it. What is
    /// connected from now on is not concerned. The value keeps them silent for as long as it lives.
    fn silence(&mut self) -> watch::Sender<bool> {
        self.is_open.send(false).unwrap();
        let (is_open, gate) = watch::channel(true);
        *self.gate.lock().unwrap() = gate;
        std::mem::replace(&mut self.is_open, is_open)
    }
}

async fn pass(client: TcpStream, server: TcpStream, gate: watch::Receiver<bool>) {
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::spawn(pass_one_way(from_server, to_client, gate.clone()));
    pass_one_way(from_client, to_server, gate).await;
}

async fn pass_one_way(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut gate: watch::Receiver<bool>,
) {
    let mut bytes = vec![0; 4096];
    while let Ok(length) = from.read(&mut bytes).await {
        // The end of one side is not told to the other either.
        if gate.wait_for(|is_open| *is_open).await.is_err() || length == 0 {
            return;
        }
        if to.write_all(&bytes[..length]).await.is_err() {
            return;
        }
    }
}

/// A transaction that nobody knows of would take in what the next request writes, and be rolled back
/// with it ten seconds later.
#[tokio::test]
async fn a_transaction_that_is_given_up_while_it_begins_leaves_none_open() {
    let database = Database::new();
    let relay = Relay::to(database.app.host.clone(), database.app.port).await;
    let through =
        DatabaseConfig { host: "127.0.0.1".to_owned(), port: relay.port, ..database.app.clone() };
    let pool = db::Database::new(&through);
    pool.begin().await.unwrap().commit().await.unwrap();
    // It goes back in a task of its own.
    while pool.pool().num_idle() == 0 {
        tokio::task::yield_now().await;
    }
    relay.is_open.send(false).unwrap();
    assert!(timeout(Duration::from_millis(200), pool.begin()).await.is_err());
    relay.is_open.send(true).unwrap();
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
    let through =
        DatabaseConfig { host: "127.0.0.1".to_owned(), port: relay.port, ..database.app.clone() };
    let pool = db::Database::new(&through);
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
