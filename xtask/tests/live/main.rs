//! The driver against a real Docker Engine. `cargo xtask test` runs these; each test has a stack
//! with a name, ports and volumes of its own, which goes away with it.

// A test that panics has failed, which is what it is for; here that goes for its helpers too.
#![allow(clippy::unwrap_used)]

mod backup;
mod databases;
mod deploy;
mod domain;
mod elsewhere;
mod faults;
mod hardening;
mod https;
mod images;
mod interruptions;
mod kills;
mod lifecycle;
mod migrations;
mod mutations;
mod scripts;
mod secrets;
mod stand;
mod watch;
