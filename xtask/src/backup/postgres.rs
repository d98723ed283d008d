//! PostgreSQL's side of a backup: roles, and each database as it is in one snapshot.
//!
//! A session of the role `backup` opens a transaction and exports its snapshot; two `pg_dump` read
//! in it, one everything but rows, one the rows. What the manifest says of tables was counted in
//! the very bytes that were saved, so it cannot belong to another moment.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Error, Result, ensure};
use archive::copy::{self, Contents, Nowhere, Scanner};

use super::both;
use super::console::Console;
use super::facts::Facts;
use super::manifest::{self, Database, FileEntry};
use super::sink::{self, Meter, Rows, Sink, Target, drain};
use crate::ctx::{Ctx, Invocation, Pipe, Talk};
use crate::ui::Step;

/// How long a server may say nothing: a lock of a migration is waited for at most a minute.
const PATIENCE: Duration = Duration::from_secs(10 * 60);
/// A dump of everything.
pub(super) const DUMP_LIMIT: Duration = Duration::from_secs(24 * 60 * 60);
/// Reads everything and writes nothing; over the socket in the container only.
const READER: &str = "backup";
/// What PostgreSQL calls the sessions of a dump.
const DUMP: &str = "xtask-dump";
/// A database may have settings of its own for whoever connects; these sessions have to read all of it, as
/// long as that takes, and to fill one that is for reading only.
const READS: &str = "PGOPTIONS=-c statement_timeout=0";
const WRITES: &str =
    "PGOPTIONS=-c statement_timeout=0 -c lock_timeout=0 -c default_transaction_read_only=off";
/// Makes databases and gives them their names; over the socket in the container only.
pub(crate) const SUPERUSER: &str = "postgres";
/// Stands in the name of a database that is being restored, between its own and the backup's.
pub(crate) const RESTORED: &str = "_restore_";
/// Stands in the name of a database that a restore has put aside.
pub(crate) const BEFORE: &str = "_before_";

/// A server in a container.
pub(crate) struct Postgres<'a> {
    pub(crate) ctx: &'a Ctx,
    pub(crate) container: &'a str,
    /// The role that asks.
    role: &'a str,
    console: Console,
}

/// A dump of a database, in the folder of a backup.
pub(crate) struct Dumped {
    pub(crate) database: Database,
    pub(crate) files: Vec<(String, FileEntry)>,
}

/// As `pg_dump` does at its start, and held for both of them: nobody alters or drops a table between.
const LOCK: &str = "\
SELECT format('LOCK TABLE %s IN ACCESS SHARE MODE', string_agg(oid::regclass::text, ', '))
FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace NOT IN
  (SELECT oid FROM pg_namespace WHERE nspname LIKE 'pg\\_%' OR nspname = 'information_schema')
HAVING count(*) > 0 \\gexec";

