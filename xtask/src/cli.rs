//! The command line. The doc comments are the manual that `--help` prints.

mod args;
mod backup;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, Parser, Subcommand};

pub(crate) use args::*;
pub(crate) use backup::*;

use crate::ctx::{Ctx, Options};
use crate::env::Kind;
use crate::stack::project::{LOCAL_ENV, PRODUCTION_ENV};
use crate::ui::Volume;

/// Drives the stack: nginx, the backend, PostgreSQL and Redis.
///
/// Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Options of every verb.
#[derive(Args)]
pub(crate) struct Global {
    /// Consent to everything that would be asked; CI=true does the same, but for deleting data
    #[arg(long, short, global = true)]
    yes: bool,
    /// Echo every external command as it could be pasted
    #[arg(long, short, global = true)]
    verbose: bool,
    /// Print errors and data only
    #[arg(long, short, global = true, conflicts_with = "verbose")]
    quiet: bool,
    /// The environment file: another file is another stack, with its own name and ports
    #[arg(long, global = true, value_name = "FILE", default_value = LOCAL_ENV)]
    env_file: PathBuf,
    /// Production: the stack of .env.production
    #[arg(long, global = true)]
    prod: bool,
    /// Print what would be done, and change nothing
    #[arg(long, global = true)]
    dry_run: bool,
}

impl Global {
    pub(crate) fn options(&self) -> Options {
        Options { yes: self.yes, dry_run: self.dry_run }
    }

    pub(crate) fn volume(&self) -> Volume {
        match (self.quiet, self.verbose) {
            (true, _) => Volume::Quiet,
            (_, true) => Volume::Verbose,
            _ => Volume::Normal,
        }
    }

    /// What a new environment file is written for.
    pub(crate) fn kind(&self) -> Kind {
        if self.prod { Kind::Production } else { Kind::Local }
    }

    /// Absolute. The defaults lie in the root, any other is seen from where the person stands.
    pub(crate) fn env_file(&self, ctx: &Ctx) -> PathBuf {
        if self.env_file == Path::new(LOCAL_ENV) {
            return ctx.root().join(if self.prod { PRODUCTION_ENV } else { LOCAL_ENV });
        }
        std::path::absolute(&self.env_file).unwrap_or_else(|_| self.env_file.clone())
    }
}

