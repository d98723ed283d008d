//! What holds for the repository as a whole. No Docker and no network: a part of `cargo test`.
//! Every failure names file and line, and ends with the fix.
//!
//! Lists of exceptions stand beside their test, each with its reason. A list that names what is no
//! longer there fails as well, so exceptions do not outlive their cause.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod documents;
mod environment;
mod images;
mod names;
mod repo;
mod rust;
mod rust_text;
mod scripts;
mod services;
mod text;
