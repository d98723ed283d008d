//! A backup while it is written: a folder under another name, which becomes a backup in one moment.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use archive::file;

use super::manifest::{self, MANIFEST, Manifest, SUMS};

/// A backup that is being written. Unless it is published, it goes away with this value.
pub(crate) struct Partial {
    folder: PathBuf,
    target: PathBuf,
    is_kept: bool,
}

impl Partial {
    /// A new folder, which gets the name `target` in the end.
    ///
    /// # Errors
    /// The disk does not take it, or there is such a backup already.
    pub(crate) fn begin(folder: &Path, target: &Path) -> Result<Partial> {
        ensure!(!target.exists(), "there is a backup {} already", target.display());
        // A backup holds everybody's data: it is for this user alone.
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .with_context(|| format!("make {}", folder.display()))?;
        Ok(Partial { folder: folder.to_owned(), target: target.to_owned(), is_kept: false })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Takes a folder inside, which is a whole backup already, as the backup itself.
    ///
    /// # Errors
    /// The disk does not do it.
    pub(crate) fn adopt(self, inside: &Path) -> Result<()> {
        let adopt = || -> std::io::Result<()> {
            sync_folder(inside)?;
            fs::rename(inside, &self.target)?;
            self.target.parent().map_or(Ok(()), sync_folder)
        };
        adopt().with_context(|| format!("put the backup in {}", self.target.display()))
    }

    /// Writes the manifest and the sums, brings all of it to the disk, and gives it its name.
    ///
    /// # Errors
    /// The disk does not take it: then there is no backup.
    pub(crate) fn publish(mut self, manifest: &Manifest) -> Result<PathBuf> {
        let text = serde_json::to_string_pretty(manifest)? + "\n";
        let mut sums: BTreeMap<String, String> =
            manifest.files.iter().map(|(name, file)| (name.clone(), file.sha256.clone())).collect();
        let (_, sum) = file::digest(text.as_bytes())?;
        sums.insert(MANIFEST.to_owned(), sum);
        write_durably(&self.folder.join(MANIFEST), text.as_bytes())?;
        write_durably(&self.folder.join(SUMS), manifest::render_sums(&sums).as_bytes())?;
        let publish = || -> std::io::Result<()> {
            sync_folder(&self.folder)?;
            fs::rename(&self.folder, &self.target)?;
            self.target.parent().map_or(Ok(()), sync_folder)
        };
        publish().with_context(|| format!("put the backup in {}", self.target.display()))?;
        self.is_kept = true;
        Ok(self.target.clone())
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.is_kept {
            // The next backup removes what stays; the reason of the failure is what matters now.
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// Writes a file and waits until it is on the disk.
pub(crate) fn write_durably(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let mut file = File::create(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().with_context(|| format!("write {}", path.display()))
}

/// Waits until a folder's list of names is on the disk.
pub(crate) fn sync_folder(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}
