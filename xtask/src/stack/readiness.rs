//! Carries a plan out and waits until every service is ready, driven by the engine's events:
//! a service starts in the moment in which the last one that it depends on gets healthy.
//!
//! Compose's `--wait` is not used: it looks every half second, and cannot say why something is
//! not ready. What is decided is pure ([`Tracker`]); the threads here only start and read.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde_json::Value;

use crate::ctx::{Ctx, Follow, Invocation};
use crate::stack::plan::{Action, Plan};
use crate::stack::project::Project;
use crate::stack::running::{self, Container, parse_health};
use crate::stack::tracker::{Event, Life, Phase, Tracked, Tracker};
use crate::stack::wanted::Wanted;

/// How long the events may be silent before they are checked against the truth: the stream can break with the
/// engine. The look costs a tenth of a second, in which no event is heeded: while they come, it is left out.
const RESYNC: Duration = Duration::from_secs(2);
/// How long one `docker start` may take; it returns when the process runs, not when it is ready.
const START_LIMIT: Duration = Duration::from_secs(120);

/// How the wait ended.
pub(crate) enum Outcome {
    AllReady(Tracker),
    /// Not all; the tracker says which, and the sentence why the wait ended.
    NotReady(Tracker, String),
}

impl Outcome {
    /// Where each service stood at the end.
    pub(crate) fn tracker(&self) -> &Tracker {
        match self {
            Outcome::AllReady(tracker) | Outcome::NotReady(tracker, _) => tracker,
        }
    }
}

/// Makes the containers that are missing or out of date. The first services start while the
/// others' containers are still being made.
pub(crate) type Make = Box<dyn FnOnce() -> Result<()> + Send>;

fn make_containers<'scope>(
    scope: &'scope Scope<'scope, '_>,
    make: Make,
    services: Vec<String>,
    sender: Sender<(String, Event)>,
) {
    scope.spawn(move || {
        let result = make().map_err(|error| format!("{error:#}"));
        for service in services {
            // The wait may have ended for another reason; then nobody listens any more.
            let _ = sender.send((service, Event::Created(result.clone())));
        }
    });
}

/// Starts what the plan says, in the order of dependencies, and waits until all is healthy.
///
/// # Errors
/// The engine does not answer, or the wait was interrupted. A service that does not get ready is
/// an [`Outcome`], not an error.
pub(crate) fn carry_out(
    ctx: &Ctx,
    project: &Project,
    tracker: Tracker,
    make: Option<Make>,
    limit: Duration,
) -> Result<Outcome> {
    // However the wait ends, no command of it goes on behind the caller's back, without the lock: the
    // scope ends when they have. After Ctrl-C the gate ends them; otherwise each has its own limit.
    thread::scope(|scope| carry_out_in(scope, ctx, project, tracker, make, limit))
}

fn carry_out_in<'scope>(
    scope: &'scope Scope<'scope, '_>,
    ctx: &'scope Ctx,
    project: &'scope Project,
    mut tracker: Tracker,
    make: Option<Make>,
    limit: Duration,
) -> Result<Outcome> {
    let started = Instant::now();
    let (sender, inbox) = channel();
    // Subscribed before the first start, so that nothing is missed.
    let _events = watch_events(ctx, project, sender.clone())?;
    let mut screen = Screen::new(ctx);
    let mut last_news = Instant::now();
    if let Some(make) = make {
        let to_make = tracker.services.iter().filter(|tracked| !tracked.exists);
        let names = to_make.map(|tracked| tracked.service.clone()).collect();
        make_containers(scope, make, names, sender.clone());
    }
    loop {
        for (service, action) in tracker.take_startable(started.elapsed()) {
            launch(scope, ctx, project, (service, action), sender.clone());
        }
        screen.show(&tracker);
        if tracker.is_done() {
            return Ok(Outcome::AllReady(tracker));
        }
        // First: what was interrupted looks like a failure.
        ctx.check_interrupted()?;
        if tracker.is_hopeless() {
            let reason = "waiting longer is pointless".to_owned();
            return Ok(Outcome::NotReady(tracker, reason));
        }
        if started.elapsed() > limit {
            let reason = format!("the time-out of {} is over", crate::ui::seconds(limit));
            return Ok(Outcome::NotReady(tracker, reason));
        }
        if drain(&inbox, &mut tracker, started) {
            last_news = Instant::now();
        }
        if last_news.elapsed() > RESYNC {
            last_news = Instant::now();
            resync(ctx, project, started, &sender)?;
        }
    }
}

/// Waits a moment for events and applies all that there are; false if there was none.
fn drain(inbox: &Receiver<(String, Event)>, tracker: &mut Tracker, started: Instant) -> bool {
    let Ok(first) = inbox.recv_timeout(Duration::from_millis(100)) else {
        return false;
    };
    for (service, event) in std::iter::once(first).chain(inbox.try_iter()) {
        tracker.apply(&service, event, started.elapsed());
    }
    true
}

/// Starts a container in a thread of its own: two that may start do so at the same time.
fn launch<'scope>(
    scope: &'scope Scope<'scope, '_>,
    ctx: &'scope Ctx,
    project: &'scope Project,
    (service, action): (String, Action),
    sender: Sender<(String, Event)>,
) {
    scope.spawn(move || {
        let result = start_container(ctx, project, &service, action);
        let result = result.map_err(|error| format!("it could not be started: {error:#}"));
        // The wait may have ended for another reason; then nobody listens any more.
        let _ = sender.send((service, Event::Launched(result)));
    });
}

