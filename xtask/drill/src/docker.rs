//! The drill's only door to other programs. Each call has a deadline, and none outlives it.

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::process::Command;
use tokio::time::timeout;

/// How long the engine may take for something simple.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs `docker ARGS` and returns what it printed.
///
/// # Errors
/// It fails, or takes longer than a minute.
pub async fn docker(args: &[&str]) -> Result<String> {
    run("docker", args, LIMIT).await
}

/// Runs a program and returns what it printed on standard output.
///
/// # Errors
/// It cannot be started, fails, or takes longer than `limit`.
pub async fn run(program: &str, args: &[&str], limit: Duration) -> Result<String> {
    let output = output(program, args, limit).await?;
    if !output.status.success() {
        let (shown, text) = (shown(program, args), String::from_utf8_lossy(&output.stderr));
        bail!("`{shown}` failed ({}): {}", output.status, text.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a program to its end, whatever that is.
///
/// # Errors
/// It cannot be started, or takes longer than `limit`.
pub async fn output(program: &str, args: &[&str], limit: Duration) -> Result<Output> {
    let shown = shown(program, args);
    let mut command = command(program);
    // A process group of its own: Ctrl-C is for the drill, which then puts things right.
    command.args(args).stdin(Stdio::null()).process_group(0).kill_on_drop(true);
    timeout(limit, command.output())
        .await
        .with_context(|| format!("`{shown}` took longer than {} s", limit.as_secs()))?
        .with_context(|| format!("start `{shown}`"))
}

fn shown(program: &str, args: &[&str]) -> String {
    format!("{program} {}", args.join(" "))
}

/// Runs a program whose output the person sees.
///
/// # Errors
/// It cannot be started, fails, or takes longer than `limit`.
pub async fn run_loud(program: &Path, args: &[&str], limit: Duration) -> Result<()> {
    let shown = format!("{} {}", program.display(), args.join(" "));
    let mut command = command(program);
    command.args(args).stdin(Stdio::null()).kill_on_drop(true);
    let status = timeout(limit, command.status())
        .await
        .with_context(|| format!("`{shown}` took longer than {} s", limit.as_secs()))?
        .with_context(|| format!("start `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` failed ({status}); its output stands above");
    }
    Ok(())
}

fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    // By this variable cargo tells a program where its crate lies; it would mislead another one.
    command.env_remove("CARGO_MANIFEST_DIR");
    command
}
