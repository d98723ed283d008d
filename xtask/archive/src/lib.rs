//! The inner loops of a backup. Nothing here starts a program or knows where a file lies: readers
//! and writers come in, digests and counts go out.

pub mod copy;
pub mod file;
pub mod pieces;
pub mod rdb;
