//! Takes a backup of a running stack.

use std::collections::BTreeMap;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, anyhow, ensure};

use super::both;
use super::catalogue::{self, Backup, Catalogue};
use super::load::lanes;
use super::manifest::{
    FORMAT, FileEntry, Manifest, Postgres as SavedPostgres, Redis as SavedRedis, Server,
};
use super::postgres::{Dumped, Postgres};
use super::redis::Redis;
use super::replaced::Replaced;
use super::sink::{self, Sink, Target};
use crate::ctx::{Ctx, Invocation};
use crate::stack::project::Project;
use crate::stack::running::{self, Container};
use crate::ui;

/// The name of the file with the roles.
const ROLES: &str = "roles.sql.zst";
/// The name of the file with Redis' snapshot.
const SNAPSHOT: &str = "redis.rdb.zst";
/// Names have whole seconds: two backups within one wait for the next.
const SECOND: Duration = Duration::from_secs(1);

/// The two servers that hold data.
pub(crate) struct Servers {
    pub(crate) postgres: Container,
    pub(crate) redis: Container,
}

/// Finds the servers of a stack.
///
/// # Errors
/// One of them does not run.
pub(crate) fn servers(ctx: &Ctx, project: &Project) -> Result<Servers> {
    let containers = running::containers(ctx, project)?;
    running::expect_own(ctx, project, &containers)?;
    let find = |service: &str| {
        let found = containers.iter().find(|c| c.service == service && c.is_running());
        found.cloned().with_context(|| {
            format!("`{service}` of `{}` does not run; `cargo xtask up` starts it", project.name)
        })
    };
    Ok(Servers { postgres: find("postgres")?, redis: find("redis")? })
}

/// Writes a backup of the stack, with what a restore has `replaced` in the place of what serves now.
/// The caller holds the project's lock.
///
/// # Errors
/// Any stage fails: then there is no backup, and what was written of it is gone.
pub(crate) fn take(
    ctx: &Ctx,
    project: &Project,
    catalogue: &Catalogue,
    servers: &Servers,
    replaced: &Replaced,
    reason: &str,
) -> Result<Backup> {
    catalogue.sweep(ctx)?;
    Postgres::live(ctx, &servers.postgres.id).end_dumps()?;
    let mut began = SystemTime::now();
    while catalogue.folder().join(catalogue::id_of(began)).exists() {
        ctx.pause(SECOND)?;
        began = SystemTime::now();
    }
    let started = Instant::now();
    let id = catalogue::id_of(began);
    let partial = catalogue.begin(&id)?;
    let create = |name: &str| sink::create(&partial.folder().join(name), catalogue.may_fill());
    let mut files = BTreeMap::new();
    // Redis first: whoever has a session in the backup had a row before it, so that the row is in the
    // backup, too. The other way round a session could name a row that is not there, and the next
    // sign-up after a restore would get that number and, with it, somebody else's session. The moment of
    // the keys has passed when the first of them arrives; the rest of them and the rows come together.
    let (redis, postgres) = thread::scope(|scope| {
        let (sender, has_begun) = sync_channel(1);
        // There is room for the one word.
        let begin = move || {
            let _ = sender.try_send(());
        };
        let redis = scope.spawn(|| save_redis(ctx, &servers.redis, replaced, &create, begin));
        let around = save_around(ctx, &servers.postgres, project.value("PG_DBNAME"), &create);
        // Without a word it has failed, which it tells itself.
        let postgres = match (around, has_begun.recv()) {
            (Ok(around), Ok(())) => {
                save_postgres(ctx, &servers.postgres, replaced, around, &mut files, &create)
            }
            (Err(error), _) => Err(error),
            (_, Err(error)) => Err(error).context("wait for the snapshot of Redis"),
        };
        let redis = redis.join().unwrap_or_else(|_| Err(anyhow!("a thread of xtask panicked")));
        (redis, postgres)
    });
    if redis.is_err() || postgres.is_err() {
        // Also after a Ctrl-C. Its own failure is met by the next backup; the cause matters more.
        let _ = Postgres::live(&ctx.shielded(), &servers.postgres.id).end_dumps();
    }
    let (redis, snapshot) = redis?;
    let postgres = postgres?;
    files.insert(SNAPSHOT.to_owned(), snapshot);
    let manifest = Manifest {
        format: FORMAT,
        id: id.clone(),
        project: project.name.clone(),
        reason: reason.to_owned(),
        started_at: humantime::format_rfc3339_seconds(began).to_string(),
        duration_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        tool: env!("CARGO_PKG_VERSION").to_owned(),
        postgres,
        redis,
        files,
    };
    ctx.check_interrupted()?;
    partial.publish(&manifest)?;
    catalogue.open(&id)
}

/// What there is in a PostgreSQL around its databases.
struct Around {
    server: Server,
    roles: Vec<String>,
    roles_file: FileEntry,
    databases: Vec<String>,
}

