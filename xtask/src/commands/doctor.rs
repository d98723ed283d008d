//! `doctor`: what could keep the stack from working, each finding with a next step.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use serde::Serialize;

use crate::backup::catalogue::Catalogue;
use crate::cli::{Format, FormatArgs};
use crate::commands::status::{self, Migrations};
use crate::ctx::{Ctx, Invocation};
use crate::host::disk;
use crate::host::tools::{COMPOSE_FLOOR, ENGINE_FLOOR, Tools, Version};
use crate::images::build;
use crate::stack::project::{Project, shown};
use crate::stack::running::{self, Container, Health};
use crate::stack::wanted::Wanted;
use crate::stack::{certificate, ports, secrets, wanted};
use crate::ui;

/// A certificate with less left was not renewed when it should have been.
const DAYS_TO_WARN: u64 = 21;
/// Restarts above this are a sign of trouble: one may be a reboot of the engine.
const RESTARTS_TO_WARN: u64 = 3;
/// Less is the time between two questions.
const CLOCK_TO_WARN: Duration = Duration::from_secs(2);
/// Of production: a day's backup, and the time to notice that it failed.
const VERIFIED_TO_WARN: Duration = Duration::from_secs(26 * 60 * 60);
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
    let mut findings = vec![
        engine,
        plugin("compose", tools.compose, COMPOSE_FLOOR),
        plugin("buildx", tools.buildx, Version(0, 0, 0)),
    ];
    findings.extend(socket());
    findings.extend([disk_room(ctx), memory(), clock(ctx)]);
    findings
}

