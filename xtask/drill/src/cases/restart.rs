//! The graceful end: what an operator does, and what must cost as little as possible.

use std::time::Duration;

use anyhow::{Result, ensure};
use rustix::process::Signal;
use tokio::time::Instant;

use super::{Running, Scene};
use crate::docker::docker;
use crate::stack::signal;

/// How long a restart may take while nothing holds it up. Docker's own patience is ten seconds, and
/// whoever uses it up was killed.
const LIMIT: Duration = Duration::from_secs(8);
/// How long somebody's account is locked: shorter than the application waits for a lock (3 s).
const SLOW: Duration = Duration::from_millis(2200);

async fn restart(scene: &Scene, service: &str) -> Result<()> {
    let (begun, before) = (Instant::now(), scene.stack.pid(service).await?);
    docker(&["restart", &scene.stack.container(service)]).await?;
    scene.healed();
    let took = begun.elapsed();
    if took > LIMIT {
        scene.violation(format!("{service} took {:.1} s to restart", took.as_secs_f64()));
    }
    ensure!(scene.stack.pid(service).await? != before, "{service} is the process that it was");
    Ok(())
}

pub(super) fn nginx(scene: &Scene) -> Running<'_> {
    Box::pin(restart(scene, "nginx"))
}

pub(super) fn backend(scene: &Scene) -> Running<'_> {
    Box::pin(restart(scene, "backend"))
}

pub(super) fn postgres(scene: &Scene) -> Running<'_> {
    Box::pin(restart(scene, "postgres"))
}

pub(super) fn redis(scene: &Scene) -> Running<'_> {
    Box::pin(restart(scene, "redis"))
}

/// A write waits for a lock when the backend is told to end: it must be answered all the same.
pub(super) fn with_a_slow_request(scene: &Scene) -> Running<'_> {
    Box::pin(async move {
        let statement = format!(
            "SELECT FROM accounts WHERE email = '{}' FOR UPDATE; SELECT pg_sleep({})",
            scene.workload.email_of(0),
            SLOW.as_secs_f64()
        );
        let lock = scene.stack.sql(&statement);
        let write = async {
            scene.hold(Duration::from_millis(500)).await;
            let write = scene.workload.write_once(0, "slow");
            let end = async {
                scene.hold(Duration::from_millis(300)).await;
                signal(scene.stack.pid("backend").await?, Signal::TERM)
            };
            let (written, ended) = tokio::join!(write, end);
            scene.healed();
            ended.map(|()| written)
        };
        let (locked, written) = tokio::join!(lock, write);
        locked?;
        if !written? {
            scene.violation("a request in flight was cut off by a graceful end");
        }
        Ok(())
    })
}
