//! The official images: here already, or pulled. A registry that hangs does not hang us.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use crate::ctx::{Ctx, Invocation};
use crate::stack::project::Project;

/// The variables that name the images a stack of this source needs.
const VARIABLES: [&str; 4] = ["NGINX_IMAGE", "POSTGRES_IMAGE", "REDIS_IMAGE", "RUST_IMAGE"];
/// How long a registry may be silent before it counts as not there. It answers with the image's
/// manifest before anything is downloaded.
const SILENCE_LIMIT: Duration = Duration::from_secs(20);
/// How long one download may take in all.
const PULL_LIMIT: Duration = Duration::from_secs(15 * 60);

/// Makes sure that every official image is here, pulling those that are not.
///
/// # Errors
/// One of them cannot be had; the message says which and why.
pub(crate) fn provide(ctx: &Ctx, project: &Project) -> Result<()> {
    let references: Vec<&str> = VARIABLES.map(|name| project.value(name)).to_vec();
    for (name, reference) in VARIABLES.iter().zip(&references) {
        if reference.is_empty() {
            bail!("{name} is empty; .env.example has its default");
        }
    }
    let here = super::ids(ctx, &references)?;
    let missing: Vec<&str> =
        references.into_iter().filter(|reference| !here.contains_key(*reference)).collect();
    let Some((first, others)) = missing.split_first() else { return Ok(()) };
    // The first one finds out whether there is a registry; then all at the same time.
    pull(ctx, first)?;
    thread::scope(|scope| {
        let pulls: Vec<_> =
            others.iter().map(|reference| scope.spawn(|| pull(ctx, reference))).collect();
        let join = |pull: thread::ScopedJoinHandle<'_, Result<()>>| {
            pull.join().unwrap_or_else(|_| Err(anyhow!("a thread of xtask panicked")))
        };
        pulls.into_iter().map(join).collect::<Vec<_>>().into_iter().collect()
    })
}

fn pull(ctx: &Ctx, reference: &str) -> Result<()> {
    let step = ctx.ui.step(format!("pulling {reference}"));
    let command = Invocation::new("docker")
        .args(["pull", reference])
        .limit(PULL_LIMIT)
        .first_line(SILENCE_LIMIT);
    match ctx.run_step(&step, command) {
        Ok(()) => step.done(""),
        Err(error) => {
            // Not marked as failed: there may be another way, and the caller knows it.
            step.vanish();
            return Err(error).with_context(|| format!("pull {reference}"));
        }
    }
    Ok(())
}
