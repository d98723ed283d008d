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

use crate::ctx::{Ctx, Follow, Interrupted, Invocation};
use crate::stack::plan::{Action, Plan};
use crate::stack::project::Project;
use crate::stack::running::{self, Container, Health, parse_health};
use crate::stack::tracker::{Event, MISSING, Phase, Start, Tracked, Tracker};
use crate::stack::wanted::Wanted;

/// How long the events may be silent before they are checked against the truth: the stream can break with the
/// engine. The look costs a tenth of a second, in which no event is heeded: while they come, it is left out.
const RESYNC: Duration = Duration::from_secs(2);
/// How long one `docker start` may take; it returns when the process runs, not when it is ready.
const START_LIMIT: Duration = Duration::from_secs(120);
/// How long the process that a restart ends may take: PostgreSQL has two minutes (compose.yaml).
const STOP_LIMIT: Duration = Duration::from_secs(180);
/// How long the engine may be away, beyond the time-out or within it: one that starts anew is back sooner.
const ENGINE_LIMIT: Duration = Duration::from_secs(60);

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

    /// Whether the wait ended because this service cannot get ready.
    pub(crate) fn has_failed(&self, service: &str) -> bool {
        let is_it = |tracked: &Tracked| {
            tracked.service == service && matches!(tracked.phase, Phase::Failed(_))
        };
        matches!(self, Outcome::NotReady(tracker, _) if tracker.services.iter().any(is_it))
    }
}

/// Makes the containers that are missing or out of date. The first services start while the
/// others' containers are still being made.
pub(crate) type Make = Box<dyn FnOnce() -> Result<()> + Send>;

/// What the threads of a wait tell it.
enum News {
    /// Of one service.
    Of(String, Event),
    /// Compose has made all the containers that it was to make, or could not.
    Made(Result<(), String>),
    /// The engine has nothing more to tell: it ended, or its stream did.
    Silent,
}

