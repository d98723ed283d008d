//! `env rotate`: another value for a secret while the stack runs.
//!
//! At every moment in between, whoever holds the previous value is still let in, and a run that was
//! killed can simply be repeated: first the services learn to accept both, then the environment
//! file and the database get the new one, and last, the previous one is dropped where it is safe.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use crate::commands::up::running_container;
use crate::ctx::{Ctx, Invocation, Usage};
use crate::env::{self as dotenv, Variable};
use crate::images::hex;
use crate::stack::project::{self, Project};
use crate::stack::{lock, secrets};

/// Makes roles and sets their passwords from the files; it may run at any time.
const ROLES: &str = "/docker-entrypoint-initdb.d/10-roles.sql";
const LIMIT: Duration = Duration::from_secs(60);

/// What holds a secret beside the backend, and so has to be told.
enum Holder {
    /// A role of PostgreSQL: its password is in the database.
    Database,
    /// A user of Redis.
    Redis(&'static str),
    /// Nobody: the backend alone uses it as a key.
    Backend,
}

/// Gives a secret a new value.
///
/// # Errors
/// It is no secret; the stack does not run; a service refuses the new value: then the message says
/// what is in force, and running it again converges.
pub(super) fn rotate(ctx: &Ctx, env_file: &Path, name: &str, grace: Duration) -> Result<()> {
    let (mut project, postgres) = running_container(ctx, env_file, "postgres")?;
    let (_, redis) = running_container(ctx, env_file, "redis")?;
    let _lock = lock::acquire(ctx, &project, "env rotate")?;
    let variable = secret_named(ctx, name)?;
    let path = secrets::file(ctx, &project, name);
    let before = secrets::read(&path)
        .with_context(|| format!("read the secret in force, {}", project::shown(ctx, &path)))?;
    let source = source_of(&project, &variable);
    let value = next_value(ctx, &mut project, &variable, &source, &before)?;
    let holder = holder_of(name);
    if ctx.is_dry_run() {
        ctx.ui.say(format!("  would give {name} of `{}` a new value", project.name));
        return Ok(());
    }
    let step = ctx.ui.step(format!("a new {name}"));
    if let Holder::Redis(user) = holder {
        set_redis(ctx, &redis.id, &format!("ACL SETUSER {user} #{}", sha256(&value)))?;
    }
    secrets::replace(&path, &value, &before, SystemTime::now() + grace)
        .with_context(|| format!("write {}", project::shown(ctx, &path)))?;
    if source == Source::File {
        project.remember(ctx, &[(name, &value)])?;
    }
    if let Holder::Database = holder {
        let psql = ["exec", &postgres.id, "psql", "--quiet", "--username", "postgres", "--file"];
        let database = project.value("PG_DBNAME");
        let command = Invocation::new("docker").args(psql).args([ROLES, "--dbname", database]);
        ctx.run(command.limit(LIMIT)).with_context(|| {
            format!("set {name} in the database; both values are accepted, so run this again")
        })?;
    }
    step.done("");
    finish(ctx, &project, &redis.id, name, &holder, &before, grace)
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
    ctx: &Ctx,
    project: &mut Project,
    variable: &Variable,
    source: &Source,
    before: &[String],
) -> Result<String> {
    match source {
        Source::File => dotenv::random_hex(variable.secret_bytes.unwrap_or_default()),
        Source::Elsewhere(place) => {
            secrets::check(ctx, project)?;
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

fn secret_named(ctx: &Ctx, name: &str) -> Result<Variable> {
    let variables = project::variables(ctx)?;
    let secrets: Vec<Variable> =
        variables.into_iter().filter(|variable| variable.secret_bytes.is_some()).collect();
    if let Some(found) = secrets.iter().find(|variable| variable.name == name) {
        return Ok(found.clone());
    }
    let names: Vec<&str> = secrets.iter().map(|variable| variable.name.as_str()).collect();
    bail!(Usage(format!("{name} is no secret of this project; there are {}", names.join(", "))))
}

fn holder_of(name: &str) -> Holder {
    match name {
        "PG_PASSWORD" | "PG_OWNER_PASSWORD" => Holder::Database,
        "REDIS_PASSWORD" => Holder::Redis("backend"),
        "REDIS_ADMIN_PASSWORD" => Holder::Redis("admin"),
        _ => Holder::Backend,
    }
}

/// Passwords of services need no grace: the backend takes the new one from the file when the old one
/// is refused. Keys need one: what was signed with them is in people's browsers.
fn finish(
    ctx: &Ctx,
    project: &Project,
    redis: &str,
    name: &str,
    holder: &Holder,
    before: &[String],
    grace: Duration,
) -> Result<()> {
    let path = secrets::file(ctx, project, name);
    match holder {
        Holder::Backend => {
            let until = humantime::format_rfc3339_seconds(SystemTime::now() + grace);
            ctx.ui.say(format!(
                "{name} is new; the previous value is accepted until {until}, and the first \
                 `cargo xtask up` after that drops it"
            ));
        }
        Holder::Redis(user) => {
            for value in before {
                set_redis(ctx, redis, &format!("ACL SETUSER {user} !{}", sha256(value)))?;
            }
            secrets::drop_previous(&path)?;
            ctx.ui.say(format!("{name} is new; the previous value is not accepted any more"));
        }
        Holder::Database => {
            secrets::drop_previous(&path)?;
            ctx.ui.say(format!("{name} is new; the previous value is not accepted any more"));
        }
    }
    Ok(())
}

/// Redis is told the hash of a password, so that the password stands in no argument list.
fn set_redis(ctx: &Ctx, container: &str, command: &str) -> Result<()> {
    let words = ["exec", container, "admin-cli", "-e"];
    let command = Invocation::new("docker").args(words).args(command.split(' ')).limit(LIMIT);
    ctx.run(command).context("change a user of Redis")
}

fn sha256(value: &str) -> String {
    hex(&Sha256::digest(value.as_bytes()))
}
