//! The text that `pg_dump --section=data` writes: rows between `COPY … FROM stdin;` and `\.`, and a
//! few statements around them.
//!
//! The digest of a table does not depend on the order of its rows, which no dump promises: it is
//! the sum, modulo 2^128, of the first sixteen bytes of each row's SHA-256, the row being its line
//! in the dump without the line feed. Two dumps of equal tables have equal digests, so a restore is
//! checked by dumping what was restored.

use std::collections::BTreeMap;
use std::io;

use memchr::{memchr, memrchr};
use sha2::{Digest, Sha256};

/// A line that is longer than this is no row of a table: PostgreSQL's own limit is 1 GB.
const LONGEST_LINE: usize = 1 << 30;
/// What stands in place of a table's name for all statements that are no rows: sequences, large
/// objects.
pub const STATEMENTS: &str = "(statements)";

/// What a table holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// How many rows.
    pub rows: u64,
    /// The sum over all rows; see the module.
    pub digest: u128,
}

impl Content {
    fn add(&mut self, line: &[u8], has_digest: bool) {
        self.rows += 1;
        if !has_digest {
            return;
        }
        let hash = Sha256::digest(line);
        let mut first = [0; 16];
        first.copy_from_slice(&hash[..16]);
        self.digest = self.digest.wrapping_add(u128::from_be_bytes(first));
    }
}

/// Tables by their names as the dump writes them, quoted where they must be.
pub type Contents = BTreeMap<String, Content>;

/// Gets the parts of a dump in order. Rows come many at a time, each with its line feed.
pub trait Sink {
    /// A line that says nothing to the server, without its line feed: a comment, a command of psql's own.
    ///
    /// # Errors
    /// It does not take it.
    fn remark(&mut self, _line: &[u8]) -> io::Result<()> {
        Ok(())
    }

    /// Another line outside the rows, without its line feed.
    ///
    /// # Errors
    /// It does not take it.
    fn statement(&mut self, _line: &[u8]) -> io::Result<()> {
        Ok(())
    }

    /// Rows of this table follow; `command` is the COPY command.
    ///
    /// # Errors
    /// It does not take it.
    fn begin(&mut self, _table: &str, _command: &[u8]) -> io::Result<()> {
        Ok(())
    }

    /// Some of the table's rows, and how many: at least one.
    ///
    /// # Errors
    /// It does not take them.
    fn rows(&mut self, _rows: &[u8], _count: u64) -> io::Result<()> {
        Ok(())
    }

    /// That was the last row of the table in this place; so many there were here.
    ///
    /// # Errors
    /// It does not agree.
    fn end(&mut self, _table: &str, _rows: u64) -> io::Result<()> {
        Ok(())
    }
}

/// For a dump that is only to be counted.
pub struct Nowhere;
impl Sink for Nowhere {}

/// Reads a dump in pieces of any size.
pub struct Scanner<S> {
    sink: S,
    /// The beginning of a line whose end has not come yet.
    rest: Vec<u8>,
    table: Option<String>,
    /// How many rows of the table came in other places before this one: those of a partitioned table may.
    before: u64,
    contents: Contents,
    has_digests: bool,
}

impl<S: Sink> Scanner<S> {
    /// At the beginning of a dump.
    pub fn new(sink: S) -> Scanner<S> {
        let (rest, contents) = (Vec::new(), Contents::new());
        Scanner { sink, rest, table: None, before: 0, contents, has_digests: true }
    }

    /// The same where rows are only to be counted, which is much less work: all digests are 0.
    pub fn counting(sink: S) -> Scanner<S> {
        Scanner { has_digests: false, ..Scanner::new(sink) }
    }

    /// Takes the next piece.
    ///
    /// # Errors
    /// It is no dump, or the sink does not take it.
    pub fn feed(&mut self, mut piece: &[u8]) -> io::Result<()> {
        if !self.rest.is_empty() {
            let Some(end) = memchr(b'\n', piece) else {
                return self.keep(piece);
            };
            let (first, others) = piece.split_at(end + 1);
            let mut line = std::mem::take(&mut self.rest);
            line.extend_from_slice(first);
            self.lines(&line)?;
            piece = others;
        }
        let whole = memrchr(b'\n', piece).map_or(0, |end| end + 1);
        let (lines, rest) = piece.split_at(whole);
        self.lines(lines)?;
        self.keep(rest)
    }

