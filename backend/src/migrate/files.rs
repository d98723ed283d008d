//! Migration files: their names, their order, their checksums, and the one directive there is.

use sha2::{Digest, Sha256};

use super::{MigrateError, sql};

/// The first line of a file that runs outside a transaction.
const NO_TRANSACTION: &str = "-- no-transaction";

static EMBEDDED: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/migrations.rs"));

/// One file.
#[derive(Clone, Debug)]
pub struct Migration {
    /// The number at the start of the name.
    pub version: i64,
    /// The rest of the name, without `.sql`.
    pub name: String,
    /// The file's name.
    pub file: String,
    /// What it holds, with LF as line end.
    pub sql: String,
    /// SHA-256 of `sql` in hexadecimal. Over LF, so that a checkout with CRLF is the same file.
    pub checksum: String,
    /// Whether the file and its row in the history are one transaction.
    pub transactional: bool,
}

/// Every file, in order.
#[derive(Clone, Debug)]
pub struct Set(Vec<Migration>);

impl Set {
    /// The files that were compiled into this program.
    pub fn embedded() -> Result<Self, MigrateError> {
        Self::parse(EMBEDDED.iter().copied())
    }

    /// Checks names, order and contents without a database; a unit test does it for the files
    /// that are embedded, so a bad file does not reach a server.
    pub fn parse<'a>(
        files: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, MigrateError> {
        let mut migrations: Vec<Migration> = files
            .into_iter()
            .map(|(file, text)| Migration::parse(file, text))
            .collect::<Result<_, _>>()?;
        migrations.sort_by_key(|migration| migration.version);
        for pair in migrations.windows(2) {
            if pair[0].version == pair[1].version {
                return Err(MigrateError::File(format!(
                    "migrations/{} and migrations/{} have the same number: give the one that no \
                     database has yet the next free number",
                    pair[0].file, pair[1].file
                )));
            }
        }
        Ok(Self(migrations))
    }

    /// In the order in which they are applied.
    pub fn iter(&self) -> std::slice::Iter<'_, Migration> {
        self.0.iter()
    }

    /// The file with this number.
    pub fn get(&self, version: i64) -> Option<&Migration> {
        self.0.iter().find(|migration| migration.version == version)
    }

    /// The highest number, or zero when there is no file.
    pub fn head(&self) -> i64 {
        self.0.last().map_or(0, |migration| migration.version)
    }
}

impl Migration {
    fn parse(file: &str, text: &str) -> Result<Self, MigrateError> {
        let (version, name) = split_name(file).ok_or_else(|| {
            MigrateError::File(format!(
                "migrations/{file} has not the form NNNN_name.sql (four digits or more, then \
                 lower-case letters, digits and `_`): rename it"
            ))
        })?;
        let sql = text.replace("\r\n", "\n");
        let transactional = sql.lines().next().map(str::trim_end) != Some(NO_TRANSACTION);
        check_statements(file, &sql, transactional)?;
        let checksum = hex::encode(Sha256::digest(sql.as_bytes()));
        Ok(Self { version, name, file: file.to_owned(), sql, checksum, transactional })
    }
}

fn split_name(file: &str) -> Option<(i64, String)> {
    let (number, name) = file.strip_suffix(".sql")?.split_once('_')?;
    let good_number = number.len() >= 4 && number.bytes().all(|byte| byte.is_ascii_digit());
    let good_name = !name.is_empty()
        && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
    let version = number.parse().ok()?;
    (good_number && good_name && version > 0).then(|| (version, name.to_owned()))
}

/// What would break the promise that a file is applied whole or not at all.
fn check_statements(file: &str, text: &str, transactional: bool) -> Result<(), MigrateError> {
    let statements = sql::statements(text);
    let refuse = |reason: String| Err(MigrateError::File(format!("migrations/{file} {reason}")));
    if statements.is_empty() {
        return refuse("holds no statement: delete it, or write one".to_owned());
    }
    if !transactional && statements.len() != 1 {
        return refuse(format!(
            "is marked `{NO_TRANSACTION}` and holds {} statements: PostgreSQL would run them in \
             one transaction after all. Give each a file of its own",
            statements.len()
        ));
    }
    if !transactional && sql::makes_a_nameless_index(text) {
        return refuse(
            "makes an index without a name: what a failed try left could not be told from others. \
             Name it"
                .to_owned(),
        );
    }
    for statement in statements {
        let word = statement.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
        let word = word.to_ascii_uppercase();
        if ["BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "PREPARE"].contains(&&*word) {
            return refuse(format!(
                "holds `{word}`: each file already is one transaction. Remove the statement"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(files: &[(&str, &str)]) -> String {
        Set::parse(files.iter().copied()).unwrap_err().to_string()
    }

    #[test]
    fn the_embedded_files_are_acceptable() {
        assert!(Set::embedded().unwrap().head() > 0);
    }

    #[test]
    fn files_are_ordered_by_number() {
        let set = Set::parse([("0010_b.sql", "SELECT 1"), ("0009_a.sql", "SELECT 1")]).unwrap();
        let versions: Vec<i64> = set.iter().map(|migration| migration.version).collect();
        assert_eq!(versions, [9, 10]);
    }

    #[test]
    fn line_ends_do_not_change_the_checksum_but_a_comment_does() {
        let checksum = |text| Set::parse([("0001_a.sql", text)]).unwrap().0[0].checksum.clone();
        assert_eq!(checksum("SELECT 1;\n-- x\n"), checksum("SELECT 1;\r\n-- x\r\n"));
        assert_ne!(checksum("SELECT 1;\n-- x\n"), checksum("SELECT 1;\n-- y\n"));
    }

    #[test]
    fn names_and_numbers_are_checked() {
        for file in ["1_a.sql", "0001.sql", "0001_A.sql", "0001_a.txt", "0000_a.sql", "x_a.sql"] {
            let message = error(&[(file, "SELECT 1")]);
            assert!(message.contains(file) && message.contains("NNNN_name.sql"), "{message}");
        }
        let message = error(&[("0001_a.sql", "SELECT 1"), ("00001_b.sql", "SELECT 1")]);
        assert!(message.contains("same number"), "{message}");
    }

    #[test]
    fn a_file_cannot_end_its_transaction() {
        assert!(error(&[("0001_a.sql", "CREATE TABLE t (); commit;")]).contains("`COMMIT`"));
        // Inside a function body it is no statement of the file.
        let body = "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$BEGIN END;$$;";
        assert!(Set::parse([("0001_a.sql", body)]).is_ok());
        let body = "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END;";
        assert!(Set::parse([("0001_a.sql", body)]).is_ok());
        assert!(error(&[("0001_a.sql", &format!("{body} END;"))]).contains("`END`"));
    }

    #[test]
    fn a_file_outside_a_transaction_holds_one_statement() {
        let one = "-- no-transaction\nCREATE INDEX CONCURRENTLY i ON t (c); -- done\n";
        assert!(!Set::parse([("0001_a.sql", one)]).unwrap().0[0].transactional);
        let body = "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END;";
        assert!(Set::parse([("0001_a.sql", &*format!("-- no-transaction\n{body}"))]).is_ok());
        let two = "-- no-transaction\nSELECT 1; SELECT 2;";
        assert!(error(&[("0001_a.sql", two)]).contains("holds 2 statements"));
        assert!(error(&[("0001_a.sql", "-- nothing\n")]).contains("holds no statement"));
    }
}
