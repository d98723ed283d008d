//! `up` and `wait`: from whatever is there to a stack that answers.

mod steps;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, anyhow, bail};

use self::steps::Look;
use crate::cli::{UpArgs, WaitArgs};
use crate::commands::db::first;
use crate::commands::{env, setup};
use crate::ctx::{Ctx, Invocation};
use crate::images::{self, Source, build, inputs};
use crate::stack::lock::{self, Lock};
use crate::stack::plan::{self, Plan, Surroundings};
use crate::stack::project::{self, Project};
use crate::stack::readiness::{self, Make, Outcome};
use crate::stack::running::{self, Container, Survey};
use crate::stack::tracker::Tracker;
use crate::stack::wanted::{self, Wanted};
use crate::stack::{certificate, green, major, ports, reload, report, rotation, secrets, timings};
use crate::ui;

/// Making containers is quick; removing old ones waits for their graceful stop.
const CREATE_LIMIT: Duration = Duration::from_secs(5 * 60);

/// Brings the stack up.
///
/// # Errors
/// Any step fails, or a service does not get ready; the message says which, why, and what next.
pub(crate) fn up(ctx: &Ctx, env_file: &Path, args: &UpArgs) -> Result<()> {
    let started = Instant::now();
    setup::ensure(ctx)?;
    env::ensure(ctx, env_file)?;
    let prepared = prepare(ctx, env_file, "up")?;
    let Prepared { project, wanted, survey, images, source, .. } = &prepared;
    if ctx.is_dry_run() {
        let stale = build::out_of_date(ctx, project, wanted, *source, images)?;
        let containers = &survey.containers;
        let plan = make_plan(ctx, project, wanted, containers, images, &stale)?;
        print_beginning(survey, &stale)?;
        first::tell(ctx, project, &plan, containers)?;
        print_plan(ctx, &plan)?;
        return major::check(ctx, wanted, &plan, containers, images);
    }
    remove_left(ctx, &survey.left)?;
    let built = build::bring_up_to_date(ctx, project, wanted, *source, images, false)?;
    let mut look = Look::at(ctx, &prepared, &built.ids, survey.containers.clone())?;
    major::check(ctx, wanted, &look.plan, &look.containers, &built.ids)?;
    if let Some(due) = look.due(ctx, project)? {
        first::apply(ctx, project, &due)?;
        // That may have taken long, and what was unhealthy because of it is not any more.
        look = Look::now(ctx, &prepared, &built.ids)?;
    }
    warn_of_orphans(ctx, &look.plan);
    let is_empty = look.plan.is_empty();
    if is_empty {
        if args.timings {
            ui::data(timings::render(&Tracker::new(wanted, &look.plan, &look.containers)))?;
        }
    } else {
        if project.is_production() {
            steps::recommend_a_deploy(ctx, wanted, &look.plan);
        }
        steps::carry_out(ctx, &prepared, &built.ids, look, args)?;
    }
    green::release(ctx, project, wanted, survey)?;
    rotation::settle_all(ctx, project)?;
    renew_certificate(ctx, project)?;
    let done = if is_empty { "nothing to do, all is up" } else { "all is up" };
    say_up(ctx, project, done, started)
}

/// A stack that is looked at and locked, before anything of it is changed.
pub(crate) struct Prepared {
    pub(crate) project: Project,
    pub(crate) wanted: Wanted,
    pub(crate) survey: Survey,
    /// The ids that the services' images have, by reference.
    pub(crate) images: BTreeMap<String, String>,
    pub(crate) source: Source,
    _lock: Lock,
}

