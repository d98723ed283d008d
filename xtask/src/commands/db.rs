//! `migrate` and `seed`: the backend's own engine, run in its container.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::cli::{Format, MigrateArgs, MigrateVerb};
use crate::commands::shell::passed_on;
use crate::commands::up::{load, running_container};
use crate::ctx::{Ctx, Invocation};
use crate::stack::lock;

/// A migration may rewrite a large table; whoever waits sees it in the log.
const LIMIT: Duration = Duration::from_secs(60 * 60);

/// Applies the migrations, or shows which are.
///
/// # Errors
/// PostgreSQL does not run, or a migration fails: its file is named.
pub(crate) fn migrate(ctx: &Ctx, env_file: &Path, args: &MigrateArgs) -> Result<ExitCode> {
    // A backend that cannot migrate does not run, so this is a container of its own.
    let (project, _) = running_container(ctx, env_file, "postgres")?;
    let mut words = vec!["run", "--rm", "--no-deps", "--no-TTY", "backend", "migrate"];
    let _lock = match &args.verb {
        None => Some(lock::acquire(ctx, &project, "migrate")?),
        Some(MigrateVerb::Status(format)) => {
            words.push("status");
            if format.format == Format::Json {
                words.extend(["--format", "json"]);
            }
            None
        }
    };
    let command = project.compose().args(["--progress", "quiet"]).args(words).limit(LIMIT);
    Ok(passed_on(ctx.hand_over(command)?))
}

/// Fills the database with sample rows.
///
/// # Errors
/// This is production, the backend does not run, or a row is refused.
pub(crate) fn seed(ctx: &Ctx, env_file: &Path) -> Result<()> {
    let (project, _) = load(ctx, env_file)?;
    if project.is_production() {
        bail!(
            "seed is for development: `{}` is a production stack, and was left alone",
            project.name
        );
    }
    let (_, container) = running_container(ctx, env_file, "backend")?;
    let step = ctx.ui.step("sample rows");
    let command = Invocation::new("docker").args(["exec", &container.id, "/backend", "seed"]);
    ctx.run_step(&step, command.limit(LIMIT))?;
    step.done("");
    Ok(())
}
