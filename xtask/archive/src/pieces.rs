//! Rows on the disk, in pieces that can be handed on without being uncompressed.
//!
//! The file is the text of the dump, as frames of zstd one after the other, which `zstd -d` reads as one.
//! A frame holds either rows of one table, cut at the end of a row, or what stands around rows. Before
//! each stands what zstd calls a skippable frame, which says how long the next one is and how many rows
//! it holds. So a restore finds the rows of a table without reading the others, several tables at a time,
//! and hands them to the server as they are stored: a container gets a quarter of the bytes.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use zstd::bulk::Compressor;

use crate::copy::Sink;
use crate::file;

/// The first bytes of a skippable frame, one of the sixteen kinds that zstd leaves to its users
/// (RFC 8878, 3.1.2).
const MAGIC: [u8; 4] = 0x184D_2A5B_u32.to_le_bytes();
/// What is in it: the length of the frame that follows, as 32 bits, and how many rows it holds, as 64
/// bits; both little endian.
const PAYLOAD: u32 = 12;
const HEADER: usize = 20;
/// A piece is about as long, and longer where one row is. Compressed alone it is less than one percent
/// larger than as a part of the whole.
const PIECE: usize = 1 << 20;
/// How much is read at once where rows are passed over.
const SKIMMED: usize = 4 << 10;
/// Pieces that wait for one worker, and as many that wait to be written.
const QUEUE: usize = 2;

/// A piece of a file.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// What stands around rows; in files of before November 2026 all of it, rows included.
    Text(Vec<u8>),
    /// Where rows of the table lie that was begun last.
    Rows(Place),
}

/// A frame of zstd with whole rows of one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Of the frame's first byte in the file.
    pub offset: u64,
    /// As stored, in bytes.
    pub length: usize,
    pub rows: u64,
}

impl Place {
    /// The frame.
    ///
    /// # Errors
    /// The file cannot be read there.
    pub fn read(&self, from: &File) -> io::Result<Vec<u8>> {
        let mut frame = vec![0; self.length];
        from.read_exact_at(&mut frame, self.offset)?;
        Ok(frame)
    }
}

/// Compresses a text, or a part of it, as a frame of its own.
///
/// # Errors
/// The library fails.
pub fn frame(text: &[u8]) -> io::Result<Vec<u8>> {
    framer()?.compress(text)
}

fn framer() -> io::Result<Compressor<'static>> {
    let mut compressor = Compressor::new(file::LEVEL)?;
    compressor.include_checksum(true)?;
    Ok(compressor)
}

/// Writes a file: the sink of the dump's scanner. Pieces are compressed on all cores.
pub struct Writer<W> {
    to: W,
    workers: Vec<Worker>,
    /// How many pieces went to the workers, in turn, and how many came back.
    sent: usize,
    written: usize,
    /// The piece that is being filled, and how many rows it holds: text has none.
    piece: Vec<u8>,
    rows: u64,
    raw_bytes: u64,
}

/// Text or rows, with the number of rows.
type Job = (Vec<u8>, u64);

/// Compresses one piece after the other.
struct Worker {
    input: SyncSender<Job>,
    output: Receiver<io::Result<Job>>,
    thread: JoinHandle<()>,
}

impl Worker {
    fn start() -> io::Result<Worker> {
        let mut framer = framer()?;
        let (input, jobs) = sync_channel::<Job>(QUEUE);
        let (sender, output) = sync_channel(QUEUE);
        let work = move || {
            for (piece, rows) in jobs {
                // Nobody reads any more where the dump failed.
                if sender.send(framer.compress(&piece).map(|frame| (frame, rows))).is_err() {
                    return;
                }
            }
        };
        Ok(Worker { input, output, thread: thread::Builder::new().spawn(work)? })
    }
}

impl<W: Write> Writer<W> {
    /// Nothing written yet.
    ///
    /// # Errors
    /// The library or the system refuses a thread.
    pub fn new(to: W) -> io::Result<Writer<W>> {
        let workers = (0..file::workers()).map(|_| Worker::start()).collect::<io::Result<_>>()?;
        let (piece, rows) = (Vec::new(), 0);
        Ok(Writer { to, workers, sent: 0, written: 0, piece, rows, raw_bytes: 0 })
    }

    /// Ends the file: the writer, and how many bytes there were before they were compressed.
    ///
    /// # Errors
    /// The writer does not take it.
    pub fn finish(mut self) -> io::Result<(W, u64)> {
        self.cut()?;
        while self.written < self.sent {
            self.write_oldest()?;
        }
        for Worker { input, thread, .. } in self.workers {
            drop(input);
            thread.join().map_err(|_| gone())?;
        }
        Ok((self.to, self.raw_bytes))
    }

