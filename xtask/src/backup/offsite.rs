//! Copies away from the host, made by the crate `offsite`: it is heavy, so it is built when it is used.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;

use super::catalogue::{self, Backup, Catalogue};
use crate::ctx::{Ctx, Invocation};
use crate::stack::project::Project;

/// What a copy has, and a backup has not.
pub(crate) const INDEX: &str = "copy.json";
/// A cold build, and a large backup over a thin line.
const LIMIT: Duration = Duration::from_secs(24 * 60 * 60);

/// Where the copies of a project go.
///
/// # Errors
/// `BACKUP_REMOTE` is empty.
pub(crate) fn place(ctx: &Ctx, project: &Project) -> Result<String> {
    let remote = project.value("BACKUP_REMOTE");
    ensure!(
        !remote.is_empty(),
        "BACKUP_REMOTE is empty: set it to s3://BUCKET/PREFIX or to a folder in {}",
        crate::stack::project::shown(ctx, &project.env_file)
    );
    let remote = remote.trim_end_matches('/');
    Ok(format!("{}/{}", absolute(ctx, remote), project.name))
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
    let place = place(ctx, project)?;
    catalogue::check(ctx, backup)?;
    let recipients: Vec<&str> = project.value("BACKUP_RECIPIENTS").split_whitespace().collect();
    if recipients.is_empty() && is_address(&place) {
        ctx.ui.warn(format!(
            "{place} gets everybody's data as they are: BACKUP_RECIPIENTS is empty. `age-keygen` \
             makes a pair of keys; its public half goes there"
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
    Ok(Copied { id: backup.id().to_owned(), place, is_encrypted })
}

/// The names of the whole copies in a place, oldest first.
///
/// # Errors
/// The place does not answer.
pub(crate) fn names(ctx: &Ctx, place: &str) -> Result<Vec<String>> {
    let said = ctx.read(program(ctx).args(["list", place])).context("list the copies")?;
    Ok(said.lines().map(str::to_owned).filter(|name| catalogue::is_id(name)).collect())
}

/// The name of a copy, or of the newest for `latest`.
///
/// # Errors
/// There is none.
pub(crate) fn find(ctx: &Ctx, place: &str, wanted: &str) -> Result<String> {
    let names = names(ctx, place)?;
    let found = match wanted {
        "latest" => names.last(),
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
