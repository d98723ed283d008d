//! What is pending, applied before a new version starts. A migration may take as long as it needs: beside what
//! serves, in a container of its own, it holds nobody up; in the backend's own one its health check would give up
//! on it, and whoever makes that container anew would end it half way.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Error, Result};
use sha2::{Digest, Sha256};

use super::scratch::psql;
use super::{BACKEND, LIMIT, engine, files};
use crate::ctx::{Ctx, Interrupted};
use crate::images::hex;
use crate::stack::plan::{Action, Plan};
use crate::stack::project::Project;
use crate::stack::running::Container;
use crate::ui;

const POSTGRES: &str = "postgres";
/// Stands in the answer where an engine is at work.
const UNDER_WAY: &str = "under way";
/// One line a migration of the history, where there is one. The engine's session has the lock and this name.
const QUESTION: &str = "\
SELECT 'under way' FROM pg_locks JOIN pg_stat_activity USING (pid)
 WHERE locktype = 'advisory' AND granted AND application_name = 'backend migrate'
   AND datname = current_database() LIMIT 1;
SELECT to_regclass('public.schema_migrations') IS NOT NULL AS is_there \\gset
\\if :is_there
SELECT version, name, checksum FROM public.schema_migrations;
\\endif
";

/// A file as the history knows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Migration {
    version: u64,
    name: String,
    checksum: String,
}

impl Migration {
    fn file(&self) -> String {
        format!("{:04}_{}.sql", self.version, self.name)
    }

    /// As the backend's engine reads it: the sum is over LF.
    fn of_file(file: &str, text: &str) -> Option<Migration> {
        let (number, name) = file.strip_suffix(".sql")?.split_once('_')?;
        let checksum = hex(&Sha256::digest(text.replace("\r\n", "\n")));
        Some(Migration { version: number.parse().ok()?, name: name.to_owned(), checksum })
    }

    fn of_row(line: &str) -> Option<Migration> {
        let [version, name, checksum] = line.split('|').collect::<Vec<_>>()[..] else {
            return None;
        };
        let (name, checksum) = (name.to_owned(), checksum.to_owned());
        Some(Migration { version: version.parse().ok()?, name, checksum })
    }
}

/// What the engine has to do before the backend starts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Due {
    /// Files that the database does not have as they are here. Whether each can be applied, the engine finds out.
    files: Vec<String>,
    /// Somebody applies migrations at this moment.
    pub(crate) is_under_way: bool,
}

impl Due {
    /// What the files and PostgreSQL's answer come to; none where the database has what is here. Later ones are
    /// those of a newer version.
    fn of(files: &BTreeSet<Migration>, answer: &str) -> Option<Due> {
        let rows: BTreeSet<Migration> = answer.lines().filter_map(Migration::of_row).collect();
        let head = files.last().map_or(0, |last| last.version);
        let gone = rows.difference(files).filter(|row| {
            row.version <= head && !files.iter().any(|file| file.version == row.version)
        });
        let due = Due {
            files: files.difference(&rows).chain(gone).map(Migration::file).collect(),
            is_under_way: answer.lines().any(|line| line == UNDER_WAY),
        };
        (due != Due::default()).then_some(due)
    }

    /// Why the engine has to run, in a few words.
    fn reason(&self) -> String {
        match (self.is_under_way, &self.files[..]) {
            (true, _) => "migrations are being applied, and are waited for".to_owned(),
            (false, [only]) => format!("{only} first, beside what runs"),
            (false, [first, others @ ..]) => {
                format!("{first} and {} more first, beside what runs", others.len())
            }
            (false, []) => String::new(),
        }
    }
}

/// What has to be applied before the plan is carried out. PostgreSQL is asked where a backend is about to start, or
/// has not got ready yet, beside a database that serves and goes on serving; otherwise there is nobody to ask, or
/// nothing to ask for.
///
/// # Errors
/// A file cannot be read, or PostgreSQL does not answer.
pub(crate) fn due(
    ctx: &Ctx,
    project: &Project,
    plan: &Plan,
    containers: &[Container],
) -> Result<Option<Due>> {
    let step = |name: &str| plan.steps.iter().find(|step| step.service == name);
    let begins = step(BACKEND).is_some_and(|step| {
        // What is paused may hold the engine's lock, and goes on with it.
        !matches!(step.action, Action::Keep | Action::Reload | Action::Resume)
    });
    let stays =
        step(POSTGRES).is_some_and(|step| matches!(step.action, Action::Keep | Action::Reload));
    let postgres = containers.iter().find(|c| c.service == POSTGRES && c.is_ready());
    let Some(postgres) = postgres.filter(|_| begins && stays) else { return Ok(None) };
    let here = here(ctx.root())?;
    let words = ["--tuples-only", "--no-align"];
    let ask = psql(&postgres.id, project.value("PG_DBNAME")).args(words).stdin(QUESTION);
    let answer = ctx.read(ask).context("ask PostgreSQL which migrations are applied")?;
    Ok(Due::of(&here, &answer))
}

