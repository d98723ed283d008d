//! Builds what changed, and only that.

use std::collections::BTreeMap;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use super::inputs::{self, Memory};
use super::{Source, backend, distro, registry};
use crate::ctx::{Ctx, Invocation};
use crate::stack::project::Project;
use crate::stack::wanted::{Build, Service, Wanted};

const LIMIT: Duration = Duration::from_secs(30 * 60);
/// The service whose image is compiled from this workspace.
pub(crate) const BACKEND: &str = "backend";

/// What the backend's image is made from, beside the values in its build arguments.
pub(crate) const BACKEND_INPUTS: [&str; 10] = [
    "Cargo.toml",
    "Cargo.lock",
    ".cargo",
    "backend/Cargo.toml",
    "backend/build.rs",
    "backend/.sqlx",
    "backend/src",
    "backend/migrations",
    "backend/seeds",
    "deploy/backend",
];

/// What came of a build.
pub(crate) struct Built {
    /// The services whose images were made anew.
    pub(crate) services: Vec<String>,
    /// The ids that the services' images have now, by reference.
    pub(crate) ids: BTreeMap<String, String>,
}

/// An image that this project builds.
struct Target<'a> {
    service: &'a Service,
    /// A digest of what it is made from; none where only BuildKit knows.
    inputs: Option<String>,
}

impl Target<'_> {
    /// Whether it stands in for an official image.
    fn is_stand_in(&self) -> bool {
        self.service.image.starts_with(distro::PREFIX)
    }
}

/// Brings every image up to date; with `force`, makes those that are current as well, from what the
/// distribution has today. `here` is what [`ids_of`] says.
///
/// # Errors
/// A build or a pull fails; the tool's last words are in the error.
pub(crate) fn bring_up_to_date(
    ctx: &Ctx,
    project: &Project,
    wanted: &Wanted,
    source: Source,
    here: &BTreeMap<String, String>,
    force: bool,
) -> Result<Built> {
    let mut targets = targets(ctx, project, wanted, source)?;
    if !force {
        keep_stale(ctx, &mut targets, here);
    }
    let lacks_base = wanted.services.iter().any(|service| !here.contains_key(&service.image));
    if source == Source::Registry && (!targets.is_empty() || lacks_base) {
        registry::provide(ctx, project, source)?;
    }
    if lacks_base {
        pull_others(ctx, wanted)?;
    }
    if targets.is_empty() {
        // What was pulled just now has to be asked for; what was here is known.
        let ids = if lacks_base { ids_of(ctx, wanted)? } else { here.clone() };
        return Ok(Built { services: Vec::new(), ids });
    }
    crate::host::disk::check(ctx.root())?;
    let stale: Vec<&Target> = targets.iter().collect();
    match source {
        Source::Registry => compose_build(ctx, project, &stale)?,
        Source::Distro => build_without_registry(ctx, project, &stale, force)?,
    }
    let ids = ids_of(ctx, wanted)?;
    remember(ctx, &stale, &ids)?;
    Ok(Built { services: names(&targets), ids })
}

/// Pulls what a service of one's own needs and nobody builds here: an image that only its `image:` names.
fn pull_others(ctx: &Ctx, wanted: &Wanted) -> Result<()> {
    let is_built =
        |image: &str| wanted.services.iter().any(|s| s.build.is_some() && s.image == image);
    let mut pulled: Vec<&str> = wanted.services.iter().map(|service| &*service.image).collect();
    pulled.retain(|image| !is_built(image));
    pulled.sort_unstable();
    pulled.dedup();
    let here = super::ids(ctx, &pulled)?;
    pulled.retain(|image| !here.contains_key(*image));
    registry::pull_all(ctx, &pulled).with_context(|| {
        format!(
            "provide {}, which a service needs and the Compose files do not build; without a registry, load it \
             with `docker load`, or give the service a `build:`",
            pulled.join(", ")
        )
    })
}

