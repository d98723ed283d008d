//! Redis' snapshots: read key by key, checked by their own check sum, and turned into the RESTORE
//! commands that put the keys into another Redis.
//!
//! The format is described in Redis' source, `rdb.h` and `rdb.c`. A value in a snapshot is, byte for
//! byte, what RESTORE takes, with the snapshot's version and a CRC-64 behind it: nothing is
//! interpreted here but lengths.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use crc::{CRC_64_REDIS, Crc, Digest, Table};

pub use self::write::Writer;

mod write;

static CRC: Crc<u64, Table<16>> = Crc::<u64, Table<16>>::new(&CRC_64_REDIS);

/// No value may be longer than this: Redis' own limit of a string.
const LONGEST: u64 = 512 << 20;

/// A key with what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The number of the database.
    pub database: u64,
    /// The key's name.
    pub key: Vec<u8>,
    /// When it expires, in milliseconds since 1970; none where it does not.
    pub expires: Option<i64>,
    /// What DUMP would print.
    pub payload: Vec<u8>,
}

/// What a snapshot holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The number of keys in each database that has some.
    pub keys: BTreeMap<u64, u64>,
    /// Libraries of functions; they are counted, and not given out.
    pub functions: u64,
    /// The bytes of memory that Redis used when it began to write, where it says so.
    pub used_memory: Option<u64>,
}

/// Reads a snapshot up to its end, which it knows by itself: `redis-cli --rdb -` writes forty more
/// bytes behind it. Everything that belongs to the snapshot, and nothing else, is copied to `copy`.
///
/// # Errors
/// It is no snapshot, is cut, has another check sum than it says, or holds what Redis 8 does not
/// write; or `copy` or `on_entry` fails.
pub fn read(
    from: impl Read,
    copy: impl Write,
    mut on_entry: impl FnMut(Entry) -> io::Result<()>,
) -> io::Result<Summary> {
    let mut parser = Parser::new(from, copy);
    let mut summary = Summary::default();
    let version = parser.version()?;
    let (mut database, mut expires) = (0, None);
    loop {
        match parser.byte()? {
            0xFF => {
                parser.check_sum()?;
                return Ok(summary);
            }
            0xFE => database = parser.length()?,
            0xFB => {
                parser.length()?;
                parser.length()?;
            }
            0xFA => {
                let name = parser.string()?;
                let value = parser.string()?;
                if name == b"used-mem" {
                    let text = std::str::from_utf8(&value).ok();
                    summary.used_memory = text.and_then(|text| text.parse().ok());
                }
            }
            0xFC => expires = Some(i64::from_le_bytes(parser.array()?)),
            0xFD => expires = Some(i64::from(i32::from_le_bytes(parser.array()?)) * 1000),
            0xF8 => drop(parser.length()?),
            0xF9 => drop(parser.byte()?),
            0xF5 => {
                parser.skip_string()?;
                summary.functions += 1;
            }
            kind => {
                let key = parser.string()?;
                let payload = parser.payload(kind, version, &key)?;
                *summary.keys.entry(database).or_default() += 1;
                on_entry(Entry { database, key, expires: expires.take(), payload })?;
            }
        }
    }
}

/// The command that makes a key, in the protocol that `redis-cli --pipe` takes.
pub fn restore_command(entry: &Entry) -> Vec<u8> {
    let ttl = entry.expires.unwrap_or(0).max(0).to_string();
    let mut words: Vec<&[u8]> =
        vec![b"RESTORE", &entry.key, ttl.as_bytes(), &entry.payload, b"REPLACE"];
    if entry.expires.is_some() {
        words.push(b"ABSTTL");
    }
    let mut command = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        command.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        command.extend_from_slice(word);
        command.extend_from_slice(b"\r\n");
    }
    command
}

struct Parser<R, W> {
    from: R,
    copy: W,
    crc: Digest<'static, u64, Table<16>>,
    /// The value that is being read, where one is.
    recorded: Option<Vec<u8>>,
}

impl<R: Read, W: Write> Parser<R, W> {
    fn new(from: R, copy: W) -> Self {
        Parser { from, copy, crc: CRC.digest(), recorded: None }
    }

