//! The pages in a real Chromium, through nginx, as a person uses them: by keyboard, on a phone, in the
//! dark.
//!
//! Each test has a browser of its own ([`browser::with_browser`]). It fails, too, where the browser
//! itself complains: an error on the console, a refusal by the content security policy.
//!
//! Some take a part of the stack away for a while. Each of these is alone on it: the others wait
//! ([`browser::with_browser_alone`]).
//!
//! `STACK_URL` is the site, and `STACK_KEY_PIN` the digest of its key, where it speaks HTTPS with a
//! certificate that no authority vouches for. `STACK_PROJECT` is the name that its containers have for
//! Compose. `SCREENSHOTS` is the folder for what was seen.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod account;
mod browser;
mod driver;
mod held;
mod look;
mod outage;
mod pages;
mod parts;
mod sample;
mod sessions;
mod tabs;
