//! The base images without a registry: a small root of Debian, made with mmdebstrap from the
//! archive that this host's own apt uses. deploy/distro builds the services on it.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::ctx::{Ctx, Invocation};
use crate::host::packages::{self, Archive};
use crate::stack::project::Project;

/// With this begin the names of images that stand in for official ones. No engine asks a registry for them.
pub(crate) const PREFIX: &str = "localhost/distro/";
/// The root on which the service images stand.
pub(crate) const BASE_IMAGE: &str = "localhost/distro/debian:12";
/// The release with PostgreSQL 15 and Redis 7.0.
const CODENAME: &str = "bookworm";
const LIMIT: Duration = Duration::from_secs(10 * 60);

/// Whether this host can build the images at all.
///
/// # Errors
/// It is no Debian or Ubuntu, on which mmdebstrap is to be had.
pub(crate) fn check_possible(ctx: &Ctx) -> Result<()> {
    ensure!(
        packages::Distribution::here().has_apt() || ctx.find("mmdebstrap").is_some(),
        "building images from packages needs mmdebstrap, which Debian and Ubuntu have; on this \
         system, name images in a registry that can be reached (NGINX_IMAGE and so on in .env)"
    );
    Ok(())
}

/// Installs what the base root is made with, if it is not here.
///
/// # Errors
/// No consent, or apt fails.
pub(crate) fn provide_tools(ctx: &Ctx) -> Result<()> {
    let mut programs = vec![("mmdebstrap", "mmdebstrap")];
    if !rustix::process::geteuid().is_root() {
        // Who is not root makes the root in a user namespace, and this gives it its users.
        programs.push(("newuidmap", "uidmap"));
    }
    if packages::Distribution::here().id == "ubuntu"
        && !std::path::Path::new(packages::KEYRING).exists()
    {
        // Not a program; a name that is never on PATH has its package installed.
        programs.push(("debian-archive-keyring", "debian-archive-keyring"));
    }
    packages::ensure_programs(ctx, &programs, "make base images without a registry")
}

/// Makes the base root, unless it is here; with `force`, anew.
///
/// # Errors
/// The archive cannot be reached, or mmdebstrap fails for another reason.
pub(crate) fn provide_base(ctx: &Ctx, project: &Project, force: bool) -> Result<()> {
    if !force && super::ids(ctx, &[BASE_IMAGE])?.contains_key(BASE_IMAGE) {
        return Ok(());
    }
    let sources = sources(project.value("DISTRO_MIRROR"), &packages::archives(ctx)?)?;
    if !sources.iter().any(|line| line.contains("-security ")) {
        ctx.ui.say(
            "  no archive of Debian's security fixes is known here: the images get what the last point release \
             has; name one as the second word of DISTRO_MIRROR",
        );
    }
    let step = ctx.ui.step("base root of Debian 12").announce();
    fs::create_dir_all(ctx.state_dir()).context("make target/xtask")?;
    let folder = tempfile::tempdir_in(ctx.state_dir()).context("make a temporary folder")?;
    let tar = folder.path().join("root.tar");
    let made = ctx
        .run_step(&step, mmdebstrap(&tar.to_string_lossy(), &sources, proxy(ctx).as_deref()))
        .and_then(|()| ctx.run_step(&step, import(&tar.to_string_lossy())));
    match made {
        Ok(()) => step.done(""),
        Err(error) => {
            step.failed();
            return Err(error).context("make the base root of Debian 12");
        }
    }
    Ok(())
}

/// Lines of sources.list(5) for the release, its updates and its security fixes, from the
/// archives that the host uses or from the mirror that the person named.
fn sources(mirror: &str, archives: &[Archive]) -> Result<Vec<String>> {
    let line = |uri: &str, suite: &str| format!("deb {uri} {suite} main");
    let (updates, security) = (format!("{CODENAME}-updates"), format!("{CODENAME}-security"));
    let mut named = mirror.split_whitespace();
    if let Some(main) = named.next() {
        let main = [line(main, CODENAME), line(main, &updates)];
        return Ok(main.into_iter().chain(named.map(|uri| line(uri, &security))).collect());
    }
    let suites = [String::new(), "-updates".to_owned(), "-security".to_owned()];
    let found: Vec<String> = suites
        .iter()
        .filter_map(|suffix| {
            let suite = format!("{CODENAME}{suffix}");
            packages::mirror_of(archives, &suite).map(|uri| line(&uri, &suite))
        })
        .collect();
    if found.iter().any(|line| line.ends_with(&format!("{CODENAME} main"))) {
        return Ok(found);
    }
    // A newer Debian: its archive has the older release too.
    let any = |end: &str| {
        let found = archives.iter().find(|archive| archive.uri.ends_with(end));
        found.map(|archive| archive.uri.as_str())
    };
    let uri = any("/debian").context(
        "this host's apt uses no Debian archive; set DISTRO_MIRROR in .env to one and to that of its security \
         fixes, such as \"http://mirror.example.com/debian http://mirror.example.com/debian-security\"",
    )?;
    let main = [line(uri, CODENAME), line(uri, &updates)];
    Ok(main.into_iter().chain(any("/debian-security").map(|uri| line(uri, &security))).collect())
}

