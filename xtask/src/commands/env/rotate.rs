//! `env rotate`: another value for a secret while the stack runs.
//!
//! At every moment in between, whoever holds the previous value is still let in, and a run that was
//! killed is made good by the next one, or by the next `up`: first the file of the secret names both
//! values, which says that something is under way; then Redis learns to accept both; then the new one
//! comes first, in the file and in the environment file; and last, it is settled (`stack/rotation.rs`).

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};

use crate::commands::up::running_container;
use crate::ctx::{Ctx, Usage};
use crate::env::{self as dotenv, Variable};
use crate::stack::project::{self, Project};
use crate::stack::rotation::{self, Password};
use crate::stack::running::Container;
use crate::stack::{lock, secrets};

/// Gives a secret a new value.
///
/// # Errors
/// It is no secret; the stack does not run; a service refuses the new value: then the message says
/// what is in force, and running it again converges.
pub(super) fn rotate(ctx: &Ctx, env_file: &Path, name: &str, grace: Duration) -> Result<()> {
    let variable = secret_named(ctx, env_file, name)?;
    let (mut project, postgres) = running_container(ctx, env_file, "postgres")?;
    let (_, redis) = running_container(ctx, env_file, "redis")?;
    let _lock = lock::acquire(ctx, &project, "env rotate")?;
    let path = secrets::file(ctx, &project, name);
    let password = Password::named(name);
    let container = match password {
        Some(Password::RedisUser(_)) => redis,
        _ => postgres,
    };
    let source = source_of(&project, &variable);
    if source != Source::File {
        secrets::check(ctx, &mut project)?;
    }
    if password.is_some() {
        rotation::expect_in_sight(ctx, &project, name, &container)
            .with_context(|| format!("begin with {name}; nothing was changed"))?;
    }
    if let Some(password) = password
        && finish_earlier(ctx, &project, name, password, &container)?
        && source != Source::File
    {
        // That one's new value is what the source gives.
        return Ok(());
    }
    let before = secrets::read(&path)
        .with_context(|| format!("read the secret in force, {}", project::shown(ctx, &path)))?;
    let ends_previous = password.is_none() && grace.is_zero();
    if ends_previous
        && source != Source::File
        && before.first().map(String::as_str) == Some(project.value(name))
    {
        // The source gave its new value to an `up` already; what is left is the end of the others.
        return end_previous(ctx, &project, name);
    }
    let value = next_value(&project, &variable, &source, &before)?;
    if ctx.is_dry_run() {
        ctx.ui.say(format!("  would give {name} of `{}` a new value", project.name));
        return Ok(());
    }
    let step = ctx.ui.step(format!("a new {name}"));
    let until = SystemTime::now() + grace;
    let put = |first: &str, others: &[String]| {
        secrets::replace(&path, first, others, until)
            .with_context(|| format!("write {}", project::shown(ctx, &path)))
    };
    if let (Some(Password::RedisUser(user)), Some(current)) = (password, before.first()) {
        put(current, std::slice::from_ref(&value))?;
        rotation::add_to_redis(ctx, &container.id, user, &value)?;
    }
    put(&value, &before)?;
    if source == Source::File {
        project.remember(ctx, &[(name, &value)])?;
    }
    if let Some(password) = password {
        rotation::settle(ctx, &project, name, password, &container)?;
    }
    step.done("");
    if ends_previous {
        return end_previous(ctx, &project, name);
    }
    say_new(ctx, name, password, until);
    Ok(())
}

/// Leaves the value in force as the only one, at once.
fn end_previous(ctx: &Ctx, project: &Project, name: &str) -> Result<()> {
    if ctx.is_dry_run() {
        ctx.ui.say(format!("  would end every previous value of {name}"));
        return Ok(());
    }
    let path = secrets::file(ctx, project, name);
    secrets::drop_previous(&path)
        .with_context(|| format!("write {}", project::shown(ctx, &path)))?;
    ctx.ui.say(format!("no previous value of {name} is accepted any more"));
    Ok(())
}

/// Brings a password to the value that is wanted, where an earlier rotation was killed. True if there
/// was such a one.
fn finish_earlier(
    ctx: &Ctx,
    project: &Project,
    name: &str,
    password: Password,
    container: &Container,
) -> Result<bool> {
    let path = secrets::file(ctx, project, name);
    let value = project.value(name);
    let values = secrets::read(&path).unwrap_or_default();
    if values.len() < 2 || !values.iter().any(|known| known == value) {
        return Ok(false);
    }
    if ctx.is_dry_run() {
        ctx.ui.say(format!("  would finish the rotation of {name}, which was interrupted"));
        return Ok(true);
    }
    secrets::prefer(&path, value)
        .with_context(|| format!("write {}", project::shown(ctx, &path)))?;
    rotation::settle(ctx, project, name, password, container)?;
    ctx.ui.say(format!("finished the rotation of {name}, which was interrupted"));
    Ok(true)
}

/// Where the value in force comes from, and where the next one has to be put.
#[derive(PartialEq, Eq)]
enum Source {
    File,
    Elsewhere(&'static str),
}

fn source_of(project: &Project, variable: &Variable) -> Source {
    let in_file = fs::read_to_string(&project.env_file)
        .ok()
        .and_then(|text| dotenv::parse("", &text).ok())
        .and_then(|mut values| values.remove(&variable.name))
        .unwrap_or_default();
    if std::env::var_os(&variable.name).is_some() {
        Source::Elsewhere("the environment of this process")
    } else if in_file.is_empty() {
        Source::Elsewhere("SECRETS_COMMAND")
    } else {
        Source::File
    }
}

/// A value of our own where the file has it; what the source says now where it does not.
fn next_value(
    project: &Project,
    variable: &Variable,
    source: &Source,
    before: &[String],
) -> Result<String> {
    match source {
        Source::File => dotenv::random_hex(variable.generated_bytes().unwrap_or_default()),
        Source::Elsewhere(place) => {
            let value = project.value(&variable.name).to_owned();
            ensure!(
                before.first() != Some(&value),
                "{} comes from {place}, which still gives the value in force; put the new value \
                 there first, then run this again",
                variable.name
            );
            Ok(value)
        }
    }
}

fn secret_named(ctx: &Ctx, env_file: &Path, name: &str) -> Result<Variable> {
    let variables = project::variables(ctx)?;
    if variables.iter().any(|variable| variable.name == name && variable.is_given()) {
        bail!(Usage(format!(
            "{name} comes from outside, so a random value would be wrong. Put the new one into {}, or to where it is taken \
             from instead, then `cargo xtask up`, which restarts what reads it",
            project::shown(ctx, env_file)
        )));
    }
    let secrets: Vec<Variable> =
        variables.into_iter().filter(|v| v.generated_bytes().is_some()).collect();
    if let Some(found) = secrets.iter().find(|variable| variable.name == name) {
        return Ok(found.clone());
    }
    let names: Vec<&str> = secrets.iter().map(|variable| variable.name.as_str()).collect();
    bail!(Usage(format!("{name} is no secret of this project; there are {}", names.join(", "))))
}

/// Passwords of services need no grace: the backend takes the new one from the file when the old one
/// is refused. Keys need one: what was signed with them is in people's browsers.
fn say_new(ctx: &Ctx, name: &str, password: Option<Password>, until: SystemTime) {
    ctx.ui.say(if password.is_some() {
        format!("{name} is new; the previous value is not accepted any more")
    } else {
        let until = humantime::format_rfc3339_seconds(until);
        format!(
            "{name} is new; the previous value is accepted until {until}, and the first \
             `cargo xtask up` after that drops it"
        )
    });
}