    fn text(&mut self, line: &[u8]) -> io::Result<()> {
        if self.rows > 0 || self.piece.len() >= PIECE {
            self.cut()?;
        }
        self.piece.extend_from_slice(line);
        self.piece.push(b'\n');
        Ok(())
    }

    /// Ends the piece that is being filled.
    fn cut(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        if self.sent - self.written == self.workers.len() * QUEUE {
            self.write_oldest()?;
        }
        self.raw_bytes += self.piece.len() as u64;
        let job = (std::mem::take(&mut self.piece), std::mem::take(&mut self.rows));
        let worker = self.sent % self.workers.len();
        self.workers[worker].input.send(job).map_err(|_| gone())?;
        self.sent += 1;
        Ok(())
    }

    /// Each worker keeps its pieces in order, and so do the workers among each other.
    fn write_oldest(&mut self) -> io::Result<()> {
        let worker = &self.workers[self.written % self.workers.len()];
        let (frame, rows) = worker.output.recv().map_err(|_| gone())??;
        self.written += 1;
        let length = u32::try_from(frame.len()).map_err(io::Error::other)?;
        let mut stored = Vec::with_capacity(HEADER + frame.len());
        stored.extend_from_slice(&MAGIC);
        stored.extend_from_slice(&PAYLOAD.to_le_bytes());
        stored.extend_from_slice(&length.to_le_bytes());
        stored.extend_from_slice(&rows.to_le_bytes());
        stored.extend_from_slice(&frame);
        self.to.write_all(&stored)
    }
}

fn gone() -> io::Error {
    io::Error::other("a thread that compresses panicked")
}

impl<W: Write> Sink for Writer<W> {
    fn remark(&mut self, line: &[u8]) -> io::Result<()> {
        self.text(line)
    }

    fn statement(&mut self, line: &[u8]) -> io::Result<()> {
        self.text(line)
    }

    fn begin(&mut self, _table: &str, command: &[u8]) -> io::Result<()> {
        self.text(command)
    }

    fn rows(&mut self, rows: &[u8], count: u64) -> io::Result<()> {
        if self.rows == 0 || self.piece.len() + rows.len() > PIECE {
            self.cut()?;
        }
        self.piece.extend_from_slice(rows);
        self.rows += count;
        Ok(())
    }

    fn end(&mut self, _table: &str, _rows: u64) -> io::Result<()> {
        self.text(b"\\.")
    }
}

/// Reads a file, piece by piece, but for the rows.
///
/// # Errors
/// It cannot be read, is cut short or is no such file, or `take` does not take it.
pub fn skim(
    mut from: impl Read + Seek,
    mut take: impl FnMut(Piece) -> io::Result<()>,
) -> io::Result<()> {
    let end = from.seek(SeekFrom::End(0))?;
    from.rewind()?;
    // Small, because all but a few bytes of the file are passed over.
    let mut from = BufReader::with_capacity(SKIMMED, from);
    let mut header = [0; HEADER];
    let mut offset = 0;
    while let Some(found) = fill(&mut from, &mut header)? {
        if offset == 0 && !found.starts_with(&MAGIC) {
            return read_whole(found.chain(from), take);
        }
        let (length, rows) = parse(found)?;
        offset += HEADER as u64;
        if end - offset < u64::from(length) {
            return Err(bad("it ends within a piece"));
        }
        take(if rows == 0 {
            Piece::Text(zstd::decode_all(from.by_ref().take(length.into()))?)
        } else {
            from.seek_relative(length.into())?;
            Piece::Rows(Place { offset, length: length as usize, rows })
        })?;
        offset += u64::from(length);
    }
    Ok(())
}

/// The next header, or less at the end of the file; nothing where that was reached.
fn fill<'a>(from: &mut impl Read, header: &'a mut [u8; HEADER]) -> io::Result<Option<&'a [u8]>> {
    let mut read = 0;
    while read < HEADER {
        match from.read(&mut header[read..])? {
            0 => break,
            more => read += more,
        }
    }
    Ok((read > 0).then_some(&header[..read]))
}

fn parse(header: &[u8]) -> io::Result<(u32, u64)> {
    let rest =
        header.strip_prefix(&MAGIC).and_then(|rest| rest.strip_prefix(&PAYLOAD.to_le_bytes()));
    let halves = rest.and_then(|rest| rest.split_first_chunk::<4>());
    let numbers = halves.and_then(|(length, rows)| Some((*length, rows.first_chunk::<8>()?)));
    let (length, rows) = numbers.ok_or_else(|| bad("a piece has no header"))?;
    Ok((u32::from_le_bytes(length), u64::from_le_bytes(*rows)))
}

