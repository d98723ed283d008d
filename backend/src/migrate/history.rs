//! What the database says was applied, and how it compares with the files.

use std::{fmt::Write as _, time::Duration};

use sqlx::PgConnection;
use time::OffsetDateTime;

use super::{
    MigrateError, asked,
    files::{Migration, Set},
};

/// A row of `schema_migrations`.
#[derive(Clone, Debug)]
pub struct Applied {
    /// The number of the file.
    pub version: i64,
    /// The rest of its name.
    pub name: String,
    /// SHA-256 of what it held.
    pub checksum: String,
    /// When it was applied.
    pub applied_at: OffsetDateTime,
    /// How long that took.
    pub duration_ms: i64,
}

impl Applied {
    /// The file's name, told from the row.
    pub fn file(&self) -> String {
        format!("{:04}_{}.sql", self.version, self.name)
    }
}

/// Everything that was applied, in order.
#[derive(Debug)]
pub struct History(Vec<Applied>);

/// The files against the history.
#[derive(Debug, Default)]
pub struct Comparison<'a> {
    /// Files to apply, in order.
    pub pending: Vec<&'a Migration>,
    /// Files whose contents or name changed after they were applied.
    pub edited: Vec<&'a Migration>,
    /// Applied files that are gone, with a later file still there.
    pub missing: Vec<String>,
    /// Files that came after a later one was applied.
    pub out_of_order: Vec<&'a Migration>,
    /// Applied files beyond the last one here: the schema is newer than this program.
    pub newer: Vec<String>,
}

/// Takes from everybody but the owner what roles.sql lets the application do with every table of the owner: whoever
/// can write here can have a migration left out, or applied again. `/readyz` reads it.
const ONLY_THE_OWNER_WRITES: &str = "
    DO $$
    DECLARE writer text;
    BEGIN
        FOR writer IN
            SELECT DISTINCT CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END
            FROM pg_class, aclexplode(relacl)
            WHERE oid = 'schema_migrations'::regclass
                AND grantee <> relowner AND privilege_type <> 'SELECT'
        LOOP
            EXECUTE 'REVOKE INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER
                     ON schema_migrations FROM ' || writer;
        END LOOP;
    END $$";

/// Makes the table of the history, for the owner alone to write. Called under the lock, which is what makes it safe.
pub(super) async fn prepare_table(connection: &mut PgConnection) -> Result<(), MigrateError> {
    // Asked first: `IF NOT EXISTS` writes a notice to the log of the server at every start.
    if !exists(connection).await? {
        create_table(connection).await?;
    }
    let keep = sqlx::raw_sql(ONLY_THE_OWNER_WRITES).execute(connection);
    asked("keeping schema_migrations to its owner", keep).await?;
    Ok(())
}

async fn create_table(connection: &mut PgConnection) -> Result<(), MigrateError> {
    let create = sqlx::raw_sql(
        "CREATE TABLE schema_migrations (
             version     bigint      PRIMARY KEY,
             name        text        NOT NULL,
             checksum    text        NOT NULL,
             applied_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
             duration_ms bigint      NOT NULL
         )",
    )
    .execute(connection);
    asked("creating schema_migrations", create).await?;
    Ok(())
}

async fn exists(connection: &mut PgConnection) -> Result<bool, MigrateError> {
    let exists = sqlx::query_scalar("SELECT to_regclass('schema_migrations') IS NOT NULL");
    asked("looking for schema_migrations", exists.fetch_one(connection)).await
}

/// Notes that a file was applied.
pub(super) async fn record(
    connection: &mut PgConnection,
    migration: &Migration,
    took: Duration,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO schema_migrations (version, name, checksum, duration_ms)
         VALUES ($1, $2, $3, $4)",
    )
    // A file may take what was prepared (`DISCARD ALL`).
    .persistent(false)
    .bind(migration.version)
    .bind(&migration.name)
    .bind(&migration.checksum)
    .bind(i64::try_from(took.as_millis()).unwrap_or(i64::MAX))
    .execute(connection)
    .await?;
    Ok(())
}

impl History {
    /// The history of a database that nothing was applied to.
    pub fn empty() -> Self {
        Self(Vec::new())
    }

    /// Reads the table and writes nothing; a database without it has an empty history.
    pub async fn read(connection: &mut PgConnection) -> Result<Self, MigrateError> {
        if !exists(connection).await? {
            return Ok(Self::empty());
        }
        let rows = sqlx::query_as(
            "SELECT version, name, checksum, applied_at, duration_ms
             FROM schema_migrations ORDER BY version",
        )
        .fetch_all(connection);
        let rows: Vec<(i64, String, String, OffsetDateTime, i64)> =
            asked("reading schema_migrations", rows).await?;
        let applied = rows.into_iter().map(|(version, name, checksum, applied_at, duration_ms)| {
            Applied { version, name, checksum, applied_at, duration_ms }
        });
        Ok(Self(applied.collect()))
    }

