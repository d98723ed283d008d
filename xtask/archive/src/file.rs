//! Files of a backup: compressed on all cores, hashed on the way to the disk.

use std::fmt::Write as _;
use std::io::{self, BufReader, Read, Write};

use sha2::{Digest, Sha256};

/// The level of the command line tool: three times smaller rows, at the speed of a disk.
pub(crate) const LEVEL: i32 = 3;
/// Each worker holds about three of these, so that many cores do not take much memory.
const JOB_BYTES: u32 = 1 << 20;
/// More cores than this wait for PostgreSQL anyway.
const MOST_WORKERS: u32 = 16;
/// Large enough that a read is seldom the cost.
pub const CHUNK: usize = 256 << 10;

/// Hashes and counts what is written to another writer.
pub struct Hashed<W> {
    inner: W,
    hasher: Sha256,
    bytes: u64,
}

impl<W: Write> Hashed<W> {
    /// Nothing written yet.
    pub fn new(inner: W) -> Hashed<W> {
        Hashed { inner, hasher: Sha256::new(), bytes: 0 }
    }

    /// The writer, how many bytes it got, and their SHA-256 in hexadecimal.
    pub fn finish(self) -> (W, u64, String) {
        (self.inner, self.bytes, hex(&self.hasher.finalize()))
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// A writer that compresses; `finish` ends the file.
pub type Compressor<W> = zstd::Encoder<'static, W>;
/// A reader that uncompresses.
pub type Decompressor<R> = zstd::Decoder<'static, BufReader<R>>;

/// A writer that compresses, with a check sum of its own, on all cores.
///
/// # Errors
/// The library refuses its settings.
pub fn compressor<W: Write>(to: W) -> io::Result<Compressor<W>> {
    let mut encoder = zstd::Encoder::new(to, LEVEL)?;
    encoder.include_checksum(true)?;
    encoder.multithread(workers())?;
    encoder.set_parameter(zstd::zstd_safe::CParameter::JobSize(JOB_BYTES))?;
    // Each job begins anew. By default it first reads the end of the one before, which with jobs as small
    // as these costs a fifth more time for less than one percent in size.
    encoder.set_parameter(zstd::zstd_safe::CParameter::OverlapSizeLog(1))?;
    Ok(encoder)
}

/// How many threads compress.
pub(crate) fn workers() -> u32 {
    std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32).min(MOST_WORKERS)
}

/// A reader of what [`compressor`] or the command line tool wrote.
///
/// # Errors
/// The library refuses to start.
pub fn decompressor<R: Read>(from: R) -> io::Result<Decompressor<R>> {
    zstd::Decoder::new(from)
}

/// The length and the SHA-256 of everything that a reader gives.
///
/// # Errors
/// It cannot be read.
pub fn digest(mut from: impl Read) -> io::Result<(u64, String)> {
    let mut hashed = Hashed::new(io::sink());
    let mut buffer = vec![0; CHUNK];
    loop {
        match from.read(&mut buffer)? {
            0 => break,
            read => hashed.write_all(&buffer[..read])?,
        }
    }
    let (_, bytes, sha256) = hashed.finish();
    Ok((bytes, sha256))
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_compressed_is_read_again_and_its_digest_is_the_files() {
        let text: Vec<u8> = (0..3_000_000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        let mut encoder = compressor(Hashed::new(Vec::new())).unwrap();
        encoder.write_all(&text).unwrap();
        let (stored, bytes, sha256) = encoder.finish().unwrap().finish();
        assert_eq!(bytes, stored.len() as u64);
        assert_eq!(digest(&stored[..]).unwrap(), (bytes, sha256));
        let mut read = Vec::new();
        decompressor(&stored[..]).unwrap().read_to_end(&mut read).unwrap();
        assert!(read == text);
    }

    #[test]
    fn a_stream_that_was_cut_is_an_error() {
        let mut encoder = compressor(Vec::new()).unwrap();
        encoder.write_all(&[7; 100_000]).unwrap();
        let stored = encoder.finish().unwrap();
        let mut read = Vec::new();
        let cut = &stored[..stored.len() - 1];
        assert!(decompressor(cut).unwrap().read_to_end(&mut read).is_err());
    }
}
