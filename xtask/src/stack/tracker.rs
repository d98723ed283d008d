//! The state of a wait. Pure: events go in; what may start, and what is hopeless, comes out.

use std::time::Duration;

use crate::stack::plan::{Action, Plan, Step};
use crate::stack::running::{Container, Health};
use crate::stack::wanted::Wanted;

/// A container that ended this often while we wait will not get well by waiting.
const DEATHS_UNTIL_HOPELESS: u32 = 3;
/// A container that stands still this long is brought back by nobody: the restart policy would have, and
/// another command that is about to start it has had its chance.
const STANDSTILL: Duration = Duration::from_secs(10);

/// Where a service stands while we wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Its dependencies are not healthy yet; then this is done.
    Blocked(Action),
    /// `docker start` or `docker restart` runs.
    Launching,
    /// It runs and its health check has not succeeded yet.
    Starting,
    Ready,
    /// Waiting longer is pointless; the reason.
    Failed(String),
}

/// Something that happened to a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A container of it was made, with this id.
    Appeared(String),
    Launched(Result<(), String>),
    Died(i64),
    Health(Health),
    /// The kernel killed a process of the container for want of memory.
    OutOfMemory,
    /// The truth, as read from the engine at this time.
    Seen {
        /// The engine's word for the container's state, or [`MISSING`].
        status: String,
        exit_code: i64,
        health: Health,
        probe: Option<String>,
        at: Duration,
    },
}

/// In place of the engine's word, where there is no container.
pub(crate) const MISSING: &str = "missing";

/// Whether nothing about a container changes without our doing. What is restarting or being removed does, and one
/// that was made is about to be started.
fn stands_still(status: &str) -> bool {
    matches!(status, "exited" | "dead" | "paused" | MISSING)
}

/// One service's way to readiness, in time since the beginning.
#[derive(Clone, Debug)]
pub(crate) struct Tracked {
    pub(crate) service: String,
    pub(crate) depends_on: Vec<String>,
    pub(crate) phase: Phase,
    /// Its container's id, where that is known; empty where there is none.
    pub(crate) container: Option<String>,
    /// Its container is there, and can be started.
    pub(crate) exists: bool,
    /// When its container was made, if that was part of the wait.
    pub(crate) made_at: Option<Duration>,
    /// Since when it has been seen to stand still.
    still_since: Option<Duration>,
    pub(crate) deaths: u32,
    /// What the last health probe said.
    pub(crate) last_probe: Option<String>,
    /// The kernel killed one of its processes for want of memory.
    pub(crate) out_of_memory: bool,
    /// When it was known to run; what was seen earlier says nothing.
    settled_at: Option<Duration>,
    /// It was paused, and its health check found it so; the next probe says how it really is.
    health_is_stale: bool,
    pub(crate) launched_at: Option<Duration>,
    pub(crate) ready_at: Option<Duration>,
}

/// A container that may start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) service: String,
    /// How: start, restart or resume.
    pub(crate) action: Action,
    /// The container's id, where it is known.
    pub(crate) container: Option<String>,
}

/// The state of the wait. Pure: events go in, containers to start come out.
#[derive(Clone, Debug)]
pub(crate) struct Tracker {
    pub(crate) services: Vec<Tracked>,
    /// How Compose's making of containers goes.
    pub(crate) making: Making,
}

/// Containers that Compose makes during a wait, all with one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Making {
    /// None is to be made, or all are.
    Over,
    UnderWay,
    /// It failed, with this reason.
    Failed(String),
}

