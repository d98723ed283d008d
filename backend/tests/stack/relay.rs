//! A network between the backend and PostgreSQL that holds back what is sent.

use std::{
    sync::{Arc, Mutex, OnceLock},
    time::Duration,
};

use backend::config::DatabaseConfig;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    time::sleep,
};

/// Passes bytes on between the pool and PostgreSQL, while it is open.
pub(crate) struct Relay {
    port: u16,
    is_open: watch::Sender<bool>,
    gate: Arc<Mutex<watch::Receiver<bool>>>,
    break_at: Arc<Mutex<Option<Break>>>,
}

/// When a connection breaks at its `COMMIT`.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Break {
    /// PostgreSQL never hears of it.
    Before,
    /// PostgreSQL is still at it.
    During,
    /// It is carried out, and the answer is lost.
    After,
    /// It is carried out, and nothing is heard of the connection any more, not even its end.
    Silent,
}

impl Relay {
    pub(crate) async fn to(host: String, port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let (is_open, gate) = watch::channel(true);
        let gate = Arc::new(Mutex::new(gate));
        let for_new = gate.clone();
        let break_at = Arc::<Mutex<Option<Break>>>::default();
        let breaks = break_at.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect((host.as_str(), port)).await.unwrap();
                let gate = for_new.lock().unwrap().clone();
                tokio::spawn(pass(client, server, gate, breaks.clone()));
            }
        });
        Self { port: own, is_open, gate, break_at }
    }

    /// The same database, through this.
    pub(crate) fn instead_of(&self, config: &DatabaseConfig) -> DatabaseConfig {
        DatabaseConfig { host: "127.0.0.1".to_owned(), port: self.port, ..config.clone() }
    }

    /// Whether bytes pass, on every connection that was not silenced.
    pub(crate) fn open(&self, is_open: bool) {
        self.is_open.send(is_open).unwrap();
    }

    /// The next connection that commits breaks.
    pub(crate) fn break_at_commit(&self, at: Break) {
        *self.break_at.lock().unwrap() = Some(at);
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

async fn pass(
    client: TcpStream,
    server: TcpStream,
    gate: watch::Receiver<bool>,
    breaks: Arc<Mutex<Option<Break>>>,
) {
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let broken = Arc::<OnceLock<Break>>::default();
    let is_broken = broken.clone();
    let answers =
        tokio::spawn(pass_one_way(from_server, to_client, gate.clone(), move |_| match is_broken
            .get()
        {
            None => Pass::All,
            Some(Break::Silent) => Pass::Unheard,
            Some(_) => Pass::Nothing,
        }));
    let questions = pass_one_way(from_client, to_server, gate, move |bytes| {
        let is_commit = bytes.windows(6).any(|word| word == b"COMMIT");
        let Some(at) = is_commit.then(|| breaks.lock().unwrap().take()).flatten() else {
            return Pass::All;
        };
        let _ = broken.set(at);
        match at {
            Break::Before => Pass::Nothing,
            Break::During | Break::After | Break::Silent => Pass::Last(at),
        }
    });
    match questions.await {
        None => answers.abort(),
        Some((from_client, to_server, Break::During)) => {
            answers.abort();
            drop(from_client);
            // Would PostgreSQL see the end, it might give up.
            sleep(COMMITTING).await;
            drop(to_server);
        }
        // Both ends are kept until PostgreSQL has answered, or has ended where nobody would hear it.
        Some(_kept) => {
            let _ = answers.await;
        }
    }
}

/// Longer than any `COMMIT` of a test.
const COMMITTING: Duration = Duration::from_secs(5);

/// What becomes of some bytes.
enum Pass {
    All,
    /// These, and then no more.
    Last(Break),
    /// These do not, and what comes later may.
    Unheard,
    Nothing,
}

/// Until one side ends, or nothing is to pass any more; after [`Pass::Last`] both ends are given back.
async fn pass_one_way(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut gate: watch::Receiver<bool>,
    decide: impl Fn(&[u8]) -> Pass,
) -> Option<(OwnedReadHalf, OwnedWriteHalf, Break)> {
    let mut bytes = vec![0; 4096];
    while let Ok(length) = from.read(&mut bytes).await {
        // The end of one side is not told to the other either.
        if gate.wait_for(|is_open| *is_open).await.is_err() || length == 0 {
            return None;
        }
        let pass = decide(&bytes[..length]);
        if matches!(pass, Pass::Unheard) {
            continue;
        }
        if matches!(pass, Pass::Nothing) || to.write_all(&bytes[..length]).await.is_err() {
            return None;
        }
        if let Pass::Last(at) = pass {
            return Some((from, to, at));
        }
    }
    None
}
