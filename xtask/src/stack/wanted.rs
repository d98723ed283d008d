//! What is wanted: the services, their edges, ports, volumes and configuration hashes, as
//! Compose itself renders them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::ctx::Ctx;
use crate::images::build::BACKEND;
use crate::images::registry;
use crate::stack::ports::Published;
use crate::stack::project::{PORTS, Project};

/// A service as the Compose files describe it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Service {
    pub(crate) name: String,
    /// The image's reference.
    pub(crate) image: String,
    /// How the image comes about, where it is built and not pulled.
    pub(crate) build: Option<Build>,
    /// Compose's own hash of the configuration; a container carries the one it was made from.
    pub(crate) hash: String,
    /// The services that have to be healthy before this one starts.
    pub(crate) depends_on: Vec<String>,
    /// Ports of the host.
    pub(crate) published: Vec<Published>,
    /// Files of the host that the service reads at its start only. They stand in the top-level
    /// `x-restart-on-change`: Compose's rendering leaves extensions inside a service out.
    pub(crate) restart_on_change: Vec<PathBuf>,
    /// What it can read anew while it runs (`x-reload-on-change`).
    pub(crate) reload: Option<Reload>,
    /// How its requests are moved to another container of it (`x-switch-over`).
    pub(crate) switch_over: Option<SwitchOver>,
}

/// How a service's image is built, as `build:` in the Compose files says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Build {
    /// The folder whose files it is built from.
    pub(crate) context: PathBuf,
    /// All that is said of it, arguments included, as one text.
    pub(crate) described: String,
}

/// How requests are moved from one container of a service to another. Every command runs in the container
/// of the proxy, and returns when what it says is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SwitchOver {
    /// The service through which they come.
    pub(crate) proxy: String,
    /// Where the service listens in its container.
    pub(crate) port: u16,
    /// Moves them to the second container, which it knows by its name.
    pub(crate) to: Vec<String>,
    /// Moves them to the service's own container again.
    pub(crate) back: Vec<String>,
    /// Asks the service through the proxy again and again, and prints the status of each answer on a line.
    pub(crate) probe: Vec<String>,
}

/// How a service reads files anew without a restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reload {
    /// Files and folders of the host.
    pub(crate) files: Vec<PathBuf>,
    /// What has it do so, in its container. It fails, and changes nothing, where a file is wrong.
    pub(crate) command: Vec<String>,
}

/// All services of a project, each after those that it depends on, and its volumes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) services: Vec<Service>,
    /// Names of the volumes, as the engine knows them.
    pub(crate) volumes: Vec<String>,
}

impl Wanted {
    /// The service of that name.
    pub(crate) fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|service| service.name == name)
    }

    /// Whether nobody notices while this service is made anew: no other needs it, nothing of it is published, and
    /// no requests are moved by it. A worker is such a one.
    pub(crate) fn is_bystander(&self, service: &Service) -> bool {
        let is_proxy = |other: &Service| {
            other.switch_over.as_ref().is_some_and(|switch| switch.proxy == service.name)
        };
        service.switch_over.is_none()
            && service.published.is_empty()
            && !self.services.iter().any(|s| is_proxy(s) || s.depends_on.contains(&service.name))
    }

    /// Whether a service depends on another one, by however many steps.
    pub(crate) fn needs(&self, service: &str, other: &str) -> bool {
        let mut below = self.service(service).into_iter().flat_map(|service| &service.depends_on);
        below.any(|name| name == other || self.needs(name, other))
    }

    /// The service of that name, or an error that suggests the nearest.
    pub(crate) fn expect_service(&self, name: &str) -> Result<&Service> {
        if let Some(service) = self.service(name) {
            return Ok(service);
        }
        let names: Vec<&str> = self.services.iter().map(|service| service.name.as_str()).collect();
        let nearest =
            nearest(name, &names).map_or_else(String::new, |n| format!("did you mean `{n}`? "));
        let usage =
            format!("there is no service `{name}`; {nearest}there are {}", names.join(", "));
        Err(crate::ctx::Usage(usage).into())
    }
}

