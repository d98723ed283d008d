//! Copies away from the host, made by the crate `offsite`: it is heavy, so it is built when it is used.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

use super::ahead::is_ahead;
use super::catalogue::{self, Backup, Catalogue};
use super::copied;
use crate::ctx::{Ctx, Invocation};
use crate::stack::lock;
use crate::stack::project::Project;

/// What a copy has, and a backup has not.
pub(crate) const INDEX: &str = "copy.json";
/// A cold build, and a large backup over a thin line.
const LIMIT: Duration = Duration::from_secs(24 * 60 * 60);

/// Where the copies of a project go.
///
/// # Errors
/// `BACKUP_REMOTE` is empty, or a folder that is not there.
pub(crate) fn place(ctx: &Ctx, project: &Project) -> Result<String> {
    expect_a_place(ctx, project)?;
    let remote = remote(ctx, project);
    if !is_address(&remote) {
        expect_folder(Path::new(&remote))?;
    }
    Ok(format!("{remote}/{}", project.name))
}

/// The same without a look whether it is there; none where `BACKUP_REMOTE` is empty.
pub(crate) fn named_place(ctx: &Ctx, project: &Project) -> Option<String> {
    let is_named = !project.value("BACKUP_REMOTE").is_empty();
    is_named.then(|| format!("{}/{}", remote(ctx, project), project.name))
}

fn remote(ctx: &Ctx, project: &Project) -> String {
    absolute(ctx, project.value("BACKUP_REMOTE").trim_end_matches('/'))
}

/// Whether a place was named at all.
///
/// # Errors
/// `BACKUP_REMOTE` is empty.
pub(crate) fn expect_a_place(ctx: &Ctx, project: &Project) -> Result<()> {
    ensure!(
        !project.value("BACKUP_REMOTE").is_empty(),
        "BACKUP_REMOTE is empty: set it to s3://BUCKET/PREFIX or to a folder in {}",
        crate::stack::project::shown(ctx, &project.env_file)
    );
    Ok(())
}

/// The folder of `BACKUP_REMOTE` is never made: where it is missing, its disk is not mounted, and the
/// copies would fill the one that the stack runs from.
fn expect_folder(remote: &Path) -> Result<()> {
    match fs::metadata(remote) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => bail!("BACKUP_REMOTE is {}, which is no folder", remote.display()),
        Err(error) if error.kind() == ErrorKind::NotFound => bail!(
            "BACKUP_REMOTE is {0}, which is not there: mount its disk, or, if it is a new folder, make \
             it once by hand: `mkdir -p -m 700 {0}`",
            remote.display()
        ),
        Err(error) => {
            Err(error).with_context(|| format!("look at {} (BACKUP_REMOTE)", remote.display()))
        }
    }
}

/// Two pushes of one backup, one of them encrypted, would take each other's objects for leftovers.
fn alone(ctx: &Ctx) -> Result<fs::File> {
    fs::create_dir_all(ctx.state_dir()).context("make target/xtask")?;
    let path = ctx.state_dir().join("push.lock");
    let lock = fs::File::create(&path).with_context(|| format!("write {}", path.display()))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(fs::TryLockError::WouldBlock) => {
            bail!("another `backup push` of this checkout goes on; try again when it has ended")
        }
        Err(fs::TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("lock {}", path.display()))
        }
    }
}

/// Whether two folders are on one file system, and so are lost together; not where that cannot be told.
fn lie_together(one: &Path, other: &Path) -> bool {
    let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).ok();
    device(one).is_some_and(|number| device(other) == Some(number))
}

/// A folder is seen from the project's root; an address stays what it is.
fn absolute(ctx: &Ctx, place: &str) -> String {
    if is_address(place) { place.to_owned() } else { ctx.root().join(place).display().to_string() }
}

/// Whether a place is somewhere else than in a folder of this host.
pub(crate) fn is_address(place: &str) -> bool {
    place.contains("://")
}

/// A copy that was made, for scripts; fields are only ever added.
#[derive(Serialize)]
pub(crate) struct Copied {
    id: String,
    /// As in `BACKUP_REMOTE`.
    place: String,
    is_encrypted: bool,
}

