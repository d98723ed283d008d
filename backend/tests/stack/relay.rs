//! A network between the backend and PostgreSQL that holds back what is sent.

use std::sync::{Arc, Mutex};

use backend::config::DatabaseConfig;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

/// Passes bytes on between the pool and PostgreSQL, while it is open.
pub(crate) struct Relay {
    port: u16,
    is_open: watch::Sender<bool>,
    gate: Arc<Mutex<watch::Receiver<bool>>>,
}

impl Relay {
    pub(crate) async fn to(host: String, port: u16) -> Self {
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

    /// The same database, through this.
    pub(crate) fn instead_of(&self, config: &DatabaseConfig) -> DatabaseConfig {
        DatabaseConfig { host: "127.0.0.1".to_owned(), port: self.port, ..config.clone() }
    }

    /// Whether bytes pass, on every connection that was not silenced.
    pub(crate) fn open(&self, is_open: bool) {
        self.is_open.send(is_open).unwrap();
    }

    /// What is connected stays silent for ever: it takes what is sent, and the server never sees it. What is
    /// connected from now on is not concerned. The value keeps them silent for as long as it lives.
    pub(crate) fn silence(&mut self) -> watch::Sender<bool> {
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
