//! `env`: the environment file, written from .env.example and checked against it.

mod rotate;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::cli::{EnvArgs, EnvVerb};
use crate::ctx::Ctx;
use crate::env::{self as dotenv, Kind};
use crate::stack::project::{self, LOCAL_ENV, PORTS, PRODUCTION_ENV, Project, shown};
use crate::stack::{ports, secrets};

/// Carries out `env init`, `check`, `diff` or `rotate`.
///
/// # Errors
/// The file cannot be read or written, or has findings.
pub(crate) fn env(ctx: &Ctx, env_file: &Path, kind: Kind, args: &EnvArgs) -> Result<()> {
    match &args.verb {
        EnvVerb::Init if env_file.exists() => complete(ctx, env_file, kind),
        EnvVerb::Init => write(ctx, env_file, kind),
        EnvVerb::Check => check(ctx, env_file),
        EnvVerb::Diff { other } => diff(ctx, env_file, other),
        EnvVerb::Rotate { name, grace } => rotate::rotate(ctx, env_file, name, *grace),
    }
}

/// Writes a laptop's environment file, if there is none. Production's is written by the person's
/// own word only: a server without one is not set up, or its secrets were lost.
///
/// # Errors
/// The folder or the disk does not take it; or it is production's.
pub(crate) fn ensure(ctx: &Ctx, env_file: &Path) -> Result<()> {
    if env_file.exists() {
        return Ok(());
    }
    if env_file == ctx.root().join(PRODUCTION_ENV) {
        bail!(
            "there is no {PRODUCTION_ENV}; on a new server `cargo xtask env init` writes it, \
             with new secrets. Where data exists already, put the file back that belongs to it"
        );
    }
    if env_file != ctx.root().join(LOCAL_ENV) {
        let name = shown(ctx, env_file);
        bail!(
            "there is no {name}; `cargo xtask env init` writes it, for a stack with a name, \
             ports and secrets of its own"
        );
    }
    write(ctx, env_file, Kind::Local)
}

fn write(ctx: &Ctx, env_file: &Path, kind: Kind) -> Result<()> {
    let example = project::example(ctx)?;
    let variables = project::variables(ctx)?;
    let mut text = dotenv::fill_in(&example, &variables, kind)?;
    let name = shown(ctx, env_file);
    let usual = [(Kind::Local, LOCAL_ENV), (Kind::Production, PRODUCTION_ENV)];
    let is_apart = !usual.iter().any(|(of, file)| *of == kind && env_file == ctx.root().join(file));
    if !is_apart {
        let known = keep_known_secrets(ctx, &mut text, &variables)?;
        if !known.is_empty() && !ctx.is_dry_run() {
            ctx.ui.say(format!(
                "  {name}: with the {} of .secrets, which are in use",
                known.join(", ")
            ));
        }
    } else {
        text = set_apart(env_file, &text, kind)?;
    }
    project::write_private(ctx, env_file, &text)?;
    if ctx.is_dry_run() {
        bail!(
            "{name} does not exist yet, so there is nothing to compare with; `cargo xtask env init` writes it"
        );
    }
    ctx.ui.say(format!("  {name}: written from .env.example, with secrets of its own"));
    if is_apart && kind == Kind::Production {
        ctx.ui.say(
            "  it is published on 127.0.0.1 and on ports that were free; HTTP_ADDRESS, HTTP_PORT and HTTPS_PORT say \
             where others reach it",
        );
    }
    say_open(ctx, &name, &text, &variables)
}

/// Names the secrets that only a person can fill in, and has not.
fn say_open(ctx: &Ctx, name: &str, text: &str, variables: &[dotenv::Variable]) -> Result<()> {
    let values = dotenv::parse(name, text)?;
    let is_open = |variable: &&dotenv::Variable| {
        variable.is_given() && values.get(&variable.name).is_none_or(String::is_empty)
    };
    let open: Vec<&str> = variables.iter().filter(is_open).map(|v| v.name.as_str()).collect();
    // A command is asked for them, and says itself what it does not have.
    let is_asked = values.get("SECRETS_COMMAND").is_some_and(|command| !command.is_empty());
    if !open.is_empty() && !is_asked {
        ctx.ui.warn(format!(
            "fill in {} in {name}: somebody else gives it, and the stack does not start without",
            open.join(", ")
        ));
    }
    Ok(())
}