impl<'a> Postgres<'a> {
    /// The live server, read with the role that cannot write.
    pub(crate) fn live(ctx: &'a Ctx, container: &'a str) -> Postgres<'a> {
        Postgres { ctx, container, role: READER, console: Console::default() }
    }

    /// A server to restore into, as the role that may do everything.
    pub(crate) fn own(ctx: &'a Ctx, container: &'a str) -> Postgres<'a> {
        Postgres { ctx, container, role: SUPERUSER, console: Console::default() }
    }

    /// A program in the container.
    pub(crate) fn inside(&self, program: &str) -> Invocation {
        self.inside_as("xtask", program)
    }

    fn inside_as(&self, name: &str, program: &str) -> Invocation {
        let options = if self.role == READER { READS } else { WRITES };
        let name = format!("PGAPPNAME={name}");
        let words =
            ["exec", "--interactive", "--env", options, "--env", &name, self.container, program];
        Invocation::new("docker").args(words)
    }

    /// psql, which stops at the first mistake, without the database that comes behind it.
    fn psql(&self, name: &str) -> Invocation {
        let words = ["-XAtq", "--set", "ON_ERROR_STOP=1", "--username", self.role, "--dbname"];
        self.inside_as(name, "psql").args(words)
    }

    /// What a query says, or several of them: row by row.
    ///
    /// # Errors
    /// The server refuses it.
    pub(crate) fn query(&self, database: &str, sql: &str) -> Result<Vec<String>> {
        self.ask(database, sql, PATIENCE)
    }

    pub(super) fn ask(&self, database: &str, sql: &str, patience: Duration) -> Result<Vec<String>> {
        self.console.ask(self.ctx, self.psql("xtask").limit(DUMP_LIMIT), database, sql, patience)
    }

    /// Such as 15.20.
    ///
    /// # Errors
    /// The server does not answer.
    pub(crate) fn version(&self) -> Result<String> {
        let said = self.query("postgres", "SHOW server_version")?;
        let said = said.into_iter().next().context("ask PostgreSQL for its version")?;
        Ok(said.split(' ').next().unwrap_or_default().to_owned())
    }

    /// The databases that are saved: all that one can connect to, but for templates and what a
    /// restore keeps beside them.
    ///
    /// # Errors
    /// The server does not answer.
    pub(crate) fn databases(&self) -> Result<Vec<String>> {
        let sql =
            "SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY 1";
        let mut names = self.query("postgres", sql)?;
        names.retain(|name| !is_ours(name));
        let is_plain =
            |name: &String| name.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c));
        if let Some(odd) = names.iter().find(|name| !is_plain(name)) {
            anyhow::bail!(
                "the database {odd:?} cannot be backed up: files are named after databases, so a \
                 name may have letters of ASCII, digits, - and _ only"
            );
        }
        Ok(names)
    }

    /// All roles but PostgreSQL's own.
    ///
    /// # Errors
    /// The server does not answer.
    pub(crate) fn roles(&self) -> Result<Vec<String>> {
        self.query("postgres", "SELECT rolname FROM pg_roles WHERE rolname !~ '^pg_' ORDER BY 1")
    }

    /// Saves the roles, without their passwords: those come from the secrets of wherever they are
    /// restored.
    ///
    /// # Errors
    /// The server or the disk fails.
    pub(crate) fn dump_roles(&self, sink: &mut Sink) -> Result<()> {
        let words = ["--roles-only", "--no-role-passwords", "--username", self.role];
        let command = self.inside("pg_dumpall").args(words).limit(DUMP_LIMIT);
        copy_output(self.ctx.pipe(command)?, |piece| sink.write_all(piece))
    }

    /// Saves a database, which is called `now`, under a name into files that `create` makes.
    ///
    /// # Errors
    /// The server or the disk fails; every program that failed is named.
    pub(crate) fn dump(
        &self,
        now: &str,
        name: &str,
        step: &Step,
        create: impl Fn(&str) -> Result<Target> + Sync,
    ) -> Result<Dumped> {
        let mut session =
            Talk::start(self.ctx, self.psql(DUMP).arg(now).limit(DUMP_LIMIT), PATIENCE)?;
        match self.dump_in(&mut session, now, name, step, create) {
            Ok(dumped) => {
                session.finish().with_context(|| format!("keep the snapshot of {name}"))?;
                Ok(dumped)
            }
            // The server's own end is told by both; the first cause is the dump's.
            Err(error) => Err(session.explain(error)),
        }
    }

    fn dump_in(
        &self,
        session: &mut Talk,
        now: &str,
        name: &str,
        step: &Step,
        create: impl Fn(&str) -> Result<Target> + Sync,
    ) -> Result<Dumped> {
        let snapshot = session
            .ask("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT pg_export_snapshot();")?;
        session.ask(&format!("{LOCK}\nSELECT 'locked';"))?;
        let facts = Facts::ask(session)
            .with_context(|| format!("read the settings of the database {name}"))?;
        let (schema_file, data_file) = (format!("{name}.schema.zst"), format!("{name}.data.zst"));

        let at = format!("--snapshot={snapshot}");
        // In the same snapshot, so they need not wait for each other.
        let (schema, (data, contents)) = both(
            || {
                let schema = self.dump_schema(now, &at, create(&schema_file)?);
                schema.with_context(|| format!("save the schema of {name}"))
            },
            || {
                let rows = self.dump_rows(now, &at, create(&data_file)?, step);
                rows.map_err(explain_rights).with_context(|| format!("save the rows of {name}"))
            },
        )?;
        let database = Database {
            name: name.to_owned(),
            owner: facts.owner,
            encoding: facts.encoding,
            collate: facts.collate,
            ctype: facts.ctype,
            icu_locale: facts.icu_locale,
            settings: facts.settings,
            extensions: facts.extensions,
            migration: facts.migration,
            schema_file: schema_file.clone(),
            data_file: data_file.clone(),
            disk_bytes: Some(facts.disk_bytes),
            tables: manifest::tables(&contents),
        };
        Ok(Dumped { database, files: vec![(schema_file, schema), (data_file, data)] })
    }

    fn dump_schema(&self, database: &str, at: &str, to: Target) -> Result<FileEntry> {
        let words =
            ["--format=custom", "--compress=0", "--section=pre-data", "--section=post-data", at];
        let mut sink = Sink::new(to)?;
        copy_output(self.ctx.pipe(self.pg_dump(database).args(words))?, |piece| {
            sink.write_all(piece)
        })?;
        let schema = sink.finish()?;
        ensure!(schema.raw_bytes > 0, "pg_dump wrote nothing");
        Ok(schema)
    }

    fn dump_rows(
        &self,
        database: &str,
        at: &str,
        to: Target,
        step: &Step,
    ) -> Result<(FileEntry, Contents)> {
        let dump = self.pg_dump(database).args(["--section=data", at]);
        let (rows, contents) = self.scan(dump, Rows::new(to)?, step)?;
        Ok((sink::finish_rows(rows)?, contents))
    }

    /// What the tables of a database hold, counted in a dump that goes nowhere else.
    ///
    /// # Errors
    /// The server fails.
    pub(crate) fn contents(&self, database: &str, step: &Step) -> Result<Contents> {
        let command = self.pg_dump(database).arg("--section=data");
        let scanned = self.scan(command, Nowhere, step);
        Ok(scanned.with_context(|| format!("read the rows of {database}"))?.1)
    }

    fn pg_dump(&self, database: &str) -> Invocation {
        let words = ["--username", self.role, "--dbname", database];
        self.inside_as(DUMP, "pg_dump").args(words).limit(DUMP_LIMIT)
    }

    /// Ends the dumps that nobody listens to any more: a program that was started in a container goes on
    /// when whoever started it is killed, and would hold every table for as long as it reads. The caller
    /// holds the project's lock, so that there is no other dump.
    ///
    /// # Errors
    /// The server does not answer.
    pub(crate) fn end_dumps(&self) -> Result<()> {
        let sql = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE application_name = '{DUMP}' AND usename = current_user"
        );
        self.query("postgres", &sql)
            .map(|_| ())
            .context("end the dumps that an earlier command left")
    }

    /// Hands a dump's parts to `sink`: what they were.
    fn scan<S: copy::Sink>(&self, dump: Invocation, sink: S, step: &Step) -> Result<(S, Contents)> {
        let mut scanner = Scanner::new(sink);
        let mut meter = Meter::new(step);
        copy_output(self.ctx.pipe(dump)?, |piece| {
            meter.add(piece.len());
            scanner.feed(piece)
        })?;
        Ok(scanner.finish()?)
    }
}

