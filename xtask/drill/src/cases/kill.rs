//! SIGKILL, from the host: the engine has not been asked, so the restart policy is what heals.

use std::time::Duration;

use anyhow::{Context, Result};

use super::{Running, Scene};

/// How long the engine may take to start a container again.
const RESTART: Duration = Duration::from_secs(15);

/// Kills the first process of a service, and expects the engine to start the container again.
async fn kill_first(scene: &Scene, service: &str) -> Result<()> {
    let before = restarts(scene, service).await?;
    scene.root.kill(scene.stack.pid(service).await?).await?;
    scene.healed();
    let what = format!("the engine starts {service} again by itself");
    scene.expect(&what, RESTART, || async { Ok(restarts(scene, service).await? > before) }).await;
    Ok(())
}

async fn restarts(scene: &Scene, service: &str) -> Result<u32> {
    Ok(scene.stack.inspect(service, "{{.RestartCount}}").await?.parse()?)
}

/// Kills one process of a service whose command line holds a text.
async fn kill_one(scene: &Scene, service: &str, wanted: &str) -> Result<()> {
    let processes = scene.stack.processes(service).await?;
    let found = processes.iter().find(|(_, args)| args.contains(wanted));
    let (pid, _) = found.with_context(|| format!("find a process `{wanted}` of {service}"))?;
    scene.root.kill(*pid).await?;
    scene.healed();
    Ok(())
}

pub(super) fn backend(scene: &Scene) -> Running<'_> {
    Box::pin(kill_first(scene, "backend"))
}

pub(super) fn nginx(scene: &Scene) -> Running<'_> {
    Box::pin(kill_first(scene, "nginx"))
}

pub(super) fn nginx_worker(scene: &Scene) -> Running<'_> {
    Box::pin(kill_one(scene, "nginx", "worker process"))
}

pub(super) fn postmaster(scene: &Scene) -> Running<'_> {
    Box::pin(kill_first(scene, "postgres"))
}

pub(super) fn postgres_backend(scene: &Scene) -> Running<'_> {
    let user = scene.stack.value("PG_USER");
    let wanted = format!("postgres: {user} {} ", scene.stack.value("PG_DBNAME"));
    Box::pin(async move { kill_one(scene, "postgres", &wanted).await })
}

pub(super) fn redis(scene: &Scene) -> Running<'_> {
    Box::pin(kill_first(scene, "redis"))
}
