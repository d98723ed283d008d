//! What an image is made from, as one digest, and the memory of which image came of it.
//!
//! `docker compose build` with nothing to do takes about a second; this takes a millisecond.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::ctx::Ctx;

/// A digest of files and folders (below `root`, names and contents) and of some values.
///
/// # Errors
/// A file cannot be read. A path that does not exist counts as empty.
pub(crate) fn digest(root: &Path, paths: &[impl AsRef<Path>], values: &[&str]) -> Result<String> {
    let mut files = Vec::new();
    for path in paths {
        collect(&root.join(path), &mut files)?;
    }
    files.sort();
    let mut hasher = Sha256::new();
    for value in values {
        hasher.update(format!("{value}\0"));
    }
    for file in files {
        let content = fs::read(&file).with_context(|| format!("read {}", file.display()))?;
        let name = file.strip_prefix(root).unwrap_or(&file);
        hasher.update(format!("{}\0{}\0", name.display(), content.len()));
        hasher.update(content);
    }
    Ok(super::hex(&hasher.finalize()))
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if path.is_file() {
        files.push(path.to_owned());
    } else if path.is_dir() {
        let entries = fs::read_dir(path).with_context(|| format!("list {}", path.display()))?;
        for entry in entries {
            let entry = entry?;
            if !is_an_editors(&entry.file_name()) {
                collect(&entry.path(), files)?;
            }
        }
    }
    Ok(())
}

/// Whether a file is what an editor or a merge keeps beside the real one for a while: to open a file is not to
/// change it.
pub(crate) fn is_an_editors(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    let is_swap = name.starts_with('.')
        && name.rsplit_once('.').is_some_and(|(_, end)| end.len() == 3 && end.starts_with("sw"));
    let is_auto_save = name.starts_with('#') && name.ends_with('#') || name.starts_with(".#");
    // Vim tries with this name whether it may write to a folder.
    is_swap || is_auto_save || &*name == "4913" || name.ends_with('~') || name.ends_with(".orig")
}

/// Which image came of which inputs. Lost with `target/`, and then everything is built again
/// from Docker's cache.
#[derive(Default, Deserialize, Serialize)]
pub(crate) struct Memory {
    built: BTreeMap<String, Built>,
}

#[derive(Deserialize, PartialEq, Serialize)]
struct Built {
    inputs: String,
    image_id: String,
}

impl Memory {
    /// Reads what was remembered; nothing, if that cannot be read.
    pub(crate) fn read(ctx: &Ctx) -> Memory {
        let text = fs::read(path(ctx)).ok();
        text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    /// Whether the image that a reference means now was made from these inputs.
    pub(crate) fn is_current(&self, reference: &str, inputs: &str, image_id: Option<&str>) -> bool {
        let built = self.built.get(reference);
        built.is_some_and(|built| built.inputs == inputs && Some(&*built.image_id) == image_id)
    }

    /// Remembers an image.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn remember(
        ctx: &Ctx,
        reference: &str,
        inputs: String,
        image_id: String,
    ) -> Result<()> {
        let path = path(ctx);
        let write = || -> Result<()> {
            fs::create_dir_all(ctx.state_dir())?;
            // Another stack of the same clone may be about to write what it has built. The lock ends with
            // this block, however that ends.
            let lock = fs::File::create(path.with_extension("lock"))?;
            lock.lock()?;
            let mut memory = Memory::read(ctx);
            memory.built.insert(reference.to_owned(), Built { inputs, image_id });
            let mut file = tempfile::NamedTempFile::new_in(ctx.state_dir())?;
            file.write_all(&serde_json::to_vec_pretty(&memory)?)?;
            file.persist(&path)?;
            Ok(())
        };
        write().with_context(|| format!("write {}", path.display()))
    }
}

fn path(ctx: &Ctx) -> PathBuf {
    ctx.state_dir().join("images.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_changes_with_content_name_and_value_and_with_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir(root.join("src")).unwrap();
        fs::write(root.join("src/a"), "1").unwrap();
        let first = digest(root, &["src", "missing"], &["v"]).unwrap();
        assert_eq!(digest(root, &["src", "missing"], &["v"]).unwrap(), first);
        assert_ne!(digest(root, &["src"], &["w"]).unwrap(), first);
        fs::write(root.join("src/a"), "2").unwrap();
        assert_ne!(digest(root, &["src"], &["v"]).unwrap(), first);
        fs::write(root.join("src/a"), "1").unwrap();
        fs::rename(root.join("src/a"), root.join("src/b")).unwrap();
        assert_ne!(digest(root, &["src"], &["v"]).unwrap(), first);
    }

    #[test]
    fn a_file_that_is_open_in_an_editor_has_not_changed() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.rs"), "1").unwrap();
        let before = digest(folder.path(), &[""], &[]).unwrap();
        for name in [".a.rs.swp", ".a.rs.swx", "#a.rs#", "a.rs~", "4913", "a.rs.orig"] {
            fs::write(folder.path().join(name), "open").unwrap();
            assert_eq!(digest(folder.path(), &[""], &[]).unwrap(), before, "{name}");
        }
        for name in [".swiftlint", "swap.rs", ".env.example"] {
            fs::write(folder.path().join(name), "real").unwrap();
            assert_ne!(digest(folder.path(), &[""], &[]).unwrap(), before, "{name}");
            fs::remove_file(folder.path().join(name)).unwrap();
        }
    }

    #[test]
    fn an_image_is_current_only_with_its_inputs_and_its_id() {
        let built = Built { inputs: "d".into(), image_id: "i".into() };
        let memory = Memory { built: BTreeMap::from([("r".to_owned(), built)]) };
        assert!(memory.is_current("r", "d", Some("i")));
        assert!(!memory.is_current("r", "d2", Some("i")));
        assert!(!memory.is_current("r", "d", Some("i2")));
        assert!(!memory.is_current("r", "d", None));
    }
}
