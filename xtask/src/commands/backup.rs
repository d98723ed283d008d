//! `backup`: takes backups, and shows those that there are.

mod prune;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, bail};
use serde::Serialize;

use crate::backup::ahead::{self, is_ahead};
use crate::backup::catalogue::{self, Backup, Catalogue};
use crate::backup::copied::Copies;
use crate::backup::manifest::{ASKED_FOR, UNFINISHED};
use crate::backup::postgres::Postgres;
use crate::backup::replaced::{self, Replaced};
use crate::backup::{drill, fetched, offsite, room, take};
use crate::cli::{BackupArgs, BackupVerb, Format, FormatArgs, KeepArgs};
use crate::commands::schedule::{self, Job};
use crate::ctx::{Ctx, Usage};
use crate::stack::lock;
use crate::stack::project::{Project, shown};
use crate::ui;

/// Takes a backup, or shows what there is.
///
/// # Errors
/// The backup is not whole on the disk, or what is asked for is not there.
pub(crate) fn backup(ctx: &Ctx, env_file: &Path, args: &BackupArgs) -> Result<()> {
    let project = Project::load(ctx, env_file)?;
    let catalogue = Catalogue::of(ctx, &project).filling(args.force);
    if let Some(scheduler) = args.schedule {
        if args.push {
            // A timer that fails every night helps nobody.
            offsite::place(ctx, &project)?;
        } else if offsite::named_place(ctx, &project).is_some() {
            ctx.ui.warn("BACKUP_REMOTE is set, and without --push this copies nothing there");
        }
        let text = schedule::text(ctx, &project, scheduler, &Job::backup(args.push))?;
        return ui::data(text.trim_end());
    }
    match &args.verb {
        None => nightly(ctx, &project, &catalogue, args),
        Some(BackupVerb::List(args)) if args.remote => list_remote(ctx, &project, &args.format),
        Some(BackupVerb::List(args)) => list(ctx, &project, &catalogue, &args.format),
        Some(BackupVerb::Verify { id, force, format }) => {
            let backup = catalogue.find(ctx, id)?;
            if ctx.is_dry_run() {
                ctx.ui.say(format!("  would restore {} into servers of its own", backup.id()));
                return Ok(());
            }
            verify(ctx, &backup, *force, format)
        }
        Some(BackupVerb::Show { id, format }) => show(ctx, &catalogue, id, format),
        Some(BackupVerb::Push { id, format }) => {
            let backup = catalogue.find(ctx, id)?;
            if ctx.is_dry_run() {
                let place = offsite::place(ctx, &project)?;
                ctx.ui.say(format!("  would copy {} to {place}", backup.id()));
                return Ok(());
            }
            let copied = offsite::push(ctx, &project, &backup)?;
            if format.format == Format::Json { ui::json(&copied) } else { Ok(()) }
        }
        Some(BackupVerb::Pull { id, identity, format }) => {
            pull(ctx, &project, &catalogue, id, identity.as_ref(), format)
        }
        Some(BackupVerb::Prune(args)) => {
            prune::prune(ctx, &project, &catalogue, &args.keep, args.format.format)
        }
    }
}

/// Takes one, and deletes old ones where that is wanted: after a failure only where what failed was the room, of which
/// old ones are the first to take any.
fn nightly(ctx: &Ctx, project: &Project, catalogue: &Catalogue, args: &BackupArgs) -> Result<()> {
    let KeepArgs { keep_last, keep_daily, keep_weekly, keep_monthly } = args.keep;
    let is_kept = [keep_last, keep_daily, keep_weekly, keep_monthly].iter().any(Option::is_some);
    if is_kept && !args.prune {
        bail!(Usage("nothing is deleted without --prune; pass it as well".to_owned()));
    }
    let taken = take(ctx, project, catalogue, args);
    if !args.prune || taken.as_ref().is_err_and(|error| !room::is_lacking(error)) {
        return taken;
    }
    // Standard output has the manifest.
    let pruned = prune::prune(ctx, project, catalogue, &args.keep, Format::Text);
    match (taken, pruned) {
        (Err(first), Err(second)) => {
            ctx.ui.complain(format!("nothing was deleted: {second:#}"));
            Err(first)
        }
        (taken, pruned) => taken.and(pruned),
    }
}

