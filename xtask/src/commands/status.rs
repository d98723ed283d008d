//! `status`: the whole stack on one screen, or as JSON (its shape: docs/status.md).

use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::{Result, anyhow};
use serde::Serialize;

use crate::backup::ahead::is_ahead;
use crate::backup::catalogue::{self, Backup, Catalogue};
use crate::backup::copied::Copies;
use crate::backup::{drill, offsite};
use crate::cli::{Format, StatusArgs};
use crate::commands::up::{self, load, make_plan};
use crate::ctx::{Ctx, Interrupted, Invocation};
use crate::images::build;
use crate::stack::plan::Action;
use crate::stack::project::Project;
use crate::stack::running::{self, Container, Health, Survey};
use crate::stack::usage::{self, Usage};
use crate::stack::wanted::Wanted;
use crate::ui;

/// How long the screen of `--watch` stands still.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// The JSON form. Fields are only ever added.
#[derive(Serialize)]
struct Status {
    project: String,
    address: String,
    /// Every service runs and is healthy.
    ready: bool,
    services: Vec<ServiceStatus>,
    /// What `up` would do now; empty where nothing differs from what is wanted.
    pending: Vec<PendingStep>,
    /// Containers of the project that no service of the Compose files has; `up` leaves them.
    orphans: Vec<String>,
    migrations: Option<Migrations>,
    volumes: Vec<VolumeStatus>,
    /// The name of this project's newest whole backup: its time in UTC.
    last_backup: Option<String>,
    /// The newest one whose restore was proven.
    last_verified_backup: Option<String>,
    /// How long ago that one was taken.
    last_verified_age_seconds: Option<u64>,
    /// Where copies go; none where `BACKUP_REMOTE` is empty.
    backup_place: Option<String>,
    /// The newest backup that this host has copied there.
    last_copied_backup: Option<String>,
    /// How long ago that one was taken.
    last_copied_age_seconds: Option<u64>,
}

#[derive(Serialize)]
struct ServiceStatus {
    name: String,
    /// The engine's word, or `missing`.
    state: String,
    /// `healthy`, `unhealthy`, `starting` or `none`.
    health: &'static str,
    /// Seconds since the start; none where it does not run.
    uptime_seconds: Option<u64>,
    /// How often the restart policy brought it back.
    restarts: u64,
    /// Percent of one core; none where it cannot be told.
    cpu_percent: Option<f64>,
    /// Bytes, without the page cache; none where it cannot be told.
    memory_bytes: Option<u64>,
    image: String,
    ports: Vec<String>,
}

#[derive(Serialize)]
struct PendingStep {
    service: String,
    /// The plan's word: `create`, `recreate`, `start`, `resume`, `restart`, `reload` or `wait for`; or
    /// `remove` or `build`, which come first.
    action: String,
    reason: String,
}

#[derive(Serialize)]
struct VolumeStatus {
    name: String,
    /// None where no running container has it.
    bytes: Option<u64>,
}

/// How many migrations there are of each kind.
#[derive(Serialize)]
pub(crate) struct Migrations {
    pub(crate) applied: u64,
    pub(crate) pending: u64,
}

/// Prints the status; with `--watch` again and again, until Ctrl-C.
///
/// # Errors
/// The engine does not answer. A stack that is down is a status, not an error.
pub(crate) fn status(ctx: &Ctx, env_file: &Path, args: &StatusArgs) -> Result<()> {
    let mut text = look(ctx, env_file, args.format.format)?;
    if !args.watch {
        return ui::data(text);
    }
    let on_a_screen = args.format.format == Format::Text && console::user_attended();
    while ui::is_read(if on_a_screen { over_the_last_one(&text) } else { text.clone() })? {
        ctx.pause(WATCH_INTERVAL)?;
        // All anew: the files may have changed as well as what runs. Whoever watches wants to see the end of
        // a trouble, such as an engine that starts again.
        text = match look(ctx, env_file, args.format.format) {
            Ok(text) => text,
            Err(error) if error.is::<Interrupted>() => return Err(error),
            Err(error) if on_a_screen => ctx.ui.aim().at(&format!("{error:#}")),
            Err(error) => {
                ctx.ui.warn(format!("{error:#}"));
                continue;
            }
        };
    }
    Ok(())
}