/// The project's root: the folder above this crate's, as cargo tells it.
///
/// # Errors
/// Not run through cargo, and the current folder cannot be told.
pub(crate) fn root() -> Result<PathBuf> {
    let here = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    let here = here.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")));
    let root = here.parent().map(Path::to_owned);
    root.context("find the project's root: xtask's folder has no parent")
}

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Bring the stack up, and wait until every service is healthy
    ///
    /// From nothing: sets the host up, writes .env with generated secrets, pulls or builds the
    /// images, starts the services in order, has the migrations applied, and ends with the address
    /// to open. Run again, it changes only what differs from what is wanted.
    ///
    /// It never deletes data, and takes nothing down that works. It asks before it installs
    /// anything on the host.
    ///
    /// Examples:
    ///   cargo xtask up --yes          from a fresh clone, with no question asked
    ///   cargo xtask up --dry-run      what would be done, service by service, and why
    ///   cargo xtask up --timings      which service the whole waited for
    #[command(verbatim_doc_comment)]
    Up(UpArgs),
    /// Bring the stack up, and again after every change of a source file
    ///
    /// The backend is rebuilt and replaced; nginx and Redis restart when their configuration
    /// changes; what did not change is left alone. A mistake in the code is shown, and the last
    /// good version goes on serving. Ctrl-C ends the watching and leaves the stack running.
    Watch(UpArgs),
    /// Wait until every service is healthy, and say why if one is not
    ///
    /// For a stack that something else started. It starts, stops and changes nothing. For every
    /// service that is not ready it shows the state, the last health probe, the last lines of the
    /// log, what it waits for, and a hint where the cause can be recognised.
    Wait(WaitArgs),
    /// Stop the stack and remove its containers; data stays unless --volumes is given
    ///
    /// Each service gets the time to end in order: requests in flight finish, PostgreSQL writes a
    /// checkpoint. With --volumes it names what it will delete, and asks.
    ///
    /// Examples:
    ///   cargo xtask down              tables and sessions are there at the next up
    ///   cargo xtask down --volumes    begin with nothing
    #[command(verbatim_doc_comment)]
    Down(DownArgs),
    /// Show services, health, usage, migrations and volumes on one screen
    ///
    /// Ends with what `up` would do now. Changes nothing. The JSON form is described in
    /// docs/status.md; its fields are only ever added to.
    Status(StatusArgs),
    /// Show the log of one service or of all
    ///
    /// Examples:
    ///   cargo xtask logs              the last 100 lines of each service
    ///   cargo xtask logs backend -f   and what comes, until Ctrl-C
    #[command(verbatim_doc_comment)]
    Logs(LogsArgs),
    /// Apply the migrations, try them, write one, or show which are applied
    ///
    /// Runs the backend's own engine in a container of its own; `up` does the same by itself, so
    /// this is for the times in between. It never edits or reverts what was applied; see
    /// docs/database-migrations.md.
    ///
    /// Examples:
    ///   cargo xtask migrate               apply what is pending
    ///   cargo xtask migrate status        a table of what is applied; writes nothing
    ///   cargo xtask migrate new add_tags  write the next file
    ///   cargo xtask migrate lint          what in new files would hold a busy table up
    ///   cargo xtask migrate --dry-run     apply what is pending to a copy of the schema
    ///   cargo xtask migrate schema        write backend/schema.sql and backend/.sqlx anew
    #[command(verbatim_doc_comment)]
    Migrate(MigrateArgs),
    /// Fill the database with sample rows
    ///
    /// May be repeated: rows that are there are left alone. With --reset every row is deleted first,
    /// and everybody signed out; it asks. Refused in production.
    Seed(SeedArgs),
    /// Take, prove, list and prune backups of tables, roles and sessions
    ///
    /// PostgreSQL's databases, each as it is in one snapshot, and Redis' keys go to
    /// backups/PROJECT/TIME, compressed and with a manifest of what is in them, while both are in
    /// use. A backup that is listed is whole: it is written under another name first. Passwords are
    /// not in it. See docs/backups.md.
    ///
    /// Examples:
    ///   cargo xtask backup --verify       take one, and prove that it can be restored
    ///   cargo xtask backup list           every backup, and whether it is whole and proven
    ///   cargo xtask backup prune          delete old ones, keep the last of each day, week, month
    ///   cargo xtask backup --schedule     a timer that takes one every night
    #[command(verbatim_doc_comment)]
    Backup(BackupArgs),
    /// Put a backup in the place of the present data
    ///
    /// Refuses a backup that is damaged. Saves the present data first, loads the backup beside them,
    /// compares every row and key with the manifest, and only then swaps the two; interrupted before
    /// that, nothing has changed. The stack stays up. It says what will be lost, and asks.
    ///
    /// Examples:
    ///   cargo xtask restore latest                          the newest whole backup
    ///   cargo xtask restore 20261124T131502Z --only redis   sessions alone
    ///   cargo xtask restore latest --into yesterday         a copy beside the live data
    ///   cargo xtask restore latest --from /mnt/backups/shop on a new server
    #[command(verbatim_doc_comment)]
    Restore(RestoreArgs),
    /// Open psql on the stack's database
    ///
    /// Arguments after `--` go to psql. Its exit code is passed on.
    ///
    /// Examples:
    ///   cargo xtask psql
    ///   cargo xtask psql -- -c 'select count(*) from accounts'
    #[command(verbatim_doc_comment)]
    Psql(PassArgs),
    /// Open redis-cli on the stack's Redis
    ///
    /// Arguments after `--` go to redis-cli. Its exit code is passed on.
    ///
    /// Examples:
    ///   cargo xtask redis-cli -- info memory
    #[command(verbatim_doc_comment)]
    RedisCli(PassArgs),
    /// Run a command in a service's container
    ///
    /// Its exit code is passed on. (The backend's image has no shell: only its own binary.)
    ///
    /// Examples:
    ///   cargo xtask exec postgres -- ls -l /var/lib/postgresql/data
    ///   cargo xtask exec nginx -- nginx -T
    #[command(verbatim_doc_comment)]
    Exec(ExecArgs),
    /// Pull or build the images that are missing or out of date
    ///
    /// Starts and replaces no container; `up` does this by itself. Where no registry answers, the
    /// base images are built from the distribution's packages: docs/images.md.
    Build(BuildArgs),
    /// Run every test: those without Docker, then those on a stack of their own
    ///
    /// The stack has a name, ports and volumes of its own and is removed at the end; your data is
    /// never touched.
    Test(TestArgs),
    /// Check everything, as a continuous integration server does
    ///
    /// Formatting, lints, unit tests, shell scripts, new migrations, every combination of Compose
    /// files, then the whole stack under a name, ports and volumes of its own: whether the schema and
    /// the described statements are in step, all integration tests, and the API against its
    /// description. It goes on after a failure, gives one verdict at the end, and cleans up after
    /// itself.
    Ci,
    /// Look for what could keep the stack from working, and say what to do about it
    ///
    /// Each line passes, warns or fails; a failure makes the exit code 1. Changes nothing. The
    /// JSON form is described in docs/status.md.
    Doctor(FormatArgs),
    /// Install or upgrade Docker where it is missing or old, and start it
    ///
    /// Debian and Ubuntu only; elsewhere it says what to install. It asks before it changes the
    /// host, and `--dry-run` shows what it would run.
    Setup,
    /// Write, check or compare environment files; rotate secrets
    Env(EnvArgs),
    /// Prove that production is the same stack as local, difference by difference
    ///
    /// Every difference of the rendered files needs a rule with its reason in deploy/parity.json, and
    /// every rule a difference. Stacks that run are compared with their own files. Exit code 1 on any
    /// violation. The JSON form is described in docs/parity.md.
    Parity(ParityArgs),
    /// Go through the hardening checklist, in the files and in what runs
    ///
    /// It speaks of the stack of .env.production, unless --env-file names another. What is not met on
    /// purpose stands in deploy/audit.json with its reason. Exit code 1 on any failure. The JSON form is
    /// described in docs/audit.md.
    Audit(AuditArgs),
    /// Make, install, check or reload production's certificate
    ///
    /// It speaks of the stack of .env.production, unless --env-file names another.
    Cert(CertArgs),
    /// Break a loaded stack in many ways, and check that nothing acknowledged is lost
    ///
    /// On a stack of its own, which is removed afterwards; with --prod it has production's files. A
    /// constant load of people who write goes on while a fault is made, from a killed process to a
    /// full disk; then everything is read back and compared with what was acknowledged. The table
    /// and the promises are in docs/reliability.md; the report, with a plot for each case, in
    /// target/drill. The faults are made from the host: this user must be allowed to send signals
    /// to the containers' processes.
    ///
    /// Examples:
    ///   cargo xtask drill --quick               a few minutes; a part of `ci`
    ///   cargo xtask drill kill-redis --seed 7   one case, with the schedule of an earlier run
    ///   cargo xtask drill --all --prod          every case on production's files
    #[command(verbatim_doc_comment)]
    Drill(DrillArgs),
    /// Measure, and print a table
    Bench(BenchArgs),
    /// Print the completions for a shell
    ///
    /// They are for a function or alias named `xtask`, because the word `cargo` has completions of
    /// its own. For bash, in ~/.bashrc:
    ///
    ///   xtask() { cargo xtask "$@"; }
    ///   source <(cargo xtask completions bash)
    #[command(verbatim_doc_comment)]
    Completions(CompletionsArgs),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Cli::command().debug_assert();
    }
}
