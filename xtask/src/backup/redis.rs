//! Redis' side: a snapshot of the running server, and keys put back into one.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::time::Duration;

use anyhow::{Context, Error, Result, ensure};
use archive::file;
use archive::rdb::{self, Summary};

use super::catalogue::Backup;
use super::sink::{Meter, Sink};
use crate::ctx::{Ctx, Invocation};
use crate::ui::{self, Step};

/// How long the server may take to begin: it writes the snapshot as it sends it.
const PATIENCE: Duration = Duration::from_secs(5 * 60);
const LIMIT: Duration = Duration::from_secs(60 * 60);

/// The database that keys are put into before they become those of database 0: the last one.
pub(crate) const SCRATCH: u64 = 15;
/// Says that the scratch database is a restore's, and not somebody's data.
const MARK: &str = "xtask:restore";
/// What the mark says of keys that were those of database 0. [`SWAP`] writes it.
const SWAPPED: &str = "swapped";
/// In one moment, for clients and for Redis' own log alike: the keys of the scratch database become
/// those of database 0, and the former ones wait in the scratch database, with the mark.
const SWAP: &str = "\
    redis.call('SELECT', ARGV[1]) redis.call('DEL', KEYS[1]) \
    redis.call('SWAPDB', 0, ARGV[1]) \
    redis.call('SELECT', ARGV[1]) redis.call('SET', KEYS[1], 'swapped') return 'OK'";

/// Keys that went into a server.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Loaded {
    /// All of database 0 in the backup.
    pub(crate) keys: u64,
    /// Those of them whose time was over when loading began: Redis does not take them.
    pub(crate) expired_before: u64,
    /// Those whose time was over when loading had ended.
    pub(crate) expired_after: u64,
}

/// A server in a container.
#[derive(Clone, Copy)]
pub(crate) struct Redis<'a> {
    pub(crate) ctx: &'a Ctx,
    pub(crate) container: &'a str,
    /// redis-cli, or what the image has in its place for the user that may do everything.
    pub(crate) client: &'a str,
}