    /// How many files were applied.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none was.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In order.
    pub fn iter(&self) -> std::slice::Iter<'_, Applied> {
        self.0.iter()
    }

    /// Sorts every file and every row into what has to be done about it.
    pub fn compare<'a>(&self, set: &'a Set) -> Comparison<'a> {
        let mut comparison = Comparison::default();
        let last_applied = self.0.last().map_or(0, |applied| applied.version);
        for applied in &self.0 {
            match set.get(applied.version) {
                Some(file) if file.checksum == applied.checksum && file.name == applied.name => {}
                Some(file) => comparison.edited.push(file),
                None if applied.version > set.head() => comparison.newer.push(applied.file()),
                None => comparison.missing.push(applied.file()),
            }
        }
        for file in set.iter() {
            if self.0.iter().any(|applied| applied.version == file.version) {
                continue;
            }
            if file.version < last_applied {
                comparison.out_of_order.push(file);
            } else {
                comparison.pending.push(file);
            }
        }
        comparison
    }
}

impl Comparison<'_> {
    /// Whether the database has every file as it is here.
    pub fn is_current(&self) -> bool {
        self.pending.is_empty() && self.problems().is_none()
    }

    /// What stands against migrating, one line per file, with the remedy.
    pub fn problems(&self) -> Option<String> {
        let mut text = String::new();
        for file in &self.edited {
            let _ = write!(
                text,
                "\n  - migrations/{} is not what was applied. Undo the edit (`git log -p -- \
                 backend/migrations/{0}`) and put the change into a new file",
                file.file
            );
        }
        for file in &self.missing {
            let _ = write!(
                text,
                "\n  - migrations/{file} was applied and is gone. Put the file back; to undo what \
                 it did, write a new one"
            );
        }
        for file in &self.out_of_order {
            let _ = write!(
                text,
                "\n  - migrations/{} comes before one that was applied already. Give it the next \
                 free number",
                file.file
            );
        }
        (!text.is_empty()).then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: (&str, &str) = ("0001_a.sql", "SELECT 1");
    const B: (&str, &str) = ("0002_b.sql", "SELECT 2");
    const C: (&str, &str) = ("0003_c.sql", "SELECT 3");

    fn set(files: &[(&str, &str)]) -> Set {
        Set::parse(files.iter().copied()).unwrap()
    }

    fn applied(files: &[(&str, &str)]) -> History {
        let row = |file: &Migration| Applied {
            version: file.version,
            name: file.name.clone(),
            checksum: file.checksum.clone(),
            applied_at: OffsetDateTime::UNIX_EPOCH,
            duration_ms: 0,
        };
        History(set(files).iter().map(row).collect())
    }

    fn problems(history: &History, files: &[(&str, &str)]) -> String {
        history.compare(&set(files)).problems().unwrap_or_default()
    }

    #[test]
    fn new_files_are_pending_in_order() {
        let files = set(&[C, A, B]);
        let comparison = applied(&[A]).compare(&files).pending;
        let names: Vec<_> = comparison.iter().map(|file| file.file.as_str()).collect();
        assert_eq!(names, ["0002_b.sql", "0003_c.sql"]);
    }

    #[test]
    fn an_edited_or_renamed_file_is_named() {
        let text = problems(&applied(&[A, B]), &[A, ("0002_b.sql", "SELECT 22")]);
        assert!(text.contains("0002_b.sql is not what was applied"), "{text}");
        let text = problems(&applied(&[A, B]), &[A, ("0002_other.sql", "SELECT 2")]);
        assert!(text.contains("0002_other.sql is not what was applied"), "{text}");
    }

    #[test]
    fn a_gap_is_an_error_and_a_newer_schema_is_not() {
        let text = problems(&applied(&[A, B, C]), &[A, C]);
        assert!(text.contains("0002_b.sql was applied and is gone"), "{text}");

        let files = set(&[A, B]);
        let history = applied(&[A, B, C]);
        let comparison = history.compare(&files);
        assert!(comparison.is_current());
        assert_eq!(comparison.newer, ["0003_c.sql"]);
    }

    #[test]
    fn a_file_that_comes_too_late_is_out_of_order() {
        let text = problems(&applied(&[A, C]), &[A, B, C]);
        assert!(text.contains("0002_b.sql comes before"), "{text}");
    }
}
