//! Where the time of an `up` went: each service's way to readiness, and the chain that the whole
//! waited for. Pure.

use std::time::Duration;

use crate::stack::tracker::{Tracked, Tracker};
use crate::ui;

/// A row a service, and the critical path under them. Times count from the moment in which every
/// check and every build was done.
pub(crate) fn render(tracker: &Tracker) -> String {
    let cell = |time: Option<Duration>| time.map_or_else(|| "-".to_owned(), ui::seconds);
    let rows: Vec<Vec<String>> = tracker
        .services
        .iter()
        .map(|tracked| {
            let took = tracked.ready_at.zip(tracked.launched_at).map(|(ready, from)| ready - from);
            vec![
                tracked.service.clone(),
                cell(tracked.made_at),
                cell(tracked.launched_at),
                cell(tracked.ready_at),
                cell(took),
                tracked.depends_on.join(", "),
            ]
        })
        .collect();
    let header = ["SERVICE", "MADE AT", "STARTED AT", "HEALTHY AT", "TOOK", "AFTER"];
    let path = critical_path(tracker);
    let path = if path.is_empty() { "nothing was started".to_owned() } else { path.join(" → ") };
    format!("{}\ncritical path: {path}", ui::table(&header, &rows))
}

/// The chain of services in which each waited for the one before it, ending with the last that got
/// ready, or with one that was started and did not. A service that was up already kept nobody waiting.
fn critical_path(tracker: &Tracker) -> Vec<&str> {
    let started = |tracked: &&Tracked| tracked.launched_at.is_some();
    let named = |name: &String| tracker.services.iter().find(|tracked| &tracked.service == name);
    let started_ones = tracker.services.iter().filter(started);
    let mut next = started_ones
        .max_by_key(|tracked| (tracked.ready_at.is_none(), tracked.ready_at, tracked.launched_at));
    let mut path = Vec::new();
    while let Some(tracked) = next {
        path.push(tracked.service.as_str());
        let before = tracked.depends_on.iter().filter_map(named).filter(started);
        next = before.max_by_key(|tracked| tracked.ready_at);
    }
    path.reverse();
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack::plan::{Action, Plan, Step};
    use crate::stack::running::Health;
    use crate::stack::tracker::Event;
    use crate::stack::wanted::{Service, Wanted};

    const SERVICES: [(&str, &[&str]); 4] =
        [("db", &[]), ("cache", &[]), ("backend", &["db", "cache"]), ("web", &["backend"])];

    /// A tracker after a wait in which each service that was to start got healthy, a second after the
    /// one before in this order.
    fn waited(actions: [Action; 4], order: &[&str]) -> Tracker {
        let service = |(name, depends_on): &(&str, &[&str])| Service {
            name: (*name).into(),
            depends_on: depends_on.iter().map(|&name| name.into()).collect(),
            ..Service::default()
        };
        let services: Vec<Service> = SERVICES.iter().map(service).collect();
        let steps = services.iter().zip(actions).map(|(service, action)| Step {
            service: service.name.clone(),
            action,
            reason: String::new(),
        });
        let plan = Plan { steps: steps.collect(), orphans: Vec::new() };
        let mut tracker = Tracker::new(&Wanted { services, volumes: Vec::new() }, &plan, &[]);
        for (second, name) in (1..).zip(order) {
            let now = Duration::from_secs(second);
            tracker.take_startable(now);
            tracker.apply(name, Event::Launched(Ok(())), now);
            tracker.apply(name, Event::Health(Health::Healthy), now);
        }
        tracker
    }

    #[test]
    fn the_critical_path_is_the_chain_of_the_slowest() {
        let all = [Action::Start; 4];
        let tracker = waited(all, &["cache", "db", "backend", "web"]);
        assert_eq!(critical_path(&tracker), ["db", "backend", "web"]);
        let tracker = waited(all, &["db", "cache", "backend", "web"]);
        assert_eq!(critical_path(&tracker), ["cache", "backend", "web"]);
    }

    #[test]
    fn what_was_up_already_kept_nobody_waiting() {
        let (keep, start) = (Action::Keep, Action::Start);
        let tracker = waited([keep, keep, start, start], &["backend", "web"]);
        assert_eq!(critical_path(&tracker), ["backend", "web"]);
        assert!(critical_path(&waited([keep; 4], &[])).is_empty());
        assert!(render(&waited([keep; 4], &[])).ends_with("nothing was started"));
    }

    #[test]
    fn a_wait_that_failed_ends_with_what_was_started_last() {
        let mut tracker = waited([Action::Start; 4], &["db", "cache"]);
        tracker.take_startable(Duration::from_secs(3));
        assert_eq!(critical_path(&tracker), ["cache", "backend"]);
    }
}
