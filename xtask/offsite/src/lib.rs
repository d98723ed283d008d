//! Copies of backups away from the host.
//!
//! A copy is a folder of objects: each file of the backup, encrypted where there are recipients, and
//! at the end [`place::INDEX`], which names the objects with their lengths and sums. A copy without
//! it is not whole, and no listing shows it. Nothing here knows what a backup is made of.

pub mod place;
pub mod pull;
pub mod push;
mod transfer;