/// The status as it is to be printed.
fn look(ctx: &Ctx, env_file: &Path, format: Format) -> Result<String> {
    let (project, wanted) = load(ctx, env_file)?;
    let status = read(ctx, &project, &wanted)?;
    Ok(match format {
        Format::Json => serde_json::to_string_pretty(&status)?,
        Format::Text => ctx.ui.aim().at(&render(&status, ui::width())),
    })
}

/// A screen without flicker: home, each line with the end of a longer one before it wiped away, and
/// below the last one everything.
fn over_the_last_one(text: &str) -> String {
    format!("\x1b[H{}\x1b[K\n\x1b[J", text.replace('\n', "\x1b[K\n"))
}

fn read(ctx: &Ctx, project: &Project, wanted: &Wanted) -> Result<Status> {
    let survey = running::survey(ctx, project)?;
    let containers = &survey.containers;
    let of = |name: &str| containers.iter().find(|container| container.service == name);
    let backend = of("backend").filter(|container| container.is_running());
    let (usage, volumes, migrations, plan) = thread::scope(|scope| {
        let volumes = scope.spawn(|| usage::volume_sizes(ctx, containers));
        let migrations = scope.spawn(|| backend.and_then(|container| migrations(ctx, container)));
        let plan = scope.spawn(|| pending(ctx, project, wanted, &survey));
        let usage = usage::usage(ctx, containers);
        (usage, volumes.join(), migrations.join(), plan.join())
    });
    let used = |name: &str| {
        let index = containers.iter().position(|container| container.service == name)?;
        usage[index]
    };
    let services = wanted.services.iter();
    let services = services.map(|s| service_status(&s.name, &s.image, of(&s.name), used(&s.name)));
    let sizes = volumes.unwrap_or_default();
    let size_of = |name: &String| sizes.iter().find(|(n, _)| n == name).map(|(_, bytes)| *bytes);
    let volumes = wanted.volumes.iter();
    let backups = last_backups(ctx, project);
    let age = |id: &Option<String>| id.as_deref().and_then(age_of).map(|age| age.as_secs());
    let is_ready = |name: &str| of(name).is_some_and(Container::is_ready);
    let (pending, orphans) = plan.map_err(|_| anyhow!("a thread of xtask panicked"))??;
    Ok(Status {
        project: project.name.clone(),
        address: project.address(),
        ready: wanted.services.iter().all(|service| is_ready(&service.name)),
        services: services.collect(),
        pending,
        orphans,
        migrations: migrations.unwrap_or_default(),
        volumes: volumes.map(|n| VolumeStatus { name: n.clone(), bytes: size_of(n) }).collect(),
        last_backup: backups.newest,
        last_verified_age_seconds: age(&backups.verified),
        last_verified_backup: backups.verified,
        backup_place: backups.place,
        last_copied_age_seconds: age(&backups.copied),
        last_copied_backup: backups.copied,
    })
}

/// What `up` would do now, as its dry run tells it, and what it would leave.
fn pending(
    ctx: &Ctx,
    project: &Project,
    wanted: &Wanted,
    survey: &Survey,
) -> Result<(Vec<PendingStep>, Vec<String>)> {
    let here = build::ids_of(ctx, wanted)?;
    let stale = match project.image_source()? {
        Some(source) => build::out_of_date(ctx, project, wanted, source, &here)?,
        None => Vec::new(),
    };
    let plan = make_plan(ctx, project, wanted, &survey.containers, &here, &stale)?;
    let first = up::beginning(survey, &stale).into_iter().map(|(action, what, reason)| {
        PendingStep { service: what, action: action.to_owned(), reason: reason.to_owned() }
    });
    let steps = plan.steps.into_iter().filter(|step| step.action != Action::Keep);
    let steps = steps.map(|step| PendingStep {
        service: step.service,
        action: step.action.to_string(),
        reason: step.reason,
    });
    Ok((first.chain(steps).collect(), plan.orphans))
}