    /// The end of the dump: what each table holds.
    ///
    /// # Errors
    /// The dump ends within a line or a table.
    pub fn finish(self) -> io::Result<(S, Contents)> {
        match self.table {
            Some(table) => Err(bad(&format!("the dump ends within the rows of {table}"))),
            None if !self.rest.is_empty() => Err(bad("the dump ends within a line")),
            None => Ok((self.sink, self.contents)),
        }
    }

    /// Counts rows that go another way than through [`Scanner::feed`], into the sink that is returned.
    ///
    /// # Errors
    /// No table was begun.
    pub fn pass(&mut self, rows: u64) -> io::Result<&mut S> {
        let table = self.table.as_ref().filter(|_| self.rest.is_empty());
        let table = table.ok_or_else(|| bad("there are rows outside a table"))?;
        self.contents.entry(table.clone()).or_default().rows += rows;
        Ok(&mut self.sink)
    }

    fn keep(&mut self, piece: &[u8]) -> io::Result<()> {
        if self.rest.len() + piece.len() > LONGEST_LINE {
            return Err(bad("a line is longer than any row can be"));
        }
        self.rest.extend_from_slice(piece);
        Ok(())
    }

    /// Takes whole lines.
    fn lines(&mut self, mut lines: &[u8]) -> io::Result<()> {
        while !lines.is_empty() {
            lines = match self.table.take() {
                Some(table) => self.in_table(table, lines)?,
                None => self.outside(lines)?,
            };
        }
        Ok(())
    }

    fn outside<'a>(&mut self, lines: &'a [u8]) -> io::Result<&'a [u8]> {
        let end = memchr(b'\n', lines).unwrap_or(lines.len() - 1);
        let line = &lines[..end];
        if let Some(table) = copied_table(line)? {
            self.before = self.contents.entry(table.clone()).or_default().rows;
            self.sink.begin(&table, line)?;
            self.table = Some(table);
        } else if is_remark(line) {
            self.sink.remark(line)?;
        } else {
            if !is_setting(line) {
                self.contents.entry(STATEMENTS.to_owned()).or_default().add(line, self.has_digests);
            }
            self.sink.statement(line)?;
        }
        Ok(&lines[end + 1..])
    }

    fn in_table<'a>(&mut self, table: String, lines: &'a [u8]) -> io::Result<&'a [u8]> {
        let content = self.contents.entry(table.clone()).or_default();
        let before = content.rows;
        let mut start = 0;
        while start < lines.len() {
            let end = start + memchr(b'\n', &lines[start..]).unwrap_or(lines.len() - start - 1);
            let line = &lines[start..end];
            if line == b"\\." {
                let rows = content.rows;
                if rows > before {
                    self.sink.rows(&lines[..start], rows - before)?;
                }
                self.sink.end(&table, rows - self.before)?;
                return Ok(&lines[end + 1..]);
            }
            content.add(line, self.has_digests);
            start = end + 1;
        }
        let count = content.rows - before;
        self.table = Some(table);
        self.sink.rows(lines, count)?;
        Ok(&[])
    }
}

/// Comments, empty lines, and psql's own commands (the key of `\restrict` is random).
fn is_remark(line: &[u8]) -> bool {
    line.is_empty() || line.starts_with(b"--") || line.starts_with(b"\\")
}

/// How the session is to read what follows; no content.
pub fn is_setting(line: &[u8]) -> bool {
    line.starts_with(b"SET ") || line.starts_with(b"SELECT pg_catalog.set_config(")
}

/// The table of a COPY command, as it is written there; none where it is another line.
fn copied_table(line: &[u8]) -> io::Result<Option<String>> {
    let Some(rest) = line.strip_prefix(b"COPY ") else {
        return Ok(None);
    };
    if !line.ends_with(b" FROM stdin;") {
        return Err(bad("a COPY command that goes over several lines: a name holds a line feed"));
    }
    let mut is_quoted = false;
    let end = rest.iter().position(|&byte| {
        is_quoted ^= byte == b'"';
        byte == b' ' && !is_quoted
    });
    let name = &rest[..end.unwrap_or(rest.len())];
    let name = std::str::from_utf8(name).map_err(|_| bad("the name of a table is no UTF-8"))?;
    Ok(Some(name.to_owned()))
}

