//! The report on services that did not get ready: for each, the state, the last health probe,
//! the last lines of its log, what it waits for, and a hint where the cause can be recognised.

use std::fmt::Write;

use crate::ctx::{Ctx, Invocation};
use crate::stack::project::Project;

use crate::stack::running::{self, Container};
use crate::stack::tracker::{Making, Phase, Tracked, Tracker};

const LOG_LINES: &str = "15";

/// What is known of a service that is not ready.
#[derive(Clone, Debug, Default)]
struct Evidence {
    service: String,
    /// It failed, and does not only wait for others.
    has_failed: bool,
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
            has_failed: matches!(tracked.phase, Phase::Failed(_)),
            state: state(tracked, container),
            probe: container.and_then(|c| c.last_probe.clone()),
            log: container
                // Where none was made this is the one before, which has nothing to do with it.
                .filter(|c| c.status != "created" && tracked.exists)
                .map_or_else(Vec::new, |c| last_lines(ctx, c)),
            out_of_memory: tracked.out_of_memory || container.is_some_and(|c| c.out_of_memory),
            waits_for,
        }
    };
    let services = tracker.not_ready().into_iter().map(gather);
    render(&not_made(tracker).into_iter().chain(services).collect::<Vec<_>>())
}

/// Compose makes all containers with one command, and says once why it could not.
fn not_made(tracker: &Tracker) -> Option<Evidence> {
    let Making::Failed(reason) = &tracker.making else { return None };
    let state = reason.lines().map(legible).collect::<Vec<_>>().join("\n    ");
    Some(Evidence {
        service: "containers".to_owned(),
        has_failed: true,
        state,
        ..Evidence::default()
    })
}

/// The same of one container that is waited for by itself.
pub(crate) fn of_one(ctx: &Ctx, container: &Container, state: &str) -> String {
    let evidence = Evidence {
        service: container.service.clone(),
        has_failed: true,
        state: state.to_owned(),
        waits_for: Vec::new(),
        probe: container.last_probe.clone(),
        log: last_lines(ctx, container),
        out_of_memory: container.out_of_memory,
    };
    render(&[evidence])
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
    output.stdout.lines().chain(output.stderr.lines()).map(legible).collect()
}

/// A line that a program wrote for its own eyes: without what moves a cursor, and no longer than can be read.
fn legible(line: &str) -> String {
    const LONGEST: usize = 400;
    let plain = console::strip_ansi_codes(line);
    let plain: String = plain.chars().filter(|c| !c.is_control() || *c == '\t').collect();
    if plain.chars().count() <= LONGEST {
        return plain;
    }
    plain.chars().take(LONGEST).collect::<String>() + " …"
}

/// The report as text; services that failed by themselves come before those that wait for them.
fn render(evidence: &[Evidence]) -> String {
    let (causes, waiting): (Vec<_>, Vec<_>) =
        evidence.iter().partition(|service| service.has_failed || service.waits_for.is_empty());
    let waits = |service: &Evidence| match service.waits_for.join(" and ") {
        names if names.is_empty() => names,
        names => format!("; it waits for {names}"),
    };
    let mut text = String::new();
    for service in causes {
        let _ = writeln!(text, "  {}: {}{}", service.service, service.state, waits(service));
        if let Some(hint) = hint(service) {
            let _ = writeln!(text, "    hint: {hint}");
        }
        if let Some(probe) = &service.probe {
            let probe: Vec<String> = probe.lines().map(legible).collect();
            let _ = writeln!(text, "    last health probe: {}", probe.join("\n      "));
        }
        if !service.log.is_empty() {
            let _ = writeln!(text, "    last lines of its log:");
            for line in &service.log {
                let _ = writeln!(text, "      {line}");
            }
        }
    }
    for service in waiting {
        let _ = writeln!(text, "  {}: {}{}", service.service, service.state, waits(service));
    }
    text.trim_end().to_owned()
}

