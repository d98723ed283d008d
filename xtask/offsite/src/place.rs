//! Where copies lie: a bucket of S3 or of a server that speaks like it, or a folder.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use futures::TryStreamExt;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::{ClientConfigKey, ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Serialize};

/// The object that is written last: what the others are.
pub const INDEX: &str = "copy.json";
/// Ends the name of an encrypted object.
pub const ENCRYPTED: &str = ".age";
/// An index is small; whatever is larger is none.
const LONGEST_INDEX: u64 = 4 << 20;

/// A place for copies.
#[derive(Clone)]
pub struct Place {
    pub(crate) store: Arc<dyn ObjectStore>,
    prefix: Key,
    shown: String,
}

/// What a copy consists of.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Index {
    /// Who can read it, as age recipients; empty where it is not encrypted.
    pub recipients: Vec<String>,
    /// By the name of the object.
    pub objects: BTreeMap<String, Object>,
}

/// An object as it is stored.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct Object {
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
}

impl Index {
    /// Whether an object is a file of this copy in its other form: as it is where the copy is encrypted,
    /// or the reverse. That is what an interrupted push leaves behind, where another one with other
    /// recipients has made the copy.
    pub(crate) fn has_other_form_of(&self, object: &str) -> bool {
        let other = match object.strip_suffix(ENCRYPTED) {
            Some(file) => file.to_owned(),
            None => format!("{object}{ENCRYPTED}"),
        };
        !self.objects.contains_key(object) && self.objects.contains_key(&other)
    }
}

impl Place {
    /// Opens `s3://BUCKET/PREFIX` or a folder. The key, the region and the end point of S3 come from
    /// the environment, under the names that its own tools use (`AWS_ACCESS_KEY_ID` and so on).
    ///
    /// # Errors
    /// It is neither, the folder is not there, or the environment does not fit.
    pub fn open(place: &str) -> Result<Place> {
        let Some((scheme, rest)) = place.split_once("://") else {
            return Place::folder(Path::new(place));
        };
        ensure!(
            scheme == "s3",
            "{place}: copies go to s3://BUCKET/PREFIX or to a folder, and not to {scheme}://"
        );
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        ensure!(!bucket.is_empty(), "{place} names no bucket: s3://BUCKET/PREFIX");
        // A second time it changes nothing, and says so.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let end_point = std::env::var("AWS_ENDPOINT_URL").unwrap_or_default();
        let store = AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            // Only an end point that says so itself: a server in the next room.
            .with_allow_http(end_point.starts_with("http://"))
            // The library gives every request 30 s, its body included: a large object over a thin line never
            // came through, and is no worse for being slow. What gives up is silence.
            .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::Timeout), "1day")
            .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::ReadTimeout), "60s")
            .build()
            .with_context(|| format!("open {place}; the key comes from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and another server than Amazon's from AWS_ENDPOINT_URL"))?;
        Ok(Place { store: Arc::new(store), prefix: Key::from(prefix), shown: place.to_owned() })
    }

    /// The same to write to: a folder that is missing is made, and the one around it is not. Where that
    /// is missing, a disk is not mounted, and copies would fill the one below.
    ///
    /// # Errors
    /// As [`Place::open`], or there is nothing to make the folder in.
    pub fn make(place: &str) -> Result<Place> {
        let folder = Path::new(place);
        if !place.contains("://") && !folder.is_dir() {
            let around = folder.parent().filter(|parent| !parent.as_os_str().is_empty());
            let around = around.unwrap_or(Path::new("."));
            ensure!(
                around.is_dir(),
                "{} is not there, where copies are to go: mount its disk, or make it once by hand: \
                 `mkdir -p -m 700 {0}`",
                around.display()
            );
            fs::create_dir(folder).with_context(|| format!("make {place}"))?;
        }
        Place::open(place)
    }

    fn folder(folder: &Path) -> Result<Place> {
        let store = LocalFileSystem::new_with_prefix(folder)
            .with_context(|| format!("open {}", folder.display()))?
            .with_fsync(true);
        let shown = folder.display().to_string();
        Ok(Place { store: Arc::new(store), prefix: Key::default(), shown })
    }

    pub(crate) fn key(&self, copy: &str, object: &str) -> Key {
        self.prefix.clone().join(copy).join(object)
    }

    /// A copy, for messages.
    pub(crate) fn show(&self, copy: &str) -> String {
        format!("{}/{copy}", self.shown.trim_end_matches('/'))
    }

    /// The names of whole copies, in order.
    ///
    /// # Errors
    /// The place does not answer.
    pub async fn copies(&self) -> Result<Vec<String>> {
        let listed = self.store.list_with_delimiter(Some(&self.prefix)).await;
        let listed = listed.with_context(|| format!("list {}", self.shown))?;
        let mut names = Vec::new();
        for folder in listed.common_prefixes {
            let Some(name) = folder.filename() else { continue };
            match self.store.head(&folder.clone().join(INDEX)).await {
                Ok(_) => names.push(name.to_owned()),
                // Not whole: the index comes last.
                Err(object_store::Error::NotFound { .. }) => {}
                // A copy that cannot be asked for is not one that is not there: the latest would be an older one.
                Err(error) => {
                    return Err(error).with_context(|| format!("look at {}", self.show(name)));
                }
            }
        }
        names.sort();
        Ok(names)
    }

    /// What a copy consists of; none where there is no whole copy of that name.
    ///
    /// # Errors
    /// The place does not answer, or what it has is no index.
    pub async fn index(&self, copy: &str) -> Result<Option<Index>> {
        let key = self.key(copy, INDEX);
        let got = match self.store.get(&key).await {
            Ok(got) => got,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("read {}", self.show(copy))),
        };
        if got.meta.size > LONGEST_INDEX {
            bail!("{} is no copy of a backup: its {INDEX} is too large", self.show(copy));
        }
        let bytes = got.bytes().await.with_context(|| format!("read {}", self.show(copy)))?;
        let index = serde_json::from_slice(&bytes)
            .with_context(|| format!("read {INDEX} of {}", self.show(copy)))?;
        Ok(Some(index))
    }

    /// The names of all objects below a copy.
    pub(crate) async fn objects(&self, copy: &str) -> Result<Vec<String>> {
        let prefix = self.prefix.clone().join(copy);
        let listed: Vec<_> = self
            .store
            .list(Some(&prefix))
            .try_collect()
            .await
            .with_context(|| format!("list {}", self.show(copy)))?;
        Ok(listed.iter().filter_map(|meta| meta.location.filename().map(str::to_owned)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The server of the other tests speaks HTTP, so that nothing of theirs would miss HTTPS.
    #[test]
    fn a_bucket_is_reached_over_https() {
        let place = Place::open("s3://bucket/copies").unwrap();
        assert_eq!(place.show("one"), "s3://bucket/copies/one");
        assert!(Place::open("ftp://bucket/copies").is_err());
    }
}
