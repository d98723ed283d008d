//! The hardening checklist: what the files say and what runs, item by item. Pure: evidence goes in,
//! verdicts come out. `commands/audit.rs` collects the evidence; docs/audit.md explains the results.

pub(crate) mod exceptions;
pub(crate) mod files;
pub(crate) mod running;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use self::exceptions::Exceptions;

/// What is judged.
pub(crate) struct Evidence {
    /// Compose's rendering.
    pub(crate) config: Value,
    /// Of a stack that runs: each service's container.
    pub(crate) containers: BTreeMap<String, Container>,
    /// Of a stack that runs: what its servers said, by the question's name.
    pub(crate) answers: BTreeMap<String, String>,
}

impl Evidence {
    /// Whether every service's container was looked at.
    fn is_of_all(&self) -> bool {
        let services = self.config["services"].as_object();
        services
            .is_some_and(|services| services.keys().all(|name| self.containers.contains_key(name)))
    }

    /// Of files that nothing runs from.
    pub(crate) fn of_files(config: Value) -> Evidence {
        Evidence { config, containers: BTreeMap::new(), answers: BTreeMap::new() }
    }
}

/// A container that runs.
pub(crate) struct Container {
    /// `docker inspect`.
    pub(crate) inspect: Value,
    /// `/proc/PID/status` of each of its processes.
    pub(crate) processes: Vec<String>,
}

/// Looks at one service in the rendering; what it returns is wrong.
pub(crate) type OfService = fn(&str, &Value) -> Option<String>;
/// Looks at one container that runs.
pub(crate) type OfContainer = fn(&str, &Container) -> Option<String>;
/// Looks at what a server answered.
pub(crate) type OfAnswer = fn(&str) -> Option<String>;

/// One line of the checklist.
pub(crate) struct Item {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    /// The document and its section.
    pub(crate) source: &'static str,
    pub(crate) files: Option<OfService>,
    pub(crate) running: Option<OfContainer>,
    /// The question's name, and what to make of the answer.
    pub(crate) answer: Option<(&'static str, OfAnswer)>,
}

/// How an item ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    Pass,
    Fail,
    /// It fails, and `deploy/audit.json` says why that is accepted.
    Exception,
    /// It can be seen on a running stack only, and none runs.
    NotChecked,
}

/// An item's verdict.
#[derive(Debug, Serialize)]
pub(crate) struct Verdict {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    pub(crate) source: &'static str,
    pub(crate) outcome: Outcome,
    /// What is wrong, service by service.
    pub(crate) findings: Vec<String>,
    /// Why the findings are accepted.
    pub(crate) reasons: Vec<String>,
}

/// The whole checklist, in order.
pub(crate) fn items() -> impl Iterator<Item = &'static Item> {
    files::ITEMS.iter().chain(running::ITEMS)
}

/// Judges every item; the second part names exceptions that nothing needed.
pub(crate) fn judge(evidence: &Evidence, exceptions: &Exceptions) -> (Vec<Verdict>, Vec<String>) {
    let mut used = vec![false; exceptions.exceptions.len()];
    let verdicts = items().map(|item| verdict(item, evidence, exceptions, &mut used)).collect();
    let idle = exceptions.exceptions.iter().zip(used).filter(|(_, used)| !used);
    let idle = idle.map(|(exception, _)| format!("{} {}", exception.item, exception.service));
    (verdicts, idle.collect())
}

fn verdict(
    item: &'static Item,
    evidence: &Evidence,
    exceptions: &Exceptions,
    used: &mut [bool],
) -> Verdict {
    let found = findings(item, evidence);
    let mut findings = Vec::new();
    let mut reasons: Vec<String> = Vec::new();
    let mut open = false;
    for (service, finding) in found {
        let accepted = exceptions.position(item.id, &service);
        if let Some(index) = accepted {
            used[index] = true;
            let why = &exceptions.exceptions[index].why;
            if !reasons.contains(why) {
                reasons.push(why.clone());
            }
        }
        open |= accepted.is_none();
        findings.push(format!("{service}: {finding}"));
    }
    let was_seen = item.files.is_some()
        // Of some services alone it is no verdict on the stack.
        || item.running.is_some() && evidence.is_of_all()
        || item.answer.is_some_and(|(name, _)| evidence.answers.contains_key(name));
    let outcome = match (findings.is_empty(), open) {
        (true, _) if !was_seen => Outcome::NotChecked,
        (true, _) => Outcome::Pass,
        (false, true) => Outcome::Fail,
        (false, false) => Outcome::Exception,
    };
    let Item { id, title, source, .. } = *item;
    Verdict { id, title, source, outcome, findings, reasons }
}

/// What is wrong, with the service that it is about.
fn findings(item: &Item, evidence: &Evidence) -> Vec<(String, String)> {
    let mut found = Vec::new();
    if let Some(check) = item.files {
        for (name, service) in evidence.config["services"].as_object().into_iter().flatten() {
            found.extend(check(name, service).map(|finding| (name.clone(), finding)));
        }
    }
    if let Some(check) = item.running {
        for (name, container) in &evidence.containers {
            let finding = check(name, container).map(|finding| format!("running: {finding}"));
            found.extend(finding.map(|finding| (name.clone(), finding)));
        }
    }
    if let Some((question, check)) = item.answer
        && let Some(answer) = evidence.answers.get(question)
    {
        let service = question.split(' ').next().unwrap_or_default();
        found.extend(check(answer).map(|finding| (service.to_owned(), finding)));
    }
    found
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_checklist_is_long_enough_and_every_item_has_a_name_of_its_own_and_a_source() {
        let ids: BTreeSet<&str> = items().map(|item| item.id).collect();
        assert_eq!(ids.len(), items().count(), "two items have one id");
        assert!(ids.len() >= 30, "{}", ids.len());
        assert!(items().all(|item| item.source.len() > 8));
        let looks =
            |item: &Item| item.files.is_some() || item.running.is_some() || item.answer.is_some();
        assert!(items().all(looks), "an item looks at nothing");
    }

    #[test]
    fn an_exception_turns_a_failure_into_a_recorded_one_and_an_idle_one_is_told() {
        let config = serde_json::json!({"services": {"a": {"privileged": true}}});
        let evidence = Evidence::of_files(config);
        let exceptions = Exceptions::parse(
            r#"{"exceptions": [
                {"item": "CIS-5.5", "service": "a", "why": "for the sake of a test"},
                {"item": "CIS-5.5", "service": "b", "why": "for the sake of a test"}]}"#,
        )
        .unwrap();
        let (verdicts, idle) = judge(&evidence, &exceptions);
        let privileged = verdicts.iter().find(|verdict| verdict.id == "CIS-5.5").unwrap();
        assert_eq!(privileged.outcome, Outcome::Exception);
        assert_eq!(idle, ["CIS-5.5 b"]);
        let limit = verdicts.iter().find(|verdict| verdict.id == "CIS-5.11").unwrap();
        assert_eq!(limit.outcome, Outcome::Fail);
        let database = verdicts.iter().find(|verdict| verdict.id == "PG-1").unwrap();
        assert_eq!(database.outcome, Outcome::NotChecked);
    }
}