fn take(ctx: &Ctx, project: &Project, catalogue: &Catalogue, args: &BackupArgs) -> Result<()> {
    let servers = take::servers(ctx, project)?;
    if args.push {
        // Better now than after an hour's work. A disk that is not mounted costs the copy, and not the backup.
        offsite::expect_a_place(ctx, project)?;
        if let Err(error) = offsite::place(ctx, project) {
            ctx.ui.warn(format!("{error:#}. The backup itself is made all the same"));
        }
    }
    if ctx.is_dry_run() {
        room::expect(ctx, catalogue, &servers)?;
        ctx.ui.say(format!(
            "  would save {} and {} to a new folder in {}",
            servers.postgres.name,
            servers.redis.name,
            shown(ctx, catalogue.folder())
        ));
        return Ok(());
    }
    let started = Instant::now();
    let lock = lock::acquire(ctx, project, "backup")?;
    fetched::sweep(ctx, project);
    let postgres = Postgres::own(ctx, &servers.postgres.id);
    replaced::settle(ctx, project, catalogue, &servers, &postgres, UNFINISHED, true)?;
    // What an interrupted one has left takes room.
    catalogue.sweep(ctx)?;
    room::expect(ctx, catalogue, &servers)?;
    let nothing = Replaced::default();
    let backup = take::take(ctx, project, catalogue, &servers, &nothing, ASKED_FOR)?;
    let took = ui::seconds(started.elapsed());
    drop(lock);
    if args.format.format == Format::Json {
        ui::json(&backup.manifest)?;
    }
    ctx.ui.say(format!(
        "backup {} of `{}`: {} rows, {} keys, {} in {took}; it is in {}",
        backup.id(),
        project.name,
        backup.manifest.rows(),
        backup.manifest.redis.keys,
        ui::bytes(backup.manifest.bytes()),
        shown(ctx, &backup.folder)
    ));
    let verified = match args.verify {
        true => verify(ctx, &backup, args.force, &FormatArgs { format: Format::Text }),
        false => Ok(()),
    };
    // Where there is no room to try it, a copy elsewhere is needed all the more. One that was tried in vain is none.
    if verified.as_ref().is_err_and(|error| !room::is_lacking(error)) {
        return verified;
    }
    if args.push {
        offsite::push(ctx, project, &backup)?;
    }
    verified
}

fn pull(
    ctx: &Ctx,
    project: &Project,
    catalogue: &Catalogue,
    id: &str,
    identity: Option<&PathBuf>,
    format: &FormatArgs,
) -> Result<()> {
    let place = offsite::place(ctx, project)?;
    let name = offsite::find(ctx, &place, id)?;
    if ctx.is_dry_run() {
        ctx.ui.say(format!("  would fetch {name} from {place}"));
        return Ok(());
    }
    let _lock = lock::acquire(ctx, project, "backup pull")?;
    let backup = offsite::pull(ctx, catalogue, &place, &name, identity)?;
    if format.format == Format::Json {
        ui::json(&backup.manifest)?;
    }
    ctx.ui.say(format!("{} is in {}", backup.id(), shown(ctx, &backup.folder)));
    Ok(())
}

fn list_remote(ctx: &Ctx, project: &Project, format: &FormatArgs) -> Result<()> {
    let place = offsite::place(ctx, project)?;
    let names = offsite::names(ctx, &place)?;
    if format.format == Format::Json {
        ui::json(&names)?;
    } else if names.is_empty() {
        let none = format!("no copy in {place}; `cargo xtask backup push` makes one");
        ui::data(ctx.ui.aim().at(&none))?;
    } else {
        ui::data(names.join("\n"))?;
    }
    Ok(())
}

fn verify(ctx: &Ctx, backup: &Backup, forced: bool, format: &FormatArgs) -> Result<()> {
    let result = drill::drill(ctx, backup, forced)?;
    if format.format == Format::Json {
        ui::json(&result)?;
    }
    ctx.ui.say(format!(
        "verified: {} restores in {}, with every one of its {} rows and {} keys",
        backup.id(),
        ui::seconds(Duration::from_millis(result.restore_ms)),
        result.rows,
        result.keys
    ));
    Ok(())
}

/// A line of the list; fields are only ever added.
#[derive(Serialize)]
struct Line {
    id: String,
    /// Why it is no backup that can be restored; none where it is whole.
    damage: Option<String>,
    /// Its time lies in the future: it is never `latest`.
    is_ahead: bool,
    /// It is what a restore has replaced: it is not `latest` either.
    is_safety: bool,
    reason: Option<String>,
    bytes: Option<u64>,
    rows: Option<u64>,
    keys: Option<u64>,
    age_seconds: Option<u64>,
    /// When a restore of it was last proven; none where it was not, or failed.
    verified_at: Option<String>,
    /// When this host copied it to BACKUP_REMOTE; none where it did not.
    copied_at: Option<String>,
}

