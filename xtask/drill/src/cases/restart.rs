//! The graceful end: what an operator does, and what must cost as little as possible.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tokio::time::Instant;

use super::{Running, Scene};
use crate::docker::docker;

/// How long a restart may take while nothing holds it up. Docker's own patience is ten seconds, and
/// whoever uses it up was killed.
const LIMIT: Duration = Duration::from_secs(8);
/// How long somebody's account is locked at most, should nobody end it.
const LOCKED: Duration = Duration::from_secs(60);
/// How long one part of this waits for the other; the application waits for a lock for 3 s.
const READY: Duration = Duration::from_secs(20);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// How long the engine may take to start a service again that has ended.
const BACK: Duration = Duration::from_secs(20);

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
        let before = scene.stack.pid("backend").await?;
        let statement = format!(
            "SELECT FROM accounts WHERE email = '{}' FOR UPDATE; SELECT pg_sleep({})",
            scene.workload.email_of(0),
            LOCKED.as_secs()
        );
        // Ended by us, so that it fails is no failure.
        let lock = scene.stack.sql(&statement);
        let is_answered = AtomicBool::new(false);
        let write = async {
            until(scene, "somebody's account is locked", LOCKER, 1).await?;
            let written = scene.workload.write_once(0, "slow").await;
            is_answered.store(true, Ordering::Relaxed);
            anyhow::Ok(written)
        };
        let end = async {
            until(scene, "a write waits for the lock", &waiting(scene), 1).await?;
            scene.root.signal(&[before], Signal::TERM).await?;
            let is_answered = is_answered.load(Ordering::Relaxed);
            scene.stack.sql(UNLOCK).await?;
            ensure!(!is_answered, "no write was waiting when the backend had to end");
            Ok(())
        };
        let (_, written, ended) = tokio::join!(lock, write, end);
        scene.healed();
        ended?;
        if !written? {
            scene.violation("a request in flight was cut off by a graceful end");
        }
        let is_another = || async { Ok(scene.stack.pid("backend").await? != before) };
        scene.expect("the backend ends, and the engine starts another", BACK, is_another).await;
        Ok(())
    })
}

/// Who holds the lock, and the end of him.
const LOCKER: &str = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
const UNLOCK: &str =
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";

/// Which of the application's statements wait for a lock.
fn waiting(scene: &Scene) -> String {
    format!(
        "SELECT count(*) FROM pg_stat_activity WHERE usename = '{}' AND wait_event_type = 'Lock'",
        scene.stack.value("PG_USER")
    )
}

/// Asks until the count is there.
async fn until(scene: &Scene, what: &str, count: &str, at_least: u32) -> Result<()> {
    let deadline = Instant::now() + READY;
    while scene.stack.sql(count).await?.parse::<u32>().context("count who waits")? < at_least {
        ensure!(Instant::now() < deadline, "not within {} s: {what}", READY.as_secs());
        scene.hold(LOOK).await;
    }
    Ok(())
}