/// The name most like `name`, if any is like it at all.
pub(crate) fn nearest<'a>(name: &str, names: &[&'a str]) -> Option<&'a str> {
    // Counts letters that are wrong, missing, too many or swapped with their neighbour.
    let scored = names.iter().map(|known| (strsim::damerau_levenshtein(name, known), *known));
    let (distance, nearest) = scored.min_by_key(|(distance, _)| *distance)?;
    (distance <= name.len().div_ceil(3)).then_some(nearest)
}

/// What Compose answered, kept for the next time.
#[derive(Deserialize, Serialize)]
struct Rendered {
    key: String,
    config: Value,
    hashes: String,
}

/// Asks Compose what the project's files mean, or remembers: the answer is a pure function of
/// the files, the values and the version of Compose, and asking twice takes a tenth of a second.
///
/// # Errors
/// Compose finds a mistake in the files; its own words are in the error.
pub(crate) fn wanted(ctx: &Ctx, project: &Project) -> Result<Wanted> {
    let cache = project.state_dir(ctx).join("rendered.json");
    let key = cache_key(ctx, project)?;
    let kept =
        fs::read(&cache).ok().and_then(|text| serde_json::from_slice::<Rendered>(&text).ok());
    if let Some(kept) = kept.filter(|kept| Some(&kept.key) == key.as_ref()) {
        return interpret(project, &kept.config, &kept.hashes);
    }
    let keeps = key.is_some();
    let rendered = render(ctx, project, key.unwrap_or_default())?;
    let wanted = interpret(project, &rendered.config, &rendered.hashes)?;
    if keeps {
        keep(&cache, &rendered).with_context(|| format!("write {}", cache.display()))?;
    }
    Ok(wanted)
}

fn render(ctx: &Ctx, project: &Project, key: String) -> Result<Rendered> {
    let ask = |args: &[&str]| {
        let said = ctx.read(project.compose().args(args.iter().copied()));
        said.map_err(|error| crate::host::tools::explain_engine(ctx, error))
    };
    let (config, hashes) = thread::scope(|scope| {
        let hashes = scope.spawn(|| ask(&["config", "--hash", "*"]));
        (ask(&["config", "--format", "json"]), hashes.join())
    });
    let hashes = hashes.map_err(|_| anyhow::anyhow!("a thread of xtask panicked"))??;
    let config = serde_json::from_str(&config?).context("read Compose's configuration")?;
    Ok(Rendered { key, config, hashes })
}

/// What the rendered configuration follows from; none where it is read from files that are not known here.
fn cache_key(ctx: &Ctx, project: &Project) -> Result<Option<String>> {
    let mut hasher = Sha256::new();
    // A new version of this code may read more from the same answer.
    hasher.update(env!("CARGO_PKG_VERSION"));
    // The paths of what is mounted begin with it: a checkout may be moved.
    hasher.update(format!("{}\0", ctx.root().display()));
    let mut texts = String::new();
    for file in &project.compose_files {
        let path = ctx.root().join(file);
        let text = fs::read_to_string(path).with_context(|| format!("read {file}"))?;
        if reads_others(&text) {
            return Ok(None);
        }
        hasher.update(format!("{file}\0{}\0", text.len()));
        hasher.update(&text);
        texts.push_str(&text);
    }
    for (name, value) in &project.values {
        hasher.update(format!("{name}={value}\0"));
    }
    // Not ours, and left to Compose: they choose services, and what their images are for.
    for name in ["COMPOSE_PROFILES", "DOCKER_DEFAULT_PLATFORM"] {
        hasher.update(format!("{name}={}\0", std::env::var(name).unwrap_or_default()));
    }
    for (name, value) in named_in(&texts, std::env::vars()) {
        hasher.update(format!("{name}={value}\0"));
    }
    hasher.update(crate::host::tools::fingerprint(ctx));
    Ok(Some(crate::images::hex(&hasher.finalize())))
}

