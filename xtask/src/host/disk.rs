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
    let free = free(path)?;
    ensure!(
        free >= NEEDED,
        "the disk is nearly full: {} free at {}, {} needed to build; `docker system df` and \
         `cargo clean` help to make room",
        bytes(free),
        path.display(),
        bytes(NEEDED)
    );
    Ok(())
}