/// What the root is made of: what apt needs to install a service, and no manuals.
fn mmdebstrap(tar: &str, sources: &[String], proxy: Option<&str>) -> Invocation {
    let options = [
        "--variant=apt",
        "--format=tar",
        "--skip=output/dev",
        // The merged /usr, made without the package that converts an old system: it needs Perl,
        // 50 MB of it.
        "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
        "--aptopt=Acquire::Languages \"none\"",
        "--aptopt=APT::Install-Recommends \"false\"",
        // Nobody reads manuals in a container; licences stay. As hooks, because the option
        // `--dpkgopt=path-exclude` sends every package through a filter, which takes seconds.
        "--customize-hook=printf \"path-exclude=/usr/share/%s/*\\n\" doc info lintian locale man \
         >\"$1/etc/dpkg/dpkg.cfg.d/trim\"",
        "--customize-hook=echo \"path-include=/usr/share/doc/*/copyright\" \
         >>\"$1/etc/dpkg/dpkg.cfg.d/trim\"",
        "--customize-hook=cd \"$1/usr/share\" && rm -rf info lintian locale man && \
         find doc ! -type d ! -name copyright -delete",
        // This host's own name and name servers have no place in an image.
        "--customize-hook=rm -f \"$1/etc/hostname\" \"$1/etc/resolv.conf\"",
        CODENAME,
        tar,
    ];
    let mut invocation =
        Invocation::new("mmdebstrap").args(options).args(sources).env("SOURCE_DATE_EPOCH", "0");
    if let Some(proxy) = proxy {
        // In the environment, and not as an option of apt's: that would stay in the image.
        invocation = invocation.env("http_proxy", proxy);
    }
    invocation.limit(LIMIT)
}

/// The proxy that this host's apt uses, if any; image builds have to use it as well.
pub(crate) fn proxy(ctx: &Ctx) -> Option<String> {
    let command = Invocation::new("apt-config").args(["shell", "PROXY", "Acquire::http::Proxy"]);
    let text = ctx.read(command).ok()?;
    let value = text.trim().strip_prefix("PROXY='")?.strip_suffix('\'')?;
    (!value.is_empty()).then(|| value.to_owned())
}

fn import(tar: &str) -> Invocation {
    let changes = [
        "ENV LANG=C.UTF-8",
        "CMD [\"sh\"]",
        "LABEL org.opencontainers.image.title=\"Debian 12, minimal\" \
         org.opencontainers.image.version=\"12\" org.opencontainers.image.base.name=\"scratch\"",
    ];
    let changes = changes.iter().flat_map(|change| ["--change", change]);
    Invocation::new("docker").arg("import").args(changes).args([tar, BASE_IMAGE]).limit(LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(uri: &str, codename: &str) -> Archive {
        Archive { uri: uri.into(), codename: codename.into() }
    }

    #[test]
    fn the_hosts_own_archives_are_used() {
        let archives = [
            archive("http://m/debian", "bookworm"),
            archive("http://m/debian", "bookworm-updates"),
            archive("http://m/debian-security", "bookworm-security"),
            archive("http://m/debian", "trixie"),
        ];
        assert_eq!(
            sources("", &archives).unwrap(),
            [
                "deb http://m/debian bookworm main",
                "deb http://m/debian bookworm-updates main",
                "deb http://m/debian-security bookworm-security main",
            ]
        );
    }

    #[test]
    fn a_newer_debian_has_the_older_release_in_its_archive() {
        let trixie = [
            archive("http://m/debian", "trixie"),
            archive("http://m/debian-security", "trixie-security"),
        ];
        let expected = [
            "deb http://m/debian bookworm main",
            "deb http://m/debian bookworm-updates main",
            "deb http://m/debian-security bookworm-security main",
        ];
        assert_eq!(sources("", &trixie).unwrap(), expected);
        assert_eq!(sources("", &trixie[..1]).unwrap(), expected[..2]);
    }

    #[test]
    fn a_host_without_a_debian_archive_needs_a_mirror_by_name() {
        let ubuntu = [archive("http://m/ubuntu", "noble")];
        let error = sources("", &ubuntu).unwrap_err().to_string();
        assert!(error.contains("DISTRO_MIRROR"), "{error}");
        let found = sources("http://x/debian", &ubuntu).unwrap();
        assert_eq!(found[0], "deb http://x/debian bookworm main");
        let found = sources("http://x/debian http://x/debian-security", &ubuntu).unwrap();
        assert_eq!(found[2], "deb http://x/debian-security bookworm-security main");
    }
}
