//! Packages of Debian and Ubuntu: which are needed, from where, and how they are installed.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow, bail, ensure};

use crate::ctx::{Ctx, Invocation};
use crate::ui::Step;

/// A server that has just started installs its own updates, and holds the lock for minutes.
const PATIENCE: &str = "--option=DPkg::Lock::Timeout=300";
const LOCK_LIMIT: Duration = Duration::from_secs(300);
const LOCK_LOOK: Duration = Duration::from_secs(2);
const APT_LIMIT: Duration = Duration::from_secs(15 * 60);
/// The Debian release whose Docker is new enough and installs on Debian 12: its packages need
/// nothing newer than Debian 12's libc.
const DEBIAN_WITH_NEW_DOCKER: &str = "trixie";
const SOURCE_FILE: &str = "/etc/apt/sources.list.d/xtask-docker.sources";
const PIN_FILE: &str = "/etc/apt/preferences.d/xtask-docker";
/// The keys of Debian's archive; Ubuntu has them in a package of the same name.
pub(crate) const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A distribution, from os-release(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Distribution {
    pub(crate) id: String,
    pub(crate) codename: String,
    pub(crate) name: String,
}

impl Distribution {
    /// Reads `/etc/os-release`; an empty value on a system that has none.
    pub(crate) fn here() -> Distribution {
        Distribution::parse(&fs::read_to_string("/etc/os-release").unwrap_or_default())
    }

    fn parse(text: &str) -> Distribution {
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}=")));
            line.unwrap_or_default().trim_matches('"').to_owned()
        };
        let (id, codename) = (field("ID"), field("VERSION_CODENAME"));
        Distribution { id, codename, name: field("PRETTY_NAME") }
    }

    pub(crate) fn has_apt(&self) -> bool {
        matches!(self.id.as_str(), "debian" | "ubuntu")
    }
}

/// One act of an installation, as a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// Write a file that belongs to root.
    Write { path: &'static str, text: String },
    /// Run a program as root.
    Run(Vec<String>),
}

impl std::fmt::Display for Act {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Act::Write { path, text } => {
                let text = shlex::try_quote(text).unwrap_or_default();
                write!(f, "printf %s {text} | sudo tee {path}")
            }
            Act::Run(words) => write!(f, "sudo {}", words.join(" ")),
        }
    }
}

/// How Docker gets onto a distribution. `mirror` is where its own packages come from, and
/// `has_docker_ce` says that Docker's own packages are installed already.
///
/// # Errors
/// The system is not one whose packages we know; the message says what to install.
pub(crate) fn docker_acts(
    distribution: &Distribution,
    mirror: Option<&str>,
    has_docker_ce: bool,
) -> Result<Vec<Act>> {
    if has_docker_ce && distribution.has_apt() {
        let packages =
            ["docker-ce", "docker-ce-cli", "docker-compose-plugin", "docker-buildx-plugin"];
        return Ok(vec![update(), install(&packages)]);
    }
    match (distribution.id.as_str(), distribution.codename.as_str()) {
        ("debian", "bookworm") => {
            let mirror = mirror.context(
                "apt on this host knows no Debian archive; add one to its sources and try again",
            )?;
            let packages = ["docker.io", "docker-cli", "docker-compose", "docker-buildx"];
            let packages = packages.map(|name| format!("{name}/{DEBIAN_WITH_NEW_DOCKER}"));
            let packages: Vec<&str> = packages.iter().map(String::as_str).collect();
            Ok(vec![
                Act::Write { path: SOURCE_FILE, text: source(mirror) },
                Act::Write { path: PIN_FILE, text: pin() },
                update(),
                install(&packages),
            ])
        }
        ("debian", _) => Ok(vec![
            update(),
            install(&["docker.io", "docker-cli", "docker-compose", "docker-buildx"]),
        ]),
        ("ubuntu", _) => {
            Ok(vec![update(), install(&["docker.io", "docker-compose-v2", "docker-buildx"])])
        }
        _ => bail!(
            "{} is not a system that xtask can set up; install Docker Engine {} or newer, Compose \
             {} or newer and buildx (https://docs.docker.com/engine/install/), and run it again",
            if distribution.name.is_empty() { "this" } else { &distribution.name },
            super::tools::ENGINE_FLOOR,
            super::tools::COMPOSE_FLOOR
        ),
    }
}

