//! `bench backup`: `backup` and `restore` against the bare pipelines, `pg_dump -Fc` and pgBackRest, on the
//! same rows and sessions, in one run.

mod fill;
mod report;
mod rivals;

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use self::report::{Case, Found};
use self::rivals::Rivals;
use crate::backup::catalogue::Catalogue;
use crate::backup::postgres::Postgres;
use crate::backup::redis::Redis;
use crate::backup::take::{self, Servers};
use crate::ctx::{Cost, Ctx, Invocation};
use crate::host::packages;
use crate::stack::project::Project;
use crate::stack::trial::Trial;
use crate::stack::usage;
use crate::ui;

/// Until everything that was written is on the disk.
const SYNC_LIMIT: Duration = Duration::from_secs(10 * 60);
const BACKUPS: [&str; 4] = [
    "`cargo xtask backup`",
    "`pg_dumpall \\| zstd -T0`, and Redis' snapshot",
    "`pg_dump -Fc`; no Redis",
    "pgBackRest; no Redis",
];
const RESTORES: [&str; 6] = [
    "`cargo xtask restore --skip-safety-backup`, of a verified backup",
    "`zstd -d \\| psql`, and Redis' snapshot",
    "`pg_restore` with a job per core; no Redis",
    "pgBackRest; no Redis",
    "the same, with the backup of what it replaces",
    "the first with `--compare`, as of a backup that was not verified",
];
/// Of xtask's own restores, what else they are told.
const OURS: [(usize, &[&str]); 3] =
    [(4, &[]), (0, &["--skip-safety-backup"]), (5, &["--skip-safety-backup", "--compare"])];
/// Where the bare pipeline is in both lists.
const BARE: usize = 1;

/// What to measure.
pub(crate) struct Wanted {
    pub(crate) runs: u32,
    pub(crate) megabytes: u32,
    pub(crate) sessions: u32,
}

/// Measures, and returns the tables.
///
/// # Errors
/// A measured command fails, or what it restored is not what was saved.
pub(super) fn measure(ctx: &Ctx, trial: &Trial, wanted: &Wanted) -> Result<String> {
    packages::ensure_programs(ctx, &[("zstd", "zstd")], "measure the bare pipelines")?;
    trial.up(ctx)?;
    let project = trial.project(ctx)?;
    let servers = take::servers(ctx, &project)?;
    let database = project.value("PG_DBNAME").to_owned();
    let rivals = Rivals::start(ctx, trial, &servers, &database)?;
    let postgres = Postgres::own(ctx, &servers.postgres.id);
    let redis = Redis::live(ctx, &servers.redis.id);

    let step = ctx.ui.step(format!("{} MB of rows", wanted.megabytes)).announce();
    fill::rows(&postgres, &database, wanted.megabytes, wanted.sessions).context("make the rows")?;
    let size = postgres.query(&database, "SELECT pg_database_size(current_database())")?.concat();
    let size = ui::bytes(size.parse().context("read the size of the database")?);
    let print = fill::print(&postgres, &database)?;
    step.done(&print);
    let step = ctx.ui.step(format!("{} sessions", wanted.sessions)).announce();
    let keys = fill::sessions(&redis, wanted.sessions, &step).context("make the sessions")?;
    step.done(format!("{keys} keys"));

    let catalogue = Catalogue::of(ctx, &project);
    let mut contest = Contest {
        ctx,
        trial,
        project: &project,
        servers: &servers,
        rivals: &rivals,
        catalogue,
        print,
        keys,
        backups: cases(&BACKUPS, &[0]),
        restores: cases(&RESTORES, &OURS.map(|(index, _)| index)),
    };
    for run in 1..=wanted.runs {
        ctx.ui.say(format!("run {run} of {}", wanted.runs));
        contest.run(&postgres, &redis)?;
    }
    let data = format!(
        "A database of {size} with its indexes, and {keys} keys of {} sessions.",
        wanted.sessions
    );
    Ok(report::report(&Found {
        data,
        backups: contest.backups,
        restores: contest.restores,
        bare: BARE,
    }))
}

fn cases(names: &[&'static str], ours: &[usize]) -> Vec<Case> {
    let case = |(index, name): (usize, &&'static str)| Case {
        name,
        is_ours: ours.contains(&index),
        ..Case::default()
    };
    names.iter().enumerate().map(case).collect()
}

/// The stack, the rivals, and what was measured so far.
struct Contest<'a> {
    ctx: &'a Ctx,
    trial: &'a Trial,
    project: &'a Project,
    servers: &'a Servers,
    rivals: &'a Rivals<'a>,
    catalogue: Catalogue,
    /// By which a copy of the rows is known to be whole.
    print: String,
    keys: u64,
    backups: Vec<Case>,
    restores: Vec<Case>,
}

