//! From what was read to a finding: where the borders between well, a warning and a failure lie.
//! Pure.

use std::time::{Duration, SystemTime};

use super::{Finding, Level, not_well, pass};
use crate::backup::ahead::WHY;
use crate::host::tools::Version;
use crate::stack::running::{Container, Health};
use crate::ui;

/// Restarts above this are a sign of trouble: one may be a reboot of the engine.
const RESTARTS_TO_WARN: u64 = 3;
/// Less is the time between two questions.
const CLOCK_TO_WARN: Duration = Duration::from_secs(2);
/// A day's backup, and the time to notice that it failed. That it is proven is asked of production alone; that it is
/// copied, of whoever has named a place for copies.
const BACKUP_TO_WARN: Duration = Duration::from_secs(26 * 60 * 60);
const DISK_TO_WARN: u64 = 10 << 30;
const DISK_TO_FAIL: u64 = 2 << 30;
/// What the four services and a build take together, with room to breathe.
const MEMORY_TO_WARN: u64 = 1 << 30;

/// A program of Docker's, by its version; none where it is not installed.
pub(super) fn tool(name: &str, version: Option<Version>, floor: Version) -> Finding {
    let setup = "cargo xtask setup";
    match version {
        Some(version) if version >= floor => pass(name, version.to_string()),
        Some(version) => {
            not_well(Level::Fail, name, format!("{version}; {floor} or newer is needed"), setup)
        }
        None => not_well(Level::Fail, name, "not installed", setup),
    }
}

/// The engine's socket: whoever may write to it is root on this host.
pub(super) fn socket(path: &str, mode: u32) -> Finding {
    if mode & 0o002 != 0 {
        let detail = format!("any user of this host can become root through it (mode {mode:04o})");
        return not_well(Level::Fail, "socket", detail, &format!("chmod o= {path}"));
    }
    let who = if mode & 0o020 == 0 { "its owner" } else { "its owner and group" };
    pass("socket", format!("{who} may use it (mode {mode:04o})"))
}

/// The engine's storage driver. With these every file that a container opens goes through a process of the host's, or
/// every container gets a copy of its image: a cold `up` took a third longer (docs/benchmarks.md), and an
/// engine that nobody told which one to take has neither where its kernel has a better one.
pub(super) fn storage(driver: &str) -> Finding {
    if !["fuse-overlayfs", "vfs"].contains(&driver) {
        return pass("storage", driver);
    }
    let detail = format!("containers start and read slowly with {driver}");
    let next = "where the kernel knows overlay2, take `storage-driver` out of /etc/docker/daemon.json and restart the \
                engine: volumes stay, images are built anew";
    not_well(Level::Warn, "storage", detail, next)
}

/// Images by their variable, as the environment file has them and as the example does. Where they come from is the
/// person's own choice, and so is a digest.
pub(super) fn images(names: &[(&str, &str, &str)]) -> Finding {
    let version = |image: &str| {
        let tagged = image.split('@').next().unwrap_or_default();
        tagged.rsplit('/').next().unwrap_or_default().to_owned()
    };
    let others = names.iter().filter(|(_, ours, example)| version(ours) != version(example));
    let others: Vec<String> = others
        .map(|(name, ours, example)| format!("{name} is {ours}, and {example} there"))
        .collect();
    if others.is_empty() {
        return pass("images", "of the versions in .env.example");
    }
    let detail = format!("other versions than in .env.example: {}", others.join("; "));
    let next = "take the lines over into the environment file (docs/upgrades.md first, for PostgreSQL and Redis), then \
                cargo xtask up";
    not_well(Level::Warn, "images", detail, next)
}

/// Bytes free where the engine keeps its data.
pub(super) fn disk(free: u64) -> Finding {
    let next = "docker system df shows what takes it; docker image prune and docker builder prune make room";
    let detail = format!("{} free", ui::bytes(free));
    match free {
        ..DISK_TO_FAIL => not_well(Level::Fail, "disk", format!("only {detail}"), next),
        DISK_TO_FAIL..DISK_TO_WARN => not_well(Level::Warn, "disk", detail, next),
        _ => pass("disk", detail),
    }
}

