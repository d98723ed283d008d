//! The certificate that nginx shows in production: whether it can be used, and whether it is shown.
//!
//! `openssl` reads it: it is on nearly every host, `setup` knows how to install it, and a library for
//! certificates would take longer to build than the rest of xtask.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use crate::ctx::{Ctx, Invocation};
use crate::host::packages;
use crate::images::hex;
use crate::stack::project::{Project, shown};

/// The certificate, and behind it those that lead to an authority.
pub(crate) const CHAIN: &str = "fullchain.pem";
/// Its private key.
pub(crate) const KEY: &str = "privkey.pem";
/// The user that nginx runs as: compose.yaml.
pub(crate) const NGINX_USER: u32 = 101;
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const RELOAD_LIMIT: Duration = Duration::from_secs(30);
const RELOAD_PAUSE: Duration = Duration::from_millis(50);

/// What is worth knowing of a certificate that can be used.
pub(crate) struct Certificate {
    pub(crate) not_after: SystemTime,
    /// Host names and addresses, as openssl prints them: `DNS:localhost, IP Address:127.0.0.1`.
    pub(crate) names: String,
    /// No authority vouches for it.
    pub(crate) self_signed: bool,
    /// It is expired or not valid yet, and nothing else is wrong with it.
    untimely: Option<String>,
}

impl Certificate {
    /// Whole days until it expires.
    pub(crate) fn days_left(&self) -> u64 {
        let left = self.not_after.duration_since(SystemTime::now()).unwrap_or_default();
        left.as_secs() / (24 * 60 * 60)
    }

    /// The certificate, where it is valid at this time.
    ///
    /// # Errors
    /// It is expired, or not valid yet.
    fn timely(self) -> Result<Certificate> {
        match self.untimely {
            None => Ok(self),
            Some(reason) => bail!(reason),
        }
    }
}

/// Whether this stack speaks HTTPS, and so needs a certificate.
pub(crate) fn is_needed(project: &Project) -> bool {
    project.value("NGINX_SCHEME") == "https"
}

/// The folder that is mounted into nginx's container.
pub(crate) fn folder(ctx: &Ctx, project: &Project) -> PathBuf {
    ctx.root().join(project.value("CERTS_DIR"))
}

/// Makes sure that `openssl` is there.
///
/// # Errors
/// It is not, and cannot be installed.
pub(crate) fn ensure_openssl(ctx: &Ctx) -> Result<()> {
    packages::ensure_programs(ctx, &[("openssl", "openssl")], "read certificates")
}

/// Looks at the stack's certificate as nginx and a browser will.
///
/// # Errors
/// As of [`expect_usable`]; or it is expired, or not valid yet.
pub(crate) fn check(ctx: &Ctx, project: &Project) -> Result<Certificate> {
    look(ctx, project)?.timely()
}

/// Makes sure that nginx can start with the stack's certificate. One whose time is over is shown all the same, with a
/// warning: browsers refuse it, and an ACME client renews it through this very nginx.
///
/// # Errors
/// It is missing, cannot be read by nginx or can be read by others, does not belong to its key, or lacks the
/// certificates that lead to its authority.
pub(crate) fn expect_usable(ctx: &Ctx, project: &Project) -> Result<()> {
    if let Some(reason) = look(ctx, project)?.untimely {
        ctx.ui.warn(format!("BROWSERS REFUSE THIS SITE: {reason}"));
    }
    Ok(())
}

fn look(ctx: &Ctx, project: &Project) -> Result<Certificate> {
    // Nothing is installed for a look.
    ensure!(
        ctx.find("openssl").is_some(),
        "certificates are read with openssl, which is not here; install the package `openssl`"
    );
    let folder = folder(ctx, project);
    let (chain, key) = (folder.join(CHAIN), folder.join(KEY));
    for path in [&chain, &key] {
        ensure!(
            path.is_file(),
            "there is no {}, and production speaks HTTPS. `cargo xtask cert self-signed` makes one \
             to try it with; `cargo xtask cert install CHAIN KEY` takes a real one over \
             (docs/tls.md)",
            shown(ctx, path)
        );
    }
    check_access(ctx, &folder, &chain, &key)?;
    look_at_pair(ctx, &chain, &key)
}

/// The same as [`check`] for two files anywhere.
///
/// # Errors
/// As [`check`], but for who else can read them.
pub(crate) fn check_pair(ctx: &Ctx, chain: &Path, key: &Path) -> Result<Certificate> {
    look_at_pair(ctx, chain, key)?.timely()
}

