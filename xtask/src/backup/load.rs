//! Puts a saved database into a server, under any name, on several connections.
//!
//! The tables come first, without indexes. Then the one stream of rows is cut at line ends and dealt
//! out to as many `psql` as there are cores, so that one large table is loaded by all of them too.
//! Indexes and constraints come last, several at a time.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::ChildStdin;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow, ensure};
use archive::copy::{self, Contents, Scanner};
use archive::file;

use super::catalogue::Backup;
use super::manifest::{Database, compare_tables, tables};
use super::postgres::Postgres;
use super::sink::Meter;
use crate::ctx::{Invocation, Patient, Pipe};
use crate::ui::Step;

/// Loading everything, or building every index.
const LIMIT: Duration = Duration::from_secs(24 * 60 * 60);
/// More connections than this do not help on one disk.
const MOST_LANES: usize = 4;
/// Pieces of rows that wait for a connection: with the size of a piece, the bound on memory.
const QUEUE: usize = 4;
/// For these sessions alone: what they write is worth nothing until the swap, which waits for the disk.
const SETTINGS: &str =
    "PGOPTIONS=-c synchronous_commit=off -c maintenance_work_mem=128MB -c statement_timeout=0";
/// The role that may make databases and give them away; over the socket in the container only.
const SUPERUSER: &str = "postgres";

/// How many things to do at once.
pub(crate) fn lanes() -> usize {
    thread::available_parallelism().map_or(1, std::num::NonZero::get).min(MOST_LANES)
}

/// One of a backup's databases, on its way to a new database of the name `name`.
pub(crate) struct Load<'a> {
    pub(crate) server: Postgres<'a>,
    pub(crate) backup: &'a Backup,
    pub(crate) database: &'a Database,
    pub(crate) name: &'a str,
}

