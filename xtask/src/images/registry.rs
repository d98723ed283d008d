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
    provide_those(ctx, project, |is_here, _| !is_here)
}

/// Pulls every official image anew, but for those that are pinned to the very same bytes.
///
/// # Errors
/// As [`provide`].
pub(crate) fn renew(ctx: &Ctx, project: &Project) -> Result<()> {
    provide_those(ctx, project, |is_here, reference| !is_here || !reference.contains('@'))
}

fn provide_those(
    ctx: &Ctx,
    project: &Project,
    is_wanted: impl Fn(bool, &str) -> bool,
) -> Result<()> {
    let references: Vec<&str> = VARIABLES.map(|name| project.value(name)).to_vec();
    for (name, reference) in VARIABLES.iter().zip(&references) {
        if reference.is_empty() {
            bail!("{name} is empty; .env.example has its default");
        }
    }
    let here = super::ids(ctx, &references)?;
    let is_wanted = |reference: &&str| is_wanted(here.contains_key(*reference), reference);
    let wanted: Vec<&str> = references.into_iter().filter(is_wanted).collect();
    let Some((first, others)) = wanted.split_first() else { return Ok(()) };
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

/// Pins production's images: writes the digest that the registry gave behind each tag, so that every
/// later start, on whatever host, runs the very same bytes. An image that no registry gave, because it
/// was built or loaded here, has no digest and keeps its name.
///
/// # Errors
/// An image cannot be had, or the environment file cannot be written.
pub(crate) fn pin(ctx: &Ctx, project: &mut Project) -> Result<()> {
    let is_open = |name: &&str| !project.value(name).contains('@');
    let open: Vec<&str> = VARIABLES.into_iter().filter(is_open).collect();
    if open.is_empty() || ctx.is_dry_run() {
        return Ok(());
    }
    provide(ctx, project)?;
    let mut pinned = Vec::new();
    for name in open {
        let reference = project.value(name);
        if let Some(digest) = digest_of(ctx, reference)? {
            pinned.push((name, format!("{reference}@{digest}")));
        }
    }
    if pinned.is_empty() {
        return Ok(());
    }
    let settings: Vec<(&str, &str)> =
        pinned.iter().map(|(name, value)| (*name, value.as_str())).collect();
    project.remember(ctx, &settings)
}

/// The digest under which the registry of this reference knows the image.
fn digest_of(ctx: &Ctx, reference: &str) -> Result<Option<String>> {
    let format = "{{range .RepoDigests}}{{println .}}{{end}}";
    let inspect = ["image", "inspect", "--format", format, reference];
    let digests = ctx.read(Invocation::new("docker").args(inspect))?;
    let name = super::without_tag(reference);
    let short = name.strip_prefix("docker.io/").unwrap_or(name);
    let short = short.strip_prefix("library/").unwrap_or(short);
    let mut digests = digests.lines().filter_map(|line| line.split_once('@'));
    Ok(digests.find(|(known, _)| *known == short).map(|(_, digest)| digest.to_owned()))
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
