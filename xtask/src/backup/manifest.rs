//! What a backup says of itself, and the sums that prove it. Pure.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use archive::copy::Contents;
use serde::{Deserialize, Serialize};

/// The number of this form. Fields may be added under the same number, nothing else.
pub(crate) const FORMAT: u32 = 1;
pub(crate) const MANIFEST: &str = "manifest.json";
/// In the form of `sha256sum`: `sha256sum --check SHA256SUMS` checks a backup without this program.
pub(crate) const SUMS: &str = "SHA256SUMS";
/// The result of the last drill; written beside a backup that is whole already.
pub(crate) const VERIFICATION: &str = "verification.json";
/// Why most backups are taken: a person, or the timer, wanted one.
pub(crate) const ASKED_FOR: &str = "asked for";
/// Why one is taken of what a restore that was interrupted had put aside.
pub(crate) const UNFINISHED: &str = "replaced by an unfinished restore";
const BEFORE: &str = "before the restore of ";

/// Why one is taken of what the restore of `id` has replaced.
pub(crate) fn before_restore(id: &str) -> String {
    format!("{BEFORE}{id}")
}

/// `manifest.json`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Manifest {
    pub(crate) format: u32,
    /// The folder's name: when the backup began, in UTC.
    pub(crate) id: String,
    pub(crate) project: String,
    /// Why it was taken, for people.
    pub(crate) reason: String,
    /// RFC 3339.
    pub(crate) started_at: String,
    pub(crate) duration_ms: u64,
    /// The version of xtask.
    pub(crate) tool: String,
    pub(crate) postgres: Postgres,
    pub(crate) redis: Redis,
    /// The data, by file name.
    pub(crate) files: BTreeMap<String, FileEntry>,
}

/// A file of data.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct FileEntry {
    /// As it is stored.
    pub(crate) bytes: u64,
    /// Before it was compressed.
    pub(crate) raw_bytes: u64,
    pub(crate) sha256: String,
}

/// The server that the data comes from.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Server {
    /// Such as 15.20.
    pub(crate) version: String,
    /// The image's reference, and its id on the host that took the backup.
    pub(crate) image: String,
    pub(crate) image_id: String,
    /// The C library, musl or glibc, by which text was sorted: docs/images.md.
    pub(crate) flavour: String,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Postgres {
    #[serde(flatten)]
    pub(crate) server: Server,
    pub(crate) roles: Vec<String>,
    pub(crate) roles_file: String,
    pub(crate) databases: Vec<Database>,
}

/// One database, all of it as it was in one snapshot.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Database {
    pub(crate) name: String,
    pub(crate) owner: String,
    pub(crate) encoding: String,
    pub(crate) collate: String,
    pub(crate) ctype: String,
    /// Where ICU sorts its text, and not the C library; not in backups of before November 2026.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) icu_locale: Option<String>,
    /// Statements that give a new database this one's rights and settings. They name it
    /// `:"database"`, a variable of psql, because a restore makes it under another name first.
    pub(crate) settings: Vec<String>,
    /// Name and version, such as `plpgsql 1.0`.
    pub(crate) extensions: Vec<String>,
    /// The last migration that was applied, such as `0004 note_keys_unique`.
    pub(crate) migration: Option<String>,
    /// Everything but rows, in pg_dump's custom format.
    pub(crate) schema_file: String,
    /// Rows, sequences and large objects, as SQL.
    pub(crate) data_file: String,
    /// What it took on its server's disk, with its indexes; backups of before November 2026 have none.
    #[serde(default)]
    pub(crate) disk_bytes: Option<u64>,
    pub(crate) tables: BTreeMap<String, Table>,
}

impl Database {
    /// Rows of all its tables.
    pub(crate) fn rows(&self) -> u64 {
        let is_table = |(name, _): &(&String, &Table)| *name != archive::copy::STATEMENTS;
        self.tables.iter().filter(is_table).map(|(_, table)| table.rows).sum()
    }
}

/// What a table holds; `archive::copy` says how the digest is made.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct Table {
    pub(crate) rows: u64,
    pub(crate) digest: String,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(crate) struct Redis {
    #[serde(flatten)]
    pub(crate) server: Server,
    /// Keys of database 0, the one that this stack uses. Sessions are among them.
    pub(crate) keys: u64,
    /// Keys of other databases: they are in the file, and no restore brings them back.
    pub(crate) other_keys: u64,
    /// Bytes of memory that Redis used for all of it.
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) file: String,
}

impl Manifest {
    /// Whether it is what a restore has replaced. Most often that was to be got rid of, so who asks for the latest
    /// backup, in the same trouble again, does not mean this one.
    pub(crate) fn is_safety(&self) -> bool {
        self.reason.starts_with(BEFORE) || self.reason == UNFINISHED
    }

    /// The sum of the files, as stored.
    pub(crate) fn bytes(&self) -> u64 {
        self.files.values().map(|file| file.bytes).sum()
    }

    /// Rows of all tables.
    pub(crate) fn rows(&self) -> u64 {
        self.postgres.databases.iter().map(Database::rows).sum()
    }

