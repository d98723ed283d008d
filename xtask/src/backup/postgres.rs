//! PostgreSQL's side of a backup: roles, and each database as it is in one snapshot.
//!
//! A session of the role `backup` opens a transaction and exports its snapshot; two `pg_dump` read
//! in it, one everything but rows, one the rows. What the manifest says of tables was counted in
//! the very bytes that were saved, so it cannot belong to another moment.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Error, Result, ensure};
use archive::copy::{self, Contents, Nowhere, Scanner};
use archive::file::Hashed;
use serde::Deserialize;

use super::both;
use super::console::Console;
use super::manifest::{self, Database, FileEntry};
use super::sink::{self, Meter, Rows, Sink, drain};
use super::swap::literal;
use crate::ctx::{Ctx, Invocation, Pipe, Talk};
use crate::ui::Step;

/// How long a server may say nothing: a lock of a migration is waited for at most a minute.
const PATIENCE: Duration = Duration::from_secs(10 * 60);
/// A dump of everything.
const DUMP_LIMIT: Duration = Duration::from_secs(24 * 60 * 60);
/// Reads everything and writes nothing; over the socket in the container only.
const READER: &str = "backup";
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

/// What the catalogue of a database says of it.
#[derive(Deserialize)]
struct Facts {
    owner: String,
    encoding: String,
    collate: String,
    ctype: String,
    settings: Vec<String>,
    extensions: Vec<String>,
    migration: Option<String>,
    disk_bytes: u64,
}

/// A dump of a database, in the folder of a backup.
pub(crate) struct Dumped {
    pub(crate) database: Database,
    pub(crate) files: Vec<(String, FileEntry)>,
}

/// Everything about the database that its dump does not bring along under another name, as JSON.
/// The rights of a database, which PostgreSQL keeps beside it, become the statements that grant them.
const FACTS: &str = "\
SELECT json_build_object(
  'owner', pg_get_userbyid(datdba), 'encoding', pg_encoding_to_char(encoding),
  'collate', datcollate, 'ctype', datctype, 'disk_bytes', pg_database_size(oid),
  'extensions', (SELECT coalesce(json_agg(extname || ' ' || extversion ORDER BY extname), '[]')
                 FROM pg_extension),
  'settings', (SELECT coalesce(json_agg(statement), '[]') FROM (
     SELECT 'REVOKE ALL ON DATABASE :\"database\" FROM PUBLIC' AS statement WHERE datacl IS NOT NULL
     UNION ALL
     SELECT format('GRANT %s ON DATABASE :\"database\" TO %s%s', privilege_type,
              CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END,
              CASE WHEN is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
     FROM aclexplode(datacl)
     UNION ALL
     SELECT format('ALTER %s SET %I TO %s',
              CASE setrole WHEN 0 THEN 'DATABASE :\"database\"'
              ELSE format('ROLE %I IN DATABASE :\"database\"', pg_get_userbyid(setrole)) END,
              split_part(setting, '=', 1),
              CASE WHEN split_part(setting, '=', 1) IN ('search_path', 'DateStyle')
              THEN substr(setting, strpos(setting, '=') + 1)
              ELSE quote_literal(substr(setting, strpos(setting, '=') + 1)) END)
     FROM pg_db_role_setting, unnest(setconfig) AS setting WHERE setdatabase = db.oid
  ) AS statements),
  'migration', MIGRATION)
FROM pg_database AS db WHERE datname = current_database();";