/// What comes first for whoever changes a stack: the lock, the secrets, and a look at all there is.
///
/// # Errors
/// The environment file, a secret or the certificate (but for its time) is not in order; or the stack is another
/// checkout's, or a port that it needs somebody else's.
pub(crate) fn prepare(ctx: &Ctx, env_file: &Path, verb: &str) -> Result<Prepared> {
    let mut project = Project::load(ctx, env_file)?;
    project::keep_private(ctx, &project)?;
    let lock = lock::acquire(ctx, &project, verb)?;
    // Whoever held the lock may have written it anew.
    project = Project::load(ctx, env_file)?;
    let source = images::settle_source(ctx, &mut project)?;
    secrets::provide(ctx, &mut project)?;
    if certificate::is_needed(&project) {
        certificate::ensure_openssl(ctx)?;
        certificate::expect_usable(ctx, &project)?;
    }
    let wanted = wanted::wanted(ctx, &project)?;
    // Two questions to the engine, asked at once: each takes as long as all that an `up` with nothing to do
    // has to think about.
    let (survey, images) = thread::scope(|scope| {
        let images = scope.spawn(|| build::ids_of(ctx, &wanted));
        (running::survey(ctx, &project), images.join())
    });
    let (survey, images) = (survey?, images.map_err(|_| anyhow!("a thread of xtask panicked"))??);
    running::expect_own(ctx, &project, &survey.containers)?;
    // Before a build that may take minutes.
    check_ports(ctx, &wanted, &survey.containers)?;
    Ok(Prepared { project, wanted, survey, images, source, _lock: lock })
}

/// Has nginx show a certificate that was replaced since it started.
fn renew_certificate(ctx: &Ctx, project: &Project) -> Result<()> {
    if !certificate::is_needed(project) {
        return Ok(());
    }
    let containers = running::containers(ctx, project)?;
    let nginx = containers.iter().find(|c| c.service == "nginx" && c.is_running());
    if let Some(nginx) = nginx
        && certificate::bring_into_force(ctx, project, &nginx.id)?
    {
        ctx.ui.say("nginx shows the new certificate");
    }
    Ok(())
}

/// Waits for what was started by somebody else.
///
/// # Errors
/// A service does not get ready in time, or is not there at all.
pub(crate) fn wait(ctx: &Ctx, env_file: &Path, args: &WaitArgs) -> Result<()> {
    let started = Instant::now();
    let project = Project::load(ctx, env_file)?;
    let wanted = wanted::wanted(ctx, &project)?;
    let containers = running::containers(ctx, &project)?;
    if containers.is_empty() {
        bail!(
            "there is no container of `{}` to wait for; `cargo xtask up` makes and starts them",
            project.name
        );
    }
    let tracker = readiness::waiting_for(&wanted, &containers);
    let outcome = readiness::carry_out(ctx, &project, tracker, None, args.limit())?;
    expect_ready(ctx, &project, outcome)?;
    say_up(ctx, &project, "all is up", started)
}

pub(crate) fn expect_ready(ctx: &Ctx, project: &Project, outcome: Outcome) -> Result<()> {
    let Outcome::NotReady(tracker, reason) = outcome else {
        return Ok(());
    };
    let report = report::not_ready(ctx, project, &tracker);
    bail!(
        "the stack is not ready, and {reason}:\n{report}\nwhat works was left running; \
           `cargo xtask logs SERVICE` shows more, and `cargo xtask up` tries again"
    );
}

/// What is wanted minus what is there. `ids` are those of the images, by reference; the images of
/// the services in `stale` are still to be built, and count as new.
///
/// # Errors
/// The engine does not answer.
pub(crate) fn make_plan(
    ctx: &Ctx,
    project: &Project,
    wanted: &Wanted,
    containers: &[Container],
    ids: &BTreeMap<String, String>,
    stale: &[String],
) -> Result<Plan> {
    let id_of = |service: &wanted::Service| {
        let id = ids.get(&service.image).cloned();
        let will_be_new = stale.contains(&service.name);
        let id = if will_be_new { Some("not built yet".to_owned()) } else { id };
        Some((service.name.clone(), id?))
    };
    let image_ids: BTreeMap<String, String> = wanted.services.iter().filter_map(id_of).collect();
    let now = SystemTime::now();
    let will_be_written = secrets::missing(ctx, project);
    let changed_at = |path: &Path| {
        let path = ctx.root().join(path);
        let is_new = will_be_written.iter().any(|secret| secret.starts_with(&path));
        if is_new { Some(now) } else { newest_change(&path, now) }
    };
    let reloaded_at = |container: &Container| reload::last(ctx, project, container);
    let networks = running::known_networks(ctx, containers)?;
    let around = Surroundings {
        image_ids: &image_ids,
        changed_at: &changed_at,
        networks: networks.as_ref(),
        reloaded_at: &reloaded_at,
    };
    Ok(plan::plan(wanted, containers, &around))
}

