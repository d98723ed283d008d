//! Puts a saved database into a server, under any name, on several connections.
//!
//! The tables come first, without indexes. Then the pieces of the rows are dealt out to as many `psql` as
//! there are cores, so that one large table is loaded by all of them too. They go into the container as
//! they are stored, because every byte that the engine hands on costs more than to uncompress it there.
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
use archive::pieces::{self, Piece};

use super::catalogue::Backup;
use super::manifest::{Database, compare_rows, compare_tables, tables};
use super::postgres::{Postgres, SUPERUSER};
use super::sink::Meter;
use crate::ctx::{Invocation, Patient, Pipe};
use crate::ui::Step;

/// Loading everything, or building every index.
const LIMIT: Duration = Duration::from_secs(24 * 60 * 60);
/// More connections than this do not help on one disk.
const MOST_LANES: usize = 4;
/// Pieces of rows that wait for a connection: with the size of a piece, the bound on memory.
const QUEUE: usize = 4;
/// What psql says when it has read everything.
const AT_END: &str = "(end of the rows)";
/// For these sessions alone: what they write is worth nothing until the swap, which waits for the disk.
/// There are as many of them as cores, so that helpers of each would only be in each other's way.
const SETTINGS: &str = "PGOPTIONS=-c synchronous_commit=off -c statement_timeout=0 \
    -c maintenance_work_mem=128MB -c max_parallel_maintenance_workers=0";

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
        ensure!(
            extensions == self.database.extensions,
            "{}: the extensions are {extensions:?}, and {:?} were saved",
            self.database.name,
            self.database.extensions
        );
        ensure!(
            migration == self.database.migration,
            "{}: the last migration is {migration:?}, and {:?} was saved",
            self.database.name,
            self.database.migration
        );
        Ok(())
    }

    fn compare(&self, contents: &Contents) -> Result<()> {
        none(compare_tables(&self.database.name, &self.database.tables, &tables(contents)))
    }

    fn compare_counts(&self) -> Result<()> {
        let mut wanted = self.database.tables.clone();
        wanted.remove(copy::STATEMENTS);
        let found = self.server.counts(self.name, wanted.keys())?;
        none(compare_rows(&self.database.name, &wanted, &found))
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
        let command = psql(self.server, "template1")
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
            lanes.push(Lane::start(self.server, self.name)?);
        }
        let mut scanner = Scanner::counting(Dealer { lanes, next: 0, command: Vec::new() });
        let fed = pieces::read(self.file(&self.database.data_file)?, |piece| match piece {
            Piece::Text(text) => {
                meter.add(text.len());
                scanner.feed(&text)
            }
            Piece::Rows(frame, rows) => {
                meter.add(frame.len());
                scanner.pass(rows)?.deal(frame)
            }
        });
        let (dealer, contents) = scanner.end();
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

fn inside_with_settings(server: &Postgres, program: &str) -> Invocation {
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

/// One psql, which is told everything in frames of zstd.
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
        // A shell knows the exit status of psql alone. That zstd has come to its end too, psql says.
        const SCRIPT: &str = "zstd -dcq | psql \"$@\"";
        // Not `-q`: it says after each COPY how many rows it took.
        let words = ["-XAt", "--set", "ON_ERROR_STOP=1", "--username", SUPERUSER, "--dbname"];
        let command = inside_with_settings(server, "sh").args(["-c", SCRIPT, "psql"]).args(words);
        let mut pipe = server.ctx.pipe(command.arg(database).limit(LIMIT))?;
        let (input, output) = (pipe.input()?, pipe.output(LIMIT)?);
        let (sender, receiver) = sync_channel(QUEUE);
        let writer = thread::spawn(move || write_to(input, &receiver));
        let reader = thread::spawn(move || count_copied(output));
        Ok(Lane { pipe, sender, writer, reader, is_open: false })
    }

    /// Waits until it has done everything: how many rows it took.
    fn finish(self) -> Result<u64> {
        let told = pieces::frame(format!("\\echo {AT_END}\n").as_bytes())
            .and_then(|frame| self.sender.send(frame).map_err(|_| gone()));
        drop(self.sender);
        let written = self.writer.join().map_err(|_| anyhow!("a thread of xtask panicked"))?;
        let counted = self.reader.join().map_err(|_| anyhow!("a thread of xtask panicked"))?;
        // What psql says is the cause, and a pipe that broke the echo of it.
        self.pipe.finish()?;
        written?;
        told?;
        Ok(counted?)
    }
}

fn write_to(mut input: ChildStdin, receiver: &Receiver<Vec<u8>>) -> io::Result<()> {
    for piece in receiver {
        input.write_all(&piece)?;
    }
    Ok(())
}

/// Adds up what psql says it copied, to the word that stands at the end.
fn count_copied(from: Patient) -> io::Result<u64> {
    let mut copied = 0;
    for line in BufReader::new(from).lines() {
        let line = line?;
        if line == AT_END {
            return Ok(copied);
        }
        copied += line.strip_prefix("COPY ").and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    }
    Err(io::Error::other("psql did not get to see the end of the rows: zstd has stopped before it"))
}

/// Waits for all of them: how many rows they took together.
fn finish(lanes: Vec<Lane>, fed: io::Result<()>) -> Result<u64> {
    let (mut copied, mut failures) = (0, Vec::new());
    for lane in lanes {
        match lane.finish() {
            Ok(count) => copied += count,
            Err(error) => failures.push(error),
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
    /// The COPY command of the table that is being loaded, as a frame of zstd.
    command: Vec<u8>,
}

impl Dealer {
    fn send(&mut self, lane: usize, line: &[u8]) -> io::Result<()> {
        let line = pieces::frame(&[line, b"\n"].concat())?;
        self.lanes[lane].sender.send(line).map_err(|_| gone())
    }

    /// Hands on rows of the table that is being loaded, as a frame of zstd.
    fn deal(&mut self, rows: Vec<u8>) -> io::Result<()> {
        let mut piece = rows;
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
}

fn gone() -> io::Error {
    io::Error::from(io::ErrorKind::BrokenPipe)
}

impl copy::Sink for Dealer {
    fn statement(&mut self, line: &[u8]) -> io::Result<()> {
        let everywhere = if copy::is_setting(line) { self.lanes.len() } else { 1 };
        (0..everywhere).try_for_each(|lane| self.send(lane, line))
    }

    fn begin(&mut self, _table: &str, command: &[u8]) -> io::Result<()> {
        self.command = pieces::frame(&[command, b"\n"].concat())?;
        Ok(())
    }

    fn rows(&mut self, rows: &[u8], _count: u64) -> io::Result<()> {
        self.deal(pieces::frame(rows)?)
    }

    fn end(&mut self, _table: &str, _rows: u64) -> io::Result<()> {
        for lane in 0..self.lanes.len() {
            if std::mem::take(&mut self.lanes[lane].is_open) {
                self.send(lane, b"\\.")?;
            }
        }
        Ok(())
    }
}
