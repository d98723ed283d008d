//! Puts a backup in the place of a stack's data, while the stack runs.
//!
//! Everything is loaded beside the live data and compared with the manifest: databases under another
//! name, keys in another database of Redis. Then come two moments: PostgreSQL changes all names in
//! one transaction, Redis changes two databases in one command. Until then the old data serves,
//! whatever happens to this program; what it leaves behind has names that the next restore knows.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::both;
use super::catalogue::{Backup, Catalogue};
use super::drill;
use super::fit;
use super::load::{Comparison, Load};
use super::manifest::Database;
use super::postgres::{self, Postgres};
use super::redis::Redis;
use super::replaced::Replaced;
use super::roles;
use super::swap::{Names, quoted};
use super::take::Servers;
use crate::ctx::Ctx;
use crate::stack;
use crate::stack::project::Project;

/// Through which names are changed: nobody can be connected to a database that changes its own.
pub(super) const BYSTANDER: &str = "template1";
/// PostgreSQL's own database for maintenance: restored where somebody keeps tables in it.
const MAINTENANCE: &str = "postgres";
/// A migration may rewrite a large table.
const MIGRATE_LIMIT: Duration = Duration::from_secs(60 * 60);

/// Which of the data.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts {
    pub(crate) postgres: bool,
    pub(crate) redis: bool,
}

/// What was asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    pub(crate) parts: Parts,
    /// Also from another major version or C library.
    pub(crate) accepts_other: bool,
    /// Every row is read back, also of a backup that a drill has proven.
    pub(crate) compares_rows: bool,
}

/// A restore that can be done: its conditions were looked at.
pub(crate) struct Restore<'a> {
    pub(super) ctx: &'a Ctx,
    project: &'a Project,
    pub(super) backup: &'a Backup,
    pub(super) postgres: Postgres<'a>,
    pub(super) redis: Redis<'a>,
    pub(super) parts: Parts,
    comparison: Comparison,
}

