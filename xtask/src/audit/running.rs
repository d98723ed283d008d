//! The items that only a running stack can answer: what is left to its processes, and what PostgreSQL
//! and Redis say of themselves.

use super::files::any;
use super::{Item, OfAnswer};

const fn asked(
    id: &'static str,
    title: &'static str,
    source: &'static str,
    question: &'static str,
    check: OfAnswer,
) -> Item {
    Item { id, title, source, files: None, running: None, answer: Some((question, check)) }
}

/// What is asked, by name: the first word is the service, the rest goes to `psql` (as the superuser,
/// over the socket) or `redis-cli` (as the user `admin`). `:'app'` is the name of the application's role.
pub(crate) const QUESTIONS: [(&str, &str); 9] = [
    ("postgres checksums", "SHOW data_checksums"),
    ("postgres encryption", "SHOW password_encryption"),
    (
        "postgres durability",
        "SELECT string_agg(name || '=' || setting, ' ') FROM pg_settings \
         WHERE name IN ('fsync', 'full_page_writes', 'synchronous_commit') AND setting <> 'on' \
         UNION ALL SELECT array_to_string(setconfig, ' ') FROM pg_db_role_setting \
         WHERE array_to_string(setconfig, ' ') ~ 'synchronous_commit=(?!on\\M)'",
    ),
    (
        "postgres access",
        "SELECT string_agg(type || ' ' || array_to_string(user_name, ',') || ' ' || auth_method, '; ') \
         FROM pg_hba_file_rules WHERE error IS NOT NULL OR \
         NOT (type = 'local' AND auth_method = 'peer' OR auth_method IN ('scram-sha-256', 'reject'))",
    ),
    (
        "postgres superusers",
        "SELECT string_agg(rolname, ', ') FROM pg_authid \
         WHERE rolsuper AND (rolname <> 'postgres' OR rolpassword IS NOT NULL)",
    ),
    (
        "postgres passwords",
        "SELECT string_agg(rolname, ', ') FROM pg_authid WHERE rolpassword NOT LIKE 'SCRAM-SHA-256$%'",
    ),
    (
        "postgres application",
        "SELECT string_agg(what, ', ') FROM ( \
         SELECT 'may create in ' || nspname FROM pg_namespace \
         WHERE has_schema_privilege(:'app', oid, 'CREATE') \
         UNION ALL SELECT 'owns ' || relname FROM pg_class WHERE relowner = (SELECT oid FROM pg_roles WHERE rolname = :'app') \
         UNION ALL SELECT 'is more than a role for rows' FROM pg_roles WHERE rolname = :'app' \
         AND (rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls) \
         UNION ALL SELECT 'is a member of ' || roleid::regrole FROM pg_auth_members \
         WHERE member = (SELECT oid FROM pg_roles WHERE rolname = :'app')) AS rights(what)",
    ),
    ("redis users", "ACL LIST"),
    ("redis settings", "CONFIG GET appendonly maxmemory-policy maxmemory"),
];