/// The services whose images are missing or were made from other inputs than those of today. `here` is what
/// [`ids_of`] says.
///
/// # Errors
/// A source file cannot be read.
pub(crate) fn out_of_date(
    ctx: &Ctx,
    project: &Project,
    wanted: &Wanted,
    source: Source,
    here: &BTreeMap<String, String>,
) -> Result<Vec<String>> {
    let mut targets = targets(ctx, project, wanted, source)?;
    keep_stale(ctx, &mut targets, here);
    // Nobody knows of the others before they are built; mostly nothing changed.
    targets.retain(|target| target.inputs.is_some());
    let is_stale = |service: &&Service| targets.iter().any(|t| t.service.image == service.image);
    Ok(wanted.services.iter().filter(is_stale).map(|service| service.name.clone()).collect())
}

/// The ids that the services' images have here, by reference.
///
/// # Errors
/// The engine does not answer.
pub(crate) fn ids_of(ctx: &Ctx, wanted: &Wanted) -> Result<BTreeMap<String, String>> {
    let references: Vec<&str> = wanted.services.iter().map(|s| s.image.as_str()).collect();
    super::ids(ctx, &references)
}

fn keep_stale(ctx: &Ctx, targets: &mut Vec<Target>, here: &BTreeMap<String, String>) {
    let memory = Memory::read(ctx);
    targets.retain(|target| {
        let id = here.get(&target.service.image).map(String::as_str);
        let inputs = target.inputs.as_ref();
        !inputs.is_some_and(|inputs| memory.is_current(&target.service.image, inputs, id))
    });
}

fn names(targets: &[Target]) -> Vec<String> {
    targets.iter().map(|target| target.service.name.clone()).collect()
}

fn targets<'a>(
    ctx: &Ctx,
    project: &Project,
    wanted: &'a Wanted,
    source: Source,
) -> Result<Vec<Target<'a>>> {
    let mut targets = Vec::new();
    for service in &wanted.services {
        // Without it an image is pulled, or another service's.
        let Some(described) = &service.build else { continue };
        let inputs = match (service.name.as_str(), source) {
            (BACKEND, Source::Registry) => {
                let rust = project.value("RUST_IMAGE");
                Some(inputs::digest(ctx.root(), &BACKEND_INPUTS, &["registry", rust])?)
            }
            (BACKEND, Source::Distro) => {
                Some(inputs::digest(ctx.root(), &BACKEND_INPUTS, &["distro"])?)
            }
            _ => inputs_of(ctx, project, described)?,
        };
        targets.push(Target { service, inputs });
    }
    Ok(targets)
}

/// What an image that is not the backend's is made from: the files of its folder. Where that is all of the
/// repository, or lies outside of it, only BuildKit knows whether anything changed, and is asked each time.
fn inputs_of(ctx: &Ctx, project: &Project, build: &Build) -> Result<Option<String>> {
    let folder = build.context.strip_prefix(ctx.root()).unwrap_or(Path::new(""));
    if folder == Path::new("") {
        return Ok(None);
    }
    let values = [project.value("DISTRO_MIRROR"), &build.described];
    inputs::digest(ctx.root(), &[folder], &values).map(Some)
}

/// The compiler keeps the processor busy and the other images the network: both at once.
fn build_without_registry(
    ctx: &Ctx,
    project: &Project,
    stale: &[&Target],
    force: bool,
) -> Result<()> {
    let (others, own): (Vec<&Target>, Vec<&Target>) =
        stale.iter().partition(|target| target.is_stand_in());
    if !others.is_empty() {
        // Asks for consent where it must, so it comes before the threads.
        distro::provide_tools(ctx)?;
    }
    thread::scope(|scope| {
        let others = scope.spawn(|| {
            if others.is_empty() { Ok(()) } else { build_distro(ctx, project, &others, force) }
        });
        let build_own = || {
            if own.iter().any(|target| target.service.name == BACKEND) {
                backend::compile(ctx)?;
            }
            compose_build(ctx, project, &own)
        };
        let built = if own.is_empty() { Ok(()) } else { build_own() };
        joined(others).and(built)
    })
}

