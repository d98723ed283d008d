//! `bench`: measured here, in one run, as ratios; the absolute figures are this machine's.

mod backup;
mod http;
mod rebuild;
mod up;

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::cli::{BenchArgs, BenchVerb};
use crate::commands::setup;
use crate::ctx::{Ctx, Invocation};
use crate::env::Kind;
use crate::stack::trial::{self, Trial};
use crate::ui;

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
    let measured = match args.verb {
        BenchVerb::Up { runs } => up::measure(ctx, runs),
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

fn time(ctx: &Ctx, command: Invocation) -> Result<Duration> {
    let started = Instant::now();
    ctx.run(command)?;
    Ok(started.elapsed())
}

fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
