//! Where backups lie: the folder of a project, the backups in it, and how one gets there whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, bail, ensure};
use archive::file;

use super::latest;
use super::manifest::{self, MANIFEST, Manifest, SUMS, VERIFICATION};
use super::partial::{Partial, sync_folder, write_durably};
use crate::ctx::Ctx;
use crate::stack::project::{Project, shown};

/// Stands before the name of a folder that is being written.
const PARTIAL: &str = ".partial-";
/// Names the backup whose restore is between its two moments.
const SWAP_NOTE: &str = ".restoring";
/// Names the backup whose restore has put data aside of which there is no copy yet.
const REPLACED_NOTE: &str = ".replaced";

/// The backups of one project.
#[derive(Clone, Debug)]
pub(crate) struct Catalogue {
    folder: PathBuf,
    project: String,
    /// Whether its disk may get full.
    may_fill: bool,
}

/// A backup whose manifest was read; its data may still be damaged.
#[derive(Clone, Debug)]
pub(crate) struct Backup {
    pub(crate) folder: PathBuf,
    pub(crate) manifest: Manifest,
    /// SHA-256 of manifest.json: what a verification is bound to.
    pub(crate) manifest_sha256: String,
}

impl Backup {
    pub(crate) fn id(&self) -> &str {
        &self.manifest.id
    }

    /// The path of one of its files.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

impl Catalogue {
    /// The project's folder, which need not exist: `backups/PROJECT`, or `BACKUP_DIR/PROJECT`.
    pub(crate) fn of(ctx: &Ctx, project: &Project) -> Catalogue {
        let place = match project.value("BACKUP_DIR") {
            "" => "backups",
            place => place,
        };
        Catalogue::at(&ctx.root().join(place), &project.name)
    }

    /// The folder of a project in a place where backups of several lie.
    pub(crate) fn at(place: &Path, project: &str) -> Catalogue {
        Catalogue { project: project.to_owned(), ..Catalogue::in_folder(&place.join(project)) }
    }

    /// A folder with backups of whatever project.
    pub(crate) fn in_folder(folder: &Path) -> Catalogue {
        Catalogue { folder: folder.to_owned(), project: String::new(), may_fill: false }
    }

    /// The same, for whoever accepts (or does not) that a backup fills its disk.
    pub(crate) fn filling(self, may_fill: bool) -> Catalogue {
        Catalogue { may_fill, ..self }
    }