fn service_status(
    name: &str,
    image: &str,
    container: Option<&Container>,
    usage: Option<Usage>,
) -> ServiceStatus {
    let health = container.map_or(Health::None, |container| container.health);
    ServiceStatus {
        name: name.to_owned(),
        state: container.map_or_else(|| "missing".to_owned(), |c| c.status.clone()),
        health: match health {
            Health::None => "none",
            Health::Starting => "starting",
            Health::Healthy => "healthy",
            Health::Unhealthy => "unhealthy",
        },
        uptime_seconds: container.and_then(Container::uptime).map(|time| time.as_secs()),
        restarts: container.map_or(0, |container| container.restarts),
        cpu_percent: usage.map(|usage| usage.cpu_percent),
        memory_bytes: usage.map(|usage| usage.memory_bytes),
        image: container.map_or_else(|| image.to_owned(), |container| container.image.clone()),
        ports: container.map_or_else(Vec::new, |container| container.ports.clone()),
    }
}

/// The names of the newest backups.
#[derive(Default)]
pub(crate) struct LastBackups {
    pub(crate) newest: Option<String>,
    /// A restore of it was proven.
    pub(crate) verified: Option<String>,
    /// Those whose time lies in the future, which are neither.
    pub(crate) ahead: Vec<String>,
    /// Where copies go, if they are to go somewhere.
    pub(crate) place: Option<String>,
    /// It has a copy there, as far as this host knows.
    pub(crate) copied: Option<String>,
}

/// This project's newest backups; a folder that cannot be read has none.
pub(crate) fn last_backups(ctx: &Ctx, project: &Project) -> LastBackups {
    let (catalogue, now) = (Catalogue::of(ctx, project), SystemTime::now());
    let place = offsite::named_place(ctx, project);
    let copies = Copies::of(&catalogue);
    let copied = place.as_deref().and_then(|place| copies.newest(place, now)).map(str::to_owned);
    LastBackups { place, copied, ..last_of(catalogue.list().unwrap_or_default(), now) }
}

fn last_of(list: Vec<(String, Result<Backup>)>, now: SystemTime) -> LastBackups {
    let (ahead, list): (Vec<_>, Vec<_>) = list.into_iter().partition(|(id, _)| is_ahead(id, now));
    let whole: Vec<Backup> = list.into_iter().rev().filter_map(|(_, b)| b.ok()).collect();
    let name = |backup: &Backup| backup.id().to_owned();
    LastBackups {
        newest: whole.first().map(name),
        verified: whole.iter().find(|backup| drill::is_verified(backup)).map(name),
        ahead: ahead.into_iter().map(|(id, _)| id).collect(),
        ..LastBackups::default()
    }
}

/// How long ago a backup of this name was taken.
pub(crate) fn age_of(id: &str) -> Option<Duration> {
    SystemTime::now().duration_since(catalogue::time_of(id)?).ok()
}

/// Asks the backend; none where it cannot say.
pub(crate) fn migrations(ctx: &Ctx, backend: &Container) -> Option<Migrations> {
    let words = ["exec", &backend.id, "/backend", "migrate", "status", "--format", "json"];
    let text = ctx.read(Invocation::new("docker").args(words)).ok()?;
    let status: serde_json::Value = serde_json::from_str(&text).ok()?;
    let count = |word: &str| {
        let rows = status["migrations"].as_array()?.iter();
        Some(rows.filter(|row| row["state"] == word).count() as u64)
    };
    Some(Migrations { applied: count("applied")?, pending: count("pending")? })
}

