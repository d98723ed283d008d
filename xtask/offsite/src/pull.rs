//! Fetches a copy into a folder.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use age::IdentityFile;
use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::place::{ENCRYPTED, Place};
use crate::transfer::{self, Destination};

/// Fetches a copy into a folder that is not there yet, and compares every object with the index.
///
/// # Errors
/// There is no such copy, an object is damaged, missing or too much, or none of the identities can
/// decrypt it.
pub async fn pull(place: &Place, name: &str, folder: &Path, identity: Option<&Path>) -> Result<()> {
    let shown = place.show(name);
    let index = place.index(name).await?;
    let index = index.with_context(|| format!("there is no whole copy {shown}"))?;
    ensure!(
        index.recipients.is_empty() || identity.is_some(),
        "{shown} is encrypted for {}; pass `--identity FILE`, the file with the secret key",
        index.recipients.join(", ")
    );
    for object in place.objects(name).await? {
        ensure!(
            object == crate::place::INDEX
                || index.objects.contains_key(&object)
                || index.has_other_form_of(&object),
            "{shown} has an object too much: {object}"
        );
    }
    fs::DirBuilder::new()
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("make {}", folder.display()))?;
    for (object, wanted) in &index.objects {
        let is_encrypted = !index.recipients.is_empty();
        let file = object.strip_suffix(ENCRYPTED).filter(|_| is_encrypted).unwrap_or(object);
        ensure!(!file.contains('/') && file != "..", "{shown}: {object:?} is no name of a file");
        let path = folder.join(file);
        let to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let to = to.with_context(|| format!("make {}", path.display()))?;
        let to = if is_encrypted { Destination::Decrypted(to) } else { Destination::Plain(to) };
        let identities = identity.map(read_identities).transpose()?.unwrap_or_default();
        let fetched = transfer::fetch(place, &place.key(name, object), identities, to).await;
        let fetched = fetched.with_context(|| format!("fetch {shown}/{object}"))?;
        if fetched != *wanted {
            bail!("{shown}/{object} is damaged: it is not what was copied there");
        }
        println!("{file}  {} bytes", fetched.bytes);
    }
    Ok(())
}

fn read_identities(path: &Path) -> Result<Vec<Box<dyn age::Identity + Send>>> {
    let shown = path.display().to_string();
    let file = IdentityFile::from_file(shown.clone()).with_context(|| format!("read {shown}"))?;
    let identities = file.into_identities().map_err(|error| anyhow!("read {shown}: {error}"))?;
    Ok(identities.into_iter().map(|identity| identity as Box<dyn age::Identity + Send>).collect())
}
