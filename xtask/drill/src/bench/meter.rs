//! What a container uses, as the kernel counts it: the engine's own figures take seconds to come.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::time::{ClockId, clock_gettime};

use crate::docker::docker;

/// Processor time so far: nginx, the server that is asked, PostgreSQL, Redis, the generator.
pub(super) type Usage = [Duration; 5];

const ROOT: &str = "/sys/fs/cgroup";

/// A running container's counters.
pub(super) struct Meter {
    folder: PathBuf,
    version: Version,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Meter {
    /// Finds them.
    pub(super) async fn of(container: &str) -> Result<Meter> {
        let pid = docker(&["inspect", "--format", "{{.State.Pid}}", container]).await?;
        let path = format!("/proc/{}/cgroup", pid.trim());
        let text = fs::read_to_string(&path).with_context(|| {
            format!("read {path}: {container} must run, and the engine must be on this machine")
        })?;
        let (version, folder) =
            group(&text).with_context(|| format!("find the control group of {container}"))?;
        Ok(Meter { folder, version })
    }

    /// Processor time so far, of processes that have ended too.
    pub(super) fn processor(&self) -> Result<Duration> {
        let file = match self.version {
            Version::One => "cpuacct.usage",
            Version::Two => "cpu.stat",
        };
        let path = self.folder.join(file);
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        spent(self.version, &text).with_context(|| format!("understand {}", path.display()))
    }

    /// Memory that its processes have resident; a page that several of them share counts once.
    pub(super) fn memory_kb(&self) -> Result<u64> {
        let path = self.folder.join("cgroup.procs");
        let pids = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        // A process that has ended since the list was read holds nothing.
        Ok(pids.lines().filter_map(|pid| resident_kb(Path::new("/proc").join(pid).as_path())).sum())
    }
}

/// The processor time of this process.
pub(super) fn own_processor() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let (seconds, nanos) = (time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs());
    Duration::from_secs(seconds) + Duration::from_nanos(nanos)
}

/// The folder of a process' control group: `text` is its `/proc/PID/cgroup`.
fn group(text: &str) -> Option<(Version, PathBuf)> {
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.splitn(3, ':').collect()).collect();
    let folder = |root: &str, path: &str| Path::new(root).join(path.trim_start_matches('/'));
    let counts = |line: &&Vec<&str>| line.len() == 3 && line[1].split(',').any(|c| c == "cpuacct");
    if let Some(line) = lines.iter().find(counts) {
        return Some((Version::One, folder(&format!("{ROOT}/cpuacct"), line[2])));
    }
    let line = lines.iter().find(|line| line.len() == 3 && line[0] == "0")?;
    Some((Version::Two, folder(ROOT, line[2])))
}

fn spent(version: Version, text: &str) -> Option<Duration> {
    match version {
        Version::One => text.trim().parse().ok().map(Duration::from_nanos),
        Version::Two => {
            let line = text.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
            line.trim().parse().ok().map(Duration::from_micros)
        }
    }
}

fn resident_kb(process: &Path) -> Option<u64> {
    let text = fs::read_to_string(process.join("smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_version_of_control_groups_is_understood() {
        let one = "13:hugetlb:/docker/1f\n2:cpu,cpuacct:/docker/1f\n0::/docker/1f\n";
        let folder = PathBuf::from("/sys/fs/cgroup/cpuacct/docker/1f");
        assert_eq!(group(one), Some((Version::One, folder)));
        let two = "0::/system.slice/docker-1f.scope\n";
        let folder = PathBuf::from("/sys/fs/cgroup/system.slice/docker-1f.scope");
        assert_eq!(group(two), Some((Version::Two, folder)));
        assert_eq!(spent(Version::One, "1500000000\n"), Some(Duration::from_millis(1500)));
        let stat = "usage_usec 1500000\nuser_usec 1\n";
        assert_eq!(spent(Version::Two, stat), Some(Duration::from_millis(1500)));
    }

    #[test]
    fn this_process_holds_memory_and_has_spent_time() {
        assert!(resident_kb(Path::new("/proc/self")).unwrap() > 500);
        assert!(own_processor() > Duration::ZERO);
    }
}
