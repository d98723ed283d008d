//! `doctor`: what could keep the stack from working, each finding with a next step.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;

use crate::cli::{Format, FormatArgs};
use crate::ctx::Ctx;
use crate::host::disk;
use crate::host::tools::{COMPOSE_FLOOR, ENGINE_FLOOR, Tools, Version};
use crate::stack::project::{Project, shown};
use crate::stack::running::{self, Container, Health};
use crate::stack::{ports, wanted};
use crate::ui;

/// Restarts above this are a sign of trouble: one may be a reboot of the engine.
const RESTARTS_TO_WARN: u64 = 3;
const DISK_TO_WARN: u64 = 10 << 30;
const DISK_TO_FAIL: u64 = 2 << 30;
/// What the four services and a build take together, with room to breathe.
const MEMORY_TO_WARN: u64 = 1 << 30;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    Pass,
    Warn,
    Fail,
}

/// One line of the report.
#[derive(Debug, Serialize)]
struct Finding {
    level: Level,
    subject: String,
    detail: String,
    /// What to do; none where all is well.
    next: Option<String>,
}

/// Prints the findings; fails if one of them is a failure.
///
/// # Errors
/// The findings cannot be printed. What is wrong with the host or the stack is a finding.
pub(crate) fn doctor(ctx: &Ctx, env_file: &Path, args: &FormatArgs) -> Result<ExitCode> {
    let mut findings = host(ctx);
    findings.extend(environment(ctx, env_file));
    if let Ok(project) = Project::load(ctx, env_file) {
        findings.extend(stack(ctx, &project));
    }
    let failed = findings.iter().filter(|finding| finding.level == Level::Fail).count();
    match args.format {
        Format::Json => println!("{}", serde_json::to_string_pretty(&findings)?),
        Format::Text => print(&findings, failed),
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn pass(subject: &str, detail: impl Into<String>) -> Finding {
    Finding { level: Level::Pass, subject: subject.into(), detail: detail.into(), next: None }
}

fn not_well(level: Level, subject: &str, detail: impl Into<String>, next: &str) -> Finding {
    let next = Some(next.to_owned());
    Finding { level, subject: subject.into(), detail: detail.into(), next }
}

fn host(ctx: &Ctx) -> Vec<Finding> {
    let tools = Tools::look(ctx);
    let setup = "cargo xtask setup";
    let plugin = |name: &str, version: Option<Version>, floor: Version| match version {
        Some(version) if version >= floor => pass(name, version.to_string()),
        Some(version) => {
            not_well(Level::Fail, name, format!("{version}; {floor} or newer is needed"), setup)
        }
        None => not_well(Level::Fail, name, "not installed", setup),
    };
    let engine = match &tools.engine {
        Err(error) => not_well(Level::Fail, "engine", format!("{error:#}"), setup),
        Ok(version) => plugin("engine", Some(*version), ENGINE_FLOOR),
    };
    vec![
        engine,
        plugin("compose", tools.compose, COMPOSE_FLOOR),
        plugin("buildx", tools.buildx, Version(0, 0, 0)),
        disk_room(ctx),
        memory(),
    ]
}

fn disk_room(ctx: &Ctx) -> Finding {
    let docker = Path::new("/var/lib/docker");
    let place = if docker.exists() { docker } else { ctx.root() };
    let next = "docker system df, and cargo clean";
    match disk::free(place) {
        Ok(free) if free < DISK_TO_FAIL => {
            not_well(Level::Fail, "disk", format!("only {} free", ui::bytes(free)), next)
        }
        Ok(free) if free < DISK_TO_WARN => {
            not_well(Level::Warn, "disk", format!("{} free", ui::bytes(free)), next)
        }
        Ok(free) => pass("disk", format!("{} free", ui::bytes(free))),
        Err(error) => not_well(Level::Warn, "disk", format!("{error:#}"), next),
    }
}

fn memory() -> Finding {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    match kib.map(|kib| kib << 10) {
        None => not_well(Level::Warn, "memory", "it cannot be told on this system", "free -h"),
        Some(free) if free < MEMORY_TO_WARN => {
            let detail = format!("only {} available", ui::bytes(free));
            not_well(Level::Warn, "memory", detail, "end what you do not need")
        }
        Some(free) => pass("memory", format!("{} available", ui::bytes(free))),
    }
}

fn environment(ctx: &Ctx, env_file: &Path) -> Vec<Finding> {
    let name = shown(ctx, env_file);
    let Ok(data) = fs::metadata(env_file) else {
        let next = "cargo xtask up, or cargo xtask env init";
        return vec![not_well(Level::Warn, &name, "not written yet", next)];
    };
    let mode = data.permissions().mode() & 0o777;
    let private = if mode & 0o077 == 0 {
        pass(&name, format!("private (mode {mode:04o})"))
    } else {
        let detail = format!("other users can read its secrets (mode {mode:04o})");
        not_well(Level::Fail, &name, detail, &format!("chmod 600 {name}"))
    };
    let complete = match Project::load(ctx, env_file) {
        Ok(project) => pass("environment", format!("complete (project `{}`)", project.name)),
        Err(error) => {
            not_well(Level::Fail, "environment", format!("{error:#}"), "cargo xtask env init")
        }
    };
    vec![private, complete]
}

fn stack(ctx: &Ctx, project: &Project) -> Vec<Finding> {
    let (wanted, containers) =
        match (wanted::wanted(ctx, project), running::containers(ctx, project)) {
            (Ok(wanted), Ok(containers)) => (wanted, containers),
            (Err(error), _) => {
                return vec![not_well(
                    Level::Fail,
                    "compose files",
                    format!("{error:#}"),
                    "mend the file",
                )];
            }
            // The engine is down, and that is a finding already.
            (_, Err(_)) => return Vec::new(),
        };
    let mut findings: Vec<Finding> = containers.iter().map(container).collect();
    for service in &wanted.services {
        let runs = containers.iter().any(|c| c.service == service.name && c.is_running());
        if !runs {
            findings.extend(service.published.iter().map(|port| port_of(ctx, port)));
        }
    }
    let strays = containers.iter().filter(|container| wanted.service(&container.service).is_none());
    findings.extend(strays.map(|stray| {
        let next = format!("docker rm --force {}", stray.name);
        not_well(Level::Warn, &stray.name, "a container of no service of the Compose files", &next)
    }));
    findings
}

fn container(container: &Container) -> Finding {
    let name = &container.service;
    let logs = format!("cargo xtask logs {name}");
    if !container.is_running() {
        let detail = format!("{} with exit code {}", container.status, container.exit_code);
        return not_well(Level::Fail, name, detail, &format!("{logs}, then cargo xtask up"));
    }
    if container.health == Health::Unhealthy {
        let probe = container.last_probe.as_deref().unwrap_or("no probe yet");
        return not_well(Level::Fail, name, format!("unhealthy: {probe}"), &logs);
    }
    if container.restarts > RESTARTS_TO_WARN {
        let detail = format!("restarted {} times", container.restarts);
        return not_well(Level::Warn, name, detail, &logs);
    }
    let uptime = container.uptime().map_or_else(String::new, ui::seconds);
    pass(name, format!("running for {uptime}"))
}

fn port_of(ctx: &Ctx, port: &ports::Published) -> Finding {
    let subject = format!("port {}", port.port);
    match ports::check_free(ctx, std::slice::from_ref(port)) {
        Ok(()) => pass(&subject, format!("free, for {}", port.service)),
        Err(_) => {
            let holder = ports::holder(ctx, port.port);
            let detail = format!("held by {holder}, and {} wants it", port.service);
            not_well(Level::Fail, &subject, detail, &format!("end it, or set {}", port.variable))
        }
    }
}

fn print(findings: &[Finding], failed: usize) {
    for finding in findings {
        let mark = match finding.level {
            Level::Pass => console::style("pass").green(),
            Level::Warn => console::style("warn").yellow(),
            Level::Fail => console::style("FAIL").red().bold(),
        };
        println!("{mark}  {:<13} {}", finding.subject, finding.detail);
        if let Some(next) = &finding.next {
            println!("{:<20} next: {next}", "");
        }
    }
    let warned = findings.iter().filter(|finding| finding.level == Level::Warn).count();
    println!("{} checks, {warned} warnings, {failed} failures", findings.len());
}
