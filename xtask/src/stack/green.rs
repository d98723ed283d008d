//! A new version of a service in a container beside the one that serves (a blue-green deployment): made,
//! waited for, given the requests, and taken away. The service's own container is never touched here.

use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::ctx::{Ctx, Invocation};
use crate::stack::project::Project;
use crate::stack::report;
use crate::stack::running::{self, Container, Health, Survey};
use crate::stack::wanted::{Service, SwitchOver, Wanted};

/// Compose makes and starts one container.
const MAKE_LIMIT: Duration = Duration::from_secs(120);
const SWITCH_LIMIT: Duration = Duration::from_secs(30);
/// The service lets requests in flight finish; the engine ends it when its grace period is over.
const STOP_LIMIT: Duration = Duration::from_secs(180);
/// The proxy looks the service's address up again every three seconds at the most, and would send requests to the
/// one before.
const KNOWN_AFTER: Duration = Duration::from_secs(4);
const PAUSE: Duration = Duration::from_millis(50);

/// The second container of one service.
pub(crate) struct Green<'a> {
    ctx: &'a Ctx,
    project: &'a Project,
    service: &'a Service,
    switch: &'a SwitchOver,
    /// The proxy's container.
    proxy: String,
}

impl<'a> Green<'a> {
    /// None where the service cannot be replaced while it serves.
    ///
    /// # Errors
    /// The proxy does not run.
    pub(crate) fn of(
        ctx: &'a Ctx,
        project: &'a Project,
        service: &'a Service,
        containers: &[Container],
    ) -> Result<Option<Green<'a>>> {
        let Some(switch) = &service.switch_over else { return Ok(None) };
        let proxy = containers.iter().find(|c| c.service == switch.proxy && c.is_running());
        let Some(proxy) = proxy else {
            bail!(
                "`{}` of `{}`, through which requests come to {}, does not run; `cargo xtask up` starts it",
                switch.proxy,
                project.name,
                service.name
            );
        };
        Ok(Some(Green { ctx, project, service, switch, proxy: proxy.id.clone() }))
    }

    /// The same through another gate, to clean up after an interruption.
    pub(crate) fn through(&self, ctx: &'a Ctx) -> Green<'a> {
        Green { ctx, proxy: self.proxy.clone(), ..*self }
    }

    pub(crate) fn name(&self) -> String {
        running::green_name(self.project, &self.service.name)
    }

    /// The proxy's container.
    pub(crate) fn proxy(&self) -> &str {
        &self.proxy
    }

    /// A command in the proxy's container.
    pub(crate) fn in_proxy(&self, words: &[String]) -> Invocation {
        Invocation::new("docker").args(["exec", &self.proxy]).args(words)
    }

    /// Makes it, and waits until it is healthy.
    ///
    /// # Errors
    /// It does not get healthy in time, or ends; the message has its state, probe, log and a hint.
    pub(crate) fn bring_up(&self, limit: Duration) -> Result<Container> {
        // Without the service's name on the network: nobody finds it but whoever is told its address.
        let words = ["run", "--detach", "--no-deps", "--quiet-pull", "--name", &self.name()];
        let run = self.project.compose().args(words).arg(&self.service.name);
        self.ctx.run(run.limit(MAKE_LIMIT)).context("make the new container")?;
        let what = format!("{} to get healthy", self.name());
        self.ctx
            .wait_until(&what, limit, PAUSE, || {
                let Some(found) = self.look()? else { bail!("it is gone") };
                match (found.is_running(), found.health) {
                    (true, Health::Healthy | Health::None) => Ok(Ok(found)),
                    (true, Health::Starting) => {
                        bail!("it is not healthy yet:\n{}", self.report(&found, "starting"))
                    }
                    (true, Health::Unhealthy) => {
                        Ok(Err(self.report(&found, "its health check gave up")))
                    }
                    (false, _) => {
                        let ended = format!("{} with exit code {}", found.status, found.exit_code);
                        Ok(Err(self.report(&found, &ended)))
                    }
                }
            })?
            .map_err(|report| anyhow::anyhow!("the new version does not get ready:\n{report}"))
            .and_then(|container| self.have_it_restarted(container))
    }

    /// It may serve for a while, if something keeps the service's own container from getting ready. `compose
    /// run` gives no restart policy, and one that ends at its start shall not be tried again.
    fn have_it_restarted(&self, container: Container) -> Result<Container> {
        let words = ["update", "--restart", "unless-stopped", &container.id];
        self.ctx.run(Invocation::new("docker").args(words)).context("set its restart policy")?;
        Ok(container)
    }

    fn report(&self, container: &Container, state: &str) -> String {
        report::of_one(self.ctx, container, state)
    }

    /// How it is now; none where it is gone.
    ///
    /// # Errors
    /// The engine does not answer.
    pub(crate) fn look(&self) -> Result<Option<Container>> {
        let survey = running::survey(self.ctx, self.project)?;
        Ok(survey.green.into_iter().find(|container| container.service == self.service.name))
    }

    /// Where it listens, as the proxy's log tells.
    pub(crate) fn place(&self, container: &Container) -> String {
        format!("{}:{}", container.address, self.switch.port)
    }

    /// Moves new requests to it. Those that went to the other one end there.
    ///
    /// # Errors
    /// The proxy refuses.
    pub(crate) fn take_requests(&self) -> Result<()> {
        let to = self.in_proxy(&self.switch.to).limit(SWITCH_LIMIT);
        self.ctx.run(to).context("move requests to it")
    }

    /// Moves new requests to the service's own container again.
    ///
    /// # Errors
    /// The proxy refuses.
    pub(crate) fn give_requests_back(&self) -> Result<()> {
        let back = self.in_proxy(&self.switch.back).limit(SWITCH_LIMIT);
        self.ctx.run(back).with_context(|| format!("move requests back to {}", self.service.name))
    }

    /// Has it end in order, and removes it.
    ///
    /// # Errors
    /// The engine refuses.
    pub(crate) fn remove(&self) -> Result<()> {
        let Some(container) = self.look()? else { return Ok(()) };
        if container.is_alive() {
            let stop = Invocation::new("docker").args(["stop", &container.id]);
            self.ctx.run(stop.limit(STOP_LIMIT)).context("stop the second container")?;
        }
        let remove = Invocation::new("docker").args(["rm", "--force", &container.id]);
        self.ctx.run(remove).context("remove the second container")
    }

    /// Gives the requests to the service's own container, which is ready, and goes.
    ///
    /// # Errors
    /// As of [`Green::withdraw`].
    pub(crate) fn give_way(&self) -> Result<()> {
        let containers = running::containers(self.ctx, self.project)?;
        let own = containers.iter().find(|container| container.service == self.service.name);
        let uptime = own.and_then(Container::uptime).unwrap_or_default();
        self.ctx.pause(KNOWN_AFTER.saturating_sub(uptime))?;
        self.withdraw()
    }

    /// Takes it away, whatever it has: requests first.
    ///
    /// # Errors
    /// As of [`Green::give_requests_back`] and [`Green::remove`].
    pub(crate) fn withdraw(&self) -> Result<()> {
        self.give_requests_back()?;
        self.remove()
    }
}

/// Takes away what an interrupted deploy has left, where the service's own container is ready.
///
/// # Errors
/// As of [`Green::withdraw`].
pub(crate) fn release(
    ctx: &Ctx,
    project: &Project,
    wanted: &Wanted,
    survey: &Survey,
) -> Result<()> {
    for left in &survey.green {
        let Some(service) = wanted.service(&left.service) else { continue };
        // What there is now, and not what there was when `up` began.
        let containers = running::containers(ctx, project)?;
        let is_ready = containers.iter().any(|c| c.service == service.name && c.is_ready());
        let green = Green::of(ctx, project, service, &containers)?.filter(|_| is_ready);
        let Some(green) = green else { continue };
        ctx.ui.say(format!("removing {}, which an interrupted deploy left", left.name));
        green.give_way()?;
    }
    Ok(())
}
