//! `down`: stop, and remove the containers. Data stays unless it is asked for by name.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cli::DownArgs;
use crate::commands::up::load;
use crate::ctx::{Ctx, Invocation};
use crate::stack::{lock, running};

/// PostgreSQL alone may take two minutes for its last checkpoint (compose.yaml).
const LIMIT: Duration = Duration::from_secs(5 * 60);

/// Takes the stack down.
///
/// # Errors
/// Data was to be deleted and that was not confirmed; the stack is another checkout's; or a container does not
/// stop.
pub(crate) fn down(ctx: &Ctx, env_file: &Path, args: &DownArgs) -> Result<()> {
    let (project, wanted) = load(ctx, env_file)?;
    let _lock = lock::acquire(ctx, &project, "down")?;
    let containers = running::containers(ctx, &project)?;
    running::expect_own(ctx, &project, &containers)?;
    let volumes = if args.volumes { existing(ctx, &wanted.volumes)? } else { Vec::new() };
    if !volumes.is_empty() {
        let names = volumes.join(" and ");
        ctx.confirm_loss(
            &format!("delete the volumes {names}, with every row and every session in them"),
            "pass --yes if that is what you want",
        )?;
    }
    if containers.is_empty() && volumes.is_empty() {
        ctx.ui.say("nothing to do, the stack is down");
        return Ok(());
    }
    let step = ctx.ui.step(format!("stopping {}", project.name)).announce();
    let mut command = project.compose().args(["--progress", "plain", "down", "--remove-orphans"]);
    if args.volumes {
        command = command.arg("--volumes");
    }
    match ctx.run_step(&step, command.limit(LIMIT)) {
        Ok(()) if ctx.is_dry_run() => step.vanish(),
        Ok(()) => step.done(if args.volumes { "data deleted" } else { "data kept" }),
        Err(error) => {
            step.failed();
            return Err(error).context("stop the stack");
        }
    }
    Ok(())
}

/// Those of the volumes that are there.
fn existing(ctx: &Ctx, names: &[String]) -> Result<Vec<String>> {
    let listing = ctx.read(Invocation::new("docker").args(["volume", "ls", "--quiet"]))?;
    let is_there = |name: &&String| listing.lines().any(|line| line == name.as_str());
    Ok(names.iter().filter(is_there).cloned().collect())
}
