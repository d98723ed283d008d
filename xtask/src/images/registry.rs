//! The images that a registry gives, the official ones and the backend's where it was built elsewhere: here
//! already, or pulled. A registry that hangs does not hang us.

use std::fmt;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow, bail};

use super::Source;
use crate::ctx::{Ctx, Invocation};
use crate::stack::project::Project;

/// The variable that names the backend's image where it is not built here.
pub(crate) const BACKEND: &str = "BACKEND_IMAGE";
/// The variables that name official images, the toolchain last.
pub(crate) const OFFICIAL: [&str; 4] =
    ["NGINX_IMAGE", "POSTGRES_IMAGE", "REDIS_IMAGE", "RUST_IMAGE"];
/// How long a registry may be silent before it counts as not there. It answers with the image's
/// manifest before anything is downloaded.
const SILENCE_LIMIT: Duration = Duration::from_secs(20);
/// How long one download may take in all.
const PULL_LIMIT: Duration = Duration::from_secs(15 * 60);

/// The variables that name what a registry has to give: the official images, without the toolchain where the
/// backend's image is named and nothing is compiled here. Where the distribution's packages stand in for
/// them, the backend's alone.
fn variables(project: &Project, source: Source) -> Vec<&'static str> {
    let named = Some(BACKEND).filter(|name| !project.value(name).is_empty());
    let official: &[&str] = match source {
        Source::Registry if named.is_some() => &OFFICIAL[..3],
        Source::Registry => &OFFICIAL,
        Source::Distro => &[],
    };
    official.iter().copied().chain(named).collect()
}

/// Makes sure that every image that a registry has to give is here, pulling those that are not.
///
/// # Errors
/// One of them cannot be had; the message says which and why.
pub(crate) fn provide(ctx: &Ctx, project: &Project, source: Source) -> Result<()> {
    let names = variables(project, source);
    let references: Vec<&str> = names.iter().map(|name| project.value(name)).collect();
    for (name, reference) in names.iter().zip(&references) {
        if reference.is_empty() {
            bail!("{name} is empty; .env.example has its default");
        }
    }
    let here = super::ids(ctx, &references)?;
    let missing = |reference: &&str| !here.contains_key(*reference);
    pull_all(ctx, &references.into_iter().filter(missing).collect::<Vec<_>>())
}

/// Pulls every one of them anew; of those that are pinned the tag, and then pins what it means today. An
/// image that no registry gave stays as it is, and so does one that is pinned without a tag.
///
/// # Errors
/// One of them cannot be had, or the environment file cannot be written.
pub(crate) fn renew(ctx: &Ctx, project: &mut Project, source: Source) -> Result<()> {
    let names = variables(project, source);
    let here = super::ids(ctx, &names.iter().map(|name| project.value(name)).collect::<Vec<_>>())?;
    let mut renewed = Vec::new();
    for name in names {
        let reference = project.value(name);
        let tagged = reference.split('@').next().unwrap_or_default();
        let is_tagged = super::without_tag(tagged) != tagged;
        let is_pinned = tagged != reference;
        let is_built =
            here.contains_key(reference) && !is_pinned && digest_of(ctx, reference)?.is_none();
        if is_tagged && !is_built {
            renewed.push((name, reference.to_owned(), tagged.to_owned()));
        }
    }
    if ctx.is_dry_run() {
        for (_, _, tagged) in &renewed {
            crate::ui::data(format!("pull      {tagged}"))?;
        }
        return Ok(());
    }
    pull_all(ctx, &renewed.iter().map(|(.., tagged)| tagged.as_str()).collect::<Vec<_>>())?;
    let mut pinned = Vec::new();
    for (name, before, tagged) in renewed.into_iter().filter(|(_, before, _)| before.contains('@'))
    {
        let digest =
            digest_of(ctx, &tagged)?.with_context(|| format!("find the digest of {tagged}"))?;
        let after = format!("{tagged}@{digest}");
        if after != before {
            ctx.ui.say(format!("  {name}: {before} is now {digest}"));
            pinned.push((name, after));
        }
    }
    let settings: Vec<(&str, &str)> =
        pinned.iter().map(|(name, value)| (*name, value.as_str())).collect();
    if settings.is_empty() { Ok(()) } else { project.remember(ctx, &settings) }
}