    /// Reads it.
    ///
    /// # Errors
    /// It is no manifest, or one of a later form than this program knows.
    pub(crate) fn parse(text: &str) -> Result<Manifest> {
        #[derive(Deserialize)]
        struct Form {
            format: u32,
        }
        let form: Form = serde_json::from_str(text).context("read manifest.json")?;
        ensure!(
            form.format == FORMAT,
            "manifest.json has the form {}, and this xtask knows form {FORMAT} only; use the xtask \
             that took the backup, or a newer one",
            form.format
        );
        serde_json::from_str(text).context("read manifest.json")
    }
}

/// The manifest's form of what was counted.
pub(crate) fn tables(contents: &Contents) -> BTreeMap<String, Table> {
    let table = |content: &archive::copy::Content| Table {
        rows: content.rows,
        digest: format!("{:032x}", content.digest),
    };
    contents.iter().map(|(name, content)| (name.clone(), table(content))).collect()
}

/// What differs between the tables of a backup and those that were found, as findings.
pub(crate) fn compare_tables(
    database: &str,
    wanted: &BTreeMap<String, Table>,
    found: &BTreeMap<String, Table>,
) -> Vec<String> {
    let rows = found.iter().map(|(name, table)| (name.clone(), table.rows)).collect();
    let mut findings = compare_rows(database, wanted, &rows);
    let is_other = |(name, table): &(&String, &Table)| {
        found.get(*name).is_some_and(|f| f.rows == table.rows && f.digest != table.digest)
    };
    findings.extend(
        wanted.iter().filter(is_other).map(|(name, _)| {
            format!("{database}: the rows of {name} are not those that were saved")
        }),
    );
    findings
}

/// The same of how many rows the tables have.
pub(crate) fn compare_rows(
    database: &str,
    wanted: &BTreeMap<String, Table>,
    found: &BTreeMap<String, u64>,
) -> Vec<String> {
    let mut findings = Vec::new();
    for (name, table) in wanted {
        match found.get(name) {
            None => findings.push(format!("{database}: {name} is missing")),
            Some(rows) if *rows != table.rows => findings
                .push(format!("{database}: {name} has {rows} rows, and {} were saved", table.rows)),
            Some(_) => {}
        }
    }
    let is_new = |name: &&String| !wanted.contains_key(*name);
    findings.extend(
        found.keys().filter(is_new).map(|name| format!("{database}: {name} was not in the backup")),
    );
    findings
}

/// The text of SHA256SUMS.
pub(crate) fn render_sums(sums: &BTreeMap<String, String>) -> String {
    sums.iter().map(|(name, sum)| format!("{sum}  {name}\n")).collect()
}

/// Reads SHA256SUMS: file name to sum.
///
/// # Errors
/// A line is not of that form, a name is a path, or appears twice.
pub(crate) fn parse_sums(text: &str) -> Result<BTreeMap<String, String>> {
    let mut sums = BTreeMap::new();
    for line in text.lines() {
        let (sum, name) = line.split_once("  ").context("read SHA256SUMS: a line is no sum")?;
        let is_sum = sum.len() == 64 && sum.bytes().all(|b| b.is_ascii_hexdigit());
        let is_name = !name.is_empty() && !name.contains('/') && name != "..";
        ensure!(is_sum && is_name, "read SHA256SUMS: a line is no sum of a file");
        let before = sums.insert(name.to_owned(), sum.to_owned());
        ensure!(before.is_none(), "read SHA256SUMS: {name} is there twice");
    }
    ensure!(text.ends_with('\n'), "read SHA256SUMS: its end is missing");
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_read_as_they_are_written() {
        let sums = BTreeMap::from([("a".to_owned(), "0".repeat(64)), ("b".into(), "f".repeat(64))]);
        let text = render_sums(&sums);
        assert_eq!(parse_sums(&text).unwrap(), sums);
        for broken in [&text[..text.len() - 1], &text[1..], "", &text.replace("  a", "  ../a")] {
            assert!(parse_sums(broken).is_err(), "{broken:?}");
        }
    }

    #[test]
    fn every_kind_of_difference_is_found() {
        let table = |rows, digest: &str| Table { rows, digest: digest.to_owned() };
        let of = |tables: &[(&str, Table)]| {
            tables.iter().map(|(name, table)| ((*name).to_owned(), table.clone())).collect()
        };
        let wanted: BTreeMap<_, _> =
            of(&[("a", table(1, "x")), ("b", table(2, "y")), ("c", table(3, "z"))]);
        assert_eq!(compare_tables("app", &wanted, &wanted), Vec::<String>::new());
        let found = of(&[("a", table(2, "x")), ("b", table(2, "n")), ("d", table(0, "0"))]);
        let expected = [
            "app: a has 2 rows, and 1 were saved",
            "app: c is missing",
            "app: d was not in the backup",
            "app: the rows of b are not those that were saved",
        ];
        assert_eq!(compare_tables("app", &wanted, &found), expected);
    }

    #[test]
    fn a_manifest_of_another_form_is_refused_with_the_remedy() {
        let error = Manifest::parse("{\"format\": 2}").unwrap_err().to_string();
        assert!(error.contains("form 2"), "{error}");
        assert!(Manifest::parse("{}").is_err());
    }
}
