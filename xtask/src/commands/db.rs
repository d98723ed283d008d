//! `migrate` and `seed`: the backend's own engine, run in its container, and what helps to write a
//! migration.

mod files;
pub(crate) mod first;
mod schema;
mod scratch;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};

pub(crate) use self::files::lint;
use crate::cli::{Format, MigrateArgs, MigrateVerb, SeedArgs};
use crate::commands::shell::passed_on;
use crate::commands::up::{load, running_container};
use crate::ctx::{Ctx, Invocation};
use crate::images::{self, build};
use crate::stack::lock;
use crate::stack::project::Project;

/// A migration may rewrite a large table; whoever waits sees it in the log.
const LIMIT: Duration = Duration::from_secs(60 * 60);
/// What the backend's image and its files are called in Compose.
const BACKEND: &str = "backend";

/// Applies the migrations, tries them on a copy, shows which are applied, or helps to write one.
///
/// # Errors
/// PostgreSQL does not run, or a migration fails: its file is named.
pub(crate) fn migrate(ctx: &Ctx, env_file: &Path, args: &MigrateArgs) -> Result<ExitCode> {
    match &args.verb {
        None if ctx.is_dry_run() => scratch::try_pending(ctx, env_file)?,
        None => return apply(ctx, env_file),
        Some(MigrateVerb::Status(format)) => {
            let json: &[&str] =
                if format.format == Format::Json { &["--format", "json"] } else { &[] };
            let (project, _) = running_container(ctx, env_file, "postgres")?;
            warn_of_old_image(ctx, env_file)?;
            let command = engine(&project, &[]).arg("status").args(json.iter().copied());
            return Ok(passed_on(ctx.hand_over(command)?));
        }
        Some(MigrateVerb::New(args)) => files::new(ctx, args)?,
        Some(MigrateVerb::Lint(args)) => files::lint(ctx, args.all)?,
        Some(MigrateVerb::Schema(args)) => schema::schema(ctx, env_file, args.check)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn apply(ctx: &Ctx, env_file: &Path) -> Result<ExitCode> {
    let (project, _) = running_container(ctx, env_file, "postgres")?;
    let _lock = lock::acquire(ctx, &project, "migrate")?;
    bring_image_up_to_date(ctx, env_file)?;
    Ok(passed_on(ctx.hand_over(engine(&project, &[]))?))
}

/// The engine in a container of its own: a backend that cannot migrate does not run. `flags` are
/// those of `docker compose run`.
fn engine(project: &Project, flags: &[&str]) -> Invocation {
    let run = ["--progress", "quiet", "run", "--rm", "--no-deps", "--no-TTY"];
    let command = project.compose().args(run).args(flags.iter().copied());
    command.args([BACKEND, "migrate"]).limit(LIMIT)
}

/// The files are compiled into the backend: without this, a new one would not be seen.
fn bring_image_up_to_date(ctx: &Ctx, env_file: &Path) -> Result<()> {
    let (mut project, wanted) = load(ctx, env_file)?;
    let source = images::settle_source(ctx, &mut project)?;
    let here = build::ids_of(ctx, &wanted)?;
    if build::out_of_date(ctx, &project, &wanted, source, &here)?.iter().any(|name| name == BACKEND)
    {
        build::bring_up_to_date(ctx, &project, &wanted, source, &here, false)?;
    }
    Ok(())
}

/// A look changes nothing, so it builds nothing either.
fn warn_of_old_image(ctx: &Ctx, env_file: &Path) -> Result<()> {
    let (project, wanted) = load(ctx, env_file)?;
    let here = build::ids_of(ctx, &wanted)?;
    if let Some(source) = project.image_source()?
        && build::out_of_date(ctx, &project, &wanted, source, &here)?
            .iter()
            .any(|name| name == BACKEND)
    {
        ctx.ui.warn(
            "the backend's image is older than its files, and a migration that is new is not in it: \
             `cargo xtask build` builds it",
        );
    }
    Ok(())
}

/// Fills the database with sample rows.
///
/// # Errors
/// This is production, the backend does not run, or a row is refused.
pub(crate) fn seed(ctx: &Ctx, env_file: &Path, args: &SeedArgs) -> Result<()> {
    let (project, _) = load(ctx, env_file)?;
    if project.is_production() {
        bail!(
            "seed is for development: `{}` is a production stack, and was left alone",
            project.name
        );
    }
    let (_, backend) = running_container(ctx, env_file, BACKEND)?;
    if args.reset {
        reset(ctx, env_file)?;
    }
    let step = ctx.ui.step("sample rows");
    let command = Invocation::new("docker").args(["exec", &backend.id, "/backend", "seed"]);
    ctx.run_step(&step, command.limit(LIMIT))?;
    step.done("");
    Ok(())
}

/// Every table of the product, and never the history of migrations.
const EMPTY_TABLES: &str = "DO $$
DECLARE tables text;
BEGIN
    SELECT string_agg(format('%I.%I', schemaname, tablename), ', ') INTO tables
    FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'schema_migrations';
    IF tables IS NOT NULL THEN
        EXECUTE 'TRUNCATE ' || tables || ' RESTART IDENTITY';
    END IF;
END $$;
";

/// Deletes every row and every key of Redis: numbers of accounts begin again, and a session of an old
/// account must not become one of a new.
fn reset(ctx: &Ctx, env_file: &Path) -> Result<()> {
    let (project, postgres) = running_container(ctx, env_file, "postgres")?;
    let (_, redis) = running_container(ctx, env_file, "redis")?;
    ctx.confirm_loss(
        &format!("delete every row and every session of `{}`", project.name),
        "`cargo xtask seed --reset --yes` does it without a question",
    )?;
    let inside = |id: &str, words: &[&str]| {
        let command = Invocation::new("docker").args(["exec", "--interactive", id]);
        command.args(words.iter().copied())
    };
    let psql = ["psql", "-v", "ON_ERROR_STOP=1", "--no-psqlrc", "--quiet", "--username", "owner"];
    let psql = inside(&postgres.id, &psql).args(["--dbname", project.value("PG_DBNAME")]);
    ctx.run(psql.stdin(EMPTY_TABLES)).context("delete every row")?;
    ctx.run(inside(&redis.id, &["admin-cli", "FLUSHALL"])).context("delete every session")
}
