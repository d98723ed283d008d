//! Puts a saved database into a server, under any name, on several connections.
//!
//! The tables come first, without indexes. Then the rows, on several connections (see [`super::lanes`]),
//! which go into the container as they are stored, because every byte that the engine hands on costs more
//! than to uncompress it there. Indexes and constraints come last, several at a time.

use std::fs::File;
use std::io::{self, Read};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow, ensure};
use archive::copy::{self, Contents};
use archive::file;

use super::catalogue::Backup;
use super::lanes::{self, Lane, Queue, Skimmed, Units};
use super::manifest::{Database, compare_rows, compare_tables, tables};
use super::postgres::{Postgres, SUPERUSER};
use super::sink::Meter;
use crate::ctx::{Invocation, Pipe};
use crate::ui::Step;

/// Loading everything, or building every index.
pub(super) const LIMIT: Duration = Duration::from_secs(24 * 60 * 60);
/// More connections than this do not help on one disk.
const MOST_LANES: usize = 4;
/// For these sessions alone: what they write is worth nothing until the swap, which waits for the disk.
/// There are as many of them as cores, so that helpers of each would only be in each other's way.
/// What the database itself sets for its clients, such as to read only, does not count for them either.
const SETTINGS: &str = "PGOPTIONS=-c synchronous_commit=off -c statement_timeout=0 -c lock_timeout=0 \
    -c default_transaction_read_only=off -c maintenance_work_mem=128MB -c max_parallel_maintenance_workers=0";

/// How many things to do at once.
pub(crate) fn lanes() -> usize {
    thread::available_parallelism().map_or(1, std::num::NonZero::get).min(MOST_LANES)
}

/// How what was restored is compared with the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    /// Every row is read back.
    Rows,
    /// The rows of each table are counted. That is enough where a drill has shown that these very files,
    /// of which the sums were compared, become these very rows on this image.
    Counts,
}

/// One of a backup's databases, on its way to a new database of the name `name`.
pub(crate) struct Load<'a> {
    pub(crate) server: &'a Postgres<'a>,
    pub(crate) backup: &'a Backup,
    pub(crate) database: &'a Database,
    pub(crate) name: &'a str,
}