/// Installs programs that are not here, with consent. `why` completes "is needed to …".
///
/// # Errors
/// No consent, no apt, or apt fails; the message has the command to run by hand.
pub(crate) fn ensure_programs(ctx: &Ctx, programs: &[(&str, &str)], why: &str) -> Result<()> {
    let missing: Vec<&str> = programs
        .iter()
        .filter(|(program, _)| ctx.find(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(", ");
    ensure!(
        Distribution::here().has_apt(),
        "{names} is needed to {why}; install it with this system's package manager"
    );
    let acts = [update(), install(&missing)];
    ctx.confirm(
        &format!("install {names}, needed to {why}"),
        &format!("pass --yes, or run: {}", acts[1]),
    )?;
    carry_out(ctx, &acts, &format!("installing {names}"))
}

/// Carries acts out as root: directly, or through sudo, which may ask for a password.
///
/// # Errors
/// An act fails; its own words are in the error.
pub(crate) fn carry_out(ctx: &Ctx, acts: &[Act], label: &str) -> Result<()> {
    become_root(ctx, label).map_err(|error| {
        let acts: Vec<String> = acts.iter().map(Act::to_string).collect();
        anyhow!("{error:#}. Whoever is root here can do it once:\n  {}", acts.join("\n  "))
    })?;
    let step = ctx.ui.step(label).announce();
    for act in acts {
        let result = match act {
            Act::Write { path, text } => ctx.run(as_root(["tee", path]).stdin(text.as_bytes())),
            Act::Run(words) => patiently(ctx, &step, LOCK_LOOK, || {
                as_root(words).env("DEBIAN_FRONTEND", "noninteractive")
            }),
        };
        if let Err(error) = result {
            step.failed();
            return Err(error.context(label.to_owned()));
        }
    }
    step.done("");
    Ok(())
}

/// Runs a program of apt's, again while another one holds the lock of the lists: for that one apt has no patience of
/// its own, and a server that has just started looks for updates.
fn patiently(
    ctx: &Ctx,
    step: &Step,
    look: Duration,
    command: impl Fn() -> Invocation,
) -> Result<()> {
    let end = Instant::now() + LOCK_LIMIT;
    loop {
        match ctx.run_step(step, command()) {
            Err(error) if is_about_the_lists(&error) && Instant::now() < end => {
                step.note("another program holds the lock of apt's lists");
                ctx.pause(look)?;
            }
            done => return done,
        }
    }
}

fn is_about_the_lists(error: &Error) -> bool {
    let said = format!("{error:#}");
    said.contains("Could not get lock") && said.contains("/apt/lists/lock")
}

/// Sees to it that commands may run as root: sudo asks for its password once, on the terminal, before
/// anything runs without one.
///
/// # Errors
/// There is no sudo, or it refuses.
pub(crate) fn become_root(ctx: &Ctx, label: &str) -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    ensure!(ctx.find("sudo").is_some(), "{label} needs root, and there is no sudo");
    let status = ctx.hand_over(Invocation::new("sudo").args(["--validate"]))?;
    ensure!(status.success(), "{label} needs root, and sudo refused");
    Ok(())
}

/// A command as root: as it is, or through sudo, which was given its password before ([`become_root`]). A
/// second question would stop a command that has no terminal for ever.
pub(crate) fn as_root<T: AsRef<str>>(words: impl IntoIterator<Item = T>) -> Invocation {
    let words = words.into_iter().map(|word| word.as_ref().to_owned());
    let sudo = ["sudo", "--non-interactive", "--preserve-env=DEBIAN_FRONTEND"].map(str::to_owned);
    let is_root = rustix::process::geteuid().is_root();
    let mut words = sudo.into_iter().filter(|_| !is_root).chain(words);
    let program = words.next().unwrap_or_default();
    Invocation::new(program).args(words).limit(APT_LIMIT)
}

/// An archive that apt knows: where it is, and the release that it is used for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Archive {
    pub(crate) uri: String,
    pub(crate) codename: String,
}

/// Debian's archives that this host's apt is configured for, and mirrors of them.
///
/// # Errors
/// apt cannot be asked.
pub(crate) fn archives(ctx: &Ctx) -> Result<Vec<Archive>> {
    let format = "$(REPO_URI) $(CODENAME) $(COMPONENT) $(ORIGIN)";
    let command = Invocation::new("apt-get").args([
        "indextargets",
        "--format",
        format,
        "Created-By: Packages",
    ]);
    let text = ctx.read(command).context("ask apt which archives this host uses")?;
    Ok(parse_archives(&text))
}

fn parse_archives(text: &str) -> Vec<Archive> {
    let mut found = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        // Others have a `main` for `bookworm` as well, and not these packages.
        if let [uri, codename, "main", "Debian"] = words[..] {
            let archive = Archive {
                uri: uri.trim_end_matches('/').to_owned(),
                codename: codename.to_owned(),
            };
            if !found.contains(&archive) {
                found.push(archive);
            }
        }
    }
    found
}

/// Where the packages of a release come from on this host, its updates and security aside.
pub(crate) fn mirror_of(archives: &[Archive], codename: &str) -> Option<String> {
    let of_release = archives.iter().find(|archive| archive.codename == codename);
    of_release.map(|archive| archive.uri.clone())
}

/// Whether Docker's own packages are installed.
pub(crate) fn has_docker_ce(ctx: &Ctx) -> bool {
    let query =
        Invocation::new("dpkg-query").args(["--show", "--showformat=${Status}", "docker-ce"]);
    ctx.read(query).is_ok_and(|status| status.contains("install ok installed"))
}

