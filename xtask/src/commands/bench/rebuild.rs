//! `bench rebuild`: from one changed line of the backend to its new version behind nginx.
//!
//! Works on a copy of the source, so that nobody's working tree is touched; the copy shares the
//! folder for compiled code, as a developer's next build would.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use xshell::cmd;

use super::{median, time};
use crate::ctx::{Ctx, Invocation};
use crate::images::backend;
use crate::stack::trial::Trial;
use crate::ui;

/// The file in which a line is changed: the library's root, so that everything above it is
/// compiled again.
const CHANGED: &str = "backend/src/lib.rs";

/// Measures both, and returns the table.
///
/// # Errors
/// A measured command fails.
pub(super) fn measure(ctx: &Ctx, trial: &Trial, runs: u32) -> Result<String> {
    let source = copy_source(ctx, trial)?;
    let compiled = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let compiled = compiled.unwrap_or_else(|| ctx.root().join("target"));
    // xtask finds its project by the folder that cargo names.
    let there = |command: Invocation| {
        command
            .env("CARGO_MANIFEST_DIR", source.join("xtask"))
            .env("CARGO_TARGET_DIR", &compiled)
            .dir(&source)
    };
    ctx.ui.say("everything is built and brought up first");
    ctx.run_loud(there(trial.xtask(ctx, &["up"])?))?;
    let (mut builds, mut ups) = (Vec::new(), Vec::new());
    for run in 1..=runs {
        ctx.ui.say(format!("run {run} of {runs}"));
        change_a_line(&source, &format!("build {run}"))?;
        builds.push(time(ctx, there(backend::cargo_build(backend::BACKEND)?))?);
        change_a_line(&source, &format!("up {run}"))?;
        ups.push(time(ctx, there(trial.xtask(ctx, &["up"])?))?);
    }
    Ok(render(&builds, &ups))
}

/// What git knows and what it does not ignore: the tree as it is, without what is built.
fn copy_source(ctx: &Ctx, trial: &Trial) -> Result<PathBuf> {
    let shell = ctx.shell()?;
    let list = cmd!(shell, "git ls-files --cached --others --exclude-standard");
    let files = ctx.read(list).context("list the files of the source")?;
    let folder = ctx.state_dir().join(trial.name()).join("source");
    for file in files.lines() {
        let to = folder.join(file);
        let from = ctx.root().join(file);
        if !from.is_file() {
            continue;
        }
        let copy = || -> std::io::Result<()> {
            fs::create_dir_all(to.parent().unwrap_or(&folder))?;
            fs::copy(&from, &to).map(drop)
        };
        copy().with_context(|| format!("copy {file} to {}", folder.display()))?;
    }
    Ok(folder)
}

fn change_a_line(source: &Path, word: &str) -> Result<()> {
    let path = source.join(CHANGED);
    let text = fs::read_to_string(&path).with_context(|| format!("read {CHANGED}"))?;
    let mark = "// changed for ";
    let kept: Vec<&str> = text.lines().filter(|line| !line.starts_with(mark)).collect();
    fs::write(&path, format!("{}\n{mark}{word}\n", kept.join("\n")))
        .with_context(|| format!("write {CHANGED}"))
}

fn render(builds: &[Duration], ups: &[Duration]) -> String {
    let (build, up) = (median(builds), median(ups));
    let bound = build.mul_f64(1.3) + Duration::from_secs(2);
    format!(
        "| case | runs | median |\n|---|---|---|\n\
         | cargo build of the backend, one line changed | {} | {} |\n\
         | xtask up, one line changed, until healthy behind nginx | {} | {} |\n\n\
         The aim is 1.3 x the build + 2 s = {}; up takes {:.2} x of that.",
        builds.len(),
        ui::seconds(build),
        ups.len(),
        ui::seconds(up),
        ui::seconds(bound),
        up.as_secs_f64() / bound.as_secs_f64()
    )
}