impl Tracker {
    pub(crate) fn new(wanted: &Wanted, plan: &Plan, containers: &[Container]) -> Tracker {
        let track = |step: &Step| {
            let phase = match step.action {
                // What only reads its files anew serves all the while.
                Action::Keep | Action::Reload => Phase::Ready,
                Action::Wait => Phase::Starting,
                action => Phase::Blocked(action),
            };
            Tracked {
                service: step.service.clone(),
                depends_on: wanted
                    .service(&step.service)
                    .map_or_else(Vec::new, |s| s.depends_on.clone()),
                ready_at: (phase == Phase::Ready).then_some(Duration::ZERO),
                phase,
                // Of one that is made anew the old one's is of no use.
                container: containers
                    .iter()
                    .find(|c| c.service == step.service && !step.action.makes_container())
                    .map(|c| c.id.clone()),
                exists: !step.action.makes_container(),
                made_at: None,
                still_since: None,
                deaths: 0,
                last_probe: None,
                out_of_memory: false,
                // What nobody starts is as it is from the beginning.
                settled_at: matches!(step.action, Action::Keep | Action::Reload | Action::Wait)
                    .then_some(Duration::ZERO),
                health_is_stale: step.action == Action::Resume,
                launched_at: None,
            }
        };
        let makes = plan.steps.iter().any(|step| step.action.makes_container());
        let making = if makes { Making::UnderWay } else { Making::Over };
        Tracker { services: plan.steps.iter().map(track).collect(), making }
    }

    /// A container was made and the engine's word on it has not come: Compose was heard of first.
    pub(crate) fn lacks_an_id(&self) -> bool {
        self.services.iter().any(|tracked| tracked.made_at.is_some() && tracked.container.is_none())
    }

    /// Takes note of the containers that there are.
    pub(crate) fn know(&mut self, containers: &[Container]) {
        for tracked in self.services.iter_mut().filter(|tracked| tracked.container.is_none()) {
            let found = containers.iter().find(|c| c.service == tracked.service);
            // Where Compose gave none, the name that it would have given says in the error what is missing.
            tracked.container = Some(found.map_or_else(String::new, |c| c.id.clone()));
        }
    }

    /// Takes note of how the making of containers ended. A service whose container was made before it failed is
    /// not concerned.
    pub(crate) fn made(&mut self, result: Result<(), String>, now: Duration) {
        for tracked in self.services.iter_mut().filter(|tracked| !tracked.exists) {
            match &result {
                Ok(()) => tracked.made(now),
                Err(_) => tracked.phase = Phase::Failed("its container was not made".to_owned()),
            }
        }
        self.making = result.map_or_else(Making::Failed, |()| Making::Over);
    }

    /// The services that may start now; they count as launching.
    pub(crate) fn take_startable(&mut self, now: Duration) -> Vec<Start> {
        let is_ready = |name: &String, all: &[Tracked]| {
            all.iter().any(|other| &other.service == name && other.phase == Phase::Ready)
        };
        let mut startable = Vec::new();
        for index in 0..self.services.len() {
            let tracked = &self.services[index];
            let Phase::Blocked(action) = tracked.phase else {
                continue;
            };
            let is_free = tracked.depends_on.iter().all(|name| is_ready(name, &self.services));
            if tracked.exists && is_free {
                let container = tracked.container.clone().filter(|id| !id.is_empty());
                let service = tracked.service.clone();
                startable.push(Start { service, action, container });
                self.services[index].phase = Phase::Launching;
                self.services[index].launched_at = Some(now);
            }
        }
        startable
    }

    /// Takes note of what happened.
    pub(crate) fn apply(&mut self, service: &str, event: Event, now: Duration) {
        let Some(tracked) = self.services.iter_mut().find(|t| t.service == service) else {
            return;
        };
        match (event, &tracked.phase) {
            (Event::Appeared(id), phase) => {
                tracked.container = Some(id);
                // In place of an old one it has to be renamed first.
                if *phase == Phase::Blocked(Action::Create) {
                    tracked.made(now);
                }
            }
            (_, Phase::Failed(_) | Phase::Blocked(_)) => {}
            (Event::Launched(Err(reason)), _) => tracked.phase = Phase::Failed(reason),
            (Event::Launched(Ok(())), phase) => {
                if *phase == Phase::Launching {
                    tracked.phase = Phase::Starting;
                }
                tracked.settled_at = Some(now);
            }
            (Event::OutOfMemory, _) => tracked.out_of_memory = true,
            // A restart ends the old process: that is no failure.
            (Event::Died(_), Phase::Launching) => {}
            (Event::Died(code), _) => tracked.died(code),
            (Event::Health(Health::Healthy), _) => tracked.ready(now),
            (Event::Health(Health::Unhealthy), Phase::Starting) => {
                tracked.phase = Phase::Failed("its health check gave up".to_owned());
            }
            (Event::Health(_), _) => {}
            (Event::Seen { status, exit_code, health, probe, at }, Phase::Starting)
                if tracked.settled_at.is_some_and(|settled| at > settled) =>
            {
                tracked.lives(&status, exit_code, now);
                if status == "running" {
                    tracked.last_probe = probe;
                    tracked.seen(health, now);
                }
            }
            (Event::Seen { .. }, _) => {}
        }
    }

