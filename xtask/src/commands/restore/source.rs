//! Where the backup is that is to be restored: among the project's own, in a folder, or in a copy.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};

use crate::backup::ahead::is_ahead;
use crate::backup::catalogue::{self, Backup, Catalogue};
use crate::backup::fetched::Fetched;
use crate::backup::manifest::MANIFEST;
use crate::backup::offsite;
use crate::cli::RestoreArgs;
use crate::ctx::Ctx;
use crate::stack::project::Project;

/// What was found, before anything is fetched.
#[derive(Debug)]
pub(super) enum Source {
    /// A folder of this host.
    Backup(Box<Backup>),
    /// A copy that `backup push` made, to be fetched.
    Copy { place: String, name: String },
}

impl Source {
    /// Looks for what is asked for.
    ///
    /// # Errors
    /// It is not there, or not whole.
    pub(super) fn find(
        ctx: &Ctx,
        catalogue: &Catalogue,
        args: &RestoreArgs,
        project: &str,
    ) -> Result<Source> {
        let Some(place) = &args.from else {
            return Ok(Source::Backup(Box::new(catalogue.find(ctx, &args.id)?)));
        };
        if offsite::is_address(place) {
            let name = offsite::find(ctx, place, &args.id)?;
            return Ok(Source::Copy { place: place.clone(), name });
        }
        // The program that fetches runs in another folder.
        let place = std::path::absolute(place).with_context(|| format!("find {place}"))?;
        Source::in_folder(ctx, &place, &args.id, project)
    }

    /// In a folder with backups or copies, or one that is itself a backup or a copy.
    fn in_folder(ctx: &Ctx, place: &Path, id: &str, project: &str) -> Result<Source> {
        let (folder, passed_over) = in_place(place, id, project)?;
        for newer in &passed_over {
            ctx.ui.warn(format!("passed over, though it is newer: {newer}"));
        }
        let source = Source::of(&folder)?;
        let name = match &source {
            Source::Backup(backup) => backup.id(),
            Source::Copy { name, .. } => name,
        };
        ensure!(id == "latest" || id == name, "{} is the backup {name}, not {id}", place.display());
        Ok(source)
    }

    fn of(folder: &Path) -> Result<Source> {
        let (true, Some(place), Some(name)) =
            (is_copy(folder), folder.parent(), folder.file_name())
        else {
            return Ok(Source::Backup(Box::new(catalogue::open_folder(folder)?)));
        };
        let name = name.to_string_lossy().into_owned();
        Ok(Source::Copy { place: place.display().to_string(), name })
    }

    /// The backup itself; a copy is fetched, into a folder that is there for as long as the second value.
    ///
    /// # Errors
    /// A copy is damaged, or cannot be decrypted.
    pub(super) fn open(
        self,
        ctx: &Ctx,
        project: &Project,
        args: &RestoreArgs,
    ) -> Result<(Backup, Option<Fetched>)> {
        match self {
            Source::Backup(backup) => Ok((*backup, None)),
            Source::Copy { place, name } => {
                let fetched = Fetched::make(ctx, project)?;
                let to = fetched.folder().join(&name);
                let identity = args.identity.as_ref();
                let backup = offsite::fetch(ctx, &place, &name, &to, identity)?;
                Ok((backup, Some(fetched)))
            }
        }
    }
}

fn is_copy(folder: &Path) -> bool {
    folder.join(offsite::INDEX).is_file()
}

/// A folder that is a backup or a copy, or the one in it; for `latest` the newest that is whole and not what a restore has
/// replaced (of an encrypted copy nobody can tell), and what is wrong with newer ones.
fn in_place(place: &Path, id: &str, project: &str) -> Result<(PathBuf, Vec<String>)> {
    if is_copy(place) || place.join(MANIFEST).is_file() {
        return Ok((place.to_owned(), Vec::new()));
    }
    ensure!(place.is_dir(), "there is no folder {}; is its disk mounted?", place.display());
    let ids = Catalogue::in_folder(place).ids()?;
    if ids.contains(id) {
        return Ok((place.join(id), Vec::new()));
    }
    let now = SystemTime::now();
    let mut folders = ids.iter().rev().filter(|id| !is_ahead(id, now)).map(|name| place.join(name));
    // A copy that was interrupted has no index, and mostly looks like a damaged backup.
    let mut passed_over = Vec::new();
    let newest = folders.find(|folder| {
        let reason = match Source::of(folder) {
            Ok(Source::Backup(backup)) if backup.manifest.is_safety() => format!(
                "it was taken {}, and what a restore has replaced is never `latest`; take it by its name",
                backup.manifest.reason
            ),
            Ok(_) => return true,
            Err(error) => format!("it is not whole: {error:#}"),
        };
        passed_over.push(format!("{}, {reason}", folder.display()));
        false
    });
    let newest = newest.filter(|_| id == "latest").with_context(|| {
        let there = Vec::from_iter(ids).join(", ");
        let inner = place.join(project);
        let instead = if inner.is_dir() {
            format!("; those of `{project}` are in {}", inner.display())
        } else if there.is_empty() {
            String::new()
        } else {
            format!("; there is {there}")
        };
        format!("{} is no backup, and {id} is not among those in it{instead}", place.display())
    })?;
    Ok((newest, passed_over))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// What `backup push` leaves in a folder, but for the data.
    fn copy(place: &Path, name: &str, is_whole: bool) {
        let folder = place.join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("manifest.json.age"), "").unwrap();
        if is_whole {
            fs::write(folder.join(offsite::INDEX), "{}").unwrap();
        }
    }

    fn found(place: &Path, id: &str) -> Result<(String, String)> {
        let ctx = crate::ctx::tests::ctx(crate::ctx::Options::default());
        match Source::in_folder(&ctx, place, id, "shop")? {
            Source::Copy { place, name } => Ok((place, name)),
            Source::Backup(backup) => panic!("{backup:?}"),
        }
    }

    #[test]
    fn the_newest_whole_copy_in_a_folder_is_found() {
        let scratch = tempfile::tempdir().unwrap();
        let place = scratch.path().join("shop");
        copy(&place, "20261122T010000Z", true);
        copy(&place, "20261123T010000Z", true);
        copy(&place, "20261124T010000Z", false);
        copy(&place, "99991124T010000Z", true);
        let shown = place.display().to_string();
        let copy = |name: &str| (shown.clone(), name.to_owned());
        assert_eq!(found(&place, "latest").unwrap(), copy("20261123T010000Z"));
        assert_eq!(found(&place, "20261122T010000Z").unwrap(), copy("20261122T010000Z"));
        let itself = place.join("20261122T010000Z");
        assert_eq!(found(&itself, "latest").unwrap(), copy("20261122T010000Z"));
        assert!(found(&itself, "20261123T010000Z").is_err());
        assert!(found(&place, "20261124T010000Z").is_err());
        let missing = found(&place, "20260101T010000Z").unwrap_err().to_string();
        assert!(missing.contains("20261122T010000Z"), "{missing}");
        // One folder too high, as BACKUP_REMOTE has it.
        let above = found(scratch.path(), "latest").unwrap_err().to_string();
        assert!(above.contains(&shown), "{above}");
        let missing = found(&place.join("none"), "latest").unwrap_err().to_string();
        assert!(missing.contains("mounted"), "{missing}");
    }
}
