//! The backend on real data services: those of a running stack.
//!
//! Most tests have an application of their own ([`app::App`]): the real router on a free port, a
//! database copied from a migrated template, a key space of its own in Redis. What nginx has a part in
//! is asked through nginx, as a browser or curl would: the pages, headers, forged requests, the table
//! of what a stranger may try, and limits by address. No test needs another one.
//!
//! `STACK_URL` is the site (`STACK_CA` its certificate, where it speaks HTTPS); `STACK_PG_URL` and
//! `STACK_REDIS_URL` are the data services of the same stack, `STACK_PG_ADMIN_URL` a role that may
//! create databases and roles.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod app;
mod database;
mod forgery;
mod full;
mod hostile;
mod hostile_rows;
mod limits;
mod log;
mod lost_commits;
mod migrations;
mod own_backend;
mod own_sessions;
mod pool;
mod ready;
mod redis_user;
mod relay;
mod roles;
mod rotation;
mod sample;
mod sample_hostile;
mod sessions;
mod site;
mod support;
mod wire;