fn start_container(ctx: &Ctx, project: &Project, service: &str, action: Action) -> Result<()> {
    let verb = match action {
        Action::Restart => "restart",
        Action::Resume => "unpause",
        _ => "start",
    };
    let name = running::container_name(project, service);
    ctx.run(Invocation::new("docker").args([verb, &name]).limit(START_LIMIT))
}

/// Passes the engine's events of this project on.
fn watch_events(
    ctx: &Ctx,
    project: &Project,
    sender: Sender<(String, Event)>,
) -> Result<EventStream> {
    let filter = running::project_filter(project);
    let mut command =
        Invocation::new("docker").args(["events", "--format", "{{json .}}", "--filter", &filter]);
    for event in ["create", "die", "health_status", "oom"] {
        command = command.args(["--filter", &format!("event={event}")]);
    }
    let mut follow = ctx.follow(command)?;
    let lines = std::mem::replace(&mut follow.lines, channel().1);
    thread::spawn(move || {
        for (service, event) in lines.iter().filter_map(|line| parse_event(&line)) {
            if sender.send((service, event)).is_err() {
                break;
            }
        }
    });
    Ok(EventStream { _follow: follow })
}

/// Keeps `docker events` running for as long as it lives.
struct EventStream {
    _follow: Follow,
}

fn parse_event(line: &str) -> Option<(String, Event)> {
    let event: Value = serde_json::from_str(line).ok()?;
    let attributes = &event["Actor"]["Attributes"];
    // What `compose run` made has a service's labels, and is not the service.
    if attributes["com.docker.compose.oneoff"] == "True" {
        return None;
    }
    let service = attributes["com.docker.compose.service"].as_str()?.to_owned();
    let action = event["Action"].as_str()?;
    if let Some(word) = action.strip_prefix("health_status: ") {
        return Some((service, Event::Health(parse_health(word))));
    }
    match action {
        "create" => Some((service, Event::Appeared)),
        "oom" => Some((service, Event::OutOfMemory)),
        "die" => Some((service, Event::Died(attributes["exitCode"].as_str()?.parse().ok()?))),
        _ => None,
    }
}

/// Reads the truth and sends it as events.
fn resync(
    ctx: &Ctx,
    project: &Project,
    started: Instant,
    sender: &Sender<(String, Event)>,
) -> Result<()> {
    let at = started.elapsed();
    for container in running::containers(ctx, project)? {
        let life = Life::of(&container.status);
        let (health, probe) = (container.health, container.last_probe);
        let seen = Event::Seen { life, health, probe, at };
        // The receiver lives as long as the wait.
        let _ = sender.send((container.service, seen));
    }
    Ok(())
}

/// The live lines of a wait: one a service.
struct Screen {
    ctx: Ctx,
    steps: BTreeMap<String, crate::ui::Step>,
}

impl Screen {
    fn new(ctx: &Ctx) -> Screen {
        Screen { ctx: ctx.clone(), steps: BTreeMap::new() }
    }

    fn show(&mut self, tracker: &Tracker) {
        for (index, tracked) in tracker.services.iter().enumerate() {
            let name = &tracked.service;
            match &tracked.phase {
                Phase::Blocked(_) => {}
                Phase::Ready if tracked.launched_at.is_none() && !self.steps.contains_key(name) => {
                }
                Phase::Ready => {
                    if let Some(step) = self.steps.remove(name) {
                        step.done("healthy");
                    }
                }
                Phase::Failed(reason) => {
                    if let Some(step) = self.steps.remove(name) {
                        step.note(reason);
                        step.failed();
                    }
                }
                phase => {
                    let ui = &self.ctx.ui;
                    let step =
                        self.steps.entry(name.clone()).or_insert_with(|| ui.step(name.as_str()));
                    step.note(&doing(phase, &tracker.services[index]));
                }
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        for (_, step) in std::mem::take(&mut self.steps) {
            step.vanish();
        }
    }
}

fn doing(phase: &Phase, tracked: &Tracked) -> String {
    match phase {
        Phase::Launching => "starting".to_owned(),
        _ if tracked.deaths > 0 => format!("ended {} times, starting again", tracked.deaths),
        _ => match &tracked.last_probe {
            Some(probe) => format!("not healthy yet: {}", probe.replace('\n', " ")),
            None => "waiting for its health check".to_owned(),
        },
    }
}

/// A tracker for containers that are there already, for `wait`: it starts nothing.
pub(crate) fn waiting_for(wanted: &Wanted, containers: &[Container]) -> Tracker {
    let steps = wanted.services.iter().map(|service| {
        let container = containers.iter().find(|container| container.service == service.name);
        let is_ready = container.is_some_and(Container::is_ready);
        let action = if is_ready { Action::Keep } else { Action::Wait };
        crate::stack::plan::Step { service: service.name.clone(), action, reason: String::new() }
    });
    Tracker::new(wanted, &Plan { steps: steps.collect(), orphans: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack::running::Health;

    #[test]
    fn the_engines_events_are_read() {
        let line = r#"{"status":"health_status: healthy","Type":"container","Action":"health_status: healthy","Actor":{"ID":"x","Attributes":{"com.docker.compose.service":"redis"}}}"#;
        assert_eq!(parse_event(line), Some(("redis".into(), Event::Health(Health::Healthy))));
        let line = r#"{"Action":"die","Actor":{"Attributes":{"com.docker.compose.service":"db","exitCode":"3"}}}"#;
        assert_eq!(parse_event(line), Some(("db".into(), Event::Died(3))));
        assert_eq!(parse_event("not json"), None);
    }
}
