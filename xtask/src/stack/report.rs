//! The report on services that did not get ready: for each, the state, the last health probe,
//! the last lines of its log, what it waits for, and a hint where the cause can be recognised.

use std::fmt::Write;

use crate::ctx::{Ctx, Invocation};
use crate::stack::project::Project;

use crate::stack::running::{self, Container};
use crate::stack::tracker::{Phase, Tracked, Tracker};

const LOG_LINES: &str = "15";

/// What is known of a service that is not ready.
#[derive(Clone, Debug, Default)]
struct Evidence {
    service: String,
    /// State and exit code, in words.
    state: String,
    waits_for: Vec<String>,
    probe: Option<String>,
    log: Vec<String>,
    out_of_memory: bool,
}

/// Gathers the evidence and writes the report. What cannot be read is left out: the report must
/// never fail where the stack did.
pub(crate) fn not_ready(ctx: &Ctx, project: &Project, tracker: &Tracker) -> String {
    let containers = running::containers(ctx, project).unwrap_or_default();
    let gather = |(tracked, waits_for): (&Tracked, Vec<String>)| {
        let container = containers.iter().find(|c| c.service == tracked.service);
        Evidence {
            service: tracked.service.clone(),
            state: state(tracked, container),
            probe: container.and_then(|c| c.last_probe.clone()),
            log: container
                .filter(|c| c.status != "created")
                .map_or_else(Vec::new, |c| last_lines(ctx, c)),
            out_of_memory: tracked.out_of_memory || container.is_some_and(|c| c.out_of_memory),
            waits_for,
        }
    };
    let evidence: Vec<Evidence> = tracker.not_ready().into_iter().map(gather).collect();
    render(&evidence)
}

fn state(tracked: &Tracked, container: Option<&Container>) -> String {
    let mut words = match (&tracked.phase, container) {
        (Phase::Failed(reason), _) => reason.clone(),
        (Phase::Blocked(_), _) => "not started yet".to_owned(),
        (_, None) => "there is no container".to_owned(),
        (_, Some(container)) if !container.is_running() => {
            format!("{} with exit code {}", container.status, container.exit_code)
        }
        (_, Some(_)) => "running, and not healthy yet".to_owned(),
    };
    if tracked.out_of_memory || container.is_some_and(|container| container.out_of_memory) {
        words.push_str("; the kernel killed a process of it for want of memory");
    }
    if let Some(container) = container
        && !container.error.is_empty()
        && !words.contains(&container.error)
    {
        let _ = write!(words, "; the engine says: {}", container.error);
    }
    words
}

fn last_lines(ctx: &Ctx, container: &Container) -> Vec<String> {
    let command = Invocation::new("docker").args(["logs", "--tail", LOG_LINES, &container.id]);
    let Ok(output) = ctx.try_read(command) else {
        return Vec::new();
    };
    // The two streams are the container's own; most programs use one of them only.
    output.stdout.lines().chain(output.stderr.lines()).map(str::to_owned).collect()
}

/// The report as text; services that failed by themselves come before those that wait for them.
fn render(evidence: &[Evidence]) -> String {
    let (causes, waiting): (Vec<_>, Vec<_>) =
        evidence.iter().partition(|service| service.waits_for.is_empty());
    let mut text = String::new();
    for service in causes {
        let _ = writeln!(text, "  {}: {}", service.service, service.state);
        if let Some(hint) = hint(service) {
            let _ = writeln!(text, "    hint: {hint}");
        }
        if let Some(probe) = &service.probe {
            let _ = writeln!(text, "    last health probe: {}", indented(probe));
        }
        if !service.log.is_empty() {
            let _ = writeln!(text, "    last lines of its log:");
            for line in &service.log {
                let _ = writeln!(text, "      {line}");
            }
        }
    }
    for service in waiting {
        let names = service.waits_for.join(" and ");
        let _ = writeln!(text, "  {}: {}; it waits for {names}", service.service, service.state);
    }
    text.trim_end().to_owned()
}

fn indented(text: &str) -> String {
    text.lines().collect::<Vec<_>>().join("\n      ")
}

/// What to do, for causes that can be recognised from what was printed.
fn hint(evidence: &Evidence) -> Option<&'static str> {
    if evidence.out_of_memory {
        return Some("raise the service's memory limit, or find what uses the memory");
    }
    let probe = evidence.probe.as_deref().unwrap_or_default();
    let said = format!("{}\n{probe}\n{}", evidence.state, evidence.log.join("\n")).to_lowercase();
    let known: [(&[&str], &str); 9] = [
        (
            &["password authentication failed", "refused the password", "28p01"],
            "the volume `pgdata` was made with another password. Put the old one back into the \
             environment file; or have the database take the new one: \
             cargo xtask psql -- -U postgres -f /docker-entrypoint-initdb.d/10-roles.sql",
        ),
        (
            &["exec format error"],
            "the image is for another processor architecture; build or pull it for this host",
        ),
        (
            &["address already in use", "port is already allocated"],
            "another program holds the port; `cargo xtask doctor` names it",
        ),
        (&["no space left on device"], "the disk is full; `docker system df` shows what takes it"),
        (
            &["flavour"],
            "the data was made by another kind of image; docs/images.md says how to move it",
        ),
        (
            &["database files are incompatible", "can't handle rdb format"],
            "the data was written by another major version; take it back to the image that wrote \
             it, back it up there, and restore it here",
        ),
        (
            &["no such image", "pull access denied", "manifest unknown"],
            "the image is not here; `cargo xtask build` makes or pulls it",
        ),
        (
            &["migration"],
            "a migration did not apply; the log names its file. `cargo xtask migrate status` \
             shows what is applied",
        ),
        (
            &["is not set", "is missing", "must be set"],
            "a variable is missing; compare the environment file with .env.example",
        ),
    ];
    let is_said = |patterns: &&[&str]| patterns.iter().any(|pattern| said.contains(pattern));
    known.iter().find(|(patterns, _)| is_said(patterns)).map(|(_, hint)| *hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evidence(log: &str) -> Evidence {
        Evidence {
            service: "backend".into(),
            state: "it ended 3 times, the last time with exit code 1".into(),
            probe: Some("exit code 1: connection refused".into()),
            log: vec![log.into()],
            ..Evidence::default()
        }
    }

    #[test]
    fn the_report_names_the_cause_first_and_then_who_waits() {
        let waiting = Evidence {
            service: "nginx".into(),
            state: "not started yet".into(),
            waits_for: vec!["backend".into()],
            ..Evidence::default()
        };
        let text = render(&[waiting, evidence("password authentication failed for user \"app\"")]);
        assert_eq!(
            text,
            "  backend: it ended 3 times, the last time with exit code 1\n    \
             hint: the volume `pgdata` was made with another password. Put the old one back \
             into the environment file; or have the database take the new one: cargo xtask psql \
             -- -U postgres -f /docker-entrypoint-initdb.d/10-roles.sql\n    \
             last health probe: exit code 1: connection refused\n    \
             last lines of its log:\n      \
             password authentication failed for user \"app\"\n  \
             nginx: not started yet; it waits for backend"
        );
    }

    #[test]
    fn what_is_not_recognised_has_no_hint() {
        assert_eq!(hint(&evidence("all is well")), None);
    }

    #[test]
    fn running_out_of_memory_is_recognised_without_a_log() {
        let evidence = Evidence { out_of_memory: true, ..Evidence::default() };
        assert!(hint(&evidence).is_some_and(|hint| hint.contains("memory limit")));
    }
}
