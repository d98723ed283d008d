//! The machine: its tools and their versions, its packages, its engine, its disk.

pub(crate) mod disk;
pub(crate) mod engine;
pub(crate) mod packages;
pub(crate) mod tools;