fn save_around(
    ctx: &Ctx,
    container: &Container,
    database: &str,
    create: &impl Fn(&str) -> Result<Target>,
) -> Result<Around> {
    let postgres = Postgres::live(ctx, &container.id);
    let mut sink = Sink::new(create(ROLES)?)?;
    let (server, ()) = both(
        || describe_postgres(&postgres, container).context("ask PostgreSQL before the backup"),
        || postgres.dump_roles(&mut sink).context("save the roles"),
    )?;
    let roles_file = sink.finish()?;
    let databases = postgres.databases()?;
    // A backup without it would restore, be proven so, and push the last good one out of the catalogue.
    ensure!(
        databases.iter().any(|name| name == database),
        "there is no database {database} (PG_DBNAME) that takes connections in PostgreSQL, only {}: a backup without \
         it is none. `cargo xtask psql -- -U postgres -d postgres --list` shows them all",
        databases.join(", ")
    );
    Ok(Around { server, roles: postgres.roles()?, roles_file, databases })
}

fn save_postgres(
    ctx: &Ctx,
    container: &Container,
    replaced: &Replaced,
    around: Around,
    files: &mut BTreeMap<String, FileEntry>,
    create: &(impl Fn(&str) -> Result<Target> + Sync),
) -> Result<SavedPostgres> {
    let server = Postgres::live(ctx, &container.id);
    // What a restore put aside is removed once it is saved, so it must be: also where the name that it had is gone.
    let aside = replaced.databases.keys().find(|name| !around.databases.contains(name));
    ensure!(
        aside.is_none(),
        "a restore put the database {0} aside, as {1}, and now there is no {0} that takes connections, beside which it \
         would be saved. Nothing was removed. Where {1} is the one to have: `ALTER DATABASE \"{1}\" RENAME TO \
         \"{0}\"` as postgres (`cargo xtask psql -- -U postgres -d postgres`), then back up again",
        aside.map_or("", String::as_str),
        aside.and_then(|name| replaced.databases.get(name)).map_or("", String::as_str)
    );
    files.insert(ROLES.to_owned(), around.roles_file);
    let dump = |name: &String| -> Result<Dumped> {
        let step = ctx.ui.step(format!("database {name}"));
        let now = replaced.databases.get(name).unwrap_or(name);
        let dumped = server.dump(now, name, &step, create)?;
        let rows = dumped.database.rows();
        let stored: u64 = dumped.files.iter().map(|(_, file)| file.bytes).sum();
        step.done(format!("{rows} rows, {} stored", ui::bytes(stored)));
        Ok(dumped)
    };
    let mut databases = Vec::new();
    // A few at a time, so that a large one does not have to wait for the small ones, nor they for it.
    for names in around.databases.chunks(lanes()) {
        let dumped: Vec<Result<Dumped>> = thread::scope(|scope| {
            let threads: Vec<_> = names.iter().map(|name| scope.spawn(|| dump(name))).collect();
            let panicked = |_| Err(anyhow!("a thread of xtask panicked"));
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect()
        });
        for dumped in dumped {
            let dumped = dumped?;
            files.extend(dumped.files);
            databases.push(dumped.database);
        }
    }
    let (server, roles, roles_file) = (around.server, around.roles, ROLES.to_owned());
    Ok(SavedPostgres { server, roles, roles_file, databases })
}

fn save_redis(
    ctx: &Ctx,
    container: &Container,
    replaced: &Replaced,
    create: &(impl Fn(&str) -> Result<Target> + Sync),
    begin: impl FnOnce(),
) -> Result<(SavedRedis, FileEntry)> {
    let server = Redis::live(ctx, &container.id);
    let step = ctx.ui.step("redis");
    let mut sink = Sink::new(create(SNAPSHOT)?)?;
    let summary = server.dump(&step, &mut sink, replaced.keys, begin)?;
    let file = sink.finish()?;
    let keys = summary.keys.get(&0).copied().unwrap_or(0);
    let all: u64 = summary.keys.values().sum();
    step.done(format!("{keys} keys, {} stored", ui::bytes(file.bytes)));
    if all > keys || summary.functions > 0 {
        ctx.ui.warn(
            "Redis holds keys of other databases than 0, or functions: they are saved, and \
             `restore` brings back those of database 0 only",
        );
    }
    let saved = SavedRedis {
        server: describe_redis(ctx, container)?,
        keys,
        other_keys: all - keys,
        memory_bytes: summary.used_memory,
        file: SNAPSHOT.to_owned(),
    };
    Ok((saved, file))
}

/// What the manifest says of a PostgreSQL.
///
/// # Errors
/// It does not answer.
pub(crate) fn describe_postgres(postgres: &Postgres, container: &Container) -> Result<Server> {
    let version = postgres.version()?;
    describe(postgres.ctx, container, version, "/var/lib/postgresql/data")
}

/// What the manifest says of a Redis.
///
/// # Errors
/// It does not answer.
pub(crate) fn describe_redis(ctx: &Ctx, container: &Container) -> Result<Server> {
    let [version] = Redis::live(ctx, &container.id).info("server", ["redis_version"])?;
    describe(ctx, container, version, "/data")
}

fn describe(ctx: &Ctx, container: &Container, version: String, data: &str) -> Result<Server> {
    let mark = format!("{data}/.flavour");
    let read = Invocation::new("docker").args(["exec", &container.id, "cat", &mark]);
    let flavour = ctx.read(read).context("read which C library made the data")?;
    Ok(Server {
        version,
        image: container.image.clone(),
        image_id: container.image_id.clone(),
        flavour: flavour.trim().to_owned(),
    })
}
