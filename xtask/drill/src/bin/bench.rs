//! `bench`: the stack's own speed, on a stack that is up. `cargo xtask bench http` is how it is started.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

use drill::bench;
use drill::stack::Stack;

/// Measures, and writes the tables.
#[derive(Parser)]
struct Cli {
    /// The repository
    #[arg(long)]
    root: PathBuf,
    /// The environment file of a stack that is up
    #[arg(long)]
    env_file: PathBuf,
    /// The image with Node.js and Express in it
    #[arg(long)]
    image: String,
    /// The other rival's binary
    #[arg(long)]
    rival: PathBuf,
    /// How often each case is measured
    #[arg(long)]
    runs: u32,
    /// Where the tables go
    #[arg(long)]
    report: PathBuf,
}

// One thread: it is enough for what the ways can do, and takes less of the machine from them than two that wake
// each other.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(&Cli::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: &Cli) -> Result<()> {
    let stack = Stack::load(&cli.root, &cli.env_file)?;
    let found = bench::run(&stack, &cli.image, &cli.rival, cli.runs).await?;
    std::fs::write(&cli.report, found.report())
        .with_context(|| format!("write {}", cli.report.display()))
}
