//! `test` and `ci`: everything that can be checked, one verdict at the end.

mod api;
mod browser;
mod named;
mod production;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use xshell::cmd;

use crate::cli::TestArgs;
use crate::commands::{db, drill, setup};
use crate::ctx::{Ctx, Interrupted, Invocation};
use crate::env::{Kind, random_hex};
use crate::host::packages;
use crate::stack::certificate;
use crate::stack::project;
use crate::stack::running::address_of;
use crate::stack::trial::{self, Trial};
use crate::ui;

/// A cold build of everything with all tests, on two cores.
const LIMIT: Duration = Duration::from_secs(30 * 60);
/// All tests of the driver: each has deadlines of its own, and this one is for a machine that takes five times as long
/// as the one on which they were written.
const DRIVER_LIMIT: Duration = Duration::from_secs(60 * 60);
/// How many tests of the driver run at a time: each waits for the engine, for disks and for clocks half of
/// the time.
const AT_A_TIME: &str = "--test-threads=2";
/// What the checks need beside Docker: the program, and the package that has it.
const PROGRAMS: [(&str, &str); 3] =
    [("shellcheck", "shellcheck"), ("docker-registry", "docker-registry"), ("curl", "curl")];

/// The results so far.
struct Checks<'a> {
    ctx: &'a Ctx,
    results: Vec<Verdict>,
}

struct Verdict {
    name: &'static str,
    took: Duration,
    error: Option<anyhow::Error>,
}

impl<'a> Checks<'a> {
    fn new(ctx: &'a Ctx) -> Checks<'a> {
        Checks { ctx, results: Vec::new() }
    }

    /// Carries one check out and keeps its result; false if it failed.
    fn check(&mut self, name: &'static str, body: impl FnOnce() -> Result<()>) -> Result<bool> {
        self.ctx.check_interrupted()?;
        self.ctx.ui.group(name);
        let started = Instant::now();
        let error = body().err();
        Ok(self.keep(name, started, error))
    }

    /// Ends the section of a check; true if it passed.
    fn keep(&mut self, name: &'static str, started: Instant, error: Option<anyhow::Error>) -> bool {
        if let Some(error) = &error {
            self.ctx.ui.complain(format!("{error:#}"));
        }
        self.ctx.ui.end_group();
        let passed = error.is_none();
        self.results.push(Verdict { name, took: started.elapsed(), error });
        passed
    }

    /// Whatever happened, and even after Ctrl-C: nothing of ours stays.
    fn tear_down(&mut self, name: &'static str, trial: &Trial) {
        self.ctx.ui.group(name);
        let started = Instant::now();
        let error = trial.remove(&self.ctx.shielded()).err();
        self.keep(name, started, error);
    }

    /// Prints one line a check and fails if one of them did.
    fn verdict(self) -> Result<()> {
        let failed = self.results.iter().filter(|result| result.error.is_some()).count();
        if self.ctx.is_dry_run() && failed == 0 {
            self.ctx.ui.say("\nnothing was checked (--dry-run)");
            return Ok(());
        }
        self.ctx.ui.say("");
        for result in &self.results {
            let line = format!("{:<28} {}", result.name, ui::seconds(result.took));
            if result.error.is_none() {
                self.ctx.ui.say(format!("{}  {line}", console::style("pass").green().for_stderr()));
            } else {
                let mark = console::style("FAIL").red().bold().for_stderr();
                self.ctx.ui.complain(format!("{mark}  {line}"));
            }
        }
        let interrupted = self.results.into_iter().filter_map(|result| result.error);
        if let Some(error) = interrupted.into_iter().find(|error| error.is::<Interrupted>()) {
            return Err(error);
        }
        if failed > 0 {
            bail!("{failed} of the checks failed; what each one printed stands above");
        }
        self.ctx.ui.say("every check passed");
        Ok(())
    }
}

/// Runs every test.
///
/// # Errors
/// A test fails, or the tests' stack does not come up.
pub(crate) fn test(ctx: &Ctx, args: &TestArgs) -> Result<()> {
    let mut checks = Checks::new(ctx);
    if !args.names.is_empty() {
        setup::ensure(ctx)?;
        packages::ensure_programs(ctx, &PROGRAMS, "run the tests")?;
        let targets = named::targets(ctx, &args.names)?;
        on_a_stack_of_their_own(ctx, &mut checks, args.keep, |checks, trial| {
            named::check(ctx, checks, trial, &targets, &args.names)
        })?;
        return checks.verdict();
    }
    checks.check("unit tests", || unit_tests(ctx))?;
    if !args.unit {
        setup::ensure(ctx)?;
        packages::ensure_programs(ctx, &PROGRAMS, "run the tests")?;
        on_a_stack_of_their_own(ctx, &mut checks, args.keep, |checks, trial| {
            tests_on(ctx, checks, trial)
        })?;
        if !args.keep {
            production::check(ctx, &mut checks)?;
        }
    }
    checks.verdict()
}

/// Checks everything.
///
/// # Errors
/// A check fails; all the others were carried out all the same.
pub(crate) fn ci(ctx: &Ctx) -> Result<()> {
    let mut checks = Checks::new(ctx);
    let host = checks.check("host", || {
        setup::setup(ctx)?;
        packages::ensure_programs(ctx, &PROGRAMS, "check the project")
    })?;
    let shell = ctx.shell()?;
    checks.check("formatting", || ctx.run_loud(cmd!(shell, "cargo fmt --all --check")))?;
    checks.check("lints", || {
        let on_a_stack = named::TARGETS.map(|(target, _)| format!("--test={target}"));
        // What `cargo test` leaves out by itself (`test = false`), `--all-targets` leaves out too.
        for targets in [&["--all-targets".to_owned()][..], &on_a_stack] {
            let lints =
                cmd!(shell, "cargo clippy --workspace --locked {targets...} -- --deny warnings");
            ctx.run_loud(Invocation::from(lints).limit(LIMIT))?;
        }
        Ok(())
    })?;
    checks.check("unit tests", || unit_tests(ctx))?;
    checks.check("shell scripts", || shell_scripts(ctx))?;
    checks.check("migrations", || db::lint(ctx, false))?;
    if host {
        checks.check("compose files", || compose_files(ctx))?;
        on_a_stack_of_their_own(ctx, &mut checks, false, |checks, trial| {
            tests_on(ctx, checks, trial)
        })?;
        production::check(ctx, &mut checks)?;
        checks.check("drill", || drill::quick(ctx))?;
    }
    checks.verdict()
}

fn unit_tests(ctx: &Ctx) -> Result<()> {
    let shell = ctx.shell()?;
    ctx.run_loud(Invocation::from(cmd!(shell, "cargo test --workspace --locked")).limit(LIMIT))
}

fn shell_scripts(ctx: &Ctx) -> Result<()> {
    let mut scripts = Vec::new();
    for folder in ["scripts", "deploy", ".ci"] {
        find_scripts(&ctx.root().join(folder), &mut scripts)?;
    }
    scripts.sort();
    let shell = ctx.shell()?;
    let count = scripts.len();
    ctx.run_loud(cmd!(shell, "shellcheck {scripts...}"))?;
    ctx.ui.say(format!("{count} scripts, no finding"));
    Ok(())
}

/// Every file that says in its first line that it is for a shell.
fn find_scripts(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            find_scripts(&path, found)?;
        } else {
            let text = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
            let first = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
            let first = String::from_utf8_lossy(first).into_owned();
            if first.starts_with("#!") && first.trim_end().ends_with("sh") {
                found.push(path);
            }
        }
    }
    Ok(())
}

