//! The product's backend: an HTTP API in front of PostgreSQL and Redis.
//!
//! A library with a thin `main`, so that tests can start a server of their own. Three rules hold
//! throughout: nothing waits without a deadline, a failure is logged once (where it is answered),
//! and nothing is kept in the process or on its disk, so that any number of replicas can run.

pub mod accounts;
pub mod client;
pub mod config;
pub mod csrf;
pub mod db;
pub mod error;
pub mod extract;
pub mod health;
pub mod keyed;
pub mod limits;
pub mod link;
pub mod metrics;
pub mod migrate;
pub mod notes;
pub mod openapi;
pub mod probe;
pub mod seed;
pub mod server;
pub mod sessions;
pub mod telemetry;
