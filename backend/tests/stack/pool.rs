//! The pool of connections, with a network between that holds back what is sent.

use std::time::Duration;

use backend::{config::DatabaseConfig, db};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{Instant, sleep, timeout},
};

use crate::database::{Database, connect};

/// Passes bytes on to PostgreSQL, those to the server only while it is open.
struct Relay {
    port: u16,
    is_open: watch::Sender<bool>,
}

impl Relay {
    async fn to(host: String, port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let (is_open, gate) = watch::channel(true);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect((host.as_str(), port)).await.unwrap();
                tokio::spawn(pass(client, server, gate.clone()));
            }
        });
        Self { port: own, is_open }
    }
}

async fn pass(client: TcpStream, server: TcpStream, mut gate: watch::Receiver<bool>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    tokio::spawn(async move { copy(&mut from_server, &mut to_client).await });
    let mut bytes = vec![0; 4096];
    while let Ok(length @ 1..) = from_client.read(&mut bytes).await {
        if gate.wait_for(|is_open| *is_open).await.is_err() {
            return;
        }
        to_server.write_all(&bytes[..length]).await.unwrap();
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
