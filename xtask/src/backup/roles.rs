//! The roles of a backup: which of their statements a server needs.

use std::fs::File;
use std::io::Read;

use anyhow::{Context, Result};
use archive::file;

use super::catalogue::Backup;
use super::postgres::Postgres;

/// Makes the roles of a backup that the server does not have, with the attributes, settings and
/// memberships that were saved; unless only those are wanted, every other role gets its own, too.
/// Passwords stay as they are; a new role has none.
///
/// # Errors
/// The server refuses a statement.
pub(crate) fn load(server: &Postgres, backup: &Backup, only_missing: bool) -> Result<()> {
    let path = backup.path(&backup.manifest.postgres.roles_file);
    let opened = File::open(&path).with_context(|| format!("open {}", path.display()))?;
    let mut text = String::new();
    file::decompressor(opened)?.read_to_string(&mut text).context("read the saved roles")?;
    let existing = server.query("postgres", "SELECT quote_ident(rolname) FROM pg_roles")?;
    let script = roles_script(&text, &existing, only_missing);
    if script.trim().is_empty() {
        return Ok(());
    }
    server.query("postgres", &script).map(|_| ()).context("restore the roles")
}

/// The statements of `pg_dumpall --roles-only` that a server with these roles can run.
fn roles_script(dump: &str, existing: &[String], only_missing: bool) -> String {
    let is_new = |name: &str| !existing.iter().any(|known| known == name);
    let is_kept = |line: &&str| match line.strip_prefix("CREATE ROLE ") {
        Some(name) => is_new(name.trim_end_matches(';')),
        None if line.starts_with('\\') => false,
        None => !only_missing || roles_of(line).into_iter().any(is_new),
    };
    let kept: Vec<&str> = dump.lines().filter(is_kept).collect();
    kept.join("\n") + "\n"
}

/// The roles that a statement is about: `ALTER ROLE name …`, `GRANT group TO member …`.
fn roles_of(line: &str) -> Vec<&str> {
    let word = |text: &'static str| {
        let rest = line.strip_prefix(text)?;
        identifier(rest)
    };
    let member = line.split_once(" TO ").and_then(|(_, rest)| identifier(rest));
    match (word("ALTER ROLE "), word("GRANT ")) {
        (Some(role), _) => vec![role],
        (_, Some(group)) => [Some(group), member].into_iter().flatten().collect(),
        _ => Vec::new(),
    }
}

/// The identifier at the beginning of a text, with its quotes where it has some.
fn identifier(text: &str) -> Option<&str> {
    let mut is_quoted = false;
    let end = text.find(|c: char| {
        is_quoted ^= c == '"';
        !is_quoted && (c == ' ' || c == ';')
    });
    text.get(..end?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_that_are_there_are_not_made_again() {
        let dump = "\\restrict x\nCREATE ROLE app;\nALTER ROLE app WITH LOGIN;\n\
            CREATE ROLE \"odd name\";\nALTER ROLE \"odd name\" WITH LOGIN;\n\
            GRANT pg_read_all_data TO app GRANTED BY postgres;\n\
            GRANT app TO \"odd name\" GRANTED BY postgres;\n";
        let existing = ["app".to_owned(), "pg_read_all_data".to_owned()];
        let all = roles_script(dump, &existing, false);
        let kept: Vec<&str> = dump.lines().skip(2).collect();
        assert_eq!(all.lines().collect::<Vec<_>>(), kept);
        let missing = "CREATE ROLE \"odd name\";\nALTER ROLE \"odd name\" WITH LOGIN;\n\
            GRANT app TO \"odd name\" GRANTED BY postgres;\n";
        assert_eq!(roles_script(dump, &existing, true), missing);
    }
}