const HAS_MIGRATIONS: &str = "SELECT to_regclass('public.schema_migrations') IS NOT NULL";
/// Only where the table is there: the maintenance database has none.
const MIGRATION: &str = "(SELECT lpad(version::text, 4, '0') || ' ' || name FROM public.schema_migrations \
      ORDER BY version DESC LIMIT 1)";

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
        Invocation::new("docker").args(["exec", "--interactive", self.container, program])
    }

    /// psql, which stops at the first mistake, without the database that comes behind it.
    fn psql(&self) -> Invocation {
        let words = ["-XAtq", "--set", "ON_ERROR_STOP=1", "--username", self.role, "--dbname"];
        self.inside("psql").args(words)
    }

    /// What a query says, or several of them: row by row.
    ///
    /// # Errors
    /// The server refuses it.
    pub(crate) fn query(&self, database: &str, sql: &str) -> Result<Vec<String>> {
        self.ask(database, sql, PATIENCE)
    }

    fn ask(&self, database: &str, sql: &str, patience: Duration) -> Result<Vec<String>> {
        self.console.ask(self.ctx, self.psql().limit(DUMP_LIMIT), database, sql, patience)
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

    /// How many rows each of these tables has, which are named as a dump names them. Much cheaper than
    /// [`Postgres::contents`]: the server counts on several cores, and no row leaves it. Tables of an
    /// extension are left out: of those a dump has only what came to the extension's own rows.
    ///
    /// # Errors
    /// The server refuses it, a table that is not there included.
    pub(crate) fn counts<'t>(
        &self,
        database: &str,
        tables: impl Iterator<Item = &'t String> + Clone,
    ) -> Result<BTreeMap<String, u64>> {
        let count = |table: &String| {
            format!(
                "SELECT CASE WHEN NOT EXISTS (SELECT FROM pg_depend WHERE deptype = 'e' AND \
                 classid = 'pg_class'::regclass AND objid = {}::regclass) \
                 THEN (SELECT count(*) FROM ONLY {table}) END;\n",
                literal(table)
            )
        };
        // As long as it takes to read the largest of them.
        let script: String = tables.clone().map(count).collect();
        let said = self.ask(database, &script, DUMP_LIMIT)?;
        ensure!(said.len() == tables.clone().count(), "count the rows of {database}: {said:?}");
        let read = |line: &String| line.parse().with_context(|| format!("read {line:?}"));
        let counted = tables.zip(&said).filter(|(_, line)| !line.is_empty());
        counted.map(|(table, line)| Ok((table.clone(), read(line)?))).collect()
    }

    /// The last migration that was applied to a database, and its extensions with their versions.
    ///
    /// # Errors
    /// The server does not answer.
    pub(crate) fn head(&self, database: &str) -> Result<(Option<String>, Vec<String>)> {
        let sql = format!(
            "{HAS_MIGRATIONS} AS has_migrations \\gset\n\\if :has_migrations\n\
             SELECT coalesce({MIGRATION}, '');\n\\else\nSELECT '';\n\\endif\n\
             SELECT extname || ' ' || extversion FROM pg_extension ORDER BY extname;"
        );
        let mut said = self.query(database, &sql)?.into_iter();
        let migration = said.next().filter(|name| !name.is_empty());
        Ok((migration, said.collect()))
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
        create: impl Fn(&str) -> Result<Hashed<File>> + Sync,
    ) -> Result<Dumped> {
        let mut session = Talk::start(self.ctx, self.psql().arg(now).limit(DUMP_LIMIT), PATIENCE)?;
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
        create: impl Fn(&str) -> Result<Hashed<File>> + Sync,
    ) -> Result<Dumped> {
        let snapshot = session
            .ask("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SELECT pg_export_snapshot();")?;
        session.ask(&format!("{LOCK}\nSELECT 'locked';"))?;
        let has_migrations = session.ask(&format!("{HAS_MIGRATIONS};"))? == "t";
        let migration = if has_migrations { MIGRATION } else { "NULL" };
        let facts = FACTS.replace("MIGRATION", migration).replace('\n', " ");
        let facts: Facts = serde_json::from_str(&session.ask(&facts)?)
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
                rows.with_context(|| format!("save the rows of {name}"))
            },
        )?;
        let database = Database {
            name: name.to_owned(),
            owner: facts.owner,
            encoding: facts.encoding,
            collate: facts.collate,
            ctype: facts.ctype,
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

    fn dump_schema(&self, database: &str, at: &str, to: Hashed<File>) -> Result<FileEntry> {
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
        to: Hashed<File>,
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
        self.inside("pg_dump").args(words).limit(DUMP_LIMIT)
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
