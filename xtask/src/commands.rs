//! One file per family of verbs; each reads like its own recipe.

pub(crate) mod audit;
pub(crate) mod backup;
pub(crate) mod bench;
pub(crate) mod cert;
pub(crate) mod check;
pub(crate) mod db;
pub(crate) mod deploy;
pub(crate) mod doctor;
pub(crate) mod down;
pub(crate) mod drill;
pub(crate) mod env;
pub(crate) mod image;
pub(crate) mod logs;
pub(crate) mod parity;
pub(crate) mod restore;
pub(crate) mod schedule;
pub(crate) mod setup;
pub(crate) mod shell;
pub(crate) mod status;
pub(crate) mod up;
pub(crate) mod watch;
