//! Asks a running stack through nginx, as a browser or curl would, and its PostgreSQL and Redis
//! where what matters cannot be seen from outside.
//!
//! `STACK_URL` is the site (`STACK_CA` its certificate, where it speaks HTTPS), `STACK_PG_URL` and `STACK_REDIS_URL` the data services of the same
//! stack. Every test makes its own account or database and needs no other test.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod forgery;
mod full;
mod hostile;
mod hostile_rows;
mod limits;
mod log;
mod migrations;
mod own_backend;
mod own_sessions;
mod sample;
mod sample_hostile;
mod sessions;
mod site;
mod support;
mod wire;
