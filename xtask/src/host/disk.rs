//! Room on the disk, before something fills it.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::ui::bytes;

/// Below this a cold build of everything may fail half-way: base images, the backend's
/// dependencies and fresh volumes took 2.5 GiB together when measured.
const NEEDED: u64 = 4 << 30;

/// Bytes free for this user on the file system that holds `path`.
///
/// # Errors
/// The file system does not answer.
pub(crate) fn free(path: &Path) -> Result<u64> {
    let stat = rustix::fs::statvfs(path)
        .with_context(|| format!("ask how much room there is at {}", path.display()))?;
    Ok(stat.f_bavail * stat.f_frsize)
}

/// Fails where there is too little room to build.
///
/// # Errors
/// Too little room; the message says how to make some.
pub(crate) fn check(path: &Path) -> Result<()> {
    judge(free(path)?, path)
}

fn judge(free: u64, path: &Path) -> Result<()> {
    ensure!(
        free >= NEEDED,
        "the disk is nearly full: {} free at {}, {} needed to build; `docker image \
         prune` and `docker builder prune` make some, and `docker system df` shows what takes it",
        bytes(free),
        path.display(),
        bytes(NEEDED)
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_is_nearly_full_is_met_before_a_build() {
        let error = judge(NEEDED - 1, Path::new("/somewhere")).unwrap_err().to_string();
        assert!(
            error.starts_with("the disk is nearly full: 4.0 GiB free at /somewhere"),
            "{error}"
        );
        assert!(judge(NEEDED, Path::new("/somewhere")).is_ok());
    }

    #[test]
    fn a_place_that_is_not_there_is_named() {
        assert!(
            free(Path::new("/no/such/place")).unwrap_err().to_string().contains("/no/such/place")
        );
    }
}
