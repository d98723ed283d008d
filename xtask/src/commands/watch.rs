//! `watch`: on every change of a source file, what `up` would do.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use crate::cli::UpArgs;
use crate::commands::up::{self, load};
use crate::ctx::{Ctx, Interrupted};
use crate::images::{build, inputs};

/// How often the files are looked at; reading them all takes a few milliseconds.
const INTERVAL: Duration = Duration::from_millis(300);
/// An editor or a checkout writes several files: wait until they stand still this long.
const SETTLE: Duration = Duration::from_millis(150);

/// Brings the stack up, and again after each change, until Ctrl-C.
///
/// # Errors
/// Only Ctrl-C ends it. What fails is shown, and the next change is waited for.
pub(crate) fn watch(ctx: &Ctx, env_file: &Path, args: &UpArgs) -> Result<()> {
    loop {
        let built_from = state(ctx, env_file)?;
        match up::up(ctx, env_file, args) {
            Ok(()) => {}
            Err(error) if error.is::<Interrupted>() => return Err(error),
            Err(error) => ctx.ui.warn(format!("{error:#}")),
        }
        ctx.ui.say("watching for changes; Ctrl-C ends it and leaves the stack running");
        wait_for_change(ctx, env_file, &built_from)?;
    }
}

fn wait_for_change(ctx: &Ctx, env_file: &Path, built_from: &str) -> Result<()> {
    let mut seen = built_from.to_owned();
    loop {
        ctx.pause(if seen == built_from { INTERVAL } else { SETTLE })?;
        let now = state(ctx, env_file)?;
        if now != built_from && now == seen {
            return Ok(());
        }
        seen = now;
    }
}

/// A digest of everything that `up` looks at. The site is not part of it: nginx serves its folder
/// as it is.
fn state(ctx: &Ctx, env_file: &Path) -> Result<String> {
    // A file that cannot be read right now is a change as well: `up` will say what is wrong.
    let stack = load(ctx, env_file).ok();
    let services = stack.iter().flat_map(|(_, wanted)| &wanted.services);
    let read_at_start = services.flat_map(|service| &service.restart_on_change);
    let compose_files = stack.iter().flat_map(|(project, _)| &project.compose_files);
    let mut paths: Vec<PathBuf> = build::BACKEND_INPUTS.map(PathBuf::from).to_vec();
    paths.extend(["compose.yaml", "deploy/distro"].map(PathBuf::from));
    paths.extend(compose_files.map(PathBuf::from).chain(read_at_start.cloned()));
    paths.push(env_file.to_owned());
    inputs::digest(ctx.root(), &paths, &[])
}
