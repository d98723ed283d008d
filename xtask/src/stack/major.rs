//! The major version of a server whose data no other one reads: PostgreSQL's. An image of another one would take
//! the server that works down and then refuse to start.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use crate::ctx::{Ctx, Invocation};
use crate::stack::plan::{Action, Plan};
use crate::stack::running::Container;
use crate::stack::wanted::Wanted;

/// What every image of PostgreSQL says of itself, the distribution's here as well.
const VARIABLE: &str = "PG_MAJOR=";

/// Refuses a plan in which a server is replaced by another major version. `ids` are those of the images, by
/// reference.
///
/// # Errors
/// It would be.
pub(crate) fn check(
    ctx: &Ctx,
    wanted: &Wanted,
    plan: &Plan,
    containers: &[Container],
    ids: &BTreeMap<String, String>,
) -> Result<()> {
    for step in plan.steps.iter().filter(|step| step.action == Action::Recreate) {
        let service = wanted.expect_service(&step.service)?;
        let container = containers.iter().find(|container| container.service == step.service);
        let (Some(container), Some(id)) = (container, ids.get(&service.image)) else { continue };
        if container.image_id == *id {
            continue;
        }
        let (Some(before), Some(after)) = (major_of(ctx, &container.image_id), major_of(ctx, id))
        else {
            continue;
        };
        if before != after {
            bail!(
                "{} has data of PostgreSQL {before}, which the image {} (PostgreSQL {after}) cannot read, so \
                 nothing was changed. Name {} again in the environment file; docs/upgrades.md leads \
                 from one version to the other",
                step.service,
                service.image,
                container.image
            );
        }
    }
    Ok(())
}

/// The major version that an image is of; none where it does not say, or is not here any more.
fn major_of(ctx: &Ctx, image: &str) -> Option<String> {
    let format = "{{range .Config.Env}}{{println .}}{{end}}";
    let inspect = ["image", "inspect", "--format", format, image];
    let said = ctx.read(Invocation::new("docker").args(inspect)).ok()?;
    said.lines().find_map(|line| line.strip_prefix(VARIABLE)).map(str::to_owned)
}
