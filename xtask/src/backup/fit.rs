//! Whether a backup can go into the servers that run.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::both;
use super::catalogue::Backup;
use super::manifest::{Database, Manifest, Server};
use super::postgres::Postgres;
use super::redis::Redis;
use super::room::{NoRoom, RESERVE};
use super::take;
use crate::ctx::{Ctx, Invocation};
use crate::stack::running::Container;
use crate::ui;

/// Where the volume is in the container.
pub(super) const DATA: &str = "/var/lib/postgresql/data";
/// Where that of Redis is.
const KEYS: &str = "/data";
/// A question.
const LIMIT: Duration = Duration::from_secs(5 * 60);

/// # Errors
/// Another major version or C library than the backup's, or no room.
pub(super) fn postgres(server: &Postgres, container: &Container, backup: &Backup) -> Result<()> {
    let saved = &backup.manifest.postgres;
    let (live, ()) =
        both(|| take::describe_postgres(server, container), || check_room(server, backup))?;
    let saved = &saved.server;
    check_versions("PostgreSQL", saved, &live)?;
    ensure!(
        saved.flavour == live.flavour,
        "the backup comes from PostgreSQL on {}, and this one runs on {}: the two sort text \
         differently, so what is unique or in order there may not be so here. `--force` \
         restores it all the same, and builds every index anew; docs/images.md has more",
        saved.flavour,
        live.flavour
    );
    Ok(())
}

/// # Errors
/// Another major version than the backup's, unless that is accepted, or no room.
pub(super) fn redis(
    server: &Redis,
    container: &Container,
    backup: &Backup,
    accepts_other: bool,
) -> Result<()> {
    if !accepts_other {
        // Redis sorts nothing by the rules of a language.
        let live = take::describe_redis(server.ctx, container)?;
        check_versions("Redis", &backup.manifest.redis.server, &live)?;
    }
    server.check_room(backup)
}

/// Whether databases of a backup fit in beside those that are there. A disk that gets full under a
/// restore would make the writes of the live database fail.
///
/// # Errors
/// They do not, or the container does not answer.
fn check_room(server: &Postgres, backup: &Backup) -> Result<()> {
    let free = room(server.ctx, server.inside("df").args(["-Pk", DATA]))?;
    let needed = needed(&backup.manifest);
    ensure!(
        needed < free,
        "PostgreSQL's volume has {} left, and what the backup brings needs about {} beside what is \
         there. Nothing was changed; make room (`cargo xtask doctor` and `docker system df` show \
         what takes it), or take `--only redis`. `--force` tries all the same; if the volume does get \
         full, PostgreSQL stops until there is room",
        ui::bytes(free),
        ui::bytes(needed)
    );
    Ok(())
}

/// Whether a drill may fill in so much: its servers have their volumes on the disk that those of the stack
/// write to, and where that gets full, the live database stops. Asked in a container of the drill that has
/// written nothing yet.
///
/// # Errors
/// It may not, or the container does not answer.
pub(super) fn drill(ctx: &Ctx, container: &str, backup: &Backup) -> Result<()> {
    let manifest = &backup.manifest;
    let df = Invocation::new("docker").args(["exec", container, "df", "-Pk", KEYS]);
    let snapshot = manifest.files.get(&manifest.redis.file).map_or(0, |file| file.raw_bytes);
    judge_drill(room(ctx, df)?, needed(manifest).saturating_add(snapshot))
        .context(NoRoom("there is no room to try it"))
}

fn judge_drill(free: u64, needed: u64) -> Result<()> {
    ensure!(
        needed.saturating_add(RESERVE) < free,
        "the disk of the engine's volumes has {} left, and the servers of the drill need about {} (by the size that the databases had, bloat \
         included), beside {} \
         for what the stack writes meanwhile: a full disk would stop its database. Nothing was \
         restored; make room (`cargo xtask doctor` and `docker system df` show what takes it), or pull \
         the backup on another host and verify it there. `--force` tries all the same: bloat is not restored",
        ui::bytes(free),
        ui::bytes(needed),
        ui::bytes(RESERVE)
    );
    Ok(())
}

/// What the databases of a backup need on a disk.
fn needed(manifest: &Manifest) -> u64 {
    // A backup of before November 2026 does not tell; its rows as text come near it.
    let text = |database: &Database| {
        manifest.files.get(&database.data_file).map_or(0, |file| file.raw_bytes)
    };
    let databases = manifest.postgres.databases.iter();
    let saved = databases.map(|database| database.disk_bytes.unwrap_or_else(|| text(database)));
    let saved = saved.fold(0, u64::saturating_add);
    // The log of all these writes goes beside them, until a checkpoint lets go of it.
    saved.saturating_add(saved / 4)
}

/// What `df -Pk`, run somewhere, says is left.
fn room(ctx: &Ctx, df: Invocation) -> Result<u64> {
    let said = ctx.read(df.limit(LIMIT))?;
    free_bytes(&said).with_context(|| format!("read what df says: {said:?}"))
}

/// What is left of a file system, of the output of `df -Pk`.
fn free_bytes(said: &str) -> Option<u64> {
    let free = said.lines().nth(1)?.split_whitespace().nth(3)?;
    Some(free.parse::<u64>().ok()? << 10)
}

fn check_versions(what: &str, saved: &Server, live: &Server) -> Result<()> {
    let major = |version: &str| version.split('.').next().unwrap_or_default().to_owned();
    ensure!(
        major(&saved.version) == major(&live.version),
        "the backup comes from {what} {}, and this one is {}. Start the stack with the major version \
         of the backup, or pass `--force` to restore across versions; newer servers as a rule read \
         what older ones wrote",
        saved.version,
        live.version
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_on_a_volume_is_read_as_posix_has_it() {
        let said = "Filesystem     1024-blocks      Used Available Capacity Mounted on\n\
            /dev/vda         263112772  16000000  79000000      17% /var/lib/postgresql/data\n";
        assert_eq!(free_bytes(said), Some(79_000_000 << 10));
        assert_eq!(free_bytes("df: no such file\n"), None);
    }

    #[test]
    fn a_drill_leaves_the_stack_its_room() {
        assert!(judge_drill(RESERVE + 10, 9).is_ok());
        let error = judge_drill(RESERVE + 10, 10).unwrap_err().to_string();
        assert!(error.contains("1.0 GiB left") && error.contains("doctor"), "{error}");
        assert!(judge_drill(u64::MAX - 1, u64::MAX).is_err());
    }

    #[test]
    fn another_major_version_is_told_with_the_remedy() {
        let server = |version: &str| Server {
            version: version.to_owned(),
            image: String::new(),
            image_id: String::new(),
            flavour: "musl".to_owned(),
        };
        assert!(check_versions("PostgreSQL", &server("15.20"), &server("15.4")).is_ok());
        let error = check_versions("PostgreSQL", &server("15.20"), &server("16.1")).unwrap_err();
        assert!(error.to_string().contains("--force"), "{error}");
    }
}
