//! Whether a backup can go into the servers that run.

use anyhow::{Result, ensure};

use super::both;
use super::catalogue::Backup;
use super::manifest::Server;
use super::postgres::Postgres;
use super::redis::Redis;
use super::take;
use crate::stack::running::Container;

/// # Errors
/// Another major version or C library than the backup's, or no room.
pub(super) fn postgres(server: &Postgres, container: &Container, backup: &Backup) -> Result<()> {
    let saved = &backup.manifest.postgres;
    let (live, ()) = both(
        || take::describe_postgres(server, container),
        || server.check_room(&saved.databases),
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
