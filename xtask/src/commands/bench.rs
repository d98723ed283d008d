//! `bench`: measured here, in one run, as ratios; the absolute figures are this machine's.

mod backup;
mod http;
mod rebuild;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::cli::{BenchArgs, BenchVerb};
use crate::commands::setup;
use crate::ctx::{Ctx, Invocation};
use crate::env::Kind;
use crate::stack::project::Project;
use crate::stack::trial::{self, Trial};
use crate::ui;

/// Compose with its default health checks needs more than a minute and a half.
const LIMIT: Duration = Duration::from_secs(10 * 60);

/// Runs a benchmark on a stack of its own, and prints its tables.
///
/// # Errors
/// A measured command fails: a figure that stands for a failure would be no figure.
pub(crate) fn bench(ctx: &Ctx, args: &BenchArgs) -> Result<()> {
    if trial::is_only_told(ctx, "the benchmark") {
        return Ok(());
    }
    setup::ensure(ctx)?;
    let trial = Trial::prepare(ctx, "bench", Kind::Local)?;
    trial.sweep(ctx)?;
    let measured = match args.verb {
        BenchVerb::Up { runs } => measure_all(ctx, &trial, runs),
        BenchVerb::Http { runs } => http::measure(ctx, &trial, runs),
        BenchVerb::Backup { runs, size, sessions } => {
            backup::measure(ctx, &trial, &backup::Wanted { runs, megabytes: size, sessions })
        }
        BenchVerb::Rebuild { runs } => rebuild::measure(ctx, &trial, runs),
    };
    // Whatever happened, and even after Ctrl-C: nothing of it stays.
    trial.remove(&ctx.shielded())?;
    ui::data(measured?)
}

/// The ways to bring the same stack up.
struct Contest<'a> {
    trial: &'a Trial,
    project: Project,
    /// compose.yaml with the health checks that Compose has by default.
    slow: PathBuf,
}

fn measure_all(ctx: &Ctx, trial: &Trial, runs: u32) -> Result<String> {
    ctx.ui.say("images are built first, so that no case pays for that");
    ctx.run_loud(trial.xtask(ctx, &["build"])?)?;
    let project = trial.project(ctx)?;
    let slow = write_slow_overlay(ctx, trial)?;
    let contest = Contest { trial, project, slow };
    let mut cold_ours = Vec::new();
    let mut cold_compose = Vec::new();
    let mut cold_slow = Vec::new();
    let mut idle_ours = Vec::new();
    let mut idle_compose = Vec::new();
    // Interleaved, so that a noisy minute of the machine hits every case alike.
    for run in 1..=runs {
        ctx.ui.say(format!("run {run} of {runs}"));
        contest.empty(ctx)?;
        cold_ours.push(time(ctx, contest.ours(ctx)?)?);
        idle_ours.push(time(ctx, contest.ours(ctx)?)?);
        idle_compose.push(time(ctx, contest.compose(&[]))?);
        contest.empty(ctx)?;
        cold_compose.push(time(ctx, contest.compose(&[]))?);
    }
    contest.empty(ctx)?;
    // Once is enough: it waits for the clock and hardly varies.
    cold_slow.push(time(ctx, contest.compose(std::slice::from_ref(&contest.slow)))?);
    contest.empty(ctx)?;
    Ok(render(&[
        ("cold: cargo xtask up", cold_ours, None),
        ("cold: docker compose up -d --wait", cold_compose, Some(0)),
        ("cold: the same, default health checks", cold_slow, Some(0)),
        ("nothing to do: cargo xtask up", idle_ours, None),
        ("nothing to do: docker compose up -d --wait", idle_compose, Some(3)),
    ]))
}

impl Contest<'_> {
    /// What a person types: cargo's own start is part of the time.
    fn ours(&self, ctx: &Ctx) -> Result<Invocation> {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        let typed = Invocation::new(cargo).arg("xtask").dir(ctx.root());
        Ok(self.trial.described_to(ctx, typed)?.arg("up").limit(LIMIT))
    }

    fn compose(&self, overlays: &[PathBuf]) -> Invocation {
        let mut files = self.project.compose_files.clone();
        files.extend(overlays.iter().map(|path| path.display().to_string()));
        self.project
            .compose_with(&files)
            .args(["up", "--detach", "--wait", "--no-build", "--pull", "never"])
            .limit(LIMIT)
    }

    /// Containers and volumes gone, images kept.
    fn empty(&self, ctx: &Ctx) -> Result<()> {
        ctx.run(self.project.compose().args(["down", "--volumes"]).limit(LIMIT))
    }
}

fn time(ctx: &Ctx, command: Invocation) -> Result<Duration> {
    let started = Instant::now();
    ctx.run(command)?;
    Ok(started.elapsed())
}

/// The same services with what a health check gets where nothing is said of its pace.
fn write_slow_overlay(ctx: &Ctx, trial: &Trial) -> Result<PathBuf> {
    let mut text = String::from("services:\n");
    for service in ["nginx", "backend", "postgres", "redis"] {
        text.push_str(&format!(
            "  {service}:\n    healthcheck:\n      interval: !reset null\n      start_interval: !reset null\n      start_period: !reset null\n      timeout: !reset null\n"
        ));
    }
    let path = ctx.state_dir().join(trial.name()).join("default-health-checks.yaml");
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

/// A Markdown table of medians and ranges; the last column compares with another row's median.
fn render(rows: &[(&str, Vec<Duration>, Option<usize>)]) -> String {
    let mut text =
        String::from("| case | runs | median | from | to | ratio |\n|---|---|---|---|---|---|\n");
    for (name, times, against) in rows {
        let mut times = times.clone();
        times.sort();
        let (Some(first), Some(last)) = (times.first(), times.last()) else {
            continue;
        };
        let ratio = against.map_or_else(
            || "1".to_owned(),
            |index| {
                let base = median(&rows[index].1).as_secs_f64();
                format!("{:.2}", median(&times).as_secs_f64() / base)
            },
        );
        text.push_str(&format!(
            "| {name} | {} | {} | {} | {} | {ratio} |\n",
            times.len(),
            ui::seconds(median(&times)),
            ui::seconds(*first),
            ui::seconds(*last)
        ));
    }
    text.push_str("\nA ratio of 2 means twice as long as `cargo xtask up` in the same situation.");
    text
}

fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_medians_and_ratios() {
        let seconds = |values: &[u64]| values.iter().map(|&v| Duration::from_secs(v)).collect();
        let text = render(&[("a", seconds(&[9, 1, 2]), None), ("b", seconds(&[4]), Some(0))]);
        assert!(text.contains("| a | 3 | 2.00 s | 1.00 s | 9.00 s | 1 |"), "{text}");
        assert!(text.contains("| b | 1 | 4.00 s | 4.00 s | 4.00 s | 2.00 |"), "{text}");
    }
}
