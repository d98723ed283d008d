//! Somebody takes all the memory of a container.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use tokio::time::interval;

use super::{Running, Scene};
use crate::docker::{docker, output};

/// What production grants, for a stack that runs without limits.
const LIMITS: [(&str, &str); 4] =
    [("nginx", "256m"), ("backend", "256m"), ("postgres", "1g"), ("redis", "512m")];
/// How long the kernel may take to find the container full.
const KILL: Duration = Duration::from_secs(20);
/// How often the kernel's count is read: it goes away with the container's processes.
const LOOK: Duration = Duration::from_millis(1);

/// Something in the container takes memory until the kernel has to kill, and the kernel chooses the
/// service itself: the worst choice, which it makes when the service is what has grown.
async fn exhaust(scene: &Scene, service: &str) -> Result<()> {
    let container = scene.stack.container(service);
    if scene.stack.inspect(service, "{{.HostConfig.Memory}}").await? == "0" {
        let limit = LIMITS.iter().find(|(name, _)| *name == service).map_or("1g", |(_, mb)| mb);
        docker(&["update", "--memory", limit, "--memory-swap", limit, &container]).await?;
    }
    let processes: Vec<i32> =
        scene.stack.processes(service).await?.into_iter().map(|(pid, _)| pid).collect();
    let group = Group::of(*processes.first().context("find the service's processes")?)?;
    let before = group.kills()?;
    prefer(scene, &processes, 1000).await;
    // From this machine's side: not every image has a program to be misused. Four at once, because one
    // that has all the memory there is would be chosen before a small service, whatever is preferred.
    let hog = format!(
        "echo $$ >{}/cgroup.procs || exit; for i in 1 2 3; do tail /dev/zero & done; exec tail /dev/zero",
        group.folder.display()
    );
    let words = scene.root.words(&hog);
    let args: Vec<&str> = words[1..].iter().map(String::as_str).collect();
    let (hog, kills) = group.watch(output(&words[0], &args, KILL)).await;
    scene.healed();
    let survivors = processes.iter().filter(|pid| fs::metadata(format!("/proc/{pid}")).is_ok());
    let survivors = survivors.count();
    let processes_now = scene.stack.processes(service).await.unwrap_or_default();
    let processes_now: Vec<i32> = processes_now.into_iter().map(|(pid, _)| pid).collect();
    prefer(scene, &processes_now, 0).await;
    let hog = hog.context("let a process take all memory")?;
    let (status, said) = (hog.status, String::from_utf8_lossy(&hog.stderr));
    // A container tells of its process' signal in an exit code, as a shell does.
    let kill = Signal::KILL.as_raw();
    ensure!(
        status.signal() == Some(kill) || status.code() == Some(128 + kill),
        "the hog was not killed ({status}): {}",
        said.trim()
    );
    ensure!(
        kills > before,
        "the kernel killed nothing in {} for want of memory; the hog ended otherwise ({status}): {}",
        group.folder.display(),
        said.trim()
    );
    ensure!(survivors < processes.len(), "the kernel killed no process of {service}");
    Ok(())
}

/// How much the kernel likes to kill processes. One that has ended cannot be asked to.
async fn prefer(scene: &Scene, processes: &[i32], adjustment: i32) {
    let write = |pid: &i32| format!("echo {adjustment} >/proc/{pid}/oom_score_adj");
    let script: Vec<String> = processes.iter().map(write).collect();
    let _ = scene.root.run(&format!("{{ {}; }} 2>/dev/null", script.join("; "))).await;
}

/// The control group that counts a process' memory, in either version of cgroups.
#[derive(Debug, PartialEq, Eq)]
struct Group {
    folder: PathBuf,
    /// The file with the number of those that were killed.
    counter: &'static str,
}

impl Group {
    fn of(pid: i32) -> Result<Group> {
        let path = format!("/proc/{pid}/cgroup");
        let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        group(&text).with_context(|| format!("find the control group of memory in {path}"))
    }

    /// How many of its processes the kernel has killed for want of memory.
    fn kills(&self) -> Result<u64> {
        let path = self.folder.join(self.counter);
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        kills(&text).with_context(|| format!("find oom_kill in {}", path.display()))
    }

    /// Does something, and returns the highest count that was seen meanwhile: when the service's first
    /// process is killed the engine removes the group, and a new one counts from zero.
    async fn watch<T>(&self, work: impl Future<Output = T>) -> (T, u64) {
        let (mut work, mut clock) = (pin!(work), interval(LOOK));
        let mut most = 0;
        loop {
            let done = tokio::select! {
                done = &mut work => Some(done),
                _ = clock.tick() => None,
            };
            // Between two groups there is none.
            most = most.max(self.kills().unwrap_or(0));
            if let Some(done) = done {
                return (done, most);
            }
        }
    }
}

/// The group in a `/proc/PID/cgroup`.
fn group(text: &str) -> Option<Group> {
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.splitn(3, ':').collect()).collect();
    let counts = |line: &&Vec<&str>| line.len() == 3 && line[1].split(',').any(|c| c == "memory");
    if let Some(line) = lines.iter().find(counts) {
        let folder = PathBuf::from(format!("/sys/fs/cgroup/memory{}", line[2]));
        return Some(Group { folder, counter: "memory.oom_control" });
    }
    let line = lines.iter().find(|line| line.len() == 3 && line[0] == "0")?;
    let folder = PathBuf::from(format!("/sys/fs/cgroup{}", line[2]));
    Some(Group { folder, counter: "memory.events" })
}

/// The number in either version's file.
fn kills(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}

pub(super) fn nginx(scene: &Scene) -> Running<'_> {
    Box::pin(exhaust(scene, "nginx"))
}

pub(super) fn backend(scene: &Scene) -> Running<'_> {
    Box::pin(exhaust(scene, "backend"))
}

pub(super) fn postgres(scene: &Scene) -> Running<'_> {
    Box::pin(exhaust(scene, "postgres"))
}

pub(super) fn redis(scene: &Scene) -> Running<'_> {
    Box::pin(exhaust(scene, "redis"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_version_of_control_groups_counts_its_kills() {
        let one = group("9:pids:/docker/1f\n8:memory:/docker/1f\n0::/\n").unwrap();
        let folder = PathBuf::from("/sys/fs/cgroup/memory/docker/1f");
        assert_eq!(one, Group { folder, counter: "memory.oom_control" });
        assert_eq!(kills("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"), Some(3));
        let two = group("0::/system.slice/docker-1f.scope\n").unwrap();
        let folder = PathBuf::from("/sys/fs/cgroup/system.slice/docker-1f.scope");
        assert_eq!(two, Group { folder, counter: "memory.events" });
        assert_eq!(kills("low 0\noom 4\noom_kill 3\noom_group_kill 0\n"), Some(3));
    }

    #[tokio::test]
    async fn a_count_that_was_seen_is_not_forgotten_when_the_group_is_removed() {
        let folder = std::env::temp_dir().join(format!("drill-group-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let group = Group { folder: folder.clone(), counter: "memory.events" };
        let (done, most) = group
            .watch(async {
                fs::write(folder.join("memory.events"), "oom_kill 2\n").unwrap();
                tokio::time::sleep(10 * LOOK).await;
                fs::remove_dir_all(&folder).unwrap();
                tokio::time::sleep(10 * LOOK).await;
                "done"
            })
            .await;
        assert_eq!((done, most), ("done", 2));
    }
}