/// Whoever may write to the engine's socket is root on this host. One that is elsewhere, or no file,
/// is not ours to judge.
fn socket() -> Option<Finding> {
    let host = std::env::var("DOCKER_HOST").unwrap_or_default();
    let path = if host.is_empty() { "/var/run/docker.sock" } else { host.strip_prefix("unix://")? };
    let data = fs::metadata(path).ok()?;
    let mode = data.permissions().mode() & 0o777;
    if mode & 0o002 != 0 {
        let detail = format!("any user of this host can become root through it (mode {mode:04o})");
        return Some(not_well(Level::Fail, "socket", detail, &format!("chmod o= {path}")));
    }
    let who = if mode & 0o020 == 0 { "its owner" } else { "its owner and group" };
    Some(pass("socket", format!("{who} may use it (mode {mode:04o})")))
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

/// The engine may run in a virtual machine whose clock stood still while the laptop slept: then
/// sessions end too late and certificates are not valid yet.
fn clock(ctx: &Ctx) -> Finding {
    let ask = Invocation::new("docker").args(["info", "--format", "{{.SystemTime}}"]);
    let before = SystemTime::now();
    let engine = ctx.read(ask).ok().and_then(|text| parse_time(text.trim()));
    let Some(engine) = engine else {
        return not_well(Level::Warn, "clock", "the engine does not tell its time", "date --utc");
    };
    let skew = |a: SystemTime, b: SystemTime| a.duration_since(b).unwrap_or_default();
    // The answer lies somewhere between the question and now.
    let off = skew(before, engine).max(skew(engine, SystemTime::now()));
    if off > CLOCK_TO_WARN {
        let detail = format!("the engine's clock is {} off this host's", ui::seconds(off));
        return not_well(Level::Warn, "clock", detail, "restart the engine, or set the clock");
    }
    pass("clock", "the engine's agrees with this host's")
}

/// RFC 3339 with any offset.
fn parse_time(text: &str) -> Option<SystemTime> {
    if let Ok(time) = humantime::parse_rfc3339(text) {
        return Some(time);
    }
    let (local, offset) = text.split_at_checked(text.len().checked_sub(6)?)?;
    let (hours, minutes) = offset.get(1..)?.split_once(':')?;
    let minutes = hours.parse::<u64>().ok()? * 60 + minutes.parse::<u64>().ok()?;
    let time = humantime::parse_rfc3339(&format!("{local}Z")).ok()?;
    let offset_time = Duration::from_secs(minutes * 60);
    if offset.starts_with('-') {
        time.checked_add(offset_time)
    } else {
        time.checked_sub(offset_time)
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

/// The files that containers mount are readable by everybody, because each is read by another user in a
/// container: the folder above is what keeps the host's users out.
fn secrets(ctx: &Ctx, project: &Project) -> Option<Finding> {
    let folder = secrets::folder(ctx, project);
    let closed = folder.parent()?;
    let mode = |path: &Path| Some(fs::metadata(path).ok()?.permissions().mode() & 0o777);
    let (outer, inner) = (mode(closed)?, mode(&folder)?);
    let name = shown(ctx, &folder);
    if outer & 0o077 != 0 && inner & 0o077 != 0 {
        let detail = format!("other users can read what is in {name} (mode {inner:04o})");
        return Some(not_well(Level::Fail, "secrets", detail, &format!("chmod 700 {name}")));
    }
    Some(pass("secrets", format!("{name} is closed to other users")))
}

/// What is known of a stack: from its files, and, where the engine answers, from what runs.
fn stack(ctx: &Ctx, project: &Project) -> Vec<Finding> {
    let mut findings: Vec<Finding> = secrets(ctx, project).into_iter().collect();
    match wanted::wanted(ctx, project) {
        Ok(wanted) => findings.extend(services(ctx, project, &wanted)),
        Err(error) => {
            let detail = format!("{error:#}");
            findings.push(not_well(Level::Fail, "compose files", detail, "mend the file"));
        }
    }
    findings.extend(certificate(ctx, project));
    findings.extend(unfinished_restore(ctx, project));
    findings.push(backup(ctx, project));
    findings
}

fn services(ctx: &Ctx, project: &Project, wanted: &Wanted) -> Vec<Finding> {
    // Where the engine is down, that is a finding already; what it would say is left out.
    let containers = running::containers(ctx, project).unwrap_or_default();
    let (ours, strays): (Vec<&Container>, Vec<&Container>) =
        containers.iter().partition(|container| wanted.service(&container.service).is_some());
    let mut findings: Vec<Finding> = ours.into_iter().map(container).collect();
    for service in &wanted.services {
        let runs = containers.iter().any(|c| c.service == service.name && c.is_running());
        if !runs {
            findings.extend(service.published.iter().map(|port| port_of(ctx, port)));
        }
    }
    findings.extend(stray_volumes(ctx, project, &wanted.volumes));
    findings.extend(migrations(ctx, project, wanted, &containers));
    findings.extend(strays.into_iter().map(|stray| {
        let next = format!("docker rm --force {}", stray.name);
        not_well(Level::Warn, &stray.name, "a container of no service of the Compose files", &next)
    }));
    findings
}

fn stray_volumes(ctx: &Ctx, project: &Project, wanted: &[String]) -> Option<Finding> {
    let filter = running::project_filter(project);
    let listing =
        ctx.read(Invocation::new("docker").args(["volume", "ls", "--quiet", "--filter", &filter]));
    let listing = listing.ok()?;
    let strays: Vec<&str> =
        listing.lines().filter(|name| !wanted.iter().any(|volume| volume == name)).collect();
    if strays.is_empty() {
        return None;
    }
    let detail =
        format!("{} belongs to this project and is mounted by no service", strays.join(", "));
    let next = format!("look at it, then: docker volume rm {}", strays.join(" "));
    Some(not_well(Level::Warn, "volumes", detail, &next))
}

fn migrations(
    ctx: &Ctx,
    project: &Project,
    wanted: &Wanted,
    containers: &[Container],
) -> Option<Finding> {
    let backend = containers.iter().find(|c| c.service == "backend" && c.is_running())?;
    let Migrations { applied, pending } = status::migrations(ctx, backend)?;
    if pending > 0 {
        let detail = format!("{pending} pending");
        return Some(not_well(Level::Warn, "migrations", detail, "cargo xtask migrate"));
    }
    // The files are compiled into the image: what came since is not in what it says.
    let source = project.image_source().ok().flatten()?;
    let stale = build::out_of_date(ctx, project, wanted, source).unwrap_or_default();
    let detail = format!("{applied} applied, none pending");
    if stale.contains(&backend.service) {
        let detail = format!("{detail} in the image that runs, which is older than its files");
        return Some(not_well(Level::Warn, "migrations", detail, "cargo xtask up"));
    }
    Some(pass("migrations", detail))
}

/// Authorities issue for 90 days or less, and their clients renew a month before the end: with three
/// weeks left, the renewal has failed already.
fn certificate(ctx: &Ctx, project: &Project) -> Option<Finding> {
    if !certificate::is_needed(project) {
        return None;
    }
    let next = "renew it, then: cargo xtask cert install CHAIN KEY (docs/tls.md)";
    Some(match certificate::check(ctx, project) {
        Err(error) => not_well(Level::Fail, "certificate", format!("{error:#}"), next),
        Ok(found) if found.days_left() < DAYS_TO_WARN => {
            let detail = format!("expires in {} days", found.days_left());
            not_well(Level::Warn, "certificate", detail, next)
        }
        Ok(found) if found.self_signed => {
            not_well(Level::Warn, "certificate", "self-signed: no browser trusts it", next)
        }
        Ok(found) => pass("certificate", format!("valid for {} days", found.days_left())),
    })
}

fn unfinished_restore(ctx: &Ctx, project: &Project) -> Option<Finding> {
    let id = Catalogue::of(ctx, project).unfinished_swap()?;
    let detail = format!("that of {id} was interrupted between PostgreSQL and Redis");
    Some(not_well(Level::Fail, "restore", detail, &format!("cargo xtask restore {id}")))
}

fn backup(ctx: &Ctx, project: &Project) -> Finding {
    let backups = status::last_backups(ctx, project);
    let next = "cargo xtask backup --verify";
    let Some(newest) = backups.newest else {
        return not_well(Level::Warn, "backup", "there is none", next);
    };
    let Some(verified) = backups.verified else {
        let detail = format!("{newest} is the last one, and no restore was ever proven");
        return not_well(Level::Warn, "backup", detail, next);
    };
    let age = status::age_of(&verified).unwrap_or_default();
    let detail = format!("the last verified one is {verified}, {} old", ui::seconds(age));
    if project.is_production() && age > VERIFIED_TO_WARN {
        return not_well(Level::Warn, "backup", detail, next);
    }
    pass("backup", detail)
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
    let count = |number: usize, word: &str| {
        format!("{number} {word}{}", if number == 1 { "" } else { "s" })
    };
    let checks = count(findings.len(), "check");
    println!("{checks}, {}, {}", count(warned, "warning"), count(failed, "failure"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subject_is_described_for_scripts() {
        let source = include_str!("doctor.rs").split("#[cfg(test)]").next().unwrap_or_default();
        let document = include_str!("../../../docs/status.md");
        let named = source.split("pass(\"").chain(source.split("Level::Fail, \"")).skip(1);
        let subjects: Vec<&str> = named.filter_map(|rest| rest.split('"').next()).collect();
        assert!(subjects.contains(&"clock") && subjects.contains(&"compose files"), "{subjects:?}");
        for subject in subjects.into_iter().filter(|subject| !subject.contains('\n')) {
            let row = format!("`{subject}`");
            assert!(document.contains(&row), "docs/status.md has no row for {row}");
        }
    }

    #[test]
    fn times_with_an_offset_are_the_same_moment() {
        let utc = parse_time("2026-01-02T10:00:00.5Z");
        assert!(utc.is_some());
        assert_eq!(parse_time("2026-01-02T12:30:00.5+02:30"), utc);
        assert_eq!(parse_time("2026-01-02T05:00:00.5-05:00"), utc);
        assert_eq!(parse_time("never"), None);
    }
}