/// From `/proc/meminfo`.
pub(super) fn memory(meminfo: &str) -> Finding {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    match kib.map(|kib| kib << 10) {
        None => not_well(Level::Warn, "memory", "it cannot be told on this system", "free -h"),
        Some(free) if free < MEMORY_TO_WARN => {
            let detail = format!("only {} available", ui::bytes(free));
            not_well(Level::Warn, "memory", detail, "end what you do not need")
        }
        Some(free) => pass("memory", format!("{} available", ui::bytes(free))),
    }
}

/// The engine's clock, asked for at a moment between two of this host's.
pub(super) fn clock(engine: Option<SystemTime>, asked: SystemTime, told: SystemTime) -> Finding {
    let Some(engine) = engine else {
        return not_well(Level::Warn, "clock", "the engine does not tell its time", "date --utc");
    };
    let skew = |a: SystemTime, b: SystemTime| a.duration_since(b).unwrap_or_default();
    let off = skew(asked, engine).max(skew(engine, told));
    if off > CLOCK_TO_WARN {
        let detail = format!("the engine's clock is {} off this host's", ui::seconds(off));
        return not_well(Level::Warn, "clock", detail, "restart the engine, or set the clock");
    }
    pass("clock", "the engine's agrees with this host's")
}

/// RFC 3339 with any offset.
pub(super) fn parse_time(text: &str) -> Option<SystemTime> {
    if let Ok(time) = humantime::parse_rfc3339(text) {
        return Some(time);
    }
    let (local, offset) = text.split_at_checked(text.len().checked_sub(6)?)?;
    let (hours, minutes) = offset.get(1..)?.split_once(':')?;
    let minutes = hours.parse::<u64>().ok()? * 60 + minutes.parse::<u64>().ok()?;
    let time = humantime::parse_rfc3339(&format!("{local}Z")).ok()?;
    let offset_time = Duration::from_secs(minutes * 60);
    if offset.starts_with('-') {
        time.checked_add(offset_time)
    } else {
        time.checked_sub(offset_time)
    }
}

/// The mode of the environment file.
pub(super) fn environment_file(name: &str, mode: u32) -> Finding {
    if mode & 0o077 == 0 {
        return pass(name, format!("private (mode {mode:04o})"));
    }
    let detail = format!("other users can read its secrets (mode {mode:04o})");
    not_well(Level::Fail, name, detail, &format!("chmod 600 {name}"))
}

/// The modes of the folder of secrets and of the one around it. The files that containers mount are
/// readable by everybody, because each is read by another user in a container: the folders keep the
/// host's users out.
pub(super) fn secrets(name: &str, outer: u32, inner: u32) -> Finding {
    if outer & 0o077 != 0 && inner & 0o077 != 0 {
        let detail = format!("other users can read what is in {name} (mode {inner:04o})");
        return not_well(Level::Fail, "secrets", detail, &format!("chmod 700 {name}"));
    }
    pass("secrets", format!("{name} is closed to other users"))
}

/// The newest backup, and the newest that was proven with its age.
pub(super) fn backup(
    newest: Option<String>,
    verified: Option<(String, Duration)>,
    is_production: bool,
) -> Finding {
    let next = "cargo xtask backup --verify";
    let Some(newest) = newest else {
        return not_well(Level::Warn, "backup", "there is none", next);
    };
    let Some((verified, age)) = verified else {
        let detail = format!("{newest} is the last one, and no restore was ever proven");
        return not_well(Level::Warn, "backup", detail, next);
    };
    let detail = format!("the last verified one is {verified}, {} old", ui::seconds(age));
    if is_production && age > BACKUP_TO_WARN {
        return not_well(Level::Warn, "backup", detail, next);
    }
    pass("backup", detail)
}

