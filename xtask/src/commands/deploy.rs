//! `deploy`: a new version of a service takes over while requests are answered, and gives back what it took if
//! it is no good.
//!
//! The new version begins in a second container. Once it is healthy the proxy moves new requests to it, and it
//! is watched with the old one still there: the way back is one word to the proxy. Only then the service's
//! own container is made anew, as `up` makes it, and requests go back there. So what is left is what `up`
//! would have left, and nothing that a later command would have to know of.

mod proof;

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, anyhow, bail, ensure};

use self::proof::{Answers, Probes};
use crate::cli::DeployArgs;
use crate::commands::db::first;
use crate::commands::up::{self, Prepared};
use crate::ctx::Ctx;
use crate::images::{build, former};
use crate::stack::green::{self, Green};
use crate::stack::plan::{Plan, Step};
use crate::stack::readiness::{self, Outcome};
use crate::stack::running::Container;
use crate::stack::tracker::Tracker;
use crate::stack::wanted::{Service, Wanted};
use crate::stack::{reload, report, rotation};
use crate::ui;

/// How often a container that is watched is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// Replaces a service whose image or configuration changed, without a pause.
///
/// # Errors
/// The new version does not get ready or answers worse than the old one: then the old one serves on. Or
/// something else has to be done first; the message says what.
pub(crate) fn deploy(ctx: &Ctx, env_file: &Path, args: &DeployArgs) -> Result<()> {
    let started = Instant::now();
    let prepared = up::prepare(ctx, env_file, "deploy")?;
    if args.back {
        return back(ctx, &prepared, args, started);
    }
    let Prepared { project, wanted, survey, images, source, .. } = &prepared;
    if ctx.is_dry_run() {
        let stale = build::out_of_date(ctx, project, wanted, *source, images)?;
        let plan = up::make_plan(ctx, project, wanted, &survey.containers, images, &stale)?;
        up::print_beginning(survey, &stale)?;
        // What it refuses applies nothing either.
        replaceable(wanted, &plan)?;
        first::tell(ctx, project, &plan, &survey.containers)?;
        return tell(ctx, wanted, &plan);
    }
    up::remove_left(ctx, &survey.left)?;
    green::release(ctx, project, wanted, survey)?;
    let built = build::bring_up_to_date(ctx, project, wanted, *source, images, false)?;
    let plan = up::make_plan(ctx, project, wanted, &survey.containers, &built.ids, &[])?;
    replaceable(wanted, &plan)?;
    if let Some(due) = first::due(ctx, project, &plan, &survey.containers)? {
        first::apply(ctx, project, &due)?;
    }
    let deployed = replace(ctx, &prepared, &plan, args)?;
    let done = if deployed.count == 0 { "nothing to deploy, all is current" } else { "deployed" };
    up::say_up(ctx, project, done, started)?;
    deployed.expect_no_pause()
}

/// Replaces the backend by the version before, as any other version. Its name is the service's until something is
/// built again: so Compose makes containers of it, and the next `up` sees that it is not what is checked out.
fn back(ctx: &Ctx, prepared: &Prepared, args: &DeployArgs, started: Instant) -> Result<()> {
    let Prepared { project, wanted, survey, images, .. } = prepared;
    let (former, service) = former::expect(ctx, project, wanted, &survey.containers)?;
    let mut ids = images.clone();
    let present = ids.insert(service.image.clone(), former.id.clone());
    let plan = up::make_plan(ctx, project, wanted, &survey.containers, &ids, &[])?;
    replaceable(wanted, &plan)?;
    ctx.ui.say(format!(
        "back to {}, built at {}. It alone goes back: the pages, nginx' configuration and the Compose files stay as \
         they are checked out, and the migrations stay applied",
        former.reference, former.built
    ));
    if ctx.is_dry_run() {
        up::print_beginning(survey, &[])?;
        return tell(ctx, wanted, &plan);
    }
    up::remove_left(ctx, &survey.left)?;
    green::release(ctx, project, wanted, survey)?;
    former::tag(ctx, &former.id, &service.image)?;
    let deployed = match replace(ctx, prepared, &plan, args) {
        Ok(deployed) => deployed,
        Err(error) => {
            // After Ctrl-C too. Where this fails, the next `up` builds the image anew.
            let renamed = present.map(|id| former::tag(&ctx.shielded(), &id, &service.image));
            return renamed.unwrap_or(Ok(())).and(Err(error));
        }
    };
    up::say_up(ctx, project, "deployed the version before", started)?;
    ctx.ui.warn(
        "the next `cargo xtask up` or `cargo xtask deploy` builds what is checked out, and replaces this version \
         again: check out what serves now, or mend what is there, first",
    );
    deployed.expect_no_pause()
}

