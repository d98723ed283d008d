//! The network: cut, half-open, late, narrow, and torn. A cut is Docker's own; the rest is made by the
//! drill's proxies, because kernels without netem can do none of it.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{Running, Scene};
use crate::docker::docker;
use crate::proxy::{Mode, Proxy};
use crate::undo::Undo;

/// Longer than a request is waited for by the backend (10 s), so that those in flight end meanwhile.
const CUT: Duration = Duration::from_secs(12);
const SILENCE: Duration = Duration::from_secs(12);
const HOLD: Duration = Duration::from_secs(8);
/// A data centre away. A request asks PostgreSQL twice and Redis twice.
const FAR: Duration = Duration::from_millis(40);
/// Bytes a second on one connection: a tenth of what the slowest Ethernet does.
const NARROW: u32 = 128 * 1024;
/// One answer in so many is lost with its connection.
const LOST: u64 = 25;

/// Takes a service out of the network, and puts it back whatever happens.
async fn cut(scene: &Scene, service: &str) -> Result<()> {
    let (network, container) = (scene.stack.network(), scene.stack.container(service));
    let connect = ["network", "connect", "--alias", service, &network, &container];
    let mut undo = Undo::new()?;
    undo.promise(&format!("docker {} 2>/dev/null", connect.join(" ")))?;
    docker(&["network", "disconnect", &network, &container]).await?;
    scene.hold(CUT).await;
    let address = scene.stack.address_of(service).await;
    docker(&connect).await?;
    undo.forget();
    scene.healed();
    ensure!(address.is_err(), "{service} was in a network all the same");
    Ok(())
}

pub(super) fn cut_backend(scene: &Scene) -> Running<'_> {
    Box::pin(cut(scene, "backend"))
}

pub(super) fn cut_postgres(scene: &Scene) -> Running<'_> {
    Box::pin(cut(scene, "postgres"))
}

pub(super) fn cut_redis(scene: &Scene) -> Running<'_> {
    Box::pin(cut(scene, "redis"))
}

async fn disturb(scene: &Scene, proxy: &Proxy, mode: Mode, hold: Duration) -> Result<()> {
    let before = proxy.disturbed();
    let fault = proxy.fault(mode);
    scene.hold(hold).await;
    drop(fault);
    scene.healed();
    ensure!(proxy.disturbed() > before, "no byte passed that could be disturbed ({mode:?})");
    Ok(())
}

pub(super) fn half_open_postgres(scene: &Scene) -> Running<'_> {
    Box::pin(disturb(scene, &scene.postgres, Mode::Silent, SILENCE))
}

pub(super) fn half_open_redis(scene: &Scene) -> Running<'_> {
    Box::pin(disturb(scene, &scene.redis, Mode::Silent, SILENCE))
}

pub(super) fn late_postgres(scene: &Scene) -> Running<'_> {
    Box::pin(disturb(scene, &scene.postgres, Mode::Latency(FAR), HOLD))
}

pub(super) fn late_redis(scene: &Scene) -> Running<'_> {
    Box::pin(disturb(scene, &scene.redis, Mode::Latency(FAR), HOLD))
}

pub(super) fn slow_postgres(scene: &Scene) -> Running<'_> {
    Box::pin(disturb(scene, &scene.postgres, Mode::Slow(NARROW), HOLD))
}

pub(super) fn slow_redis(scene: &Scene) -> Running<'_> {
    Box::pin(disturb(scene, &scene.redis, Mode::Slow(NARROW), HOLD))
}

pub(super) fn reset_postgres(scene: &Scene) -> Running<'_> {
    Box::pin(disturb(scene, &scene.postgres, Mode::ResetAnswer(LOST), HOLD))
}

pub(super) fn reset_redis(scene: &Scene) -> Running<'_> {
    Box::pin(disturb(scene, &scene.redis, Mode::ResetAnswer(LOST), HOLD))
}