/// Every combination of Compose files that a stack can have.
fn compose_files(ctx: &Ctx) -> Result<()> {
    const BASE: &str = "compose.yaml";
    const DISTRO: &str = "deploy/distro/compose.yaml";
    const PRODUCTION: &str = "compose.prod.yaml";
    let combinations: [&[&str]; 4] =
        [&[BASE], &[BASE, DISTRO], &[BASE, PRODUCTION], &[BASE, DISTRO, PRODUCTION]];
    if trial::is_only_told(ctx, "the Compose files") {
        return Ok(());
    }
    let trial = Trial::prepare(ctx, "config", Kind::Local)?;
    let rendered = render_all(ctx, &trial, &combinations);
    trial.remove(&ctx.shielded())?;
    rendered
}

fn render_all(ctx: &Ctx, trial: &Trial, combinations: &[&[&str]]) -> Result<()> {
    let project = trial.project(ctx)?;
    for files in combinations {
        let files: Vec<String> = files.iter().map(|&file| file.to_owned()).collect();
        let command = project.compose_with(&files).args(["config", "--quiet"]);
        ctx.read(command).with_context(|| format!("check {}", files.join(" + ")))?;
        ctx.ui.say(format!("{}: fine", files.join(" + ")));
    }
    Ok(())
}

