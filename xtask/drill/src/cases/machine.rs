//! The whole machine: its engine, its clock. Every container on it is hit, so that these cases run
//! only when they are named.

use std::time::Duration;

use anyhow::{Context, Result};
use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

use super::{Running, Scene};
use crate::docker::{docker, run};

/// A restart ends every container gracefully, and PostgreSQL may take its time.
const RESTART: Duration = Duration::from_secs(120);
const HOUR: i64 = 3600;

/// The engine ends and comes back, and every container with it.
pub(super) fn engine(scene: &Scene) -> Running<'_> {
    Box::pin(async move {
        let restart = "if command -v systemctl >/dev/null && systemctl is-system-running >/dev/null; \
                       then systemctl restart docker; else service docker restart; fi";
        run("sh", &["-c", restart], RESTART).await.context("restart the engine")?;
        let answers = async || Ok(docker(&["version"]).await.is_ok());
        scene.expect("the engine answers again", RESTART, answers).await;
        scene.healed();
        Ok(())
    })
}

/// Puts the clock back when dropped, by as much as it was moved.
struct Moved(i64);

impl Moved {
    fn by(seconds: i64) -> Result<Moved> {
        shift(seconds)?;
        Ok(Moved(seconds))
    }
}

impl Drop for Moved {
    fn drop(&mut self) {
        if let Err(error) = shift(-self.0) {
            eprintln!("the clock is still {} s off: {error:#}", self.0);
        }
    }
}

fn shift(seconds: i64) -> Result<()> {
    let now = clock_gettime(ClockId::Realtime);
    let then = Timespec { tv_sec: now.tv_sec + seconds, ..now };
    clock_settime(ClockId::Realtime, then).context("set the clock; this needs a machine of its own")
}

async fn off(scene: &Scene, seconds: i64) -> Result<()> {
    let moved = Moved::by(seconds)?;
    scene.hold(Duration::from_secs(8)).await;
    drop(moved);
    scene.healed();
    Ok(())
}

pub(super) fn clock_ahead(scene: &Scene) -> Running<'_> {
    Box::pin(off(scene, HOUR))
}

pub(super) fn clock_behind(scene: &Scene) -> Running<'_> {
    Box::pin(off(scene, -HOUR))
}
