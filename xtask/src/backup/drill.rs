//! The drill: a backup is restored into fresh servers of the same images, without a network, and
//! everything in it is compared with its manifest. A backup counts when this has passed.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};

use super::catalogue::{self, Backup};
use super::fit;
use super::load::{self, Comparison, Load};
use super::manifest::Server;
use super::postgres::Postgres;
use super::redis::{self, Redis};
use super::roles;
use super::room::NoRoom;
use super::verification::{Verification, write};
pub(crate) use super::verification::{is_verified, result, was_verified};
use crate::ctx::{Ctx, Invocation};
use crate::stack::running::LABEL_PROJECT;
use crate::stack::trial;

/// Initialising a database takes seconds, on a busy machine a minute.
const START_LIMIT: Duration = Duration::from_secs(3 * 60);
/// Where Redis of the drill writes what happens.
const REDIS_LOG: &str = "/data/redis.log";
/// Keys that end this soon are not compared: those that count attempts, of a site that is in use.
const PASSING: Duration = Duration::from_secs(10 * 60);
/// Redis 7 tells when a key ends. Argument: a moment, in milliseconds of Unix time.
const DROP_PASSING: &str = "local dropped, cursor = 0, '0'
repeat
    local found = redis.call('SCAN', cursor, 'COUNT', 1000)
    cursor = found[1]
    for _, key in ipairs(found[2]) do
        local ends = redis.call('PEXPIRETIME', key)
        if ends >= 0 and ends < tonumber(ARGV[1]) then
            dropped = dropped + redis.call('DEL', key)
        end
    end
until cursor == '0'
return dropped";
const PAUSE: Duration = Duration::from_millis(100);
/// As compose.yaml has them.
const INITDB: &str =
    "POSTGRES_INITDB_ARGS=--data-checksums --auth-local=peer --auth-host=scram-sha-256";

/// Checks the sums, restores the backup into servers of its own and compares. The result is written
/// beside the manifest, also that of a failure. It is not begun where there looks to be no room for it, unless it is
/// `forced`.
///
/// # Errors
/// The backup cannot be restored, or is not what its manifest says.
pub(crate) fn drill(ctx: &Ctx, backup: &Backup, forced: bool) -> Result<Verification> {
    let mut verification = Verification {
        verified_at: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        manifest_sha256: backup.manifest_sha256.clone(),
        failure: None,
        restore_ms: 0,
        compare_ms: 0,
        rows: backup.manifest.rows(),
        keys: backup.manifest.redis.keys,
        last_success: None,
    };
    // Before anything that is a word on the backup.
    let claim = trial::passing_name(ctx, "drill")?;
    let drilled = catalogue::check(ctx, backup)
        .and_then(|()| restore_beside(ctx, backup, claim.name(), forced, &mut verification));
    let removed = trial::remove_claimed(&ctx.shielded(), &claim);
    let drilled = drilled.and_then(|()| removed.context("remove the drill's containers"));
    // A drill that was interrupted, or not begun, says nothing about the backup.
    ctx.check_interrupted()?;
    if drilled.as_ref().is_err_and(|error| error.is::<NoRoom>()) {
        drilled.with_context(|| format!("verify the backup {}", backup.id()))?;
        return Ok(verification);
    }
    let failure = drilled.as_ref().err().map(|error| format!("{error:#}"));
    let verification = verification.ended(failure, result(backup).as_ref());
    write(backup, &verification)?;
    drilled.with_context(|| format!("verify the backup {}", backup.id()))?;
    Ok(verification)
}