impl<'a> Restore<'a> {
    /// Looks whether the backup can go into these servers.
    ///
    /// # Errors
    /// Another major version or C library (unless those are accepted), other databases than the
    /// stack's, or no room. Nothing was changed.
    pub(crate) fn prepare(
        ctx: &'a Ctx,
        project: &'a Project,
        servers: &'a Servers,
        backup: &'a Backup,
        asked: Asked,
    ) -> Result<Restore<'a>> {
        let postgres = Postgres::own(ctx, &servers.postgres.id);
        let redis = Redis::live(ctx, &servers.redis.id);
        let parts = asked.parts;
        let is_proven = drill::is_verified(backup)
            && servers.postgres.image_id == backup.manifest.postgres.server.image_id;
        let comparison =
            if is_proven && !asked.compares_rows { Comparison::Counts } else { Comparison::Rows };
        let restore = Restore { ctx, project, backup, postgres, redis, parts, comparison };
        both(
            || {
                if !parts.postgres || asked.accepts_other {
                    return Ok(());
                }
                fit::postgres(&restore.postgres, &servers.postgres, backup)
            },
            || {
                if !parts.redis {
                    return Ok(());
                }
                fit::redis(&restore.redis, &servers.redis, backup, asked.accepts_other)
            },
        )?;
        Ok(restore)
    }

    /// The server that it goes into.
    pub(crate) fn postgres(&self) -> &Postgres<'a> {
        &self.postgres
    }

    /// What an earlier restore has put aside.
    ///
    /// # Errors
    /// A server does not answer.
    pub(crate) fn aside(&self) -> Result<Replaced> {
        Replaced::find(&self.postgres, &self.redis)
    }

    /// What will be replaced, for the question before it: databases with their rows, and keys.
    ///
    /// # Errors
    /// A server does not answer, or the stack's database is not in the backup.
    pub(crate) fn replaced(&self) -> Result<Vec<String>> {
        let count = || self.parts.redis.then(|| self.redis.count(0)).transpose();
        let (mut replaced, keys) = both(|| self.replaced_rows(), count)?;
        replaced.extend(keys.map(|keys| format!("{keys} keys of Redis, sessions among them")));
        Ok(replaced)
    }

    fn replaced_rows(&self) -> Result<Vec<String>> {
        let mut replaced = Vec::new();
        let live = self.postgres.databases()?;
        for database in self.databases()? {
            if live.contains(&database.name) {
                // As the statistics have it: counting a large table takes as long as reading it.
                let sql = "SELECT coalesce(sum(n_live_tup), 0) FROM pg_stat_user_tables";
                let rows = self.postgres.query(&database.name, sql)?.concat();
                replaced.push(format!("the database {} with about {rows} rows", database.name));
            }
        }
        Ok(replaced)
    }

    /// The databases to restore.
    fn databases(&self) -> Result<Vec<&'a Database>> {
        if !self.parts.postgres {
            return Ok(Vec::new());
        }
        let saved = &self.backup.manifest.postgres.databases;
        let wanted = self.project.value("PG_DBNAME");
        ensure!(
            saved.iter().any(|database| database.name == wanted),
            "the backup has no database {wanted}, which this stack uses (PG_DBNAME), but {}. \
             `--into NAME` makes a copy to look at; or set PG_DBNAME to that name",
            saved.iter().map(|database| &*database.name).collect::<Vec<_>>().join(", ")
        );
        let is_wanted = |database: &&Database| {
            database.name != MAINTENANCE || database.name == wanted || !database.tables.is_empty()
        };
        Ok(saved.iter().filter(is_wanted).collect())
    }

    /// Removes what an interrupted restore had loaded beside the live data. What one has replaced is
    /// not touched: see [`super::replaced`].
    ///
    /// # Errors
    /// A server does not do it.
    pub(crate) fn sweep(&self) -> Result<()> {
        both(|| self.sweep_databases(), || self.sweep_keys())?;
        Ok(())
    }

    fn sweep_databases(&self) -> Result<()> {
        let names = self.postgres.query(BYSTANDER, "SELECT datname FROM pg_database ORDER BY 1")?;
        for name in names.iter().filter(|name| postgres::is_unfinished(name)) {
            self.ctx.ui.say(format!("removing what an unfinished restore left: {name}"));
            self.drop(name)?;
        }
        Ok(())
    }

    fn sweep_keys(&self) -> Result<()> {
        if self.redis.has_replaced()? {
            return Ok(());
        }
        self.redis.discard().context("empty Redis' scratch database")
    }

    /// Restores, and leaves what was replaced aside, for [`super::replaced::settle`]. The caller holds
    /// the project's lock, has asked, and has settled what an earlier restore left.
    ///
    /// # Errors
    /// Something cannot be loaded, or is not what the manifest says: then the old data serves as
    /// before. Or only one of the two moments of the swap came: the message says so, and running it
    /// again leads out.
    pub(crate) fn run(&self, catalogue: &Catalogue) -> Result<()> {
        self.sweep()?;
        let databases = self.databases()?;
        let suffix = self.backup.id().to_lowercase();
        let names: Vec<Names> =
            databases.iter().map(|d| Names::of(&d.name, &suffix)).collect::<Result<_>>()?;
        let loaded = self.load_all(&databases, &names);
        if let Err(error) = loaded {
            // Also after a Ctrl-C. Its own failure is told by the next sweep; the cause matters more.
            let calm = self.ctx.shielded();
            let _ = self.on(&calm).sweep();
            return Err(error.context("nothing was replaced, the old data serves as before"));
        }
        self.on(&self.ctx.shielded()).swap(catalogue, &names)
    }

    /// The same with another way to the world.
    fn on<'b>(&'b self, ctx: &'b Ctx) -> Restore<'b> {
        Restore {
            ctx,
            project: self.project,
            backup: self.backup,
            postgres: Postgres::own(ctx, self.postgres.container),
            redis: Redis { ctx, ..self.redis },
            parts: self.parts,
            comparison: self.comparison,
        }
    }

    fn load_all(&self, databases: &[&Database], names: &[Names]) -> Result<()> {
        both(|| self.load_rows(databases, names), || self.load_keys())?;
        self.ctx.check_interrupted()
    }

    fn load_rows(&self, databases: &[&Database], names: &[Names]) -> Result<()> {
        if self.parts.postgres {
            roles::load(&self.postgres, self.backup, true)?;
        }
        for (database, names) in databases.iter().zip(names) {
            self.load(database, &names.restored)?;
            if database.name == self.project.value("PG_DBNAME") {
                self.bring_up_to_date(&names.restored)?;
            }
        }
        Ok(())
    }

    fn load_keys(&self) -> Result<()> {
        if self.parts.redis {
            let step = self.ctx.ui.step("restore redis");
            self.redis.prepare()?;
            let loaded = self.redis.load(self.backup, &step)?;
            step.done(format!("{} keys, {} of them expired", loaded.keys, loaded.expired_after));
        }
        Ok(())
    }

    /// Makes a database of the name `into` from a saved one, and compares it with the manifest.
    fn load(&self, database: &Database, into: &str) -> Result<()> {
        let (server, backup) = (&self.postgres, self.backup);
        let load = Load { server, backup, database, name: into };
        let step = self.ctx.ui.step(format!("restore {}", database.name));
        load.run(&step)?;
        step.note("compare");
        // Both only read the rows.
        both(|| load.check(self.comparison, &step), || load.analyze())?;
        let rows = database.rows();
        step.done(match self.comparison {
            Comparison::Rows => format!("{rows} rows, each compared with the manifest"),
            Comparison::Counts => format!("{rows} rows, counted: this backup was verified"),
        });
        Ok(())
    }

    /// Rights that this stack's roles need, which may have other names than those of the backup; and
    /// the migrations that came after it, because the backend that runs expects them.
    fn bring_up_to_date(&self, database: &str) -> Result<()> {
        stack::roles::apply(self.ctx, self.postgres.container, database)
            .context("give the stack's roles their rights on what was restored")?;
        let step = self.ctx.ui.step("migrations since the backup");
        let name = format!("PG_DBNAME={database}");
        let words = ["--progress", "quiet", "run", "--rm", "--no-deps", "--no-TTY", "--env", &name];
        let migrate = self.project.compose().args(words).args(["backend", "migrate"]);
        self.ctx.run(migrate.limit(MIGRATE_LIMIT)).context(
            "apply the migrations that came after the backup. Where the backup is newer than the \
             backend, take the backend of its time: the manifest names the last migration",
        )?;
        step.done("");
        Ok(())
    }

    fn drop(&self, name: &str) -> Result<()> {
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quoted(name));
        self.postgres
            .query(BYSTANDER, &sql)
            .map(|_| ())
            .with_context(|| format!("drop the database {name}"))
    }

    /// Makes a copy of the stack's database under another name, and replaces nothing.
    ///
    /// # Errors
    /// There is such a database, or the copy cannot be made; what was made of it is gone.
    pub(crate) fn copy_into(&self, into: &str) -> Result<()> {
        let live = self.postgres.query(BYSTANDER, "SELECT datname FROM pg_database")?;
        ensure!(
            !live.iter().any(|name| name == into),
            "there is a database {into} already; take another name, or drop that one first: \
             `cargo xtask psql -- -c 'drop database {into}'`"
        );
        let saved = &self.backup.manifest.postgres.databases;
        let wanted = self.project.value("PG_DBNAME");
        let named = saved.iter().find(|database| database.name == wanted);
        let only = saved.iter().find(|database| database.name != MAINTENANCE);
        let database = named.or(only).context("the backup has no database")?;
        roles::load(&self.postgres, self.backup, true)?;
        let copied = self.load(database, into);
        if copied.is_err() {
            let calm = self.ctx.shielded();
            let _ = self.on(&calm).drop(into);
        }
        copied
    }
}
