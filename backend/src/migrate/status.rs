//! `migrate status`: looks and writes nothing, neither a table nor a lock.

use std::fmt::Write as _;

use serde::Serialize;
use sqlx::Connection;
use time::format_description::well_known::Rfc3339;

use super::{
    MigrateError, during,
    files::Set,
    history::{Comparison, History},
};
use crate::{config::DatabaseConfig, db};

/// One file or one row of the history. The shape is read by scripts.
#[derive(Debug, Serialize)]
pub struct Line {
    /// The number of the file.
    pub version: i64,
    /// The file's name.
    pub file: String,
    /// `applied`, `pending`, `edited`, `missing`, `out-of-order` or `newer`.
    pub state: &'static str,
    /// When it was applied, as RFC 3339.
    pub applied_at: Option<String>,
    /// How long that took.
    pub duration_ms: Option<i64>,
}

/// The whole answer.
#[derive(Debug, Serialize)]
pub struct Status {
    /// Every file and every row, in order.
    pub migrations: Vec<Line>,
    /// How many files are to be applied.
    pub pending: usize,
    /// Whether a migration would run, or nothing is left to do.
    pub ok: bool,
    /// What stands against migrating; for a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problems: Option<String>,
}

/// Compares the files with the database.
pub async fn status(config: &DatabaseConfig, set: &Set) -> Result<Status, MigrateError> {
    // The server itself refuses to write: a promise that does not rest on this code.
    let settings = [("default_transaction_read_only", "on"), ("statement_timeout", "10s")];
    let mut connection = db::connect(config, "backend migrate status", &settings)
        .await
        .map_err(during("connecting to read the migrations' status"))?;
    let history = History::read(&mut connection).await?;
    let _ = connection.close().await;
    Ok(compare(&history, set))
}

fn compare(history: &History, set: &Set) -> Status {
    let comparison = history.compare(set);
    let mut migrations: Vec<Line> = history
        .iter()
        .map(|applied| Line {
            version: applied.version,
            file: applied.file(),
            state: state(&comparison, applied.version),
            applied_at: applied.applied_at.format(&Rfc3339).ok(),
            duration_ms: Some(applied.duration_ms),
        })
        .collect();
    migrations.extend(comparison.pending.iter().chain(&comparison.out_of_order).map(|file| Line {
        version: file.version,
        file: file.file.clone(),
        state: state(&comparison, file.version),
        applied_at: None,
        duration_ms: None,
    }));
    migrations.sort_by_key(|line| line.version);
    let problems = comparison.problems();
    Status { migrations, pending: comparison.pending.len(), ok: problems.is_none(), problems }
}

fn state(comparison: &Comparison<'_>, version: i64) -> &'static str {
    let prefix = format!("{version:04}_");
    let among = |files: &[String]| files.iter().any(|file| file.starts_with(&prefix));
    if comparison.pending.iter().any(|file| file.version == version) {
        "pending"
    } else if comparison.out_of_order.iter().any(|file| file.version == version) {
        "out-of-order"
    } else if comparison.edited.iter().any(|file| file.version == version) {
        "edited"
    } else if among(&comparison.missing) {
        "missing"
    } else if among(&comparison.newer) {
        "newer"
    } else {
        "applied"
    }
}

impl Status {
    /// For a person.
    pub fn table(&self) -> String {
        let width = self.migrations.iter().map(|line| line.file.len()).max().unwrap_or(4).max(4);
        let mut text = format!("{:<width$}  {:<12}  {:<20}  TOOK\n", "FILE", "STATE", "APPLIED AT");
        for line in &self.migrations {
            // To the second: fractions are in the JSON form.
            let at = line
                .applied_at
                .as_deref()
                .map_or("-".to_owned(), |at| format!("{}Z", at.get(..19).unwrap_or(at)));
            let took = line.duration_ms.map_or("-".to_owned(), |ms| format!("{ms} ms"));
            let _ = writeln!(text, "{:<width$}  {:<12}  {at:<20}  {took}", line.file, line.state);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_names_every_file_with_its_state() {
        let set = Set::parse([("0001_a.sql", "SELECT 1")]).unwrap();
        let status = compare(&History::empty(), &set);
        assert!(status.ok);
        assert_eq!(status.pending, 1);
        let expected = "FILE        STATE         APPLIED AT            TOOK\n\
                        0001_a.sql  pending       -                     -\n";
        assert_eq!(status.table(), expected);
    }
}