    fn version(&mut self) -> io::Result<u16> {
        let head: [u8; 9] = self.array()?;
        let number = std::str::from_utf8(&head[5..]).ok().and_then(|text| text.parse().ok());
        match number {
            Some(version) if head.starts_with(b"REDIS") => Ok(version),
            _ => Err(bad("it does not begin like a snapshot of Redis")),
        }
    }

    fn take(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        self.from.read_exact(buffer).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => bad("the snapshot is cut"),
            _ => error,
        })?;
        self.crc.update(buffer);
        if let Some(recorded) = &mut self.recorded {
            recorded.extend_from_slice(buffer);
        }
        self.copy.write_all(buffer)
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut buffer = [0; N];
        self.take(&mut buffer)?;
        Ok(buffer)
    }

    fn byte(&mut self) -> io::Result<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn bytes(&mut self, length: u64) -> io::Result<Vec<u8>> {
        if length > LONGEST {
            return Err(bad("a string is longer than Redis allows"));
        }
        let mut buffer = Vec::new();
        // In pieces: a length that is wrong must not take the memory before it is found out.
        while (buffer.len() as u64) < length {
            let start = buffer.len();
            let next = (length - start as u64).min(1 << 16) as usize;
            buffer.resize(start + next, 0);
            self.take(&mut buffer[start..])?;
        }
        Ok(buffer)
    }

    /// A length, or the kind of an encoded string.
    fn length_or_encoding(&mut self) -> io::Result<Result<u64, u8>> {
        let first = self.byte()?;
        Ok(match first >> 6 {
            0 => Ok(u64::from(first & 0x3F)),
            1 => Ok(u64::from(first & 0x3F) << 8 | u64::from(self.byte()?)),
            2 if first == 0x80 => Ok(u64::from(u32::from_be_bytes(self.array()?))),
            2 if first == 0x81 => Ok(u64::from_be_bytes(self.array()?)),
            3 => Err(first & 0x3F),
            _ => return Err(bad("a length of an unknown kind")),
        })
    }

    fn length(&mut self) -> io::Result<u64> {
        self.length_or_encoding()?.map_err(|_| bad("a length was expected, and an encoding came"))
    }

    /// A string as it is stored: compressed ones are uncompressed, numbers written out.
    fn string(&mut self) -> io::Result<Vec<u8>> {
        match self.length_or_encoding()? {
            Ok(length) => self.bytes(length),
            Err(0) => Ok(i8::from_le_bytes(self.array()?).to_string().into_bytes()),
            Err(1) => Ok(i16::from_le_bytes(self.array()?).to_string().into_bytes()),
            Err(2) => Ok(i32::from_le_bytes(self.array()?).to_string().into_bytes()),
            Err(3) => {
                let (packed, length) = (self.length()?, self.length()?);
                let packed = self.bytes(packed)?;
                unpack(&packed, length)
            }
            Err(_) => Err(bad("a string of an unknown kind")),
        }
    }

    fn skip_string(&mut self) -> io::Result<()> {
        match self.length_or_encoding()? {
            Ok(length) => self.bytes(length).map(drop),
            Err(0) => self.array::<1>().map(drop),
            Err(1) => self.array::<2>().map(drop),
            Err(2) => self.array::<4>().map(drop),
            Err(3) => {
                let packed = self.length()?;
                self.length()?;
                self.bytes(packed).map(drop)
            }
            Err(_) => Err(bad("a string of an unknown kind")),
        }
    }

    fn times(
        &mut self,
        count: u64,
        mut each: impl FnMut(&mut Self) -> io::Result<()>,
    ) -> io::Result<()> {
        for _ in 0..count {
            each(self)?;
        }
        Ok(())
    }

    fn payload(&mut self, kind: u8, version: u16, key: &[u8]) -> io::Result<Vec<u8>> {
        self.recorded = Some(vec![kind]);
        self.skip_value(kind, key)?;
        let mut payload = self.recorded.take().unwrap_or_default();
        payload.extend_from_slice(&version.to_le_bytes());
        let sum = CRC.checksum(&payload);
        payload.extend_from_slice(&sum.to_le_bytes());
        Ok(payload)
    }

    /// Reads over a value: the kinds are those of `rdb.h`.
    fn skip_value(&mut self, kind: u8, key: &[u8]) -> io::Result<()> {
        match kind {
            // A string, or a small collection in one string.
            0 | 9..=13 | 16 | 17 | 20 => self.skip_string(),
            // Lists and sets: strings.
            1 | 2 | 14 => {
                let count = self.length()?;
                self.times(count, Self::skip_string)
            }
            // Sorted sets, with scores as text or as doubles.
            3 => {
                let count = self.length()?;
                self.times(count, |p| p.skip_string().and_then(|()| p.skip_text_score()))
            }
            5 => {
                let count = self.length()?;
                self.times(count, |p| p.skip_string().and_then(|()| p.array::<8>().map(drop)))
            }
            // A hash: fields and values.
            4 => {
                let count = self.length()?;
                self.times(count, |p| p.skip_string().and_then(|()| p.skip_string()))
            }
            // A list of packed nodes, each with its kind.
            18 => {
                let count = self.length()?;
                self.times(count, |p| p.length().and_then(|_| p.skip_string()))
            }
            15 | 19 | 21 => self.skip_stream(kind),
            // A hash whose fields expire.
            24 => {
                self.array::<8>()?;
                let count = self.length()?;
                self.times(count, |p| {
                    p.length()?;
                    p.skip_string()?;
                    p.skip_string()
                })
            }
            25 => self.array::<8>().and_then(|_| self.skip_string()),
            _ => {
                let key = String::from_utf8_lossy(key);
                Err(bad(&format!("key {key:?} is of a kind ({kind}) that no backup can hold yet")))
            }
        }
    }

    fn skip_text_score(&mut self) -> io::Result<()> {
        match self.byte()? {
            // Not a number, and the two infinities.
            253..=255 => Ok(()),
            length => self.bytes(u64::from(length)).map(drop),
        }
    }

    fn skip_stream(&mut self, kind: u8) -> io::Result<()> {
        let nodes = self.length()?;
        self.times(nodes, |p| p.skip_string().and_then(|()| p.skip_string()))?;
        // The number of entries and the last id; since kind 19 also the first, the highest deleted
        // one, and how many were ever added.
        let lengths = if kind == 15 { 3 } else { 8 };
        self.times(lengths, |p| p.length().map(drop))?;
        let groups = self.length()?;
        self.times(groups, |p| {
            p.skip_string()?;
            p.times(if kind == 15 { 2 } else { 3 }, |p| p.length().map(drop))?;
            let pending = p.length()?;
            p.times(pending, |p| p.array::<24>().and_then(|_| p.length().map(drop)))?;
            let consumers = p.length()?;
            p.times(consumers, |p| {
                p.skip_string()?;
                p.times(if kind == 21 { 2 } else { 1 }, |p| p.array::<8>().map(drop))?;
                let pending = p.length()?;
                p.times(pending, |p| p.array::<16>().map(drop))
            })
        })
    }

    /// Compares what was read with the eight bytes at the end; zeros mean that Redis made none.
    fn check_sum(&mut self) -> io::Result<()> {
        let computed = self.crc.clone().finalize();
        let said = u64::from_le_bytes(self.array()?);
        if said == computed || said == 0 {
            return self.copy.flush();
        }
        Err(bad("the snapshot's check sum is another than that of its bytes"))
    }
}

/// LZF, as Redis compresses long strings.
fn unpack(packed: &[u8], length: u64) -> io::Result<Vec<u8>> {
    let broken = || bad("a compressed string is broken");
    if length > LONGEST {
        return Err(broken());
    }
    let mut out: Vec<u8> = Vec::new();
    let mut bytes = packed.iter().copied();
    while let Some(control) = bytes.next() {
        if control < 32 {
            for _ in 0..=control {
                out.push(bytes.next().ok_or_else(broken)?);
            }
            continue;
        }
        let mut count = usize::from(control >> 5);
        if count == 7 {
            count += usize::from(bytes.next().ok_or_else(broken)?);
        }
        let back = usize::from(control & 0x1F) << 8 | usize::from(bytes.next().ok_or_else(broken)?);
        let from = out.len().checked_sub(back + 1).ok_or_else(broken)?;
        for index in from..from + count + 2 {
            out.push(out[index]);
        }
    }
    if out.len() as u64 == length { Ok(out) } else { Err(broken()) }
}

fn bad(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.to_owned())
}

#[cfg(test)]
mod tests;