/// Another file is another stack: it shares neither the name nor the ports of the usual one, nor the certificate.
/// Its ports are whatever was free, so that nobody outside is meant to know them yet.
fn set_apart(env_file: &Path, text: &str, kind: Kind) -> Result<String> {
    const NAME: &str = "COMPOSE_PROJECT_NAME";
    let values = dotenv::parse("the new environment file", text)?;
    let file = env_file.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let word = file.trim_start_matches('.').trim_start_matches("env").trim_start_matches('.');
    let is_plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let word: String = if word.is_empty() { "other" } else { word }.chars().map(is_plain).collect();
    let name = format!("{}-{word}", values.get(NAME).map_or("", String::as_str));
    let mut text = dotenv::set(text, NAME, &name);
    if kind == Kind::Production {
        text = dotenv::set(&text, "CERTS_DIR", &format!("./deploy/certs/{name}/live"));
        text = dotenv::set(&text, "HTTP_ADDRESS", "127.0.0.1");
    }
    for port in PORTS {
        text = dotenv::set(&text, port, &ports::any_free()?.to_string());
    }
    Ok(text)
}

/// Where the file was lost and the data was not, its secrets are still in the files that the containers
/// read: new ones would lock everybody out. Their names.
fn keep_known_secrets(
    ctx: &Ctx,
    text: &mut String,
    variables: &[dotenv::Variable],
) -> Result<Vec<String>> {
    let values = dotenv::parse("the new environment file", text)?;
    let project = values.get("COMPOSE_PROJECT_NAME").map_or("", String::as_str);
    let mut known = Vec::new();
    for variable in variables.iter().filter(|variable| variable.is_secret()) {
        let value = secrets::known(ctx, project, &variable.name)
            .with_context(|| format!("read the {} in use", variable.name))?;
        // One that cannot be written as it is, somebody else's, is asked for like a missing one.
        if let Some(value) = value.as_deref().and_then(dotenv::quoted) {
            *text = dotenv::set(text, &variable.name, &value);
            known.push(variable.name.clone());
        }
    }
    Ok(known)
}

/// Adds what is missing, and leaves what is there.
fn complete(ctx: &Ctx, env_file: &Path, kind: Kind) -> Result<()> {
    let name = shown(ctx, env_file);
    let mut text = fs::read_to_string(env_file).with_context(|| format!("read {name}"))?;
    let values = dotenv::parse(&name, &text)?;
    let mut added = Vec::new();
    let variables = project::variables(ctx)?;
    for variable in &variables {
        let current = values.get(&variable.name);
        let value = match (variable.generated_bytes(), current) {
            (Some(bytes), None) => dotenv::random_hex(bytes)?,
            (Some(bytes), Some(current)) if current.is_empty() => dotenv::random_hex(bytes)?,
            (None, None) => variable.value_for(kind),
            _ => continue,
        };
        text = dotenv::set(&text, &variable.name, &value);
        added.push(variable.name.as_str());
    }
    if added.is_empty() {
        ctx.ui.say(format!("nothing to do, {name} has every line"));
    } else {
        project::write_private(ctx, env_file, &text)?;
        ctx.ui.say(format!("{name}: added {}", added.join(", ")));
    }
    say_open(ctx, &name, &text, &variables)
}

/// Compares two files name by name. Of values it says whether they differ, and nothing else: most
/// that differ are secrets.
fn diff(ctx: &Ctx, env_file: &Path, other: &Path) -> Result<()> {
    let read = |path: &Path| -> Result<dotenv::Values> {
        let name = shown(ctx, path);
        let text = fs::read_to_string(path).with_context(|| format!("read {name}"))?;
        dotenv::parse(&name, &text)
    };
    let other = if other.is_absolute() { other.to_owned() } else { ctx.root().join(other) };
    let (left, right) = (read(env_file)?, read(&other)?);
    let secrets = project::variables(ctx)?;
    let is_secret = |name: &str| secrets.iter().any(|v| v.name == name && v.is_secret());
    let names: BTreeSet<&String> = left.keys().chain(right.keys()).collect();
    let rows: Vec<Vec<String>> = names
        .into_iter()
        .map(|name| vec![name.clone(), compare(&left, &right, name, is_secret(name)).to_owned()])
        .collect();
    crate::ui::data(crate::ui::table(&["VARIABLE", "VALUES"], &rows))?;
    ctx.ui.say(format!("{} against {}", shown(ctx, env_file), shown(ctx, &other)));
    Ok(())
}

fn compare(
    left: &dotenv::Values,
    right: &dotenv::Values,
    name: &str,
    is_secret: bool,
) -> &'static str {
    match (left.get(name), right.get(name)) {
        (Some(_), None) => "only in the first",
        (None, _) => "only in the second",
        (Some(left), Some(right)) if left != right => "differ",
        (Some(value), _) if is_secret && !value.is_empty() => {
            "the same secret in both: give each its own"
        }
        _ => "the same",
    }
}

fn check(ctx: &Ctx, env_file: &Path) -> Result<()> {
    let mut project = Project::load(ctx, env_file)?;
    project::keep_private(ctx, &project)?;
    secrets::check(ctx, &mut project)?;
    ctx.ui.say(format!("{} is in order (project `{}`)", shown(ctx, env_file), project.name));
    Ok(())
}
