//! Which project: its environment file, its name and its Compose files.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::ctx::{Ctx, Invocation};
use crate::env::{self, Values, Variable};
use crate::images::Source;

/// The environment file of a laptop, in the project's root.
pub(crate) const LOCAL_ENV: &str = ".env";
/// The environment file of production, in the project's root.
pub(crate) const PRODUCTION_ENV: &str = ".env.production";
const EXAMPLE: &str = ".env.example";

/// The variables that name a port of this host.
pub(crate) const PORTS: [&str; 4] = ["HTTP_PORT", "HTTPS_PORT", "PG_PORT", "REDIS_PORT"];

/// One stack: two of them differ by their environment files and share nothing else.
#[derive(Clone, Debug)]
pub(crate) struct Project {
    /// The prefix of containers, networks and volumes.
    pub(crate) name: String,
    /// The environment file, absolute.
    pub(crate) env_file: PathBuf,
    /// Compose files relative to the root, in order.
    pub(crate) compose_files: Vec<String>,
    /// Effective values: the process environment wins over the file, as it does in Compose.
    pub(crate) values: Values,
    root: PathBuf,
}

/// What to add to a complaint about a variable whose value this process was given, and not the file's.
fn blame(name: &str) -> &'static str {
    if std::env::var_os(name).is_some() {
        " (from the environment of this process, which goes before the file: `unset` it there)"
    } else {
        ""
    }
}

impl Project {
    /// Reads and checks the environment file.
    ///
    /// # Errors
    /// No file, a line that cannot be parsed, or variables missing or empty: all are named.
    pub(crate) fn load(ctx: &Ctx, env_file: &Path) -> Result<Project> {
        let shown = shown(ctx, env_file);
        let text = fs::read_to_string(env_file).with_context(|| {
            format!("read {shown}; `cargo xtask up` or `cargo xtask env init` writes it")
        })?;
        let mut values = env::parse(&shown, &text)?;
        let variables = variables(ctx)?;
        for variable in &variables {
            if let Ok(value) = std::env::var(&variable.name) {
                values.insert(variable.name.clone(), value);
            }
        }
        // Where a command gives the secrets, it is asked when they are needed: not for a status.
        let comes_later = |variable: &&Variable| {
            variable.is_secret()
                && values.get("SECRETS_COMMAND").is_some_and(|command| !command.is_empty())
        };
        let now: Vec<Variable> = variables.iter().filter(|v| !comes_later(v)).cloned().collect();
        let mut findings = env::findings(&shown, &values, &now);
        // The file may be in order; whoever looks there finds nothing.
        for finding in &mut findings {
            let name = finding.split(' ').next().unwrap_or_default().to_owned();
            finding.push_str(blame(&name));
        }
        ensure!(
            findings.is_empty(),
            "the environment is not complete:\n  {}\n`cargo xtask env init` adds missing lines \
             and generates those secrets that are made here; {EXAMPLE} explains each variable",
            findings.join("\n  ")
        );
        Project::from_values(ctx, env_file, values)
    }

    fn from_values(ctx: &Ctx, env_file: &Path, values: Values) -> Result<Project> {
        let value = |name: &str| values.get(name).cloned().unwrap_or_default();
        let name = value("COMPOSE_PROJECT_NAME");
        let is_fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
        ensure!(
            name.chars().all(is_fine) && name.starts_with(|c: char| c.is_ascii_alphanumeric()),
            "COMPOSE_PROJECT_NAME is {name:?}; Docker takes lower-case letters, digits, - and _ \
             only, beginning with a letter or digit"
        );
        let compose_files: Vec<String> =
            value("COMPOSE_FILE").split(':').map(str::to_owned).collect();
        for file in &compose_files {
            ensure!(
                ctx.root().join(file).is_file(),
                "COMPOSE_FILE names {file:?}, and there is no such file in the project's root{}",
                blame("COMPOSE_FILE")
            );
        }
        for port in PORTS {
            let text = value(port);
            ensure!(
                text.parse::<u16>().is_ok_and(|number| number > 0),
                "{port} is {text:?}; a port is a number from 1 to 65535{}",
                blame(port)
            );
        }
        if value("NGINX_SCHEME") == "https" {
            parse_address(&value("HTTP_ADDRESS"))?;
        }
        let root = ctx.root().to_owned();
        Ok(Project { name, env_file: env_file.to_owned(), compose_files, values, root })
    }

    /// The value of a variable, empty where it is not set.
    pub(crate) fn value(&self, name: &str) -> &str {
        self.values.get(name).map_or("", String::as_str)
    }

