//! Room on the disk for a backup: looked at before it begins and while it is written. The disk that it goes to is most
//! often the one that PostgreSQL writes to, which stops where that is full.

use std::fmt;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Error, Result, ensure};

use super::catalogue::Catalogue;
use super::fit::DATA;
use super::take::Servers;
use crate::ctx::{Ctx, Invocation};
use crate::host::disk;
use crate::ui;

/// What is left to the servers that run, which write to the same disk meanwhile: as much as PostgreSQL's log may grow
/// between two checkpoints (`max_wal_size`).
pub(super) const RESERVE: u64 = 1 << 30;
/// What a backup that turns out larger than was expected leaves in any case.
const FLOOR: u64 = RESERVE / 4;

/// A mark on the error of what was not begun, or given up, for want of room: it says nothing about a backup, and older ones
/// may be deleted all the same.
#[derive(Debug)]
pub(crate) struct NoRoom(pub(super) &'static str);

impl fmt::Display for NoRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Whether something failed because the disk is full, or would be.
pub(crate) fn is_lacking(error: &Error) -> bool {
    let is_full = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == ErrorKind::StorageFull)
    };
    error.is::<NoRoom>() || error.chain().any(is_full)
}

/// Whether another backup fits beside those that are there. How large it gets is guessed by the last one.
///
/// # Errors
/// It may not: then nothing was begun. Or the disk cannot be asked.
pub(crate) fn expect(ctx: &Ctx, catalogue: &Catalogue, servers: &Servers) -> Result<()> {
    if catalogue.may_fill() {
        return Ok(());
    }
    // The folder is made by the first backup.
    let place = catalogue.folder().ancestors().find(|path| path.is_dir());
    let place = place.context("find the disk of BACKUP_DIR")?;
    let newest = catalogue.list()?.into_iter().rev().find_map(|(_, backup)| backup.ok());
    let last = newest.map_or(0, |backup| backup.manifest.bytes());
    let reserve = if is_apart(ctx, place, &servers.postgres.id) { FLOOR } else { RESERVE };
    judge(place, disk::free(place)?, last, reserve).context(NoRoom("there is no room for a backup"))
}

/// Whether a folder is on another disk than PostgreSQL's data; not where that cannot be told.
fn is_apart(ctx: &Ctx, place: &Path, postgres: &str) -> bool {
    let look = Invocation::new("docker").args(["exec", postgres, "stat", "-c", "%d", DATA]);
    let theirs = ctx.read(look).ok().and_then(|said| said.trim().parse::<u64>().ok());
    let ours = fs::metadata(place).ok().map(|found| found.dev());
    matches!((theirs, ours), (Some(theirs), Some(ours)) if theirs != ours)
}

fn judge(place: &Path, free: u64, last: u64, reserve: u64) -> Result<()> {
    // It grows with the data.
    let needed = last.saturating_add(last / 4);
    ensure!(
        needed.saturating_add(reserve) <= free,
        "{} is left at {}, and a backup needs about {} (the last one took {}), beside {} that stay free: where the disk is \
         full, PostgreSQL stops. Nothing was begun; make room (`cargo xtask backup prune`, `cargo xtask doctor` and \
         `docker system df` show what takes it), or set BACKUP_DIR to a folder on another disk. `--force` tries all the same",
        ui::bytes(free),
        place.display(),
        ui::bytes(needed),
        ui::bytes(last),
        ui::bytes(reserve)
    );
    Ok(())
}

/// Whether a backup may go on, by what is left of its disk now.
///
/// # Errors
/// It may not, of the kind of a disk that is full.
pub(super) fn look(file: &fs::File) -> io::Result<()> {
    let stat = rustix::fs::fstatvfs(file)?;
    expect_floor(stat.f_bavail.saturating_mul(stat.f_frsize))
}

fn expect_floor(free: u64) -> io::Result<()> {
    if free >= FLOOR {
        return Ok(());
    }
    let said = format!(
        "given up with {} left on the disk, because PostgreSQL stops where it is full; make room, or set BACKUP_DIR to \
         a folder on another disk",
        ui::bytes(free)
    );
    Err(io::Error::new(ErrorKind::StorageFull, said))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_that_would_leave_too_little_is_not_begun() {
        let judged = |free, last| judge(Path::new("/backups"), free, last, RESERVE);
        assert!(judged(RESERVE, 0).is_ok());
        assert!(judged(RESERVE + 1250, 1000).is_ok());
        let error = judged(RESERVE + (1 << 30) - 1, 4 << 28).unwrap_err().to_string();
        for words in
            ["left at /backups", "needs about 1.2 GiB (the last one took 1.0 GiB)", "--force"]
        {
            assert!(error.contains(words), "{words:?} is not in: {error}");
        }
        assert!(judged(u64::MAX - 1, u64::MAX).is_err());
    }

    #[test]
    fn want_of_room_is_told_from_every_other_failure() {
        let full = expect_floor(FLOOR - 1).unwrap_err();
        assert!(expect_floor(FLOOR).is_ok());
        assert!(is_lacking(&Error::from(full).context("save the rows of app")));
        assert!(is_lacking(&Error::msg("x").context(NoRoom("no room")).context("verify")));
        let denied = io::Error::new(ErrorKind::PermissionDenied, "no");
        assert!(!is_lacking(&Error::from(denied).context("save the rows of app")));
    }
}
