//! What PostgreSQL says of a database and of the tables in it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::postgres::{DUMP_LIMIT, Postgres};
use super::swap::literal;
use crate::ctx::Talk;

/// What the catalogue of a database says of it.
#[derive(Deserialize)]
pub(super) struct Facts {
    pub(super) owner: String,
    pub(super) encoding: String,
    pub(super) collate: String,
    pub(super) ctype: String,
    pub(super) icu_locale: Option<String>,
    pub(super) settings: Vec<String>,
    pub(super) extensions: Vec<String>,
    pub(super) migration: Option<String>,
    pub(super) disk_bytes: u64,
}

/// What a table of a dump is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Its rows are its own.
    Plain,
    /// Its rows are those of its partitions. A dump names them after it only where the order of their keys
    /// may be another in another database.
    Partitioned,
    /// An extension has made it, and may have filled it: the dump has what came to that.
    OfExtension,
}

/// Everything about the database that its dump does not bring along under another name, as JSON.
/// The rights of a database, which PostgreSQL keeps beside it, become the statements that grant them. Its
/// locale of ICU is in a column that PostgreSQL 17 calls otherwise.
const FACTS: &str = "\
SELECT json_build_object(
  'owner', pg_get_userbyid(datdba), 'encoding', pg_encoding_to_char(encoding),
  'collate', datcollate, 'ctype', datctype,
  'icu_locale', CASE datlocprovider WHEN 'i' THEN
     coalesce(to_jsonb(db) ->> 'daticulocale', to_jsonb(db) ->> 'datlocale') END,
  'disk_bytes', pg_database_size(oid),
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
     SELECT format('ALTER DATABASE :\"database\" CONNECTION LIMIT %s', datconnlimit) WHERE datconnlimit >= 0
     UNION ALL
     SELECT format('COMMENT ON DATABASE :\"database\" IS %L', comment)
     FROM shobj_description(oid, 'pg_database') AS comment WHERE comment IS NOT NULL
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

/// Other programs have a table of that name, too, with other columns.
const HAS_MIGRATIONS: &str = "SELECT (SELECT count(*) = 2 FROM pg_attribute \
    WHERE attrelid = to_regclass('public.schema_migrations') AND attname IN ('version', 'name'))";
/// Only where the table is there: the maintenance database has none.
const MIGRATION: &str = "(SELECT lpad(version::text, 4, '0') || ' ' || name FROM public.schema_migrations \
      ORDER BY version DESC LIMIT 1)";

impl Facts {
    /// Asks in a session on the database.
    ///
    /// # Errors
    /// The server refuses it.
    pub(super) fn ask(session: &mut Talk) -> Result<Facts> {
        let has_migrations = session.ask(&format!("{HAS_MIGRATIONS};"))? == "t";
        let migration = if has_migrations { MIGRATION } else { "NULL" };
        let question = FACTS.replace("MIGRATION", migration).replace('\n', " ");
        serde_json::from_str(&session.ask(&question)?).context("read what it says")
    }
}

impl Postgres<'_> {
    /// What these tables are, which are named as a dump names them.
    ///
    /// # Errors
    /// The server refuses it, a table that is not there included.
    pub(crate) fn kinds<'t>(
        &self,
        database: &str,
        tables: impl Iterator<Item = &'t String> + Clone,
    ) -> Result<BTreeMap<String, Kind>> {
        let ask = |table: &String| {
            format!(
                "SELECT CASE WHEN EXISTS (SELECT FROM pg_depend WHERE deptype = 'e' AND \
                 classid = 'pg_class'::regclass AND objid = pg_class.oid) THEN 'extension' \
                 ELSE relkind::text END FROM pg_class WHERE oid = {}::regclass;\n",
                literal(table)
            )
        };
        let said = self.query(database, &tables.clone().map(ask).collect::<String>())?;
        ensure!(said.len() == tables.clone().count(), "look at the tables of {database}: {said:?}");
        let kind = |word: &String| match word.as_str() {
            "extension" => Kind::OfExtension,
            "p" => Kind::Partitioned,
            _ => Kind::Plain,
        };
        Ok(tables.cloned().zip(said.iter().map(kind)).collect())
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
        let mut kinds = self.kinds(database, tables)?;
        kinds.retain(|_, kind| *kind != Kind::OfExtension);
        let named: Vec<String> = kinds.keys().map(|table| literal(table)).collect();
        let count = |(table, kind): (&String, &Kind)| match kind {
            // Of its partitions, those that the dump has under names of their own are counted there.
            Kind::Partitioned => format!(
                "SELECT count(*) FROM {table} WHERE tableoid <> ALL (ARRAY[{}]::regclass[]);\n",
                named.join(", ")
            ),
            _ => format!("SELECT count(*) FROM ONLY {table};\n"),
        };
        // As long as it takes to read the largest of them.
        let said = self.ask(database, &kinds.iter().map(count).collect::<String>(), DUMP_LIMIT)?;
        ensure!(said.len() == kinds.len(), "count the rows of {database}: {said:?}");
        let read = |line: &String| line.parse().with_context(|| format!("read {line:?}"));
        kinds.into_keys().zip(&said).map(|(table, line)| Ok((table, read(line)?))).collect()
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
}