pub(super) const ITEMS: &[Item] = &[
    Item {
        id: "CAP-1",
        title: "no process could ever have a capability",
        source: "capabilities(7): the bounding set",
        files: None,
        running: Some(|_, c| {
            let left = any(c, "CapBnd:", |set| !set.trim_matches('0').is_empty());
            left.then(|| "the bounding set is not empty".to_owned())
        }),
        answer: None,
    },
    asked(
        "PG-1",
        "damaged pages are noticed",
        "PostgreSQL 15 manual, initdb --data-checksums",
        "postgres checksums",
        |answer| expect(answer, "on"),
    ),
    asked(
        "PG-2",
        "new passwords are stored as SCRAM",
        "PostgreSQL 15 manual, 20.3.2 (authentication)",
        "postgres encryption",
        |answer| expect(answer, "scram-sha-256"),
    ),
    asked(
        "PG-3",
        "an answered COMMIT is on the disk",
        "PostgreSQL 15 manual, 20.5 (write-ahead log)",
        "postgres durability",
        none,
    ),
    asked(
        "PG-4",
        "nobody gets in without SCRAM over the network",
        "PostgreSQL 15 manual, 21.1 (pg_hba.conf)",
        "postgres access",
        none,
    ),
    asked(
        "PG-5",
        "one superuser, without a password",
        "PostgreSQL 15 manual, 22.2 (role attributes)",
        "postgres superusers",
        none,
    ),
    asked(
        "PG-6",
        "no password is stored in an older form",
        "PostgreSQL 15 manual, pg_authid",
        "postgres passwords",
        none,
    ),
    asked(
        "PG-7",
        "the application reads and writes rows, no more",
        "PostgreSQL 15 manual, 5.7 (privileges)",
        "postgres application",
        none,
    ),
    asked("RD-1", "Redis' default user is off", "Redis manual, ACL", "redis users", |answer| {
        let off = answer.lines().any(|line| line.starts_with("user default off "));
        (!off).then(|| "anybody may be `default`".to_owned())
    }),
    asked(
        "RD-2",
        "the backend has its own keys and commands only",
        "Redis manual, ACL",
        "redis users",
        |answer| {
            let line = answer.lines().find(|line| line.starts_with("user backend "));
            more_than_granted(line.unwrap_or("nobody"), BACKEND_ACL)
        },
    ),
    asked(
        "RD-3",
        "only users with a password, but for the health check",
        "Redis manual, ACL",
        "redis users",
        |answer| {
            let open = answer.lines().filter(|line| line.contains(" nopass "));
            let open: Vec<&str> = open.filter(|line| !is_health_user(line)).collect();
            (!open.is_empty()).then(|| open.join("; "))
        },
    ),
    asked(
        "RD-4",
        "Redis forgets nothing by itself",
        "Redis manual, Persistence and Key eviction",
        "redis settings",
        |answer| {
            let words: Vec<&str> = answer.split_whitespace().collect();
            let is = |name: &str, value: &str| words.windows(2).any(|pair| pair == [name, value]);
            let kept = is("appendonly", "yes") && is("maxmemory-policy", "noeviction");
            (!kept || is("maxmemory", "0")).then(|| words.join(" "))
        },
    ),
];

/// What the backend's user is given, compiled in: the file that is mounted is what is in doubt.
const BACKEND_ACL: &str = include_str!("../../../deploy/redis/backend.acl");

/// What a line of `ACL LIST` allows beyond the rules of a file, one a word. Redis tells commands in lower case
/// and keys with `~`, `%R~` or `%W~`, as they are written.
fn more_than_granted(line: &str, rules: &str) -> Option<String> {
    let granted = rules.lines().map(|line| line.split('#').next().unwrap_or_default());
    let granted: Vec<&str> = granted.flat_map(str::split_whitespace).collect();
    let gives =
        |word: &&str| ["+", "~", "%", "&", "allkeys"].iter().any(|sign| word.starts_with(sign));
    let more: Vec<&str> = line
        .split_whitespace()
        .filter(gives)
        .filter(|word| !granted.iter().any(|rule| rule.eq_ignore_ascii_case(word)))
        .collect();
    if !line.split_whitespace().any(|word| word == "-@all") {
        return Some("`backend` may call what was not granted".to_owned());
    }
    (!more.is_empty()).then(|| format!("beyond deploy/redis/backend.acl: {}", more.join(" ")))
}

/// The one user without a password may ask for a sign of life and nothing else.
fn is_health_user(line: &str) -> bool {
    line.starts_with("user health ") && line.ends_with("-@all +ping")
}

fn expect(answer: &str, expected: &str) -> Option<String> {
    (answer.trim() != expected).then(|| format!("it is `{}`", answer.trim()))
}

fn none(answer: &str) -> Option<String> {
    let answer = answer.trim();
    (!answer.is_empty()).then(|| answer.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backend_gets_what_its_file_grants_and_no_more() {
        let rules = "# Its keys.\n~session:* ~limit:*\n+get +script|load # and no more\n";
        let line = |more: &str| {
            format!(
                "user backend on sanitize-payload #abc ~session:* ~limit:* resetchannels -@all +get +script|load{more}"
            )
        };
        assert_eq!(more_than_granted(&line(""), rules), None);
        for more in [" +flushall", " ~*", " %RW~*", " &*", " +@all"] {
            let said = more_than_granted(&line(more), rules).expect(more);
            assert!(said.ends_with(more), "{said}");
        }
        assert!(more_than_granted("nobody", rules).is_some());
    }
}