/// When a file, or the newest file of a folder, was last changed. One that was moved or copied to its place
/// keeps the time of its contents, and the kernel's own note tells; that of a secret is older on purpose where
/// the process need not start anew for it. A time after `now`, from an archive or a clock that was wrong, is none:
/// it would count as a change after every start.
fn newest_change(path: &Path, now: SystemTime) -> Option<SystemTime> {
    let data = fs::metadata(path).ok()?;
    let is_past = |time: &SystemTime| *time <= now;
    let modified = data.modified().ok().filter(is_past);
    let is_secret = path.components().any(|part| part.as_os_str() == secrets::FOLDER);
    let seconds = u64::try_from(data.ctime()).ok().filter(|_| !is_secret);
    let own = seconds
        .map(|seconds| {
            let nanos = u32::try_from(data.ctime_nsec()).unwrap_or_default();
            SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos)
        })
        .filter(is_past)
        .max(modified);
    if !data.is_dir() {
        return own;
    }
    let entries = fs::read_dir(path).ok()?.flatten();
    let real = entries.filter(|entry| !inputs::is_an_editors(&entry.file_name()));
    real.filter_map(|entry| newest_change(&entry.path(), now)).chain(own).max()
}

/// Compose can replace neither a paused container nor a dead one, and would keep one without its network; data
/// lies in volumes.
pub(crate) fn clear_the_way(ctx: &Ctx, plan: &Plan, containers: &[Container]) -> Result<()> {
    let to_replace = plan.steps.iter().filter(|step| step.action == plan::Action::Recreate);
    for step in to_replace {
        let Some(container) = containers.iter().find(|c| c.service == step.service) else {
            continue;
        };
        let verb: &[&str] = match container.status.as_str() {
            "paused" => &["unpause"],
            "dead" | "removing" => &["rm", "--force"],
            _ if step.reason == plan::NETWORK_IS_GONE => &["rm", "--force"],
            _ => continue,
        };
        ctx.run(Invocation::new("docker").args(verb.iter().copied()).arg(&container.id))?;
    }
    Ok(())
}

/// Has Compose make the containers that are missing or out of date, without starting them.
pub(crate) fn making(ctx: &Ctx, project: &Project, plan: &Plan) -> Option<Make> {
    let names = plan.services(plan::Action::makes_container);
    let (ctx, project) = (ctx.clone(), project.clone());
    (!names.is_empty())
        .then(|| -> Make { Box::new(move || compose_create(&ctx, &project, &names)) })
}

fn compose_create(ctx: &Ctx, project: &Project, names: &[String]) -> Result<()> {
    // Not with `--no-deps`: that takes the dependencies out of what is hashed, and the container
    // would look outdated for ever. What they need is in the plan already.
    let flags = ["up", "--no-start", "--no-build", "--pull", "never", "--no-color"];
    let step = ctx.ui.step(format!("containers {}", names.join(", ")));
    let command = project.compose().args(["--progress", "plain"]).args(flags).args(names);
    match ctx.run_step(&step, command.limit(CREATE_LIMIT)) {
        Ok(()) => step.done(""),
        Err(error) => {
            step.failed();
            return Err(error).context("create the containers");
        }
    }
    Ok(())
}

