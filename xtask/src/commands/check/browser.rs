//! The pages in a real Chromium: the tests of `backend/tests/browser`, on a stack that is up.

use std::ffi::OsStr;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use xshell::cmd;

use crate::ctx::{Ctx, Invocation};
use crate::host::packages;
use crate::stack::certificate;
use crate::stack::project::{Project, shown};
use crate::stack::trial::Trial;

/// Compiling them from nothing included.
const LIMIT: Duration = Duration::from_secs(15 * 60);
/// Where the screenshots are, below the root; a folder in it for each scheme.
const SCREENSHOTS: &str = "target/ci/screenshots";

/// The tests whose outcome could be another one in production: its cookies, its headers, its HTTPS. What the
/// page does with two tabs, with a part that is away or with a late answer is the same script on both.
pub(super) const OF_PRODUCTION: &[&str] =
    &["account::", "pages::", "sessions::", "shown_page_by_page"];

/// Has a browser use the stack's pages, and keeps what it saw. Without `names` all tests run, otherwise those
/// whose names have one of them.
///
/// # Errors
/// No browser, or a test fails; its screenshot is beside the others.
pub(super) fn tests(ctx: &Ctx, trial: &Trial, names: &[impl AsRef<OsStr>]) -> Result<()> {
    ensure_browser(ctx)?;
    let project = trial.project(ctx)?;
    let folder = ctx.root().join(SCREENSHOTS).join(project.value("NGINX_SCHEME"));
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("clear {}", shown(ctx, &folder)))?;
    }
    let shell = ctx.shell()?;
    let tests = cmd!(shell, "cargo test --workspace --locked --test browser -- {names...}");
    let mut tests = Invocation::from(tests)
        .env("STACK_URL", project.address())
        .env("STACK_PROJECT", trial.name())
        .env("SCREENSHOTS", ctx.root().join(SCREENSHOTS));
    if certificate::is_needed(&project) {
        tests = tests.env("STACK_KEY_PIN", key_pin(ctx, &project)?);
    }
    let tested = ctx.run_loud(tests.limit(LIMIT));
    ctx.ui.say(format!("screenshots: {}", shown(ctx, &folder)));
    tested
}

/// Debian's Chromium and its driver; or a Chrome that is here, with its own.
fn ensure_browser(ctx: &Ctx) -> Result<()> {
    let browser = if ctx.find("google-chrome").is_some() { "google-chrome" } else { "chromium" };
    let programs = [(browser, "chromium"), ("chromedriver", "chromium-driver")];
    packages::ensure_programs(ctx, &programs, "try the pages in a browser")
}

/// The digest of the public key of the stack's certificate, as Chromium's option for a key that no
/// authority vouches for takes it.
fn key_pin(ctx: &Ctx, project: &Project) -> Result<String> {
    let chain = certificate::folder(ctx, project).join(certificate::CHAIN);
    let folder = project.state_dir(ctx);
    fs::create_dir_all(&folder).with_context(|| format!("make {}", shown(ctx, &folder)))?;
    let file = |name: &str| folder.join(name).display().to_string();
    let (pem, der, digest) = (file("key.pem"), file("key.der"), file("key.sha256"));
    let chain = chain.display().to_string();
    // By way of files, because two of the three are no text.
    let steps = [
        vec!["x509", "-in", &chain, "-noout", "-pubkey", "-out", &pem],
        vec!["pkey", "-pubin", "-in", &pem, "-outform", "DER", "-out", &der],
        vec!["dgst", "-sha256", "-binary", "-out", &digest, &der],
    ];
    for step in steps {
        ctx.run(Invocation::new("openssl").args(step)).context("take the digest of a key")?;
    }
    let pin = ctx.read(Invocation::new("openssl").args(["base64", "-A", "-in", &digest]))?;
    Ok(pin.trim().to_owned())
}
