//! A file of a backup while it is written: compressed, hashed, and at the end on the disk.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use archive::file::{self, Hashed};
use archive::pieces;

use super::manifest::FileEntry;
use super::room;
use crate::ctx::Patient;
use crate::ui::{self, Step};

/// How often the live line is drawn anew.
const REDRAW: Duration = Duration::from_millis(200);

/// How much is written between two looks at what is left of the disk.
const LOOK_EVERY: u64 = 32 << 20;

/// A file of a backup, which hashes what it gets.
pub(crate) type Target = Hashed<Careful>;

/// A file that takes nothing more before its disk is full.
pub(crate) struct Careful {
    file: File,
    /// Bytes until the next look.
    unlooked: u64,
}

impl Write for Careful {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.unlooked == 0 {
            room::look(&self.file)?;
            self.unlooked = LOOK_EVERY;
        }
        let written = self.file.write(bytes)?;
        self.unlooked = self.unlooked.saturating_sub(written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A new file, which takes all that the disk does, where that may get full.
///
/// # Errors
/// The file cannot be made.
pub(crate) fn create(path: &Path, may_fill: bool) -> Result<Target> {
    let file = File::create_new(path).with_context(|| format!("make {}", path.display()))?;
    Ok(Hashed::new(Careful { file, unlooked: if may_fill { u64::MAX } else { 0 } }))
}

/// Ends a file and waits until it is on the disk.
fn entry(file: Target, raw_bytes: u64) -> Result<FileEntry> {
    let (careful, bytes, sha256) = file.finish();
    careful.file.sync_all()?;
    Ok(FileEntry { bytes, raw_bytes, sha256 })
}

/// Takes what a server writes.
pub(crate) struct Sink {
    encoder: file::Compressor<Target>,
    raw_bytes: u64,
}

impl Sink {
    /// # Errors
    /// The library refuses its settings.
    pub(crate) fn new(to: Target) -> Result<Sink> {
        Ok(Sink { encoder: file::compressor(to)?, raw_bytes: 0 })
    }

    /// Ends the file and waits until it is on the disk.
    ///
    /// # Errors
    /// The disk does not take it.
    pub(crate) fn finish(self) -> Result<FileEntry> {
        entry(self.encoder.finish()?, self.raw_bytes)
    }
}

/// Takes rows.
pub(crate) type Rows = pieces::Writer<Target>;

/// Ends a file of rows and waits until it is on the disk.
///
/// # Errors
/// The disk does not take it.
pub(crate) fn finish_rows(rows: Rows) -> Result<FileEntry> {
    let (file, raw_bytes) = rows.finish()?;
    entry(file, raw_bytes)
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.encoder.write(bytes)?;
        self.raw_bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.encoder.flush()
    }
}

/// The number of bytes that went by, and how fast, on the live line of a step.
pub(crate) struct Meter<'a> {
    step: &'a Step,
    started: Instant,
    drawn: Instant,
    bytes: u64,
}

impl Meter<'_> {
    pub(crate) fn new(step: &Step) -> Meter<'_> {
        let now = Instant::now();
        Meter { step, started: now, drawn: now, bytes: 0 }
    }

    pub(crate) fn add(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        if self.drawn.elapsed() > REDRAW {
            self.drawn = Instant::now();
            self.step.note(&rate(self.bytes, self.started.elapsed()));
        }
    }
}

fn rate(bytes: u64, time: Duration) -> String {
    let per_second = bytes as f64 / time.as_secs_f64().max(0.001);
    format!("{}, {}/s", ui::bytes(bytes), ui::bytes(per_second as u64))
}

/// Reads a command's output to its end, piece by piece.
///
/// # Errors
/// Nothing comes for too long, or `on_piece` does not take it.
pub(crate) fn drain(
    mut from: Patient,
    mut on_piece: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut buffer = vec![0; file::CHUNK];
    loop {
        match from.read(&mut buffer)? {
            0 => return Ok(()),
            read => on_piece(&buffer[..read])?,
        }
    }
}
