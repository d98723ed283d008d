//! Rows on their way from a backup's file into a database, on several connections at a time.
//!
//! A table is one connection's, so that its rows can be frozen as they come (COPY's FREEZE): pages that are
//! written once need no second time for what is known of their rows by then, neither when the indexes read
//! them nor when they are vacuumed. Only where there are more connections than two, a table that is larger
//! than its share is dealt out to all of them. Each keeps more than one core busy, so on two cores that
//! would win nothing.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::process::ChildStdin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::{Error, Result, anyhow, ensure};
use archive::copy::{self, Contents, Scanner};
use archive::pieces::{self, Piece, Place};

use super::facts::Kind;
use super::load::{LIMIT, inside_with_settings};
use super::postgres::{Postgres, SUPERUSER};
use super::sink::Meter;
use crate::ctx::{Patient, Pipe};

/// What psql says when it has read everything.
const AT_END: &str = "(end of the rows)";

/// A table, and where its rows lie.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: String,
    /// The COPY command of the dump.
    command: Vec<u8>,
    /// Those of a partitioned table may come in several parts of a dump.
    places: Vec<Place>,
}

/// What one connection loads at a time: a table, or a part of one.
#[derive(Debug)]
pub(super) struct Unit {
    command: Vec<u8>,
    places: Vec<Place>,
    /// The name of the table where this is all of it.
    whole: Option<String>,
}

impl Unit {
    fn bytes(&self) -> usize {
        self.places.iter().map(|place| place.length).sum()
    }

    fn rows(&self) -> u64 {
        self.places.iter().map(|place| place.rows).sum()
    }

    /// What goes before the rows. PostgreSQL freezes rows of a table only where the transaction has made
    /// it or emptied it.
    fn head(&self) -> Vec<u8> {
        match (&self.whole, self.command.strip_suffix(b";")) {
            (Some(table), Some(command)) => {
                let begin = format!("BEGIN;\nTRUNCATE ONLY {table};\n");
                [begin.as_bytes(), command, b" WITH (FREEZE);"].concat()
            }
            _ => self.command.clone(),
        }
    }

    fn foot(&self) -> &'static [u8] {
        if self.whole.is_some() { b"\\.\nCOMMIT;" } else { b"\\." }
    }
}

/// What is to be loaded, in the order in which it is.
pub(super) struct Units {
    /// Tables of extensions, whose keys exist already: one after the other, as the dump has them. Nothing
    /// of theirs is emptied, as the extension may have filled them.
    pub(super) ordered: Vec<Unit>,
    /// The others, of which the last is the largest.
    pub(super) free: Vec<Unit>,
}

/// Deals tables out to so many connections.
pub(super) fn units(tables: Vec<Table>, kinds: &BTreeMap<String, Kind>, lanes: usize) -> Units {
    let bytes = |places: &[Place]| -> usize { places.iter().map(|place| place.length).sum() };
    let share = tables.iter().map(|table| bytes(&table.places)).sum::<usize>().div_ceil(lanes);
    let mut units = Units { ordered: Vec::new(), free: Vec::new() };
    for table in tables.into_iter().filter(|table| !table.places.is_empty()) {
        let kind = kinds.get(&table.name).copied().unwrap_or(Kind::Plain);
        let Table { name, command, places } = table;
        if kind == Kind::OfExtension {
            units.ordered.push(Unit { command, places, whole: None });
        } else if lanes <= 2 || bytes(&places) <= share {
            let whole = (kind == Kind::Plain).then_some(name);
            units.free.push(Unit { command, places, whole });
        } else {
            let part = places.len().div_ceil(lanes);
            units.free.extend(places.chunks(part).map(|places| Unit {
                command: command.clone(),
                places: places.to_vec(),
                whole: None,
            }));
        }
    }
    units.free.sort_by_key(Unit::bytes);
    // The queue gives out the last one first.
    units.ordered.reverse();
    units
}

/// The units that no connection has taken yet.
pub(super) struct Queue {
    /// None once a connection has failed.
    units: Mutex<Option<Vec<Unit>>>,
}