impl Load<'_> {
    /// Makes the database, with everything that is in the backup. What was read from the files and
    /// what PostgreSQL says it took is compared with the manifest; what is in the database then,
    /// [`Load::check`] compares.
    ///
    /// # Errors
    /// A program fails, or the rows are not those of the manifest.
    pub(crate) fn run(&self, step: &Step) -> Result<()> {
        let name = &self.database.name;
        step.note("tables");
        self.create().with_context(|| format!("make a database for {name}"))?;
        let words = ["--section=pre-data", "--exit-on-error"];
        let command = self.pg_restore().args(words);
        feed(self.server.ctx.pipe(command)?, self.open(&self.database.schema_file)?)
            .with_context(|| format!("make the tables of {name}"))?;
        let contents = self.rows(step).with_context(|| format!("load the rows of {name}"))?;
        self.compare(&contents).context("what was read from the backup")?;
        step.note("indexes");
        self.indexes().with_context(|| format!("build the indexes of {name}"))
    }

    /// Has PostgreSQL look at what it got, without which it would plan badly for a while.
    ///
    /// # Errors
    /// The server refuses it.
    pub(crate) fn analyze(&self) -> Result<()> {
        let analyze = psql(&self.server, self.name).stdin("ANALYZE");
        self.server.ctx.run(analyze).with_context(|| format!("analyze {}", self.database.name))
    }

    /// Compares what is in the database now with the manifest, row by row.
    ///
    /// # Errors
    /// Something differs.
    pub(crate) fn check(&self, step: &Step) -> Result<()> {
        self.compare(&self.server.contents(self.name, step)?).context("what was restored")?;
        let extensions = self.server.extensions(self.name)?;
        ensure!(
            extensions == self.database.extensions,
            "{}: the extensions are {extensions:?}, and {:?} were saved",
            self.database.name,
            self.database.extensions
        );
        let migration = self.server.migration(self.name)?;
        ensure!(
            migration == self.database.migration,
            "{}: the last migration is {migration:?}, and {:?} was saved",
            self.database.name,
            self.database.migration
        );
        Ok(())
    }

    fn compare(&self, contents: &Contents) -> Result<()> {
        let findings =
            compare_tables(&self.database.name, &self.database.tables, &tables(contents));
        ensure!(findings.is_empty(), "is not what was saved: {}", findings.join("; "));
        Ok(())
    }

    /// The new database, with the rights and settings of the saved one.
    fn create(&self) -> Result<()> {
        let mut sql = String::from(
            "CREATE DATABASE :\"database\" OWNER :\"owner\" TEMPLATE template0 \
             ENCODING :'encoding' LC_COLLATE :'collate' LC_CTYPE :'ctype';\n",
        );
        for statement in &self.database.settings {
            sql.push_str(&format!("{statement};\n"));
        }
        let saved = self.database;
        let command = psql(&self.server, "template1")
            .args(["--set".to_owned(), format!("database={}", self.name)])
            .args(["--set".to_owned(), format!("owner={}", saved.owner)])
            .args(["--set".to_owned(), format!("encoding={}", saved.encoding)])
            .args(["--set".to_owned(), format!("collate={}", saved.collate)])
            .args(["--set".to_owned(), format!("ctype={}", saved.ctype)]);
        self.server.ctx.run(command.stdin(sql))
    }

    fn rows(&self, step: &Step) -> Result<Contents> {
        let mut meter = Meter::new(step);
        let mut lanes = Vec::new();
        for _ in 0..lanes_for(self.database) {
            lanes.push(Lane::start(&self.server, self.name)?);
        }
        let mut from = self.open(&self.database.data_file)?;
        let mut scanner = Scanner::new(Dealer { lanes, next: 0, command: Vec::new() });
        let mut buffer = vec![0; file::CHUNK];
        let fed = loop {
            match from.read(&mut buffer) {
                Ok(0) => break Ok(()),
                Ok(read) => {
                    meter.add(read);
                    if let Err(error) = scanner.feed(&buffer[..read]) {
                        break Err(error);
                    }
                }
                Err(error) => break Err(error),
            }
        };
        let finished = scanner.end();
        let (dealer, contents) = finished;
        let loaded = finish(dealer.lanes, fed)?;
        let contents = contents?;
        let is_table = |name: &&String| *name != copy::STATEMENTS;
        let read: u64 =
            contents.iter().filter(|(name, _)| is_table(name)).map(|(_, table)| table.rows).sum();
        ensure!(loaded == read, "PostgreSQL took {loaded} rows, and {read} were sent");
        Ok(contents)
    }

    fn indexes(&self) -> Result<()> {
        // Several at a time need a file that can be read anywhere. It is small: there are no rows in it.
        let path = format!("/tmp/{}.schema", self.name);
        let words = ["-c", "umask 077 && cat >\"$0\"", &path];
        let write = self.server.inside("sh").args(words).limit(LIMIT);
        feed(self.server.ctx.pipe(write)?, self.open(&self.database.schema_file)?)?;
        let jobs = format!("--jobs={}", lanes());
        let words = ["--section=post-data", "--exit-on-error", &jobs, &path];
        let built = self.server.ctx.run(self.pg_restore().args(words));
        let removed = self.server.ctx.run(self.server.inside("rm").args(["-f", &path]));
        built.and(removed)
    }

    fn pg_restore(&self) -> Invocation {
        let words = ["--username", SUPERUSER, "--dbname", self.name];
        inside_with_settings(&self.server, "pg_restore").args(words).limit(LIMIT)
    }

    fn open(&self, name: &str) -> Result<impl Read + use<>> {
        let path = self.backup.path(name);
        let opened = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        Ok(file::decompressor(opened)?)
    }
}

/// psql as the superuser, which stops at the first mistake.
pub(crate) fn psql(server: &Postgres, database: &str) -> Invocation {
    let words = ["-XAtq", "--set", "ON_ERROR_STOP=1", "--username", SUPERUSER, "--dbname"];
    inside_with_settings(server, "psql").args(words).arg(database).limit(LIMIT)
}