/// The columns that tell how a service is; those after them, which are wide, what it is.
const COLUMNS: [&str; 9] =
    ["SERVICE", "STATE", "HEALTH", "UPTIME", "RESTARTS", "CPU", "MEMORY", "IMAGE", "PORTS"];
const HOW: usize = 7;

/// One table, or two where one is wider than the terminal.
fn tables(rows: &[Vec<String>], width: Option<usize>) -> String {
    let whole = ui::table(&COLUMNS, rows);
    let is_too_wide = |line: &str| width.is_some_and(|w| console::measure_text_width(line) > w);
    if !whole.lines().any(is_too_wide) {
        return whole;
    }
    let how: Vec<_> = rows.iter().map(|row| row[..HOW].to_vec()).collect();
    let named = |row: &Vec<String>| [&row[..1], &row[HOW..]].concat();
    let what: Vec<_> = rows.iter().map(named).collect();
    let header = [&COLUMNS[..1], &COLUMNS[HOW..]].concat();
    format!("{}\n\n{}\n", ui::table(&COLUMNS[..HOW], &how), ui::table(&header, &what))
}

/// A reference with so much of its digest as tells it from others.
fn short_reference(image: &str) -> String {
    match image.split_once("@sha256:") {
        Some((name, digest)) if digest.len() > 12 => format!("{name}@{}", &digest[..12]),
        _ => image.to_owned(),
    }
}

fn render(status: &Status, width: Option<usize>) -> String {
    let dash = || "-".to_owned();
    let row = |service: &ServiceStatus| {
        let uptime = service.uptime_seconds.map(Duration::from_secs);
        vec![
            service.name.clone(),
            service.state.clone(),
            coloured(service.health),
            uptime.map_or_else(dash, ui::seconds),
            service.restarts.to_string(),
            service.cpu_percent.map_or_else(dash, |percent| format!("{percent:.1} %")),
            service.memory_bytes.map_or_else(dash, ui::bytes),
            short_reference(&service.image),
            service.ports.join(", "),
        ]
    };
    let rows: Vec<Vec<String>> = status.services.iter().map(row).collect();
    let mut lines = vec![tables(&rows, width)];
    if let Some(Migrations { applied, pending }) = status.migrations {
        lines.push(format!("migrations: {applied} applied, {pending} pending"));
    }
    let volume = |volume: &VolumeStatus| match volume.bytes {
        Some(bytes) => format!("{} ({})", volume.name, ui::bytes(bytes)),
        None => volume.name.clone(),
    };
    let volumes: Vec<String> = status.volumes.iter().map(volume).collect();
    lines.push(format!("volumes:    {}", volumes.join(", ")));
    lines.push(format!("backup:     {}", backup_line(status)));
    lines.push(format!("address:    {}", status.address));
    for PendingStep { service, action, reason } in &status.pending {
        lines.push(format!("`up` would {action} {service}: {reason}"));
    }
    for name in &status.orphans {
        lines.push(format!("`up` would leave {name}: no service of the Compose files"));
    }
    if !status.ready {
        let say =
            "not all is ready; `cargo xtask up` brings it up, `cargo xtask wait` says why not";
        lines.push(say.to_owned());
    }
    lines.join("\n")
}

fn backup_line(status: &Status) -> String {
    let Some(last) = &status.last_backup else {
        return "none yet".to_owned();
    };
    let age = status.last_verified_age_seconds.map(Duration::from_secs);
    let verified = match (&status.last_verified_backup, age) {
        (Some(verified), Some(age)) => {
            format!("{last}; the last verified one is {verified}, {} old", ui::seconds(age))
        }
        _ => format!("{last}; none was verified"),
    };
    let age = status.last_copied_age_seconds.map(Duration::from_secs);
    match (&status.backup_place, &status.last_copied_backup, age) {
        (None, _, _) => verified,
        (Some(_), Some(copied), Some(age)) => {
            format!("{verified}; the last one copied away is {copied}, {} old", ui::seconds(age))
        }
        (Some(place), _, _) => format!("{verified}; none was copied to {place}"),
    }
}

