//! `setup`: Docker on this host, installed, upgraded or started as needed.

use std::fs;

use anyhow::{Context, Result, bail, ensure};

use crate::ctx::Ctx;
use crate::host::engine;
use crate::host::packages::{self, Act, Distribution};
use crate::host::tools::{self, Tools};

/// Sets the host up and says what there is.
///
/// # Errors
/// No consent, a system that is not known, or a step of the installation fails.
pub(crate) fn setup(ctx: &Ctx) -> Result<()> {
    let tools = Tools::look(ctx);
    let tools = if tools.shortcomings().is_empty() { tools } else { mend(ctx, &tools)? };
    let version =
        |version: Option<tools::Version>| version.map_or_else(|| "?".into(), |v| v.to_string());
    ctx.ui.say(format!(
        "this host is ready: Docker Engine {}, Compose {}, buildx {}",
        version(tools.engine.ok()),
        version(tools.compose),
        version(tools.buildx)
    ));
    Ok(())
}

/// The same inside other commands: silent where all is well, and then only a look at a file.
///
/// # Errors
/// See [`setup`].
pub(crate) fn ensure(ctx: &Ctx) -> Result<()> {
    let stamp = ctx.state_dir().join("host");
    let now = tools::fingerprint(ctx);
    if fs::read_to_string(&stamp).is_ok_and(|checked| checked == now) {
        return Ok(());
    }
    let tools = Tools::look(ctx);
    if !tools.shortcomings().is_empty() {
        mend(ctx, &tools)?;
    }
    if !ctx.is_dry_run() {
        fs::create_dir_all(ctx.state_dir()).context("make target/xtask")?;
        fs::write(&stamp, tools::fingerprint(ctx)).context("write target/xtask/host")?;
    }
    Ok(())
}

fn mend(ctx: &Ctx, tools: &Tools) -> Result<Tools> {
    let problems = tools.shortcomings();
    // A right that is missing is not mended by an installation.
    ensure!(
        !problems.iter().any(|problem| problem.contains("may not talk")),
        "{}",
        problems.join("\n")
    );
    if let Some(elsewhere) = tools::elsewhere(ctx) {
        bail!(
            "the engine to use is that of {elsewhere}, which is not xtask's to set up:\n  {}\nmend that \
             there, or choose this host's own engine",
            problems.join("\n  ")
        );
    }
    // First of all: where nothing can be done about them, they are what the person has to know.
    for problem in &problems {
        ctx.ui.complain(format!("  {problem}"));
    }
    let acts = if tools.lacks_packages() { acts(ctx)? } else { Vec::new() };
    ask(ctx, &acts)?;
    if !acts.is_empty() {
        packages::carry_out(ctx, &acts, "installing Docker from the distribution's packages")?;
    }
    if tools.engine.as_ref().is_ok_and(|version| *version < tools::ENGINE_FLOOR) {
        engine::stop_old(ctx)?;
    }
    if ctx.is_dry_run() {
        ctx.ui.say("  would start: the Docker Engine");
        return Ok(Tools::look(ctx));
    }
    if tools::engine_version(ctx).is_err() {
        engine::start(ctx)?;
    }
    let after = Tools::look(ctx);
    let left = after.shortcomings();
    ensure!(left.is_empty(), "the host was set up, and still:\n  {}", left.join("\n  "));
    Ok(after)
}

fn acts(ctx: &Ctx) -> Result<Vec<Act>> {
    let here = Distribution::here();
    let mirror = if here.has_apt() {
        packages::mirror_of(&packages::archives(ctx)?, &here.codename)
    } else {
        None
    };
    packages::docker_acts(&here, mirror.as_deref(), here.has_apt() && packages::has_docker_ce(ctx))
}

fn ask(ctx: &Ctx, acts: &[Act]) -> Result<()> {
    let commands: Vec<String> = acts.iter().map(Act::to_string).collect();
    let (question, by_hand) = if acts.is_empty() {
        ("start the Docker Engine", "sudo service docker start".to_owned())
    } else {
        let question = "install or upgrade Docker from the distribution's packages (running \
                        containers stop for a moment)";
        (question, commands.join("\n  "))
    };
    ctx.confirm(question, &format!("pass --yes, or run:\n  {by_hand}"))
}
