//! The plan: what is wanted minus what is there. Pure: `up` carries it out, its dry run prints
//! it, and `status` shows the same findings.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::stack::running::{Container, Health};
use crate::stack::wanted::{Service, Wanted};

/// What is to be done about one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// It runs, is healthy, and is what is wanted.
    Keep,
    /// It runs and only has to get healthy.
    Wait,
    /// It is what is wanted, and stopped.
    Start,
    /// It is what is wanted, and paused.
    Resume,
    /// It is what is wanted, and has to start anew: it is unhealthy, or read its files too long ago.
    Restart,
    /// It is what is wanted, and can read anew what changed, without a pause.
    Reload,
    /// It is not there.
    Create,
    /// It was made from another configuration or image.
    Recreate,
}

impl Action {
    /// Whether Compose has to make a container.
    pub(crate) fn makes_container(self) -> bool {
        matches!(self, Action::Create | Action::Recreate)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Action::Keep => "keep",
            Action::Wait => "wait for",
            Action::Start => "start",
            Action::Resume => "resume",
            Action::Restart => "restart",
            Action::Reload => "reload",
            Action::Create => "create",
            Action::Recreate => "recreate",
        })
    }
}

/// One line of the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) service: String,
    pub(crate) action: Action,
    /// Why, in a few words.
    pub(crate) reason: String,
}

/// What `up` will do, in the order in which it starts services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    /// Containers of this project whose service is no longer described.
    pub(crate) orphans: Vec<String>,
}

impl Plan {
    /// Whether there is nothing to do.
    pub(crate) fn is_empty(&self) -> bool {
        self.steps.iter().all(|step| step.action == Action::Keep)
    }

    /// The steps that are due, where all of them can be carried out without a pause, those of bystanders last;
    /// what services read anew is none.
    ///
    /// # Errors
    /// The steps that take a pause.
    pub(crate) fn without_a_pause(&self, wanted: &Wanted) -> Result<Vec<&Step>, Vec<&Step>> {
        let service = |step: &Step| wanted.service(&step.service);
        let is_switched = |step: &&Step| {
            step.action == Action::Recreate
                && service(step).is_some_and(|s| s.switch_over.is_some())
        };
        let is_unnoticed =
            |step: &&Step| service(step).is_some_and(|service| wanted.is_bystander(service));
        let due = self.steps.iter().filter(|s| !matches!(s.action, Action::Keep | Action::Reload));
        let (switched, others): (Vec<&Step>, Vec<&Step>) = due.partition(is_switched);
        let (unnoticed, cannot): (Vec<&Step>, Vec<&Step>) =
            others.into_iter().partition(is_unnoticed);
        if cannot.is_empty() { Ok([switched, unnoticed].concat()) } else { Err(cannot) }
    }

    /// The plan for one service, with all others left as they are.
    pub(crate) fn of_one(&self, service: &str) -> Plan {
        let mut plan = self.clone();
        for step in plan.steps.iter_mut().filter(|step| step.service != service) {
            step.action = Action::Keep;
        }
        plan
    }

    /// The services for which `test` holds.
    pub(crate) fn services(&self, test: impl Fn(Action) -> bool) -> Vec<String> {
        let steps = self.steps.iter().filter(|step| test(step.action));
        steps.map(|step| step.service.clone()).collect()
    }
}

/// What the outside says of a service, beside its container.
pub(crate) struct Surroundings<'a> {
    /// Id of the image that each service's reference means now; none where it is not here.
    pub(crate) image_ids: &'a BTreeMap<String, String>,
    /// When a file was last changed.
    pub(crate) changed_at: &'a dyn Fn(&Path) -> Option<SystemTime>,
    /// The networks that there are; none where nothing stands still, and they need not be known.
    pub(crate) networks: Option<&'a BTreeSet<String>>,
    /// When a container was last told to read its files anew.
    pub(crate) reloaded_at: &'a dyn Fn(&Container) -> Option<SystemTime>,
}

/// Compares what is wanted with what is there.
pub(crate) fn plan(wanted: &Wanted, containers: &[Container], around: &Surroundings) -> Plan {
    let step = |service: &Service| {
        let container = containers.iter().find(|container| container.service == service.name);
        let (action, reason) = judge(service, container, around);
        Step { service: service.name.clone(), action, reason }
    };
    let is_orphan = |container: &&Container| wanted.service(&container.service).is_none();
    let orphans = containers.iter().filter(is_orphan).map(|container| container.name.clone());
    let mut steps: Vec<Step> = wanted.services.iter().map(step).collect();
    take_along(wanted, &mut steps);
    Plan { steps, orphans: orphans.collect() }
}