fn coloured(health: &str) -> String {
    let text = console::style(health);
    match health {
        "healthy" => text.green(),
        "unhealthy" => text.red(),
        _ => text.yellow(),
    }
    .to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    /// Every name of a field, at any depth.
    fn fields(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(object) => {
                for (name, inner) in object {
                    found.insert(name.clone());
                    fields(inner, found);
                }
            }
            Value::Array(list) => list.iter().for_each(|inner| fields(inner, found)),
            _ => {}
        }
    }

    fn sample() -> Status {
        let reason = "it is not there".to_owned();
        Status {
            project: "shop".to_owned(),
            address: "http://127.0.0.1:8080".to_owned(),
            ready: false,
            services: vec![service_status("redis", "redis:7", None, None)],
            pending: vec![PendingStep { service: "redis".into(), action: "create".into(), reason }],
            orphans: vec!["shop-mailer-1".to_owned()],
            migrations: Some(Migrations { applied: 2, pending: 0 }),
            volumes: vec![VolumeStatus { name: "shop_redis_data".to_owned(), bytes: None }],
            last_backup: None,
            last_verified_backup: None,
            last_verified_age_seconds: None,
            backup_place: None,
            last_copied_backup: None,
            last_copied_age_seconds: None,
        }
    }

    #[test]
    fn the_json_has_the_form_that_is_documented() {
        let document = include_str!("../../../docs/status.md");
        let about_status = document.split("\n## ").nth(1).expect("a section on status");
        let (mut ours, mut shown) = (BTreeSet::new(), BTreeSet::new());
        fields(&serde_json::to_value(sample()).unwrap(), &mut ours);
        let example =
            about_status.split("```json").nth(1).and_then(|rest| rest.split("```").next());
        fields(&serde_json::from_str(example.expect("an example")).unwrap(), &mut shown);
        // The example is of a stack for which nothing is to be done.
        shown.extend(["service", "action", "reason"].map(str::to_owned));
        assert_eq!(ours, shown, "the example of docs/status.md has other fields");
        for name in ours {
            assert!(about_status.contains(&format!("`{name}`")), "docs/status.md lacks `{name}`");
        }
    }

    #[test]
    fn copies_are_told_of_where_there_are_to_be_any() {
        let mut status = sample();
        let line = |status: &Status| backup_line(status);
        status.last_backup = Some("b".to_owned());
        assert_eq!(line(&status), "b; none was verified");
        status.backup_place = Some("s3://a/shop".to_owned());
        assert_eq!(line(&status), "b; none was verified; none was copied to s3://a/shop");
        (status.last_copied_backup, status.last_copied_age_seconds) =
            (Some("a".into()), Some(7200));
        assert!(line(&status).contains("; the last one copied away is a, 2"), "{}", line(&status));
    }

    #[test]
    fn a_stack_that_is_down_says_what_up_would_do() {
        let text = console::strip_ansi_codes(&render(&sample(), None)).into_owned();
        assert!(text.contains("`up` would create redis: it is not there"), "{text}");
        assert!(text.contains("`up` would leave shop-mailer-1"), "{text}");
        assert!(text.contains("not all is ready"), "{text}");
    }

    #[test]
    fn the_services_fit_a_terminal_that_is_eighty_columns_wide() {
        let mut status = sample();
        status.services[0].image = format!("redis:7-alpine@sha256:{:064}", 7);
        status.services[0].ports = vec!["127.0.0.1:16379->6379/tcp".to_owned()];
        status.services[0].uptime_seconds = Some(700_000);
        let text = console::strip_ansi_codes(&render(&status, Some(80))).into_owned();
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("redis:7-alpine@000000000000  127.0.0.1:16379"), "{text}");
        assert_eq!(render(&status, Some(200)), render(&status, None));
    }
}
