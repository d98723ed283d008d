//! `doctor`: what could keep the stack from working, each finding with a next step.

mod judge;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::Result;
use serde::Serialize;

use crate::backup::catalogue::Catalogue;
use crate::cli::{DoctorArgs, Format};
use crate::commands::schedule::{self, Job};
use crate::commands::status::{self, Migrations};
use crate::ctx::{Ctx, Invocation};
use crate::host::disk;
use crate::host::tools::{COMPOSE_FLOOR, ENGINE_FLOOR, Tools, Version};
use crate::images::{Source, build, registry};
use crate::stack::project::{self, Project, shown};
use crate::stack::running::{self, Container};
use crate::stack::wanted::Wanted;
use crate::stack::{certificate, ports, secrets, wanted};
use crate::ui;

/// A certificate with less left was not renewed when it should have been.
const DAYS_TO_WARN: u64 = 21;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Serialize)]
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

/// Prints the findings; fails if one of them is a failure, or a warning where those count, too.
///
/// # Errors
/// The findings cannot be printed. What is wrong with the host or the stack is a finding.
pub(crate) fn doctor(ctx: &Ctx, env_file: &Path, args: &DoctorArgs) -> Result<ExitCode> {
    if let Some(scheduler) = args.schedule {
        let project = Project::load(ctx, env_file)?;
        ui::data(schedule::text(ctx, &project, scheduler, &Job::doctor())?.trim_end())?;
        return Ok(ExitCode::SUCCESS);
    }
    let tools = Tools::look(ctx);
    let mut findings = host(ctx, &tools);
    findings.extend(environment(ctx, env_file));
    if let Ok(project) = Project::load(ctx, env_file) {
        findings.extend(stack(ctx, &project, tools.compose.is_some()));
    }
    for finding in &mut findings {
        finding.detail = ctx.ui.aim().at(&finding.detail);
        finding.next = finding.next.take().map(|next| ctx.ui.aim().at(&next));
    }
    let failed = findings.iter().filter(|finding| finding.level == Level::Fail).count();
    match args.format.format {
        Format::Json => ui::json(&findings)?,
        Format::Text => print(&findings, failed)?,
    }
    let floor = if args.strict { Level::Warn } else { Level::Fail };
    let is_well = findings.iter().all(|finding| finding.level < floor);
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn pass(subject: &str, detail: impl Into<String>) -> Finding {
    Finding { level: Level::Pass, subject: subject.into(), detail: detail.into(), next: None }
}

fn not_well(level: Level, subject: &str, detail: impl Into<String>, next: &str) -> Finding {
    let next = Some(next.to_owned());
    Finding { level, subject: subject.into(), detail: detail.into(), next }
}

fn host(ctx: &Ctx, tools: &Tools) -> Vec<Finding> {
    let engine = match &tools.engine {
        Err(error) => not_well(Level::Fail, "engine", format!("{error:#}"), "cargo xtask setup"),
        Ok(version) => judge::tool("engine", Some(*version), ENGINE_FLOOR),
    };
    let mut findings = vec![
        engine,
        judge::tool("compose", tools.compose, COMPOSE_FLOOR),
        judge::tool("buildx", tools.buildx, Version(0, 0, 0)),
    ];
    findings.extend(socket());
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let asked = SystemTime::now();
    let info = EngineInfo::ask(ctx).unwrap_or_default();
    let told = SystemTime::now();
    findings.extend(info.driver.as_deref().map(judge::storage));
    findings.extend([
        disk_room(ctx, info.folder.as_deref()),
        judge::memory(&meminfo),
        judge::clock(info.time, asked, told),
    ]);
    findings
}

/// What the engine says of itself; none of it where it does not answer.
#[derive(Default)]
struct EngineInfo {
    driver: Option<String>,
    /// Where it keeps images and volumes.
    folder: Option<PathBuf>,
    /// It may run in a virtual machine whose clock stood still while the laptop slept: then sessions end too
    /// late and certificates are not valid yet.
    time: Option<SystemTime>,
}

impl EngineInfo {
    fn ask(ctx: &Ctx) -> Option<EngineInfo> {
        let fields = "{{.Driver}}\t{{.DockerRootDir}}\t{{.SystemTime}}";
        let text = ctx.read(Invocation::new("docker").args(["info", "--format", fields])).ok()?;
        let mut fields = text.trim().split('\t');
        let driver = fields.next().filter(|driver| !driver.is_empty()).map(str::to_owned);
        let folder = fields.next().map(PathBuf::from);
        Some(EngineInfo { driver, folder, time: fields.next().and_then(judge::parse_time) })
    }
}

/// A socket that is elsewhere, or no file, is not ours to judge.
fn socket() -> Option<Finding> {
    let host = std::env::var("DOCKER_HOST").unwrap_or_default();
    let path = if host.is_empty() { "/var/run/docker.sock" } else { host.strip_prefix("unix://")? };
    Some(judge::socket(path, mode_of(Path::new(path))?))
}

fn mode_of(path: &Path) -> Option<u32> {
    Some(fs::metadata(path).ok()?.permissions().mode() & 0o777)
}

/// Where the engine keeps its data; of one that does not answer, or is on another host, the checkout's own disk.
fn disk_room(ctx: &Ctx, engines: Option<&Path>) -> Finding {
    let here = engines.filter(|folder| folder.is_absolute() && folder.exists());
    match disk::free(here.unwrap_or(ctx.root())) {
        Ok(free) => judge::disk(free),
        Err(error) => not_well(Level::Warn, "disk", format!("{error:#}"), "df -h"),
    }
}

fn environment(ctx: &Ctx, env_file: &Path) -> Vec<Finding> {
    let name = shown(ctx, env_file);
    let Some(mode) = mode_of(env_file) else {
        let next = "cargo xtask up, or cargo xtask env init";
        return vec![not_well(Level::Warn, &name, "not written yet", next)];
    };
    let private = judge::environment_file(&name, mode);
    let complete = match Project::load(ctx, env_file) {
        Ok(project) => pass("environment", format!("complete (project `{}`)", project.name)),
        Err(error) => {
            not_well(Level::Fail, "environment", format!("{error:#}"), "cargo xtask env init")
        }
    };
    vec![private, complete]
}

fn secrets(ctx: &Ctx, project: &Project) -> Option<Finding> {
    let folder = secrets::folder(ctx, project);
    let (outer, inner) = (mode_of(folder.parent()?)?, mode_of(&folder)?);
    Some(judge::secrets(&shown(ctx, &folder), outer, inner))
}

/// What is known of a stack: from its files, and, where the engine answers, from what runs.
fn stack(ctx: &Ctx, project: &Project, has_compose: bool) -> Vec<Finding> {
    let mut findings: Vec<Finding> = secrets(ctx, project).into_iter().collect();
    match wanted::wanted(ctx, project) {
        Ok(wanted) => findings.extend(services(ctx, project, &wanted)),
        // Without Compose nobody can read them, and that is a finding already.
        Err(_) if !has_compose => {}
        Err(error) => {
            let detail = format!("{error:#}");
            findings.push(not_well(Level::Fail, "compose files", detail, "mend the file"));
        }
    }
    findings.extend(images_of(ctx, project));
    findings.extend(certificate(ctx, project));
    findings.extend(unfinished_restore(ctx, project));
    findings.extend(backup(ctx, project));
    findings
}

fn services(ctx: &Ctx, project: &Project, wanted: &Wanted) -> Vec<Finding> {
    // Where the engine is down, that is a finding already; what it would say is left out.
    let survey = running::survey(ctx, project);
    let (containers, green) =
        survey.map(|survey| (survey.containers, survey.green)).unwrap_or_default();
    let (ours, strays): (Vec<&Container>, Vec<&Container>) =
        containers.iter().partition(|container| wanted.service(&container.service).is_some());
    let is_up = !ours.is_empty();
    let mut findings: Vec<Finding> = ours.into_iter().map(judge::container).collect();
    for service in &wanted.services {
        let of_it = || containers.iter().filter(|c| c.service == service.name);
        if is_up && of_it().next().is_none() {
            let detail = "it has no container, and others of the stack have";
            findings.push(not_well(Level::Fail, &service.name, detail, "cargo xtask up"));
        }
        if !of_it().any(Container::is_alive) {
            findings.extend(service.published.iter().map(|port| port_of(ctx, port)));
        }
    }
    findings.extend(green.into_iter().map(|left| {
        let detail = format!("{} is there: one goes on, or was interrupted", left.name);
        not_well(Level::Warn, "deploy", detail, "cargo xtask up")
    }));
    findings.extend(stray_volumes(ctx, project, &wanted.volumes));
    findings.extend(migrations(ctx, project, wanted, &containers));
    findings.extend(strays.into_iter().map(|stray| {
        let next = format!("docker rm --force {}", stray.name);
        not_well(Level::Warn, &stray.name, "a container of no service of the Compose files", &next)
    }));
    findings
}

/// An environment file is written once, and the example goes on with the repository.
fn images_of(ctx: &Ctx, project: &Project) -> Option<Finding> {
    if project.image_source().ok()? != Some(Source::Registry) {
        return None;
    }
    let example = crate::env::parse("", &project::example(ctx).ok()?).ok()?;
    let names = registry::OFFICIAL
        .map(|name| (name, project.value(name), example.get(name).map_or("", String::as_str)));
    Some(judge::images(&names))
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
    let Some(Migrations { applied, pending }) = status::migrations(ctx, backend) else {
        let detail = "the backend cannot tell which are applied";
        return Some(not_well(Level::Warn, "migrations", detail, "cargo xtask migrate status"));
    };
    if pending > 0 {
        let detail = format!("{pending} pending");
        return Some(not_well(Level::Warn, "migrations", detail, "cargo xtask migrate"));
    }
    // The files are compiled into the image: what came since is not in what it says.
    let source = project.image_source().ok().flatten()?;
    let here = build::ids_of(ctx, wanted).ok()?;
    let stale = build::out_of_date(ctx, project, wanted, source, &here).unwrap_or_default();
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
        // What is wrong may have nothing to do with its time, and says itself what to do.
        Err(error) => {
            let next = "mend that, then: cargo xtask cert check (docs/tls.md)";
            not_well(Level::Fail, "certificate", format!("{error:#}"), next)
        }
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
    let catalogue = Catalogue::of(ctx, project);
    if let Some(id) = catalogue.waiting_copy() {
        let detail = format!("what that of {id} replaced is put aside, and there is no copy of it");
        return Some(not_well(Level::Warn, "restore", detail, "cargo xtask backup"));
    }
    let id = catalogue.unfinished_swap()?;
    let detail = format!("that of {id} was interrupted between PostgreSQL and Redis");
    Some(not_well(Level::Fail, "restore", detail, &format!("cargo xtask restore {id}")))
}

fn backup(ctx: &Ctx, project: &Project) -> Vec<Finding> {
    let backups = status::last_backups(ctx, project);
    let age = |id: &String| status::age_of(id).unwrap_or_default();
    let verified = backups.verified.map(|id| (id.clone(), age(&id)));
    let copied = backups.copied.map(|id| (id.clone(), age(&id)));
    let copies = backups.place.map(|place| judge::copies(&place, copied));
    let judged = judge::backup(backups.newest, verified, project.is_production());
    judge::ahead(&backups.ahead).into_iter().chain([judged]).chain(copies).collect()
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

fn print(findings: &[Finding], failed: usize) -> Result<()> {
    for finding in findings {
        let mark = match finding.level {
            Level::Pass => console::style("pass").green(),
            Level::Warn => console::style("warn").yellow(),
            Level::Fail => console::style("FAIL").red().bold(),
        };
        ui::data(format!("{mark}  {:<13} {}", finding.subject, finding.detail))?;
        if let Some(next) = &finding.next {
            ui::data(format!("{:<20} next: {next}", ""))?;
        }
    }
    let warned = findings.iter().filter(|finding| finding.level == Level::Warn).count();
    let count = |number: usize, word: &str| {
        format!("{number} {word}{}", if number == 1 { "" } else { "s" })
    };
    let checks = count(findings.len(), "check");
    ui::data(format!("{checks}, {}, {}", count(warned, "warning"), count(failed, "failure")))
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_subject_is_described_for_scripts() {
        let files = [include_str!("doctor.rs"), include_str!("doctor/judge.rs")];
        let source =
            files.map(|text| text.split("#[cfg(test)]").next().unwrap_or_default()).concat();
        let document = include_str!("../../../docs/status.md");
        let named = source.split("pass(\"").chain(source.split("Level::Fail, \"")).skip(1);
        let subjects: Vec<&str> = named.filter_map(|rest| rest.split('"').next()).collect();
        assert!(subjects.contains(&"clock") && subjects.contains(&"compose files"), "{subjects:?}");
        for subject in subjects.into_iter().filter(|subject| !subject.contains('\n')) {
            let row = format!("`{subject}`");
            assert!(document.contains(&row), "docs/status.md has no row for {row}");
        }
    }
}
