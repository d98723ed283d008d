//! Docker's parts: which versions are here, and whether they are new enough.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Error, Result, anyhow};

use crate::ctx::{Ctx, Invocation};

/// The oldest versions that do what the stack relies on: `start_interval` in health checks needs
/// Engine 25 and Compose 2.24.1 (docker/compose#10830).
pub(crate) const ENGINE_FLOOR: Version = Version(25, 0, 0);
/// See [`ENGINE_FLOOR`].
pub(crate) const COMPOSE_FLOOR: Version = Version(2, 24, 1);

const LIMIT: Duration = Duration::from_secs(20);

/// Major, minor, patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(pub(crate) u32, pub(crate) u32, pub(crate) u32);

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl Version {
    /// Finds the first version in a text such as `Docker Compose version v2.26.1-4`.
    pub(crate) fn find(text: &str) -> Option<Version> {
        text.split_whitespace().find_map(|word| {
            let word = word.trim_start_matches('v');
            let word = word.split(['-', '+', '~', ',']).next()?;
            let mut parts = word.split('.').map(|part| part.parse().ok());
            Some(Version(parts.next()??, parts.next()??, parts.next().flatten().unwrap_or(0)))
        })
    }
}

/// What is on this host; none where it is missing.
#[derive(Debug)]
pub(crate) struct Tools {
    pub(crate) client: Option<Version>,
    /// The engine's version, or why it does not answer.
    pub(crate) engine: Result<Version>,
    pub(crate) compose: Option<Version>,
    pub(crate) buildx: Option<Version>,
    /// The engine's program is here.
    pub(crate) has_daemon: bool,
}

impl Tools {
    /// Looks at all of them, at the same time.
    pub(crate) fn look(ctx: &Ctx) -> Tools {
        let has_daemon = has_daemon(ctx);
        if ctx.find("docker").is_none() {
            let engine = Err(anyhow!("`docker` is not on PATH"));
            return Tools { client: None, engine, compose: None, buildx: None, has_daemon };
        }
        let ask = |args: &'static [&'static str]| ctx.read(docker(args));
        thread::scope(|scope| {
            let client = scope.spawn(move || ask(&["--version"]));
            let compose = scope.spawn(move || ask(&["compose", "version", "--short"]));
            let buildx = scope.spawn(move || ask(&["buildx", "version"]));
            let engine = engine_version(ctx);
            let version = |thread: thread::ScopedJoinHandle<'_, Result<String>>| {
                thread.join().ok()?.ok().and_then(|text| Version::find(&text))
            };
            Tools {
                client: version(client),
                engine,
                compose: version(compose),
                buildx: version(buildx),
                has_daemon,
            }
        })
    }

    /// What is missing or too old; empty where all is well.
    pub(crate) fn shortcomings(&self) -> Vec<String> {
        let mut found = Vec::new();
        match (&self.client, &self.engine) {
            (None, _) => found.push("Docker is not installed".to_owned()),
            (_, Err(error)) => found.push(format!("{error:#}")),
            (_, Ok(engine)) if *engine < ENGINE_FLOOR => {
                found.push(format!(
                    "Docker Engine is {engine}, and {ENGINE_FLOOR} or newer is needed"
                ));
            }
            _ => {}
        }
        match self.compose {
            None => found.push("the Compose plugin (`docker compose`) is not installed".to_owned()),
            Some(compose) if compose < COMPOSE_FLOOR => {
                found.push(format!("Compose is {compose}, and {COMPOSE_FLOOR} or newer is needed"));
            }
            Some(_) => {}
        }
        if self.buildx.is_none() {
            found.push("the buildx plugin (`docker buildx`) is not installed".to_owned());
        }
        found
    }

    /// Whether a package has to be installed or upgraded, as opposed to a service started.
    pub(crate) fn lacks_packages(&self) -> bool {
        self.client.is_none()
            || self.buildx.is_none()
            || self.compose.is_none_or(|version| version < COMPOSE_FLOOR)
            || match &self.engine {
                Ok(version) => *version < ENGINE_FLOOR,
                Err(_) => !self.has_daemon,
            }
    }
}

/// A client may be here alone. Root's folders are not on everybody's PATH.
fn has_daemon(ctx: &Ctx) -> bool {
    ctx.find("dockerd").is_some()
        || ["/usr/sbin/dockerd", "/usr/bin/dockerd"].iter().any(|path| Path::new(path).exists())
}

/// Where the person has the client look for an engine, if that is not this host's own: on another host, in a
/// virtual machine, or rootless. Such a one is not ours to install, to start or to stop.
pub(crate) fn elsewhere(ctx: &Ctx) -> Option<String> {
    let host = std::env::var("DOCKER_HOST").unwrap_or_default();
    if !host.is_empty() {
        let is_own = matches!(&*host, "unix:///var/run/docker.sock" | "unix:///run/docker.sock");
        return (!is_own).then(|| format!("DOCKER_HOST={host}"));
    }
    ctx.find("docker")?;
    let context = ctx.read(docker(&["context", "show"])).ok()?;
    let context = context.trim();
    (!context.is_empty() && context != "default").then(|| format!("the Docker context `{context}`"))
}

