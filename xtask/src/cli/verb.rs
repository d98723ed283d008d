//! The verbs. Their doc comments are their pages of the manual: what it does, what it never does,
//! examples.

use clap::Subcommand;

use super::*;

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Bring the stack up, and wait until every service is healthy
    ///
    /// From nothing: sets the host up, writes .env with generated secrets, pulls or builds the
    /// images, starts the services in order, has the migrations applied, and ends with the address
    /// to open. Run again, it changes only what differs from what is wanted.
    ///
    /// It never deletes data, and takes nothing down that works. Where PostgreSQL runs already, pending
    /// migrations are applied before anything is replaced, and one that is under way is waited for. It asks
    /// before it installs anything on the host.
    ///
    /// Examples:
    ///   cargo xtask up --yes          from a fresh clone, with no question asked
    ///   cargo xtask up --dry-run      what would be done, service by service, and why
    ///   cargo xtask up --timings      which service the whole waited for
    #[command(verbatim_doc_comment)]
    Up(UpArgs),
    /// Bring the stack up, and again after every change of a source file
    ///
    /// The backend is rebuilt and replaced; nginx reads its templates and snippets anew, without a
    /// pause; a service restarts when a file changes that it reads at its start only; what did not
    /// change is left alone. A mistake in the code, or in what nginx reads, is shown, and the last
    /// good version goes on serving. Ctrl-C ends the watching and leaves the stack running. It
    /// never stops the stack, and never deletes data. The pages need no watching: nginx serves
    /// their folder as it is.
    ///
    /// Examples:
    ///   cargo xtask watch             with `cargo xtask logs -f` in another terminal
    #[command(verbatim_doc_comment)]
    Watch(UpArgs),
    /// Replace the backend by its new version without a pause, or roll back
    ///
    /// The new version starts beside the old one. When it is healthy, nginx moves new requests to it and lets the
    /// old ones end; it is watched while the old one is still there. If it ends, gets unhealthy, leaves a request
    /// unanswered or answers a greater share with errors than the old one did, requests go back and the old
    /// version serves on. Otherwise the service's own container is made anew, and the second one removed.
    /// All the while requests are tried through nginx; the last lines say how many, and whether one failed.
    ///
    /// Pending migrations are applied first, however long they take: the old version has to live with the schema
    /// until it is gone, and after it is rolled back. It never replaces nginx, PostgreSQL or Redis, which takes a
    /// pause: `up` does.
    ///
    /// With --back the backend's image that served before takes over in the same way; pages, nginx' configuration
    /// and migrations stay.
    ///
    /// Examples:
    ///   cargo xtask --prod deploy              the backend that changed, on a server
    ///   cargo xtask --prod deploy --watch 60   with a closer look
    ///   cargo xtask deploy --dry-run           whether there is something to deploy
    ///   cargo xtask --prod deploy --back       the version before, after a mistake
    #[command(verbatim_doc_comment)]
    Deploy(DeployArgs),
    /// Wait until every service is healthy, and say why if one is not
    ///
    /// For a stack that something else started. For every service that is not ready it shows the state,
    /// the last health probe, the last lines of the log, what it waits for, and a hint where the cause
    /// can be recognised.
    ///
    /// It never starts, stops or changes anything, and it does not wait where waiting is pointless.
    ///
    /// Examples:
    ///   cargo xtask wait --timeout 60     after a reboot, before a script goes on
    #[command(verbatim_doc_comment)]
    Wait(WaitArgs),
    /// Stop the stack and remove its containers; data stays unless --volumes is given
    ///
    /// Each service gets the time to end in order: requests in flight finish, PostgreSQL writes a
    /// checkpoint. With --volumes it names what it will delete, and asks. It never touches another
    /// stack, an image or a backup.
    ///
    /// Examples:
    ///   cargo xtask down              tables and sessions are there at the next up
    ///   cargo xtask down --volumes    begin with nothing
    #[command(verbatim_doc_comment)]
    Down(DownArgs),
    /// Show services, health, usage, migrations and volumes on one screen
    ///
    /// Ends with what `up` would do now. The JSON form is described in
    /// docs/status.md; its fields are only ever added to.
    /// It never starts or changes anything.
    ///
    /// Examples:
    ///   cargo xtask status --watch            again every second
    ///   cargo xtask --prod status             the stack of .env.production
    ///   cargo xtask status --format json      for scripts
    #[command(verbatim_doc_comment)]
    Status(StatusArgs),
    /// Show the log of one service or of all
    ///
    /// In one stream, each line with its service. It never changes anything; what a service logged
    /// is kept until its container is replaced, in three files of 10 MB.
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
    ///   cargo xtask migrate --dry-run     try what is pending on a copy
    ///   cargo xtask migrate schema        write the schema and .sqlx anew
    #[command(verbatim_doc_comment)]
    Migrate(MigrateArgs),
    /// Fill the database with sample rows
    ///
    /// May be repeated: rows that are there are left alone. With --reset every row is deleted
    /// first, and everybody signed out; it asks. Refused in production. It never changes a row that
    /// is there, but with --reset, and never runs in production.
    ///
    /// Examples:
    ///   cargo xtask seed              somebody to be signed in as
    ///   cargo xtask seed --reset      the sample rows and nothing else
    #[command(verbatim_doc_comment)]
    Seed(SeedArgs),
    /// Take, prove, list and prune backups of tables, roles and sessions
    ///
    /// PostgreSQL's databases, each as it is in one snapshot, and Redis' keys go to
    /// backups/PROJECT/TIME, compressed and with a manifest of what is in them, while both are in
    /// use. A backup that is listed is whole: it is written under another name first. Passwords are
    /// never in it, and no backup is ever deleted but by `prune`, which asks. See docs/backups.md.
    ///
    /// Examples:
    ///   cargo xtask backup --verify       take one, and prove that it can be restored
    ///   cargo xtask backup list           each, and whether it is whole and proven
    ///   cargo xtask backup prune          keep the last of each day, week and month
    ///   cargo xtask backup --schedule     a timer that takes one every night
    #[command(verbatim_doc_comment)]
    Backup(BackupArgs),
    /// Put a backup in the place of the present data
    ///
    /// Refuses a backup that is damaged. Loads it beside the present data, compares every row and
    /// key with the manifest, and only then swaps the two; interrupted before that, nothing has
    /// changed. What was replaced becomes a backup and is never dropped before that is whole. The
    /// stack stays up. It says what will be lost, and asks.
    ///
    /// Examples:
    ///   cargo xtask restore latest                          the newest whole backup
    ///   cargo xtask restore 20261124T131502Z --only redis   sessions alone
    ///   cargo xtask restore latest --into yesterday         a copy beside live data
    ///   cargo xtask restore latest --from /mnt/backups/shop on a new server
    #[command(verbatim_doc_comment)]
    Restore(RestoreArgs),
    /// Open psql on the stack's database
    ///
    /// Arguments after `--` go to psql. Its exit code is passed on. It never starts what is down.
    ///
    /// Examples:
    ///   cargo xtask psql
    ///   cargo xtask psql -- -c 'select count(*) from accounts'
    #[command(verbatim_doc_comment)]
    Psql(PassArgs),
    /// Open redis-cli on the stack's Redis
    ///
    /// Arguments after `--` go to redis-cli. Its exit code is passed on. It never starts what is
    /// down.
    ///
    /// Examples:
    ///   cargo xtask redis-cli -- info memory
    #[command(verbatim_doc_comment)]
    RedisCli(PassArgs),
    /// Run a command in a service's container
    ///
    /// Its exit code is passed on. It never starts what is down. (The backend's image has no shell:
    /// only its own binary.)
    ///
    /// Examples:
    ///   cargo xtask exec postgres -- ls -l /var/lib/postgresql/data
    ///   cargo xtask exec nginx -- nginx -T
    #[command(verbatim_doc_comment)]
    Exec(ExecArgs),
    /// Pull or build the images that are missing or out of date
    ///
    /// `up` does this by itself. Where no registry answers, the
    /// base images are built from the distribution's packages: docs/images.md.
    /// It never starts, stops or replaces a container, and never removes an image.
    ///
    /// Examples:
    ///   cargo xtask build             before an `up` that is to be quick
    ///   cargo xtask build --force     also what is up to date, for the fixes of the
    ///                                 distribution; pinned images by their tags
    #[command(verbatim_doc_comment)]
    Build(BuildArgs),
    /// Run every test: those without Docker, then those on a stack of their own
    ///
    /// The stack has a name, ports and volumes of its own and is removed at the end; your data is
    /// never touched.
    ///
    /// Examples:
    ///   cargo xtask test --unit       those that need no Docker
    ///   cargo xtask test --keep       leave the tests' stack running, to look at it
    ///   cargo xtask test own_sessions::
    ///                                 some, by a part of their names
    #[command(verbatim_doc_comment)]
    Test(TestArgs),
    /// Check everything, as a continuous integration server does
    ///
    /// Formatting, lints, unit tests, shell scripts, new migrations, every combination of Compose
    /// files, then the whole stack under a name, ports and volumes of its own: whether the schema
    /// and the described statements are in step, all integration tests, and the API against its
    /// description. It goes on after a failure, gives one verdict at the end, and cleans up after
    /// itself. It never touches your stack or its data, and never leaves a container, network or
    /// volume behind.
    ///
    /// Examples:
    ///   cargo xtask ci --yes          on a bare machine: installs, asks nothing
    #[command(verbatim_doc_comment)]
    Ci,
    /// Look for what could keep the stack from working, and say what to do about it
    ///
    /// Each line passes, warns or fails; a failure makes the exit code 1. The
    /// JSON form is described in docs/status.md.
    /// It never changes anything: each warning and failure names the command that does.
    ///
    /// Examples:
    ///   cargo xtask doctor                    when something is odd
    ///   cargo xtask --prod doctor --format json | jq '.[] | select(.level != "pass")'
    ///   cargo xtask --prod doctor --schedule   a timer that asks every hour
    #[command(verbatim_doc_comment)]
    Doctor(DoctorArgs),
    /// Install or upgrade Docker where it is missing or old, and start it
    ///
    /// Debian and Ubuntu only; elsewhere it says what to install. It asks before it changes the
    /// host, and `--dry-run` shows what it would run.
    /// It never removes a package's data, and never installs anything without consent.
    ///
    /// Examples:
    ///   cargo xtask setup --dry-run   what would be run
    ///   cargo xtask setup --yes       with no question asked
    #[command(verbatim_doc_comment)]
    Setup,
    /// Write, check or compare environment files; rotate secrets
    ///
    /// .env is written by `up` itself; .env.production is made here. A value that stands in a file is
    /// never changed but by `rotate`, and none is ever printed.
    ///
    /// Examples:
    ///   cargo xtask env init --prod           .env.production, with secrets of its own
    ///   cargo xtask env check --prod          what is missing, short or open to others
    ///   cargo xtask env diff                  which names differ between the two files
    ///   cargo xtask --prod env rotate PG_PASSWORD
    #[command(verbatim_doc_comment)]
    Env(EnvArgs),
    /// Prove that production is the same stack as local, difference by difference
    ///
    /// Every difference of the rendered files needs a rule with its reason in deploy/parity.json,
    /// and every rule a difference. Stacks that run are compared with their own files. Exit code 1
    /// on any violation. The JSON form is described in docs/parity.md. It never starts or changes
    /// anything.
    ///
    /// Examples:
    ///   cargo xtask parity                    the table, each difference with its rule
    ///   cargo xtask parity --format markdown  for a pull request
    #[command(verbatim_doc_comment)]
    Parity(ParityArgs),
    /// Go through the hardening checklist, in the files and in what runs
    ///
    /// It speaks of the stack of .env.production, unless --env-file names another. What is not met
    /// on purpose stands in deploy/audit.json with its reason. Exit code 1 on any failure. The JSON
    /// form is described in docs/audit.md. It never starts or changes anything: it reads files, and
    /// asks containers that run.
    ///
    /// Examples:
    ///   cargo xtask audit                 files, and what runs of the stack
    ///   cargo xtask audit --running       fail where the stack does not run
    #[command(verbatim_doc_comment)]
    Audit(AuditArgs),
    /// Make, install, check or reload production's certificate
    ///
    /// It speaks of the stack of .env.production, unless --env-file names another. It never puts a
    /// certificate in place that nginx could not use, and never asks an authority for one:
    /// docs/tls.md.
    ///
    /// Examples:
    ///   cargo xtask cert self-signed                          to try production with
    ///   cargo xtask cert install fullchain.pem privkey.pem    what a renewal hook runs
    ///   cargo xtask cert check                                dates, key and chain
    #[command(verbatim_doc_comment)]
    Cert(CertArgs),
    /// Break a loaded stack in many ways, and check that nothing acknowledged is lost
    ///
    /// On a stack of its own, which is removed afterwards; with --prod it has production's files. A
    /// constant load of people who write goes on while a fault is made, from a killed process to a
    /// full disk; then everything is read back and compared with what was acknowledged. The table
    /// and the promises are in docs/reliability.md; the report, with a plot for each case, in
    /// target/drill. The faults are made from the host: this user must be allowed to send signals
    /// to the containers' processes. It never touches a stack of yours.
    ///
    /// Examples:
    ///   cargo xtask drill --quick               a few minutes; a part of `ci`
    ///   cargo xtask drill kill-redis --seed 7   one case, by an earlier schedule
    ///   cargo xtask drill --all --prod          every case on production's files
    #[command(verbatim_doc_comment)]
    Drill(DrillArgs),
    /// Measure, and print a table
    ///
    /// On a stack of its own, which is removed afterwards; a stack of yours is never touched.
    /// Rivals are measured in the same run, and compared as ratios: docs/benchmarks.md has the
    /// results.
    ///
    /// Examples:
    ///   cargo xtask bench up --runs 5     `up` against plain Compose
    ///   cargo xtask bench http            requests: nginx, direct, against Express
    ///   cargo xtask bench backup          `backup` and `restore` against other ways
    ///   cargo xtask bench rebuild         one changed line of the backend
    #[command(verbatim_doc_comment)]
    Bench(BenchArgs),
    /// Print the completions for a shell
    ///
    /// They are for a function or alias named `xtask`, because the word `cargo` has completions of
    /// its own. They know the services of the stack. Nothing is ever written.
    ///
    /// Examples, for bash in ~/.bashrc:
    ///   xtask() { cargo xtask "$@"; }
    ///   source <(cargo xtask completions bash)
    #[command(verbatim_doc_comment)]
    Completions(CompletionsArgs),
}
