//! `parity`: production is the same stack as local, difference by difference.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::Value;

use crate::cli::{ParityArgs, ReportFormat};
use crate::ctx::{Ctx, Invocation};
use crate::env::Kind;
use crate::images::{self, DISTRO_OVERLAY};
use crate::parity::drift::{self, Drift};
use crate::parity::rules::Rules;
use crate::parity::{self, Difference, Report, flat};
use crate::stack::project::{LOCAL_ENV, PRODUCTION_ENV, Project, shown};
use crate::stack::rendering::rendering;
use crate::stack::running;
use crate::ui;

const RULES: &str = "deploy/parity.json";
/// Columns of a value in the terminal; the other forms show the whole of it.
const VALUE_WIDTH: usize = 30;

/// The JSON form: docs/parity.md.
#[derive(Serialize)]
struct Whole {
    #[serde(flatten)]
    report: Report,
    /// Of the stacks that run, what is not as their files say.
    drift: Vec<StackDrift>,
    violations: usize,
}

#[derive(Serialize)]
struct StackDrift {
    project: String,
    /// The services that were compared.
    services: usize,
    drift: Vec<Drift>,
}

/// Prints every difference with its verdict; exit code 1 if one is a violation.
///
/// # Errors
/// The files cannot be rendered, or the rules cannot be read.
pub(crate) fn parity(ctx: &Ctx, env_file: &Path, args: &ParityArgs) -> Result<ExitCode> {
    let report = compare(ctx)?;
    let drift = running_stacks(ctx, env_file)?;
    let drifted: usize = drift.iter().map(|stack| stack.drift.len()).sum();
    let violations = report.violations() + drifted;
    let whole = Whole { report, drift, violations };
    match args.format {
        ReportFormat::Json => ui::json(&whole)?,
        ReportFormat::Markdown => ui::data(markdown(&whole))?,
        ReportFormat::Text => ui::data(text(&whole))?,
    }
    Ok(if violations == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Compares the files, with the official images and with the distribution's: what differs in either.
fn compare(ctx: &Ctx) -> Result<Report> {
    let rules = fs::read_to_string(ctx.root().join(RULES))
        .with_context(|| format!("read {RULES}, which says what production may do otherwise"))?;
    let rules = Rules::parse(&rules).with_context(|| RULES.to_owned())?;
    let mut whole: Option<Report> = None;
    for overlays in [&[][..], &[DISTRO_OVERLAY][..]] {
        let root = ctx.root().display().to_string();
        let side =
            |kind| Ok::<_, anyhow::Error>(flat::flatten(&rendering(ctx, kind, overlays)?, &root));
        let report = parity::compare(&side(Kind::Local)?, &side(Kind::Production)?, &rules);
        whole = Some(match whole {
            None => report,
            Some(first) => merge(first, report),
        });
    }
    whole.context("compare the two renderings")
}

fn merge(mut first: Report, second: Report) -> Report {
    let new = second.differences.into_iter().filter(|d| !first.differences.contains(d));
    let new: Vec<Difference> = new.collect();
    first.differences.extend(new);
    first.unused_rules.retain(|rule| second.unused_rules.contains(rule));
    first
}

/// Compares the stacks that run here, local and production, with their own files.
fn running_stacks(ctx: &Ctx, env_file: &Path) -> Result<Vec<StackDrift>> {
    let mut files = vec![ctx.root().join(LOCAL_ENV), ctx.root().join(PRODUCTION_ENV)];
    if !files.iter().any(|file| file == env_file) {
        files = vec![env_file.to_owned()];
    }
    let mut stacks = Vec::new();
    for file in files.iter().filter(|file| file.exists()) {
        let project = Project::load(ctx, file)?;
        let stack = drift_of(ctx, &project)
            .with_context(|| format!("compare the stack of {}", shown(ctx, file)))?;
        stacks.extend(stack);
    }
    Ok(stacks)
}

fn drift_of(ctx: &Ctx, project: &Project) -> Result<Option<StackDrift>> {
    let containers = running::containers(ctx, project)?;
    if containers.is_empty() {
        return Ok(None);
    }
    let config = ctx.read(project.compose().args(["config", "--format", "json"]))?;
    let config: Value = serde_json::from_str(&config).context("read Compose's configuration")?;
    let mut found = Vec::new();
    for container in &containers {
        let wanted = &config["services"][&container.service];
        let reference = wanted["image"].as_str().unwrap_or_default();
        let ids = images::ids(ctx, &[reference])?;
        let inspect = Invocation::new("docker").args(["inspect", &container.id]);
        let inspected: Value = serde_json::from_str(&ctx.read(inspect)?)?;
        let id = ids.get(reference).map_or("", String::as_str);
        found.extend(drift::drift(&container.service, &config, id, &inspected[0]));
    }
    let services = config["services"].as_object().into_iter().flatten();
    let is_there = |name: &str| containers.iter().any(|container| container.service == name);
    found
        .extend(services.filter(|(name, _)| !is_there(name)).map(|(name, _)| drift::missing(name)));
    let services = containers.len();
    Ok(Some(StackDrift { project: project.name.clone(), services, drift: found }))
}

fn text(whole: &Whole) -> String {
    let rows: Vec<Vec<String>> = whole.report.differences.iter().map(|d| row(d, short)).collect();
    let mut lines = vec![ui::table(&["WHERE", "LOCAL", "PRODUCTION", "VERDICT"], &rows)];
    lines.extend(findings(whole));
    lines.push(verdict(whole));
    lines.join("\n")
}

fn markdown(whole: &Whole) -> String {
    let mut lines =
        vec!["| where | local | production | verdict |".to_owned(), "|---|---|---|---|".to_owned()];
    for difference in &whole.report.differences {
        let cells = row(difference, |value| format!("`{value}`"));
        lines.push(format!("| {} |", cells.join(" | ").replace("`-`", "-")));
    }
    lines.push(String::new());
    lines.extend(findings(whole).into_iter().map(|line| format!("- {line}")));
    lines.push(String::new());
    lines.push(verdict(whole));
    lines.join("\n")
}

fn row(difference: &Difference, show: impl Fn(String) -> String) -> Vec<String> {
    let value = |value: &Option<Value>| match value {
        None => show("-".to_owned()),
        Some(Value::String(text)) => show(text.clone()),
        Some(other) => show(other.to_string()),
    };
    let verdict = match &difference.allowed {
        Some(why) => format!("allowed: {why}"),
        None => "VIOLATION".to_owned(),
    };
    let place = difference.path.trim_start_matches("services ").to_owned();
    vec![place, value(&difference.local), value(&difference.production), verdict]
}

fn short(text: String) -> String {
    if text.chars().count() <= VALUE_WIDTH {
        return text;
    }
    text.chars().take(VALUE_WIDTH - 1).chain(['…']).collect()
}

/// What is to be done, one line each.
fn findings(whole: &Whole) -> Vec<String> {
    let violations = whole.report.differences.iter().filter(|d| d.is_violation());
    let violations = violations.map(|d| {
        format!(
            "violation: {} is {} in production: make both the same, or add a rule with its reason to \
             {RULES}",
            d.path, d.kind
        )
    });
    let unused = whole.report.unused_rules.iter().map(|rule| {
        format!("violation: the rule `{rule}` of {RULES} allows nothing that is there: delete it")
    });
    let drift = whole.drift.iter().flat_map(|stack| {
        stack.drift.iter().map(move |drift| {
            format!(
                "drift: {} {} of the running stack `{}` is {}, and its files say {}: `cargo xtask \
                 up` brings it back",
                drift.service, drift.field, stack.project, drift.running, drift.wanted
            )
        })
    });
    violations.chain(unused).chain(drift).collect()
}

fn verdict(whole: &Whole) -> String {
    let compared = whole.drift.iter().map(|stack| {
        format!("; `{}` runs, {} services compared with its files", stack.project, stack.services)
    });
    format!(
        "{} differences, {} violations{}",
        whole.report.differences.len(),
        whole.violations,
        compared.collect::<String>()
    )
}
