//! `status`: the whole stack on one screen, or as JSON (its shape: docs/status.md).

use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use crate::cli::{Format, FormatArgs};
use crate::commands::up::load;
use crate::ctx::{Ctx, Invocation};
use crate::stack::project::Project;
use crate::stack::running::{self, Container, Health};
use crate::stack::wanted::Wanted;
use crate::ui;

/// The JSON form. Fields are only ever added.
#[derive(Serialize)]
struct Status {
    project: String,
    address: String,
    /// Every service runs and is healthy.
    ready: bool,
    services: Vec<ServiceStatus>,
    migrations: Option<Migrations>,
    volumes: Vec<String>,
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
    image: String,
    ports: Vec<String>,
}

#[derive(Serialize)]
struct Migrations {
    applied: u64,
    pending: u64,
}

/// Prints the status.
///
/// # Errors
/// The engine does not answer. A stack that is down is a status, not an error.
pub(crate) fn status(ctx: &Ctx, env_file: &Path, args: &FormatArgs) -> Result<()> {
    let (project, wanted) = load(ctx, env_file)?;
    let status = read(ctx, &project, &wanted)?;
    match args.format {
        Format::Json => println!("{}", serde_json::to_string_pretty(&status)?),
        Format::Text => print(&status),
    }
    Ok(())
}

fn read(ctx: &Ctx, project: &Project, wanted: &Wanted) -> Result<Status> {
    let containers = running::containers(ctx, project)?;
    let of = |name: &str| containers.iter().find(|container| container.service == name);
    let services: Vec<ServiceStatus> =
        wanted.services.iter().map(|s| service_status(&s.name, &s.image, of(&s.name))).collect();
    let is_ready = |name: &str| of(name).is_some_and(Container::is_ready);
    let backend = of("backend").filter(|container| container.is_running());
    Ok(Status {
        project: project.name.clone(),
        address: project.address(),
        ready: wanted.services.iter().all(|service| is_ready(&service.name)),
        services,
        migrations: backend.and_then(|container| migrations(ctx, container)),
        volumes: wanted.volumes.clone(),
    })
}

fn service_status(name: &str, image: &str, container: Option<&Container>) -> ServiceStatus {
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
        image: container.map_or_else(|| image.to_owned(), |container| container.image.clone()),
        ports: container.map_or_else(Vec::new, |container| container.ports.clone()),
    }
}

/// Asks the backend; none where it cannot say.
fn migrations(ctx: &Ctx, backend: &Container) -> Option<Migrations> {
    let words = ["exec", &backend.id, "/backend", "migrate", "status", "--format", "json"];
    let text = ctx.read(Invocation::new("docker").args(words)).ok()?;
    let status: serde_json::Value = serde_json::from_str(&text).ok()?;
    let count = |word: &str| {
        let rows = status["migrations"].as_array()?.iter();
        Some(rows.filter(|row| row["state"] == word).count() as u64)
    };
    Some(Migrations { applied: count("applied")?, pending: count("pending")? })
}

fn print(status: &Status) {
    let header = ["SERVICE", "STATE", "HEALTH", "UPTIME", "RESTARTS", "IMAGE", "PORTS"];
    let row = |service: &ServiceStatus| {
        let uptime = service.uptime_seconds.map(std::time::Duration::from_secs);
        vec![
            service.name.clone(),
            service.state.clone(),
            coloured(service.health),
            uptime.map_or_else(|| "-".to_owned(), ui::seconds),
            service.restarts.to_string(),
            service.image.clone(),
            service.ports.join(", "),
        ]
    };
    let rows: Vec<Vec<String>> = status.services.iter().map(row).collect();
    println!("{}", ui::table(&header, &rows));
    if let Some(Migrations { applied, pending }) = status.migrations {
        println!("migrations: {applied} applied, {pending} pending");
    }
    println!("volumes:    {}", status.volumes.join(", "));
    if status.ready {
        println!("address:    {}", status.address);
    } else {
        println!(
            "not all is ready; `cargo xtask up` brings it up, `cargo xtask wait` says why not"
        );
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