/// The tests that need Docker, on a stack with a name, ports and volumes of its own.
fn on_a_stack_of_their_own(
    ctx: &Ctx,
    checks: &mut Checks,
    keep: bool,
    tests: impl FnOnce(&mut Checks, &Trial) -> Result<()>,
) -> Result<()> {
    if trial::is_only_told(ctx, "the tests that need one") {
        return Ok(());
    }
    let trial = Trial::prepare(ctx, "test", Kind::Local)?;
    let tested = tests(checks, &trial);
    if keep {
        ctx.ui.say(format!(
            "left running: cargo xtask --env-file {} status",
            project::shown(ctx, trial.env_file())
        ));
        return tested;
    }
    checks.tear_down("tear-down", &trial);
    tested
}

fn tests_on(ctx: &Ctx, checks: &mut Checks, trial: &Trial) -> Result<()> {
    if checks.check("stack up", || trial.up(ctx))? {
        checks.check("schema and statements", || {
            ctx.run_loud(trial.xtask(ctx, &["migrate", "schema", "--check"])?)
        })?;
        checks.check("tests through nginx", || backend_tests(ctx, trial, &[]))?;
        checks.check("pages in a browser", || browser::tests(ctx, trial, &[""; 0]))?;
        checks.check("API and its description", || api::check(ctx, trial))?;
        checks.check("tests of the driver", || driver_tests(ctx, trial, &[]))?;
    }
    Ok(())
}

fn backend_tests(ctx: &Ctx, trial: &Trial, names: &[String]) -> Result<()> {
    let project = trial.project(ctx)?;
    let shell = ctx.shell()?;
    // Of the workspace, as the unit tests: of the backend alone, the libraries would be compiled once
    // more, with other features.
    let tests = cmd!(shell, "cargo test --workspace --locked --test stack -- {names...}");
    let value = |name: &str| project.value(name).to_owned();
    let (user, password, database) = (value("PG_USER"), value("PG_PASSWORD"), value("PG_DBNAME"));
    let place = format!("{}/{database}", address_of(ctx, &project, "postgres", 5432)?);
    let redis = address_of(ctx, &project, "redis", 6379)?;
    let redis = format!("admin:{}@{redis}", value("REDIS_ADMIN_PASSWORD"));
    let certificate = certificate::folder(ctx, &project).join(certificate::CHAIN);
    let tests = Invocation::from(tests)
        .env("STACK_URL", project.address())
        .env("STACK_CA", certificate)
        .env("STACK_PG_URL", format!("postgres://{user}:{password}@{place}"))
        .env("STACK_PG_OWNER_PASSWORD", value("PG_OWNER_PASSWORD"))
        .env("STACK_PG_ADMIN_URL", format!("postgres://tests:{}@{place}", test_role(ctx, trial)?))
        .env("STACK_REDIS_URL", format!("redis://{redis}"))
        .env("STACK_REDIS_PASSWORD", value("REDIS_PASSWORD"))
        .env("STACK_SESSION_SECRET", value("SESSION_SECRET"));
    ctx.run_loud(tests.limit(LIMIT))
}

/// Makes the role `tests` in a trial stack and returns its password: tests have databases and roles
/// of their own, and no role of the stack itself may create one.
fn test_role(ctx: &Ctx, trial: &Trial) -> Result<String> {
    let password = random_hex(32)?;
    // To drop a database by force is to end whoever is in it, the autovacuum's worker included.
    let app = trial.project(ctx)?.value("PG_USER").replace('"', "\"\"");
    let statement = format!(
        "DROP ROLE IF EXISTS tests; \
         CREATE ROLE tests LOGIN CREATEDB CREATEROLE PASSWORD '{password}'; \
         GRANT owner, \"{app}\" TO tests WITH ADMIN OPTION; GRANT pg_signal_backend TO tests;\n"
    );
    let words = ["exec", "postgres", "--", "psql", "-v", "ON_ERROR_STOP=1", "-U", "postgres"];
    ctx.run(trial.xtask(ctx, &words)?.stdin(statement)).context("make a role for the tests")?;
    Ok(password)
}

fn driver_tests(ctx: &Ctx, trial: &Trial, names: &[String]) -> Result<()> {
    let project = trial.project(ctx)?;
    let source = project.image_source()?.ok_or_else(|| anyhow!("the stack is up and undecided"))?;
    let shell = ctx.shell()?;
    // By itself, so that the time for the tests is theirs.
    let compile = cmd!(shell, "cargo test --workspace --locked --test live --no-run --quiet");
    ctx.run_loud(Invocation::from(compile).limit(LIMIT))?;
    let tests =
        cmd!(shell, "cargo test --workspace --locked --test live -- {AT_A_TIME} {names...}");
    let tests = Invocation::from(tests)
        .env("LIVE_PROJECT", trial.name())
        .env("LIVE_IMAGE_SOURCE", source.to_string());
    ctx.run_loud(tests.limit(DRIVER_LIMIT))
}
