//! The stack under test: its services, their containers and processes. It is a stack of the drill's
//! own, described by an environment file; the engine must be on this machine, because faults are
//! made from the host.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::time::{Instant, sleep};

use crate::docker::{docker, run};

/// The four, in the order in which a request meets them.
pub const SERVICES: [&str; 4] = ["nginx", "backend", "postgres", "redis"];

/// A log of some megabytes is read within a second or two.
const LOG_LIMIT: Duration = Duration::from_secs(60);

/// A stack that is up.
#[derive(Clone, Debug)]
pub struct Stack {
    /// The Compose project.
    pub project: String,
    /// The repository.
    pub root: PathBuf,
    /// The environment file.
    pub env_file: PathBuf,
    values: BTreeMap<String, String>,
}

impl Stack {
    /// Reads what the environment file says.
    ///
    /// # Errors
    /// The file cannot be read or names no project.
    pub fn load(root: &Path, env_file: &Path) -> Result<Stack> {
        let text =
            fs::read_to_string(env_file).with_context(|| format!("read {}", env_file.display()))?;
        let pairs = text.lines().filter(|line| !line.starts_with('#'));
        let values: BTreeMap<String, String> = pairs
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
            .collect();
        let project = values.get("COMPOSE_PROJECT_NAME").cloned().unwrap_or_default();
        ensure!(!project.is_empty(), "{} names no COMPOSE_PROJECT_NAME", env_file.display());
        Ok(Stack { project, root: root.to_owned(), env_file: env_file.to_owned(), values })
    }

    /// A value of the environment file, empty if it is not there.
    pub fn value(&self, name: &str) -> &str {
        self.values.get(name).map_or("", String::as_str)
    }

    /// Whether it speaks HTTPS.
    pub fn is_https(&self) -> bool {
        self.value("NGINX_SCHEME") == "https"
    }

    /// Where nginx is reached, on this machine.
    pub fn address(&self) -> String {
        if self.is_https() {
            format!("https://localhost:{}", self.value("HTTPS_PORT"))
        } else {
            format!("http://127.0.0.1:{}", self.value("HTTP_PORT"))
        }
    }

    /// The certificate of a stack that speaks HTTPS.
    pub fn certificate(&self) -> Option<PathBuf> {
        let folder = self.root.join(self.value("CERTS_DIR"));
        self.is_https().then(|| folder.join("fullchain.pem"))
    }

    /// The container of a service.
    pub fn container(&self, service: &str) -> String {
        format!("{}-{service}-1", self.project)
    }

    /// The label that everything of this stack carries; what the drill adds to it carries it too, and
    /// goes away with it.
    pub fn label(&self) -> String {
        format!("com.docker.compose.project={}", self.project)
    }

    /// What the engine says about a service's container, by a template of Go's.
    ///
    /// # Errors
    /// There is no such container.
    pub async fn inspect(&self, service: &str, template: &str) -> Result<String> {
        let container = self.container(service);
        let text = docker(&["inspect", "--format", template, &container]).await?;
        Ok(text.trim().to_owned())
    }

    /// The first process of a service, as the host numbers it.
    ///
    /// # Errors
    /// It does not run.
    pub async fn pid(&self, service: &str) -> Result<i32> {
        let pid: i32 = self.inspect(service, "{{.State.Pid}}").await?.parse()?;
        ensure!(pid > 0, "{service} does not run");
        Ok(pid)
    }

    /// All processes of a service with their command lines, as the host numbers them.
    ///
    /// # Errors
    /// It does not run.
    pub async fn processes(&self, service: &str) -> Result<Vec<(i32, String)>> {
        let text = docker(&["top", &self.container(service), "-eo", "pid,args"]).await?;
        let lines = text.lines().skip(1).filter_map(|line| line.trim().split_once(' '));
        Ok(lines
            .filter_map(|(pid, args)| Some((pid.parse().ok()?, args.trim().to_owned())))
            .collect())
    }

    /// The address of a service inside the network. This machine reaches it too.
    ///
    /// # Errors
    /// It has none: it does not run, or is cut off.
    pub async fn address_of(&self, service: &str) -> Result<IpAddr> {
        let template = "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}";
        let text = self.inspect(service, template).await?;
        let first = text.split_whitespace().next().unwrap_or_default();
        first.parse().with_context(|| format!("find the address of {service}"))
    }

    /// The stack's network.
    pub fn network(&self) -> String {
        format!("{}_internal", self.project)
    }

    /// Runs a program inside a service's container.
    ///
    /// # Errors
    /// It fails.
    pub async fn exec(&self, service: &str, command: &[&str]) -> Result<String> {
        let container = self.container(service);
        docker(&[&["exec", &container], command].concat()).await
    }

    /// What a service has logged since a moment, as the engine kept it.
    ///
    /// # Errors
    /// The engine does not say.
    pub async fn log(&self, service: &str, since: Duration) -> Result<String> {
        let (container, since) = (self.container(service), since.as_secs_f64());
        // Both streams: PostgreSQL writes to the second one.
        let command = format!("docker logs --since {since:.3} {container} 2>&1");
        run("sh", &["-c", &command], LOG_LIMIT).await
    }

    /// A statement as PostgreSQL's superuser, over the socket inside the container.
    ///
    /// # Errors
    /// PostgreSQL refuses it.
    pub async fn sql(&self, statement: &str) -> Result<String> {
        self.sql_as("postgres", statement).await
    }

    /// A statement as another role. Several of them are one transaction.
    ///
    /// # Errors
    /// PostgreSQL refuses it.
    pub async fn sql_as(&self, role: &str, statement: &str) -> Result<String> {
        let database = self.value("PG_DBNAME");
        let psql = ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-U", role, "-d", database];
        Ok(self
            .exec("postgres", &[&psql[..], &["-c", statement]].concat())
            .await?
            .trim()
            .to_owned())
    }

    /// redis-cli as the administrator.
    ///
    /// # Errors
    /// Redis answers with an error.
    pub async fn redis(&self, args: &[&str]) -> Result<String> {
        let text = self.exec("redis", &[&["admin-cli", "-e"], args].concat()).await?;
        Ok(text.trim().to_owned())
    }

    /// Waits until a service's container runs and answers the engine's question.
    ///
    /// # Errors
    /// It does not by the deadline.
    pub async fn wait_up(&self, service: &str, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let state = self.inspect(service, "{{.State.Status}} {{.State.Health.Status}}").await?;
            if state == "running healthy" {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{service} is {state} after {} s", limit.as_secs());
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Waits until the engine calls every service healthy; the error names those that are not.
    ///
    /// # Errors
    /// They are not by the deadline.
    pub async fn wait_healthy(&self, limit: Duration) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let unhealthy = self.unhealthy().await?;
            if unhealthy.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("after {} s not healthy: {}", limit.as_secs(), unhealthy.join(", "));
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// The services that the engine does not call healthy, with what it calls them.
    ///
    /// # Errors
    /// The engine does not answer.
    pub async fn unhealthy(&self) -> Result<Vec<String>> {
        let template = "{{.State.Status}} {{.State.Health.Status}}";
        let mut unhealthy = Vec::new();
        for service in SERVICES {
            let state = self.inspect(service, template).await?;
            if state != "running healthy" {
                unhealthy.push(format!("{service} ({state})"));
            }
        }
        Ok(unhealthy)
    }
}