/// A volume that is older than some right of the role `backup` has never heard of it.
fn explain_rights(error: Error) -> Error {
    let said = format!("{error:#}");
    let lacks = ["permission denied for", "row-level security policy"];
    if !lacks.iter().any(|words| said.contains(words)) {
        return error;
    }
    error.context(
        "the role `backup` may not read all of it; \
         `cargo xtask psql -- -U postgres -f - <deploy/postgres/roles.sql` gives it its rights",
    )
}

/// Whether a database is one that a restore has made or put aside.
pub(crate) fn is_ours(name: &str) -> bool {
    [RESTORED, BEFORE].iter().any(|mark| {
        name.rsplit_once(mark).is_some_and(|(_, id)| super::catalogue::is_id(&id.to_uppercase()))
    })
}

/// Whether a database is one that a restore was making.
pub(crate) fn is_unfinished(name: &str) -> bool {
    is_ours(name) && name.rfind(RESTORED) > name.rfind(BEFORE)
}

/// Hands all that a command writes to `on_piece`, and looks at how the command ended.
pub(super) fn copy_output(
    mut pipe: Pipe,
    on_piece: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> Result<()> {
    let output = pipe.output(PATIENCE)?;
    match drain(output, on_piece) {
        Ok(()) => pipe.finish(),
        Err(error) => Err(pipe.explain(Error::from(error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_restore_keeps_beside_the_live_data_is_known_by_its_name() {
        for (name, ours) in [
            ("app", false),
            ("app_restore_20261124t125502z", true),
            ("app_before_20261124t125502z", true),
            ("notes_before_2026", false),
        ] {
            assert_eq!(is_ours(name), ours, "{name}");
        }
    }
}
