//! `drill`: prepares a stack of its own for the crate `drill`, which does the work, and removes it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::cli::{DrillArgs, Format, FormatArgs};
use crate::commands::setup;
use crate::ctx::{Ctx, Invocation};
use crate::env::Kind;
use crate::stack::certificate;
use crate::stack::trial::{self, Trial};

/// The file for scripts; docs/reliability.md describes it.
const REPORT: &str = "report.json";
/// Every case, with a cold build before.
const LIMIT: Duration = Duration::from_secs(90 * 60);

/// Runs faults under load.
///
/// # Errors
/// A case is outside its bound, or the stack does not come up.
pub(crate) fn drill(ctx: &Ctx, kind: Kind, args: &DrillArgs) -> Result<()> {
    ensure!(
        !args.cases.is_empty() || args.all || args.quick || args.list,
        "say what to drill: names of cases, --quick or --all; --list shows the cases"
    );
    if args.list {
        return ctx.run_loud(program(ctx).arg("--list"));
    }
    setup::ensure(ctx)?;
    let report = folder(ctx).join(REPORT);
    if report.exists() {
        // An earlier run's; nobody shall take it for this one's.
        fs::remove_file(&report).with_context(|| format!("delete {}", report.display()))?;
    }
    let trial = Trial::prepare(ctx, "drill", kind)?;
    trial.sweep(ctx)?;
    let drilled = drill_on(ctx, &trial, args);
    // Whatever happened, and even after Ctrl-C: nothing of it stays.
    trial.remove(&ctx.shielded())?;
    // What was found is told, all the more if it is bad. Without a report the error says why.
    if args.format.format == Format::Json
        && let Ok(text) = fs::read_to_string(folder(ctx).join(REPORT))
    {
        print!("{text}");
    }
    drilled
}

/// The short version, for `ci`: on production's files, as that is where faults cost something.
///
/// # Errors
/// As of [`drill`].
pub(crate) fn quick(ctx: &Ctx) -> Result<()> {
    let format = FormatArgs { format: Format::Text };
    let (cases, all, list, seed) = (Vec::new(), false, false, None);
    drill(ctx, Kind::Production, &DrillArgs { cases, all, quick: true, list, seed, format })
}

fn drill_on(ctx: &Ctx, trial: &Trial, args: &DrillArgs) -> Result<()> {
    // Before the clock runs: images, the source that they come from, and the drill itself.
    ctx.run_loud(trial.xtask(ctx, &["build"])?)?;
    if certificate::is_needed(&trial.project(ctx)?) {
        ctx.run(trial.xtask(ctx, &["cert", "self-signed"])?)?;
    }
    let mut drill = program(ctx)
        .arg("--root")
        .arg(ctx.root())
        .arg("--env-file")
        .arg(trial.env_file())
        .arg("--xtask")
        .arg(ctx.program())
        .arg("--report")
        .arg(folder(ctx))
        .args(&args.cases);
    for (flag, is_set) in [("--all", args.all), ("--quick", args.quick)] {
        if is_set {
            drill = drill.arg(flag);
        }
    }
    if let Some(seed) = args.seed {
        drill = drill.args(["--seed", &seed.to_string()]);
    }
    ctx.run_loud(trial::without_exports(ctx, drill)?)
}

fn program(ctx: &Ctx) -> Invocation {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let words = ["run", "--quiet", "--release", "--locked", "--package", "drill", "--"];
    Invocation::new(cargo).args(words).dir(ctx.root()).limit(LIMIT)
}

/// Where the report goes.
fn folder(ctx: &Ctx) -> PathBuf {
    ctx.root().join("target/drill")
}