fn line(id: String, backup: Result<Backup>, copied_at: Option<String>) -> Line {
    let is_ahead = is_ahead(&id, SystemTime::now());
    let age = catalogue::time_of(&id).and_then(|time| SystemTime::now().duration_since(time).ok());
    let age_seconds = age.map(|age| age.as_secs());
    let verified = backup.as_ref().ok().and_then(drill::result);
    let verified_at = verified.filter(|v| v.failure.is_none()).map(|v| v.verified_at);
    match backup {
        Ok(Backup { manifest, .. }) => Line {
            id,
            damage: None,
            is_ahead,
            is_safety: manifest.is_safety(),
            reason: Some(manifest.reason.clone()),
            bytes: Some(manifest.bytes()),
            rows: Some(manifest.rows()),
            keys: Some(manifest.redis.keys),
            age_seconds,
            verified_at,
            copied_at,
        },
        Err(error) => Line {
            id,
            damage: Some(format!("{error:#}")),
            is_ahead,
            is_safety: false,
            reason: None,
            bytes: None,
            rows: None,
            keys: None,
            age_seconds,
            verified_at,
            copied_at,
        },
    }
}

fn list(ctx: &Ctx, project: &Project, catalogue: &Catalogue, format: &FormatArgs) -> Result<()> {
    let (place, copies) = (offsite::named_place(ctx, project), Copies::of(catalogue));
    let copied_at = |id: &str| Some(copies.time(id, place.as_deref()?)?.to_owned());
    let listed = catalogue.list()?.into_iter();
    let lines: Vec<Line> = listed
        .map(|(id, backup)| {
            let copied_at = copied_at(&id);
            line(id, backup, copied_at)
        })
        .collect();
    if format.format == Format::Json {
        ui::json(&lines)?;
        return Ok(());
    }
    if lines.is_empty() {
        let folder = catalogue.folder().display();
        let none = format!("no backup in {folder}; `cargo xtask backup` takes one");
        return ui::data(ctx.ui.aim().at(&none));
    }
    let dash = || "-".to_owned();
    let number = |value: Option<u64>| value.map_or_else(dash, |value| value.to_string());
    let yes = |time: &Option<String>| if time.is_some() { "yes".to_owned() } else { dash() };
    let row = |line: &Line| {
        vec![
            line.id.clone(),
            line.age_seconds.map_or_else(dash, |age| ui::seconds(Duration::from_secs(age))),
            line.bytes.map_or_else(dash, ui::bytes),
            number(line.rows),
            number(line.keys),
            yes(&line.verified_at),
            yes(&line.copied_at),
            why(line),
        ]
    };
    let rows: Vec<Vec<String>> = lines.iter().map(row).collect();
    ui::data(ui::table(&["ID", "AGE", "SIZE", "ROWS", "KEYS", "PROVEN", "COPIED", "WHY"], &rows))?;
    Ok(())
}

/// Why it was taken, or what is wrong with it.
fn why(line: &Line) -> String {
    let reason = || line.reason.clone().unwrap_or_default();
    match &line.damage {
        Some(damage) => console::style(format!("damaged: {damage}")).red().to_string(),
        None if line.is_ahead => format!("{}; never `latest`: {}", reason(), ahead::WHY),
        None if line.is_safety => format!("{}; never `latest`", reason()),
        None => reason(),
    }
}

fn show(ctx: &Ctx, catalogue: &Catalogue, id: &str, format: &FormatArgs) -> Result<()> {
    let backup = catalogue.find(ctx, id)?;
    if format.format == Format::Json {
        ui::json(&backup.manifest)?;
        return Ok(());
    }
    ui::data(described(&backup).join("\n"))
}

/// What is in a backup, a line for each thing.
fn described(backup: &Backup) -> Vec<String> {
    let manifest = &backup.manifest;
    let (postgres, redis) = (&manifest.postgres, &manifest.redis);
    let mut lines = vec![
        format!("backup     {} of `{}`: {}", manifest.id, manifest.project, manifest.reason),
        format!("folder     {}", backup.folder.display()),
        format!("taken      {}, in {} ms", manifest.started_at, manifest.duration_ms),
        format!("size       {}", ui::bytes(manifest.bytes())),
        format!(
            "postgres   {} ({}, {}); roles {}",
            postgres.server.version,
            postgres.server.image,
            postgres.server.flavour,
            postgres.roles.join(", ")
        ),
        format!(
            "redis      {} ({}, {}); {} keys",
            redis.server.version, redis.server.image, redis.server.flavour, redis.keys
        ),
    ];
    for database in &postgres.databases {
        let migration = database.migration.as_deref().unwrap_or("none");
        lines.push(format!("database   {}; last migration: {migration}", database.name));
        for (name, table) in &database.tables {
            lines.push(format!("  {:>12} rows  {name}", table.rows));
        }
    }
    lines
}
