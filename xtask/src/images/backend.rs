//! The backend's binary, compiled on this host, for images that are built without a registry.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::ctx::{Ctx, Invocation};

/// The folder that stands in for the Dockerfile's stage `build` (deploy/distro/compose.yaml).
const STAGE: &str = "target/image";
/// The package, and its binary.
pub(crate) const BACKEND: &str = "backend";
const LIMIT: Duration = Duration::from_secs(30 * 60);

/// Compiles the backend and puts the binary where the image build expects it.
///
/// # Errors
/// The compiler finds a mistake; its messages are shown as they come.
pub(crate) fn compile(ctx: &Ctx) -> Result<()> {
    stage(ctx, &static_binary(ctx, BACKEND)?)
}

/// Compiles the binary of a package so that it runs on any base image, and says where it is.
///
/// # Errors
/// The compiler finds a mistake; its messages are shown as they come.
pub(crate) fn static_binary(ctx: &Ctx, package: &str) -> Result<PathBuf> {
    let step = ctx.ui.step(format!("compiling the {package}")).announce();
    let command = cargo_build(package)?;
    ctx.ui.echo(&command.to_string());
    let mut executable = None;
    let mut messages = Vec::new();
    let status = ctx.stream(&command.dir(ctx.root()), |line| {
        if line.starts_with('{') {
            executable = executable_in(&line, package).or(executable.take());
        } else {
            step.note(&line);
            messages.push(line);
        }
    })?;
    let Some(executable) = executable.filter(|_| status.success()) else {
        step.failed();
        messages.retain(|line| !line.trim_start().starts_with("Compiling"));
        bail!("the {package} does not compile:\n{}", messages.join("\n"));
    };
    step.done("");
    Ok(executable)
}

/// A static binary runs on an empty base, whatever libc this host has.
///
/// # Errors
/// This host's architecture is not one that it is done for.
pub(crate) fn cargo_build(package: &str) -> Result<Invocation> {
    let target = match std::env::consts::ARCH {
        arch @ ("x86_64" | "aarch64") => format!("{arch}-unknown-linux-gnu"),
        arch => bail!("images without a registry are built on x86_64 and aarch64, not on {arch}"),
    };
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let args = ["build", "--release", "--locked", "--package", package, "--target", &target];
    Ok(Invocation::new(cargo)
        .args(args)
        .arg("--message-format=json-render-diagnostics")
        // Of cargo's ways to be told flags the one that goes before all others: a person's RUSTFLAGS would
        // make a binary that needs a C library, which the image does not have.
        .env("CARGO_ENCODED_RUSTFLAGS", "-C\x1ftarget-feature=+crt-static")
        .limit(LIMIT))
}

/// The path in cargo's message about the finished binary.
fn executable_in(line: &str, package: &str) -> Option<PathBuf> {
    let message: Value = serde_json::from_str(line).ok()?;
    let is_it = message["target"]["name"] == package;
    message["executable"].as_str().filter(|_| is_it).map(PathBuf::from)
}

fn stage(ctx: &Ctx, executable: &Path) -> Result<()> {
    let folder = ctx.root().join(STAGE).join("out");
    let copy = || -> std::io::Result<()> {
        fs::create_dir_all(&folder)?;
        let partial = folder.join("backend.partial");
        fs::copy(executable, &partial)?;
        fs::rename(&partial, folder.join("backend"))
    };
    copy().with_context(|| format!("copy {} to {}", executable.display(), folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cargos_message_names_the_binary() {
        let line = r#"{"reason":"compiler-artifact","target":{"name":"backend"},"executable":"/t/backend"}"#;
        assert_eq!(executable_in(line, BACKEND), Some(PathBuf::from("/t/backend")));
        let library =
            r#"{"reason":"compiler-artifact","target":{"name":"backend"},"executable":null}"#;
        assert_eq!(executable_in(library, BACKEND), None);
    }
}