impl Queue {
    pub(super) fn new(units: Vec<Unit>) -> Queue {
        Queue { units: Mutex::new(Some(units)) }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Vec<Unit>>> {
        self.units.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<Unit> {
        self.lock().as_mut()?.pop()
    }

    fn is_over(&self) -> bool {
        self.lock().is_none()
    }

    fn give_up(&self) {
        *self.lock() = None;
    }
}

/// One psql, which is told everything in frames of zstd.
pub(super) struct Lane {
    pipe: Pipe,
    input: ChildStdin,
    reader: JoinHandle<io::Result<Vec<u64>>>,
    /// How many rows each COPY had so far, of those that were ended.
    sent: Vec<u64>,
}

impl Lane {
    /// # Errors
    /// It cannot be started.
    pub(super) fn start(server: &Postgres, database: &str) -> Result<Lane> {
        // A shell knows the exit status of psql alone. That zstd has come to its end too, psql says.
        const SCRIPT: &str = "zstd -dcq | psql \"$@\"";
        // Not `-q`: it says after each COPY how many rows it took.
        let words = ["-XAt", "--set", "ON_ERROR_STOP=1", "--username", SUPERUSER, "--dbname"];
        let command = inside_with_settings(server, "sh").args(["-c", SCRIPT, "psql"]).args(words);
        let mut pipe = server.ctx.pipe(command.arg(database).limit(LIMIT))?;
        let (input, output) = (pipe.input()?, pipe.output(LIMIT)?);
        let reader = thread::spawn(move || copied(output));
        Ok(Lane { pipe, input, reader, sent: Vec::new() })
    }

    /// # Errors
    /// It has ended.
    pub(super) fn tell(&mut self, line: &[u8]) -> io::Result<()> {
        self.input.write_all(&pieces::frame(&[line, b"\n"].concat())?)
    }

    /// Loads one unit after the other, to the last, and ends.
    ///
    /// # Errors
    /// The file cannot be read, psql fails, or it took other rows than it was sent. The others stop then.
    pub(super) fn work(mut self, queue: &Queue, file: &File, meter: &Mutex<Meter>) -> Result<()> {
        let fed = self.load_all(queue, file, meter);
        if queue.is_over() {
            // Another has told the cause; what this one was at is worth nothing now.
            return Ok(());
        }
        let ended = self.end(fed);
        if ended.is_err() {
            queue.give_up();
        }
        ended
    }

    /// Sends all units, one after the other.
    ///
    /// # Errors
    /// The file cannot be read, or psql has ended.
    pub(super) fn load_all(
        &mut self,
        queue: &Queue,
        file: &File,
        meter: &Mutex<Meter>,
    ) -> io::Result<()> {
        while let Some(unit) = queue.next() {
            self.tell(&unit.head())?;
            for place in &unit.places {
                if queue.is_over() {
                    return Ok(());
                }
                self.input.write_all(&place.read(file)?)?;
                meter.lock().unwrap_or_else(PoisonError::into_inner).add(place.length);
            }
            self.tell(unit.foot())?;
            self.sent.push(unit.rows());
        }
        Ok(())
    }

    /// Why it could not be told something: what psql itself says comes first.
    pub(super) fn failed(self, error: io::Error) -> Error {
        drop(self.input);
        self.pipe.explain(error.into())
    }

    /// Waits until it has done everything that it was told; `fed` is how the telling went.
    fn end(mut self, fed: io::Result<()>) -> Result<()> {
        let told = fed.and_then(|()| self.tell(format!("\\echo {AT_END}").as_bytes()));
        drop(self.input);
        let copied = self.reader.join().map_err(|_| anyhow!("a thread of xtask panicked"))?;
        // What psql says is the cause, and a pipe that broke the echo of it.
        self.pipe.finish()?;
        let copied = copied?;
        told?;
        ensure!(copied == self.sent, "PostgreSQL took {copied:?} rows of {:?}", self.sent);
        Ok(())
    }
}

/// Looks a file of rows over. Statements go to the `first` connection at once, as do rows that come as text,
/// in files of before November 2026.
///
/// # Errors
/// The file cannot be read, or the connection has ended.
pub(super) fn skim(first: &mut Lane, file: &File) -> io::Result<Skimmed> {
    let (settings, tables) = (Vec::new(), Vec::new());
    let skimmer = Skimmer { first, settings, tables, current: 0, is_open: false };
    let mut scanner = Scanner::counting(skimmer);
    pieces::skim(file, |piece| match piece {
        Piece::Text(text) => scanner.feed(&text),
        Piece::Rows(place) => {
            scanner.pass(place.rows)?.keep(place);
            Ok(())
        }
    })?;
    let (Skimmer { settings, tables, .. }, contents) = scanner.finish()?;
    Ok(Skimmed { settings, tables, contents })
}

/// What is in a file of rows.
pub(super) struct Skimmed {
    /// How a session is to read it.
    pub(super) settings: Vec<Vec<u8>>,
    pub(super) tables: Vec<Table>,
    pub(super) contents: Contents,
}

/// How many rows each COPY took, by what psql says, to the word that stands at the end.
fn copied(from: Patient) -> io::Result<Vec<u64>> {
    let mut copied = Vec::new();
    for line in BufReader::new(from).lines() {
        let line = line?;
        if line == AT_END {
            return Ok(copied);
        }
        copied.extend(line.strip_prefix("COPY ").and_then(|rows| rows.parse::<u64>().ok()));
    }
    Err(io::Error::other(
        "psql did not get to see the end of the rows: zstd, beside it in the container, stopped before that, \
         or PostgreSQL's image has none",
    ))
}

struct Skimmer<'l> {
    first: &'l mut Lane,
    settings: Vec<Vec<u8>>,
    tables: Vec<Table>,
    /// Of the tables, the one whose rows follow.
    current: usize,
    /// The first connection has got the COPY command of the last table.
    is_open: bool,
}

impl Skimmer<'_> {
    /// Keeps where rows of the present table lie.
    fn keep(&mut self, place: Place) {
        self.tables.get_mut(self.current).into_iter().for_each(|table| table.places.push(place));
    }
}

