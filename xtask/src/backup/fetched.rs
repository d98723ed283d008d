//! The folder for a copy that is fetched to be restored: everybody's rows, decrypted. It goes away with its restore,
//! and where that was killed, with the next `restore` or `backup` of the stack.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

use crate::ctx::Ctx;
use crate::env::random_hex;
use crate::stack::claim::{self, Claim};
use crate::stack::project::{Project, shown};

/// It is there for as long as this value.
pub(crate) struct Fetched(Claim);

impl Fetched {
    /// Makes it, empty.
    ///
    /// # Errors
    /// The disk does not take it.
    pub(crate) fn make(ctx: &Ctx, project: &Project) -> Result<Fetched> {
        let name = format!("fetched-{}", random_hex(3)?);
        let claim = Claim::stake(ctx, &project.state_dir(ctx), name)?;
        let fetched = Fetched(claim);
        // Nothing is in it yet.
        fs::set_permissions(fetched.folder(), fs::Permissions::from_mode(0o700))
            .with_context(|| format!("close {}", shown(ctx, fetched.folder())))?;
        Ok(fetched)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.0.folder()
    }
}

impl Drop for Fetched {
    fn drop(&mut self) {
        // What stays is removed by the next one; how the restore went matters more.
        let _ = fs::remove_dir_all(self.folder());
    }
}

/// Removes what killed restores have left. Where that fails, it is told, and no reason to do without what was asked for:
/// it may be an emergency.
pub(crate) fn sweep(ctx: &Ctx, project: &Project) {
    if let Err(error) = remove_abandoned(ctx, &project.state_dir(ctx)) {
        ctx.ui.warn(format!(
            "a restore that was killed has left what it fetched, decrypted, and it does not go away: {error:#}"
        ));
    }
}

fn remove_abandoned(ctx: &Ctx, folder: &Path) -> Result<()> {
    for left in claim::abandoned(ctx, folder)? {
        let path = left.folder();
        ctx.ui.say(format!("removing what a killed restore fetched: {}", shown(ctx, path)));
        fs::remove_dir_all(path).with_context(|| format!("delete {}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctx::tests::ctx_in;

    #[test]
    fn what_a_killed_restore_fetched_is_removed_and_what_another_fetches_is_not() {
        let root = tempfile::tempdir().unwrap();
        let ctx = ctx_in(root.path());
        let place = ctx.state_dir().join("shop");
        let stake = |name: &str| Claim::stake(&ctx, &place, name.to_owned()).unwrap();
        let (dead, alive) = (stake("fetched-1"), stake("fetched-2"));
        for claim in [&dead, &alive] {
            fs::write(claim.folder().join("app.data.zst"), "rows").unwrap();
        }
        fs::create_dir(place.join("certificates")).unwrap();
        let gone = dead.folder().to_owned();
        drop(dead);
        remove_abandoned(&ctx, &place).unwrap();
        assert!(!gone.exists(), "the rows of a killed restore are still there");
        assert!(alive.folder().join("app.data.zst").exists());
        assert!(place.join("certificates").exists());
        let folder = alive.folder().to_owned();
        drop(Fetched(alive));
        assert!(!folder.exists());
    }
}
