//! `bench up`: a stack that is brought up, cold and with nothing to do, by xtask and by plain Compose on
//! the same files.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{median, time};
use crate::ctx::{Ctx, Invocation};
use crate::env::Kind;
use crate::stack::project::Project;
use crate::stack::trial::Trial;
use crate::ui;

/// Compose with its default health checks needs more than a minute and a half.
const LIMIT: Duration = Duration::from_secs(10 * 60);

/// Measures both ways, and returns the table.
///
/// # Errors
/// A measured command fails.
pub(super) fn measure(ctx: &Ctx, runs: u32) -> Result<String> {
    let mut stands = Vec::new();
    let measured = measure_on(ctx, runs, &mut stands);
    // Whatever happened, and even after Ctrl-C: nothing of them stays.
    for stand in &stands {
        stand.trial.remove(&ctx.shielded())?;
    }
    Ok(measured?.render())
}

fn measure_on(ctx: &Ctx, runs: u32, stands: &mut Vec<Stand>) -> Result<Times> {
    let mut times = Times::default();
    // Interleaved, so that a noisy minute of the machine hits every case alike; and each goes first in
    // every other run.
    for run in 1..=runs {
        ctx.ui.say(format!("run {run} of {runs}"));
        for ours in [run % 2 == 1, run % 2 == 0] {
            let stand = Stand::fresh(ctx, stands)?;
            if ours {
                times.cold_ours.push(time(ctx, stand.ours(ctx)?)?);
                times.idle_ours.push(time(ctx, stand.ours(ctx)?)?);
                times.idle_compose.push(time(ctx, stand.compose(&[]))?);
            } else {
                times.cold_compose.push(time(ctx, stand.compose(&[]))?);
            }
            stand.stop(ctx)?;
        }
    }
    let stand = Stand::fresh(ctx, stands)?;
    let slow = write_slow_overlay(ctx, &stand.trial)?;
    // Once is enough: it waits for the clock and hardly varies.
    times.cold_slow.push(time(ctx, stand.compose(&[slow]))?);
    stand.stop(ctx)?;
    Ok(times)
}

/// What was measured, by case.
#[derive(Default)]
struct Times {
    cold_ours: Vec<Duration>,
    cold_compose: Vec<Duration>,
    cold_slow: Vec<Duration>,
    idle_ours: Vec<Duration>,
    idle_compose: Vec<Duration>,
}

impl Times {
    fn render(self) -> String {
        render(&[
            ("cold: cargo xtask up", self.cold_ours, None),
            ("cold: docker compose up -d --wait", self.cold_compose, Some(0)),
            ("cold: the same, default health checks", self.cold_slow, Some(0)),
            ("nothing to do: cargo xtask up", self.idle_ours, None),
            ("nothing to do: docker compose up -d --wait", self.idle_compose, Some(3)),
        ])
    }
}

/// A stack that is brought up cold once. Each time has another one, and all of them stay until the end:
/// for minutes after a thousand files of a database were deleted, ext4 passes over every one of their
/// inodes for each new file, and a second and more of a cold start would be that.
struct Stand {
    trial: Trial,
    project: Project,
}

impl Stand {
    /// With images and secrets, which no case shall pay for, and no container or volume. It is kept in
    /// `stands` first of all, so that whoever removes those finds it.
    fn fresh<'a>(ctx: &Ctx, stands: &'a mut Vec<Stand>) -> Result<&'a Stand> {
        let trial = Trial::prepare(ctx, &format!("bench-{}", stands.len()), Kind::Local)?;
        let project = trial.project(ctx)?;
        stands.push(Stand { trial, project });
        let stand = stands.last_mut().context("take what was just kept")?;
        ctx.run(stand.trial.xtask(ctx, &["build"])?)?;
        // What the build found out stands in the environment file.
        stand.project = stand.trial.project(ctx)?;
        Ok(stand)
    }

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

    /// Its containers would be in the way of the next one. Its volumes stay.
    fn stop(&self, ctx: &Ctx) -> Result<()> {
        ctx.run(self.project.compose().arg("down").limit(LIMIT))
    }
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
