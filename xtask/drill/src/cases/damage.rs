//! Damage to Redis' log, as a power failure or a bad disk leaves it. It is made while Redis is down,
//! from this machine, where the volume lies.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Running, Scene};
use crate::docker::docker;

/// A command whose end never got to the disk.
const TORN: &[u8] = b"*3\r\n$3\r\nSET\r\n$10\r\ndrill:torn\r\n$12\r\nhalf of ";
/// How long Redis may take to load its log and to be asked by the engine.
const BACK: Duration = Duration::from_secs(20);

/// The newest part of the log.
async fn log(scene: &Scene) -> Result<PathBuf> {
    let volume = format!("{}_redis_data", scene.stack.project);
    let folder = docker(&["volume", "inspect", "--format", "{{.Mountpoint}}", &volume]).await?;
    let folder = PathBuf::from(folder.trim()).join("appendonlydir");
    let listing = fs::read_dir(&folder).with_context(|| {
        format!("list {}; the drill must run as root on the engine's host", folder.display())
    })?;
    let paths = listing.filter_map(|entry| Some(entry.ok()?.path()));
    let parts = paths.filter(|path| path.to_string_lossy().ends_with(".incr.aof"));
    let newest = parts.max_by_key(|path| fs::metadata(path).and_then(|data| data.modified()).ok());
    newest.with_context(|| format!("find the log of Redis in {}", folder.display()))
}

async fn stop(scene: &Scene) -> Result<()> {
    docker(&["stop", &scene.stack.container("redis")]).await.map(|_| ())
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
        stop(scene).await?;
        let path = log(scene).await?;
        let torn = OpenOptions::new().append(true).open(&path);
        let torn = torn.and_then(|mut file| file.write_all(TORN)).and_then(|()| fs::read(&path));
        start(scene).await?;
        let torn = torn.with_context(|| format!("cut {}", path.display()))?;
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
        stop(scene).await?;
        let path = log(scene).await?;
        let whole = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let middle = whole.len() / 2;
        let command = whole[middle..].windows(3).position(|bytes| bytes == b"\r\n*");
        let flipped = match command {
            Some(offset) => {
                let mut damaged = whole.clone();
                damaged[middle + offset + 2] ^= 1;
                fs::write(&path, damaged).with_context(|| format!("damage {}", path.display()))
            }
            None => Err(anyhow::anyhow!("the log of Redis is too short to be damaged")),
        };
        start(scene).await?;
        scene.hold(Duration::from_secs(5)).await;
        if is_up(scene).await.unwrap_or(false) {
            scene.violation("Redis serves what it read from a damaged log");
        }
        // Written in place: it is Redis' file, with its owner and mode.
        fs::write(&path, whole).with_context(|| format!("mend {}", path.display()))?;
        scene.healed();
        flipped?;
        scene.expect("Redis is back with its log mended", BACK, || is_up(scene)).await;
        Ok(())
    })
}