/// Compose makes a container anew, whatever it is asked for, where one that it depends on is made anew and
/// another that depends on it is made: the dry run has to say so, and `up` to start it.
fn take_along(wanted: &Wanted, steps: &mut [Step]) {
    let action = |steps: &[Step], name: &str| {
        steps.iter().find(|step| step.service == name).map(|step| step.action)
    };
    // What comes first in the list depends on nothing that comes later.
    for (place, service) in wanted.services.iter().enumerate() {
        let above = wanted.services.iter().filter(|other| wanted.needs(&other.name, &service.name));
        let is_needed =
            above.filter_map(|other| action(steps, &other.name)).any(Action::makes_container);
        let anew =
            service.depends_on.iter().find(|name| action(steps, name) == Some(Action::Recreate));
        if let Some(anew) = anew.filter(|_| is_needed && !steps[place].action.makes_container()) {
            let reason = format!("Compose makes it anew together with {anew}");
            steps[place].action = Action::Recreate;
            steps[place].reason = reason;
        }
    }
}

fn judge(
    service: &Service,
    container: Option<&Container>,
    around: &Surroundings,
) -> (Action, String) {
    let Some(container) = container else {
        return (Action::Create, "there is no container".to_owned());
    };
    if container.hash != service.hash {
        return (Action::Recreate, "its configuration changed".to_owned());
    }
    match around.image_ids.get(&service.name) {
        Some(id) if *id != container.image_id => {
            return (Action::Recreate, format!("the image {} is a new one", service.image));
        }
        _ => {}
    }
    match container.status.as_str() {
        "running" => judge_running(service, container, around),
        "created" | "exited" if lacks_network(container, around) => {
            (Action::Recreate, NETWORK_IS_GONE.to_owned())
        }
        "created" => (Action::Start, "it was created and never started".to_owned()),
        "exited" => (Action::Start, format!("it stopped with exit code {}", container.exit_code)),
        "restarting" => {
            (Action::Restart, format!("it keeps ending with exit code {}", container.exit_code))
        }
        "paused" => (Action::Resume, "it is paused".to_owned()),
        // Dead or being removed: a new container is the one sure way out, and the data lies in
        // volumes.
        status => (Action::Recreate, format!("it is {status}")),
    }
}

/// Why a container is made anew that is otherwise what is wanted: Compose does not see it, and would keep it.
pub(crate) const NETWORK_IS_GONE: &str = "a network of it was removed";

fn lacks_network(container: &Container, around: &Surroundings) -> bool {
    let is_gone =
        |known: &BTreeSet<String>| container.networks.iter().any(|id| !known.contains(id));
    around.networks.is_some_and(is_gone)
}