/// Whether a Compose file has Compose read other files for what the services are.
fn reads_others(text: &str) -> bool {
    const KEYS: [&str; 4] = ["include:", "extends:", "env_file:", "label_file:"];
    let said = |line: &str| line.split('#').next().unwrap_or_default().to_owned();
    text.lines().map(said).any(|line| KEYS.iter().any(|key| line.contains(key)))
}

/// The variables of this process that a Compose file names, in whatever way: one whose value it takes over would
/// otherwise change without a question to Compose.
fn named_in(
    text: &str,
    variables: impl Iterator<Item = (String, String)>,
) -> BTreeMap<String, String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words: BTreeSet<&str> = text.split(|c| !is_part(c)).collect();
    variables.filter(|(name, _)| words.contains(name.as_str())).collect()
}

/// The rendered configuration holds secrets, so the file is private and appears whole.
fn keep(path: &std::path::Path, rendered: &Rendered) -> Result<()> {
    let Some(folder) = path.parent() else { bail!("it has no folder") };
    fs::create_dir_all(folder)?;
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    serde_json::to_writer(&mut file, rendered)?;
    file.persist(path)?;
    Ok(())
}

fn interpret(project: &Project, config: &Value, hashes: &str) -> Result<Wanted> {
    let hashes: BTreeMap<&str, &str> =
        hashes.lines().filter_map(|line| line.split_once(' ')).collect();
    let Some(services) = config["services"].as_object() else {
        bail!("the Compose files describe no service");
    };
    // Built elsewhere: pulled like any other.
    let is_named = !project.value(registry::BACKEND).is_empty();
    let service = |(name, service): (&String, &Value)| -> Result<Service> {
        expect_one(name, service)?;
        Ok(Service {
            name: name.clone(),
            image: match text(&service["image"]) {
                // The name that Compose gives to what it builds.
                image if image.is_empty() => format!("{}-{name}", project.name),
                image => image,
            },
            build: build(&service["build"]).filter(|_| !(name == BACKEND && is_named)),
            hash: hashes.get(name.as_str()).map_or_else(String::new, |hash| hash.trim().to_owned()),
            depends_on: dependencies(name, &service["depends_on"])?,
            published: published(project, name, &service["ports"]),
            restart_on_change: paths(&config["x-restart-on-change"][name]),
            reload: reload(name, &config["x-reload-on-change"][name])?,
            switch_over: switch_over(name, &config["x-switch-over"][name])?,
        })
    };
    let services: Result<Vec<Service>> = services.iter().map(service).collect();
    let volumes = config["volumes"].as_object().into_iter().flatten();
    let volumes = volumes.map(|(_, volume)| text(&volume["name"])).collect();
    Ok(Wanted { services: in_order(services?)?, volumes })
}

/// The services that one waits for. Each has to run: of one that is to end, nobody could say later whether it did.
fn dependencies(service: &str, described: &Value) -> Result<Vec<String>> {
    for (other, how) in described.as_object().into_iter().flatten() {
        ensure!(
            how["condition"] != "service_completed_successfully",
            "{service} depends on the end of {other} (`service_completed_successfully`), and every service of \
             this stack is one that runs: have {service}'s own command do first what {other} does, or run that \
             with `docker compose run`"
        );
    }
    Ok(keys(described))
}

/// Compose would make a second container, which nobody here starts, waits for or looks at, nor moves requests to.
fn expect_one(name: &str, service: &Value) -> Result<()> {
    for (key, number) in
        [("scale", &service["scale"]), ("deploy.replicas", &service["deploy"]["replicas"])]
    {
        ensure!(
            number.as_u64().is_none_or(|number| number == 1),
            "`{key}: {number}` of {name} in the Compose files: each service is one container here. Take the line out; \
             where there should be two of it, write a second service beside it (`{name}-2`), which shares its lines \
             through a YAML anchor (deploy/README.md)"
        );
    }
    Ok(())
}

