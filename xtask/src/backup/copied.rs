//! Which backups have a copy away from the host, as this host has made them: `backup push` writes it down when a copy was
//! read back. Nobody is asked for it, because the keys of the place are not here when `status` and `doctor` run.
//!
//! It is one file beside the backups and not one in each: there it would be a file that an older checkout does not know,
//! which takes the backup for damaged then; and the newest copy stays known when its backup was deleted here.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::time::SystemTime;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::ahead::is_ahead;
use super::catalogue::Catalogue;
use super::partial;

/// In the folder of the project's backups.
const FILE: &str = ".copied.json";

/// A copy that was made.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Copy {
    /// As in `BACKUP_REMOTE`, with the project behind it.
    pub(crate) place: String,
    /// RFC 3339.
    pub(crate) copied_at: String,
}

/// The last copy of each backup, by its name.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Copies(BTreeMap<String, Copy>);

impl Copies {
    /// Those of a project; none where they cannot be read.
    pub(crate) fn of(catalogue: &Catalogue) -> Copies {
        let text = fs::read_to_string(catalogue.folder().join(FILE)).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// When a backup was copied to a place.
    pub(crate) fn time(&self, id: &str, place: &str) -> Option<&str> {
        let copy = self.0.get(id).filter(|copy| copy.place == place)?;
        Some(&copy.copied_at)
    }

    /// The newest backup that has a copy in a place.
    pub(crate) fn newest(&self, place: &str, now: SystemTime) -> Option<&str> {
        let there = self.0.iter().filter(|(id, copy)| copy.place == place && !is_ahead(id, now));
        there.map(|(id, _)| id.as_str()).next_back()
    }

    /// Forgets those of backups that are not here any more, but for the newest of each place.
    fn forget_deleted(&mut self, is_here: impl Fn(&str) -> bool, now: SystemTime) {
        let mut places: BTreeMap<String, String> = BTreeMap::new();
        for (id, copy) in self.0.iter().filter(|(id, _)| !is_ahead(id, now)) {
            places.insert(copy.place.clone(), id.clone());
        }
        self.0.retain(|id, copy| is_here(id) || places.get(&copy.place) == Some(id));
    }
}

/// Writes down that a backup has a copy now.
///
/// # Errors
/// The disk does not take it.
pub(crate) fn remember(catalogue: &Catalogue, id: &str, place: &str) -> Result<()> {
    let here = catalogue.ids()?;
    let mut copies = Copies::of(catalogue);
    let now = SystemTime::now();
    let copied_at = humantime::format_rfc3339_seconds(now).to_string();
    copies.0.insert(id.to_owned(), Copy { place: place.to_owned(), copied_at });
    copies.forget_deleted(|id| here.contains(id), now);
    let text = serde_json::to_string_pretty(&copies)? + "\n";
    let path = catalogue.folder().join(FILE);
    let write = || -> std::io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(catalogue.folder())?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(&path)?;
        partial::sync_folder(catalogue.folder())
    };
    write().with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_was_copied_is_known_by_its_place_also_when_it_was_deleted_here() {
        let folder = tempfile::tempdir().unwrap();
        let catalogue = Catalogue::at(folder.path(), "shop");
        let now = SystemTime::now();
        let newest = |place: &str| Copies::of(&catalogue).newest(place, now).map(str::to_owned);
        assert_eq!(newest("s3://a/shop"), None);
        let make = |id: &str| fs::create_dir_all(catalogue.folder().join(id)).unwrap();
        let [first, second, ahead] = ["20261101T000000Z", "20261102T000000Z", "99991101T000000Z"];
        [first, second, ahead].iter().for_each(|id| make(id));
        for (id, place) in [(first, "s3://a/shop"), (second, "s3://a/shop"), (ahead, "s3://a/shop")]
        {
            remember(&catalogue, id, place).unwrap();
        }
        assert_eq!(newest("s3://a/shop").as_deref(), Some(second));
        let copies = Copies::of(&catalogue);
        assert!(copies.time(first, "s3://a/shop").is_some());
        // Elsewhere there is none.
        assert_eq!((newest("s3://b/shop"), copies.time(first, "s3://b/shop")), (None, None));
        let delete = |path: &Path| fs::remove_dir_all(path).unwrap();
        [first, second, ahead].iter().for_each(|id| delete(&catalogue.folder().join(id)));
        make("20261103T000000Z");
        remember(&catalogue, "20261103T000000Z", "/mnt/b/shop").unwrap();
        let copies = Copies::of(&catalogue);
        assert_eq!(copies.0.len(), 2, "{copies:?}");
        assert_eq!(copies.newest("/mnt/b/shop", now), Some("20261103T000000Z"));
        assert_eq!(copies.newest("s3://a/shop", now), Some(second));
    }
}
