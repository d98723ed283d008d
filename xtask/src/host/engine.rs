//! The Docker Engine as a service of this host: start it, with or without systemd.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::ctx::{Ctx, Invocation};
use crate::host::packages::{self, Act};
use crate::host::tools;

const PID_FILE: &str = "/var/run/docker.pid";
const LOG_FILE: &str = "/var/log/docker.log";
/// A first start lays out the engine's data folder, which takes a while on a slow disk.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long an init script gets before the engine is started without it.
const SCRIPT_LIMIT: Duration = Duration::from_secs(5);
const STOP_LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(200);

/// Starts the engine and waits until it answers.
///
/// # Errors
/// It does not start; the message says where its log is.
pub(crate) fn start(ctx: &Ctx) -> Result<()> {
    if Path::new("/run/systemd/system").exists() {
        let words = ["systemctl", "enable", "--now", "docker"].map(str::to_owned).to_vec();
        packages::carry_out(ctx, &[Act::Run(words)], "starting the Docker Engine")?;
    } else if started_by_script(ctx) {
        return Ok(());
    } else {
        start_directly(ctx)?;
    }
    answer(ctx, START_LIMIT).with_context(|| {
        format!("start the Docker Engine; its log is {LOG_FILE}, or `journalctl --unit docker`")
    })
}

/// Without systemd there may be an init script; in a container it may fail for want of rights,
/// and that is no failure yet.
fn started_by_script(ctx: &Ctx) -> bool {
    let script = packages::as_root(["service", "docker", "start"]);
    Path::new("/etc/init.d/docker").exists()
        && packages::become_root(ctx, "starting the Docker Engine").is_ok()
        && ctx.run(script).is_ok()
        && answer(ctx, SCRIPT_LIMIT).is_ok()
}

/// The last resort: the daemon itself, in a session of its own, so that it outlives this command.
fn start_directly(ctx: &Ctx) -> Result<()> {
    ensure!(
        rustix::process::geteuid().is_root(),
        "the Docker Engine is not running and there is no service manager; start it with: sudo dockerd"
    );
    let step = ctx.ui.step("starting the Docker Engine (dockerd)");
    OpenOptions::new().create(true).append(true).open(LOG_FILE).context(LOG_FILE)?;
    let script = format!("exec dockerd --pidfile {PID_FILE} >>{LOG_FILE} 2>&1 </dev/null");
    ctx.run(Invocation::new("setsid").args(["--fork", "sh", "-c", &script]))?;
    step.done("");
    Ok(())
}

/// Stops an engine that still runs from before an upgrade, so that the new one can start.
///
/// # Errors
/// It does not end in time.
pub(crate) fn stop_old(ctx: &Ctx) -> Result<()> {
    if Path::new("/run/systemd/system").exists() {
        let words = ["systemctl", "stop", "docker"].map(str::to_owned).to_vec();
        return packages::carry_out(ctx, &[Act::Run(words)], "stopping the old Docker Engine");
    }
    let Some(pid) = running_pid() else {
        return Ok(());
    };
    if ctx.is_dry_run() {
        ctx.ui
            .say(format!("  would stop: the old Docker Engine (process {})", pid.as_raw_nonzero()));
        return Ok(());
    }
    let step = ctx.ui.step("stopping the old Docker Engine").announce();
    kill_process(pid, Signal::TERM).context("stop the old Docker Engine")?;
    ctx.wait_until("the old Docker Engine to end", STOP_LIMIT, PAUSE, || {
        ensure!(running_pid().is_none(), "{PID_FILE} is still there");
        Ok(())
    })?;
    step.done("");
    Ok(())
}

/// The engine's process, if its pid file names one that lives.
fn running_pid() -> Option<Pid> {
    let text = fs::read_to_string(PID_FILE).ok()?;
    let pid = Pid::from_raw(text.trim().parse().ok()?)?;
    test_kill_process(pid).is_ok().then_some(pid)
}

fn answer(ctx: &Ctx, limit: Duration) -> Result<()> {
    ctx.wait_until("the Docker Engine to answer", limit, PAUSE, || tools::engine_version(ctx))?;
    Ok(())
}
