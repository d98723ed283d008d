//! What each verb takes.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::Scheduler;
use crate::stack::project::PRODUCTION_ENV;
use crate::stack::secrets::GRACE;

#[derive(Args, Clone, Debug)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    /// Show how long each service took, and which of them the whole waited for
    #[arg(long)]
    pub(crate) timings: bool,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct WaitArgs {
    /// Seconds until a service that is not healthy counts as failed
    #[arg(long, value_name = "SECONDS", default_value_t = 180, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
}

impl WaitArgs {
    pub(crate) fn limit(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }
}

#[derive(Args)]
pub(crate) struct DeployArgs {
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    /// Seconds for which the new version answers before the old one goes
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    watch: u64,
    /// Go back to the image that served until the present one took its place
    #[arg(long)]
    pub(crate) back: bool,
}

impl DeployArgs {
    pub(crate) fn watch(&self) -> Duration {
        Duration::from_secs(self.watch)
    }
}

#[derive(Args)]
pub(crate) struct DownArgs {
    /// Delete the data as well: tables, sessions, everything. Asks first
    #[arg(long)]
    pub(crate) volumes: bool,
}

#[derive(Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) format: FormatArgs,
    /// Show it again every second, until Ctrl-C
    #[arg(long)]
    pub(crate) watch: bool,
}

#[derive(Args)]
pub(crate) struct FormatArgs {
    /// For people, or for programs
    #[arg(long, value_enum, default_value_t = Format::Text)]
    pub(crate) format: Format,
}

#[derive(Args)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    pub(crate) format: FormatArgs,
    /// Exit with 1 for a warning as well, as a timer that calls somebody wants it
    #[arg(long)]
    pub(crate) strict: bool,
    /// Look at nothing; print what does so every hour, with --strict: a timer of systemd, or a line for
    /// cron
    #[arg(long, value_name = "FOR", value_enum, num_args = 0..=1, default_missing_value = "systemd")]
    pub(crate) schedule: Option<Scheduler>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Text,
    Json,
}

#[derive(Args)]
pub(crate) struct LogsArgs {
    /// nginx, backend, postgres or redis; all of them by default
    pub(crate) services: Vec<String>,
    /// Keep printing what comes
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// How many lines of each service's past
    #[arg(long, short = 'n', default_value_t = 100)]
    pub(crate) tail: u32,
}

#[derive(Args)]
pub(crate) struct MigrateArgs {
    #[command(subcommand)]
    pub(crate) verb: Option<MigrateVerb>,
}

#[derive(Subcommand)]
pub(crate) enum MigrateVerb {
    /// Show which migrations are applied; writes nothing
    ///
    /// The table of history is not even made where there is none.
    ///
    /// Examples:
    ///   cargo xtask migrate status --format json
    #[command(verbatim_doc_comment)]
    Status(FormatArgs),
    /// Write the next numbered file, and print its name
    ///
    /// It never changes a file that is there.
    ///
    /// Examples:
    ///   cargo xtask migrate new add_tags
    ///   cargo xtask migrate new index_tags --no-transaction
    #[command(verbatim_doc_comment)]
    New(NewMigrationArgs),
    /// Find statements in new files that would hold a table in use up
    ///
    /// New is what came since this branch left the main one. Each finding has the file, the line,
    /// the reason and the safe way; a comment `-- squawk-ignore RULE -- REASON` above a statement
    /// accepts it. A part of `ci`. It never asks a database.
    ///
    /// Examples:
    ///   cargo xtask migrate lint          files that are new on this branch
    ///   cargo xtask migrate lint --all
    #[command(verbatim_doc_comment)]
    Lint(LintArgs),
    /// Write backend/schema.sql and backend/.sqlx anew
    ///
    /// On a database of its own, made from nothing by every migration and dropped afterwards. After
    /// a new migration, and after a change of a statement that the compiler checks. The stack's own
    /// database is never touched.
    ///
    /// Examples:
    ///   cargo xtask migrate schema
    ///   cargo xtask migrate schema --check    what `ci` runs
    #[command(verbatim_doc_comment)]
    Schema(SchemaArgs),
}

#[derive(Args)]
pub(crate) struct NewMigrationArgs {
    /// What it does, such as add_tags: lower-case letters, digits and `_`
    pub(crate) name: String,
    /// For one statement that PostgreSQL refuses in a transaction, such as CREATE INDEX
    /// CONCURRENTLY
    #[arg(long)]
    pub(crate) no_transaction: bool,
}

#[derive(Args)]
pub(crate) struct LintArgs {
    /// Look at every file
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Args)]
pub(crate) struct SchemaArgs {
    /// Change nothing, and fail if a file is out of step: a part of `ci`
    #[arg(long)]
    pub(crate) check: bool,
}

#[derive(Args)]
pub(crate) struct SeedArgs {
    /// Delete every row first. Asks
    #[arg(long)]
    pub(crate) reset: bool,
}

#[derive(Args)]
pub(crate) struct PassArgs {
    /// Arguments for the program
    #[arg(last = true)]
    pub(crate) args: Vec<String>,
}

#[derive(Args)]
pub(crate) struct ExecArgs {
    /// nginx, backend, postgres or redis
    pub(crate) service: String,
    /// The command and its arguments
    #[arg(last = true, required = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Args)]
pub(crate) struct BuildArgs {
    /// Build what is up to date as well
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Args)]
pub(crate) struct TestArgs {
    /// Leave the tests' own stack running, to look at it
    #[arg(long)]
    pub(crate) keep: bool,
    /// Only the tests that need no Docker: the same as `cargo test`
    #[arg(long)]
    pub(crate) unit: bool,
    /// Only tests on a stack, those with one of these in their names
    #[arg(value_name = "NAME", conflicts_with = "unit")]
    pub(crate) names: Vec<String>,
}

