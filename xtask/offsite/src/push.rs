//! Makes a copy, and reads it back before it counts.

use std::fs;
use std::path::Path;

use age::x25519::Recipient;
use anyhow::{Context, Result, anyhow, ensure};
use object_store::ObjectStoreExt;

use crate::place::{ENCRYPTED, INDEX, Index, Place};
use crate::transfer;

/// Copies the files of a folder to a place, under the folder's name. Every object is read back and
/// compared; only then the index is written, which makes it a copy.
///
/// # Errors
/// The place does not take a file, or gives back something else, or keeps what an interrupted push has
/// left; a copy of that name is there already; a recipient is none.
pub async fn push(folder: &Path, place: &Place, recipients: &[String]) -> Result<Index> {
    let name =
        folder.file_name().and_then(|name| name.to_str()).context("the folder has no name")?;
    expect_none(place, name).await?;
    let keys = recipients.iter().map(|text| parse(text)).collect::<Result<Vec<Recipient>>>()?;
    let mut index = Index { recipients: recipients.to_vec(), ..Index::default() };
    let suffix = if keys.is_empty() { "" } else { ENCRYPTED };
    for file in files(folder)? {
        let object = format!("{file}{suffix}");
        let key = place.key(name, &object);
        let shown = format!("{}/{object}", place.show(name));
        let stored = transfer::store(place, &key, &folder.join(&file), keys.clone())
            .await
            .with_context(|| format!("copy {file} to {shown}"))?;
        let found =
            transfer::look(place, &key).await.with_context(|| format!("read {shown} back"))?;
        ensure!(found == stored, "{shown} is not what was written: {found:?}, {stored:?}");
        println!("{object}  {} bytes", stored.bytes);
        index.objects.insert(object, stored);
    }
    // Another host may have been faster meanwhile: what would be cleared away is its copy then.
    expect_none(place, name).await?;
    clear(place, name, &index).await?;
    let text = serde_json::to_vec_pretty(&index)?;
    place
        .store
        .put(&place.key(name, INDEX), text.into())
        .await
        .with_context(|| format!("write {INDEX} of {}", place.show(name)))?;
    let written = place.index(name).await?;
    ensure!(
        written.as_ref() == Some(&index),
        "{INDEX} of {} is not what was written",
        place.show(name)
    );
    Ok(index)
}

async fn expect_none(place: &Place, name: &str) -> Result<()> {
    let index = place.index(name).await?;
    ensure!(index.is_none(), "{} is a whole copy already; nothing was changed", place.show(name));
    Ok(())
}

/// Deletes what a push that was interrupted has left in the other form: readable by everybody beside the
/// encrypted copy, say. Without an index it was never a copy.
async fn clear(place: &Place, name: &str, index: &Index) -> Result<()> {
    for object in place.objects(name).await? {
        if index.has_other_form_of(&object) {
            let shown = format!("{}/{object}", place.show(name));
            place.store.delete(&place.key(name, &object)).await.with_context(|| {
                format!(
                    "delete {shown}, which an interrupted push with other recipients has left. Delete \
                     it with a key that may, and push again: until then there is no copy"
                )
            })?;
            println!("{object}  deleted: an interrupted push has left it");
        }
    }
    Ok(())
}

fn parse(text: &str) -> Result<Recipient> {
    text.parse().map_err(|reason: &str| {
        anyhow!("{text:?} is no recipient of age (age1…): {reason}; `age-keygen` makes a pair")
    })
}

fn files(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    let entries = fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        ensure!(entry.file_type()?.is_file(), "{name} in {} is no file", folder.display());
        names.push(name);
    }
    ensure!(!names.is_empty(), "{} is empty", folder.display());
    names.sort();
    Ok(names)
}
