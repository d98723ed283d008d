//! SIGSTOP: the processes are there, their ports are open, and nobody answers. Harder than a crash,
//! because nothing tells whoever waits that waiting is useless.

use std::time::Duration;

use anyhow::Result;

use super::{Running, Scene};
use crate::root::Stopped;

/// Longer than every patience on the way, so that each is seen to end.
const HOLD: Duration = Duration::from_secs(30);

async fn pause(scene: &Scene, service: &str) -> Result<()> {
    let stopped = Stopped::all_of(&scene.root, &scene.stack, service).await?;
    scene.hold(HOLD).await;
    let was_still = stopped.ensure_still();
    drop(stopped);
    scene.healed();
    was_still
}

pub(super) fn nginx(scene: &Scene) -> Running<'_> {
    Box::pin(pause(scene, "nginx"))
}

pub(super) fn backend(scene: &Scene) -> Running<'_> {
    Box::pin(pause(scene, "backend"))
}

pub(super) fn postgres(scene: &Scene) -> Running<'_> {
    Box::pin(pause(scene, "postgres"))
}

pub(super) fn redis(scene: &Scene) -> Running<'_> {
    Box::pin(pause(scene, "redis"))
}