/// A cause that can be recognised from what was printed.
struct Known {
    /// Only there; empty: of any service, because the engine says it.
    services: &'static [&'static str],
    /// In lower case. One of them is enough.
    said: &'static [&'static str],
    hint: &'static str,
}

const KNOWN: [Known; 9] = [
    Known {
        services: &["backend"],
        said: &["password authentication failed", "refused the password", "28p01"],
        hint: "the volume `pgdata` was made with another password. Put the old one back into the \
               environment file; or have the database take the new one: \
               cargo xtask psql -- -U postgres -f - <deploy/postgres/roles.sql",
    },
    Known {
        services: &[],
        said: &["exec format error"],
        hint: "the image is for another processor architecture; build or pull it for this host",
    },
    Known {
        services: &[],
        said: &["address already in use", "port is already allocated"],
        hint: "another program holds the port; `cargo xtask doctor` names it",
    },
    Known {
        services: &[],
        said: &["no space left on device"],
        hint: "the disk is full; `docker system df` shows what takes it",
    },
    Known {
        services: &["postgres", "redis"],
        said: &["flavour-guard:"],
        hint: "the data was made by another kind of image; docs/images.md says how to move it",
    },
    Known {
        services: &["postgres", "redis"],
        said: &["database files are incompatible", "can't handle rdb format"],
        hint: "the data was written by another major version; take it back to the image that wrote \
               it, back it up there, and restore it here",
    },
    Known {
        services: &[],
        said: &["no such image", "pull access denied", "manifest unknown"],
        hint: "the image is not here; `cargo xtask build` makes or pulls it",
    },
    Known {
        services: &["backend"],
        said: &["migrations/", "the migrations and the database disagree"],
        hint: "a migration did not apply; the log names its file. `cargo xtask migrate status` \
               shows what is applied",
    },
    Known {
        services: &[],
        said: &[" is not set", " is not usable:"],
        hint: "a variable is missing or not usable; compare the environment file with .env.example",
    },
];

/// What to do, where the cause is known.
fn hint(evidence: &Evidence) -> Option<&'static str> {
    if evidence.out_of_memory {
        return Some("raise the service's memory limit, or find what uses the memory");
    }
    if is_migrating(evidence) {
        return Some(
            "it is applying a migration, which goes on; `cargo xtask up` waits for that and ends nothing",
        );
    }
    let probe = evidence.probe.as_deref().unwrap_or_default();
    let said = format!("{}\n{probe}\n{}", evidence.state, evidence.log.join("\n")).to_lowercase();
    let fits = |known: &&Known| {
        let here = known.services.is_empty() || known.services.contains(&&*evidence.service);
        here && known.said.iter().any(|words| said.contains(words))
    };
    KNOWN.iter().find(fits).map(|known| known.hint)
}

