//! `drill`: prepares a stack of its own for the crate `drill`, which does the work, and removes it.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cli::{DrillArgs, Format, FormatArgs};
use crate::commands::setup;
use crate::ctx::{Ctx, Invocation, Usage};
use crate::env::Kind;
use crate::stack::certificate;
use crate::stack::trial::{self, Trial};
use crate::stack::wanted::nearest;
use crate::ui;

/// The file for scripts; docs/reliability.md describes it.
const REPORT: &str = "report.json";
/// Every case, with a cold build before.
const LIMIT: Duration = Duration::from_secs(90 * 60);

/// Runs faults under load.
///
/// # Errors
/// A case is outside its bound, or the stack does not come up.
pub(crate) fn drill(ctx: &Ctx, kind: Kind, args: &DrillArgs) -> Result<()> {
    if args.cases.is_empty() && !args.all && !args.quick && !args.list {
        let usage = "say what to drill: names of cases, --quick or --all; --list shows the cases";
        return Err(Usage(usage.to_owned()).into());
    }
    if args.list {
        return ctx.run_loud(program(ctx).arg("--list"));
    }
    if !args.cases.is_empty() {
        // Before anything is built or brought up for a name that is misspelt.
        check_names(&args.cases, &ctx.read(program(ctx).arg("--list"))?)?;
    }
    if trial::is_only_told(ctx, "the drill") {
        return Ok(());
    }
    setup::ensure(ctx)?;
    let report = folder(ctx).join(REPORT);
    if report.exists() {
        // An earlier run's; nobody shall take it for this one's.
        fs::remove_file(&report).with_context(|| format!("delete {}", report.display()))?;
    }
    let trial = Trial::prepare(ctx, "drill", kind)?;
    let drilled = drill_on(ctx, &trial, args);
    // Whatever happened, and even after Ctrl-C: nothing of it stays.
    trial.remove(&ctx.shielded())?;
    // What was found is told, all the more if it is bad. Without a report the error says why.
    if args.format.format == Format::Json
        && let Ok(text) = fs::read_to_string(folder(ctx).join(REPORT))
    {
        ui::data(text.trim_end())?;
    }
    drilled
}

/// Whether every case is in the drill's own list; otherwise the nearest name is suggested.
fn check_names(cases: &[String], list: &str) -> Result<()> {
    let known: Vec<&str> = list.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let Some(name) = cases.iter().find(|name| !known.contains(&name.as_str())) else {
        return Ok(());
    };
    let nearest =
        nearest(name, &known).map_or_else(String::new, |n| format!("did you mean `{n}`? "));
    let usage =
        format!("there is no case `{name}`; {nearest}`cargo xtask drill --list` shows the cases");
    Err(Usage(usage).into())
}

/// The short version, for `ci`: on production's files, as that is where faults cost something.
///
/// # Errors
/// As of [`drill`].
pub(crate) fn quick(ctx: &Ctx) -> Result<()> {
    let format = FormatArgs { format: Format::Text };
    let (cases, all, list, seed) = (Vec::new(), false, false, None);
    let args = DrillArgs { cases, all, quick: true, list, seed, format, is_unhurried: true };
    drill(ctx, Kind::Production, &args)
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
    let flags = [("--all", args.all), ("--quick", args.quick), ("--unhurried", args.is_unhurried)];
    for (flag, is_set) in flags {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_case_is_wrong_usage_and_the_nearest_name_is_suggested() {
        let list = "kill-redis    SIGKILL of Redis\nkill-nginx    SIGKILL of nginx\n";
        let names = |name: &str| [name.to_owned()];
        check_names(&names("kill-redis"), list).unwrap();
        let error = check_names(&names("kil-redis"), list).unwrap_err();
        assert!(error.is::<Usage>());
        assert_eq!(
            error.to_string(),
            "there is no case `kil-redis`; did you mean `kill-redis`? \
             `cargo xtask drill --list` shows the cases"
        );
        let far = check_names(&names("everything"), list).unwrap_err().to_string();
        assert!(!far.contains("did you mean"), "{far}");
    }
}
