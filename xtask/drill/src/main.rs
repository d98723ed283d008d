//! `drill`: faults under load, on a stack of its own. `cargo xtask drill` is how it is started.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use clap::builder::PossibleValuesParser;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use drill::arena::Arena;
use drill::cases::{CASES, Case, Ground};
use drill::report::{self, Report};
use drill::run::{self, Grounds};
use drill::stack::Stack;
use drill::supervisor::{self, RATE};

/// `--quick` ends within three minutes: later than this no case is begun.
const QUICK: Duration = Duration::from_secs(150);

/// Exit codes: 0 every case ran and was within its bound, 1 not, 2 wrong usage, 130 interrupted.
#[derive(Parser)]
struct Cli {
    /// The cases; none with --all or --quick
    #[arg(hide_possible_values = true,
          value_parser = PossibleValuesParser::new(CASES.iter().map(|case| case.name)))]
    cases: Vec<String>,
    /// Every case but those that hit the whole machine
    #[arg(long, conflicts_with_all = ["quick", "cases"])]
    all: bool,
    /// A few cases, in at most three minutes
    #[arg(long, conflicts_with = "cases")]
    quick: bool,
    /// With --quick: every one of its cases, however long it takes
    #[arg(long)]
    unhurried: bool,
    /// Print the cases and their bounds
    #[arg(long)]
    list: bool,
    /// Gives the schedules of an earlier run again
    #[arg(long)]
    seed: Option<u64>,
    /// The repository
    #[arg(long, required_unless_present = "list")]
    root: Option<PathBuf>,
    /// The environment file of a stack that is not up
    #[arg(long, required_unless_present = "list")]
    env_file: Option<PathBuf>,
    /// The program that brings it up
    #[arg(long, required_unless_present = "list")]
    xtask: Option<PathBuf>,
    /// Where report.json and report.html go
    #[arg(long, required_unless_present = "list")]
    report: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = tokio::select! {
        outcome = run(&cli) => outcome,
        // The guards of the running case put right what it has done.
        () = interrupted() => {
            eprintln!("interrupted");
            return ExitCode::from(130);
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn interrupted() {
    let watch = |kind| signal(kind).map_err(|error| eprintln!("cannot watch for signals: {error}"));
    let (Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)) = (
        watch(SignalKind::interrupt()),
        watch(SignalKind::terminate()),
        watch(SignalKind::hangup()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        _ = hangup.recv() => {}
    }
}

/// Runs the cases; true if all of them ran and passed.
async fn run(cli: &Cli) -> Result<bool> {
    if cli.list {
        print!("{}", report::list(CASES));
        return Ok(true);
    }
    let cases = chosen(cli);
    raise_descriptors()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seed = cli.seed.unwrap_or_else(|| u64::from(now.subsec_nanos()) ^ now.as_secs());
    eprintln!("{} cases, seed {seed}, {RATE} requests a second", cases.len());
    let (began, start) = (now.as_secs(), Instant::now());
    let [root, env_file, xtask, folder] = paths(cli)?;
    let stack = Stack::load(root, env_file)?;
    // Not APP_ENV, which is `test` here: the files make the difference.
    let is_production = stack.value("COMPOSE_FILE").contains("compose.prod.yaml");
    let arena = Arena::prepare(stack, xtask.to_owned()).await?;
    let mut report = Report {
        seed,
        stack: if is_production { "production" } else { "local" },
        engine: supervisor::engine().await?,
        rate: RATE,
        began,
        took: 0.0,
        cases: Vec::new(),
    };
    let mut grounds = Grounds::new(&arena, seed);
    let has_time = || !cli.quick || cli.unhurried || start.elapsed() < QUICK;
    run::cases(&mut grounds, &cases, seed, has_time, |result| {
        eprintln!("{}", report::line(&result));
        report.cases.push(result);
        report.took = start.elapsed().as_secs_f64();
        write(folder, &report)
    })
    .await?;
    eprintln!("\n{}", report::table(&report));
    eprintln!("{}\n{}", report::summary(&report), folder.join("report.html").display());
    Ok(report.is_clean())
}

/// As many as this user may have: thousands of connections are open at a time in one of the cases, and
/// what a shell grants is often 1024.
fn raise_descriptors() -> Result<()> {
    let granted = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: granted.maximum, ..granted };
    setrlimit(Resource::Nofile, raised).context("raise the limit of open descriptors (ulimit -n)")
}

/// Root, environment file, xtask and the report's folder: clap has made sure of them.
fn paths(cli: &Cli) -> Result<[&Path; 4]> {
    let all = [&cli.root, &cli.env_file, &cli.xtask, &cli.report].map(Option::as_deref);
    match all {
        [Some(a), Some(b), Some(c), Some(d)] => Ok([a, b, c, d]),
        _ => anyhow::bail!("start it with `cargo xtask drill`, which says where the stack is"),
    }
}

/// Written after every case: what was found is kept, however the run ends.
fn write(folder: &Path, report: &Report) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    let json = serde_json::to_string_pretty(report).context("write the report as JSON")?;
    for (name, text) in [
        ("report.json", json + "\n"),
        ("report.html", report::page(report)),
        ("report.md", report::markdown(report)),
    ] {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

fn chosen(cli: &Cli) -> Vec<&'static Case> {
    let is_chosen = |case: &&Case| {
        cli.cases.iter().any(|name| name == case.name)
            || (cli.all && case.ground != Ground::Machine)
            || (cli.quick && case.quick)
    };
    let chosen: Vec<&Case> = CASES.iter().filter(is_chosen).collect();
    if chosen.is_empty() {
        let message = "name cases, or say --all or --quick; --list shows the cases";
        Cli::command().error(ErrorKind::MissingRequiredArgument, message).exit();
    }
    chosen
}
