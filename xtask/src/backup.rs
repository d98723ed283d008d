//! Backups: what is in one, how it is taken, checked, proven and restored. docs/backups.md is the
//! promise; this is how it is kept.
//!
//! A backup is a folder `backups/PROJECT/TIME/`. It is written under another name and renamed when
//! it is whole and on the disk, so a folder with that name is a whole backup or a damaged one, never
//! one that was interrupted.

pub(crate) mod ahead;
pub(crate) mod catalogue;
mod console;
pub(crate) mod copied;
pub(crate) mod drill;
mod exchange;
mod facts;
pub(crate) mod fetched;
pub(crate) mod fit;
mod lanes;
mod latest;
pub(crate) mod load;
pub(crate) mod manifest;
pub(crate) mod offsite;
pub(crate) mod partial;
pub(crate) mod postgres;
pub(crate) mod redis;
pub(crate) mod replaced;
pub(crate) mod restore;
pub(crate) mod retention;
mod roles;
pub(crate) mod room;
mod sequences;
pub(crate) mod sink;
mod swap;
pub(crate) mod take;
mod verification;

use std::thread;

use anyhow::{Result, anyhow};

/// Does two things at the same time, such as asking two servers, which do not wait for each other. Where
/// both fail, the first one's error is told.
pub(crate) fn both<A, B: Send>(
    first: impl FnOnce() -> Result<A>,
    second: impl FnOnce() -> Result<B> + Send,
) -> Result<(A, B)> {
    thread::scope(|scope| {
        let second = scope.spawn(second);
        let first = first();
        let second = second.join().unwrap_or_else(|_| Err(anyhow!("a thread of xtask panicked")));
        Ok((first?, second?))
    })
}