fn inside_with_settings(server: &Postgres, program: &str) -> Invocation {
    let words = ["exec", "--interactive", "--env", SETTINGS, server.container, program];
    Invocation::new("docker").args(words)
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

/// One psql.
struct Lane {
    pipe: Pipe,
    sender: SyncSender<Vec<u8>>,
    writer: JoinHandle<io::Result<()>>,
    reader: JoinHandle<io::Result<u64>>,
    /// It has got the COPY command of the table that is being loaded.
    is_open: bool,
}

impl Lane {
    fn start(server: &Postgres, database: &str) -> Result<Lane> {
        // Not `-q`: it says after each COPY how many rows it took.
        let words = ["-XAt", "--set", "ON_ERROR_STOP=1", "--username", SUPERUSER, "--dbname"];
        let command = inside_with_settings(server, "psql").args(words).arg(database).limit(LIMIT);
        let mut pipe = server.ctx.pipe(command)?;
        let (input, output) = (pipe.input()?, pipe.output(LIMIT)?);
        let (sender, receiver) = sync_channel(QUEUE);
        let writer = thread::spawn(move || write_to(input, &receiver));
        let reader = thread::spawn(move || count_copied(output));
        Ok(Lane { pipe, sender, writer, reader, is_open: false })
    }
}

fn write_to(mut input: ChildStdin, receiver: &Receiver<Vec<u8>>) -> io::Result<()> {
    for piece in receiver {
        input.write_all(&piece)?;
    }
    Ok(())
}

/// Adds up what psql says it copied.
fn count_copied(from: Patient) -> io::Result<u64> {
    let mut copied = 0;
    for line in BufReader::new(from).lines() {
        let line = line?;
        copied += line.strip_prefix("COPY ").and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(copied)
}

/// Waits for all of them: how many rows they took together.
fn finish(lanes: Vec<Lane>, fed: io::Result<()>) -> Result<u64> {
    let (mut copied, mut failures) = (0, Vec::new());
    for Lane { pipe, sender, writer, reader, .. } in lanes {
        drop(sender);
        let written = writer.join().map_err(|_| anyhow!("a thread of xtask panicked"))?;
        let counted = reader.join().map_err(|_| anyhow!("a thread of xtask panicked"))?;
        // What psql says is the cause, and a pipe that broke the echo of it.
        match (pipe.finish(), written, counted) {
            (Err(error), ..) => failures.push(error),
            (_, Err(error), _) | (_, _, Err(error)) => failures.push(error.into()),
            (Ok(()), Ok(()), Ok(count)) => copied += count,
        }
    }
    match failures.into_iter().next() {
        Some(failure) => Err(failure),
        None => fed.map(|()| copied).map_err(Error::from),
    }
}

/// Deals rows out to whichever psql has room.
struct Dealer {
    lanes: Vec<Lane>,
    next: usize,
    /// The COPY command of the table that is being loaded.
    command: Vec<u8>,
}

impl Dealer {
    fn send(&mut self, lane: usize, bytes: &[u8]) -> io::Result<()> {
        self.lanes[lane].sender.send(bytes.to_vec()).map_err(|_| gone())
    }
}

fn gone() -> io::Error {
    io::Error::from(io::ErrorKind::BrokenPipe)
}

impl copy::Sink for Dealer {
    fn statement(&mut self, line: &[u8]) -> io::Result<()> {
        let line = [line, b"\n"].concat();
        let everywhere = if copy::is_setting(&line) { self.lanes.len() } else { 1 };
        (0..everywhere).try_for_each(|lane| self.send(lane, &line))
    }

    fn begin(&mut self, _table: &str, command: &[u8]) -> io::Result<()> {
        self.command = [command, b"\n"].concat();
        Ok(())
    }

    fn rows(&mut self, rows: &[u8]) -> io::Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let mut piece = rows.to_vec();
        let count = self.lanes.len();
        for turn in 0.. {
            let lane = &mut self.lanes[self.next];
            self.next = (self.next + 1) % count;
            let message =
                if lane.is_open { piece } else { [&self.command[..], &piece[..]].concat() };
            let was_open = lane.is_open;
            // A whole round without room: wait for this one.
            let sent = if turn < count {
                lane.sender.try_send(message)
            } else {
                lane.sender.send(message).map_err(|error| TrySendError::Disconnected(error.0))
            };
            match sent {
                Ok(()) => {
                    lane.is_open = true;
                    return Ok(());
                }
                Err(TrySendError::Disconnected(_)) => return Err(gone()),
                Err(TrySendError::Full(message)) => {
                    piece = if was_open { message } else { message[self.command.len()..].to_vec() };
                }
            }
        }
        Ok(())
    }

    fn end(&mut self, _table: &str, _rows: u64) -> io::Result<()> {
        for lane in self.lanes.iter_mut().filter(|lane| lane.is_open) {
            lane.is_open = false;
            lane.sender.send(b"\\.\n".to_vec()).map_err(|_| gone())?;
        }
        Ok(())
    }
}

/// Makes the roles of a backup that the server does not have, with the attributes, settings and
/// memberships that were saved; unless only those are wanted, every other role gets its own, too.
/// Passwords stay as they are; a new role has none.
///
/// # Errors
/// The server refuses a statement.
pub(crate) fn load_roles(server: &Postgres, backup: &Backup, only_missing: bool) -> Result<()> {
    let path = backup.path(&backup.manifest.postgres.roles_file);
    let opened = File::open(&path).with_context(|| format!("open {}", path.display()))?;
    let mut text = String::new();
    file::decompressor(opened)?.read_to_string(&mut text).context("read the saved roles")?;
    let existing = server.query("postgres", "SELECT quote_ident(rolname) FROM pg_roles")?;
    let script = roles_script(&text, &existing, only_missing);
    server.ctx.run(psql(server, "postgres").stdin(script)).context("restore the roles")
}

/// The statements of `pg_dumpall --roles-only` that a server with these roles can run.
fn roles_script(dump: &str, existing: &[String], only_missing: bool) -> String {
    let is_new = |name: &str| !existing.iter().any(|known| known == name);
    let is_kept = |line: &&str| match line.strip_prefix("CREATE ROLE ") {
        Some(name) => is_new(name.trim_end_matches(';')),
        None if line.starts_with('\\') => false,
        None => !only_missing || roles_of(line).into_iter().any(is_new),
    };
    let kept: Vec<&str> = dump.lines().filter(is_kept).collect();
    kept.join("\n") + "\n"
}

/// The roles that a statement is about: `ALTER ROLE name …`, `GRANT group TO member …`.
fn roles_of(line: &str) -> Vec<&str> {
    let word = |text: &'static str| {
        let rest = line.strip_prefix(text)?;
        identifier(rest)
    };
    let member = line.split_once(" TO ").and_then(|(_, rest)| identifier(rest));
    match (word("ALTER ROLE "), word("GRANT ")) {
        (Some(role), _) => vec![role],
        (_, Some(group)) => [Some(group), member].into_iter().flatten().collect(),
        _ => Vec::new(),
    }
}