/// The newest backup that has a copy in this place, with its age. A push that fails every night, or a timer that makes
/// none, is seen here.
pub(super) fn copies(place: &str, newest: Option<(String, Duration)>) -> Finding {
    let next = "cargo xtask backup push, and look why the timer does not: cargo xtask backup --schedule --push prints one that does";
    let Some((newest, age)) = newest else {
        let detail = format!("this host has copied no backup to {place}");
        return not_well(Level::Warn, "copies", detail, next);
    };
    let detail = format!("the last one in {place} is {newest}, {} old", ui::seconds(age));
    if age > BACKUP_TO_WARN {
        return not_well(Level::Warn, "copies", detail, next);
    }
    pass("copies", detail)
}

/// Backups whose time lies in the future.
pub(super) fn ahead(ids: &[String]) -> Option<Finding> {
    if ids.is_empty() {
        return None;
    }
    let detail = format!("{} is never `latest`: {WHY}", ids.join(", "));
    let next =
        "date --utc; where that is right, keep a newer backup, and delete that folder by hand";
    Some(not_well(Level::Warn, "backup", detail, next))
}

/// A container of a service.
pub(super) fn container(container: &Container) -> Finding {
    let name = &container.service;
    let logs = format!("cargo xtask logs {name}");
    if !container.is_running() {
        let detail = format!("{} with exit code {}", container.status, container.exit_code);
        return not_well(Level::Fail, name, detail, &format!("{logs}, then cargo xtask up"));
    }
    if container.health == Health::Unhealthy {
        let probe = container.last_probe.as_deref().unwrap_or("no probe yet");
        return not_well(Level::Fail, name, format!("unhealthy: {probe}"), &logs);
    }
    if container.restarts > RESTARTS_TO_WARN {
        let detail = format!("restarted {} times", container.restarts);
        return not_well(Level::Warn, name, detail, &logs);
    }
    let uptime = container.uptime().map_or_else(String::new, ui::seconds);
    pass(name, format!("running for {uptime}"))
}

#[cfg(test)]
mod tests {
    use super::Level::{Fail, Pass, Warn};
    use super::*;
    use crate::stack::running;

    #[test]
    fn each_border_is_where_it_is_said_to_be() {
        assert_eq!(tool("compose", None, Version(2, 20, 0)).level, Fail);
        assert_eq!(tool("compose", Some(Version(2, 19, 9)), Version(2, 20, 0)).level, Fail);
        assert_eq!(tool("compose", Some(Version(2, 20, 0)), Version(2, 20, 0)).level, Pass);
        assert_eq!(socket("s", 0o660).level, Pass);
        assert_eq!(socket("s", 0o666).level, Fail);
        assert_eq!(storage("overlay2").level, Pass);
        assert_eq!(storage("overlayfs").level, Pass);
        assert_eq!(storage("fuse-overlayfs").level, Warn);
        let levels = [2 << 30, 10 << 30].map(|free| (disk(free - 1).level, disk(free).level));
        assert_eq!(levels, [(Fail, Warn), (Warn, Pass)]);
        assert_eq!(memory("MemTotal: 9 kB\nMemAvailable:  1048575 kB\n").level, Warn);
        assert_eq!(memory("MemAvailable:  1048576 kB\n").level, Pass);
        assert_eq!(memory("").level, Warn);
        assert_eq!(environment_file(".env", 0o600).level, Pass);
        assert_eq!(environment_file(".env", 0o640).level, Fail);
        assert_eq!(secrets("s", 0o700, 0o755).level, Pass);
        assert_eq!(secrets("s", 0o755, 0o755).level, Fail);
    }