/// Pulls images; the first one finds out whether there is a registry, then all at the same time.
///
/// # Errors
/// One of them cannot be had.
pub(crate) fn pull_all(ctx: &Ctx, references: &[&str]) -> Result<()> {
    let Some((first, others)) = references.split_first() else { return Ok(()) };
    pull(ctx, first)?;
    let pulled: Result<()> = thread::scope(|scope| {
        let pulls: Vec<_> =
            others.iter().map(|reference| scope.spawn(|| pull(ctx, reference))).collect();
        let join = |pull: thread::ScopedJoinHandle<'_, Result<()>>| {
            pull.join().unwrap_or_else(|_| Err(anyhow!("a thread of xtask panicked")))
        };
        pulls.into_iter().map(join).collect::<Vec<_>>().into_iter().collect()
    });
    pulled.context(Answered)
}

/// A mark on the error of a pull that came after another one had succeeded.
#[derive(Debug)]
struct Answered;

impl fmt::Display for Answered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a registry gave one image, and not all")
    }
}

/// Whether a registry was there when [`provide`] failed, and refused: by its own words, as the specification of
/// its interface lists them (OCI distribution, error codes), or because it had given another image. Anything
/// else, a name that does not resolve, a proxy in between, silence, means that there is none for this host.
pub(crate) fn has_answered(error: &Error) -> bool {
    const SILENCES: [&str; 6] = [
        "dial tcp",
        "no such host",
        "i/o timeout",
        "proxyconnect",
        "said nothing",
        "tls handshake",
    ];
    const REFUSALS: [&str; 11] = [
        "manifest unknown",
        "name unknown",
        // containerd's words for both.
        ": not found",
        "denied",
        "unauthorized",
        "no basic auth credentials",
        "toomanyrequests",
        "too many requests",
        "no matching manifest",
        // Of the client and the engine: no registry helps against these.
        "invalid reference format",
        "no space left on device",
    ];
    let said = format!("{error:#}").to_lowercase();
    let has = |words: &[&str]| words.iter().any(|words| said.contains(words));
    error.is::<Answered>() || has(&REFUSALS) && !has(&SILENCES)
}

/// Pins production's images: writes the digest that the registry gave behind each tag, so that every
/// later start, on whatever host, runs the very same bytes. An image that no registry gave, because it
/// was built or loaded here, has no digest and keeps its name.
///
/// # Errors
/// An image cannot be had, or the environment file cannot be written.
pub(crate) fn pin(ctx: &Ctx, project: &mut Project, source: Source) -> Result<()> {
    let mut open = variables(project, source);
    open.retain(|name| !project.value(name).contains('@'));
    if open.is_empty() || ctx.is_dry_run() {
        return Ok(());
    }
    provide(ctx, project, source)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_that_refuses_is_told_from_none() {
        let refusals = [
            "manifest for nginx:1.82 not found: manifest unknown: manifest unknown",
            "pull access denied for ngnix, repository does not exist or may require 'docker login'",
            "toomanyrequests: You have reached your unauthenticated pull rate limit.",
            "no matching manifest for linux/riscv64 in the manifest list entries",
            "Head \"https://ghcr.io/v2/a/b/manifests/1\": denied: denied",
            "failed to resolve reference \"docker.io/library/x:1\": docker.io/library/x:1: not found",
            "invalid reference format: repository name (Bad) must be lowercase",
        ];
        for said in refusals {
            assert!(has_answered(&anyhow!("{said}").context("pull x")), "{said}");
        }
        let silences = [
            "Get \"https://registry-1.docker.io/v2/\": dial tcp: lookup registry-1.docker.io: no such host",
            "Get \"http://127.0.0.1:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused",
            "proxyconnect tcp: dial tcp 10.0.0.1:3128: i/o timeout",
            "dial tcp: lookup x on 10.0.0.2:53: read udp 10.0.0.5:42917->10.0.0.2:53: i/o timeout",
            "received unexpected HTTP status: 404 page not found",
            "`docker pull x` said nothing for 20 s, or took more than 15 min",
        ];
        for said in silences {
            let error = anyhow!("{said}").context("pull x");
            assert!(!has_answered(&error), "{said}");
            assert!(has_answered(&error.context(Answered)), "another image was pulled before");
        }
    }
}