/// What was replaced.
struct Deployed {
    count: usize,
    /// Requests that were tried meanwhile and failed.
    failed: u64,
}

impl Deployed {
    fn expect_no_pause(&self) -> Result<()> {
        ensure!(self.failed == 0, "the new version serves, and not without a pause: see above");
        Ok(())
    }
}

/// Carries the steps of a plan out, all of which can be without a pause.
///
/// # Errors
/// A new version is no good, or something has to be done first that takes a pause.
fn replace(ctx: &Ctx, prepared: &Prepared, plan: &Plan, args: &DeployArgs) -> Result<Deployed> {
    let Prepared { project, wanted, survey, .. } = prepared;
    let steps = replaceable(wanted, plan)?;
    // First: a switch reads them as well, half of them otherwise, before they were rendered and tried.
    reload::carry_out(ctx, project, wanted, plan, &survey.containers)?;
    let mut failed = 0;
    for Step { service, reason, .. } in &steps {
        ctx.ui.say(format!("{service}: {reason}"));
        let (service, plan) = (wanted.expect_service(service)?, plan.of_one(service));
        let deploy = Deploy { ctx, prepared, plan: &plan, service, args };
        failed += match service.switch_over {
            Some(_) => deploy.carry_out()?,
            None => deploy.promote().map(|()| 0).with_context(|| {
                format!(
                    "{} is not ready; what was replaced before it serves, and `cargo xtask up` goes on from here",
                    service.name
                )
            })?,
        };
    }
    rotation::settle_all(ctx, project)?;
    Ok(Deployed { count: steps.len(), failed })
}

/// The steps of a plan that a deploy carries out, one after the other; none where there is nothing to do.
///
/// # Errors
/// Something else has to be done, which takes a pause.
fn replaceable<'a>(wanted: &Wanted, plan: &'a Plan) -> Result<Vec<&'a Step>> {
    plan.without_a_pause(wanted).map_err(|others| {
        let line = |step: &&Step| format!("{} {}: {}", step.action, step.service, step.reason);
        let others: Vec<String> = others.iter().map(line).collect();
        anyhow!(
            "a deploy replaces what can be replaced without a pause, and this cannot:\n  {}\n`cargo xtask \
             up` does all of it, with the pause that it takes",
            others.join("\n  ")
        )
    })
}

/// What would be done.
fn tell(ctx: &Ctx, wanted: &Wanted, plan: &Plan) -> Result<()> {
    for Step { service, reason, .. } in replaceable(wanted, plan)? {
        let is_switched = wanted.expect_service(service)?.switch_over.is_some();
        let how = if is_switched { "without a pause" } else { "nobody waits for it" };
        ui::data(format!("{:<9} {service:<9} {reason}; {how}", "replace"))?;
    }
    ctx.ui.say("nothing was changed (--dry-run)");
    Ok(())
}

struct Deploy<'a> {
    ctx: &'a Ctx,
    prepared: &'a Prepared,
    plan: &'a Plan,
    service: &'a Service,
    args: &'a DeployArgs,
}

