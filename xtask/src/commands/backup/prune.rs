//! `backup prune`: deletes old backups, by the rule of `backup::retention`.

use std::time::SystemTime;

use anyhow::Result;
use serde::Serialize;

use crate::backup::catalogue::Catalogue;
use crate::backup::drill;
use crate::backup::retention::{self, Candidate, Policy};
use crate::cli::{Format, KeepArgs};
use crate::ctx::Ctx;
use crate::stack::lock;
use crate::stack::project::Project;
use crate::ui;

/// A backup and what becomes of it; fields are only ever added.
#[derive(Serialize)]
struct Line {
    id: String,
    is_kept: bool,
    /// Why it is kept.
    reasons: Vec<String>,
}

/// Deletes the backups that the rule does not keep, after asking.
///
/// # Errors
/// That was not confirmed, or one does not go away.
pub(super) fn prune(
    ctx: &Ctx,
    project: &Project,
    catalogue: &Catalogue,
    keep: &KeepArgs,
    format: Format,
) -> Result<()> {
    let _lock = lock::acquire(ctx, project, "backup prune")?;
    let policy = Policy {
        last: keep.keep_last.unwrap_or(3),
        daily: keep.keep_daily.unwrap_or(7),
        weekly: keep.keep_weekly.unwrap_or(5),
        monthly: keep.keep_monthly.unwrap_or(12),
    };
    let lines = lines(catalogue, policy)?;
    show(ctx, &lines, format)?;
    let doomed: Vec<&str> = lines.iter().filter(|l| !l.is_kept).map(|line| &*line.id).collect();
    if doomed.is_empty() {
        ctx.ui.say("nothing to delete");
        return Ok(());
    }
    if ctx.is_dry_run() {
        ctx.ui.say(format!("  would delete: {}", doomed.join(", ")));
        return Ok(());
    }
    ctx.confirm_loss(
        &format!(
            "delete {} of {} backups of `{}`: {}",
            doomed.len(),
            lines.len(),
            project.name,
            doomed.join(", ")
        ),
        "pass --yes if that is what you want",
    )?;
    for id in &doomed {
        ctx.check_interrupted()?;
        catalogue.delete(id)?;
    }
    ctx.ui.say(format!("deleted {} backups, kept {}", doomed.len(), lines.len() - doomed.len()));
    Ok(())
}

fn lines(catalogue: &Catalogue, policy: Policy) -> Result<Vec<Line>> {
    let mut candidates = Vec::new();
    let mut lines = Vec::new();
    for (id, backup) in catalogue.list()? {
        match backup {
            Ok(backup) => {
                let is_verified = drill::is_verified(&backup);
                let was_verified = drill::was_verified(&backup);
                let is_safety = backup.manifest.is_safety();
                candidates.push(Candidate { id, is_verified, was_verified, is_safety });
            }
            // It may be all that is left of something; only a person can tell.
            Err(_) => lines.push(Line { id, is_kept: true, reasons: vec!["damaged".to_owned()] }),
        }
    }
    let decided = retention::decide(&candidates, policy, SystemTime::now());
    let line =
        |(id, reasons): (String, Vec<String>)| Line { id, is_kept: !reasons.is_empty(), reasons };
    lines.extend(decided.into_iter().map(line));
    lines.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(lines)
}

fn show(ctx: &Ctx, lines: &[Line], format: Format) -> Result<()> {
    if format == Format::Json {
        ui::json(lines)?;
        return Ok(());
    }
    let row = |line: &Line| {
        let verdict = if line.is_kept { "keep" } else { "delete" };
        vec![line.id.clone(), verdict.to_owned(), line.reasons.join(", ")]
    };
    let rows: Vec<Vec<String>> = lines.iter().map(row).collect();
    if !rows.is_empty() {
        ctx.ui.say(ui::table(&["ID", "VERDICT", "BECAUSE"], &rows));
    }
    Ok(())
}