fn update() -> Act {
    Act::Run(["apt-get", "update", "--quiet", PATIENCE].map(str::to_owned).to_vec())
}

fn install(packages: &[&str]) -> Act {
    let words = [
        "apt-get",
        "install",
        "--yes",
        "--quiet",
        "--no-install-recommends",
        PATIENCE,
        // The person's own changes to configuration files stay.
        "--option=Dpkg::Options::=--force-confold",
    ];
    Act::Run(words.iter().chain(packages).map(|&word| word.to_owned()).collect())
}

fn source(mirror: &str) -> String {
    format!(
        "# Docker's packages of the next release; see the pin in {PIN_FILE}.\n\
         Types: deb\nURIs: {mirror}\nSuites: {DEBIAN_WITH_NEW_DOCKER}\nComponents: main\n\
         Signed-By: {KEYRING}\n"
    )
}

/// Below every priority by which apt would choose a package by itself (apt_preferences(5)): only
/// what is asked for by release comes from there.
fn pin() -> String {
    format!("Package: *\nPin: release n={DEBIAN_WITH_NEW_DOCKER}\nPin-Priority: 50\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn distribution(id: &str, codename: &str) -> Distribution {
        Distribution { id: id.into(), codename: codename.into(), name: "Some System".into() }
    }

    #[test]
    fn the_lock_of_the_lists_is_waited_for_and_nothing_else_is() {
        let ctx = crate::ctx::tests::ctx(crate::ctx::Options::default());
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tries").display().to_string();
        let tries = |said: &str| {
            let script = format!(
                "echo x >>{file}; [ $(wc -l <{file}) -ge 3 ] || {{ echo 'E: {said}' >&2; exit 100; }}"
            );
            let _ = fs::remove_file(&file);
            let command = || Invocation::new("sh").args(["-c", &script]);
            let done = patiently(&ctx, &ctx.ui.step("update"), Duration::ZERO, command);
            (done.is_ok(), fs::read_to_string(&file).unwrap().lines().count())
        };
        assert_eq!(tries("Could not get lock /var/lib/apt/lists/lock. It is held by 7"), (true, 3));
        assert_eq!(tries("Unable to locate package x"), (false, 1));
    }

    #[test]
    fn os_release_is_read() {
        let text = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_CODENAME=bookworm\nID=debian\n";
        let here = Distribution::parse(text);
        assert_eq!((here.id.as_str(), here.codename.as_str()), ("debian", "bookworm"));
    }

    #[test]
    fn debian_12_takes_docker_and_nothing_else_from_the_next_release() {
        let acts = docker_acts(&distribution("debian", "bookworm"), Some("http://m/debian"), false);
        let acts = acts.unwrap();
        let text: Vec<String> = acts.iter().map(Act::to_string).collect();
        assert!(text[0].contains("URIs: http://m/debian\nSuites: trixie"), "{}", text[0]);
        assert!(text[1].contains("Pin-Priority: 50"), "{}", text[1]);
        assert!(
            text[3].ends_with(
                "docker.io/trixie docker-cli/trixie docker-compose/trixie docker-buildx/trixie"
            ),
            "{}",
            text[3]
        );
    }

    #[test]
    fn newer_systems_take_their_own_packages_and_dockers_own_stay() {
        let last = |id, codename, ce| {
            let acts = docker_acts(&distribution(id, codename), None, ce).unwrap();
            acts.last().unwrap().to_string()
        };
        assert!(
            last("debian", "trixie", false)
                .ends_with("docker.io docker-cli docker-compose docker-buildx")
        );
        assert!(
            last("ubuntu", "noble", false).ends_with("docker.io docker-compose-v2 docker-buildx")
        );
        assert!(last("debian", "bookworm", true).contains("docker-compose-plugin"));
    }

    #[test]
    fn other_systems_are_told_what_to_install() {
        let error = docker_acts(&distribution("fedora", ""), None, false).unwrap_err().to_string();
        assert!(error.starts_with("Some System is not a system"), "{error}");
        assert!(error.contains("25.0.0") && error.contains("2.24.1"), "{error}");
    }

    #[test]
    fn the_archive_of_a_release_is_found_among_apts_sources() {
        let text = "http://x/debian/ bookworm main MariaDB\nhttp://m/debian/ bookworm main Debian\n\
                    http://m/debian/ bookworm-updates main Debian\n\
                    http://m/debian-security/ bookworm-security main Debian\n\
                    http://m/debian/ bookworm contrib Debian\nhttp://x/ nodistro main\n";
        let archives = parse_archives(text);
        assert_eq!(archives.len(), 3);
        assert_eq!(mirror_of(&archives, "bookworm"), Some("http://m/debian".into()));
        assert_eq!(mirror_of(&archives, "noble"), None);
    }
}
