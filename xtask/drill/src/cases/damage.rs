//! Damage to Redis' log, as a power failure or a bad disk leaves it. It is made while Redis is down,
//! from this machine, where the volume lies.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Running, Scene};
use crate::docker::docker;

/// A command whose end never got to the disk.
const TORN: &[u8] = b"*3\r\n$3\r\nSET\r\n$10\r\ndrill:torn\r\n$12\r\nhalf of ";
/// How long Redis may take to load its log and to be asked by the engine.
const BACK: Duration = Duration::from_secs(20);

/// The newest part of the log.
async fn log(scene: &Scene) -> Result<String> {
    let volume = format!("{}_redis_data", scene.stack.project);
    let folder = docker(&["volume", "inspect", "--format", "{{.Mountpoint}}", &volume]).await?;
    let folder = format!("{}/appendonlydir", folder.trim());
    let newest = format!("ls -t {folder}/*.incr.aof | head -n 1");
    let path = scene.root.run(&newest).await.with_context(|| format!("list {folder}"))?;
    ensure!(!path.trim().is_empty(), "{folder} holds no log of Redis");
    Ok(path.trim().to_owned())
}

/// What a file of root's holds.
async fn read(scene: &Scene, path: &str) -> Result<Vec<u8>> {
    let text = scene.root.run(&format!("od -An -v -tx1 {path}")).await?;
    let byte = |hex| u8::from_str_radix(hex, 16).with_context(|| format!("read {path}"));
    text.split_whitespace().map(byte).collect()
}

/// Writes one byte in place: it is Redis' file, with its owner and mode.
async fn write(scene: &Scene, path: &str, offset: usize, byte: u8) -> Result<()> {
    let script =
        format!("printf '\\{byte:03o}' | dd of={path} bs=1 seek={offset} conv=notrunc status=none");
    scene.root.run(&script).await.with_context(|| format!("write to {path}")).map(drop)
}

/// Stops Redis and says where its log lies, which is still now.
async fn stop(scene: &Scene) -> Result<String> {
    docker(&["stop", &scene.stack.container("redis")]).await?;
    let path = log(scene).await;
    if path.is_err() {
        start(scene).await?;
    }
    path
}

async fn start(scene: &Scene) -> Result<()> {
    docker(&["start", &scene.stack.container("redis")]).await.map(|_| ())
}

async fn is_up(scene: &Scene) -> Result<bool> {
    Ok(scene.stack.inspect("redis", "{{.State.Health.Status}}").await? == "healthy")
}

/// The last command is half on the disk: Redis must leave it out, and keep every one before it.
pub(super) fn tail_cut(scene: &Scene) -> Running<'_> {
    Box::pin(async move {
        let path = stop(scene).await?;
        let half = String::from_utf8_lossy(TORN).replace('\r', "\\r").replace('\n', "\\n");
        let torn = match scene.root.run(&format!("printf '{half}' >>{path}")).await {
            Ok(_) => read(scene, &path).await,
            Err(error) => Err(error),
        };
        start(scene).await?;
        let torn = torn.with_context(|| format!("cut {path}"))?;
        ensure!(torn.ends_with(TORN), "the log does not end in half a command");
        scene.healed();
        scene.expect("Redis is back with a cut log", BACK, || is_up(scene)).await;
        let torn = scene.stack.redis(&["exists", "drill:torn"]).await?;
        if torn != "0" {
            scene.violation("Redis carried out a command that was half written");
        }
        Ok(())
    })
}

/// A byte in the middle is another: Redis must refuse to start on it, rather than serve what is left.
/// When the byte is what it was, as after a restore, everything must be there again.
pub(super) fn middle_flipped(scene: &Scene) -> Running<'_> {
    Box::pin(async move {
        let path = stop(scene).await?;
        let whole = match read(scene, &path).await {
            Ok(whole) => whole,
            Err(error) => return start(scene).await.and(Err(error)),
        };
        let middle = whole.len() / 2;
        let command = whole[middle..].windows(3).position(|bytes| bytes == b"\r\n*");
        let offset = command.map(|offset| middle + offset + 2);
        let flipped = match offset {
            Some(offset) => write(scene, &path, offset, whole[offset] ^ 1).await,
            None => Err(anyhow::anyhow!("the log of Redis is too short to be damaged")),
        };
        start(scene).await?;
        scene.hold(Duration::from_secs(5)).await;
        if is_up(scene).await.unwrap_or(false) {
            scene.violation("Redis serves what it read from a damaged log");
        }
        if let Some(offset) = offset {
            write(scene, &path, offset, whole[offset]).await?;
        }
        scene.healed();
        flipped?;
        scene.expect("Redis is back with its log mended", BACK, || is_up(scene)).await;
        Ok(())
    })
}
