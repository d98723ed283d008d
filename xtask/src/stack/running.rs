//! What is there: the project's containers, read with `docker ps` and `docker inspect`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::ctx::{Ctx, Invocation};
use crate::stack::project::{Project, shown};

/// The label of everything that belongs to a Compose project; its value is the project's name.
pub(crate) const LABEL_PROJECT: &str = "com.docker.compose.project";
const LABEL_SERVICE: &str = "com.docker.compose.service";
const LABEL_HASH: &str = "com.docker.compose.config-hash";
const LABEL_ONEOFF: &str = "com.docker.compose.oneoff";
/// On a container that Compose has made in the place of another; its value is that one's id.
const LABEL_REPLACE: &str = "com.docker.compose.replace";
/// The folder of the Compose files.
const LABEL_FOLDER: &str = "com.docker.compose.project.working_dir";

/// What a health check says of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// It has no health check.
    None,
    Starting,
    Healthy,
    Unhealthy,
}

/// A container of the project, as the engine describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) service: String,
    /// The engine's word: created, running, paused, restarting, removing, exited or dead.
    pub(crate) status: String,
    pub(crate) health: Health,
    /// The last health probe's output.
    pub(crate) last_probe: Option<String>,
    pub(crate) exit_code: i64,
    pub(crate) out_of_memory: bool,
    /// The engine's own word on why it could not start the container.
    pub(crate) error: String,
    pub(crate) restarts: u64,
    pub(crate) started_at: Option<SystemTime>,
    /// Compose's hash of the configuration that the container was made from.
    pub(crate) hash: String,
    pub(crate) image_id: String,
    /// The image's reference at that time.
    pub(crate) image: String,
    /// Host addresses of its ports, such as `127.0.0.1:8080->80/tcp`.
    pub(crate) ports: Vec<String>,
    /// Its volumes: the name, and where it is mounted.
    pub(crate) volumes: Vec<(String, String)>,
    /// The checkout that it was made from.
    pub(crate) folder: String,
    /// Compose made it in the place of another one.
    pub(crate) is_replacement: bool,
    /// `compose run` made it.
    pub(crate) is_one_off: bool,
    /// Its address on the stack's network; empty where it does not run.
    pub(crate) address: String,
    /// Ids of the networks that it is a member of, or was when it ran.
    pub(crate) networks: Vec<String>,
}

impl Container {
    pub(crate) fn is_running(&self) -> bool {
        self.status == "running"
    }

    /// Has a process, and with it the ports that it publishes.
    pub(crate) fn is_alive(&self) -> bool {
        matches!(self.status.as_str(), "running" | "paused" | "restarting")
    }

    /// Runs, and its health check (if it has one) agrees.
    pub(crate) fn is_ready(&self) -> bool {
        self.is_running() && matches!(self.health, Health::Healthy | Health::None)
    }

    /// How long it has been running.
    pub(crate) fn uptime(&self) -> Option<Duration> {
        let started = self.started_at.filter(|_| self.is_running())?;
        SystemTime::now().duration_since(started).ok()
    }
}

/// The filter that selects a project's objects.
pub(crate) fn project_filter(project: &Project) -> String {
    format!("label={LABEL_PROJECT}={}", project.name)
}

/// The name that Compose gives to the first container of a service.
pub(crate) fn container_name(project: &Project, service: &str) -> String {
    format!("{}-{service}-1", project.name)
}

/// The name of the container in which a new version of a service begins (`cargo xtask deploy`).
pub(crate) fn green_name(project: &Project, service: &str) -> String {
    format!("{}-{service}-green", project.name)
}

/// Whoever works on a stack has to be in the checkout that it was made from: two that have one name would take
/// turns with it, each with secrets of its own, and one would delete the other's data.
///
/// # Errors
/// The containers were made from another checkout, which is still there.
pub(crate) fn expect_own(ctx: &Ctx, project: &Project, containers: &[Container]) -> Result<()> {
    let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let is_other = |container: &&Container| {
        let folder = Path::new(&container.folder);
        // One that is gone was moved to here.
        let is_there = folder.is_absolute() && folder.join("compose.yaml").exists();
        is_there && real(folder) != real(ctx.root())
    };
    if let Some(other) = containers.iter().find(is_other) {
        bail!(
            "`{}` is the stack of another checkout, {}: go there; or give this one a name and ports of its \
             own (COMPOSE_PROJECT_NAME and those that end with _PORT, in {})",
            project.name,
            other.folder,
            shown(ctx, &project.env_file)
        );
    }
    Ok(())
}

/// Every container of the project, running or not, that is a service's own.
///
/// # Errors
/// The engine does not answer; the error says why and what to do.
pub(crate) fn containers(ctx: &Ctx, project: &Project) -> Result<Vec<Container>> {
    Ok(survey(ctx, project)?.containers)
}