/// A file of before November 2026: one stream.
fn read_whole(from: impl Read, mut take: impl FnMut(Piece) -> io::Result<()>) -> io::Result<()> {
    let mut text = file::decompressor(from)?;
    let mut buffer = vec![0; file::CHUNK];
    loop {
        match text.read(&mut buffer)? {
            0 => return Ok(()),
            read => take(Piece::Text(buffer[..read].to_vec()))?,
        }
    }
}

fn bad(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("no file of rows: {reason}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::copy::{Contents, Nowhere, Scanner};

    /// Two tables, of which one has several pieces, one row larger than a piece, and text around them.
    fn dump() -> String {
        let rows = |from: u32| (from..from + 200_000).map(|n| format!("{n}\t{}\n", n % 977));
        let large = "x".repeat(PIECE * 2);
        format!(
            "--\n-- dump\n\\restrict x\nSET a = 1;\n\nCOPY public.a (id, text) FROM stdin;\n{}7\t{large}\n{}\\.\n\n\
             COPY public.none (id) FROM stdin;\n\\.\n\nCOPY public.b (id) FROM stdin;\n1\n\\.\nSELECT 1;\n",
            rows(0).collect::<String>(),
            rows(1000).collect::<String>()
        )
    }

    fn write(dump: &str) -> (Vec<u8>, Contents) {
        let mut scanner = Scanner::new(Writer::new(Vec::new()).unwrap());
        dump.as_bytes().chunks(file::CHUNK).for_each(|chunk| scanner.feed(chunk).unwrap());
        let (writer, contents) = scanner.finish().unwrap();
        let (stored, raw_bytes) = writer.finish().unwrap();
        assert_eq!(raw_bytes, dump.len() as u64);
        (stored, contents)
    }

    /// What is counted when rows are passed over, and how many of them were.
    fn count(stored: &[u8]) -> io::Result<(BTreeMap<String, u64>, u64)> {
        let mut file = tempfile::tempfile()?;
        file.write_all(stored)?;
        let mut scanner = Scanner::counting(Nowhere);
        let mut passed = 0;
        skim(&file, |piece| match piece {
            Piece::Text(text) => scanner.feed(&text),
            Piece::Rows(place) => {
                let text = zstd::decode_all(&place.read(&file)?[..])?;
                assert_eq!(memchr::memchr_iter(b'\n', &text).count() as u64, place.rows);
                assert!(text.ends_with(b"\n"));
                passed += place.rows;
                scanner.pass(place.rows).map(|_| ())
            }
        })?;
        let contents = scanner.finish()?.1;
        Ok((contents.into_iter().map(|(name, table)| (name, table.rows)).collect(), passed))
    }

    #[test]
    fn the_file_is_the_dump_for_the_command_line_tool_too() {
        let dump = dump();
        let (stored, _) = write(&dump);
        assert!(zstd::decode_all(&stored[..]).unwrap() == dump.as_bytes());
    }

    #[test]
    fn rows_are_found_without_being_read() {
        let (stored, contents) = write(&dump());
        let rows = contents.iter().map(|(name, table)| (name.clone(), table.rows)).collect();
        assert_eq!(count(&stored).unwrap(), (rows, 400_002));
    }

    #[test]
    fn a_file_of_one_stream_is_read_as_text() {
        let dump = dump();
        let mut encoder = file::compressor(Vec::new()).unwrap();
        encoder.write_all(dump.as_bytes()).unwrap();
        let (counted, passed) = count(&encoder.finish().unwrap()).unwrap();
        assert_eq!((counted["public.a"], passed), (400_001, 0));
    }

    #[test]
    fn a_file_that_was_cut_is_refused() {
        let (stored, _) = write(&dump());
        for cut in [1, 10, HEADER, HEADER + 1, stored.len() / 2, stored.len() - 1] {
            assert!(count(&stored[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_disk_that_takes_nothing_is_an_error() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut scanner = Scanner::new(Writer::new(Full).unwrap());
        let dump = dump();
        let fed = dump.as_bytes().chunks(file::CHUNK).try_for_each(|chunk| scanner.feed(chunk));
        let kind = fed.and_then(|()| scanner.finish()?.0.finish()).map(|_| ()).unwrap_err().kind();
        assert_eq!(kind, io::ErrorKind::StorageFull);
    }
}
