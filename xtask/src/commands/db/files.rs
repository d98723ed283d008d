//! The files of migrations: a new one, and what in them would hold a busy table up.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::cli::NewMigrationArgs;
use crate::ctx::{Ctx, Invocation};
use crate::ui;

pub(super) const FOLDER: &str = "backend/migrations";
/// A cold build of the linter.
const LIMIT: Duration = Duration::from_secs(10 * 60);
/// Where the history that is everybody's may be, best first.
const MAIN: [&str; 4] = ["origin/HEAD", "origin/main", "origin/master", "main"];

/// Writes the next file, with what its author must know.
///
/// # Errors
/// The name has not the form of one, or the file cannot be written.
pub(super) fn new(ctx: &Ctx, args: &NewMigrationArgs) -> Result<()> {
    let name = &args.name;
    let is_name = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
    ensure!(
        !name.is_empty() && name.bytes().all(is_name),
        "`{name}` is no name for a migration: lower-case letters, digits and `_`, such as add_tags"
    );
    let mut numbers = Vec::new();
    for entry in fs::read_dir(ctx.root().join(FOLDER)).with_context(|| format!("list {FOLDER}"))? {
        numbers.extend(number_of(&entry?.file_name().to_string_lossy()));
    }
    let number = numbers.into_iter().max().unwrap_or_default() + 1;
    let path = format!("{FOLDER}/{number:04}_{name}.sql");
    if ctx.is_dry_run() {
        ctx.ui.say(format!("  would write: {path}"));
        return Ok(());
    }
    // The number is free, so the name is. Two branches that chose one meet when the engine reads both.
    fs::write(ctx.root().join(&path), header(args.no_transaction))
        .with_context(|| format!("write {path}"))?;
    ui::data(&path)?;
    ctx.ui.say(
        "next: write it, then `cargo xtask migrate lint`, `cargo xtask migrate --dry-run`, \
         `cargo xtask migrate` and `cargo xtask migrate schema`",
    );
    Ok(())
}

fn number_of(file: &str) -> Option<u64> {
    file.strip_suffix(".sql")?.split_once('_')?.0.parse().ok()
}

fn header(no_transaction: bool) -> &'static str {
    if no_transaction {
        "-- no-transaction\n\
         -- Say here, in a sentence, what this is for, and delete the rest of this comment.\n\
         -- One statement, outside a transaction, that is harmless when it runs twice:\n\
         --     CREATE INDEX CONCURRENTLY IF NOT EXISTS … ON … (…);\n"
    } else {
        "-- Say here, in a sentence, what this is for, and delete the rest of this comment.\n\
         -- The whole file is one transaction with a lock_timeout; write no BEGIN or COMMIT. The version\n\
         -- that is running meets this schema first: add now, use it in the same release, take away\n\
         -- in the one after. backend/migrations/README.md has more.\n"
    }
}

/// Looks for statements in new files that would hold a busy table up, or in all files.
///
/// # Errors
/// There is one: each is on standard output with file, line, reason and the safe way.
pub(crate) fn lint(ctx: &Ctx, all: bool) -> Result<()> {
    let files = if all { None } else { new_files(ctx)? };
    let files = match files {
        Some(files) => files,
        None => every_file(&ctx.root().join(FOLDER))?,
    };
    if files.is_empty() {
        ctx.ui.say("no new migration; `--all` looks at every file");
        return Ok(());
    }
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let words = ["run", "--quiet", "--locked", "--package", "lint-sql", "--"];
    let linter = Invocation::new(cargo).args(words).args(&files).dir(ctx.root()).limit(LIMIT);
    let step = ctx.ui.step("lint migrations");
    let output = ctx.try_read(linter)?;
    if !output.stdout.is_empty() {
        ui::data(output.stdout.trim_end())?;
    }
    if output.status.success() {
        step.done(files.join(", "));
        return Ok(());
    }
    step.failed();
    let found = output.stdout.lines().filter(|line| line.starts_with(FOLDER)).count();
    ensure!(found > 0, "lint the migrations: {}", output.stderr.trim());
    bail!(
        "{found} statements hold a table in use up, or break the version that runs; a comment \
         `-- squawk-ignore RULE -- REASON` above one accepts it"
    );
}

/// The files that came or changed since this branch left everybody's history; none without git.
fn new_files(ctx: &Ctx) -> Result<Option<Vec<String>>> {
    let git = |words: &[&str]| -> Result<Option<String>> {
        if ctx.find("git").is_none() {
            return Ok(None);
        }
        let git = Invocation::new("git").args(words.iter().copied()).dir(ctx.root());
        let output = ctx.try_read(git)?;
        Ok(output.status.success().then(|| output.stdout.trim().to_owned()))
    };
    let Some(head) = git(&["rev-parse", "HEAD"])? else {
        ctx.ui.say("without git nobody knows which files are new: all are looked at");
        return Ok(None);
    };
    let mut base = None;
    for main in MAIN {
        base = git(&["merge-base", "HEAD", main])?;
        if base.is_some() {
            break;
        }
    }
    // On that branch itself, what the last merge brought. A history of one commit is all new.
    if base.as_ref() == Some(&head) {
        base = git(&["rev-parse", "--verify", "HEAD^"])?;
    }
    let Some(base) = base else {
        return Ok(None);
    };
    let mut names = Vec::new();
    // Relative, as the second is anyway: the project may be a folder of a larger repository.
    for listing in [
        &["diff", "--relative", "--name-only", "--diff-filter=d", &base, "--", FOLDER][..],
        &["ls-files", "--others", "--exclude-standard", "--", FOLDER],
    ] {
        let text = git(listing)?.context("ask git for the files that are new")?;
        names.extend(text.lines().filter(|name| name.ends_with(".sql")).map(str::to_owned));
    }
    names.sort();
    Ok(Some(names))
}

/// The files of migrations in order, as seen from the root.
pub(super) fn every_file(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("list {FOLDER}"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".sql") {
            names.push(format!("{FOLDER}/{name}"));
        }
    }
    names.sort();
    Ok(names)
}