/// What a project has in the engine. One-off containers (`compose run`) of other kinds are nobody's business.
pub(crate) struct Survey {
    /// The services' own.
    pub(crate) containers: Vec<Container>,
    /// What an interrupted command of Compose has left: it makes a container under a passing name before it
    /// stops the one that it replaces, and gives it the name when that one is gone. With the labels of its
    /// service, such a one would be taken for the service's own.
    pub(crate) left: Vec<Container>,
    /// Where a new version began and is still: a deploy goes on, or was interrupted.
    pub(crate) green: Vec<Container>,
}

/// Looks at all of them.
///
/// # Errors
/// The engine does not answer.
pub(crate) fn survey(ctx: &Ctx, project: &Project) -> Result<Survey> {
    let all = every_container(ctx, project)?;
    let (one_off, all): (Vec<_>, Vec<_>) = all.into_iter().partition(|c| c.is_one_off);
    let green = one_off.into_iter().filter(|c| c.name == green_name(project, &c.service)).collect();
    let is_left = |c: &Container| c.is_replacement && has_passing_name(&c.name);
    let (left, containers) = all.into_iter().partition(is_left);
    Ok(Survey { containers, left, green })
}

/// Compose's name for a container until the one in whose place it comes is gone: that one's id and name.
fn has_passing_name(name: &str) -> bool {
    name.split_once('_').is_some_and(|(id, _)| {
        id.len() == 12 && id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
}

fn every_container(ctx: &Ctx, project: &Project) -> Result<Vec<Container>> {
    let filter = project_filter(project);
    let ids = Invocation::new("docker").args([
        "ps",
        "--all",
        "--quiet",
        "--no-trunc",
        "--filter",
        &filter,
    ]);
    let ids = ctx.read(ids).map_err(|error| crate::host::tools::explain_engine(ctx, error))?;
    let ids: Vec<&str> = ids.split_whitespace().collect();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    // A container may go away between the two calls: what is left is still told.
    let output =
        ctx.try_read(Invocation::new("docker").args(["inspect", "--type=container"]).args(ids))?;
    let raw: Vec<Raw> =
        serde_json::from_str(&output.stdout).context("read what `docker inspect` says")?;
    let mut containers: Vec<Container> = raw.into_iter().map(Container::from).collect();
    containers.sort_by(|a, b| a.service.cmp(&b.service).then(a.name.cmp(&b.name)));
    Ok(containers)
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Raw {
    id: String,
    name: String,
    image: String,
    restart_count: u64,
    state: RawState,
    config: RawConfig,
    network_settings: RawNetwork,
    mounts: Vec<RawMount>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawMount {
    #[serde(rename = "Type")]
    kind: String,
    /// Bind mounts have none.
    #[serde(default)]
    name: String,
    destination: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawState {
    status: String,
    exit_code: i64,
    #[serde(rename = "OOMKilled")]
    oom_killed: bool,
    error: String,
    started_at: String,
    health: Option<RawHealth>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawHealth {
    status: String,
    log: Option<Vec<RawProbe>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawProbe {
    exit_code: i64,
    output: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawConfig {
    image: String,
    labels: Option<BTreeMap<String, String>>,
}

impl RawConfig {
    fn label(&self, name: &str) -> &str {
        self.labels.as_ref().and_then(|labels| labels.get(name)).map_or("", String::as_str)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawNetwork {
    ports: Option<BTreeMap<String, Option<Vec<RawBinding>>>>,
    networks: Option<BTreeMap<String, RawEndpoint>>,
}

#[derive(Deserialize)]
struct RawEndpoint {
    #[serde(rename = "NetworkID", default)]
    network: String,
    #[serde(rename = "IPAddress", default)]
    address: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RawBinding {
    host_ip: String,
    host_port: String,
}

impl From<Raw> for Container {
    fn from(raw: Raw) -> Container {
        let health = raw.state.health.as_ref();
        let last_probe = health.and_then(|health| health.log.as_ref()?.last());
        Container {
            name: raw.name.trim_start_matches('/').to_owned(),
            service: raw.config.label(LABEL_SERVICE).to_owned(),
            hash: raw.config.label(LABEL_HASH).to_owned(),
            health: health.map_or(Health::None, |health| parse_health(&health.status)),
            last_probe: last_probe.map(|probe| {
                let output = probe.output.trim();
                let output = if output.is_empty() { "no output" } else { output };
                format!("exit code {}: {output}", probe.exit_code)
            }),
            started_at: parse_time(&raw.state.started_at),
            ports: ports(raw.network_settings.ports.as_ref()),
            volumes: raw
                .mounts
                .into_iter()
                .filter(|mount| mount.kind == "volume")
                .map(|mount| (mount.name, mount.destination))
                .collect(),
            folder: raw.config.label(LABEL_FOLDER).to_owned(),
            is_replacement: !raw.config.label(LABEL_REPLACE).is_empty(),
            is_one_off: raw.config.label(LABEL_ONEOFF) == "True",
            address: address(raw.network_settings.networks.as_ref()),
            networks: networks(raw.network_settings.networks.as_ref()),
            id: raw.id,
            status: raw.state.status,
            exit_code: raw.state.exit_code,
            out_of_memory: raw.state.oom_killed,
            error: raw.state.error,
            restarts: raw.restart_count,
            image_id: raw.image,
            image: raw.config.image,
        }
    }
}

/// The engine's word for a health state.
pub(crate) fn parse_health(word: &str) -> Health {
    match word {
        "healthy" => Health::Healthy,
        "unhealthy" => Health::Unhealthy,
        "starting" => Health::Starting,
        _ => Health::None,
    }
}

/// A service is on one network.
fn address(networks: Option<&BTreeMap<String, RawEndpoint>>) -> String {
    let first = networks.and_then(|networks| networks.values().next());
    first.map_or_else(String::new, |endpoint| endpoint.address.clone())
}

/// One that was made and never started knows them by name alone.
fn networks(networks: Option<&BTreeMap<String, RawEndpoint>>) -> Vec<String> {
    let ids = networks.into_iter().flatten().map(|(_, endpoint)| endpoint.network.clone());
    ids.filter(|id| !id.is_empty()).collect()
}

/// The ids of all networks that there are, where a container stands still: its own may be gone since it ran
/// (`docker network prune`), and it could not be started.
///
/// # Errors
/// The engine does not answer.
pub(crate) fn known_networks(
    ctx: &Ctx,
    containers: &[Container],
) -> Result<Option<BTreeSet<String>>> {
    if containers.iter().all(Container::is_alive) {
        return Ok(None);
    }
    let command = Invocation::new("docker").args(["network", "ls", "--quiet", "--no-trunc"]);
    Ok(Some(ctx.read(command)?.lines().map(str::to_owned).collect()))
}

fn ports(ports: Option<&BTreeMap<String, Option<Vec<RawBinding>>>>) -> Vec<String> {
    let mut lines = Vec::new();
    for (inside, bindings) in ports.into_iter().flatten() {
        for binding in bindings.iter().flatten() {
            lines.push(format!("{}:{}->{inside}", binding.host_ip, binding.host_port));
        }
    }
    lines
}

/// The engine's time stamps; its zero value (year 1) lies before the epoch and is no time.
fn parse_time(text: &str) -> Option<SystemTime> {
    humantime::parse_rfc3339(text).ok().filter(|time| *time > SystemTime::UNIX_EPOCH)
}

/// Where this host reaches a service that production does not publish: its address on the bridge,
/// which this host is a member of.
///
/// # Errors
/// The service has no container.
pub(crate) fn address_of(ctx: &Ctx, project: &Project, service: &str, port: u16) -> Result<String> {
    let containers = containers(ctx, project)?;
    let container = containers.iter().find(|container| container.service == service);
    let container = container.with_context(|| format!("find the container of {service}"))?;
    Ok(format!("{}:{port}", container.address))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// So many seconds after the beginning of Unix time.
    pub(crate) fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// A container that is well, since the thousandth second.
    pub(crate) fn sample() -> Container {
        Container {
            id: "c1".into(),
            name: "p-backend-1".into(),
            service: "backend".into(),
            status: "running".into(),
            health: Health::Healthy,
            last_probe: None,
            exit_code: 0,
            out_of_memory: false,
            error: String::new(),
            restarts: 0,
            started_at: Some(at(1000)),
            hash: "h1".into(),
            image_id: "i1".into(),
            image: "backend:1".into(),
            ports: Vec::new(),
            volumes: Vec::new(),
            folder: String::new(),
            is_replacement: false,
            is_one_off: false,
            address: String::new(),
            networks: vec!["n1".into()],
        }
    }

    #[test]
    fn what_compose_left_half_way_is_known_by_its_name() {
        assert!(has_passing_name("0123456789ab_shop-backend-1"));
        // Made anew long ago, under a name that the Compose file gives, or one of several.
        for name in ["shop-backend-1", "my_db", "shop-backend-2", "shop_backend_1"] {
            assert!(!has_passing_name(name), "{name}");
        }
    }

    #[test]
    fn time_stamps_of_the_engine_are_read() {
        let at = |text| {
            parse_time(text).map(|t| t.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis())
        };
        assert_eq!(at("2026-11-23T22:31:05.250000000Z"), Some(1_795_473_065_250));
        assert_eq!(at("2000-02-29T00:00:00Z"), Some(951_782_400_000));
        assert_eq!(at("0001-01-01T00:00:00Z"), None);
        assert_eq!(at("nonsense"), None);
    }
}