/// The files of this checkout.
fn here(root: &Path) -> Result<BTreeSet<Migration>> {
    let folder = root.join(files::FOLDER);
    if !folder.is_dir() {
        return Ok(BTreeSet::new());
    }
    let mut found = BTreeSet::new();
    for path in files::every_file(&folder)? {
        let text = fs::read_to_string(root.join(&path)).with_context(|| format!("read {path}"))?;
        let name = path.rsplit('/').next().unwrap_or_default();
        // What has no such name, the engine refuses; it was refused when the image was built.
        found.extend(Migration::of_file(name, &text));
    }
    Ok(found)
}

/// Applies what is due, in a container of the image that is about to start, or waits until somebody else has. Each
/// line of the engine is shown.
///
/// # Errors
/// A migration fails, and its file is named in what was shown; nothing was replaced.
pub(crate) fn apply(ctx: &Ctx, project: &Project, due: &Due) -> Result<()> {
    ctx.ui.say(format!("  migrations: {}", due.reason()));
    ctx.run_loud(engine(project, &[]).limit(LIMIT)).map_err(explain)
}

/// What a failure means for the stack.
fn explain(error: Error) -> Error {
    if error.is::<Interrupted>() {
        // The engine's client is gone then, and not always what it started.
        return error.context(
            "nothing was replaced; a migration that was begun may go on in its container, and the next `cargo xtask \
             up` or `cargo xtask deploy` waits for it",
        );
    }
    error.context(
        "the migrations come before the new version, and were not applied: nothing was replaced, and what served \
         before serves on. `cargo xtask migrate status` shows what is applied",
    )
}

/// What a dry run says of it.
///
/// # Errors
/// As of [`due`].
pub(crate) fn tell(
    ctx: &Ctx,
    project: &Project,
    plan: &Plan,
    containers: &[Container],
) -> Result<()> {
    let Some(due) = due(ctx, project, plan, containers)? else { return Ok(()) };
    ui::data(format!("{:<9} {POSTGRES:<9} {}", "migrate", due.reason()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(texts: &[(&str, &str)]) -> BTreeSet<Migration> {
        texts.iter().filter_map(|(file, text)| Migration::of_file(file, text)).collect()
    }

    /// What PostgreSQL says where these were applied.
    fn history(texts: &[(&str, &str)]) -> String {
        let row = |m: Migration| format!("{}|{}|{}\n", m.version, m.name, m.checksum);
        files(texts).into_iter().map(row).collect()
    }

    const A: (&str, &str) = ("0001_a.sql", "SELECT 1;\n");
    const B: (&str, &str) = ("0002_b.sql", "SELECT 2;\n");
    const C: (&str, &str) = ("0003_c.sql", "SELECT 3;\n");

    #[test]
    fn what_the_database_has_not_as_it_is_here_is_due() {
        let due = |here: &[(&str, &str)], there: &[(&str, &str)]| {
            Due::of(&files(here), &history(there)).map_or_else(Vec::new, |due| due.files)
        };
        assert_eq!(due(&[A, B], &[]), ["0001_a.sql", "0002_b.sql"]);
        assert_eq!(due(&[A, B, C], &[A, B]), ["0003_c.sql"]);
        assert_eq!(due(&[A, B], &[A, B]), [""; 0]);
        // With CRLF it is the same file; edited or renamed it is none that was applied, and the engine says so.
        assert_eq!(due(&[("0001_a.sql", "SELECT 1;\r\n")], &[A]), [""; 0]);
        assert_eq!(due(&[("0001_a.sql", "SELECT 9;\n")], &[A]), ["0001_a.sql"]);
        assert_eq!(due(&[("0001_z.sql", "SELECT 1;\n")], &[A]), ["0001_z.sql"]);
        // One that is gone is a mistake, and later ones are those of a newer version.
        assert_eq!(due(&[A, C], &[A, B, C]), ["0002_b.sql"]);
        assert_eq!(due(&[A], &[A, B, C]), [""; 0]);
    }

    #[test]
    fn an_engine_at_work_is_waited_for_whatever_it_applies() {
        let due = Due::of(&files(&[A]), &format!("{UNDER_WAY}\n{}", history(&[A]))).unwrap();
        assert!(due.is_under_way && due.files.is_empty(), "{due:?}");
        assert!(QUESTION.contains(&format!("SELECT '{UNDER_WAY}'")));
    }

    #[test]
    fn who_interrupts_it_is_not_told_that_nothing_is_applied() {
        let said = |error: Error| format!("{:#}", explain(error));
        assert!(said(anyhow::anyhow!("0001_a.sql failed")).contains("were not applied"));
        let interrupted = explain(Interrupted.into());
        assert!(interrupted.is::<Interrupted>(), "the exit code is another then");
        let text = said(Interrupted.into());
        assert!(text.contains("may go on") && !text.contains("not applied"), "{text}");
    }

    #[test]
    fn a_plan_tells_how_many_come_first() {
        let reason = |names: &[&str]| {
            let files = names.iter().map(|&name| name.to_owned()).collect();
            Due { files, is_under_way: false }.reason()
        };
        assert_eq!(reason(&["0001_a.sql"]), "0001_a.sql first, beside what runs");
        assert_eq!(
            reason(&["0001_a.sql", "x", "y"]),
            "0001_a.sql and 2 more first, beside what runs"
        );
    }
}