impl Deploy<'_> {
    /// Says what people noticed, and returns how many requests that were tried failed.
    fn carry_out(&self) -> Result<u64> {
        let Prepared { project, survey, .. } = self.prepared;
        let green = Green::of(self.ctx, project, self.service, &survey.containers)?;
        let (Some(green), Some(switch)) = (green, &self.service.switch_over) else {
            bail!("{} has no `x-switch-over`", self.service.name);
        };
        ensure!(
            green.look()?.is_none(),
            "{} is there from a deploy that was interrupted, and may be what serves; `cargo xtask up` finishes \
             it",
            green.name()
        );
        let began = SystemTime::now();
        let mut probes = Probes::start(self.ctx, &green, &switch.probe);
        let mut was_failing = false;
        if let Err(error) = self.take_over(&green, &mut probes, &mut was_failing) {
            // Also after Ctrl-C. What was wrong with the new version matters more than what is wrong here.
            let withdrawn = green.through(&self.ctx.shielded()).withdraw();
            let before = match withdrawn {
                Ok(()) if was_failing => {
                    "rolled back to the version before, which did not answer either".to_owned()
                }
                Ok(()) => "rolled back: the version before serves on".to_owned(),
                Err(left) => format!(
                    "the version before is still there, but not all was put back ({left:#}); `cargo xtask \
                     deploy` or `cargo xtask up` does that first"
                ),
            };
            return Err(error.context(before));
        }
        let serves = format!("the new version serves from {}", green.name());
        self.promote().with_context(|| {
            format!(
                "{serves}, and is not in the service's own container; `cargo xtask up` goes on from here"
            )
        })?;
        green.give_way().with_context(|| {
            format!("{serves}, and is ready in the service's own container; `cargo xtask up` does the rest")
        })?;
        proof::let_the_log_come(self.ctx)?;
        probes.count();
        let visitors = proof::visitors(self.ctx, green.proxy(), began, SystemTime::now(), None);
        self.ctx.ui.complain_if(probes.failed > 0, told(&probes, visitors.ok()));
        Ok(probes.failed)
    }

    /// Everything after which the way back is to the old container.
    fn take_over(&self, green: &Green, probes: &mut Probes, was_failing: &mut bool) -> Result<()> {
        let step = self.ctx.ui.step(format!("{} beside the old one", self.service.name)).announce();
        let container = match green.bring_up(self.args.wait.limit()) {
            Ok(container) => container,
            Err(error) => {
                step.failed();
                return Err(error);
            }
        };
        step.done("healthy");
        let since = SystemTime::now();
        let before = self.before(green, since)?;
        *was_failing = probes.are_failing(self.ctx)?;
        green.take_requests()?;
        // What was asked before may still be on its way.
        probes.expect_an_answer(self.ctx)?;
        if *was_failing {
            // It may be what this deploy mends.
            probes.forgive();
        }
        let step = self.ctx.ui.step(format!("watching {}", self.service.name)).announce();
        let watched = self.watch(green, &container, probes, before, since);
        match &watched {
            Ok(after) => step.done(format!("{} requests", after.total)),
            Err(_) => step.failed(),
        }
        watched.map(drop)
    }

    /// What visitors got from the old version, for as long as the new one will be watched.
    fn before(&self, green: &Green, until: SystemTime) -> Result<Answers> {
        let from = until.checked_sub(self.args.watch()).unwrap_or(SystemTime::UNIX_EPOCH);
        proof::visitors(self.ctx, green.proxy(), from, until, None)
    }

    /// Has the new version answer for a while.
    ///
    /// # Errors
    /// It ends, gets unhealthy, does not answer, or answers worse than the old one.
    fn watch(
        &self,
        green: &Green,
        container: &Container,
        probes: &mut Probes,
        before: Answers,
        since: SystemTime,
    ) -> Result<Answers> {
        let end = Instant::now() + self.args.watch();
        loop {
            probes.count();
            if let Some(failure) = &probes.first_failure {
                bail!("a request through the proxy was not answered: {failure}");
            }
            let now = green.look()?.context("the new container is gone")?;
            if !now.is_ready() || now.restarts > 0 || now.id != container.id {
                bail!("the new version failed:\n{}", report::of_one(self.ctx, &now, &now.status));
            }
            if Instant::now() >= end {
                break;
            }
            self.ctx.pause(LOOK.min(end.saturating_duration_since(Instant::now())))?;
        }
        proof::let_the_log_come(self.ctx)?;
        let place = green.place(container);
        let after =
            proof::visitors(self.ctx, green.proxy(), since, SystemTime::now(), Some(&place))?;
        ensure!(
            !after.is_worse_than(before),
            "of {} requests to the new version {} failed, and of {} to the old one in the same time {}",
            after.total,
            after.failed,
            before.total,
            before.failed
        );
        Ok(after)
    }

    /// Makes the service's own container anew.
    fn promote(&self) -> Result<()> {
        let Prepared { project, wanted, survey, .. } = self.prepared;
        former::keep(self.ctx, project, wanted, self.plan, &survey.containers)?;
        up::clear_the_way(self.ctx, self.plan, &survey.containers)?;
        let make = up::making(self.ctx, project, self.plan);
        let tracker = Tracker::new(wanted, self.plan, &survey.containers);
        let limit = self.args.wait.limit();
        let outcome: Outcome = readiness::carry_out(self.ctx, project, tracker, make, limit)?;
        up::expect_ready(self.ctx, project, outcome)
    }
}