impl<'a> Redis<'a> {
    /// The live server.
    pub(crate) fn live(ctx: &'a Ctx, container: &'a str) -> Redis<'a> {
        Redis { ctx, container, client: "admin-cli" }
    }

    /// The client in the container, ready for its arguments.
    pub(crate) fn client(&self) -> Invocation {
        let words = ["exec", "--interactive", self.container, self.client];
        Invocation::new("docker").args(words).limit(LIMIT)
    }

    /// Fields of a section of `INFO`, asked for at once.
    ///
    /// # Errors
    /// The server does not answer, or has no such field.
    pub(crate) fn info<const N: usize>(
        &self,
        section: &str,
        fields: [&str; N],
    ) -> Result<[String; N]> {
        let said = self.ctx.read(self.client().args(["-e", "INFO", section]))?;
        let mut values = [const { String::new() }; N];
        for (value, field) in values.iter_mut().zip(fields) {
            let mut lines = said.lines();
            let found = lines.find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
            *value = found
                .map(|value| value.trim().to_owned())
                .with_context(|| format!("ask Redis for {field}: it is not in INFO {section}"))?;
        }
        Ok(values)
    }

    /// The same for fields that are numbers.
    ///
    /// # Errors
    /// As [`Redis::info`], or one is no number.
    pub(crate) fn numbers<const N: usize>(
        &self,
        section: &str,
        fields: [&str; N],
    ) -> Result<[u64; N]> {
        let mut numbers = [0; N];
        for ((number, said), field) in
            numbers.iter_mut().zip(self.info(section, fields)?).zip(fields)
        {
            *number = said.parse().with_context(|| format!("read {field}: {said:?}"))?;
        }
        Ok(numbers)
    }

    /// Saves all keys as they are at one moment: the server forks, and sends what it had then. `begin`
    /// is called as soon as that moment has passed. Where a restore has replaced the keys and the
    /// former ones are wanted, they are saved as those of database 0, and nothing else is.
    ///
    /// # Errors
    /// The server or the disk fails, or the snapshot is not whole.
    pub(crate) fn dump(
        &self,
        step: &Step,
        sink: &mut Sink,
        replaced: bool,
        begin: impl FnOnce(),
    ) -> Result<Summary> {
        let mut pipe = self.ctx.pipe(self.client().args(["--rdb", "-"]))?;
        let mut output = BufReader::with_capacity(1 << 18, pipe.output(PATIENCE)?);
        // A failure here is met again, and told, by whoever reads on.
        if output.fill_buf().is_ok_and(|bytes| !bytes.is_empty()) {
            begin();
        }
        let mut meter = Meter::new(step);
        let read = if replaced {
            former_keys(&mut output, sink, &mut meter)
        } else {
            rdb::read(&mut output, sink, |entry| {
                meter.add(entry.payload.len());
                Ok(())
            })
        };
        // What redis-cli adds behind the snapshot; it must end by itself to be asked how.
        let rest = std::io::copy(&mut output, &mut std::io::sink());
        match read {
            Ok(summary) => {
                rest.context("read the end of the snapshot")?;
                pipe.finish()?;
                Ok(summary)
            }
            Err(error) => Err(pipe.explain(Error::from(error))),
        }
        .context("save the keys of Redis")
    }

    /// How many keys a database has.
    ///
    /// # Errors
    /// The server does not answer.
    pub(crate) fn count(&self, database: u64) -> Result<u64> {
        let command = self.client().args(["-e", "-n", &database.to_string(), "DBSIZE"]);
        let said = self.ctx.read(command)?;
        said.trim().parse().with_context(|| format!("read the number of keys: {said:?}"))
    }

    /// Runs a command that changes something.
    ///
    /// # Errors
    /// The server refuses it.
    pub(crate) fn command(&self, words: &[&str]) -> Result<()> {
        self.ctx.run(self.client().arg("-e").args(words.iter().copied()))
    }

    /// Makes the scratch database ready: empty, but for the mark that tells it from data.
    ///
    /// # Errors
    /// There are keys in it which no restore has put there; they are left alone.
    pub(crate) fn prepare(&self) -> Result<()> {
        let keys = self.count(SCRATCH)?;
        ensure!(
            keys == 0 || self.is_marked()?,
            "Redis' database {SCRATCH} holds {keys} keys, and a restore needs it empty: the keys \
             of a backup wait there until they are complete. Nothing was changed; move or delete \
             those keys: `cargo xtask redis-cli -- -n {SCRATCH} --scan` shows them"
        );
        self.empty_scratch()?;
        self.command(&["-n", &SCRATCH.to_string(), "SET", MARK, "loading"])
    }

    /// Deletes what is in the scratch database, where it is a restore's.
    ///
    /// # Errors
    /// The server does not do it.
    pub(crate) fn discard(&self) -> Result<()> {
        if self.is_marked()? { self.empty_scratch() } else { Ok(()) }
    }

    /// Whether the keys in the scratch database are those that a restore has replaced.
    ///
    /// # Errors
    /// The server does not answer.
    pub(crate) fn has_replaced(&self) -> Result<bool> {
        // Of another kind than a string, it is not a restore's.
        let scratch = SCRATCH.to_string();
        let said = self.ctx.read(self.client().args(["-n", &scratch, "GET", MARK]))?;
        Ok(said.trim() == SWAPPED)
    }

    fn is_marked(&self) -> Result<bool> {
        let scratch = SCRATCH.to_string();
        let said = self.ctx.read(self.client().args(["-e", "-n", &scratch, "EXISTS", MARK]))?;
        Ok(said.trim() == "1")
    }

    fn empty_scratch(&self) -> Result<()> {
        self.command(&["-n", &SCRATCH.to_string(), "FLUSHDB"])
    }

    /// Puts the keys of a backup into the scratch database, which must be prepared, and counts them
    /// there. Nobody sees them until [`Redis::swap`].
    ///
    /// # Errors
    /// The server refuses a key, or has another number of them than the backup.
    pub(crate) fn load(&self, backup: &Backup, step: &Step) -> Result<Loaded> {
        let saved = &backup.manifest.redis;
        let before = now_ms();
        let mut expiries = Vec::new();
        let mut loaded = Loaded::default();
        let mut pipe = self.ctx.pipe(self.client().args(["-n", &SCRATCH.to_string(), "--pipe"]))?;
        let mut input = BufWriter::with_capacity(1 << 18, pipe.input()?);
        let mut meter = Meter::new(step);
        let read = rdb::read(&mut open(backup)?, std::io::sink(), |entry| {
            if entry.database != 0 {
                return Ok(());
            }
            loaded.keys += 1;
            expiries.extend(entry.expires);
            meter.add(entry.payload.len());
            input.write_all(&rdb::restore_command(&entry))
        });
        match read.and_then(|_| input.flush()) {
            Ok(()) => {
                drop(input);
                pipe.finish()?;
            }
            Err(error) => {
                drop(input);
                return Err(pipe.explain(Error::from(error))).context("load the keys");
            }
        }
        let found = self.count(SCRATCH)?.saturating_sub(1);
        let after = now_ms();
        let expired_by = |time| expiries.iter().filter(|expires| **expires <= time).count() as u64;
        loaded.expired_before = expired_by(before);
        loaded.expired_after = expired_by(after);
        ensure!(
            loaded.keys == saved.keys,
            "the snapshot holds {} keys, and its manifest says {}",
            loaded.keys,
            saved.keys
        );
        let most = loaded.keys - loaded.expired_before;
        let least = loaded.keys - loaded.expired_after;
        ensure!(
            (least..=most).contains(&found),
            "Redis has {found} of {} keys, of which {} to {} have expired",
            loaded.keys,
            loaded.expired_before,
            loaded.expired_after
        );
        Ok(loaded)
    }

    /// Makes the keys of the scratch database those of database 0, in one moment. The former keys
    /// are in the scratch database until [`Redis::discard`].
    ///
    /// # Errors
    /// The server does not do it.
    pub(crate) fn swap(&self) -> Result<()> {
        self.command(&["EVAL", SWAP, "1", MARK, &SCRATCH.to_string()])
    }

    /// Whether the keys of a backup fit in beside those that are there.
    ///
    /// # Errors
    /// They do not, or the server does not answer.
    pub(crate) fn check_room(&self, backup: &Backup) -> Result<()> {
        let [used, most] = self.numbers("memory", ["used_memory", "maxmemory"])?;
        let needed = backup.manifest.redis.memory_bytes.unwrap_or(0);
        ensure!(
            most == 0 || used + needed < most,
            "Redis uses {} of its {}, and the backup's keys need up to {} beside them. Nothing was \
             changed; give it more for the time of the restore (`cargo xtask redis-cli -- config \
             set maxmemory {}mb`; mind the container's own limit), or take `--only postgres`",
            ui::bytes(used),
            ui::bytes(most),
            ui::bytes(needed),
            (used + needed) / 900_000 + 64
        );
        Ok(())
    }
}

