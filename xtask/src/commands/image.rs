//! `build`: the images, without starting anything.

use std::path::Path;

use anyhow::Result;

use crate::cli::BuildArgs;
use crate::commands::{env, setup};
use crate::ctx::Ctx;
use crate::images::{self, build, registry};
use crate::stack::project::Project;
use crate::stack::{lock, secrets, wanted};
use crate::ui;

/// Pulls or builds what is missing or out of date.
///
/// # Errors
/// A pull or a build fails.
pub(crate) fn build(ctx: &Ctx, env_file: &Path, args: &BuildArgs) -> Result<()> {
    setup::ensure(ctx)?;
    env::ensure(ctx, env_file)?;
    let mut project = Project::load(ctx, env_file)?;
    let _lock = lock::acquire(ctx, &project, "build")?;
    // Whoever held the lock may have written it anew.
    project = Project::load(ctx, env_file)?;
    let source = images::settle_source(ctx, &mut project)?;
    if args.force {
        registry::renew(ctx, &mut project, source)?;
    }
    // After this, plain `docker compose up` has all that it needs.
    secrets::provide(ctx, &mut project)?;
    let wanted = wanted::wanted(ctx, &project)?;
    let here = build::ids_of(ctx, &wanted)?;
    if ctx.is_dry_run() {
        for service in build::out_of_date(ctx, &project, &wanted, source, &here)? {
            ui::data(format!("build     {service}"))?;
        }
        return Ok(());
    }
    let built = build::bring_up_to_date(ctx, &project, &wanted, source, &here, args.force)?;
    if built.services.is_empty() {
        ctx.ui.say("nothing to do, every image is up to date");
    }
    Ok(())
}
