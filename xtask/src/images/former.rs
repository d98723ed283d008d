//! The version before: of a backend that is built here, the image that served until another took its place is kept
//! under a tag of its own. One, and no more: `cargo xtask deploy --back` is for the hour after a mistake.

use anyhow::{Context, Result, bail, ensure};

use super::build::BACKEND;
use crate::ctx::{Ctx, Invocation};
use crate::stack::plan::{Action, Plan};
use crate::stack::project::Project;
use crate::stack::running::Container;
use crate::stack::wanted::{Service, Wanted};

/// An image that served before.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Former {
    pub(crate) reference: String,
    pub(crate) id: String,
    /// When it was built, as the engine writes it.
    pub(crate) built: String,
}

fn reference(project: &Project) -> String {
    format!("{}-{BACKEND}:previous", project.name)
}

/// Keeps the image of a backend that serves and is about to be replaced by another one. Who was not well is nobody
/// to go back to.
///
/// # Errors
/// The engine refuses.
pub(crate) fn keep(
    ctx: &Ctx,
    project: &Project,
    wanted: &Wanted,
    plan: &Plan,
    containers: &[Container],
) -> Result<()> {
    let is_replaced =
        plan.services(|action| action == Action::Recreate).iter().any(|s| s == BACKEND);
    let serving = containers.iter().find(|c| c.service == BACKEND && c.is_ready());
    let service = wanted.service(BACKEND).filter(|service| service.build.is_some());
    let (true, Some(serving), Some(service)) = (is_replaced, serving, service) else {
        return Ok(());
    };
    let now = super::ids(ctx, &[&service.image])?;
    if now.get(&service.image) == Some(&serving.image_id) {
        // Its configuration changed, and the program did not.
        return Ok(());
    }
    tag(ctx, &serving.image_id, &reference(project)).context("keep the version that is replaced")
}

/// The version before, and the service that it is of.
///
/// # Errors
/// The image comes from elsewhere, or none was kept, or it is what serves.
pub(crate) fn expect<'a>(
    ctx: &Ctx,
    project: &Project,
    wanted: &'a Wanted,
    containers: &[Container],
) -> Result<(Former, &'a Service)> {
    let service = wanted.expect_service(BACKEND)?;
    ensure!(
        service.build.is_some(),
        "{} is not built here (BACKEND_IMAGE), and no version before is kept here: write the one of before into the \
         environment file, then `cargo xtask deploy`",
        service.image
    );
    let reference = reference(project);
    let format = ["image", "inspect", "--format", "{{.Id}} {{.Created}}", &reference];
    let output = ctx.try_read(Invocation::new("docker").args(format))?;
    let Some((id, built)) = output.stdout.trim().split_once(' ') else {
        bail!(
            "there is no {reference}, so no version to go back to: it is kept when a backend that serves is replaced \
             by another image. Check the version out that served before, then `cargo xtask deploy`"
        );
    };
    let serving = containers.iter().find(|container| container.service == BACKEND);
    ensure!(
        serving.is_none_or(|container| container.image_id != id),
        "{reference} is what serves already; another version has to be checked out and deployed"
    );
    Ok((Former { reference, id: id.to_owned(), built: built.to_owned() }, service))
}

/// Gives an image the name by which Compose knows the service's.
///
/// # Errors
/// The engine refuses.
pub(crate) fn tag(ctx: &Ctx, id: &str, reference: &str) -> Result<()> {
    ctx.run(Invocation::new("docker").args(["tag", id, reference]))
}
