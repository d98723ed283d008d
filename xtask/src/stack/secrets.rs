//! Secrets on their way into containers: from the environment file, the process or a command, to
//! files that Compose mounts below /run/secrets.
//!
//! A file's first line is the current value. Further lines are other ones, which the services accept
//! during a rotation (see `stack/rotation.rs`), and keys for a while after it; a comment says until when.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};

use crate::ctx::{Ctx, Invocation};
use crate::env::{self, Values, Variable};
use crate::stack::project::{self, Project, shown};
use crate::stack::rotation::Password;
use crate::ui;

/// Below the project's root; compose.yaml names it too.
pub(crate) const FOLDER: &str = ".secrets";
/// Stands before the time up to which the values below it are accepted.
const UNTIL: &str = "# previous values are accepted until ";
/// How long a previous key is accepted unless somebody says otherwise: the time after which a session that nobody
/// uses ends anyway (`IDLE` of the backend's sessions).
pub(crate) const GRACE: &str = "7d";
/// A vault may have to sign in first.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// The folder with this stack's files.
pub(crate) fn folder(ctx: &Ctx, project: &Project) -> PathBuf {
    ctx.root().join(FOLDER).join(&project.name)
}

/// The file of a secret variable: `PG_PASSWORD` is in `pg_password`.
pub(crate) fn file(ctx: &Ctx, project: &Project, name: &str) -> PathBuf {
    folder(ctx, project).join(name.to_lowercase())
}

/// Writes every secret that changed to its file. One that its source has replaced meanwhile is a rotation, as by
/// `env rotate`: whoever runs knows the previous value and is let in with it.
///
/// # Errors
/// A secret is missing, short, or (in production) easy to guess: all are named. Or the command
/// fails that prints them, or the folder does not take them.
pub(crate) fn provide(ctx: &Ctx, project: &mut Project) -> Result<()> {
    let variables = check(ctx, project)?;
    for variable in variables.iter().filter(|variable| variable.is_secret()) {
        let path = file(ctx, project, &variable.name);
        let value = project.value(&variable.name);
        let values = read(&path).unwrap_or_default();
        let is_first = values.first().map(String::as_str) == Some(value);
        if ctx.is_dry_run() {
            if !is_first {
                ctx.ui.say(format!("  would write: {}", shown(ctx, &path)));
            }
            continue;
        }
        let is_password = Password::named(&variable.name).is_some();
        let written = match values.iter().any(|known| known == value) {
            // There is no time of both: whoever gives it decides. The services that read it start anew.
            _ if variable.is_given() => {
                if is_first {
                    Ok(())
                } else {
                    write(&path, &[value])
                }
            }
            true if is_password => prefer(&path, value),
            true => prefer(&path, value).and_then(|()| drop_expired(&path, SystemTime::now())),
            false if values.is_empty() => write(&path, &[value]),
            false => {
                let until = SystemTime::now() + humantime::parse_duration(GRACE)?;
                ctx.ui.say(replaced(&variable.name, is_password));
                replace(&path, value, &values, until)
            }
        };
        written.with_context(|| format!("write {}", shown(ctx, &path)))?;
    }
    Ok(())
}

/// The files that [`provide`] has yet to write, for a dry run: what reads them starts anew then. One whose value
/// is replaced keeps its time, unless it is somebody else's.
pub(crate) fn missing(ctx: &Ctx, project: &Project) -> Vec<PathBuf> {
    let variables = project::variables(ctx).unwrap_or_default();
    let secrets = variables.iter().filter(|variable| variable.is_secret());
    let files = secrets.map(|variable| (variable, file(ctx, project, &variable.name)));
    let is_written = |(variable, path): &(&Variable, PathBuf)| {
        let (value, values) = (project.value(&variable.name), read(path).unwrap_or_default());
        let is_other = !value.is_empty() && values.first().map(String::as_str) != Some(value);
        values.is_empty() || variable.is_given() && is_other
    };
    files.filter(is_written).map(|(_, path)| path).collect()
}

