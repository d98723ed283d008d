//! `x-reload-on-change`: what a service reads anew while it runs, so that no request is lost to a
//! restart, and a mistake in a file leaves it at work with what it had.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::ctx::{Ctx, Invocation};
use crate::stack::plan::{Action, Plan};
use crate::stack::project::Project;
use crate::stack::running::Container;
use crate::stack::wanted::Wanted;

const LIMIT: Duration = Duration::from_secs(30);
/// Files keep time in whole ticks of the kernel's clock (at most 10 ms): what was changed this long
/// before a reload may look older than it is, and is read once more.
const TICK: Duration = Duration::from_millis(20);

/// A note on the last reload. Where it is lost, the next `up` reloads once too often, which harms
/// nobody.
#[derive(Deserialize, Serialize)]
struct Note {
    container: String,
    at: SystemTime,
}

/// When this container was last told to read its files anew; none where it never was.
pub(crate) fn last(ctx: &Ctx, project: &Project, container: &Container) -> Option<SystemTime> {
    let text = fs::read(note_of(ctx, project, &container.service)).ok()?;
    let note: Note = serde_json::from_slice(&text).ok()?;
    (note.container == container.id).then_some(note.at)
}

/// Has the services that are to be reloaded read their files anew.
///
/// # Errors
/// One refuses a file; the message has its own words. It goes on with what it had.
pub(crate) fn carry_out(
    ctx: &Ctx,
    project: &Project,
    wanted: &Wanted,
    plan: &Plan,
    containers: &[Container],
) -> Result<()> {
    for name in plan.services(|action| action == Action::Reload) {
        let command = wanted.service(&name).and_then(|service| service.reload.as_ref());
        let container = containers.iter().find(|container| container.service == name);
        let (Some(reload), Some(container)) = (command, container) else { continue };
        let at = SystemTime::now() - TICK;
        let inside = Invocation::new("docker").args(["exec", &container.id]);
        ctx.run(inside.args(&reload.command).limit(LIMIT)).with_context(|| {
            format!(
                "have {name} read its files anew. It goes on with what it had until the mistake is \
                 mended and `cargo xtask up` run again"
            )
        })?;
        let note = serde_json::to_vec(&Note { container: container.id.clone(), at })?;
        fs::create_dir_all(project.state_dir(ctx)).context("make the folder for xtask's notes")?;
        fs::write(note_of(ctx, project, &name), note).context("note the reload")?;
        ctx.ui.say(format!("{name} reloaded"));
    }
    Ok(())
}

fn note_of(ctx: &Ctx, project: &Project, service: &str) -> PathBuf {
    project.state_dir(ctx).join(format!("{service}-reload.json"))
}