fn build(described: &Value) -> Option<Build> {
    let context = PathBuf::from(described["context"].as_str()?);
    Some(Build { context, described: described.to_string() })
}

fn reload(service: &str, described: &Value) -> Result<Option<Reload>> {
    if described.is_null() {
        return Ok(None);
    }
    let reload =
        Reload { files: paths(&described["files"]), command: texts(&described["command"]) };
    ensure!(
        !reload.files.is_empty() && !reload.command.is_empty(),
        "`x-reload-on-change` of {service} needs both: `files`, a list of paths, and `command`, the list \
         of words that has the service read them anew"
    );
    Ok(Some(reload))
}

fn switch_over(service: &str, described: &Value) -> Result<Option<SwitchOver>> {
    if described.is_null() {
        return Ok(None);
    }
    let port = described["port"].as_u64().and_then(|port| u16::try_from(port).ok());
    let words = |name: &str| texts(&described[name]);
    let (proxy, to, back, probe) =
        (text(&described["proxy"]), words("to"), words("back"), words("probe"));
    match port {
        Some(port)
            if !(proxy.is_empty() || to.is_empty() || back.is_empty() || probe.is_empty()) =>
        {
            Ok(Some(SwitchOver { proxy, port, to, back, probe }))
        }
        _ => bail!(
            "`x-switch-over` of {service} needs all of these: `proxy`, a service; `port`, a number; `to`, \
             `back` and `probe`, each the list of words of a command"
        ),
    }
}

/// Sorts services so that each comes after those it depends on; ties keep Compose's order.
fn in_order(mut rest: Vec<Service>) -> Result<Vec<Service>> {
    let mut ordered: Vec<Service> = Vec::new();
    while !rest.is_empty() {
        let (ready, waiting): (Vec<_>, Vec<_>) = rest.into_iter().partition(|service| {
            service.depends_on.iter().all(|name| ordered.iter().any(|done| &done.name == name))
        });
        if ready.is_empty() {
            let names: Vec<&str> = waiting.iter().map(|service| service.name.as_str()).collect();
            bail!("the services {} depend on each other in a circle", names.join(", "));
        }
        ordered.extend(ready);
        rest = waiting;
    }
    Ok(ordered)
}

fn published(project: &Project, service: &str, ports: &Value) -> Vec<Published> {
    let ports = ports.as_array().into_iter().flatten();
    // `published` is a string in Compose's JSON.
    let ports = ports.filter_map(|port| {
        let number: u16 = text(&port["published"]).parse().ok()?;
        let variable = variable_of_port(project, number);
        Some(Published {
            service: service.to_owned(),
            address: text(&port["host_ip"]),
            port: number,
            variable,
        })
    });
    ports.collect()
}

fn variable_of_port(project: &Project, port: u16) -> &'static str {
    let found = PORTS.into_iter().find(|name| project.value(name) == port.to_string());
    found.unwrap_or("the port in the Compose file")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn paths(value: &Value) -> Vec<PathBuf> {
    texts(value).into_iter().map(PathBuf::from).collect()
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(text).collect()
}

