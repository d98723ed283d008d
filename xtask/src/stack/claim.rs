//! Whose a folder is that is there for as long as a process needs it: that of a trial stack, or of a copy that is
//! restored. It holds a file that the process which made it keeps locked, and the kernel lets go of that lock with
//! the process, however it ends. So what can be locked has been left behind, and a folder without such a file is
//! none of ours, whatever it is called.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::ctx::Ctx;

/// The locked file in a claimed folder.
const OWNER: &str = "owner.lock";
/// Held while a claim is staked or looked for: between the making of a file and its locking it looks like
/// one that was left behind.
const REGISTRY: &str = "trials.lock";
/// Whoever holds it makes a file or reads a folder meanwhile.
const REGISTRY_LIMIT: Duration = Duration::from_secs(10);
const REGISTRY_PAUSE: Duration = Duration::from_millis(5);

/// The right to a name, for as long as it lives.
pub(crate) struct Claim {
    name: String,
    folder: PathBuf,
    _lock: File,
}

impl Claim {
    /// Makes the folder of a name that nobody else has, in a folder of xtask's own.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub(crate) fn stake(ctx: &Ctx, parent: &Path, name: String) -> Result<Claim> {
        let _registry = registry(ctx, parent)?;
        let folder = parent.join(&name);
        fs::create_dir(&folder).with_context(|| format!("make {}", folder.display()))?;
        let lock = open(&folder.join(OWNER))?;
        lock.try_lock().with_context(|| format!("lock the file in {}", folder.display()))?;
        Ok(Claim { name, folder, _lock: lock })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// What goes away with it.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether a Compose project belongs to this claim: the stack's own, or one that its tests have made.
    pub(crate) fn covers(&self, project: &str) -> bool {
        project
            .strip_prefix(&self.name)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    }
}

/// The claims in a folder whose processes have ended without letting go; they are the caller's now.
///
/// # Errors
/// The folders cannot be read.
pub(crate) fn abandoned(ctx: &Ctx, parent: &Path) -> Result<Vec<Claim>> {
    let _registry = registry(ctx, parent)?;
    let mut claims = Vec::new();
    for entry in fs::read_dir(parent).context("look for what killed runs left behind")? {
        let folder = entry?.path();
        let owner = folder.join(OWNER);
        let Some(name) = folder.file_name().and_then(|name| name.to_str()) else { continue };
        if !owner.is_file() {
            continue;
        }
        let lock = open(&owner)?;
        match lock.try_lock() {
            Ok(()) => claims.push(Claim { name: name.to_owned(), folder, _lock: lock }),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("lock {}", owner.display()));
            }
        }
    }
    Ok(claims)
}

fn registry(ctx: &Ctx, folder: &Path) -> Result<File> {
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    let file = open(&folder.join(REGISTRY))?;
    ctx.wait_until("the list of claims", REGISTRY_LIMIT, REGISTRY_PAUSE, || {
        file.try_lock().context("another cargo xtask holds it")
    })?;
    Ok(file)
}

fn open(path: &Path) -> Result<File> {
    let file = File::options().create(true).truncate(false).write(true).open(path);
    file.with_context(|| format!("open {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctx::tests::ctx_in;

    #[test]
    fn what_a_dead_process_left_is_found_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let ctx = ctx_in(root.path());
        let place = ctx.state_dir();
        let names = |claims: &[Claim]| -> Vec<String> {
            claims.iter().map(|claim| claim.name().to_owned()).collect()
        };
        let held = Claim::stake(&ctx, &place, "shop-trial-1-test".to_owned()).unwrap();
        let dead = Claim::stake(&ctx, &place, "shop-trial-2-test".to_owned()).unwrap();
        // A person's own stack, whose name looks like one of ours.
        fs::create_dir(place.join("shop-trial-eu")).unwrap();
        assert!(names(&abandoned(&ctx, &place).unwrap()).is_empty());

        drop(dead);
        let found = abandoned(&ctx, &place).unwrap();
        assert_eq!(names(&found), ["shop-trial-2-test"]);
        // They have an owner again, and no second one.
        assert!(names(&abandoned(&ctx, &place).unwrap()).is_empty());
        drop(held);
        assert_eq!(names(&abandoned(&ctx, &place).unwrap()), ["shop-trial-1-test"]);
    }

    #[test]
    fn a_claim_covers_the_stacks_of_its_tests_and_not_its_neighbours() {
        let root = tempfile::tempdir().unwrap();
        let name = "shop-trial-a-bench-1".to_owned();
        let claim = Claim::stake(&ctx_in(root.path()), root.path(), name).unwrap();
        assert!(claim.covers("shop-trial-a-bench-1"));
        assert!(claim.covers("shop-trial-a-bench-1-77-3"));
        assert!(!claim.covers("shop-trial-a-bench-10"));
    }
}