    /// Where the images come from, once that is decided.
    ///
    /// # Errors
    /// `IMAGE_SOURCE` is neither empty nor one of its two values.
    pub(crate) fn image_source(&self) -> Result<Option<Source>> {
        match self.value("IMAGE_SOURCE") {
            "" => Ok(None),
            text => Source::parse(text).map(Some),
        }
    }

    /// `docker compose` with this project's files and values, ready for its verb.
    pub(crate) fn compose(&self) -> Invocation {
        self.compose_with(&self.compose_files)
    }

    /// The same with other Compose files.
    pub(crate) fn compose_with(&self, files: &[String]) -> Invocation {
        let mut invocation = Invocation::new("docker").args(["compose", "--env-file"]);
        invocation = invocation.args([&self.env_file]);
        for file in files {
            invocation = invocation.args(["--file", file]);
        }
        // What this process read is what Compose is to see, whatever else stands in its environment:
        // COMPOSE_PROFILES and the like are the person's. The names below are ours, or would have Compose do
        // other things than the plan says: read more files, call containers differently, remove some.
        let others = [
            "COMPOSE_FILE",
            "COMPOSE_ENV_FILES",
            "COMPOSE_COMPATIBILITY",
            "COMPOSE_REMOVE_ORPHANS",
        ];
        invocation = invocation.env("COMPOSE_PROJECT_NAME", &self.name).dir(&self.root);
        others.into_iter().fold(invocation, Invocation::env_remove)
    }

    /// The folder for what xtask remembers of this stack.
    pub(crate) fn state_dir(&self, ctx: &Ctx) -> PathBuf {
        ctx.state_dir().join(&self.name)
    }

    /// The address to open in a browser on this machine.
    pub(crate) fn address(&self) -> String {
        if self.value("NGINX_SCHEME") == "https" {
            let address = self.published_address();
            let is_localhost = address == Ipv4Addr::LOCALHOST || address == Ipv6Addr::LOCALHOST;
            let host = if is_localhost { "localhost".to_owned() } else { in_url(address) };
            format!("https://{host}:{}", self.value("HTTPS_PORT"))
        } else {
            format!("http://127.0.0.1:{}", self.value("HTTP_PORT"))
        }
    }

    /// Where this machine reaches HTTPS, as `address:port`: not on every server on 127.0.0.1.
    pub(crate) fn https_place(&self) -> String {
        format!("{}:{}", in_url(self.published_address()), self.value("HTTPS_PORT"))
    }

    /// The one address that `HTTP_ADDRESS` publishes the site on; nothing where it is all of them.
    pub(crate) fn own_address(&self) -> Option<IpAddr> {
        parse_address(self.value("HTTP_ADDRESS")).ok().filter(|address| !address.is_unspecified())
    }

    /// An address that the site is published on; of all of them, the one that never leaves here.
    fn published_address(&self) -> IpAddr {
        match parse_address(self.value("HTTP_ADDRESS")) {
            Ok(IpAddr::V6(address)) if address.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            Ok(address) if !address.is_unspecified() => address,
            _ => Ipv4Addr::LOCALHOST.into(),
        }
    }

    /// Whether this is a production stack, which refuses what is for laptops only.
    pub(crate) fn is_production(&self) -> bool {
        self.value("APP_ENV") == "production"
    }

    /// Writes variables into the environment file, and takes them over.
    ///
    /// # Errors
    /// The file cannot be read or replaced.
    pub(crate) fn remember(&mut self, ctx: &Ctx, settings: &[(&str, &str)]) -> Result<()> {
        let mut text = fs::read_to_string(&self.env_file)
            .with_context(|| format!("read {}", shown(ctx, &self.env_file)))?;
        for (name, value) in settings {
            text = env::set(&text, name, value);
            self.values.insert((*name).to_owned(), (*value).to_owned());
        }
        self.compose_files = self.value("COMPOSE_FILE").split(':').map(str::to_owned).collect();
        write_private(ctx, &self.env_file, &text)
    }
}

/// Reads `HTTP_ADDRESS`, an address of version 6 in brackets, as Compose wants it.
fn parse_address(text: &str) -> Result<IpAddr> {
    let inner = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address = match inner {
        Some(inner) => inner.parse::<Ipv6Addr>().map(IpAddr::from),
        None => text.parse::<Ipv4Addr>().map(IpAddr::from),
    };
    address.with_context(|| {
        format!(
            "HTTP_ADDRESS is {text:?}; it is an address of this host and no name: 0.0.0.0 is all of \
             them, 127.0.0.1 lets nobody else in, and one of IPv6 stands in brackets, as in [::]"
        )
    })
}

