//! The pages in a real Chromium, through nginx, as a person uses them: by keyboard, on a phone, in the
//! dark.
//!
//! Each test has a browser of its own ([`browser::with_browser`]). It fails, too, where the browser
//! itself complains: an error on the console, a refusal by the content security policy.
//!
//! `STACK_URL` is the site, and `STACK_KEY_PIN` the digest of its key, where it speaks HTTPS with a
//! certificate that no authority vouches for. `SCREENSHOTS` is the folder for what was seen.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod account;
mod browser;
mod driver;
mod look;
mod pages;
mod sample;