/// Whether the last word on migrations in the backend's log is the beginning of one. Until its end the backend does
/// not listen, and its health check gives up on it.
fn is_migrating(evidence: &Evidence) -> bool {
    let is_word = |line: &&String| line.contains("applying ") || line.contains("applied ");
    let last = evidence.log.iter().rev().find(is_word);
    let ended = evidence.state.contains("exit code");
    evidence.service == "backend" && !ended && last.is_some_and(|line| line.contains("applying "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evidence(log: &str) -> Evidence {
        Evidence {
            service: "backend".into(),
            has_failed: true,
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
             -- -U postgres -f - <deploy/postgres/roles.sql\n    \
             last health probe: exit code 1: connection refused\n    \
             last lines of its log:\n      \
             password authentication failed for user \"app\"\n  \
             nginx: not started yet; it waits for backend"
        );
    }

    #[test]
    fn who_failed_by_itself_is_explained_although_it_waits_for_others_too() {
        let failed = Evidence { waits_for: vec!["postgres".into()], ..evidence("a panic") };
        let text = render(&[failed]);
        assert!(text.contains("exit code 1; it waits for postgres\n"), "{text}");
        assert!(text.contains("a panic"), "{text}");
    }

    #[test]
    fn a_log_moves_no_cursor_and_fills_no_screen() {
        assert_eq!(legible("\x1b[31mred\x1b[0m\rover\tit"), "redover\tit");
        assert_eq!(legible(&"é".repeat(5000)).chars().count(), 402);
    }

    /// A line as the service or the engine prints it, and what the hint says then.
    const SEEN: [(&str, &str, &str); 13] = [
        ("backend", "FATAL: password authentication failed for user \"app\"", "another password"),
        ("backend", "exec /backend: exec format error", "another processor architecture"),
        ("nginx", "bind() to 0.0.0.0:80 failed (98: Address already in use)", "holds the port"),
        (
            "postgres",
            "Bind for 127.0.0.1:15432 failed: port is already allocated",
            "holds the port",
        ),
        ("postgres", "could not write to file: No space left on device", "the disk is full"),
        ("postgres", "flavour-guard: the data was made with musl", "another kind of image"),
        (
            "postgres",
            "FATAL:  database files are incompatible with server",
            "another major version",
        ),
        ("redis", "# Can't handle RDB format version 12", "another major version"),
        ("redis", "Error response from daemon: No such image: redis:7", "the image is not here"),
        ("backend", "migrations/0005_tags.sql failed: syntax error", "a migration did not apply"),
        (
            "backend",
            "the migrations and the database disagree:\n  0002 was edited",
            "a migration did not apply",
        ),
        (
            "backend",
            "PG_HOST is not set: .env.example says what it is for",
            "a variable is missing",
        ),
        (
            "backend",
            "SESSION_SECRET is not usable: it must be hexadecimal",
            "a variable is missing",
        ),
    ];

    #[test]
    fn each_cause_that_is_known_is_recognised_by_its_own_line() {
        for (service, line, expected) in SEEN {
            let found = hint(&Evidence { service: service.into(), ..evidence(line) });
            assert!(found.is_some_and(|hint| hint.contains(expected)), "{line}: {found:?}");
        }
        let unseen = KNOWN.iter().filter(|known| {
            let is_shown = |(service, line, _): &(&str, &str, &str)| {
                hint(&Evidence { service: (*service).into(), ..evidence(line) }) == Some(known.hint)
            };
            !SEEN.iter().any(is_shown)
        });
        assert_eq!(unseen.count(), 0, "a hint without a line that shows it");
    }

    #[test]
    fn a_backend_that_migrates_is_told_from_one_that_fails() {
        let hint_of = |state: &str, log: &[&str]| {
            let log = log.iter().map(|&line| line.to_owned()).collect();
            hint(&Evidence { state: state.into(), log, ..evidence("") }).unwrap_or_default()
        };
        let (gave_up, begun) =
            ("its health check gave up", "{\"message\":\"applying 0005_tags.sql\"}");
        assert!(hint_of(gave_up, &[begun]).contains("waits for that"));
        assert_eq!(hint_of(gave_up, &[begun, "applied 0005_tags.sql in 9 ms"]), "");
        let failed = "error: migrations/0005_tags.sql failed: division by zero";
        assert!(
            hint_of("it ended 3 times, the last time with exit code 1", &[begun, failed])
                .contains("did not apply")
        );
    }

    #[test]
    fn what_is_not_recognised_has_no_hint() {
        let lines = [
            ("backend", "all is well"),
            ("backend", "applied 3 migrations in 12 ms"),
            // Words of the backend's causes, in somebody else's log.
            ("postgres", "FATAL:  password authentication failed for user \"app\""),
            ("nginx", "GET /docs/migrations/ 404"),
        ];
        for (service, line) in lines {
            assert_eq!(
                hint(&Evidence { service: service.into(), ..evidence(line) }),
                None,
                "{line}"
            );
        }
    }

    #[test]
    fn running_out_of_memory_is_recognised_without_a_log() {
        let evidence = Evidence { out_of_memory: true, ..Evidence::default() };
        assert!(hint(&evidence).is_some_and(|hint| hint.contains("memory limit")));
    }
}