impl copy::Sink for Skimmer<'_> {
    fn statement(&mut self, line: &[u8]) -> io::Result<()> {
        if copy::is_setting(line) {
            self.settings.push(line.to_vec());
        }
        self.first.tell(line)
    }

    fn begin(&mut self, name: &str, command: &[u8]) -> io::Result<()> {
        if let Some(known) = self.tables.iter().position(|table| table.name == name) {
            self.current = known;
            if self.tables[known].command != command {
                return Err(io::Error::other(format!("the rows of {name} are of two forms")));
            }
            return Ok(());
        }
        self.current = self.tables.len();
        let (name, command) = (name.to_owned(), command.to_vec());
        self.tables.push(Table { name, command, places: Vec::new() });
        Ok(())
    }

    fn rows(&mut self, rows: &[u8], _count: u64) -> io::Result<()> {
        if !std::mem::replace(&mut self.is_open, true) {
            let table = self.tables.get(self.current);
            let command = table.map(|table| table.command.clone()).unwrap_or_default();
            self.first.tell(&command)?;
        }
        self.first.input.write_all(&pieces::frame(rows)?)
    }

    fn end(&mut self, _table: &str, rows: u64) -> io::Result<()> {
        if std::mem::take(&mut self.is_open) {
            self.first.sent.push(rows);
            self.first.tell(b"\\.")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(name: &str, lengths: &[usize]) -> Table {
        let place = |&length: &usize| Place { offset: 0, length, rows: 1 };
        let command = format!("COPY {name} (id) FROM stdin;").into_bytes();
        Table { name: name.to_owned(), command, places: lengths.iter().map(place).collect() }
    }

    fn found(units: &[Unit]) -> Vec<(Option<&str>, usize)> {
        units.iter().map(|unit| (unit.whole.as_deref(), unit.bytes())).collect()
    }

    #[test]
    fn the_largest_table_comes_first_and_an_empty_one_not_at_all() {
        let tables =
            vec![table("a", &[5, 5]), table("none", &[]), table("b", &[3]), table("c", &[90])];
        let expected = [(Some("b"), 3), (Some("a"), 10), (Some("c"), 90)];
        let units = units(tables, &BTreeMap::new(), 2);
        assert_eq!(found(&units.free), expected);
        assert_eq!(found(&units.ordered), []);
    }

    #[test]
    fn among_many_connections_a_table_that_is_larger_than_its_share_is_dealt_out() {
        let tables = vec![table("a", &[10; 9]), table("b", &[10])];
        let expected = [(Some("b"), 10), (None, 30), (None, 30), (None, 30)];
        let units = units(tables, &BTreeMap::new(), 4).free;
        assert_eq!(found(&units), expected);
        assert_eq!(units.iter().map(Unit::rows).sum::<u64>(), 10);
    }

    #[test]
    fn tables_of_extensions_keep_their_order_and_only_plain_ones_are_emptied() {
        let kinds =
            [("e2", Kind::OfExtension), ("e1", Kind::OfExtension), ("p", Kind::Partitioned)];
        let kinds = kinds.map(|(name, kind)| (name.to_owned(), kind)).into();
        let tables = vec![table("e2", &[1]), table("t", &[2]), table("e1", &[9]), table("p", &[5])];
        let units = units(tables, &kinds, 2);
        // Taken from the end.
        assert_eq!(found(&units.ordered), [(None, 9), (None, 1)]);
        assert_eq!(found(&units.free), [(Some("t"), 2), (None, 5)]);
    }

    #[test]
    fn rows_are_frozen_in_the_transaction_that_empties_their_table() {
        let tables = vec![table("public.\"odd;\"", &[1])];
        let mut units = units(tables, &BTreeMap::new(), 1).free;
        let head = String::from_utf8(units[0].head()).unwrap();
        let expected = "BEGIN;\nTRUNCATE ONLY public.\"odd;\";\n\
            COPY public.\"odd;\" (id) FROM stdin WITH (FREEZE);";
        assert_eq!((&*head, units[0].foot()), (expected, &b"\\.\nCOMMIT;"[..]));
        units[0].whole = None;
        assert_eq!((units[0].head(), units[0].foot()), (units[0].command.clone(), &b"\\."[..]));
    }
}
