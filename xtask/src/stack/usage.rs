//! What the stack uses: processor and memory of each container, bytes in each volume.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::ctx::{Ctx, Invocation};
use crate::stack::running::Container;

/// The time between the two readings from which the processor's share is told. `docker stats`
/// takes two seconds for the same.
const INTERVAL: Duration = Duration::from_millis(250);

/// What one container uses.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Usage {
    /// Percent of one core, so that two busy cores are 200.
    pub(crate) cpu_percent: f64,
    /// Bytes, without what the kernel would give back for the asking (the page cache).
    pub(crate) memory_bytes: u64,
}

/// The usage of each container, in their order; none where the engine cannot be asked that way.
pub(crate) fn usage(ctx: &Ctx, containers: &[Container]) -> Vec<Option<Usage>> {
    let before: Vec<Option<Value>> = containers.iter().map(|c| read(ctx, c)).collect();
    if before.iter().all(Option::is_none) {
        return vec![None; containers.len()];
    }
    thread::sleep(INTERVAL);
    let pairs = before.into_iter().zip(containers);
    pairs.map(|(before, container)| between(&before?, &read(ctx, container)?)).collect()
}

fn read(ctx: &Ctx, container: &Container) -> Option<Value> {
    if !container.is_running() {
        return None;
    }
    ctx.engine_get(&path(&container.id)).ok()
}

fn path(container: &str) -> String {
    format!("/containers/{container}/stats?stream=false&one-shot=true")
}

/// The processor time that a running container has used so far, by processes that have ended, too.
///
/// # Errors
/// The engine cannot be asked, or does not know.
pub(crate) fn processor(ctx: &Ctx, container: &str) -> Result<Duration> {
    let stats = ctx.engine_get(&path(container))?;
    let nanos = stats["cpu_stats"]["cpu_usage"]["total_usage"].as_u64();
    nanos
        .map(Duration::from_nanos)
        .with_context(|| format!("read the processor time of {container}"))
}

/// The usage between two readings, as `docker stats` computes it.
fn between(before: &Value, after: &Value) -> Option<Usage> {
    let cpu = |reading: &Value| {
        let stats = &reading["cpu_stats"];
        Some((stats["cpu_usage"]["total_usage"].as_f64()?, stats["system_cpu_usage"].as_f64()?))
    };
    let ((used, total), (used_after, total_after)) = (cpu(before)?, cpu(after)?);
    let cores = after["cpu_stats"]["online_cpus"].as_f64().unwrap_or(1.0);
    let share = if total_after > total { (used_after - used) / (total_after - total) } else { 0.0 };
    let memory = &after["memory_stats"];
    // cgroup v2 has the first name, v1 the second.
    let cache = ["inactive_file", "total_inactive_file"]
        .into_iter()
        .find_map(|name| memory["stats"][name].as_u64())
        .unwrap_or(0);
    Some(Usage {
        cpu_percent: (share * cores * 1000.0).round() / 10.0,
        memory_bytes: memory["usage"].as_u64()?.saturating_sub(cache),
    })
}

/// Bytes in the volumes of running containers, by the volume's name.
pub(crate) fn volume_sizes(ctx: &Ctx, containers: &[Container]) -> Vec<(String, u64)> {
    let measure = |container: &Container, volume: &(String, String)| {
        let words = ["exec", &container.id, "du", "-sk", &volume.1];
        // du fails where a file goes away while it counts, as a busy database's do, and has its sum all the same.
        let text = ctx.try_read(Invocation::new("docker").args(words)).ok()?.stdout;
        let kib: u64 = text.split_whitespace().next()?.parse().ok()?;
        Some((volume.0.clone(), kib << 10))
    };
    thread::scope(|scope| {
        let running = containers.iter().filter(|container| container.is_running());
        let volumes = running.flat_map(|c| c.volumes.iter().map(move |volume| (c, volume)));
        let threads: Vec<_> = volumes.map(|(c, v)| scope.spawn(move || measure(c, v))).collect();
        threads.into_iter().filter_map(|thread| thread.join().ok().flatten()).collect()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn reading(used: u64, total: u64) -> Value {
        json!({
            "cpu_stats": {
                "cpu_usage": {"total_usage": used},
                "system_cpu_usage": total,
                "online_cpus": 2
            },
            "memory_stats": {"usage": 5000, "stats": {"inactive_file": 1000}}
        })
    }

    #[test]
    fn usage_is_told_from_two_readings() {
        let usage = between(&reading(100, 1000), &reading(200, 2000));
        assert_eq!(usage, Some(Usage { cpu_percent: 20.0, memory_bytes: 4000 }));
        assert_eq!(between(&json!({}), &reading(1, 1)), None);
    }
}