/// What people noticed; none where the proxy's log could not be read.
fn told(probes: &Probes, visitors: Option<Answers>) -> String {
    let Probes { asked, failed, first_failure, .. } = probes;
    let tried = match first_failure {
        None => format!("meanwhile {asked} requests were tried through the proxy and none failed"),
        Some(first) => format!(
            "meanwhile {failed} of {asked} requests that were tried through the proxy failed, the first with \
             {first}"
        ),
    };
    match visitors {
        Some(Answers { total, failed }) => format!("{tried}; of {total} of visitors {failed} did"),
        None => format!("{tried}; what visitors got cannot be read from its log"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack::plan::Action;
    use crate::stack::wanted::SwitchOver;

    fn wanted() -> Wanted {
        let switch = SwitchOver {
            proxy: "web".into(),
            port: 1,
            to: Vec::new(),
            back: Vec::new(),
            probe: Vec::new(),
        };
        let service = |name: &str, switch_over| Service {
            name: name.into(),
            switch_over,
            ..Service::default()
        };
        let mut services = vec![
            service("db", None),
            service("app", Some(switch)),
            service("web", None),
            service("worker", None),
        ];
        services[1].depends_on = vec!["db".into()];
        services[3].depends_on = vec!["db".into()];
        Wanted { services, ..Wanted::default() }
    }

    fn plan(actions: [Action; 4]) -> Plan {
        let step = |(service, action): (&str, Action)| Step {
            service: service.into(),
            action,
            reason: "for a reason".into(),
        };
        let steps = ["db", "app", "web", "worker"].into_iter().zip(actions).map(step).collect();
        Plan { steps, ..Plan::default() }
    }

    #[test]
    fn a_deploy_replaces_what_it_can_and_nothing_beside_it() {
        use Action::{Create, Keep, Recreate, Reload, Restart, Start};
        let wanted = wanted();
        let chosen_with = |[db, app, web]: [Action; 3], worker| {
            let plan = plan([db, app, web, worker]);
            let names = |steps: Vec<&Step>| -> Vec<String> {
                steps.iter().map(|step| step.service.clone()).collect()
            };
            replaceable(&wanted, &plan).map(names)
        };
        let chosen = |actions| chosen_with(actions, Keep);
        // A worker comes after what answers requests, and whatever it needs.
        assert_eq!(chosen_with([Keep, Recreate, Keep], Create).unwrap(), ["app", "worker"]);
        assert_eq!(chosen_with([Keep; 3], Start).unwrap(), ["worker"]);
        assert!(chosen_with([Recreate, Keep, Keep], Recreate).is_err());
        assert_eq!(chosen([Keep, Keep, Reload]).unwrap(), [""; 0]);
        assert_eq!(chosen([Keep, Recreate, Reload]).unwrap(), ["app"]);
        for actions in [
            [Recreate, Recreate, Keep],
            [Keep, Recreate, Recreate],
            [Keep, Recreate, Restart],
            [Keep, Create, Keep],
            [Keep, Start, Keep],
        ] {
            let said = chosen(actions).unwrap_err().to_string();
            assert!(said.contains("`cargo xtask up` does all of it"), "{said}");
        }
    }
}