/// Writes the keys that a restore has replaced, as a snapshot of their own.
fn former_keys(
    from: &mut impl std::io::Read,
    to: &mut impl Write,
    meter: &mut Meter,
) -> std::io::Result<Summary> {
    let mut writer = rdb::Writer::new(to);
    let mut kept = 0;
    let all = rdb::read(from, std::io::sink(), |entry| {
        meter.add(entry.payload.len());
        if entry.database != SCRATCH || entry.key == MARK.as_bytes() {
            return Ok(());
        }
        kept += 1;
        writer.add(&entry)
    })?;
    writer.finish()?;
    // The share of the memory that these keys have, as good as it can be told from outside.
    let total: u64 = all.keys.values().sum();
    let used_memory = all.used_memory.map(|bytes| bytes / total.max(1) * kept);
    Ok(Summary { keys: [(0, kept)].into(), functions: 0, used_memory })
}

/// The snapshot of a backup.
///
/// # Errors
/// It cannot be opened.
pub(crate) fn open(backup: &Backup) -> Result<impl std::io::Read + use<>> {
    let path = backup.path(&backup.manifest.redis.file);
    let opened = File::open(&path).with_context(|| format!("open {}", path.display()))?;
    Ok(BufReader::with_capacity(1 << 18, file::decompressor(opened)?))
}

/// Milliseconds since 1970.
fn now_ms() -> i64 {
    let age = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    age.map_or(0, |age| i64::try_from(age.as_millis()).unwrap_or(i64::MAX))
}