/// Looks at the ports that a service does not hold yet: a container that works must not be taken down
/// for one that cannot start.
fn check_ports(ctx: &Ctx, wanted: &Wanted, containers: &[Container]) -> Result<()> {
    let is_given_up = |service: &str, port: &ports::Published| {
        let service = wanted.service(service);
        service.is_some_and(|s| !s.published.iter().any(|other| other.port == port.port))
    };
    let is_held = |port: &ports::Published| {
        let address = if port.address.is_empty() { "0.0.0.0" } else { &port.address };
        let held = format!("{address}:{}->", port.port);
        // Another service's, where two of them exchange their ports: its container is made anew before this
        // one starts.
        let own = containers.iter().filter(|c| {
            c.is_alive() && (c.service == port.service || is_given_up(&c.service, port))
        });
        own.flat_map(|container| &container.ports).any(|found| found.starts_with(&held))
    };
    let published = wanted.services.iter().flat_map(|service| service.published.clone());
    let wanted_ports: Vec<_> = published.filter(|port| !is_held(port)).collect();
    ports::check_free(ctx, &wanted_ports)
}

fn warn_of_orphans(ctx: &Ctx, plan: &Plan) {
    if !plan.orphans.is_empty() {
        let names = plan.orphans.join(", ");
        ctx.ui.warn(format!(
            "{names} belongs to this project and to no service of its Compose files; \
             `docker rm --force {}` removes it",
            plan.orphans.join(" ")
        ));
    }
}

/// What an interrupted command of Compose has left has no data, and a name that nobody wants.
pub(crate) fn remove_left(ctx: &Ctx, left: &[Container]) -> Result<()> {
    for container in left {
        ctx.ui.say(format!("removing {}, which an interrupted command left", container.name));
        ctx.run(Invocation::new("docker").args(["rm", "--force", &container.id]))?;
    }
    Ok(())
}

/// What comes before the plan: what is removed, and what built; each with the reason.
pub(crate) fn beginning(
    survey: &Survey,
    built: &[String],
) -> Vec<(&'static str, String, &'static str)> {
    let left = survey.left.iter().chain(&survey.green);
    let removed =
        left.map(|container| ("remove", container.name.clone(), "an interrupted command left it"));
    let built = built.iter().cloned();
    removed
        .chain(built.map(|name| ("build", name, "its image is missing or out of date")))
        .collect()
}

/// Prints what a dry run tells before the plan.
pub(crate) fn print_beginning(survey: &Survey, built: &[String]) -> Result<()> {
    for (action, what, reason) in beginning(survey, built) {
        ui::data(format!("{action:<9} {what:<9} {reason}"))?;
    }
    Ok(())
}

fn print_plan(ctx: &Ctx, plan: &Plan) -> Result<()> {
    for step in &plan.steps {
        ui::data(format!("{:<9} {:<9} {}", step.action, step.service, step.reason))?;
    }
    for name in &plan.orphans {
        ui::data(format!("{:<9} {name:<9} no service of the Compose files", "leave"))?;
    }
    ctx.ui.say("nothing was changed (--dry-run)");
    Ok(())
}

pub(crate) fn say_up(ctx: &Ctx, project: &Project, what: &str, started: Instant) -> Result<()> {
    let took = ui::seconds(started.elapsed());
    let address = console::style(project.address()).bold().for_stderr();
    ctx.ui.say(format!("{what} in {took}; open {address}"));
    Ok(())
}

/// What a command on a running stack needs: its project and what is wanted.
///
/// # Errors
/// The environment file or the Compose files are not in order.
pub(crate) fn load(ctx: &Ctx, env_file: &Path) -> Result<(Project, Wanted)> {
    let project = Project::load(ctx, env_file)?;
    let wanted = wanted::wanted(ctx, &project)?;
    Ok((project, wanted))
}

/// The container of a service that runs.
///
/// # Errors
/// There is no such service, or it does not run; or the stack is another checkout's.
pub(crate) fn running_container(
    ctx: &Ctx,
    env_file: &Path,
    service: &str,
) -> Result<(Project, running::Container)> {
    let (project, wanted) = load(ctx, env_file)?;
    wanted.expect_service(service)?;
    let containers = running::containers(ctx, &project)?;
    running::expect_own(ctx, &project, &containers)?;
    let found = containers.into_iter().find(|c| c.service == service && c.is_running());
    let container = found.with_context(|| {
        format!("`{service}` of `{}` does not run; `cargo xtask up` starts it", project.name)
    })?;
    Ok((project, container))
}