    #[test]
    fn an_image_is_another_by_its_version_and_not_by_where_it_comes_from() {
        let one =
            |ours, example| images(&[("A", "same:1", "same:1"), ("NGINX_IMAGE", ours, example)]);
        assert_eq!(one("nginx:1.28", "nginx:1.28").level, Level::Pass);
        assert_eq!(
            one("mirror.example:5000/library/nginx:1.28@sha256:ab", "nginx:1.28").level,
            Level::Pass
        );
        let finding = one("nginx:1.26@sha256:ab", "nginx:1.28");
        assert_eq!(finding.level, Level::Warn);
        assert!(
            finding.detail.ends_with("NGINX_IMAGE is nginx:1.26@sha256:ab, and nginx:1.28 there")
        );
    }

    #[test]
    fn backups_from_the_future_are_named() {
        assert!(ahead(&[]).is_none());
        let finding = ahead(&["20361231T000000Z".to_owned()]).unwrap();
        assert_eq!(finding.level, Level::Warn);
        assert!(finding.detail.contains("20361231T000000Z") && finding.detail.contains("clock"));
    }

    #[test]
    fn a_backup_is_well_once_it_is_proven_and_in_production_while_it_is_fresh() {
        let proven = |hours: u64| Some(("b".to_owned(), Duration::from_secs(hours * 3600)));
        let newest = || Some("b".to_owned());
        assert_eq!(backup(None, None, false).level, Warn);
        assert_eq!(backup(newest(), None, false).level, Warn);
        assert_eq!(backup(newest(), proven(900), false).level, Pass);
        assert_eq!(backup(newest(), proven(26), true).level, Pass);
        assert_eq!(backup(newest(), proven(27), true).level, Warn);
    }

    #[test]
    fn a_copy_is_missed_once_the_last_one_is_older_than_a_night() {
        let copied = |hours: u64| Some(("b".to_owned(), Duration::from_secs(hours * 3600)));
        assert_eq!(copies("s3://a/shop", None).level, Warn);
        assert_eq!(copies("s3://a/shop", copied(26)).level, Pass);
        let finding = copies("s3://a/shop", copied(27));
        assert_eq!(finding.level, Warn);
        assert!(finding.detail.contains("s3://a/shop is b"), "{finding:?}");
        assert!(finding.next.unwrap().contains("--schedule --push"));
    }

    #[test]
    fn a_clock_may_be_off_by_as_long_as_the_answer_took() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(clock(None, at(100), at(101)).level, Warn);
        assert_eq!(clock(Some(at(110)), at(100), at(120)).level, Pass);
        assert_eq!(clock(Some(at(98)), at(100), at(101)).level, Pass);
        assert_eq!(clock(Some(at(97)), at(100), at(101)).level, Warn);
        assert_eq!(clock(Some(at(104)), at(100), at(101)).level, Warn);
    }

    #[test]
    fn a_container_is_judged_by_its_state_its_health_and_its_restarts() {
        let level = |change: &dyn Fn(&mut Container)| {
            let mut sample = running::tests::sample();
            change(&mut sample);
            container(&sample).level
        };
        assert_eq!(level(&|_| {}), Pass);
        assert_eq!(level(&|c| c.status = "exited".into()), Fail);
        assert_eq!(level(&|c| c.health = Health::Unhealthy), Fail);
        assert_eq!(level(&|c| c.restarts = 3), Pass);
        assert_eq!(level(&|c| c.restarts = 4), Warn);
    }

    #[test]
    fn whatever_is_not_well_has_a_next_step() {
        let findings = [disk(0), memory(""), socket("s", 0o777), backup(None, None, true)];
        assert!(findings.iter().all(|finding| finding.next.is_some()), "{findings:?}");
    }

    #[test]
    fn times_with_an_offset_are_the_same_moment() {
        let utc = parse_time("2026-01-02T10:00:00.5Z");
        assert!(utc.is_some());
        assert_eq!(parse_time("2026-01-02T12:30:00.5+02:30"), utc);
        assert_eq!(parse_time("2026-01-02T05:00:00.5-05:00"), utc);
        assert_eq!(parse_time("never"), None);
    }
}
