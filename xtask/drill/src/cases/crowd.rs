//! Too many, too slow: clients that occupy nginx' connections without asking for anything.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::{Running, Scene};

/// A quarter of nginx' connections.
const SLOW: usize = 600;
/// nginx grants ten seconds for the head of a request (`client_header_timeout`).
const PATIENCE: Duration = Duration::from_secs(14);
/// More than nginx has: twice `worker_connections` for each of its two workers.
const FLOOD: usize = 4096;
const HOLD: Duration = Duration::from_secs(6);

/// Where nginx takes plain HTTP, in production too. Not by the port on this machine: a program of the
/// engine's carries what comes there, with six descriptors for each connection, and ends when it has none
/// left. In production whoever comes from outside does not pass it either.
async fn door(scene: &Scene) -> Result<SocketAddr> {
    Ok(SocketAddr::new(scene.stack.address_of("nginx").await?, 80))
}

/// Sends the head of a request drop by drop; true if the server ended it, none if it was not let in.
async fn drip(address: SocketAddr) -> Option<bool> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let deadline = Instant::now() + PATIENCE;
    let mut drops = b"GET / HTTP/1.1\r\nHost: drill\r\nX-Slow: ".iter().chain([b'a'; 99].iter());
    let mut answer = [0; 64];
    while Instant::now() < deadline {
        let drop = [*drops.next().unwrap_or(&b'a')];
        if stream.write_all(&drop).await.is_err() {
            return Some(true);
        }
        if let Ok(Ok(0) | Err(_)) = timeout(Duration::from_secs(1), stream.read(&mut answer)).await
        {
            return Some(true);
        }
    }
    Some(false)
}

pub(super) fn slow_loris(scene: &Scene) -> Running<'_> {
    Box::pin(async move {
        let address = door(scene).await?;
        let mut clients = JoinSet::new();
        for _ in 0..SLOW {
            clients.spawn(drip(address));
        }
        let came: Vec<bool> = clients.join_all().await.into_iter().flatten().collect();
        scene.healed();
        ensure!(came.len() == SLOW, "only {} of {SLOW} slow clients were let in", came.len());
        let left = came.iter().filter(|ended| !**ended).count();
        if left > 0 {
            scene.violation(format!("nginx let {left} of {SLOW} slow clients keep their place"));
        }
        Ok(())
    })
}

pub(super) fn flood(scene: &Scene) -> Running<'_> {
    Box::pin(async move {
        let address = door(scene).await?;
        let mut clients = JoinSet::new();
        for _ in 0..FLOOD {
            clients.spawn(async move {
                let stream = timeout(HOLD, TcpStream::connect(address)).await;
                sleep(HOLD).await;
                matches!(stream, Ok(Ok(_)))
            });
        }
        let open = clients.join_all().await.into_iter().filter(|open| *open).count();
        scene.healed();
        ensure!(open > FLOOD / 2, "only {open} connections could be opened; see `ulimit -n`");
        Ok(())
    })
}
