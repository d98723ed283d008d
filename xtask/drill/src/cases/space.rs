//! No room: a volume without a free byte, and a Redis at its ceiling. The volumes are small file
//! systems of their own; see `arena`.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::{Running, Scene};
use crate::arena::Arena;

/// Long enough for PostgreSQL to need a new page, and for Redis to write its log.
const HOLD: Duration = Duration::from_secs(12);

/// Fills a volume to its last byte, and makes room again.
async fn fill(scene: &Scene, folder: &str) -> Result<()> {
    // dd's own end is the error that is wanted. Whatever is freed meanwhile is taken too.
    let fill = format!(
        "while [ -e /tmp/fill ]; do cat /dev/zero >>{folder}/filler 2>/dev/null || sleep 0.1; done"
    );
    let start = format!("touch /tmp/fill; ({fill}) >/dev/null 2>&1 &");
    Arena::on_volumes(&scene.stack, &start).await?;
    scene.hold(HOLD).await;
    let free = Arena::on_volumes(&scene.stack, &format!("df -P {folder} | tail -n 1")).await;
    Arena::on_volumes(&scene.stack, &format!("rm -f /tmp/fill; sleep 0.3; rm {folder}/filler"))
        .await?;
    scene.healed();
    let free = free?;
    ensure!(free.split_whitespace().nth(3) == Some("0"), "the volume was not full: {free}");
    Ok(())
}

pub(super) fn postgres(scene: &Scene) -> Running<'_> {
    Box::pin(fill(scene, "/pg"))
}

pub(super) fn redis(scene: &Scene) -> Running<'_> {
    Box::pin(fill(scene, "/redis"))
}

/// The ceiling comes down to what is held: Redis refuses what it refuses when it has grown to it.
pub(super) fn redis_memory(scene: &Scene) -> Running<'_> {
    Box::pin(async move {
        let set = async |limit: &str| {
            scene.stack.redis(&["config", "set", "maxmemory", limit]).await.map(|_| ())
        };
        let before = scene.stack.redis(&["config", "get", "maxmemory"]).await?;
        let before = before.lines().last().unwrap_or_default().to_owned();
        set("1mb").await?;
        scene.hold(Duration::from_secs(8)).await;
        let refused = scene.stack.redis(&["set", "drill:ceiling", "x"]).await;
        set(&before).await?;
        scene.healed();
        let refused = refused.err().map(|error| error.to_string()).unwrap_or_default();
        ensure!(refused.contains("OOM"), "Redis took a write at its ceiling ({refused:?})");
        Ok(())
    })
}