    /// Every service is ready, and nothing is left to be made.
    pub(crate) fn is_done(&self) -> bool {
        self.making == Making::Over
            && self.services.iter().all(|tracked| tracked.phase == Phase::Ready)
    }

    /// Some service cannot get ready any more.
    pub(crate) fn is_hopeless(&self) -> bool {
        matches!(self.making, Making::Failed(_))
            || self.services.iter().any(|tracked| matches!(tracked.phase, Phase::Failed(_)))
    }

    /// The services that are not ready, with the dependencies that each still waits for.
    pub(crate) fn not_ready(&self) -> Vec<(&Tracked, Vec<String>)> {
        let is_ready = |name: &&String| {
            !self.services.iter().any(|t| &&t.service == name && t.phase == Phase::Ready)
        };
        let open = self.services.iter().filter(|tracked| tracked.phase != Phase::Ready);
        open.map(|tracked| (tracked, tracked.depends_on.iter().filter(is_ready).cloned().collect()))
            .collect()
    }
}

impl Tracked {
    fn made(&mut self, now: Duration) {
        if !self.exists {
            self.exists = true;
            self.made_at = Some(now);
        }
    }

    fn lives(&mut self, status: &str, exit_code: i64, now: Duration) {
        if !stands_still(status) {
            self.still_since = None;
            return;
        }
        let since = *self.still_since.get_or_insert(now);
        if now.saturating_sub(since) >= STANDSTILL {
            self.phase = Phase::Failed(match status {
                MISSING => "there is no container of it, and nobody makes one".to_owned(),
                "exited" | "dead" => {
                    format!("it is {status} with exit code {exit_code}, and nobody starts it")
                }
                status => format!("it is {status}, and nobody starts it"),
            });
        }
    }

    fn seen(&mut self, health: Health, now: Duration) {
        match health {
            Health::Healthy | Health::None => self.ready(now),
            Health::Unhealthy if !self.health_is_stale => {
                self.phase = Phase::Failed("its health check gave up".to_owned());
            }
            Health::Unhealthy | Health::Starting => {}
        }
    }

    fn died(&mut self, code: i64) {
        self.deaths += 1;
        self.ready_at = None;
        self.phase = if self.deaths >= DEATHS_UNTIL_HOPELESS {
            Phase::Failed(format!(
                "it ended {} times, the last time with exit code {code}",
                self.deaths
            ))
        } else {
            // The restart policy brings it back.
            Phase::Starting
        };
    }

