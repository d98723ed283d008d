//! `env`: the environment file, written from .env.example and checked against it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::cli::{EnvArgs, EnvVerb};
use crate::ctx::Ctx;
use crate::env as dotenv;
use crate::stack::project::{self, Project, shown};

/// Carries out `env init` or `env check`.
///
/// # Errors
/// The file cannot be read or written, or has findings.
pub(crate) fn env(ctx: &Ctx, env_file: &Path, args: &EnvArgs) -> Result<()> {
    match args.verb {
        EnvVerb::Init if env_file.exists() => complete(ctx, env_file),
        EnvVerb::Init => ensure(ctx, env_file),
        EnvVerb::Check => check(ctx, env_file),
    }
}

/// Writes the environment file, if there is none.
///
/// # Errors
/// The folder or the disk does not take it.
pub(crate) fn ensure(ctx: &Ctx, env_file: &Path) -> Result<()> {
    if env_file.exists() {
        return Ok(());
    }
    let example = project::example(ctx)?;
    let text = dotenv::fill_in(&example, &project::variables(ctx)?)?;
    project::write_private(ctx, env_file, &text)?;
    let name = shown(ctx, env_file);
    if ctx.is_dry_run() {
        bail!(
            "{name} does not exist yet, so there is nothing to compare with; `cargo xtask env init` writes it"
        );
    }
    ctx.ui.say(format!("  {name}: written from .env.example, with secrets of its own"));
    Ok(())
}

/// Adds what is missing, and leaves what is there.
fn complete(ctx: &Ctx, env_file: &Path) -> Result<()> {
    let name = shown(ctx, env_file);
    let mut text = fs::read_to_string(env_file).with_context(|| format!("read {name}"))?;
    let values = dotenv::parse(&name, &text)?;
    let mut added = Vec::new();
    for variable in project::variables(ctx)? {
        let current = values.get(&variable.name);
        let value = match (variable.secret_bytes, current) {
            (Some(bytes), None) => dotenv::random_hex(bytes)?,
            (Some(bytes), Some(current)) if current.is_empty() => dotenv::random_hex(bytes)?,
            (None, None) => variable.value.clone(),
            _ => continue,
        };
        text = dotenv::set(&text, &variable.name, &value);
        added.push(variable.name);
    }
    if added.is_empty() {
        ctx.ui.say(format!("nothing to do, {name} is complete"));
        return Ok(());
    }
    project::write_private(ctx, env_file, &text)?;
    ctx.ui.say(format!("{name}: added {}", added.join(", ")));
    Ok(())
}

fn check(ctx: &Ctx, env_file: &Path) -> Result<()> {
    project::keep_private(ctx, env_file)?;
    let project = Project::load(ctx, env_file)?;
    ctx.ui.say(format!("{} is in order (project `{}`)", shown(ctx, env_file), project.name));
    Ok(())
}
