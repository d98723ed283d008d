//! Whether a backup can go into the servers that run.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::both;
use super::catalogue::Backup;
use super::manifest::{Database, Server};
use super::postgres::Postgres;
use super::redis::Redis;
use super::take;
use crate::stack::running::Container;
use crate::ui;

/// Where the volume is in the container.
const DATA: &str = "/var/lib/postgresql/data";
/// A question.
const LIMIT: Duration = Duration::from_secs(5 * 60);

/// # Errors
/// Another major version or C library than the backup's, or no room.
pub(super) fn postgres(server: &Postgres, container: &Container, backup: &Backup) -> Result<()> {
    let saved = &backup.manifest.postgres;
    let (live, ()) = both(
        || take::describe_postgres(server, container),
        || check_room(server, &saved.databases),
    )?;
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
fn check_room(server: &Postgres, databases: &[Database]) -> Result<()> {
    let said = server.ctx.read(server.inside("df").args(["-Pk", DATA]).limit(LIMIT))?;
    let free = free_bytes(&said).with_context(|| format!("read what df says: {said:?}"))?;
    let saved: u64 = databases.iter().filter_map(|database| database.disk_bytes).sum();
    // The log of all these writes goes beside them, until a checkpoint lets go of it.
    let needed = saved + saved / 4;
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
