//! Load over HTTP: a client that knows what was sent, and a pace that does not wait for answers.

mod client;
mod pace;
mod tls;

pub use client::{Answer, Client, Failure, Request};
pub use pace::{Pace, run_open_loop};