impl Load<'_> {
    /// Makes the database, with everything that is in the backup. How many rows were read from the
    /// files and how many PostgreSQL says it took is compared with the manifest; what is in the
    /// database then, [`Load::check`] compares.
    ///
    /// # Errors
    /// A program fails, or the rows are not those of the manifest.
    pub(crate) fn run(&self, step: &Step) -> Result<()> {
        let name = &self.database.name;
        step.note("tables");
        self.create().with_context(|| format!("make a database for {name}"))?;
        let words = ["--section=pre-data", "--exit-on-error"];
        let command = inside_with_settings(self.server, "pg_restore")
            .args(["--username", SUPERUSER, "--dbname", self.name])
            .args(words)
            .limit(LIMIT);
        feed(self.server.ctx.pipe(command)?, self.open(&self.database.schema_file)?)
            .with_context(|| format!("make the tables of {name}"))?;
        let sent = self.rows(step).with_context(|| format!("load the rows of {name}"))?;
        let sent = sent.into_iter().map(|(table, content)| (table, content.rows)).collect();
        none(compare_rows(name, &self.database.tables, &sent))
            .context("what was read from the backup")?;
        step.note("indexes");
        self.indexes().with_context(|| format!("build the indexes of {name}"))
    }

    /// Has PostgreSQL look at what it got, without which it would plan badly for a while.
    ///
    /// # Errors
    /// The server refuses it.
    pub(crate) fn analyze(&self) -> Result<()> {
        let analyze = psql(self.server, self.name).stdin("ANALYZE");
        self.server.ctx.run(analyze).with_context(|| format!("analyze {}", self.database.name))
    }

    /// Compares what is in the database now with the manifest.
    ///
    /// # Errors
    /// Something differs.
    pub(crate) fn check(&self, comparison: Comparison, step: &Step) -> Result<()> {
        match comparison {
            Comparison::Rows => self.compare(&self.server.contents(self.name, step)?),
            Comparison::Counts => self.compare_counts(),
        }
        .context("what was restored")?;
        let (migration, extensions) = self.server.head(self.name)?;
        self.compare_extensions(&extensions)?;
        ensure!(
            migration == self.database.migration,
            "{}: the last migration is {migration:?}, and {:?} was saved",
            self.database.name,
            self.database.migration
        );
        Ok(())
    }

    /// A dump makes an extension in the version that the server has by default, which may be a later one.
    fn compare_extensions(&self, found: &[String]) -> Result<()> {
        let (saved, name) = (&self.database.extensions, &self.database.name);
        if found == saved {
            return Ok(());
        }
        let names = |list: &[String]| -> Vec<String> {
            list.iter().map(|one| one.split(' ').next().unwrap_or_default().to_owned()).collect()
        };
        let what = format!(
            "{name}: the extensions are {}, and {} were saved",
            found.join(", "),
            saved.join(", ")
        );
        ensure!(names(found) == names(saved), "{what}");
        self.server
            .ctx
            .ui
            .warn(format!("{what}: PostgreSQL makes them in the version that it comes with"));
        Ok(())
    }

    fn compare(&self, contents: &Contents) -> Result<()> {
        none(compare_tables(&self.database.name, &self.database.tables, &tables(contents)))
    }

    fn compare_counts(&self) -> Result<()> {
        let mut wanted = self.database.tables.clone();
        wanted.remove(copy::STATEMENTS);
        let found = self.server.counts(self.name, wanted.keys())?;
        wanted.retain(|table, _| found.contains_key(table));
        none(compare_rows(&self.database.name, &wanted, &found))
    }

    /// The new database, with the rights and settings of the saved one.
    fn create(&self) -> Result<()> {
        let mut sql = String::from(
            "CREATE DATABASE :\"database\" OWNER :\"owner\" TEMPLATE template0 \
             ENCODING :'encoding' LC_COLLATE :'collate' LC_CTYPE :'ctype'",
        );
        if self.database.icu_locale.is_some() {
            sql.push_str(" LOCALE_PROVIDER icu ICU_LOCALE :'icu_locale'");
        }
        sql.push_str(";\n");
        for statement in &self.database.settings {
            sql.push_str(&format!("{statement};\n"));
        }
        let saved = self.database;
        let command = psql(self.server, "template1")
            .args(["--set".to_owned(), format!("database={}", self.name)])
            .args(["--set".to_owned(), format!("owner={}", saved.owner)])
            .args(["--set".to_owned(), format!("encoding={}", saved.encoding)])
            .args(["--set".to_owned(), format!("collate={}", saved.collate)])
            .args(["--set".to_owned(), format!("ctype={}", saved.ctype)])
            .args([
                "--set".to_owned(),
                format!("icu_locale={}", saved.icu_locale.as_deref().unwrap_or_default()),
            ]);
        self.server.ctx.run(command.stdin(sql))
    }

    fn rows(&self, step: &Step) -> Result<Contents> {
        let file = self.file(&self.database.data_file)?;
        let mut first = Lane::start(self.server, self.name)?;
        let Skimmed { settings, tables, contents } = match lanes::skim(&mut first, &file) {
            Ok(skimmed) => skimmed,
            Err(error) => return Err(first.failed(error)),
        };
        let count = lanes_for(self.database);
        let kinds = self.server.kinds(self.name, tables.iter().map(|table| &table.name))?;
        let Units { ordered, free } = lanes::units(tables, &kinds, count);
        let meter = Mutex::new(Meter::new(step));
        if let Err(error) = first.load_all(&Queue::new(ordered), &file, &meter) {
            return Err(first.failed(error));
        }
        let mut others = Vec::new();
        for _ in 1..count.min(free.len()) {
            let mut lane = Lane::start(self.server, self.name)?;
            settings.iter().try_for_each(|line| lane.tell(line))?;
            others.push(lane);
        }
        let queue = Queue::new(free);
        thread::scope(|scope| {
            let work = |lane: Lane| scope.spawn(|| lane.work(&queue, &file, &meter));
            let threads: Vec<_> = [first].into_iter().chain(others).map(work).collect();
            let panicked = |_| Err(anyhow!("a thread of xtask panicked"));
            let ends = threads.into_iter().map(|thread| thread.join().unwrap_or_else(panicked));
            // Each is waited for, also behind one that failed.
            ends.collect::<Vec<_>>().into_iter().collect::<Result<()>>()
        })?;
        Ok(contents)
    }

    fn indexes(&self) -> Result<()> {
        // Several at a time need a file that can be read anywhere. It is small: there are no rows in it.
        const SCRIPT: &str = "\
            umask 077; trap 'rm -f \"$0\"' EXIT; cat >\"$0\" && pg_restore \"$@\" \"$0\"";
        let path = format!("/tmp/{}.schema", self.name);
        let jobs = format!("--jobs={}", lanes());
        let build = inside_with_settings(self.server, "sh")
            .args(["-c", SCRIPT, &path, "--username", SUPERUSER, "--dbname", self.name])
            .args(["--section=post-data", "--exit-on-error", &jobs])
            .limit(LIMIT);
        feed(self.server.ctx.pipe(build)?, self.open(&self.database.schema_file)?)
    }

    fn open(&self, name: &str) -> Result<impl Read + use<>> {
        Ok(file::decompressor(self.file(name)?)?)
    }

    fn file(&self, name: &str) -> Result<File> {
        let path = self.backup.path(name);
        File::open(&path).with_context(|| format!("open {}", path.display()))
    }
}

/// psql as the superuser, which stops at the first mistake.
pub(crate) fn psql(server: &Postgres, database: &str) -> Invocation {
    let words = ["-XAtq", "--set", "ON_ERROR_STOP=1", "--username", SUPERUSER, "--dbname"];
    inside_with_settings(server, "psql").args(words).arg(database).limit(LIMIT)
}

pub(super) fn inside_with_settings(server: &Postgres, program: &str) -> Invocation {
    let words = ["exec", "--interactive", "--env", SETTINGS, server.container, program];
    Invocation::new("docker").args(words)
}

fn none(findings: Vec<String>) -> Result<()> {
    ensure!(findings.is_empty(), "is not what was saved: {}", findings.join("; "));
    Ok(())
}

/// A small database is not worth the start of several programs.
fn lanes_for(database: &Database) -> usize {
    const FEW: u64 = 10_000;
    let rows: u64 = database.tables.values().map(|table| table.rows).sum();
    if rows < FEW { 1 } else { lanes() }
}

/// Gives a command all that a reader has.
pub(crate) fn feed(mut pipe: Pipe, mut from: impl Read) -> Result<()> {
    let mut input = pipe.input()?;
    let fed = io::copy(&mut from, &mut input);
    drop(input);
    match fed {
        Ok(_) => pipe.finish(),
        Err(error) => Err(pipe.explain(Error::from(error))),
    }
}
