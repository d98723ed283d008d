//! What is there, what is to be done about it, and how that is done.

use std::collections::BTreeMap;

use anyhow::Result;

use super::{Prepared, clear_the_way, expect_ready, make_plan, making};
use crate::cli::UpArgs;
use crate::commands::db::first::{self, Due};
use crate::ctx::Ctx;
use crate::images::{build, former};
use crate::stack::plan::{Plan, Step};
use crate::stack::project::Project;
use crate::stack::running::{self, Container};
use crate::stack::tracker::Tracker;
use crate::stack::wanted::Wanted;
use crate::stack::{readiness, reload, timings};
use crate::ui;

/// The containers of one moment, and the plan that follows from them.
pub(super) struct Look {
    pub(super) containers: Vec<Container>,
    pub(super) plan: Plan,
}

impl Look {
    /// The plan for containers that were looked at, with the ids that images have now.
    ///
    /// # Errors
    /// The engine does not answer.
    pub(super) fn at(
        ctx: &Ctx,
        prepared: &Prepared,
        ids: &BTreeMap<String, String>,
        containers: Vec<Container>,
    ) -> Result<Look> {
        let Prepared { project, wanted, .. } = prepared;
        let plan = make_plan(ctx, project, wanted, &containers, ids, &[])?;
        Ok(Look { containers, plan })
    }

    /// Looks again.
    ///
    /// # Errors
    /// The engine does not answer.
    pub(super) fn now(
        ctx: &Ctx,
        prepared: &Prepared,
        ids: &BTreeMap<String, String>,
    ) -> Result<Look> {
        Look::at(ctx, prepared, ids, running::containers(ctx, &prepared.project)?)
    }

    /// The migrations that come before this plan.
    ///
    /// # Errors
    /// As of [`first::due`].
    pub(super) fn due(&self, ctx: &Ctx, project: &Project) -> Result<Option<Due>> {
        first::due(ctx, project, &self.plan, &self.containers)
    }
}

/// Carries the plan out. A backend that migrates for longer than its health check has patience is left to it, and
/// waited for: it began beside PostgreSQL, so that nothing could be applied before.
///
/// # Errors
/// A service does not get ready; or a migration that was waited for fails.
pub(super) fn carry_out(
    ctx: &Ctx,
    prepared: &Prepared,
    ids: &BTreeMap<String, String>,
    mut look: Look,
    args: &UpArgs,
) -> Result<()> {
    let Prepared { project, wanted, .. } = prepared;
    let mut may_wait = true;
    loop {
        let Look { containers, plan } = &look;
        former::keep(ctx, project, wanted, plan, containers)?;
        clear_the_way(ctx, plan, containers)?;
        let make = making(ctx, project, plan);
        let tracker = Tracker::new(wanted, plan, containers);
        let outcome = readiness::carry_out(ctx, project, tracker, make, args.wait.limit())?;
        if args.timings {
            ui::data(timings::render(outcome.tracker()))?;
        }
        if may_wait && outcome.has_failed(build::BACKEND) {
            let now = Look::now(ctx, prepared, ids)?;
            if let Some(due) = now.due(ctx, project)?.filter(|due| due.is_under_way) {
                first::apply(ctx, project, &due)?;
                look = Look::now(ctx, prepared, ids)?;
                may_wait = false;
                continue;
            }
        }
        expect_ready(ctx, project, outcome)?;
        return reload::carry_out(ctx, project, wanted, plan, containers);
    }
}

/// Says that this was not the way without a pause, where there is one.
pub(super) fn recommend_a_deploy(ctx: &Ctx, wanted: &Wanted, plan: &Plan) {
    let is_switched =
        |step: &&&Step| wanted.service(&step.service).is_some_and(|s| s.switch_over.is_some());
    let Ok(steps) = plan.without_a_pause(wanted) else { return };
    if let Some(step) = steps.iter().find(is_switched) {
        ctx.ui.say(format!(
            "{} does not answer for a moment now; next time, `cargo xtask deploy` replaces it without a pause",
            step.service
        ));
    }
}
