//! `watch`: on every change of a source file, what `up` would do.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use crate::cli::UpArgs;
use crate::commands::up::{self, load};
use crate::ctx::{Ctx, Interrupted};
use crate::images::{build, inputs};
use crate::stack::project::Project;
use crate::stack::wanted::Wanted;

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
        // Asked for once a turn and not at every look: Compose answers in a tenth of a second.
        let paths = watched(ctx, env_file);
        let built_from = state(ctx, &paths);
        match up::up(ctx, env_file, args) {
            Ok(()) => {}
            Err(error) if error.is::<Interrupted>() => return Err(error),
            Err(error) => ctx.ui.warn(format!("{error:#}")),
        }
        ctx.ui.say("watching for changes; Ctrl-C ends it and leaves the stack running");
        wait_for_change(ctx, &paths, &built_from)?;
    }
}

fn wait_for_change(ctx: &Ctx, paths: &[PathBuf], built_from: &str) -> Result<()> {
    let mut seen = built_from.to_owned();
    loop {
        ctx.pause(if seen == built_from { INTERVAL } else { SETTLE })?;
        let now = state(ctx, paths);
        if now != built_from && now == seen {
            return Ok(());
        }
        seen = now;
    }
}

/// A digest of the files, or why there is none: one that cannot be read right now, as an editor replaces
/// it, is a change as well. If it stays so, `up` says what is wrong.
fn state(ctx: &Ctx, paths: &[PathBuf]) -> String {
    inputs::digest(ctx.root(), paths, &[]).unwrap_or_else(|error| format!("{error:#}"))
}

/// Everything that `up` looks at. The site is not part of it: nginx serves its folder as it is.
fn watched(ctx: &Ctx, env_file: &Path) -> Vec<PathBuf> {
    // Where a file is broken, so that nothing can be read from it, its repair is waited for.
    let stack = load(ctx, env_file).ok();
    let services = stack.iter().flat_map(|(_, wanted)| &wanted.services);
    let reloaded = services.clone().flat_map(|service| &service.reload);
    let reloaded = reloaded.flat_map(|reload| &reload.files);
    let mounted = services.flat_map(|service| &service.restart_on_change).chain(reloaded);
    let compose_files = stack.iter().flat_map(|(project, _)| &project.compose_files);
    let is_built = |(_, wanted): &(Project, Wanted)| {
        wanted.service(build::BACKEND).is_none_or(|service| service.build.is_some())
    };
    // What BACKEND_IMAGE names was built elsewhere, from whatever source.
    let inputs = if stack.as_ref().is_none_or(is_built) { &build::BACKEND_INPUTS[..] } else { &[] };
    let mut paths: Vec<PathBuf> = inputs.iter().map(PathBuf::from).collect();
    let always = ["compose.yaml", "compose.prod.yaml", "deploy/distro"];
    paths.extend(always.map(PathBuf::from));
    paths.extend(compose_files.map(PathBuf::from).chain(mounted.cloned()));
    paths.push(env_file.to_owned());
    paths
}