fn replaced(name: &str, is_password: bool) -> String {
    if is_password {
        format!("  {name} is another one than before; the services learn it when all is up")
    } else {
        format!(
            "  {name} is another one than before, which is accepted for {GRACE} more; to end it now, \
             with every session or page that it signed: cargo xtask env rotate {name} --grace 0s"
        )
    }
}

/// Gets every secret from wherever it comes, and refuses those that cannot be used. Writes nothing.
///
/// # Errors
/// As [`provide`].
pub(crate) fn check(ctx: &Ctx, project: &mut Project) -> Result<Vec<Variable>> {
    let variables = project::variables(ctx)?;
    ask_command(ctx, project, &variables)?;
    refuse_weak(ctx, project, &variables)?;
    Ok(variables)
}

/// Removes a stack's files.
///
/// # Errors
/// The folder does not go away.
pub(crate) fn remove(ctx: &Ctx, project_name: &str) -> Result<()> {
    let folder = ctx.root().join(FOLDER).join(project_name);
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("delete {}", shown(ctx, &folder)))
        }
        _ => Ok(()),
    }
}

/// Takes over what `SECRETS_COMMAND` prints, for those secrets that are not given otherwise.
fn ask_command(ctx: &Ctx, project: &mut Project, variables: &[Variable]) -> Result<()> {
    let command = project.value("SECRETS_COMMAND").to_owned();
    let is_asked =
        |variable: &&Variable| variable.is_secret() && project.value(&variable.name).is_empty();
    let asked: Vec<&str> =
        variables.iter().filter(is_asked).map(|variable| variable.name.as_str()).collect();
    if command.is_empty() || asked.is_empty() {
        return Ok(());
    }
    let given = printed_by(ctx, &command, &asked, COMMAND_LIMIT)?;
    project.values.extend(given);
    Ok(())
}

/// The secrets with these names, as the command prints them. What else it prints is left out.
///
/// # Errors
/// The command fails or takes longer than `limit`, or prints something else than secrets, or not all.
fn printed_by(ctx: &Ctx, command: &str, names: &[&str], limit: Duration) -> Result<Values> {
    let shell = Invocation::new("sh").args(["-c", command]).dir(ctx.root()).limit(limit);
    let printed = ctx.read_secret(shell).with_context(|| {
        format!(
            "ask SECRETS_COMMAND for the secrets; try it in a shell: within {}, and without asking \
             anything, it must print NAME=value lines",
            ui::seconds(limit)
        )
    })?;
    let mut printed = env::parse("the output of SECRETS_COMMAND", &printed)?;
    printed.retain(|name, value| names.contains(&name.as_str()) && !value.is_empty());
    let missing: Vec<&str> =
        names.iter().copied().filter(|name| !printed.contains_key(*name)).collect();
    ensure!(
        missing.is_empty(),
        "SECRETS_COMMAND gives no value for {}; let it print a line NAME=value for each, or set them \
         in the environment file",
        missing.join(", ")
    );
    Ok(printed)
}

fn refuse_weak(ctx: &Ctx, project: &Project, variables: &[Variable]) -> Result<()> {
    let file = shown(ctx, &project.env_file);
    let secrets: Vec<Variable> =
        variables.iter().filter(|variable| variable.is_secret()).cloned().collect();
    let mut findings = env::findings(&file, &project.values, &secrets);
    if project.is_production() {
        findings.extend(env::strength::weaknesses(&file, &project.values, &secrets));
    }
    ensure!(
        findings.is_empty(),
        "these secrets cannot be used:\n  {}\nmake the line empty and `cargo xtask env init` \
         generates a new one, where it is made here; for a stack that runs, `cargo xtask env rotate NAME`",
        findings.join("\n  ")
    );
    Ok(())
}

/// The values in a secret's file: the current one, then those that are still accepted.
///
/// # Errors
/// The file cannot be read.
pub(crate) fn read(path: &Path) -> std::io::Result<Vec<String>> {
    let text = fs::read_to_string(path)?;
    let is_value = |line: &&str| !line.is_empty() && !line.starts_with('#');
    Ok(text.lines().filter(is_value).map(str::to_owned).collect())
}