/// Copies a backup, encrypted for `BACKUP_RECIPIENTS`, and reads the copy back.
///
/// # Errors
/// The backup is damaged, or the place does not take it.
pub(crate) fn push(ctx: &Ctx, project: &Project, backup: &Backup) -> Result<Copied> {
    lock::expect_own(ctx, project)?;
    let place = place(ctx, project)?;
    let _alone = alone(ctx)?;
    catalogue::check(ctx, backup)?;
    let recipients: Vec<&str> = project.value("BACKUP_RECIPIENTS").split_whitespace().collect();
    if recipients.is_empty() && is_address(&place) {
        ctx.ui.warn(format!(
            "{place} gets everybody's data as they are: BACKUP_RECIPIENTS is empty. `age-keygen` \
             makes a pair of keys; its public half goes there"
        ));
    }
    let around = Path::new(&place).parent().unwrap_or(Path::new(&place));
    if !is_address(&place) && lie_together(around, &backup.folder) {
        ctx.ui.warn(format!(
            "{} (BACKUP_REMOTE) is on the same file system as the backups: what is lost with it takes \
             these copies along. Is its disk mounted?",
            around.display()
        ));
    }
    let step = ctx.ui.step(format!("copy {} to {place}", backup.id())).announce();
    let mut command = program(ctx).arg("push").arg(&backup.folder).arg(&place);
    for recipient in &recipients {
        command = command.args(["--recipient", recipient]);
    }
    ctx.run_step(&step, command).context("copy the backup")?;
    let is_encrypted = !recipients.is_empty();
    let how = if is_encrypted { "encrypted" } else { "not encrypted" };
    step.done(format!("{how}, read back and compared"));
    if let Err(error) = copied::remember(&Catalogue::of(ctx, project), backup.id(), &place) {
        ctx.ui.warn(format!("the copy is there, and `doctor` will not know of it: {error:#}"));
    }
    Ok(Copied { id: backup.id().to_owned(), place, is_encrypted })
}

/// The names of the whole copies in a place, oldest first.
///
/// # Errors
/// The place does not answer.
pub(crate) fn names(ctx: &Ctx, place: &str) -> Result<Vec<String>> {
    if !is_address(place) && !Path::new(place).exists() {
        // The first copy makes it.
        return Ok(Vec::new());
    }
    let said = ctx.read(program(ctx).args(["list", place])).context("list the copies")?;
    Ok(said.lines().map(str::to_owned).filter(|name| catalogue::is_id(name)).collect())
}

/// The name of a copy, or for `latest` of the newest that is not ahead of the clock.
///
/// # Errors
/// There is none.
pub(crate) fn find(ctx: &Ctx, place: &str, wanted: &str) -> Result<String> {
    let (names, now) = (names(ctx, place)?, SystemTime::now());
    let found = match wanted {
        "latest" => names.iter().rev().find(|name| !is_ahead(name, now)),
        wanted => names.iter().find(|name| *name == wanted),
    };
    found.cloned().with_context(|| {
        let there = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        format!("there is no whole copy {wanted} in {place}; there is {there}")
    })
}

/// Fetches a copy into a folder, which is not there yet, and checks every file in it.
///
/// # Errors
/// The copy is damaged, or cannot be decrypted.
pub(crate) fn fetch(
    ctx: &Ctx,
    place: &str,
    name: &str,
    folder: &Path,
    identity: Option<&PathBuf>,
) -> Result<Backup> {
    let step = ctx.ui.step(format!("fetch {name} from {place}")).announce();
    let mut command = program(ctx).args(["pull", place, name]).arg(folder);
    if let Some(identity) = identity {
        // The program runs in the project's folder, and the person may be in another.
        let identity = std::path::absolute(identity).context("find the file of --identity")?;
        command = command.arg("--identity").arg(identity);
    }
    ctx.run_step(&step, command).context("fetch the copy")?;
    let backup = catalogue::open_folder(folder)?;
    catalogue::check(ctx, &backup)?;
    step.done("every file is what was written");
    Ok(backup)
}

/// Brings a copy back among a project's backups.
///
/// # Errors
/// It is there already, belongs to another project, or cannot be fetched: nothing of it is kept.
pub(crate) fn pull(
    ctx: &Ctx,
    catalogue: &Catalogue,
    place: &str,
    name: &str,
    identity: Option<&PathBuf>,
) -> Result<Backup> {
    catalogue.sweep(ctx)?;
    let partial = catalogue.begin(name)?;
    // The program makes the folder itself, so that it never writes into another one.
    let inside = partial.folder().join("fetched");
    fetch(ctx, place, name, &inside, identity)?;
    partial.adopt(&inside)?;
    catalogue.open(name)
}

fn program(ctx: &Ctx) -> Invocation {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let words = ["run", "--quiet", "--locked", "--package", "offsite", "--"];
    Invocation::new(cargo).args(words).dir(ctx.root()).limit(LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_for_copies_has_to_be_there() {
        let scratch = tempfile::tempdir().unwrap();
        assert!(expect_folder(scratch.path()).is_ok());
        let disk = scratch.path().join("disk");
        let error = expect_folder(&disk).unwrap_err().to_string();
        assert!(error.contains("mount its disk") && error.contains("mkdir"), "{error}");
        assert!(!disk.exists());
        fs::write(&disk, "").unwrap();
        assert!(expect_folder(&disk).unwrap_err().to_string().contains("no folder"));
    }

    #[test]
    fn a_copy_on_the_same_file_system_is_told_from_one_on_another() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("copies");
        fs::create_dir(&folder).unwrap();
        assert!(lie_together(scratch.path(), &folder));
        assert!(!lie_together(&folder, Path::new("/proc")));
        assert!(!lie_together(&folder, &folder.join("missing")));
    }
}
