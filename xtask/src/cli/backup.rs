//! What `backup` takes.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::FormatArgs;

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct BackupArgs {
    #[command(subcommand)]
    pub(crate) verb: Option<BackupVerb>,
    /// Prove it by a restore at once, as `backup verify` does
    #[arg(long)]
    pub(crate) verify: bool,
    /// Copy it to BACKUP_REMOTE afterwards, as `backup push` does
    #[arg(long)]
    pub(crate) push: bool,
    /// Delete old ones afterwards, as `backup prune` does: also where there was no room to take or to
    /// prove one, and not after any other failure
    #[arg(long)]
    pub(crate) prune: bool,
    #[command(flatten)]
    pub(crate) keep: KeepArgs,
    /// Take it, and try it, also where the disk looks too small for that
    #[arg(long)]
    pub(crate) force: bool,
    /// Take none; print what takes one every night, proves it and deletes old ones, with --push also
    /// copies it: a timer of systemd, or a line for cron
    #[arg(long, value_name = "FOR", value_enum, num_args = 0..=1, default_missing_value = "systemd", conflicts_with_all = ["verify", "prune", "force"])]
    pub(crate) schedule: Option<Scheduler>,
    #[command(flatten)]
    pub(crate) format: FormatArgs,
}

#[derive(Subcommand)]
pub(crate) enum BackupVerb {
    /// Show this project's backups, oldest first
    ///
    /// With their size, their age, and whether each is whole and proven; one whose time lies in the
    /// future is never `latest`, and is named. It never changes anything.
    ///
    /// Examples:
    ///   cargo xtask backup list
    ///   cargo xtask --prod backup list --remote
    #[command(verbatim_doc_comment)]
    List(ListArgs),
    /// Prove that a backup can be restored: into fresh servers without a network, and compare
    ///
    /// Every sum is read before; afterwards rows, digests, roles, the last migration and keys are
    /// compared with the manifest, and the time is written down. The stack itself is never touched,
    /// and without room for both on its disk nothing is restored.
    ///
    /// Examples:
    ///   cargo xtask backup verify
    ///   cargo xtask backup verify 20261124T131502Z
    #[command(verbatim_doc_comment)]
    Verify {
        /// Its name, or `latest`
        #[arg(value_name = "ID", default_value = "latest")]
        id: String,
        /// Also where the disk looks too small: by the size that the databases had, of which bloat is
        /// not restored
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        format: FormatArgs,
    },
    /// Show what is in a backup
    ///
    /// Versions, times, rows of each table, keys. It reads the manifest alone, and never changes
    /// anything.
    ///
    /// Examples:
    ///   cargo xtask backup show latest --format json
    #[command(verbatim_doc_comment)]
    Show {
        /// Its name, or `latest`
        #[arg(value_name = "ID", default_value = "latest")]
        id: String,
        #[command(flatten)]
        format: FormatArgs,
    },
    /// Copy a backup to BACKUP_REMOTE, encrypted for BACKUP_RECIPIENTS, and read it back
    ///
    /// The key of S3 comes from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment of
    /// this command, another server than Amazon's from AWS_ENDPOINT_URL. It never deletes a copy
    /// there. A folder has to be there: one whose disk is not mounted is an error.
    ///
    /// Examples:
    ///   cargo xtask --prod backup push latest
    #[command(verbatim_doc_comment)]
    Push {
        /// Its name, or `latest`
        #[arg(value_name = "ID", default_value = "latest")]
        id: String,
        #[command(flatten)]
        format: FormatArgs,
    },
    /// Bring a copy back from BACKUP_REMOTE, and check every file
    ///
    /// A backup that is here already is never replaced.
    ///
    /// Examples:
    ///   cargo xtask --prod backup pull latest --identity key.txt
    #[command(verbatim_doc_comment)]
    Pull {
        /// Its name, or `latest`
        #[arg(value_name = "ID", default_value = "latest")]
        id: String,
        /// The file with the secret key of age, where the copy is encrypted
        #[arg(long, value_name = "FILE")]
        identity: Option<PathBuf>,
        #[command(flatten)]
        format: FormatArgs,
    },
    /// Delete old backups, and keep the last of each day, week and month
    ///
    /// It says which and asks. The newest one is kept in any case, and so is the newest whose
    /// restore was proven. Damaged ones are never deleted, nor those whose time lies in the future:
    /// look at them first.
    ///
    /// Examples:
    ///   cargo xtask backup prune --dry-run
    ///   cargo xtask backup prune --keep-last 7 --keep-monthly 24
    #[command(verbatim_doc_comment)]
    Prune(PruneArgs),
}

#[derive(Args)]
pub(crate) struct ListArgs {
    /// Show the copies in BACKUP_REMOTE instead
    #[arg(long)]
    pub(crate) remote: bool,
    #[command(flatten)]
    pub(crate) format: FormatArgs,
}

#[derive(Args)]
pub(crate) struct PruneArgs {
    #[command(flatten)]
    pub(crate) keep: KeepArgs,
    #[command(flatten)]
    pub(crate) format: FormatArgs,
}

/// Which backups `prune` keeps.
#[derive(Args)]
pub(crate) struct KeepArgs {
    /// Keep the newest so many (3)
    #[arg(long, value_name = "N")]
    pub(crate) keep_last: Option<usize>,
    /// Keep the last one of each of so many days (7)
    #[arg(long, value_name = "N")]
    pub(crate) keep_daily: Option<usize>,
    /// Keep the last one of each of so many weeks (5)
    #[arg(long, value_name = "N")]
    pub(crate) keep_weekly: Option<usize>,
    /// Keep the last one of each of so many months (12)
    #[arg(long, value_name = "N")]
    pub(crate) keep_monthly: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scheduler {
    Systemd,
    Cron,
}

#[derive(Args)]
pub(crate) struct RestoreArgs {
    /// The backup's name, or `latest`
    pub(crate) id: String,
    /// Where it is, if not among this project's backups: a folder with backups or copies, one of
    /// them, or s3://BUCKET/PREFIX/PROJECT with copies
    #[arg(long, value_name = "PLACE")]
    pub(crate) from: Option<String>,
    /// The file with the secret key of age, where the copy is encrypted
    #[arg(long, value_name = "FILE", requires = "from")]
    pub(crate) identity: Option<PathBuf>,
    /// Restore one of the two, and leave the other's data alone
    #[arg(long, value_enum)]
    pub(crate) only: Option<Part>,
    /// Make a copy of the database under this name to look at, and replace nothing
    #[arg(long, value_name = "NAME", conflicts_with = "only")]
    pub(crate) into: Option<String>,
    /// Also from another major version, from a server that sorts text differently, or where
    /// PostgreSQL's volume, or the disk for the copy of what is replaced, looks too small
    #[arg(long)]
    pub(crate) force: bool,
    /// Read every row back before anything is replaced, also of a backup that was verified, of
    /// which the rows are only counted
    #[arg(long)]
    pub(crate) compare: bool,
    /// Drop what was replaced without saving it
    #[arg(long)]
    pub(crate) skip_safety_backup: bool,
    #[command(flatten)]
    pub(crate) format: FormatArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    Postgres,
    Redis,
}