/// The identifier at the beginning of a text, with its quotes where it has some.
fn identifier(text: &str) -> Option<&str> {
    let mut is_quoted = false;
    let end = text.find(|c: char| {
        is_quoted ^= c == '"';
        !is_quoted && (c == ' ' || c == ';')
    });
    text.get(..end?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_that_are_there_are_not_made_again() {
        let dump = "\\restrict x\nCREATE ROLE app;\nALTER ROLE app WITH LOGIN;\n\
            CREATE ROLE \"odd name\";\nALTER ROLE \"odd name\" WITH LOGIN;\n\
            GRANT pg_read_all_data TO app GRANTED BY postgres;\n\
            GRANT app TO \"odd name\" GRANTED BY postgres;\n";
        let existing = ["app".to_owned(), "pg_read_all_data".to_owned()];
        let all = roles_script(dump, &existing, false);
        let kept: Vec<&str> = dump.lines().skip(2).collect();
        assert_eq!(all.lines().collect::<Vec<_>>(), kept);
        let missing = "CREATE ROLE \"odd name\";\nALTER ROLE \"odd name\" WITH LOGIN;\n\
            GRANT app TO \"odd name\" GRANTED BY postgres;\n";
        assert_eq!(roles_script(dump, &existing, true), missing);
    }
}