fn keys(value: &Value) -> Vec<String> {
    value.as_object().into_iter().flat_map(|map| map.keys().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, depends_on: &[&str]) -> Service {
        let depends_on = depends_on.iter().map(|&name| name.to_owned()).collect();
        Service { name: name.to_owned(), depends_on, ..Service::default() }
    }

    #[test]
    fn a_service_comes_after_those_it_depends_on() {
        let services = vec![
            service("nginx", &["backend"]),
            service("backend", &["postgres", "redis"]),
            service("postgres", &[]),
            service("redis", &[]),
        ];
        let names: Vec<_> = in_order(services).unwrap().into_iter().map(|s| s.name).collect();
        assert_eq!(names, ["postgres", "redis", "backend", "nginx"]);
    }

    #[test]
    fn a_second_container_of_a_service_is_refused_with_another_way() {
        let described = |text: &str| expect_one("worker", &serde_json::from_str(text).unwrap());
        for fine in [r#"{"image":"w:1"}"#, r#"{"scale":1,"deploy":{"replicas":1}}"#] {
            described(fine).unwrap();
        }
        for (more, key) in [
            (r#"{"scale":2}"#, "`scale: 2` of worker"),
            (r#"{"deploy":{"replicas":3}}"#, "`deploy.replicas: 3` of worker"),
            (r#"{"scale":0}"#, "`scale: 0` of worker"),
        ] {
            let said = described(more).unwrap_err().to_string();
            assert!(said.contains(key) && said.contains("a second service"), "{said}");
        }
    }

    #[test]
    fn a_circle_is_an_error_that_names_its_members() {
        let services = vec![service("a", &["b"]), service("b", &["a"]), service("c", &[])];
        let message = in_order(services).unwrap_err().to_string();
        assert_eq!(message, "the services a, b depend on each other in a circle");
    }

    #[test]
    fn a_service_that_is_to_end_is_refused() {
        let runs = serde_json::json!({"db": {"condition": "service_healthy"}});
        assert_eq!(dependencies("web", &runs).unwrap(), ["db"]);
        let ends = serde_json::json!({"job": {"condition": "service_completed_successfully"}});
        let error = dependencies("web", &ends).unwrap_err().to_string();
        assert!(error.contains("web depends on the end of job"), "{error}");
    }

    #[test]
    fn a_reload_needs_files_and_a_command() {
        let whole = serde_json::json!({"files": ["a"], "command": ["b", "c"]});
        assert_eq!(reload("nginx", &whole).unwrap().unwrap().command, ["b", "c"]);
        assert_eq!(reload("nginx", &Value::Null).unwrap(), None);
        let error = reload("nginx", &serde_json::json!({"files": ["a"]})).unwrap_err();
        assert!(error.to_string().contains("`command`"), "{error}");
    }

    #[test]
    fn a_switch_over_has_all_its_parts() {
        let mut whole = serde_json::json!({"proxy": "nginx", "port": 3000, "to": ["a"], "back": ["b"], "probe": ["c"]});
        assert_eq!(switch_over("backend", &whole).unwrap().unwrap().port, 3000);
        assert_eq!(switch_over("backend", &Value::Null).unwrap(), None);
        for part in ["proxy", "port", "to", "back", "probe"] {
            let kept = whole[part].take();
            let error = switch_over("backend", &whole).unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
            whole[part] = kept;
        }
    }

    #[test]
    fn a_variable_counts_that_a_compose_file_names_in_whatever_way() {
        let text =
            "image: ${TAG:-1}\ncommand: [\"$WORD\"]\nenvironment:\n  - PASSED\n  NAMED:\n# HOME\n";
        let variables = ["TAG", "WORD", "PASSED", "NAMED", "HOM", "WORDS"];
        let found = named_in(text, variables.map(|name| (name.into(), "1".into())).into_iter());
        assert_eq!(found.into_keys().collect::<Vec<_>>(), ["NAMED", "PASSED", "TAG", "WORD"]);
    }

    #[test]
    fn a_file_that_has_compose_read_others_is_known() {
        for text in
            ["include: [a.yaml]", "  a: {extends: {service: b}}", "  label_file: a", "env_file: a"]
        {
            assert!(reads_others(text), "{text}");
        }
        assert!(!reads_others("services: {}  # as with extends:\n"));
    }

    #[test]
    fn an_unknown_service_is_met_with_the_nearest_name() {
        let wanted = Wanted {
            services: vec![service("postgres", &[]), service("redis", &[])],
            ..Wanted::default()
        };
        let message = wanted.expect_service("postgre").unwrap_err().to_string();
        assert_eq!(
            message,
            "there is no service `postgre`; did you mean `postgres`? there are postgres, redis"
        );
        let message = wanted.expect_service("zzz").unwrap_err().to_string();
        assert!(!message.contains("did you mean"), "{message}");
    }
}