fn look_at_pair(ctx: &Ctx, chain: &Path, key: &Path) -> Result<Certificate> {
    let name = shown(ctx, chain);
    let text = fs::read_to_string(chain).with_context(|| format!("read {name}"))?;
    let certificates: Vec<String> =
        text.split(BEGIN).skip(1).map(|rest| format!("{BEGIN}{rest}")).collect();
    let Some(leaf) = certificates.first() else {
        bail!("{name} holds no certificate in PEM form (`{BEGIN}`)");
    };
    let own = openssl_x509(ctx, leaf, &["-pubkey"]).with_context(|| format!("read {name}"))?;
    expect_readable(ctx, key)?;
    // Without this, a key with a passphrase would be asked for here, and nginx cannot ask.
    let keys = Invocation::new("openssl").args(["pkey", "-passin", "pass:", "-pubout", "-in"]);
    let of_key = ctx.read(keys.arg(key)).with_context(|| {
        format!(
            "read the key {0}: it must be in PEM form and without a passphrase, which nobody is \
             there to type; `openssl pkey -in {0} -out FILE` takes it off",
            shown(ctx, key)
        )
    })?;
    ensure!(
        own.trim() == of_key.trim(),
        "{} is not the key of {name}: they come from different requests. Put the pair there that \
         was issued together",
        shown(ctx, key)
    );
    let self_signed = check_chain(ctx, &name, &certificates)?;
    let names = openssl_x509(ctx, leaf, &["-ext", "subjectAltName"])?;
    let names = names.lines().nth(1).unwrap_or_default().trim().to_owned();
    let (not_after, untimely) = look_at_time(ctx, &name, leaf)?;
    Ok(Certificate { not_after, names, self_signed, untimely })
}

/// Whoever compares a key with its certificate has to read it. nginx' own user can, whoever we are.
fn expect_readable(ctx: &Ctx, key: &Path) -> Result<()> {
    let Err(error) = fs::File::open(key) else { return Ok(()) };
    let name = shown(ctx, key);
    if error.kind() != ErrorKind::PermissionDenied {
        return Err(error).with_context(|| format!("read the key {name}"));
    }
    let folder = key.parent().unwrap_or(key);
    let close = if is_closed(folder) {
        String::new()
    } else {
        format!("chmod 700 {} && ", shown(ctx, folder.parent().unwrap_or(folder)))
    };
    let owner = fs::metadata(key).map(|data| data.uid().to_string()).unwrap_or_default();
    bail!(
        "{name} belongs to user {owner} of this host, and who you are may not read it to compare it with its \
         certificate. In a folder that is closed to others it can be yours, and nginx reads it all the same: \
         {close}sudo chown \"$(id -u)\" {name} && chmod 644 {name}"
    );
}

/// Until when it is valid, and what is wrong with that.
fn look_at_time(ctx: &Ctx, name: &str, leaf: &str) -> Result<(SystemTime, Option<String>)> {
    let dates = openssl_x509(ctx, leaf, &["-startdate", "-enddate", "-dateopt", "iso_8601"])?;
    let time = |key: &str| -> Result<SystemTime> {
        let value = dates.lines().find_map(|line| line.strip_prefix(key));
        let value = value.with_context(|| format!("find {key} in what openssl said of {name}"))?;
        humantime::parse_rfc3339_weak(value.trim_end_matches('Z'))
            .with_context(|| format!("read the date {value:?} of {name}"))
    };
    let (from, until) = (time("notBefore=")?, time("notAfter=")?);
    let now = SystemTime::now();
    let day = |time| humantime::format_rfc3339_seconds(time);
    let untimely = if now < from {
        Some(format!(
            "{name} is valid from {} on, and this host's clock says {}; `cargo xtask doctor` looks at the clock",
            day(from),
            day(now)
        ))
    } else if now >= until {
        Some(format!(
            "{name} expired at {}. Have the ACME client renew it, which takes nginx up (docs/tls.md), or put another \
             one there: `cargo xtask cert install CHAIN KEY`",
            day(until)
        ))
    } else {
        None
    };
    Ok((until, untimely))
}

/// Each certificate must be followed by the one that vouches for it; browsers know the last one's
/// issuer. True if there is none but itself.
fn check_chain(ctx: &Ctx, name: &str, certificates: &[String]) -> Result<bool> {
    let mut links = Vec::new();
    for certificate in certificates {
        let said = openssl_x509(ctx, certificate, &["-subject", "-issuer", "-nameopt", "RFC2253"])?;
        let line = |key: &str| {
            let line = said.lines().find_map(|line| line.strip_prefix(key));
            line.unwrap_or_default().to_owned()
        };
        links.push((line("subject="), line("issuer=")));
    }
    for pair in links.windows(2) {
        ensure!(
            pair[0].1 == pair[1].0,
            "the certificates in {name} are no chain: `{}` was issued by `{}`, and `{}` follows. \
             The order is: the site's own, then the one that issued it",
            pair[0].0,
            pair[0].1,
            pair[1].0
        );
    }
    let self_signed = links[0].0 == links[0].1;
    ensure!(
        self_signed || links.len() > 1,
        "{name} holds the site's certificate alone; `{}`, which issued it, is missing, and many \
         clients would refuse the connection. Use the full chain",
        links[0].1
    );
    Ok(self_signed)
}

