//! What `bench` takes.

use clap::{Args, Subcommand};

#[derive(Args)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    pub(crate) verb: BenchVerb,
}

#[derive(Subcommand)]
pub(crate) enum BenchVerb {
    /// `up` from nothing and with nothing to do, against plain Compose on the same files
    ///
    /// Images are built before; a stack of yours is never touched.
    ///
    /// Examples:
    ///   cargo xtask bench up --runs 5
    #[command(verbatim_doc_comment)]
    Up {
        /// How often each case is measured; the table shows medians
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=50))]
        runs: u32,
    },
    /// Reading and writing over HTTP, through nginx and directly, against Express and minimal axum
    ///
    /// On a stack and with rivals of its own, for about six minutes, all on this machine's own addresses: it
    /// never sends anything to another one, and a stack of yours is never touched. Best on a machine that
    /// does nothing else.
    ///
    /// Examples:
    ///   cargo xtask bench http
    ///   cargo xtask bench http --runs 1     a first look, in two minutes
    #[command(verbatim_doc_comment)]
    Http {
        /// How often each case is measured; ratios are medians of the runs
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=10))]
        runs: u32,
    },
    /// `backup` and `restore`, against bare pipelines, `pg_dump -Fc` and pgBackRest
    ///
    /// On a stack of its own, which is filled first, and with a PostgreSQL and a Redis for the rivals: time,
    /// processor, size, and the memory of xtask. Row counts are compared after each restore. It takes about ten
    /// minutes and ten times the size on the disk, and never touches a stack of yours or its backups. Best
    /// on a machine that does nothing else.
    ///
    /// Examples:
    ///   cargo xtask bench backup
    ///   cargo xtask bench backup --size 50 --sessions 5000   a look, in two minutes
    #[command(verbatim_doc_comment)]
    Backup {
        /// How often each case is measured; ratios are medians of the runs
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10))]
        runs: u32,
        /// How large the database is, its indexes included
        #[arg(long, value_name = "MB", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(20..=100_000))]
        size: u32,
        /// How many sessions there are in Redis
        #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(100..=400_000))]
        sessions: u32,
    },
    /// One line of the backend changed: `up`, against the incremental build alone
    ///
    /// On a copy of the source: your working tree is never touched.
    ///
    /// Examples:
    ///   cargo xtask bench rebuild --runs 5
    #[command(verbatim_doc_comment)]
    Rebuild {
        /// How often each case is measured; the table shows medians
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=50))]
        runs: u32,
    },
}