    pub(crate) fn may_fill(&self) -> bool {
        self.may_fill
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folders of backups, whole or damaged, oldest first.
    ///
    /// # Errors
    /// The folder is there and cannot be read.
    pub(crate) fn ids(&self) -> Result<BTreeSet<String>> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(BTreeSet::new());
            }
            Err(error) => {
                return Err(error).with_context(|| format!("read {}", self.folder.display()));
            }
        };
        let mut ids = BTreeSet::new();
        for entry in entries {
            let entry = entry.with_context(|| format!("read {}", self.folder.display()))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if is_id(&name) && entry.path().is_dir() {
                ids.insert(name);
            }
        }
        Ok(ids)
    }

    /// Every backup, oldest first, or why it is none.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub(crate) fn list(&self) -> Result<Vec<(String, Result<Backup>)>> {
        let ids = self.ids()?.into_iter();
        Ok(ids
            .map(|id| {
                let backup = self.open(&id);
                (id, backup)
            })
            .collect())
    }

    /// Looks at the folder: its sums, its manifest, the names and lengths of its files. The data
    /// itself is not read; [`check`] does that.
    ///
    /// # Errors
    /// It is not there, or something of it is missing, too much or not as it was written.
    pub(crate) fn open(&self, id: &str) -> Result<Backup> {
        let folder = self.folder.join(id);
        ensure!(folder.is_dir(), "there is no backup {id} in {}", self.folder.display());
        let backup = open_folder(&folder)?;
        ensure!(
            backup.manifest.id == id,
            "the manifest in {} is that of {}",
            folder.display(),
            backup.manifest.id
        );
        ensure!(
            backup.manifest.project == self.project,
            "the backup in {} is one of `{}`, not of `{}`",
            folder.display(),
            backup.manifest.project,
            self.project
        );
        Ok(backup)
    }

    /// The backup of that name, or for `latest` the newest that is whole, not ahead of the clock, and not what a restore
    /// has replaced; where such a one is passed over, that is told.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn find(&self, ctx: &Ctx, wanted: &str) -> Result<Backup> {
        if wanted == "latest" {
            return latest::of(self, ctx);
        }
        ensure!(
            is_id(wanted),
            "{wanted:?} is no backup's name; `cargo xtask backup list` shows them, and `latest` is \
             the newest"
        );
        self.open(wanted)
    }

    /// A new folder to write a backup into, under a name that no listing shows.
    ///
    /// # Errors
    /// The disk does not take it, or there is one of this second already.
    pub(crate) fn begin(&self, id: &str) -> Result<Partial> {
        Partial::begin(&self.folder.join(format!("{PARTIAL}{id}")), &self.folder.join(id))
    }

    /// Notes that a restore of this backup has begun to replace data.
    ///
    /// # Errors
    /// The disk does not take it.
    pub(crate) fn note_swap(&self, id: &str) -> Result<()> {
        fs::create_dir_all(&self.folder)
            .with_context(|| format!("make {}", self.folder.display()))?;
        write_durably(&self.folder.join(SWAP_NOTE), format!("{id}\n").as_bytes())
    }

    /// Notes that the restore has replaced everything, or nothing.
    ///
    /// # Errors
    /// The note does not go away.
    pub(crate) fn forget_swap(&self) -> Result<()> {
        let path = self.folder.join(SWAP_NOTE);
        fs::remove_file(&path).with_context(|| format!("delete {}", path.display()))
    }

    /// The backup whose restore was interrupted between PostgreSQL and Redis, if there is one.
    pub(crate) fn unfinished_swap(&self) -> Option<String> {
        let text = fs::read_to_string(self.folder.join(SWAP_NOTE)).ok()?;
        Some(text.trim().to_owned())
    }

    /// Notes that what a restore has replaced waits for its copy.
    ///
    /// # Errors
    /// The disk does not take it.
    pub(crate) fn note_replaced(&self, id: &str) -> Result<()> {
        write_durably(&self.folder.join(REPLACED_NOTE), format!("{id}\n").as_bytes())
    }

    /// Notes that nothing waits any more.
    ///
    /// # Errors
    /// The note does not go away.
    pub(crate) fn forget_replaced(&self) -> Result<()> {
        let path = self.folder.join(REPLACED_NOTE);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("delete {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// The backup whose restore has put data aside that waits for its copy, if there is one.
    pub(crate) fn waiting_copy(&self) -> Option<String> {
        let text = fs::read_to_string(self.folder.join(REPLACED_NOTE)).ok()?;
        Some(text.trim().to_owned())
    }

    /// Deletes a backup: it loses its name first, so that none is ever listed half deleted.
    ///
    /// # Errors
    /// It does not go away.
    pub(crate) fn delete(&self, id: &str) -> Result<()> {
        let (from, to) = (self.folder.join(id), self.folder.join(format!("{PARTIAL}{id}")));
        fs::rename(&from, &to)
            .and_then(|()| sync_folder(&self.folder))
            .and_then(|()| fs::remove_dir_all(&to))
            .with_context(|| format!("delete {}", from.display()))
    }

    /// Removes what an interrupted command left. Call it under the project's lock only.
    ///
    /// # Errors
    /// Something does not go away.
    pub(crate) fn sweep(&self, ctx: &Ctx) -> Result<()> {
        let Ok(entries) = fs::read_dir(&self.folder) else {
            return Ok(());
        };
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with(PARTIAL) {
                let path = entry.path();
                ctx.ui.say(format!("removing an unfinished backup: {}", shown(ctx, &path)));
                fs::remove_dir_all(&path).with_context(|| format!("delete {}", path.display()))?;
            }
        }
        Ok(())
    }
}

/// `20261124T131502Z`
pub(crate) fn id_of(time: SystemTime) -> String {
    let text = humantime::format_rfc3339_seconds(time).to_string();
    text.replace(['-', ':'], "")
}

