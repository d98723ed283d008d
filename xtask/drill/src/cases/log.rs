//! An engine that does not take the log: what the backend keeps for later overflows.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::{Running, Scene};
use crate::load::{Client, Pace, Request, run_open_loop};
use crate::root::Stopped;

/// How long nobody takes the log, at least.
const BLOCKED: Duration = Duration::from_secs(20);
/// Half as many again as the backend keeps (4096, in backend/src/telemetry.rs) and a pipe of 64 kB holds.
const LINES: u64 = 7000;
/// Slow enough to leave the machine to the others.
const PACE: Pace = Pace { rate: 500 };
/// Above the backend's own deadline.
const CLIENT_LIMIT: Duration = Duration::from_secs(12);
/// How long the last of them may take, and what was kept may take to reach the engine.
const PATIENCE: Duration = Duration::from_secs(30);
/// What each of them asks for: nothing there is, which costs the backend least and one line all the same.
const PATH: &str = "/drill-burst-";
/// What is asked for afterwards, until it is in the log: the last line that was kept is there before it.
const AFTER: &str = "/drill-after-";

/// The process that carries the backend's log to the engine stands still, and more lines come than are
/// kept. Lines are lost then, and no request.
pub(super) fn pipe(scene: &Scene) -> Running<'_> {
    Box::pin(async move {
        let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let backend = format!("http://{}:3000", scene.stack.address_of("backend").await?);
        let client = Client::new(&backend, None, CLIENT_LIMIT)?;
        let carrier = parent(scene.stack.pid("backend").await?)?;
        let name = fs::read_to_string(format!("/proc/{carrier}/comm")).unwrap_or_default();
        ensure!(
            name.starts_with("containerd-shim"),
            "{carrier} is {name:?}, not what was expected"
        );
        let stopped = Stopped::new(&scene.root, vec![carrier]).await?;
        let (answered, ()) = tokio::join!(burst(&client), scene.hold(BLOCKED));
        let was_still = stopped.ensure_still();
        drop(stopped);
        scene.healed();
        was_still?;
        if answered < LINES {
            let lost = LINES - answered;
            scene.violation(format!("{lost} of {LINES} requests got no answer, or a wrong one"));
        }
        let log = log_that_goes_on(scene, &client, began).await?;
        let kept = log.matches(PATH).count() as u64;
        ensure!(kept < LINES, "no line was dropped: all of {LINES} are in the backend's log");
        ensure!(kept > 0, "none of {LINES} lines is in the backend's log: look at their form");
        Ok(())
    })
}

/// Asks [`LINES`] times, straight to the backend; how many were answered as they should.
async fn burst(client: &Client) -> u64 {
    let answered = Arc::new(AtomicU64::new(0));
    // Kept until the end: without a sender the loop takes itself for stopped.
    let (_stop, stopped) = watch::channel(false);
    let jobs = (0..LINES).map(|number| (number, number));
    run_open_loop(PACE, jobs, stopped, PATIENCE, |number, _| {
        let (client, answered) = (client.clone(), answered.clone());
        async move {
            if asks_for_nothing(&client, &format!("{PATH}{number}")).await {
                answered.fetch_add(1, Ordering::Relaxed);
            }
        }
    })
    .await;
    answered.load(Ordering::Relaxed)
}

async fn asks_for_nothing(client: &Client, path: &str) -> bool {
    matches!(client.send(Request::get(path)).await, Ok(answer) if answer.status == 404)
}

/// The backend's log since a moment, once it has a line of now: all that was kept is in it then.
async fn log_that_goes_on(scene: &Scene, client: &Client, since: Duration) -> Result<String> {
    let deadline = Instant::now() + PATIENCE;
    let mut number = 0;
    loop {
        // Another one each time: the first may be dropped like those before it.
        asks_for_nothing(client, &format!("{AFTER}{number}")).await;
        sleep(Duration::from_millis(500)).await;
        let log = scene.stack.log("backend", since).await?;
        if log.contains(AFTER) {
            return Ok(log);
        }
        number += 1;
        ensure!(
            Instant::now() < deadline,
            "the backend's log does not go on within {} s after it is taken again",
            PATIENCE.as_secs()
        );
    }
}

fn parent(pid: i32) -> Result<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    Ok(line.context("find the parent of the backend")?.trim().parse()?)
}
