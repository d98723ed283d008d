//! `offsite`: copies backups away from the host and back. `cargo xtask backup push` and `pull` start it.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use offsite::place::Place;
use offsite::{pull, push};
use rustix::fs::Mode;
use rustix::process::umask;

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Copy a folder to a place, and read it back
    Push {
        folder: PathBuf,
        place: String,
        /// Encrypt for this age recipient; may be given several times
        #[arg(long = "recipient")]
        recipients: Vec<String>,
    },
    /// Fetch a copy into a folder that is not there yet
    Pull {
        place: String,
        name: String,
        folder: PathBuf,
        /// The file with the secret key of age
        #[arg(long)]
        identity: Option<PathBuf>,
    },
    /// Print the names of whole copies, oldest first
    List { place: String },
}

#[tokio::main]
async fn main() -> ExitCode {
    // What it writes holds the database: folders and files are for their owner alone.
    umask(Mode::RWXG | Mode::RWXO);
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<()> {
    match Cli::parse().verb {
        Verb::Push { folder, place, recipients } => {
            push::push(&folder, &Place::make(&place)?, &recipients).await.map(drop)
        }
        Verb::Pull { place, name, folder, identity } => {
            pull::pull(&Place::open(&place)?, &name, &folder, identity.as_deref()).await
        }
        Verb::List { place } => {
            for name in Place::open(&place)?.copies().await? {
                println!("{name}");
            }
            Ok(())
        }
    }
}
