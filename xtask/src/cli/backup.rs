//! What `backup` takes.

use clap::{Args, Subcommand};

use super::FormatArgs;

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct BackupArgs {
    #[command(subcommand)]
    pub(crate) verb: Option<BackupVerb>,
    /// Prove it by a restore at once, as `backup verify` does
    #[arg(long)]
    pub(crate) verify: bool,
    #[command(flatten)]
    pub(crate) format: FormatArgs,
}

#[derive(Subcommand)]
pub(crate) enum BackupVerb {
    /// Show this project's backups, oldest first
    List(FormatArgs),
    /// Prove that a backup can be restored: into fresh servers without a network, and compare
    Verify {
        /// Its name, or `latest`
        #[arg(value_name = "ID", default_value = "latest")]
        id: String,
        #[command(flatten)]
        format: FormatArgs,
    },
    /// Show what is in a backup
    Show {
        /// Its name, or `latest`
        #[arg(value_name = "ID", default_value = "latest")]
        id: String,
        #[command(flatten)]
        format: FormatArgs,
    },
}
