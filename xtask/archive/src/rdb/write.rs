//! A snapshot made of keys that were read from another one: those of one database, say.

use std::io::{self, Write};

use crc::{Digest, Table};

use super::{CRC, Entry};

/// What Redis 5 and later write, and all of them read: the version of a snapshot without keys.
const OLDEST: u16 = 9;
/// Behind a value in a payload: the version and a check sum.
const TRAILER: usize = 10;

/// Writes keys, whatever their database was, as those of database 0.
pub struct Writer<W> {
    to: W,
    crc: Digest<'static, u64, Table<16>>,
    is_begun: bool,
}

impl<W: Write> Writer<W> {
    /// Nothing is written yet.
    pub fn new(to: W) -> Self {
        Writer { to, crc: CRC.digest(), is_begun: false }
    }

    /// Adds a key.
    ///
    /// # Errors
    /// `to` does not take it, or the payload is too short to be one.
    pub fn add(&mut self, entry: &Entry) -> io::Result<()> {
        let split = entry.payload.split_last_chunk::<TRAILER>();
        let Some(([kind, value @ ..], trailer)) = split else {
            return Err(super::bad("a key without a value"));
        };
        self.begin(u16::from_le_bytes([trailer[0], trailer[1]]))?;
        if let Some(expires) = entry.expires {
            self.put(&[0xFC])?;
            self.put(&expires.to_le_bytes())?;
        }
        self.put(&[*kind, 0x81])?;
        self.put(&(entry.key.len() as u64).to_be_bytes())?;
        self.put(&entry.key)?;
        self.put(value)
    }

    /// Ends the snapshot with its check sum.
    ///
    /// # Errors
    /// `to` does not take it.
    pub fn finish(mut self) -> io::Result<()> {
        self.begin(OLDEST)?;
        self.put(&[0xFF])?;
        let sum = self.crc.clone().finalize();
        self.to.write_all(&sum.to_le_bytes())?;
        self.to.flush()
    }

    fn begin(&mut self, version: u16) -> io::Result<()> {
        if self.is_begun {
            return Ok(());
        }
        self.is_begun = true;
        self.put(format!("REDIS{version:04}").as_bytes())?;
        self.put(&[0xFE, 0])
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.crc.update(bytes);
        self.to.write_all(bytes)
    }
}
