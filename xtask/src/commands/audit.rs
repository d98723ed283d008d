//! `audit`: the hardening checklist, over the files and over what runs.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::Value;

use crate::audit::exceptions::Exceptions;
use crate::audit::running::QUESTIONS;
use crate::audit::{self, Container, Evidence, Outcome, Verdict};
use crate::cli::{AuditArgs, ReportFormat};
use crate::ctx::{Ctx, Invocation};
use crate::env::Kind;
use crate::stack::project::{LOCAL_ENV, PRODUCTION_ENV, Project};
use crate::stack::rendering::rendering;
use crate::stack::running;
use crate::ui;

const EXCEPTIONS: &str = "deploy/audit.json";

/// The JSON form: docs/audit.md.
#[derive(Serialize)]
struct Whole {
    items: Vec<Verdict>,
    /// Exceptions that nothing needs any more.
    unused_exceptions: Vec<String>,
    failed: usize,
    not_checked: usize,
}

/// Prints every item with its verdict; exit code 1 if one fails.
///
/// # Errors
/// The files cannot be rendered, the engine does not answer, or `--running` was asked for and the
/// stack does not run.
pub(crate) fn audit(ctx: &Ctx, env_file: &Path, args: &AuditArgs) -> Result<ExitCode> {
    let exceptions = fs::read_to_string(ctx.root().join(EXCEPTIONS))
        .with_context(|| format!("read {EXCEPTIONS}, which lists what is accepted"))?;
    let exceptions = Exceptions::parse(&exceptions).with_context(|| EXCEPTIONS.to_owned())?;
    let evidence = evidence(ctx, env_file, args.running)?;
    let (items, _) = audit::judge(&evidence, &exceptions);
    // Asked of production as it is described: on another port an exception may not be needed.
    let described = Evidence::of_files(rendering(ctx, Kind::Production, &[])?);
    let (_, unused_exceptions) = audit::judge(&described, &exceptions);
    let count = |outcome| items.iter().filter(|item| item.outcome == outcome).count();
    let failed = count(Outcome::Fail) + unused_exceptions.len();
    let not_checked = count(Outcome::NotChecked);
    let whole = Whole { items, unused_exceptions, failed, not_checked };
    match args.format {
        ReportFormat::Json => ui::json(&whole)?,
        ReportFormat::Markdown => ui::data(markdown(&whole))?,
        ReportFormat::Text => ui::data(text(&whole))?,
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Of production's files, unless a file of another stack was named; and of that stack, if it runs.
fn evidence(ctx: &Ctx, env_file: &Path, must_run: bool) -> Result<Evidence> {
    let production = ctx.root().join(PRODUCTION_ENV);
    let is_default = env_file == ctx.root().join(LOCAL_ENV);
    let env_file = if is_default { &production } else { env_file };
    if !env_file.exists() {
        ensure!(!must_run, "there is no {PRODUCTION_ENV}, so no production stack runs here");
        return Ok(Evidence::of_files(rendering(ctx, Kind::Production, &[])?));
    }
    let project = Project::load(ctx, env_file)?;
    let config = ctx.read(project.compose().args(["config", "--format", "json"]))?;
    let config = serde_json::from_str(&config).context("read Compose's configuration")?;
    let mut evidence = Evidence::of_files(config);
    let containers = running::containers(ctx, &project)?;
    let containers: Vec<_> =
        containers.into_iter().filter(running::Container::is_running).collect();
    let services = evidence.config["services"].as_object().map_or(0, serde_json::Map::len);
    ensure!(
        !must_run || containers.len() == services,
        "{} of {services} services of `{}` run; `cargo xtask up` starts the others",
        containers.len(),
        project.name
    );
    for container in &containers {
        evidence.containers.insert(container.service.clone(), look(ctx, &container.id)?);
        evidence.answers.extend(answers(ctx, &project, container)?);
    }
    Ok(evidence)
}

fn look(ctx: &Ctx, id: &str) -> Result<Container> {
    let inspect = ctx.read(Invocation::new("docker").args(["inspect", id]))?;
    let mut inspect: Value = serde_json::from_str(&inspect).context("read `docker inspect`")?;
    let pids = ctx.read(Invocation::new("docker").args(["top", id, "-eo", "pid"]))?;
    // A process may end between the two looks.
    let status = |pid: &str| fs::read_to_string(format!("/proc/{}/status", pid.trim())).ok();
    let processes: Vec<String> = pids.lines().skip(1).filter_map(status).collect();
    ensure!(
        !processes.is_empty(),
        "the processes of a container that runs cannot be seen in /proc here, so that nothing could be said \
         of their rights: run this on the engine's own host, as a user who may see them ({id})"
    );
    Ok(Container { inspect: inspect[0].take(), processes })
}

fn answers(
    ctx: &Ctx,
    project: &Project,
    container: &running::Container,
) -> Result<Vec<(String, String)>> {
    let mut answers = Vec::new();
    for (name, question) in QUESTIONS {
        if name.split(' ').next() != Some(&container.service) {
            continue;
        }
        let exec = Invocation::new("docker").args(["exec", &container.id]);
        let ask = if container.service == "redis" {
            exec.arg("admin-cli").args(question.split(' '))
        } else {
            let database = project.value("PG_DBNAME");
            let set = format!("app={}", project.value("PG_USER"));
            let words = ["psql", "-U", "postgres", "-d", database, "-v", &set, "-XAt"];
            // psql puts variables in where it reads statements, and not in an argument.
            let exec = Invocation::new("docker").args(["exec", "--interactive", &container.id]);
            exec.args(words).stdin(question)
        };
        let answer = ctx.read(ask).with_context(|| format!("ask {name}"))?;
        answers.push((name.to_owned(), answer));
    }
    Ok(answers)
}

fn row(verdict: &Verdict) -> Vec<String> {
    let outcome = match verdict.outcome {
        Outcome::Pass => "pass",
        Outcome::Fail => "FAIL",
        Outcome::Exception => "exception",
        Outcome::NotChecked => "not checked",
    };
    let words = [verdict.id, verdict.title, verdict.source, outcome];
    words.map(str::to_owned).to_vec()
}

fn text(whole: &Whole) -> String {
    let rows: Vec<Vec<String>> = whole.items.iter().map(row).collect();
    let mut lines = vec![ui::table(&["ITEM", "WHAT", "SOURCE", "RESULT"], &rows)];
    lines.extend(details(whole));
    lines.push(summary(whole));
    lines.join("\n")
}

fn markdown(whole: &Whole) -> String {
    let mut lines =
        vec!["| item | what | source | result |".to_owned(), "|---|---|---|---|".to_owned()];
    lines.extend(whole.items.iter().map(|item| format!("| {} |", row(item).join(" | "))));
    lines.push(String::new());
    lines.extend(details(whole).into_iter().map(|line| format!("- {line}")));
    lines.push(String::new());
    lines.push(summary(whole));
    lines.join("\n")
}

/// What is behind each result that is no pass.
fn details(whole: &Whole) -> Vec<String> {
    let mut lines = Vec::new();
    for item in &whole.items {
        let findings = item.findings.join("; ");
        match item.outcome {
            Outcome::Fail => lines.push(format!("{} fails: {findings}", item.id)),
            Outcome::Exception => {
                lines.push(format!("{} is accepted, because {}", item.id, item.reasons.join("; ")));
            }
            Outcome::Pass | Outcome::NotChecked => {}
        }
    }
    let unused = whole.unused_exceptions.iter();
    lines.extend(unused.map(|exception| {
        format!("the exception for {exception} in {EXCEPTIONS} is not needed any more: delete it")
    }));
    lines
}

fn summary(whole: &Whole) -> String {
    let mut text = format!("{} items, {} failures", whole.items.len(), whole.failed);
    if whole.not_checked > 0 {
        let hint = "they need the running stack: cargo xtask --prod up";
        text = format!("{text}, {} not checked ({hint})", whole.not_checked);
    }
    text
}
