//! `bench http`: prepares a stack of its own and the rivals for the crate `drill`, which has the load
//! generator and the clock, and removes everything again.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::ctx::{Ctx, Invocation};
use crate::images::{backend, build};
use crate::stack::trial::{self, RIVAL, Trial};

/// The container of the rivals.
const RIVALS_IMAGE: &str = "xtask/drill/rivals/express";
/// The package of the one that is compiled.
const RIVAL_PACKAGE: &str = "rival";
/// The generator's own compilation, and ten runs of two minutes at the most.
const LIMIT: Duration = Duration::from_secs(40 * 60);

/// Measures, and returns the tables.
///
/// # Errors
/// The stack or a rival does not come up, or answers wrongly.
pub(super) fn measure(ctx: &Ctx, trial: &Trial, runs: u32) -> Result<String> {
    ctx.ui.say("everything is built first, so that no compiler runs beside what is measured");
    ctx.run_loud(trial.xtask(ctx, &["build"])?)?;
    let source = trial.project(ctx)?.image_source()?.context("find where the images came from")?;
    let image = format!("{}{RIVAL}", trial.name());
    build::on_debian(ctx, source, RIVALS_IMAGE, &image)?;
    let rival = backend::static_binary(ctx, RIVAL_PACKAGE)?;
    ctx.run_loud(cargo("build", &[]).dir(ctx.root()))?;
    trial.up(ctx)?;
    let report = ctx.state_dir().join(trial.name()).join("http.md");
    let bench = cargo("run", &["--"])
        .arg("--root")
        .arg(ctx.root())
        .arg("--env-file")
        .arg(trial.env_file())
        .args(["--image", &image, "--runs", &runs.to_string(), "--rival"])
        .arg(rival)
        .arg("--report")
        .arg(&report);
    ctx.run_loud(trial::without_exports(ctx, bench.dir(ctx.root()))?)?;
    fs::read_to_string(&report).with_context(|| format!("read {}", report.display()))
}

/// The load generator, optimised.
fn cargo(verb: &str, rest: &[&str]) -> Invocation {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let words = ["--quiet", "--release", "--locked", "--package", "drill", "--bin", "bench"];
    Invocation::new(cargo).arg(verb).args(words).args(rest.to_vec()).limit(LIMIT)
}