#[derive(Args)]
pub(crate) struct EnvArgs {
    #[command(subcommand)]
    pub(crate) verb: EnvVerb,
}

#[derive(Subcommand)]
pub(crate) enum EnvVerb {
    /// Write the file, or add the lines that it lacks; secrets are generated, values are kept
    ///
    /// The file has mode 0600. A value that stands in it is never changed.
    ///
    /// Examples:
    ///   cargo xtask env init --prod
    #[command(verbatim_doc_comment)]
    Init,
    /// Check the file against .env.example, and the strength of production's secrets
    ///
    /// Every finding at once, each with its name. A value is never printed, and nothing is changed.
    ///
    /// Examples:
    ///   cargo xtask env check --prod
    #[command(verbatim_doc_comment)]
    Check,
    /// Compare two environment files by name; values are never printed
    ///
    /// Shows which names are in one alone, and which have the same or another value.
    ///
    /// Examples:
    ///   cargo xtask env diff                  .env with .env.production
    ///   cargo xtask env diff old/.env
    #[command(verbatim_doc_comment)]
    Diff {
        /// The file to compare with that of --env-file or --prod
        #[arg(value_name = "FILE", default_value = PRODUCTION_ENV)]
        other: PathBuf,
    },
    /// Give a secret a new value while the stack runs; nobody is signed out, no request fails
    ///
    /// The services accept the previous value as well until the grace period is over. A rotation
    /// that was interrupted is finished by the same command or by `up`; a value is never printed.
    ///
    /// Examples:
    ///   cargo xtask --prod env rotate SESSION_SECRET --grace 1d
    #[command(verbatim_doc_comment)]
    Rotate {
        /// The variable, such as PG_PASSWORD
        #[arg(value_name = "SECRET")]
        name: String,
        /// How long a previous session or CSRF key stays valid. The default is the time after which
        /// a session that nobody uses ends anyway
        #[arg(long, value_name = "TIME", default_value = GRACE,
              value_parser = humantime::parse_duration)]
        grace: Duration,
    },
}

#[derive(Args)]
pub(crate) struct ParityArgs {
    /// The table, Markdown for a pull request, or JSON for scripts
    #[arg(long, value_enum, default_value_t = ReportFormat::Text)]
    pub(crate) format: ReportFormat,
}

#[derive(Args)]
pub(crate) struct AuditArgs {
    /// The table, Markdown for a pull request, or JSON for scripts
    #[arg(long, value_enum, default_value_t = ReportFormat::Text)]
    pub(crate) format: ReportFormat,
    /// Fail where the stack does not run, instead of leaving items unchecked
    #[arg(long)]
    pub(crate) running: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportFormat {
    Text,
    Markdown,
    Json,
}

#[derive(Args)]
pub(crate) struct CertArgs {
    #[command(subcommand)]
    pub(crate) verb: CertVerb,
}

#[derive(Subcommand)]
pub(crate) enum CertVerb {
    /// Make a certificate that no authority vouches for, to try production with
    ///
    /// It never replaces one that is there without asking.
    ///
    /// Examples:
    ///   cargo xtask cert self-signed --name shop.example
    #[command(verbatim_doc_comment)]
    SelfSigned {
        /// A further host name or address; localhost, 127.0.0.1, ::1 and HTTP_ADDRESS are always in it
        #[arg(long = "name", value_name = "NAME")]
        names: Vec<String>,
    },
    /// Take over a certificate and its key, and have a running nginx show it; for a renewal hook
    ///
    /// Checked before anything changes: a pair that nginx could not use is never installed.
    ///
    /// Examples:
    ///   cargo xtask cert install fullchain.pem privkey.pem
    #[command(verbatim_doc_comment)]
    Install {
        /// The certificate and those that lead to its authority, in PEM form
        chain: PathBuf,
        /// Its private key, in PEM form
        key: PathBuf,
    },
    /// Look at the certificate as nginx will: dates, key, chain, who can read it
    ///
    /// It never changes anything. Exit code 1 where nginx could not use it.
    ///
    /// Examples:
    ///   cargo xtask cert check
    #[command(verbatim_doc_comment)]
    Check,
    /// Have nginx show the certificate that is in the folder; no connection is lost
    ///
    /// The one that nginx shows is never given up for one that it could not use.
    ///
    /// Examples:
    ///   cargo xtask cert reload
    #[command(verbatim_doc_comment)]
    Reload,
}

#[derive(Args)]
pub(crate) struct DrillArgs {
    /// Cases by name
    pub(crate) cases: Vec<String>,
    /// Every case, but for those that hit the whole machine: they must be named
    #[arg(long, conflicts_with_all = ["cases", "quick"])]
    pub(crate) all: bool,
    /// Some cases, in at most three minutes
    #[arg(long, conflicts_with = "cases")]
    pub(crate) quick: bool,
    /// Print the cases and their bounds
    #[arg(long)]
    pub(crate) list: bool,
    /// The seed that an earlier run printed: the same requests in the same order
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    #[command(flatten)]
    pub(crate) format: FormatArgs,
    /// Begin every case of --quick however late it is: `ci` is for the verdict, on whatever machine
    #[arg(skip)]
    pub(crate) is_unhurried: bool,
}

#[derive(Args)]
pub(crate) struct CompletionsArgs {
    pub(crate) shell: clap_complete::Shell,
}