/// The value of a secret that the containers of a project read, if they have one.
///
/// # Errors
/// There is a file, and it cannot be read.
pub(crate) fn known(ctx: &Ctx, project_name: &str, name: &str) -> std::io::Result<Option<String>> {
    let path = ctx.root().join(FOLDER).join(project_name).join(name.to_lowercase());
    match read(&path) {
        Ok(values) => Ok(values.into_iter().next()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Puts the value that is wanted first, where a rotation was killed before it told so to the source of
/// the values. The others stay: somebody may have used them by now.
///
/// # Errors
/// The file cannot be read or written.
pub(crate) fn prefer(path: &Path, value: &str) -> std::io::Result<()> {
    let text = fs::read_to_string(path)?;
    let values = read(path)?;
    if values.first().map(String::as_str) == Some(value) {
        return Ok(());
    }
    let until = text.lines().find(|line| line.starts_with(UNTIL));
    let others = values.iter().map(String::as_str).filter(|known| *known != value);
    quietly(path, &[value].into_iter().chain(until).chain(others).collect::<Vec<_>>())
}

/// Puts a new value first and keeps the others until `until`. The file keeps its time of change: the
/// services take the new value by themselves and need no restart.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn replace(
    path: &Path,
    value: &str,
    previous: &[String],
    until: SystemTime,
) -> std::io::Result<()> {
    let until = format!("{UNTIL}{}", humantime::format_rfc3339_seconds(until));
    let mut lines = vec![value, &until];
    lines.extend(previous.iter().map(String::as_str).filter(|line| *line != value));
    quietly(path, &lines)
}

/// Leaves the current value alone in a secret's file.
///
/// # Errors
/// The file cannot be read or written.
pub(crate) fn drop_previous(path: &Path) -> std::io::Result<()> {
    let values = read(path)?;
    quietly(path, &values.first().map(String::as_str).into_iter().collect::<Vec<_>>())
}

fn drop_expired(path: &Path, now: SystemTime) -> std::io::Result<()> {
    let text = fs::read_to_string(path)?;
    let until = text.lines().find_map(|line| line.strip_prefix(UNTIL));
    match until.map(humantime::parse_rfc3339) {
        Some(Ok(until)) if until > now => Ok(()),
        None => Ok(()),
        _ => drop_previous(path),
    }
}

/// Writes a file and gives it its time of change back.
fn quietly(path: &Path, values: &[&str]) -> std::io::Result<()> {
    let changed = fs::metadata(path)?.modified()?;
    put(path, values, Some(changed))
}

/// Writes a secret's file as one that is new to the services, which start anew for it.
fn write(path: &Path, values: &[&str]) -> std::io::Result<()> {
    put(path, values, None)
}

/// Writes a secret's file, line by line; with a time of change of its own, if one is given.
///
/// In place, because a container sees the file that was there when it started and not another one
/// of the same name. The folder is closed to other users of the host; the file is not, because the
/// container's user is another one than ours, and keeps its mode in the container.
///
/// # Errors
/// The folder or the disk does not take it.
fn put(path: &Path, values: &[&str], changed: Option<SystemTime>) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
    }
    let text: String = values.iter().map(|value| format!("{value}\n")).collect();
    let length = fs::metadata(path).map_or(0, |data| data.len());
    // Over all that was there, so that no end of an older line stays for a moment, or for good where we
    // are killed: empty lines say nothing.
    let padding = usize::try_from(length).unwrap_or_default().saturating_sub(text.len());
    let padded = text.clone() + &"\n".repeat(padding);
    let mut options = OpenOptions::new();
    // Not truncated first: whoever reads meanwhile would find nothing.
    let mut file = options.write(true).create(true).truncate(false).mode(0o644).open(path)?;
    file.write_all(padded.as_bytes())?;
    file.set_len(text.len() as u64)?;
    // Before the disk is waited for: who is killed then has the services restarted for nothing.
    changed.map_or(Ok(()), |changed| file.set_modified(changed))?;
    file.sync_all()
}

#[cfg(test)]
mod tests;