/// The base root, and the images that stand on it, at the same time.
///
/// Not through Compose: it would write the project's name into an image that all projects of this
/// host share, and each of them would then find it changed by the others.
fn build_distro(ctx: &Ctx, project: &Project, targets: &[&Target], force: bool) -> Result<()> {
    distro::provide_base(ctx, project, force)?;
    let proxy = distro::proxy(ctx);
    let build = |target: &Target| {
        let folder = format!("deploy/distro/{}", target.service.name);
        let command = docker_build(proxy.as_deref(), &target.service.image);
        // A step that installs packages reads the same for ever, and its result is kept.
        let command = if force { command.arg("--no-cache") } else { command };
        let command = command.arg(folder);
        build_image(ctx, &format!("image {}", target.service.name), command.dir(ctx.root()))
    };
    thread::scope(|scope| {
        let builds: Vec<_> = targets.iter().map(|target| scope.spawn(|| build(target))).collect();
        builds.into_iter().map(joined).collect::<Vec<_>>().into_iter().collect()
    })
}

fn docker_build(proxy: Option<&str>, reference: &str) -> Invocation {
    let mut command = Invocation::new("docker").args(["build", "--progress", "plain"]);
    if let Some(proxy) = proxy {
        command = command.args(["--build-arg", &format!("http_proxy={proxy}")]);
    }
    command.args(["--tag", reference])
}

/// Builds an image that is no service's from its folder, on Debian: the base that is here where the
/// stack is made of the distribution's packages, and the official one elsewhere.
///
/// # Errors
/// The build fails; the tool's last words are in the error.
pub(crate) fn on_debian(ctx: &Ctx, source: Source, folder: &str, reference: &str) -> Result<()> {
    let base = match source {
        Source::Distro => distro::BASE_IMAGE,
        Source::Registry => "debian:12-slim",
    };
    on_image(ctx, base, folder, reference)
}

/// Builds an image that is no service's from its folder, on another image.
///
/// # Errors
/// The build fails; the tool's last words are in the error.
pub(crate) fn on_image(ctx: &Ctx, base: &str, folder: &str, reference: &str) -> Result<()> {
    let command = docker_build(distro::proxy(ctx).as_deref(), reference);
    let command = command.args(["--build-arg", &format!("BASE_IMAGE={base}"), folder]);
    build_image(ctx, &format!("image {reference}"), command.dir(ctx.root()))
}

fn compose_build(ctx: &Ctx, project: &Project, targets: &[&Target]) -> Result<()> {
    let names: Vec<&str> = targets.iter().map(|target| &*target.service.name).collect();
    // Colours and cursor movements have no place in a note or an error.
    let command = project.compose().args(["--progress", "plain", "build"]).args(&names);
    build_image(ctx, &format!("image {}", names.join(", ")), command)
}

fn build_image(ctx: &Ctx, label: &str, command: Invocation) -> Result<()> {
    let step = ctx.ui.step(label).announce();
    match ctx.run_step(&step, command.limit(LIMIT)) {
        Ok(()) => step.done(""),
        Err(error) => {
            step.failed();
            return Err(error).with_context(|| format!("build the {label}"));
        }
    }
    Ok(())
}

fn joined(thread: thread::ScopedJoinHandle<'_, Result<()>>) -> Result<()> {
    thread.join().unwrap_or_else(|_| Err(anyhow!("a thread of xtask panicked")))
}

fn remember(ctx: &Ctx, built: &[&Target], ids: &BTreeMap<String, String>) -> Result<()> {
    for target in built {
        if let (Some(id), Some(inputs)) = (ids.get(&target.service.image), &target.inputs) {
            Memory::remember(ctx, &target.service.image, inputs.clone(), id.clone())?;
        }
    }
    Ok(())
}
