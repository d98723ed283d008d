//! Somebody takes it all: the connections of PostgreSQL, the memory of a container.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Running, Scene};
use crate::docker::{docker, run};

/// More than `max_connections` in deploy/postgres/postgresql.conf.
const ROGUES: u32 = 70;
/// What production grants, for a stack that runs without limits.
const LIMITS: [(&str, &str); 4] =
    [("nginx", "256m"), ("backend", "256m"), ("postgres", "1g"), ("redis", "512m")];
/// How long the kernel may take to find the container full.
const KILL: Duration = Duration::from_secs(20);

/// A client that opens every connection that there is and sleeps on them.
pub(super) fn connections(scene: &Scene) -> Running<'_> {
    Box::pin(async move {
        let database = scene.stack.value("PG_DBNAME");
        let rogue = format!(
            "for i in $(seq {ROGUES}); do psql -XAtq -U backup -d {database} \
             -c 'SELECT pg_sleep(8)' >/dev/null 2>&1 & done; wait"
        );
        let rogue = ["sh", "-c", &rogue];
        let rogues = scene.stack.exec("postgres", &rogue);
        let operator = async {
            scene.hold(Duration::from_secs(3)).await;
            let count = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'backup'";
            scene.stack.sql(count).await
        };
        let (rogues, operator) = tokio::join!(rogues, operator);
        scene.healed();
        rogues?;
        match operator.map(|count| count.parse::<u32>()) {
            Ok(Ok(count)) => ensure!(count > 30, "there were only {count} rogue connections"),
            _ => scene.violation("the operator did not get in while the connections were used up"),
        }
        Ok(())
    })
}

/// Something in the container takes memory until the kernel has to kill, and the kernel chooses the
/// service itself: the worst choice, which it makes when the service is what has grown.
async fn memory(scene: &Scene, service: &str) -> Result<()> {
    let container = scene.stack.container(service);
    if scene.stack.inspect(service, "{{.HostConfig.Memory}}").await? == "0" {
        let limit = LIMITS.iter().find(|(name, _)| *name == service).map_or("1g", |(_, mb)| mb);
        docker(&["update", "--memory", limit, "--memory-swap", limit, &container]).await?;
    }
    let processes: Vec<i32> =
        scene.stack.processes(service).await?.into_iter().map(|(pid, _)| pid).collect();
    let group = memory_group(*processes.first().context("find the service's processes")?)?;
    for pid in &processes {
        prefer(*pid, 1000);
    }
    // From this machine's side: not every image has a program to be misused. When everything else
    // in the group is gone, it is this one's turn.
    let hog = format!("echo $$ >{}/cgroup.procs && exec tail /dev/zero", group.display());
    let hog = run("sh", &["-c", &hog], KILL).await;
    scene.healed();
    let survivors: Vec<i32> = processes
        .iter()
        .copied()
        .filter(|pid| fs::metadata(format!("/proc/{pid}")).is_ok())
        .collect();
    for (pid, _) in scene.stack.processes(service).await.unwrap_or_default() {
        prefer(pid, 0);
    }
    ensure!(hog.is_err(), "the hog was not killed");
    ensure!(survivors.len() < processes.len(), "the kernel killed no process of {service}");
    Ok(())
}

/// How much the kernel likes to kill a process. One that has ended cannot be asked to.
fn prefer(pid: i32, adjustment: i32) {
    let _ = fs::write(format!("/proc/{pid}/oom_score_adj"), adjustment.to_string());
}

/// The control group that counts a process' memory, in either version of cgroups.
fn memory_group(pid: i32) -> Result<PathBuf> {
    let path = format!("/proc/{pid}/cgroup");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let lines = || text.lines().map(|line| line.splitn(3, ':').collect::<Vec<&str>>());
    let group = |root: &str, group: &str| PathBuf::from(format!("/sys/fs/cgroup{root}{group}"));
    lines()
        .find(|line| line.get(1).is_some_and(|kinds| kinds.split(',').any(|kind| kind == "memory")))
        .and_then(|line| Some(group("/memory", line.get(2)?)))
        .or_else(|| {
            lines().find(|line| line[0] == "0").and_then(|line| Some(group("", line.get(2)?)))
        })
        .with_context(|| format!("find the control group of memory in {path}"))
}

pub(super) fn nginx_memory(scene: &Scene) -> Running<'_> {
    Box::pin(memory(scene, "nginx"))
}

pub(super) fn backend_memory(scene: &Scene) -> Running<'_> {
    Box::pin(memory(scene, "backend"))
}

pub(super) fn postgres_memory(scene: &Scene) -> Running<'_> {
    Box::pin(memory(scene, "postgres"))
}

pub(super) fn redis_memory(scene: &Scene) -> Running<'_> {
    Box::pin(memory(scene, "redis"))
}