/// The engine's version.
///
/// # Errors
/// It does not answer; the message says why and what to do.
pub(crate) fn engine_version(ctx: &Ctx) -> Result<Version> {
    let text = ctx
        .read(docker(&["version", "--format", "{{.Server.Version}}"]))
        .map_err(|error| explain_engine(ctx, error))?;
    Version::find(&text).ok_or_else(|| anyhow!("the engine's version {text:?} cannot be read"))
}

/// Turns a failure to talk to the engine into one that says what to do.
pub(crate) fn explain_engine(ctx: &Ctx, error: Error) -> Error {
    let said = format!("{error:#}");
    if said.contains("permission denied") {
        return error.context(
            "this user may not talk to the Docker Engine; join its group with `sudo usermod \
             --append --groups docker $USER` and log in again, or run the command as root",
        );
    }
    if ctx.find("docker").is_none() {
        return anyhow!("`docker` is not on PATH; `cargo xtask setup` installs it");
    }
    if said.contains("Cannot connect") || said.contains("Is the docker daemon running") {
        return match elsewhere(ctx) {
            Some(elsewhere) => anyhow!("the engine of {elsewhere} does not answer; start it there"),
            None => anyhow!("the Docker Engine is not running; `cargo xtask setup` starts it"),
        };
    }
    error
}

/// Changes when another version of Docker's programs is put in place, or the engine starts anew.
pub(crate) fn fingerprint(ctx: &Ctx) -> String {
    let mut paths: Vec<PathBuf> = ctx.find("docker").into_iter().collect();
    // The folders in which the client looks for plugins.
    let home = std::env::home_dir().unwrap_or_default().join(".docker/cli-plugins");
    let folders = [
        "/usr/local/lib/docker/cli-plugins",
        "/usr/local/libexec/docker/cli-plugins",
        "/usr/lib/docker/cli-plugins",
        "/usr/libexec/docker/cli-plugins",
    ];
    for folder in folders.map(PathBuf::from).into_iter().chain([home]) {
        paths.extend(["docker-compose", "docker-buildx"].map(|plugin| folder.join(plugin)));
    }
    paths.push(PathBuf::from("/var/run/docker.sock"));
    let mut fingerprint = std::env::var("DOCKER_HOST").unwrap_or_default();
    for path in paths {
        if let Ok(data) = fs::metadata(&path) {
            let (size, changed, nanos) = (data.size(), data.ctime(), data.ctime_nsec());
            fingerprint.push_str(&format!("{} {size} {changed}.{nanos}\n", path.display()));
        }
    }
    fingerprint
}

fn docker(args: &[&str]) -> Invocation {
    Invocation::new("docker").args(args.iter().copied()).limit(LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_the_tools_print() {
        for (text, expected) in [
            ("26.1.5+dfsg1", Version(26, 1, 5)),
            ("2.26.1-4", Version(2, 26, 1)),
            ("v5.0.3", Version(5, 0, 3)),
            ("github.com/docker/buildx 0.13.1+ds1 0.13.1+ds1-3", Version(0, 13, 1)),
            ("Docker version 28.2.2, build e6534b4", Version(28, 2, 2)),
            ("docker-compose version 1.29.2, build unknown", Version(1, 29, 2)),
        ] {
            assert_eq!(Version::find(text), Some(expected), "{text}");
        }
        assert_eq!(Version::find("no such thing"), None);
    }

    #[test]
    fn old_and_missing_tools_are_all_named() {
        let tools = Tools {
            client: Some(Version(28, 2, 2)),
            engine: Ok(Version(20, 10, 24)),
            compose: None,
            buildx: None,
            has_daemon: true,
        };
        assert!(tools.lacks_packages());
        assert_eq!(
            tools.shortcomings(),
            [
                "Docker Engine is 20.10.24, and 25.0.0 or newer is needed",
                "the Compose plugin (`docker compose`) is not installed",
                "the buildx plugin (`docker buildx`) is not installed",
            ]
        );
    }

    #[test]
    fn a_stopped_engine_needs_no_package() {
        let tools = Tools {
            client: Some(Version(26, 1, 5)),
            engine: Err(anyhow!("the Docker Engine is not running")),
            compose: Some(Version(2, 26, 1)),
            buildx: Some(Version(0, 13, 1)),
            has_daemon: true,
        };
        assert!(!tools.lacks_packages());
        assert_eq!(tools.shortcomings(), ["the Docker Engine is not running"]);
        // A client alone cannot be started.
        assert!(Tools { has_daemon: false, ..tools }.lacks_packages());
    }
}
