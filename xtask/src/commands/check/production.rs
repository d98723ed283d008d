//! The checks on production's files: the same tests over HTTPS, and what only concerns a server that
//! the world can reach.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::{Checks, backend_tests, browser};
use crate::commands::up::running_container;
use crate::ctx::{Ctx, Invocation};
use crate::env::Kind;
use crate::host::packages;
use crate::stack::trial::{self, Trial};

const LIMIT: Duration = Duration::from_secs(10 * 60);
/// The linter of nginx' configuration that is kept alive: a fork of Yandex' gixy, on PyPI.
const GIXY: &str = "gixy-ng==0.2.59";
/// What it finds and is meant to be so.
const GIXY_ACCEPTED: [(&str, &str); 2] = [
    ("host_spoofing", "the backend compares Host, with its port, with Origin; `$host` has no port"),
    ("try_files_is_evil_too", "a cache of open files would show an old page after a change"),
];
/// What the scanner of TLS finds above "low" and is meant to be so.
const TLS_ACCEPTED: [(&str, &str); 4] = [
    ("engine_problem", "it is about the scanner's own openssl, and not about this server"),
    ("cert_chain_of_trust", "the trial's certificate is self-signed"),
    ("cert_revocation", "the trial's certificate is self-signed"),
    ("BREACH", "it looks at `/`, a page without a secret; answers of the API are not compressed"),
];

/// Brings a production stack of its own up and checks it.
///
/// # Errors
/// Ctrl-C was pressed. What fails is in the results.
pub(super) fn check(ctx: &Ctx, checks: &mut Checks) -> Result<()> {
    if trial::is_only_told(ctx, "the checks of production") {
        return Ok(());
    }
    let trial = Trial::prepare(ctx, "production", Kind::Production)?;
    let checked = checks_on(ctx, checks, &trial);
    checks.tear_down("production: tear-down", &trial);
    checked
}

fn checks_on(ctx: &Ctx, checks: &mut Checks, trial: &Trial) -> Result<()> {
    if checks.check("production: up", || trial.up(ctx))? {
        checks.check("production: tests", || backend_tests(ctx, trial, &[]))?;
        checks
            .check("production: browser", || browser::tests(ctx, trial, browser::OF_PRODUCTION))?;
        checks.check("production: parity", || ctx.run_loud(trial.xtask(ctx, &["parity"])?))?;
        checks.check("production: audit", || {
            ctx.run_loud(trial.xtask(ctx, &["audit", "--running"])?)
        })?;
        checks.check("production: nginx", || lint_nginx(ctx, trial))?;
        checks.check("production: TLS", || scan_tls(ctx, trial))?;
    }
    Ok(())
}

/// nginx' own check, and a linter's.
fn lint_nginx(ctx: &Ctx, trial: &Trial) -> Result<()> {
    packages::ensure_programs(ctx, &[("pipx", "pipx")], "check nginx' configuration")?;
    let (_, nginx) = running_container(ctx, trial.env_file(), "nginx")?;
    let inside = |flag: &str| Invocation::new("docker").args(["exec", &nginx.id, "nginx", flag]);
    ctx.run(inside("-t")).context("have nginx check its configuration")?;
    let whole = ctx.read(inside("-T"))?;
    let path = ctx.state_dir().join(trial.name()).join("nginx.conf");
    fs::write(&path, whole).with_context(|| format!("write {}", path.display()))?;
    let skips = GIXY_ACCEPTED.map(|(name, _)| name).join(",");
    let home = ctx.state_dir().join("pipx");
    let gixy = Invocation::new("pipx")
        .args(["run", "--spec", GIXY, "gixy", "--skips", &skips])
        .arg(&path)
        .env("PIPX_HOME", home)
        .limit(LIMIT);
    ctx.run_loud(gixy).context("lint nginx' configuration")
}

/// One line of the scanner's report.
#[derive(Deserialize)]
struct Finding {
    id: String,
    severity: String,
    finding: String,
}

/// Scans the port as an attacker would, and accepts nothing above "low". A question of the scanner that got no
/// connection is no finding, and makes it ask everything once more; the second time it is one.
fn scan_tls(ctx: &Ctx, trial: &Trial) -> Result<()> {
    packages::ensure_programs(ctx, &[("testssl", "testssl.sh")], "scan the TLS end point")?;
    match scan_tls_once(ctx, trial) {
        Err(error) if error.to_string().contains("because of connect problem") => {
            ctx.ui.say(format!("{error:#}\nscanned once more"));
            scan_tls_once(ctx, trial)
        }
        scanned => scanned,
    }
}

fn scan_tls_once(ctx: &Ctx, trial: &Trial) -> Result<()> {
    let project = trial.project(ctx)?;
    let report = ctx.state_dir().join(trial.name()).join("testssl.json");
    // The scanner writes over no file.
    if report.exists() {
        fs::remove_file(&report).context("remove the last scan's report")?;
    }
    let scan = Invocation::new("testssl")
        .args(["--quiet", "--color", "0", "--warnings", "batch", "--jsonfile"])
        .arg(&report)
        .args(["--protocols", "--std", "--fs", "--server-preference", "--server-defaults"])
        .args(["--headers", "--vulnerable", &project.address()])
        .limit(LIMIT);
    // Its exit code counts findings of every kind.
    ctx.try_read(scan).context("scan the TLS end point")?;
    let text = fs::read(&report).context("read what the scan found")?;
    let findings: Vec<Finding> = serde_json::from_slice(&text).context("read the scan's report")?;
    let protocol = findings.iter().find(|finding| finding.id == "TLS1_3");
    ensure!(
        findings.len() > 50 && protocol.is_some_and(|found| found.finding.contains("offered")),
        "the scan did not get through: {} findings, and TLS 1.3 was not seen",
        findings.len()
    );
    let is_bad = |found: &&Finding| {
        ["MEDIUM", "HIGH", "CRITICAL", "WARN", "FATAL"].contains(&found.severity.as_str())
    };
    let (accepted, bad): (Vec<&Finding>, Vec<&Finding>) = findings
        .iter()
        .filter(is_bad)
        .partition(|found| TLS_ACCEPTED.iter().any(|(id, _)| *id == found.id));
    let line = |found: &Finding| format!("{} {}: {}", found.severity, found.id, found.finding);
    let lines: Vec<String> = bad.into_iter().map(line).collect();
    ensure!(lines.is_empty(), "the TLS end point has findings:\n  {}", lines.join("\n  "));
    ctx.ui.say(format!(
        "{} findings, none above low but {} that are accepted",
        findings.len(),
        accepted.len()
    ));
    Ok(())
}
