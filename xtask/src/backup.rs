//! Backups: what is in one, how it is taken, checked, proven and restored. docs/backups.md is the
//! promise; this is how it is kept.
//!
//! A backup is a folder `backups/PROJECT/TIME/`. It is written under another name and renamed when
//! it is whole and on the disk, so a folder with that name is a whole backup or a damaged one, never
//! one that was interrupted.

pub(crate) mod catalogue;
pub(crate) mod drill;
pub(crate) mod load;
pub(crate) mod manifest;
pub(crate) mod offsite;
pub(crate) mod partial;
pub(crate) mod postgres;
pub(crate) mod redis;
pub(crate) mod replaced;
pub(crate) mod restore;
pub(crate) mod retention;
mod sequences;
pub(crate) mod sink;
mod swap;
pub(crate) mod take;