fn bad(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Default)]
    struct Record(Vec<String>);

    impl Sink for Record {
        fn statement(&mut self, line: &[u8]) -> io::Result<()> {
            self.0.push(format!("s {}", String::from_utf8_lossy(line)));
            Ok(())
        }
        fn begin(&mut self, table: &str, _command: &[u8]) -> io::Result<()> {
            self.0.push(format!("b {table}"));
            Ok(())
        }
        fn rows(&mut self, rows: &[u8], count: u64) -> io::Result<()> {
            let rows = std::str::from_utf8(rows).unwrap();
            assert_eq!(rows.lines().count() as u64, count);
            self.0.extend(rows.lines().map(|row| format!("r {row}")));
            Ok(())
        }
        fn end(&mut self, table: &str, rows: u64) -> io::Result<()> {
            self.0.push(format!("e {table} {rows}"));
            Ok(())
        }
    }

    const DUMP: &str = "--\n-- dump\n\\restrict x\nSET a = 1;\n\nCOPY public.notes (id, text) FROM stdin;\n\
        1\ta\\nb\n2\t-- no remark\n\\.\n\nCOPY public.\"odd \"\"name\" (id) FROM stdin;\n\\.\n\
        SELECT pg_catalog.setval('public.s', 7, true);\n\\unrestrict x\n";

    fn scan(pieces: &[&[u8]]) -> (Vec<String>, Contents) {
        let mut scanner = Scanner::new(Record::default());
        for piece in pieces {
            scanner.feed(piece).unwrap();
        }
        let (record, contents) = scanner.finish().unwrap();
        (record.0, contents)
    }

    #[test]
    fn a_dump_falls_into_its_parts() {
        let (record, contents) = scan(&[DUMP.as_bytes()]);
        let expected = [
            "s SET a = 1;",
            "b public.notes",
            "r 1\ta\\nb",
            "r 2\t-- no remark",
            "e public.notes 2",
            "b public.\"odd \"\"name\"",
            "e public.\"odd \"\"name\" 0",
            "s SELECT pg_catalog.setval('public.s', 7, true);",
        ];
        assert_eq!(record, expected);
        let rows: Vec<u64> = contents.values().map(|content| content.rows).collect();
        assert_eq!(rows, [1, 0, 2], "{contents:?}");
    }

    #[test]
    fn a_table_may_come_in_several_places() {
        let text = "COPY t (a) FROM stdin;\n1\n2\n\\.\nCOPY t (a) FROM stdin;\n3\n\\.\n";
        let (record, contents) = scan(&[text.as_bytes()]);
        assert_eq!(record, ["b t", "r 1", "r 2", "e t 2", "b t", "r 3", "e t 1"]);
        assert_eq!(contents["t"].rows, 3);
    }

    #[test]
    fn order_does_not_matter_and_content_does() {
        let table = |rows: &str| {
            let text = format!("COPY t (a) FROM stdin;\n{rows}\\.\n");
            scan(&[text.as_bytes()]).1["t"]
        };
        assert_eq!(table("1\n2\n3\n"), table("3\n1\n2\n"));
        assert_ne!(table("1\n2\n3\n"), table("1\n2\n2\n"));
        assert_ne!(table("1\n1\n"), table("2\n2\n"));
    }

    #[test]
    fn rows_can_be_counted_without_their_digests() {
        let mut scanner = Scanner::counting(Nowhere);
        scanner.feed(DUMP.as_bytes()).unwrap();
        let counted = scanner.finish().unwrap().1;
        let rows = |contents: &Contents| -> Vec<(String, u64)> {
            contents.iter().map(|(name, content)| (name.clone(), content.rows)).collect()
        };
        assert_eq!(rows(&counted), rows(&scan(&[DUMP.as_bytes()]).1));
        assert!(counted.values().all(|content| content.digest == 0));
    }

    #[test]
    fn a_dump_that_was_cut_is_refused() {
        let whole = DUMP.as_bytes();
        let start = DUMP.find("COPY").unwrap();
        let end = DUMP.find("\\.").unwrap() + 2;
        for cut in start + 1..=end {
            let mut scanner = Scanner::new(Nowhere);
            let fed = scanner.feed(&whole[..cut]);
            assert!(fed.is_err() || scanner.finish().is_err(), "cut at {cut}");
        }
    }

    proptest! {
        #[test]
        fn it_does_not_matter_where_a_stream_is_cut(cuts in prop::collection::vec(0..DUMP.len(), 0..12)) {
            let mut cuts = cuts;
            cuts.extend([0, DUMP.len()]);
            cuts.sort();
            let pieces: Vec<&[u8]> =
                cuts.windows(2).map(|pair| &DUMP.as_bytes()[pair[0]..pair[1]]).collect();
            prop_assert_eq!(scan(&pieces), scan(&[DUMP.as_bytes()]));
        }
    }
}