/// When a backup of this name began.
pub(crate) fn time_of(id: &str) -> Option<SystemTime> {
    if !is_id(id) {
        return None;
    }
    let (date, time) = id.split_once('T')?;
    let text = format!(
        "{}-{}-{}T{}:{}:{}Z",
        &date[..4],
        &date[4..6],
        &date[6..],
        &time[..2],
        &time[2..4],
        &time[4..6]
    );
    humantime::parse_rfc3339(&text).ok()
}

pub(crate) fn is_id(name: &str) -> bool {
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    name.len() == 16
        && name.is_ascii()
        && is_digits(&name[..8])
        && &name[8..9] == "T"
        && is_digits(&name[9..15])
        && name.ends_with('Z')
}

/// Opens a backup wherever it lies; see [`Catalogue::open`].
///
/// # Errors
/// As there.
pub(crate) fn open_folder(folder: &Path) -> Result<Backup> {
    let read = |name: &str| {
        fs::read_to_string(folder.join(name))
            .with_context(|| format!("read {name} of the backup in {}", folder.display()))
    };
    let sums = manifest::parse_sums(&read(SUMS)?)?;
    let text = read(MANIFEST)?;
    let (_, sum) = file::digest(text.as_bytes())?;
    ensure!(
        sums.get(MANIFEST) == Some(&sum),
        "{MANIFEST} in {} is not the one that was written: its SHA-256 differs from {SUMS}",
        folder.display()
    );
    let manifest = Manifest::parse(&text)?;
    let findings = compare_names(folder, &manifest, &sums)?;
    ensure!(findings.is_empty(), "the backup in {}: {}", folder.display(), findings.join("; "));
    Ok(Backup { folder: folder.to_owned(), manifest, manifest_sha256: sum })
}

/// What is missing, too much, or of another length.
fn compare_names(
    folder: &Path,
    manifest: &Manifest,
    sums: &BTreeMap<String, String>,
) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    let mut present = BTreeMap::new();
    for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        present.insert(name, entry.metadata()?.len());
    }
    for (name, file) in &manifest.files {
        if sums.get(name) != Some(&file.sha256) {
            findings.push(format!("{MANIFEST} and {SUMS} differ about {name}"));
        }
        match present.remove(name) {
            None => findings.push(format!("{name} is missing")),
            Some(bytes) if bytes != file.bytes => {
                findings.push(format!("{name} has {bytes} bytes and not {}", file.bytes));
            }
            Some(_) => {}
        }
    }
    for name in [MANIFEST, SUMS, VERIFICATION] {
        present.remove(name);
    }
    let is_unknown = |name: &&String| *name != MANIFEST && !manifest.files.contains_key(*name);
    findings
        .extend(sums.keys().filter(is_unknown).map(|n| format!("{SUMS} has {n}, no data file")));
    findings.extend(present.keys().map(|name| format!("{name} does not belong to it")));
    Ok(findings)
}

/// Reads every byte of a backup and compares it with the sums.
///
/// # Errors
/// A file cannot be read, or holds something else than what was written; all such are named.
pub(crate) fn check(ctx: &Ctx, backup: &Backup) -> Result<()> {
    let mut findings = Vec::new();
    for (name, wanted) in &backup.manifest.files {
        ctx.check_interrupted()?;
        let path = backup.path(name);
        let opened = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        let (bytes, sum) =
            file::digest(opened).with_context(|| format!("read {}", path.display()))?;
        if bytes != wanted.bytes || sum != wanted.sha256 {
            findings.push(name.as_str());
        }
    }
    if findings.is_empty() {
        return Ok(());
    }
    bail!(
        "the backup {} is damaged: {} no longer what was written. Nothing else was touched; \
         `cargo xtask backup list` shows the others",
        backup.id(),
        if findings.len() == 1 {
            format!("{} is", findings[0])
        } else {
            format!("{} are", findings.join(", "))
        }
    );
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn names_are_times() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_524_902);
        let id = id_of(time);
        assert_eq!(id, "20261124T125502Z");
        assert_eq!(time_of(&id), Some(time));
        for other in ["", "20261124T12550ZZ", ".partial-20261124T125502Z", "20261332T125502Z"] {
            assert_eq!(time_of(other), None, "{other}");
        }
    }
}