fn judge_running(
    service: &Service,
    container: &Container,
    around: &Surroundings,
) -> (Action, String) {
    let changed_since = |read: Option<SystemTime>, paths: &[PathBuf]| {
        let is_newer = |path: &&PathBuf| matches!(((around.changed_at)(path), read), (Some(changed), Some(read)) if changed > read);
        paths.iter().find(is_newer).map(|path| path.display().to_string())
    };
    if let Some(path) = changed_since(container.started_at, &service.restart_on_change) {
        return (Action::Restart, format!("{path} changed since it started"));
    }
    let read = container.started_at.max((around.reloaded_at)(container));
    let reload = service.reload.as_ref().and_then(|reload| changed_since(read, &reload.files));
    match (container.health, reload) {
        // Its configuration may be what ails it, and a start reads all of it.
        (Health::Starting, Some(path)) => {
            (Action::Restart, format!("{path} changed since it started"))
        }
        (Health::Healthy | Health::None, Some(path)) => {
            (Action::Reload, format!("{path} changed since it read it"))
        }
        (Health::Healthy | Health::None, None) => (Action::Keep, "running and current".to_owned()),
        (Health::Starting, None) => (Action::Wait, "it is starting".to_owned()),
        (Health::Unhealthy, _) => (Action::Restart, "it is unhealthy".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stack::running::tests::{at, sample as container};
    use crate::stack::wanted::Reload;

    fn service() -> Service {
        Service {
            name: "backend".into(),
            image: "backend:1".into(),
            hash: "h1".into(),
            restart_on_change: vec![PathBuf::from("a.conf")],
            reload: Some(Reload { files: vec![PathBuf::from("b.conf")], command: Vec::new() }),
            ..Service::default()
        }
    }

    /// The action for a service and a container that differ from the current ones as `change` says.
    fn action(change: impl Fn(&mut Service, &mut Container)) -> Action {
        let (mut service, mut container) = (service(), container());
        change(&mut service, &mut container);
        let wanted = Wanted { services: vec![service], ..Wanted::default() };
        let around = Surroundings {
            image_ids: &BTreeMap::from([("backend".into(), "i1".into())]),
            changed_at: &|path| Some(at(if path == Path::new("a.conf") { 500 } else { 700 })),
            networks: Some(&BTreeSet::from(["n1".into()])),
            reloaded_at: &|container| (container.id == "reloaded").then(|| at(800)),
        };
        plan(&wanted, &[container], &around).steps[0].action
    }

    #[test]
    fn what_stands_between_two_that_are_made_is_made_anew_with_the_one_below() {
        let chain = [("db", ""), ("backend", "db"), ("web", "backend")];
        let services = chain.map(|(name, below)| Service {
            name: name.into(),
            hash: "h1".into(),
            depends_on: if below.is_empty() { Vec::new() } else { vec![below.into()] },
            ..Service::default()
        });
        let wanted = Wanted { services: services.into(), ..Wanted::default() };
        let actions = |db: &str, web: Option<&str>| {
            let of = |name: &str, hash: &str| Container {
                service: name.into(),
                hash: hash.into(),
                ..container()
            };
            let mut containers = vec![of("db", db), of("backend", "h1")];
            containers.extend(web.map(|hash| of("web", hash)));
            let around = Surroundings {
                image_ids: &BTreeMap::new(),
                changed_at: &|_| None,
                networks: None,
                reloaded_at: &|_| None,
            };
            let plan = plan(&wanted, &containers, &around);
            plan.steps.iter().map(|step| step.action).collect::<Vec<_>>()
        };
        use Action::{Create, Keep, Recreate};
        assert_eq!(actions("old", Some("old")), [Recreate; 3]);
        assert_eq!(actions("old", None), [Recreate, Recreate, Create]);
        assert_eq!(actions("old", Some("h1")), [Recreate, Keep, Keep]);
        assert_eq!(actions("h1", Some("old")), [Keep, Keep, Recreate]);
    }

    #[test]
    fn each_difference_has_its_action() {
        assert_eq!(action(|_, _| {}), Action::Keep);
        assert_eq!(action(|_, c| c.health = Health::None), Action::Keep);
        assert_eq!(action(|_, c| c.health = Health::Starting), Action::Wait);
        assert_eq!(action(|_, c| c.health = Health::Unhealthy), Action::Restart);
        assert_eq!(action(|_, c| c.status = "exited".into()), Action::Start);
        assert_eq!(action(|_, c| c.status = "created".into()), Action::Start);
        assert_eq!(action(|_, c| c.status = "restarting".into()), Action::Restart);
        assert_eq!(action(|_, c| c.status = "paused".into()), Action::Resume);
        assert_eq!(action(|_, c| c.status = "dead".into()), Action::Recreate);
        let without_network = |_: &mut Service, c: &mut Container| {
            c.status = "exited".into();
            c.networks = vec!["n1".into(), "n2".into()];
        };
        assert_eq!(action(without_network), Action::Recreate);
        assert_eq!(action(|s, _| s.hash = "h2".into()), Action::Recreate);
        assert_eq!(action(|_, c| c.image_id = "i0".into()), Action::Recreate);
        assert_eq!(action(|_, c| c.started_at = Some(at(100))), Action::Restart);
        assert_eq!(action(|_, c| c.service = "other".into()), Action::Create);
    }

    #[test]
    fn what_can_be_read_anew_needs_no_restart() {
        // After the change of a.conf, and before that of b.conf.
        let between = |c: &mut Container| c.started_at = Some(at(600));
        assert_eq!(action(|_, c| between(c)), Action::Reload);
        let reloaded = |_: &mut Service, c: &mut Container| {
            between(c);
            c.id = "reloaded".into();
        };
        assert_eq!(action(reloaded), Action::Keep);
        for health in [Health::Starting, Health::Unhealthy] {
            let ailing = |_: &mut Service, c: &mut Container| {
                between(c);
                c.health = health;
            };
            assert_eq!(action(ailing), Action::Restart);
        }
    }

    #[test]
    fn a_container_without_a_service_is_an_orphan() {
        let around = Surroundings {
            image_ids: &BTreeMap::new(),
            changed_at: &|_| None,
            networks: None,
            reloaded_at: &|_| None,
        };
        let plan = plan(&Wanted::default(), &[container()], &around);
        assert_eq!(plan.orphans, ["p-backend-1"]);
        assert!(plan.is_empty());
    }
}