fn in_url(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("[{address}]"),
    }
}

/// The variables that `.env.example` describes.
///
/// # Errors
/// The file is not there or cannot be parsed.
pub(crate) fn variables(ctx: &Ctx) -> Result<Vec<Variable>> {
    env::describe(EXAMPLE, &example(ctx)?)
}

/// The text of `.env.example`.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn example(ctx: &Ctx) -> Result<String> {
    fs::read_to_string(ctx.root().join(EXAMPLE))
        .with_context(|| format!("read {EXAMPLE}, which describes every variable; restore it"))
}

/// Writes an environment file that is there whole or not at all, readable by its owner only.
///
/// # Errors
/// The folder or the disk does not take it.
pub(crate) fn write_private(ctx: &Ctx, path: &Path, text: &str) -> Result<()> {
    let name = shown(ctx, path);
    if ctx.is_dry_run() {
        ctx.ui.say(format!("  would write: {name}"));
        return Ok(());
    }
    let Some(folder) = path.parent() else { bail!("write {name}: it has no folder") };
    let write = || -> std::io::Result<()> {
        fs::create_dir_all(folder)?;
        // tempfile makes it with mode 0600.
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    };
    write().with_context(|| format!("write {name}"))
}

/// Makes an environment file private, if it is not, and says so. In production that is refused:
/// whoever could read the secrets may have them.
///
/// # Errors
/// The mode cannot be read or changed; or production's secrets were readable by others.
pub(crate) fn keep_private(ctx: &Ctx, project: &Project) -> Result<()> {
    let path = &project.env_file;
    let name = shown(ctx, path);
    let mode = fs::metadata(path).with_context(|| format!("look at {name}"))?.permissions().mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    ensure!(
        !project.is_production(),
        "{name} can be read by other users of this host (mode {:o}), and so can production's \
         secrets. `chmod 600 {name}`; if anybody else has an account here, rotate each secret with \
         `cargo xtask --prod env rotate SECRET`",
        mode & 0o777
    );
    if ctx.is_dry_run() {
        ctx.ui.say(format!("  would run: chmod 600 {name}"));
        return Ok(());
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
        .with_context(|| format!("take {name}'s secrets from other users: chmod 600 {name}"))?;
    ctx.ui.warn(format!(
        "{name} was readable by other users (mode {:o}); it is 0600 now",
        mode & 0o777
    ));
    Ok(())
}

/// A path as the person knows it: relative to the root where it lies below.
pub(crate) fn shown(ctx: &Ctx, path: &Path) -> String {
    path.strip_prefix(ctx.root()).unwrap_or(path).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(scheme: &str, address: &str) -> Project {
        let pairs = [
            ("NGINX_SCHEME", scheme),
            ("HTTP_ADDRESS", address),
            ("HTTP_PORT", "80"),
            ("HTTPS_PORT", "443"),
        ];
        let values = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Project {
            name: "x".to_owned(),
            env_file: PathBuf::new(),
            compose_files: Vec::new(),
            values: values.into_iter().collect(),
            root: PathBuf::new(),
        }
    }

    #[test]
    fn the_site_is_looked_for_where_it_is_published() {
        for (address, place, site) in [
            ("0.0.0.0", "127.0.0.1:443", "https://localhost:443"),
            ("127.0.0.1", "127.0.0.1:443", "https://localhost:443"),
            ("192.0.2.7", "192.0.2.7:443", "https://192.0.2.7:443"),
            ("[::]", "[::1]:443", "https://localhost:443"),
            ("[2001:db8::7]", "[2001:db8::7]:443", "https://[2001:db8::7]:443"),
        ] {
            let project = with("https", address);
            assert_eq!((project.https_place().as_str(), project.address().as_str()), (place, site));
        }
        // A laptop's stack is on 127.0.0.1, whatever stands there.
        assert_eq!(with("http", "192.0.2.7").address(), "http://127.0.0.1:80");
        assert_eq!(with("https", "0.0.0.0").own_address(), None);
    }

    #[test]
    fn an_address_that_compose_would_misread_is_refused() {
        for wrong in ["", "example.com", "::", "[1.2.3.4]", "1.2.3.4:80"] {
            let said = format!("{:#}", parse_address(wrong).unwrap_err());
            assert!(said.contains("HTTP_ADDRESS is") && said.contains("0.0.0.0"), "{said}");
        }
    }
}