/// nginx must be able to read the files, and other users of this host must not get at the key.
fn check_access(ctx: &Ctx, folder: &Path, chain: &Path, key: &Path) -> Result<()> {
    let may = |path: &Path, bit: u32| -> Result<bool> {
        let data = fs::metadata(path).with_context(|| format!("look at {}", shown(ctx, path)))?;
        let mode = data.permissions().mode();
        let is_owner = data.uid() == NGINX_USER && mode & (bit << 6) != 0;
        let is_group = data.gid() == NGINX_USER && mode & (bit << 3) != 0;
        Ok(is_owner || is_group || mode & bit != 0)
    };
    for (path, bit) in [(folder, 1), (chain, 4), (key, 4)] {
        ensure!(
            may(path, bit)?,
            "nginx runs as user {NGINX_USER} and cannot read {}; `cargo xtask cert install CHAIN \
             KEY` puts the files there as they must be",
            shown(ctx, path)
        );
    }
    let mode = fs::metadata(key)?.permissions().mode();
    ensure!(
        mode & 0o004 == 0 || is_closed(folder),
        "{} can be read by every user of this host. Close the folder above it: chmod 700 {}",
        shown(ctx, key),
        shown(ctx, folder.parent().unwrap_or(folder))
    );
    Ok(())
}

/// Whether some folder on the way to this one lets no other user pass. The container does not pass
/// there: the engine mounts the folder itself.
pub(crate) fn is_closed(folder: &Path) -> bool {
    let closed =
        |path: &Path| fs::metadata(path).is_ok_and(|data| data.permissions().mode() & 0o001 == 0);
    folder.ancestors().skip(1).any(closed)
}

/// Has a running nginx show the certificate that is in the folder, if it does not yet: a reload, in
/// which no connection is lost. Says whether it was needed.
///
/// # Errors
/// nginx refuses its configuration, or does not show the certificate in time.
pub(crate) fn bring_into_force(ctx: &Ctx, project: &Project, nginx: &str) -> Result<bool> {
    let chain = folder(ctx, project).join(CHAIN);
    let text = fs::read(&chain).with_context(|| format!("read {}", shown(ctx, &chain)))?;
    let digest = hex(&Sha256::digest(&text));
    let mark = project.state_dir(ctx).join("certificate");
    let known = fs::read_to_string(&mark).unwrap_or_default();
    if known == format!("{digest} {nginx}") {
        return Ok(false);
    }
    let expected = openssl_x509(ctx, &String::from_utf8_lossy(&text), &["-fingerprint"])?;
    let look = || -> Result<()> {
        let seen = shown_fingerprint(ctx, project);
        ensure!(seen.as_deref() == Some(expected.trim()), "it shows {seen:?}, not {expected:?}");
        Ok(())
    };
    let needed = look().is_err();
    if needed {
        reload(ctx, nginx)?;
        ctx.wait_until("nginx to show the certificate", RELOAD_LIMIT, RELOAD_PAUSE, look)?;
    }
    fs::create_dir_all(project.state_dir(ctx)).context("make the folder for xtask's notes")?;
    fs::write(&mark, format!("{digest} {nginx}")).context("note the certificate in force")?;
    Ok(needed)
}

/// Checks nginx's configuration, then has it read everything again.
fn reload(ctx: &Ctx, nginx: &str) -> Result<()> {
    let inside = |words: &[&str]| {
        let command = Invocation::new("docker").args(["exec", nginx, "nginx"]);
        command.args(words.iter().copied()).limit(RELOAD_LIMIT)
    };
    // A reload with a mistake would be refused silently, in the log.
    ctx.run(inside(&["-t", "-q"])).context("have nginx check its configuration")?;
    ctx.run(inside(&["-s", "reload"])).context("reload nginx")
}

fn shown_fingerprint(ctx: &Ctx, project: &Project) -> Option<String> {
    let client = Invocation::new("openssl")
        .args(["s_client", "-connect", &project.https_place(), "-servername", "localhost"])
        .stdin(Vec::new())
        .limit(Duration::from_secs(10));
    let shown = ctx.try_read(client).ok()?.stdout;
    let start = shown.find(BEGIN)?;
    Some(openssl_x509(ctx, &shown[start..], &["-fingerprint"]).ok()?.trim().to_owned())
}

fn openssl_x509(ctx: &Ctx, certificate: &str, ask: &[&str]) -> Result<String> {
    let command = Invocation::new("openssl").args(["x509", "-noout"]).args(ask.iter().copied());
    ctx.read(command.stdin(certificate.as_bytes().to_vec()))
}
