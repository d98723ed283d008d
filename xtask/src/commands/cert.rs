//! `cert`: the certificate that nginx shows in production.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::cli::{CertArgs, CertVerb};
use crate::commands::up::running_container;
use crate::ctx::{Ctx, Invocation};
use crate::stack::certificate::{self, CHAIN, Certificate, KEY, NGINX_USER};
use crate::stack::project::{LOCAL_ENV, PRODUCTION_ENV, Project, shown};
use crate::stack::running;

/// Browsers refuse more than 398; a certificate to try things with need not live long.
const SELF_SIGNED_DAYS: &str = "90";

/// Carries out `cert self-signed`, `install`, `check` or `reload`.
///
/// # Errors
/// The certificate cannot be made, read or used; the message says why.
pub(crate) fn cert(ctx: &Ctx, env_file: &Path, args: &CertArgs) -> Result<()> {
    // A laptop's stack has no certificate, so whoever says nothing else means production's.
    let production = ctx.root().join(PRODUCTION_ENV);
    let is_default = env_file == ctx.root().join(LOCAL_ENV);
    let env_file = if is_default { &production } else { env_file };
    let project = Project::load(ctx, env_file)?;
    match &args.verb {
        CertVerb::SelfSigned { names } => self_signed(ctx, &project, names),
        CertVerb::Install { chain, key } => install(ctx, &project, env_file, chain, key),
        CertVerb::Check => {
            let certificate = certificate::check(ctx, &project)?;
            say(ctx, &project, &certificate);
            Ok(())
        }
        CertVerb::Reload => reload(ctx, env_file),
    }
}

fn self_signed(ctx: &Ctx, project: &Project, names: &[String]) -> Result<()> {
    certificate::ensure_openssl(ctx)?;
    let folder = certificate::folder(ctx, project);
    if folder.join(CHAIN).exists() {
        ctx.confirm_loss(
            &format!("replace the certificate and the key in {}", shown(ctx, &folder)),
            "--yes replaces them",
        )?;
    }
    if ctx.is_dry_run() {
        ctx.ui.say(format!("  would write: {CHAIN} and {KEY} in {}", shown(ctx, &folder)));
        return Ok(());
    }
    let scratch = tempfile::tempdir().context("make a folder for the new key")?;
    let (config, chain, key) =
        (scratch.path().join("config"), scratch.path().join(CHAIN), scratch.path().join(KEY));
    let own = project.own_address().map(|address| address.to_string());
    let names: Vec<String> = own.into_iter().chain(names.iter().cloned()).collect();
    fs::write(&config, request(&names)).context("write the request")?;
    let words = ["req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt"];
    let command = Invocation::new("openssl")
        .args(words)
        .args(["ec_paramgen_curve:prime256v1", "-days", SELF_SIGNED_DAYS, "-config"])
        .arg(&config)
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&chain);
    ctx.run(command).context("make a certificate")?;
    put(ctx, project, &chain, &key)?;
    say(ctx, project, &certificate::check(ctx, project)?);
    Ok(())
}

/// What openssl is asked for: this machine's own names and those of the person.
fn request(names: &[String]) -> String {
    let local = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
    let entry = |name: &String| match name.parse::<std::net::IpAddr>() {
        Ok(address) => format!("IP:{address}"),
        Err(_) => format!("DNS:{name}"),
    };
    let others = names.iter().filter(|name| !local.contains(name));
    let names: Vec<String> = local.iter().chain(others).map(entry).collect();
    format!(
        "[req]\ndistinguished_name = name\nx509_extensions = extensions\nprompt = no\n\
         [name]\nCN = {}\n\
         [extensions]\nsubjectAltName = {}\nbasicConstraints = critical, CA:FALSE\n\
         keyUsage = critical, digitalSignature\nextendedKeyUsage = serverAuth\n",
        "self-signed",
        names.join(", ")
    )
}

fn install(ctx: &Ctx, project: &Project, env_file: &Path, chain: &Path, key: &Path) -> Result<()> {
    certificate::ensure_openssl(ctx)?;
    let certificate = certificate::check_pair(ctx, chain, key)?;
    if ctx.is_dry_run() {
        say(ctx, project, &certificate);
        return Ok(());
    }
    put(ctx, project, chain, key)?;
    say(ctx, project, &certificate::check(ctx, project)?);
    // The stack may not run yet: a certificate is there before the first start. That the engine cannot be
    // asked is another matter: the old one would be served until it expires.
    let containers = if ctx.find("docker").is_some() {
        running::containers(ctx, project).context(
            "the certificate is in its place, and whether nginx has to be told is not known; \
             `cargo xtask cert reload` does it",
        )?
    } else {
        Vec::new()
    };
    if containers.iter().any(|c| c.service == "nginx" && c.is_running()) {
        return reload(ctx, env_file);
    }
    Ok(())
}

fn reload(ctx: &Ctx, env_file: &Path) -> Result<()> {
    let (project, nginx) = running_container(ctx, env_file, "nginx")?;
    certificate::check(ctx, &project)?;
    let reloaded = certificate::bring_into_force(ctx, &project, &nginx.id)?;
    ctx.ui.say(if reloaded {
        "nginx shows the new certificate; no connection was lost"
    } else {
        "nothing to do, nginx shows this certificate already"
    });
    Ok(())
}

/// Copies a pair to where nginx reads it. Both files are whole and on the disk before the first gets its
/// name; nginx reads both at a reload only.
fn put(ctx: &Ctx, project: &Project, chain: &Path, key: &Path) -> Result<()> {
    let folder = certificate::folder(ctx, project);
    let name = shown(ctx, &folder);
    prepare(&folder).with_context(|| format!("make {name}"))?;
    let closed = certificate::is_closed(&folder);
    let mut written = Vec::new();
    for (from, to, is_key) in [(key, KEY, true), (chain, CHAIN, false)] {
        let bytes = fs::read(from).with_context(|| format!("read {}", from.display()))?;
        let mut file =
            tempfile::NamedTempFile::new_in(&folder).with_context(|| format!("write to {name}"))?;
        std::io::Write::write_all(&mut file, &bytes)?;
        let mode = if is_key && !closed { 0o400 } else { 0o644 };
        file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
        if is_key && !closed {
            let given = chown(file.path(), Some(NGINX_USER), Some(NGINX_USER));
            ensure!(
                given.is_ok(),
                "{name} is open to every user of this host, and the key cannot be given to nginx' \
                 user alone without root. Close the folder above: chmod 700 {}",
                shown(ctx, folder.parent().unwrap_or(&folder))
            );
        }
        file.as_file().sync_all()?;
        written.push((file, to));
    }
    for (file, to) in written {
        file.persist(folder.join(to)).with_context(|| format!("write {name}/{to}"))?;
    }
    Ok(())
}

/// The folder is open, because nginx' user is another one than ours; the one above it, if it is ours
/// to make, is closed, and the engine passes it all the same.
fn prepare(folder: &Path) -> std::io::Result<()> {
    if let Some(above) = folder.parent() {
        // All that are made on the way: one that is shared with another stack's certificate is closed for that, too.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(above)?;
    }
    fs::create_dir_all(folder)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755))
}

fn say(ctx: &Ctx, project: &Project, certificate: &Certificate) {
    let by = if certificate.self_signed { "self-signed" } else { "issued by an authority" };
    ctx.ui.say(format!(
        "{}: {by}, valid for {} days, for {}",
        shown(ctx, &certificate::folder(ctx, project).join(CHAIN)),
        certificate.days_left(),
        certificate.names
    ));
}
