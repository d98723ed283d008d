//! The moment in which databases change their names: the statements of it. Pure.

use anyhow::{Result, ensure};

use super::postgres::{BEFORE, RESTORED};

/// PostgreSQL's limit for a name, in bytes; a longer one would be cut without a word.
const LONGEST_NAME: usize = 63;

/// The names of a database on its way.
pub(super) struct Names {
    pub(super) live: String,
    pub(super) restored: String,
    pub(super) before: String,
}

impl Names {
    pub(super) fn of(live: &str, suffix: &str) -> Result<Names> {
        let name = |mark: &str| format!("{live}{mark}{suffix}");
        let names = Names { live: live.to_owned(), restored: name(RESTORED), before: name(BEFORE) };
        ensure!(
            names.restored.len() <= LONGEST_NAME,
            "the database's name {live} is too long: beside it there has to be {}, and PostgreSQL \
             takes {LONGEST_NAME} bytes",
            names.restored
        );
        Ok(names)
    }
}

/// One transaction: every database or none gets its new name.
pub(super) fn swap_script(names: &[Names], live: &[String]) -> String {
    let mut script = String::from("BEGIN;\n");
    let there = names.iter().filter(|names| live.contains(&names.live));
    let list: Vec<String> =
        names.iter().flat_map(|n| [literal(&n.live), literal(&n.restored)]).collect();
    script.push_str(&format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname IN ({});\n",
        list.join(", ")
    ));
    let mut rename = |from: &str, to: &str| {
        script.push_str(&format!("ALTER DATABASE {} RENAME TO {};\n", quoted(from), quoted(to)));
    };
    for names in there {
        rename(&names.live, &names.before);
    }
    for names in names {
        rename(&names.restored, &names.live);
    }
    script.push_str("COMMIT;\n");
    script
}

/// A text as SQL has it.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A name as SQL has it.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_names_change_in_one_transaction() {
        let names = [Names::of("app", "20261124t131502z").unwrap()];
        let script = swap_script(&names, &["app".to_owned()]);
        let expected = "BEGIN;\n\
            SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname IN \
            ('app', 'app_restore_20261124t131502z');\n\
            ALTER DATABASE \"app\" RENAME TO \"app_before_20261124t131502z\";\n\
            ALTER DATABASE \"app_restore_20261124t131502z\" RENAME TO \"app\";\n\
            COMMIT;\n";
        assert_eq!(script, expected);
        // On a server that lost its database there is nothing to put aside.
        assert!(!swap_script(&names, &[]).contains("_before_"));
    }

    #[test]
    fn a_name_that_would_be_cut_is_refused() {
        assert!(Names::of(&"a".repeat(45), "20261124t131502z").is_err());
    }
}