impl Contest<'_> {
    /// Every case once, one right after the other, so that a noisy minute of the machine hits all alike.
    fn run(&mut self, postgres: &Postgres, redis: &Redis) -> Result<()> {
        let (rivals, servers) = (self.rivals, self.servers);
        let cost = self.measure(BACKUPS[0], self.trial.xtask(self.ctx, &["backup"])?)?;
        let id = self.catalogue.ids()?.pop_last().context("find the backup")?;
        let bytes = self.catalogue.open(&id)?.manifest.bytes();
        keep(&mut self.backups[0], cost, Some(bytes));
        let cost = self.measure(BACKUPS[1], rivals.bare_backup(servers))?;
        let bytes = rivals.bytes(&["all.sql.zst", "redis.rdb.zst"])?;
        keep(&mut self.backups[1], cost, Some(bytes));
        let cost = self.measure(BACKUPS[2], rivals.custom_backup(servers))?;
        keep(&mut self.backups[2], cost, Some(rivals.bytes(&["rows.dump"])?));

        rivals.begin()?;
        let cost = self.measure(RESTORES[1], rivals.bare_restore())?;
        self.compare(&rivals.server(), Some(rivals.keys()?)).context(RESTORES[1])?;
        keep(&mut self.restores[1], cost, None);
        // pgBackRest saves the server that it shares a machine with: the one that was just restored.
        rivals.begin_pgbackrest()?;
        let cost = self.measure(BACKUPS[3], rivals.pgbackrest_backup())?;
        keep(&mut self.backups[3], cost, Some(rivals.repository_bytes()?));
        rivals.lose()?;
        let cost = self.measure(RESTORES[3], rivals.pgbackrest_restore())?;
        self.compare(&rivals.server(), None).context(RESTORES[3])?;
        keep(&mut self.restores[3], cost, None);
        rivals.begin_custom()?;
        let cost = self.measure(RESTORES[2], rivals.custom_restore())?;
        self.compare(&rivals.server(), None).context(RESTORES[2])?;
        keep(&mut self.restores[2], cost, None);
        rivals.end()?;

        let step = self.ctx.ui.step("verify").announce();
        self.ctx.run(self.trial.xtask(self.ctx, &["backup", "verify", &id])?)?;
        step.done("");
        for (index, options) in OURS {
            let words: Vec<&str> = ["restore", &id].into_iter().chain(options.to_vec()).collect();
            let cost = self.measure(RESTORES[index], self.trial.xtask(self.ctx, &words)?)?;
            self.compare(postgres, Some(redis.count(0)?)).context(RESTORES[index])?;
            keep(&mut self.restores[index], cost, None);
        }
        Ok(())
    }

    fn measure(&self, label: &str, command: Invocation) -> Result<Cost> {
        // What earlier cases wrote shall not be written at this one's expense.
        self.ctx.run(Invocation::new("sync").limit(SYNC_LIMIT))?;
        let step = self.ctx.ui.step(label.replace('\\', "")).announce();
        let before = self.processor()?;
        let mut cost = self.ctx.measure(command).with_context(|| format!("measure {label}"))?;
        cost.processor += self.processor()?.saturating_sub(before);
        step.done(ui::seconds(cost.time));
        Ok(cost)
    }

    /// Of all servers: those that have nothing to do add nothing.
    fn processor(&self) -> Result<Duration> {
        let (servers, rivals) = (self.servers, self.rivals);
        let all = [&servers.postgres.id, &servers.redis.id, &rivals.postgres, &rivals.redis];
        all.into_iter().map(|container| usage::processor(self.ctx, container)).sum()
    }

    /// Whoever restores less has done less.
    fn compare(&self, server: &Postgres, keys: Option<u64>) -> Result<()> {
        let found = fill::print(server, self.project.value("PG_DBNAME"))?;
        ensure!(found == self.print, "restored `{found}`, and `{}` was saved", self.print);
        let saved = self.keys;
        ensure!(
            keys.is_none_or(|keys| keys == saved),
            "restored {keys:?} keys, and {saved} were saved"
        );
        Ok(())
    }
}

fn keep(case: &mut Case, cost: Cost, bytes: Option<u64>) {
    case.costs.push(cost);
    case.bytes = bytes.or(case.bytes);
}