fn make_containers<'scope>(scope: &'scope Scope<'scope, '_>, make: Make, sender: Sender<News>) {
    scope.spawn(move || {
        let result = make().map_err(|error| format!("{error:#}"));
        // The wait may have ended for another reason; then nobody listens any more.
        let _ = sender.send(News::Made(result));
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
    let mut events = Some(watch_events(ctx, project, sender.clone())?);
    let mut screen = Screen::new(ctx);
    let mut last_news = Instant::now();
    let mut silent_since = None;
    if let Some(make) = make {
        make_containers(scope, make, sender.clone());
    }
    loop {
        if tracker.lacks_an_id() {
            tracker.know(&running::containers(ctx, project)?);
        }
        for start in tracker.take_startable(started.elapsed()) {
            launch(scope, ctx, project, start, sender.clone());
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
        match drain(&inbox, &mut tracker, started) {
            Heard::Nothing => {}
            Heard::News => last_news = Instant::now(),
            Heard::TheEnd => events = None,
        }
        if last_news.elapsed() < RESYNC {
            continue;
        }
        last_news = Instant::now();
        match resync(ctx, project, &tracker, started, &sender) {
            Ok(()) => {
                silent_since = None;
                if events.is_none() {
                    events = Some(watch_events(ctx, project, sender.clone())?);
                }
            }
            Err(error) if error.is::<Interrupted>() => return Err(error),
            // It may be starting anew, and brings the containers back by itself.
            Err(error) => {
                if silent_since.get_or_insert_with(Instant::now).elapsed() > ENGINE_LIMIT {
                    return Err(error);
                }
                screen.say_once("the Docker Engine does not answer; it is asked again");
            }
        }
    }
}

/// What came of listening for a moment.
#[derive(PartialEq)]
enum Heard {
    Nothing,
    News,
    /// The engine's stream has ended.
    TheEnd,
}

/// Waits a moment for news and applies all that there is.
fn drain(inbox: &Receiver<News>, tracker: &mut Tracker, started: Instant) -> Heard {
    let Ok(first) = inbox.recv_timeout(Duration::from_millis(100)) else {
        return Heard::Nothing;
    };
    let mut heard = Heard::News;
    for news in std::iter::once(first).chain(inbox.try_iter()) {
        match news {
            News::Of(service, event) => tracker.apply(&service, event, started.elapsed()),
            News::Made(result) => tracker.made(result, started.elapsed()),
            News::Silent => heard = Heard::TheEnd,
        }
    }
    heard
}

/// Starts a container in a thread of its own: two that may start do so at the same time.
fn launch<'scope>(
    scope: &'scope Scope<'scope, '_>,
    ctx: &'scope Ctx,
    project: &'scope Project,
    start: Start,
    sender: Sender<News>,
) {
    scope.spawn(move || {
        let result = start_container(ctx, project, &start);
        let result = result.map_err(|error| format!("it could not be started: {error:#}"));
        // The wait may have ended for another reason; then nobody listens any more.
        let _ = sender.send(News::Of(start.service, Event::Launched(result)));
    });
}

fn start_container(ctx: &Ctx, project: &Project, start: &Start) -> Result<()> {
    let (verb, limit) = match start.action {
        // It ends the process first, which may have its grace.
        Action::Restart => ("restart", START_LIMIT + STOP_LIMIT),
        Action::Resume => ("unpause", START_LIMIT),
        _ => ("start", START_LIMIT),
    };
    // The word on a container that was just made may have been lost; this is what Compose calls it.
    let name = start.container.clone();
    let name = name.unwrap_or_else(|| running::container_name(project, &start.service));
    ctx.run(Invocation::new("docker").args([verb, &name]).limit(limit))
}

/// Passes the engine's events of this project on.
fn watch_events(ctx: &Ctx, project: &Project, sender: Sender<News>) -> Result<EventStream> {
    let filter = running::project_filter(project);
    let mut command =
        Invocation::new("docker").args(["events", "--format", "{{json .}}", "--filter", &filter]);
    for event in ["create", "die", "health_status", "oom"] {
        command = command.args(["--filter", &format!("event={event}")]);
    }
    let mut follow = ctx.follow(command)?;
    let lines = std::mem::replace(&mut follow.lines, channel().1);
    thread::spawn(move || {
        let news = lines.iter().filter_map(|line| parse_event(&line));
        for (service, event) in news {
            if sender.send(News::Of(service, event)).is_err() {
                return;
            }
        }
        let _ = sender.send(News::Silent);
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
        "create" => Some((service, Event::Appeared(event["Actor"]["ID"].as_str()?.to_owned()))),
        "oom" => Some((service, Event::OutOfMemory)),
        "die" => Some((service, Event::Died(attributes["exitCode"].as_str()?.parse().ok()?))),
        _ => None,
    }
}

/// Reads the truth and sends it as events.
fn resync(
    ctx: &Ctx,
    project: &Project,
    tracker: &Tracker,
    started: Instant,
    sender: &Sender<News>,
) -> Result<()> {
    let at = started.elapsed();
    let containers = running::containers(ctx, project)?;
    for tracked in &tracker.services {
        let found = containers.iter().find(|container| container.service == tracked.service);
        let seen = Event::Seen {
            status: found.map_or_else(|| MISSING.to_owned(), |c| c.status.clone()),
            exit_code: found.map_or(0, |c| c.exit_code),
            health: found.map_or(Health::None, |c| c.health),
            probe: found.and_then(|c| c.last_probe.clone()),
            at,
        };
        // The receiver lives as long as the wait.
        let _ = sender.send(News::Of(tracked.service.clone(), seen));
    }
    Ok(())
}

/// The live lines of a wait: one a service.
struct Screen {
    ctx: Ctx,
    steps: BTreeMap<String, crate::ui::Step>,
    said: Option<&'static str>,
}

impl Screen {
    fn new(ctx: &Ctx) -> Screen {
        Screen { ctx: ctx.clone(), steps: BTreeMap::new(), said: None }
    }

    fn say_once(&mut self, line: &'static str) {
        if self.said.replace(line) != Some(line) {
            self.ctx.ui.say(line);
        }
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
    Tracker::new(wanted, &Plan { steps: steps.collect(), orphans: Vec::new() }, containers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engines_events_are_read() {
        let line = r#"{"status":"health_status: healthy","Type":"container","Action":"health_status: healthy","Actor":{"ID":"x","Attributes":{"com.docker.compose.service":"redis"}}}"#;
        assert_eq!(parse_event(line), Some(("redis".into(), Event::Health(Health::Healthy))));
        let line = r#"{"Action":"die","Actor":{"Attributes":{"com.docker.compose.service":"db","exitCode":"3"}}}"#;
        assert_eq!(parse_event(line), Some(("db".into(), Event::Died(3))));
        assert_eq!(parse_event("not json"), None);
    }
}