fn restore_beside(
    ctx: &Ctx,
    backup: &Backup,
    name: &str,
    forced: bool,
    verification: &mut Verification,
) -> Result<()> {
    let started = Instant::now();
    let (saved, images) = (&backup.manifest, Images::find(ctx, backup)?);
    let (postgres, keys) = (format!("{name}-postgres"), format!("{name}-redis"));
    let step = ctx.ui.step("fresh servers");
    // That of Redis first, which writes nothing until it is told to.
    ctx.run(container(name, &keys).args([
        "--user=999:1000",
        &images.redis,
        "tail",
        "-f",
        "/dev/null",
    ]))?;
    if !forced {
        fit::drill(ctx, &keys, backup)?;
    }
    start_postgres(ctx, name, &postgres, &images.postgres)?;
    start_redis(ctx, &keys, backup)?;
    step.done("without a network");
    let server = Postgres::own(ctx, &postgres);
    roles::load(&server, backup, false)?;
    let names: Vec<String> = saved
        .postgres
        .databases
        .iter()
        .map(|database| format!("{}_drill", database.name))
        .collect();
    let databases = saved.postgres.databases.iter().zip(&names);
    let loads: Vec<Load> = databases
        .map(|(database, name)| Load { server: &server, backup, database, name })
        .collect();
    for load in &loads {
        let step = ctx.ui.step(format!("restore {}", load.database.name));
        load.run(&step)?;
        step.note("statistics");
        load.analyze()?;
        step.done("");
    }
    let redis = Redis { ctx, container: &keys, client: "redis-cli" };
    let step = ctx.ui.step("restore redis");
    let loaded = as_loaded_by_redis(&redis, backup)?;
    redis.prepare()?;
    redis.load(backup, &step)?;
    redis.swap()?;
    redis.discard()?;
    step.done("");
    verification.restore_ms = millis(started);
    let started = Instant::now();
    let step = ctx.ui.step("compare");
    // First of all, before more keys have expired.
    let compared = loaded.compare(&redis, saved.redis.other_keys)?;
    for load in &loads {
        load.check(Comparison::Rows, &step)?;
    }
    let roles = server.roles()?;
    ensure!(
        saved.postgres.roles.iter().all(|role| roles.contains(role)),
        "the roles are {roles:?}, and {:?} were saved",
        saved.postgres.roles
    );
    step.done(format!("{} rows, {compared}", saved.rows()));
    verification.compare_ms = millis(started);
    Ok(())
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// The images to drill on.
struct Images {
    postgres: String,
    redis: String,
}

impl Images {
    fn find(ctx: &Ctx, backup: &Backup) -> Result<Images> {
        let saved = &backup.manifest;
        Ok(Images {
            postgres: image(ctx, &saved.postgres.server)?,
            redis: image(ctx, &saved.redis.server)?,
        })
    }
}

/// The very image that the data comes from, or, on another host, the one of the same name.
fn image(ctx: &Ctx, server: &Server) -> Result<String> {
    for reference in [&server.image_id, &server.image] {
        let look = ["image", "inspect", "--format", "{{.Id}}", reference];
        let found = ctx.try_read(Invocation::new("docker").args(look))?;
        if found.status.success() {
            return Ok(found.stdout.trim().to_owned());
        }
    }
    anyhow::bail!(
        "the image {} is not on this host; `cargo xtask build` gets the images of this project",
        server.image
    );
}

fn container(name: &str, container: &str) -> Invocation {
    let label = format!("--label={LABEL_PROJECT}={name}");
    Invocation::new("docker")
        .args(["run", "--detach", "--network", "none", "--name", container])
        .arg(label)
        .limit(START_LIMIT)
}

fn start_postgres(ctx: &Ctx, name: &str, postgres: &str, image: &str) -> Result<()> {
    let mount = |file: &str| {
        let from = ctx.root().join("deploy/postgres").join(file);
        format!("--volume={}:/etc/postgresql/{file}:ro", from.display())
    };
    // The same configuration as the live server's, so that the time is an honest one.
    let files = ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"].map(mount);
    let words = ["--user=70:70", "--shm-size=128m", "--env", INITDB];
    let run = container(name, postgres).args(words).args(files);
    let run = run.arg("--env=POSTGRES_PASSWORD_FILE=/proc/sys/kernel/random/uuid");
    ctx.run(run.args([image, "postgres", "-c", "config_file=/etc/postgresql/postgresql.conf"]))?;
    // Over TCP: the image's temporary server, which initialises, listens on the socket only.
    let ready = ["exec", postgres, "pg_isready", "--quiet", "--host=127.0.0.1"];
    let log = ["logs", "--tail", "20", postgres];
    wait_for(ctx, "PostgreSQL of the drill", &ready, &log, || {
        let state = ["inspect", "--format", "{{.State.Running}}", postgres];
        Ok(ctx.read(Invocation::new("docker").args(state))?.trim() == "true")
    })
}

fn start_redis(ctx: &Ctx, redis: &str, backup: &Backup) -> Result<()> {
    let words = ["exec", "--interactive", redis, "sh", "-c", "cat >/data/dump.rdb"];
    let write = Invocation::new("docker").args(words).limit(START_LIMIT);
    load::feed(ctx.pipe(write)?, redis::open(backup)?)?;
    // It is not the container's own process, whose words the engine keeps.
    let logged = format!("exec redis-server \"$@\" >{REDIS_LOG} 2>&1");
    let server = ["exec", "--detach", redis, "sh", "-c", &logged, "redis-server"];
    let server = server.into_iter().chain(["--dir", "/data", "--save", ""]);
    // DEBUG DIGEST is what tells whether two Redis hold the same.
    let debug = ["--enable-debug-command", "local"];
    ctx.run(Invocation::new("docker").args(server).args(debug))?;
    let ready = ["exec", redis, "redis-cli", "-e", "ping"];
    let log = ["exec", redis, "tail", "-n", "20", REDIS_LOG];
    wait_for(ctx, "Redis of the drill", &ready, &log, || {
        // A snapshot that it cannot read ends it.
        let processes = ctx.read(Invocation::new("docker").args(["top", redis]))?;
        Ok(processes.contains("redis-server"))
    })
}

/// Waits until `ready` succeeds. Where it does not in time, or the server has ended (`lives`), the end of its
/// `log` says why.
fn wait_for(
    ctx: &Ctx,
    what: &str,
    ready: &[&str],
    log: &[&str],
    lives: impl Fn() -> Result<bool>,
) -> Result<()> {
    let docker = |words: &[&str]| ctx.try_read(Invocation::new("docker").args(words.to_vec()));
    ctx.wait_until(what, START_LIMIT, PAUSE, || {
        let asked = docker(ready)?;
        if asked.status.success() {
            return Ok(Ok(()));
        }
        let lived = lives()?;
        let log = docker(log)?;
        let why = anyhow::anyhow!("{}{}{}", log.stdout, log.stderr, asked.stderr);
        if lived {
            Err(why.context("it is not ready"))
        } else {
            Ok(Err(why.context("it has ended")))
        }
    })?
    .with_context(|| what.to_owned())
}

/// What Redis itself read from a snapshot.
struct Loaded {
    digest: String,
    /// Keys that end before it are in no digest. Unix time.
    cutoff: SystemTime,
    /// How many were left out.
    passing: u64,
}

impl Loaded {
    /// That a restore has brought the same keys back; says what was compared. `others` are the keys of other
    /// databases, which a restore leaves out.
    fn compare(&self, redis: &Redis, others: u64) -> Result<String> {
        if others > 0 || SystemTime::now() >= self.cutoff {
            return Ok("keys by their number".to_owned());
        }
        drop_passing(redis, self.cutoff)?;
        ensure!(
            digest_of(redis)? == self.digest,
            "Redis reads other keys from the snapshot than a restore brings back"
        );
        Ok(match self.passing {
            0 => "every key".to_owned(),
            passing => format!("every key but {passing} that end within minutes"),
        })
    }
}

/// Deletes the keys that end before a moment: one that ends between two looks would make a difference that is
/// none. Returns how many.
fn drop_passing(redis: &Redis, cutoff: SystemTime) -> Result<u64> {
    let cutoff = cutoff.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
    let words = ["-e", "EVAL", DROP_PASSING, "0", &cutoff.to_string()];
    let dropped = redis.ctx.read(redis.client().args(words).limit(START_LIMIT))?;
    dropped.trim().parse().with_context(|| format!("read how many keys end soon: {dropped:?}"))
}

/// What Redis itself reads from the snapshot as it starts: another program than ours counts, and
/// checks the check sum. Returns what it read, and empties the server for the restore.
fn as_loaded_by_redis(redis: &Redis, backup: &Backup) -> Result<Loaded> {
    let saved = &backup.manifest.redis;
    redis.command(&["DEBUG", "SET-ACTIVE-EXPIRE", "0"])?;
    let fields = ["rdb_last_load_keys_loaded", "rdb_last_load_keys_expired"];
    let read: u64 = redis.numbers("persistence", fields)?.into_iter().sum();
    ensure!(
        read == saved.keys + saved.other_keys,
        "Redis reads {read} keys from the snapshot, and {} were saved",
        saved.keys + saved.other_keys
    );
    let cutoff = SystemTime::now() + PASSING;
    let passing = drop_passing(redis, cutoff)?;
    let digest = digest_of(redis)?;
    redis.command(&["FLUSHALL"])?;
    Ok(Loaded { digest, cutoff, passing })
}

fn digest_of(redis: &Redis) -> Result<String> {
    redis.ctx.read(redis.client().args(["-e", "DEBUG", "DIGEST"]))
}
