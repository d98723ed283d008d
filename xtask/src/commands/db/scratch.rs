//! A database that exists for one command: to try migrations on, and to see what they make.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{bring_image_up_to_date, engine};
use crate::commands::up::running_container;
use crate::ctx::{Ctx, Invocation};
use crate::stack::lock;
use crate::stack::project::Project;

/// A dump of the schema waits this long for a table that is being altered.
const LOCK_WAIT: &str = "--lock-wait-timeout=5s";
const LIMIT: Duration = Duration::from_secs(5 * 60);
/// Stands before the id of the process that owns the database.
const PREFIX: &str = "xtask_scratch_";

/// A database beside the stack's own, in the same server.
pub(super) struct Scratch<'a> {
    ctx: &'a Ctx,
    container: &'a str,
    pub(super) name: String,
}

/// Applies what is pending to a copy of the schema, reports, and drops the copy.
///
/// # Errors
/// A migration fails on the copy; the live schema is untouched.
pub(super) fn try_pending(ctx: &Ctx, env_file: &Path) -> Result<()> {
    // What a dry run must not touch is what the person has; the copy is made for it.
    let ctx = &ctx.on_scratch();
    let (project, container) = running_container(ctx, env_file, "postgres")?;
    let _lock = lock::acquire(ctx, &project, "migrate")?;
    bring_image_up_to_date(ctx, env_file)?;
    with_scratch(ctx, &container.id, |scratch| {
        scratch.copy_schema_of(project.value("PG_DBNAME"))?;
        scratch.migrate(&project).context("try the migrations on a copy of the schema")
    })?;
    ctx.ui.say(
        "tried on a copy of the schema, which has no rows and is gone again; the database is as it was",
    );
    Ok(())
}

/// Makes a database, lets `body` use it, and drops it whatever happened.
///
/// # Errors
/// Those of `body`, or the database cannot be made or dropped.
pub(super) fn with_scratch<'a, T>(
    ctx: &'a Ctx,
    container: &'a str,
    body: impl FnOnce(&Scratch<'a>) -> Result<T>,
) -> Result<T> {
    let name = format!("{PREFIX}{}", std::process::id());
    let scratch = Scratch { ctx, container, name };
    scratch.sweep()?;
    let create = format!(
        "CREATE DATABASE {0} OWNER owner TEMPLATE template0;\nREVOKE ALL ON DATABASE {0} FROM PUBLIC;\n",
        scratch.name
    );
    scratch.sql("postgres", &create).context("make a scratch database")?;
    let outcome = body(&scratch);
    // After Ctrl-C too.
    let dropped = drop_database(&ctx.shielded(), container, &scratch.name);
    let value = outcome?;
    dropped?;
    Ok(value)
}

impl Scratch<'_> {
    /// Drops those that a killed run left behind.
    fn sweep(&self) -> Result<()> {
        let query =
            format!("SELECT datname FROM pg_database WHERE starts_with(datname, '{PREFIX}')");
        let psql = psql(self.container, "postgres").args(["--tuples-only", "--no-align"]);
        let names = self.ctx.read(psql.args(["--command", &query])).context("list databases")?;
        for name in names.lines() {
            let pid = name.trim_start_matches(PREFIX);
            let is_number = pid.bytes().all(|byte| byte.is_ascii_digit());
            if is_number && !Path::new("/proc").join(pid).exists() {
                self.ctx.ui.say(format!("removing what a killed run left behind: {name}"));
                drop_database(self.ctx, self.container, name)?;
            }
        }
        Ok(())
    }

    /// Tables, indexes and rights of another database, and which migrations it has; no other row.
    fn copy_schema_of(&self, database: &str) -> Result<()> {
        let schema = self.dump(database, &["--schema-only", LOCK_WAIT])?;
        self.sql(&self.name, &schema).context("copy the schema")?;
        if schema.contains("CREATE TABLE public.schema_migrations ") {
            let words = ["--data-only", "--table=public.schema_migrations", LOCK_WAIT];
            let history = self.dump(database, &words)?;
            self.sql(&self.name, &history).context("copy the history of migrations")?;
        }
        Ok(())
    }

    /// Has the engine apply what this database does not have yet.
    fn migrate(&self, project: &Project) -> Result<()> {
        let database = format!("PG_DBNAME={}", self.name);
        self.ctx.run_loud(engine(project, &["--env", &database]))
    }

    /// Applies a file as the owner of the schema, as the engine would.
    pub(super) fn apply(&self, file: &str, text: &str) -> Result<()> {
        let psql = psql_as("owner", self.container, &self.name);
        let is_alone = text.lines().next().map(str::trim_end) == Some("-- no-transaction");
        let psql = if is_alone { psql } else { psql.arg("--single-transaction") };
        self.ctx.run(psql.stdin(text)).with_context(|| format!("apply {file} to an empty database"))
    }

    /// What `pg_dump` says about a database.
    pub(super) fn dump(&self, database: &str, words: &[&str]) -> Result<String> {
        let command = inside(self.container, "pg_dump").args(["--username", "postgres"]);
        let command = command.args(words.iter().copied()).arg(database);
        self.ctx.read(command).with_context(|| format!("dump {database}"))
    }

    fn sql(&self, database: &str, statements: &str) -> Result<()> {
        self.ctx.run(psql(self.container, database).stdin(statements))
    }
}

fn drop_database(ctx: &Ctx, container: &str, name: &str) -> Result<()> {
    let statement = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
    let command = psql(container, "postgres").args(["--command", &statement]);
    ctx.run(command).with_context(|| format!("drop the scratch database {name}"))
}

/// As the superuser, over the socket.
pub(super) fn psql(container: &str, database: &str) -> Invocation {
    psql_as("postgres", container, database)
}

fn psql_as(role: &str, container: &str, database: &str) -> Invocation {
    let words = ["-v", "ON_ERROR_STOP=1", "--no-psqlrc", "--quiet", "--username", role];
    inside(container, "psql").args(words).args(["--dbname", database])
}

fn inside(container: &str, program: &str) -> Invocation {
    let command = Invocation::new("docker").args(["exec", "--interactive", container, program]);
    command.limit(LIMIT)
}
