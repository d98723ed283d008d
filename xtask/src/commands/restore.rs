//! `restore`: puts a backup in the place of the present data.

mod source;

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::backup::catalogue::{self, Backup, Catalogue};
use crate::backup::fetched;
use crate::backup::manifest::{ASKED_FOR, UNFINISHED, before_restore};
use crate::backup::restore::{Asked, Parts, Restore};
use crate::backup::take;
use crate::backup::{both, replaced, room};
use crate::cli::{Format, FormatArgs, Part, RestoreArgs};
use crate::ctx::Ctx;
use crate::stack::lock;
use crate::stack::project::Project;
use crate::ui;
use source::Source;

/// A restore that was made, for scripts; fields are only ever added.
#[derive(Serialize)]
struct Restored<'a> {
    id: &'a str,
    /// None where PostgreSQL was left alone.
    rows: Option<u64>,
    /// None where Redis was left alone.
    keys: Option<u64>,
    /// The safety backup included.
    duration_ms: u128,
    /// The backup of what was there before.
    safety_backup: Option<&'a str>,
}

/// Restores a backup into the running stack.
///
/// # Errors
/// The backup is damaged or does not fit, it was not confirmed, or it cannot be loaded: then the
/// old data serves as before.
pub(crate) fn restore(ctx: &Ctx, env_file: &Path, args: &RestoreArgs) -> Result<()> {
    let project = Project::load(ctx, env_file)?;
    let catalogue = Catalogue::of(ctx, &project).filling(args.force);
    let servers = take::servers(ctx, &project)?;
    let parts = Parts {
        postgres: args.only != Some(Part::Redis),
        redis: args.only != Some(Part::Postgres) && args.into.is_none(),
    };
    let source = Source::find(ctx, &catalogue, args, &project.name)?;
    if let (true, Source::Copy { place, name }) = (ctx.is_dry_run(), &source) {
        // What is in it is known when it is here, and a dry run fetches nothing.
        let then = intention(args, parts, &project.name);
        ctx.ui.say(format!("  would fetch {name} from {place}, compare every file, and {then}"));
        return Ok(());
    }
    if !ctx.is_dry_run() {
        fetched::sweep(ctx, &project);
    }
    // What is fetched from elsewhere goes away with this.
    let (backup, _fetched) = source.open(ctx, &project, args)?;
    let asked = Asked { parts, accepts_other: args.force, compares_rows: args.compare };
    let step = ctx.ui.step(format!("check {}", backup.id()));
    let ((), restore) = both(
        || catalogue::check(ctx, &backup),
        || Restore::prepare(ctx, &project, &servers, &backup, asked),
    )?;
    step.done("every file is what was written");
    if let Some(into) = &args.into {
        return copy(ctx, &project, &restore, &backup, into, &args.format);
    }
    let mut replaced = restore.replaced()?;
    let aside = restore.aside()?;
    if args.skip_safety_backup && !aside.is_empty() {
        let aside = aside.describe();
        replaced.push(format!("{aside}, which an earlier restore put aside and has no copy of"));
    }
    if !args.skip_safety_backup {
        room::expect(ctx, &catalogue, &servers).context(
            "what is replaced is saved as a backup first of all (`--skip-safety-backup` drops it instead); nothing was changed",
        )?;
    }
    ctx.confirm_loss(
        &format!(
            "replace {} of `{}` by those of the backup {}{}, so that whatever was written in the {} \
             since then is no more",
            replaced.join(" and "),
            project.name,
            backup.id(),
            reason(&backup),
            age(&backup)
        ),
        "pass --yes if that is what you want",
    )?;
    if ctx.is_dry_run() {
        ctx.ui.say(format!("  would replace: {}", replaced.join(" and ")));
        return Ok(());
    }
    let started = Instant::now();
    let _lock = lock::acquire(ctx, &project, "restore")?;
    let is_copied = !args.skip_safety_backup;
    let settle = |reason: &str| {
        replaced::settle(ctx, &project, &catalogue, &servers, restore.postgres(), reason, is_copied)
    };
    settle(UNFINISHED)?;
    restore.run(&catalogue)?;
    let safety = settle(&before_restore(backup.id()))?;
    tell(ctx, args, &backup, parts, started.elapsed(), safety.as_deref())
}

/// What a restore would do, before there is a manifest to tell of databases and rows.
fn intention(args: &RestoreArgs, parts: Parts, project: &str) -> String {
    let what = match (&args.into, parts.postgres, parts.redis) {
        (Some(into), _, _) => return format!("make the database {into} of it"),
        (None, true, false) => "the databases",
        (None, false, _) => "the keys of Redis, sessions among them,",
        (None, true, true) => "the databases, and the keys of Redis, sessions among them,",
    };
    format!("replace {what} of `{project}` by what is in it")
}

/// What was restored, and what became of what was there before.
fn tell(
    ctx: &Ctx,
    args: &RestoreArgs,
    backup: &Backup,
    parts: Parts,
    took: Duration,
    safety_backup: Option<&str>,
) -> Result<()> {
    let manifest = &backup.manifest;
    if args.format.format == Format::Json {
        ui::json(&Restored {
            id: backup.id(),
            rows: parts.postgres.then(|| manifest.rows()),
            keys: parts.redis.then_some(manifest.redis.keys),
            duration_ms: took.as_millis(),
            safety_backup,
        })?;
    }
    let rows = if parts.postgres { format!("{} rows", manifest.rows()) } else { String::new() };
    let keys = if parts.redis { format!("{} keys", manifest.redis.keys) } else { String::new() };
    let both = if parts.postgres && parts.redis { ", " } else { "" };
    ctx.ui.say(format!(
        "restored {}: {rows}{both}{keys}, in {}{}",
        backup.id(),
        ui::seconds(took),
        safety_backup.map_or_else(String::new, |id| format!(
            "; what was there before is the backup {id}, which is never `latest`: `cargo xtask restore {id}` brings it back"
        ))
    ));
    Ok(())
}

/// Why it was taken, where that makes a difference to who restores it.
fn reason(backup: &Backup) -> String {
    let reason = &backup.manifest.reason;
    if reason == ASKED_FOR { String::new() } else { format!(" (taken: {reason})") }
}

/// How old a backup is, in words.
fn age(backup: &Backup) -> String {
    let taken = catalogue::time_of(backup.id());
    let age = taken.and_then(|time| SystemTime::now().duration_since(time).ok());
    age.map_or_else(|| "time".to_owned(), |age| ui::seconds(Duration::from_secs(age.as_secs())))
}

fn copy(
    ctx: &Ctx,
    project: &Project,
    restore: &Restore,
    backup: &Backup,
    into: &str,
    format: &FormatArgs,
) -> Result<()> {
    if ctx.is_dry_run() {
        ctx.ui.say(format!("  would make the database {into}"));
        return Ok(());
    }
    let _lock = lock::acquire(ctx, project, "restore --into")?;
    restore.copy_into(into)?;
    if format.format == Format::Json {
        ui::json(&serde_json::json!({"id": backup.id(), "database": into}))?;
    }
    ctx.ui.say(format!(
        "the database {into} holds the rows of {}; nothing else was changed. `cargo xtask psql -- \
         -U postgres -d {into}` opens it, and `cargo xtask psql -- -U postgres -c 'drop database \
         {into}'` removes it",
        backup.id()
    ));
    Ok(())
}