    fn ready(&mut self, now: Duration) {
        self.phase = Phase::Ready;
        self.ready_at.get_or_insert(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack::plan::Step;
    use crate::stack::wanted::Service;

    /// Of three services, each of which needs the one before; the containers are there.
    fn tracker(actions: [Action; 3]) -> Tracker {
        let mut tracker = tracker_without_containers(actions);
        tracker.made(Ok(()), Duration::ZERO);
        tracker
    }

    fn tracker_without_containers(actions: [Action; 3]) -> Tracker {
        let service = |name: &str, depends_on: &[&str]| Service {
            name: name.into(),
            depends_on: depends_on.iter().map(|&name| name.into()).collect(),
            ..Service::default()
        };
        let services =
            vec![service("db", &[]), service("backend", &["db"]), service("web", &["backend"])];
        let steps = services.iter().zip(actions).map(|(service, action)| Step {
            service: service.name.clone(),
            action,
            reason: String::new(),
        });
        let plan = Plan { steps: steps.collect(), orphans: Vec::new() };
        Tracker::new(&Wanted { services, volumes: Vec::new() }, &plan, &[])
    }

    fn names(startable: Vec<Start>) -> Vec<String> {
        startable.into_iter().map(|start| start.service).collect()
    }

    fn seen(status: &str, health: Health, at: Duration) -> Event {
        Event::Seen { status: status.to_owned(), exit_code: 137, health, probe: None, at }
    }

    const NOW: Duration = Duration::from_secs(1);
    const HEALTHY: Event = Event::Health(Health::Healthy);

    #[test]
    fn each_service_starts_when_the_one_before_it_is_healthy() {
        let mut tracker = tracker([Action::Create, Action::Create, Action::Create]);
        for name in ["db", "backend", "web"] {
            assert_eq!(names(tracker.take_startable(NOW)), [name]);
            assert_eq!(names(tracker.take_startable(NOW)), [""; 0]);
            tracker.apply(name, Event::Launched(Ok(())), NOW);
            assert!(!tracker.is_done());
            tracker.apply(name, HEALTHY, NOW);
        }
        assert!(tracker.is_done() && !tracker.is_hopeless());
    }

    #[test]
    fn a_service_whose_container_is_not_made_yet_waits_for_it() {
        let mut tracker = tracker_without_containers([Action::Create, Action::Keep, Action::Keep]);
        assert_eq!(names(tracker.take_startable(NOW)), [""; 0]);
        tracker.apply("db", Event::Appeared("c1".into()), NOW);
        let start =
            Start { service: "db".into(), action: Action::Create, container: Some("c1".into()) };
        assert_eq!(tracker.take_startable(NOW), [start]);
    }

    #[test]
    fn a_container_in_place_of_an_old_one_starts_when_compose_is_done_with_it() {
        let mut tracker =
            tracker_without_containers([Action::Recreate, Action::Keep, Action::Keep]);
        tracker.apply("db", Event::Appeared("c2".into()), NOW);
        assert_eq!(names(tracker.take_startable(NOW)), [""; 0]);
        tracker.made(Ok(()), NOW);
        assert_eq!(names(tracker.take_startable(NOW)), ["db"]);
    }

    #[test]
    fn a_container_that_cannot_be_made_is_hopeless_at_once() {
        let mut tracker = tracker_without_containers([Action::Keep, Action::Create, Action::Keep]);
        tracker.made(Err("no space".into()), NOW);
        assert!(tracker.is_hopeless());
        // Those that are there are not to blame.
        let open: Vec<_> = tracker.not_ready().iter().map(|(t, _)| t.service.clone()).collect();
        assert_eq!(open, ["backend"]);
    }

    #[test]
    fn what_compose_could_not_do_is_told_although_all_got_healthy() {
        let mut tracker = tracker_without_containers([Action::Create, Action::Keep, Action::Keep]);
        tracker.apply("db", Event::Appeared("c1".into()), NOW);
        tracker.take_startable(NOW);
        tracker.apply("db", Event::Launched(Ok(())), NOW);
        tracker.apply("db", HEALTHY, NOW);
        assert!(!tracker.is_done() && !tracker.is_hopeless());
        tracker.made(Err("the network is gone".into()), NOW);
        assert!(!tracker.is_done() && tracker.is_hopeless());
        assert!(tracker.not_ready().is_empty());
    }

    #[test]
    fn health_that_outruns_the_end_of_docker_start_counts() {
        let mut tracker = tracker([Action::Start, Action::Keep, Action::Keep]);
        tracker.take_startable(NOW);
        tracker.apply("db", HEALTHY, NOW);
        tracker.apply("db", Event::Launched(Ok(())), NOW);
        assert!(tracker.is_done());
    }

    #[test]
    fn a_service_that_keeps_ending_is_hopeless_and_names_its_exit_code() {
        let mut tracker = tracker([Action::Create, Action::Create, Action::Create]);
        tracker.take_startable(NOW);
        tracker.apply("db", Event::Launched(Ok(())), NOW);
        for _ in 0..2 {
            tracker.apply("db", Event::Died(1), NOW);
            assert!(!tracker.is_hopeless());
        }
        tracker.apply("db", Event::Died(7), NOW);
        assert!(tracker.is_hopeless());
        let open = tracker.not_ready();
        assert_eq!(open.len(), 3);
        assert!(
            matches!(&open[0].0.phase, Phase::Failed(reason) if reason.contains("exit code 7"))
        );
        assert_eq!(open[1].1, ["db"]);
    }

    #[test]
    fn the_death_of_the_old_process_in_a_restart_is_no_failure() {
        let mut tracker = tracker([Action::Restart, Action::Keep, Action::Keep]);
        tracker.take_startable(NOW);
        for _ in 0..5 {
            tracker.apply("db", Event::Died(137), NOW);
        }
        assert!(!tracker.is_hopeless());
    }

    #[test]
    fn a_container_that_cannot_start_is_hopeless_at_once() {
        let mut tracker = tracker([Action::Create, Action::Create, Action::Create]);
        tracker.take_startable(NOW);
        tracker.apply("db", Event::Launched(Err("no such image".into())), NOW);
        assert!(tracker.is_hopeless());
    }

    #[test]
    fn a_missed_event_is_made_up_for_by_what_is_seen() {
        let mut tracker = tracker([Action::Wait, Action::Keep, Action::Keep]);
        tracker.apply("db", seen("running", Health::Starting, NOW), NOW);
        assert!(!tracker.is_done());
        tracker.apply("db", seen("running", Health::Healthy, NOW), NOW);
        assert!(tracker.is_done());
    }

    #[test]
    fn a_container_that_stands_still_is_waited_for_a_moment_and_no_longer() {
        let mut tracker = tracker([Action::Wait, Action::Keep, Action::Keep]);
        let mut look = |status, at| {
            tracker.apply("db", seen(status, Health::None, at), at);
            tracker.is_hopeless()
        };
        assert!(!look("exited", NOW));
        // The restart policy is at work, or another command.
        assert!(!look("restarting", NOW + STANDSTILL));
        assert!(!look("exited", NOW + STANDSTILL * 2));
        assert!(!look("paused", NOW + STANDSTILL * 3 - NOW));
        assert!(look("exited", NOW + STANDSTILL * 3));
        let Phase::Failed(reason) = &tracker.services[0].phase else { panic!() };
        assert_eq!(reason, "it is exited with exit code 137, and nobody starts it");
    }

    #[test]
    fn a_container_that_is_gone_is_not_waited_for_until_the_time_out() {
        let mut tracker = tracker([Action::Wait, Action::Keep, Action::Keep]);
        tracker.apply("db", seen(MISSING, Health::None, NOW), NOW);
        assert!(!tracker.is_hopeless());
        let later = NOW + STANDSTILL;
        tracker.apply("db", seen(MISSING, Health::None, later), later);
        assert!(tracker.is_hopeless());
    }

    #[test]
    fn what_was_seen_before_a_restart_says_nothing_after_it() {
        let mut tracker = tracker([Action::Restart, Action::Keep, Action::Keep]);
        tracker.take_startable(NOW);
        tracker.apply("db", Event::Launched(Ok(())), NOW * 3);
        for health in [Health::Healthy, Health::Unhealthy] {
            tracker.apply("db", seen("running", health, NOW * 2), NOW * 4);
            assert!(!tracker.is_done() && !tracker.is_hopeless());
        }
        tracker.apply("db", seen("running", Health::Healthy, NOW * 4), NOW * 5);
        assert!(tracker.is_done());
    }

    #[test]
    fn the_health_of_a_paused_container_is_stale_until_its_next_probe() {
        let mut tracker = tracker([Action::Resume, Action::Keep, Action::Keep]);
        tracker.take_startable(NOW);
        tracker.apply("db", Event::Launched(Ok(())), NOW);
        tracker.apply("db", seen("running", Health::Unhealthy, NOW * 2), NOW * 2);
        assert!(!tracker.is_hopeless());
        tracker.apply("db", HEALTHY, NOW * 3);
        assert!(tracker.is_done());
    }
}
