//! As much of SQL's lexical structure as it takes to tell statements apart: quotes, dollar quotes
//! and comments can all hold a semicolon.

/// How much of a name PostgreSQL keeps, in bytes (NAMEDATALEN less one).
const NAME_LENGTH: usize = 63;

/// The statements of a file, trimmed, without comments before them.
pub(super) fn statements(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut start = None;
    let mut routine = Routine::default();
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let (length, blank) = token(rest);
        if rest.starts_with(';') && !routine.is_open() {
            found.extend(start.take().map(|from: usize| text[from..at].trim_end()));
            routine = Routine::default();
        } else if !blank {
            start.get_or_insert(at);
            routine.read(&rest[..length]);
        }
        at += length;
    }
    found.extend(start.map(|from| text[from..].trim_end()));
    found
}

/// How far a statement is into a body of statements: `CREATE FUNCTION … BEGIN ATOMIC …; …; END`, where a
/// semicolon ends nothing, and `END` may be that of a `CASE`.
#[derive(Default)]
struct Routine {
    /// As many as it takes to know what is made.
    first: Vec<String>,
    last: String,
    /// Of `BEGIN ATOMIC`, and of each `CASE` inside it.
    depth: usize,
}

impl Routine {
    fn is_open(&self) -> bool {
        self.depth > 0
    }

    fn read(&mut self, token: &str) {
        let token = token.to_ascii_uppercase();
        // PostgreSQL takes the two words as names there, unquoted.
        let is_name = matches!(&*self.last, "AS" | ".");
        match &*token {
            "ATOMIC" if self.depth == 0 && self.last == "BEGIN" && self.is_made() => self.depth = 1,
            "CASE" if self.is_open() && !is_name => self.depth += 1,
            "END" if self.is_open() && !is_name => self.depth -= 1,
            _ => {}
        }
        if self.first.len() < 4 {
            self.first.push(token.clone());
        }
        self.last = token;
    }

    /// Elsewhere the two words may be a column and its name.
    fn is_made(&self) -> bool {
        let first: Vec<&str> = self.first.iter().map(String::as_str).collect();
        matches!(
            first[..],
            ["CREATE", "FUNCTION" | "PROCEDURE", ..]
                | ["CREATE", "OR", "REPLACE", "FUNCTION" | "PROCEDURE"]
        )
    }
}

/// Whether the text holds `name`, as the catalogue has it, as a whole word: unquoted it may be written in any
/// case, and PostgreSQL keeps 63 bytes of a longer one.
pub(super) fn names(text: &str, name: &str) -> bool {
    let (text, name) = (text.to_lowercase(), name.to_lowercase());
    let is_cut = name.len() == NAME_LENGTH;
    text.match_indices(&name).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + name.len()..].chars().next();
        !before.is_some_and(is_word) && (is_cut || !after.is_some_and(is_word))
    })
}

/// Whether the text makes an index and gives it no name: PostgreSQL would choose another one at each try.
pub(super) fn makes_a_nameless_index(text: &str) -> bool {
    let statement = statements(text).first().copied().unwrap_or_default();
    let words = statement.split_whitespace().map(str::to_uppercase);
    let mut after = words.skip_while(|word| word != "INDEX").skip(1);
    makes_index(text) && after.find(|word| word != "CONCURRENTLY").is_some_and(|word| word == "ON")
}

/// Whether the file makes an index.
pub(super) fn makes_index(text: &str) -> bool {
    let words = first_words(text);
    matches!(words.first().map(String::as_str), Some("CREATE"))
        && words.iter().any(|word| word == "INDEX")
}

/// Whether an invalid index of that name is what an unfinished try of the file leaves: the index that it
/// makes, or what it makes beside the one that it builds anew. One that the file drops, or builds anew because
/// it is invalid, is none of its leavings.
pub(super) fn leaves(text: &str, index: &str) -> bool {
    if makes_index(text) {
        return names(text, index);
    }
    let stem = index.trim_end_matches(|c: char| c.is_ascii_digit());
    let stem = stem.strip_suffix("_ccnew").or_else(|| stem.strip_suffix("_ccold"));
    first_words(text).first().is_some_and(|word| word == "REINDEX")
        && stem.is_some_and(|stem| names(text, stem))
}

/// The first words of the first statement, in capitals: as many as it takes to know it.
fn first_words(text: &str) -> Vec<String> {
    let statement = statements(text).first().copied().unwrap_or_default();
    statement.split_whitespace().take(3).map(str::to_uppercase).collect()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '$'
}

/// The length of the token at the start of `rest`, and whether it is blank (space or a comment).
fn token(rest: &str) -> (usize, bool) {
    if rest.starts_with("--") {
        return (rest.find('\n').unwrap_or(rest.len()), true);
    }
    if rest.starts_with("/*") {
        return (block_comment(rest), true);
    }
    let first = rest.chars().next().unwrap_or(' ');
    match first {
        '\'' | '"' => (quoted(rest, first, false), false),
        'e' | 'E' if rest[1..].starts_with('\'') => (1 + quoted(&rest[1..], '\'', true), false),
        '$' => (dollar_quoted(rest).unwrap_or(1), false),
        c if is_word(c) => (rest.find(|c| !is_word(c)).unwrap_or(rest.len()), false),
        c => (c.len_utf8(), c.is_whitespace()),
    }
}

/// Block comments nest.
fn block_comment(rest: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}

/// A doubled quote ends one string and starts another, which comes to the same here.
fn quoted(rest: &str, quote: char, escapes: bool) -> usize {
    let mut characters = rest.char_indices().skip(1);
    while let Some((at, c)) = characters.next() {
        if escapes && c == '\\' {
            characters.next();
        } else if c == quote {
            return at + 1;
        }
    }
    rest.len()
}

/// `$$ … $$` or `$tag$ … $tag$`; nothing when it is a parameter such as `$1`.
fn dollar_quoted(rest: &str) -> Option<usize> {
    let end_of_tag = rest[1..].find('$')? + 2;
    let tag = &rest[..end_of_tag];
    let name = &tag[1..tag.len() - 1];
    if name.starts_with(|c: char| c.is_ascii_digit())
        || !name.chars().all(|c| c.is_alphanumeric() || c == '_')
    {
        return None;
    }
    Some(rest[end_of_tag..].find(tag).map_or(rest.len(), |at| end_of_tag + at + tag.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_an_unfinished_try_leaves_is_removed() {
        let cases = [
            ("-- no-transaction\nCREATE INDEX CONCURRENTLY i ON t (c)", "i", true),
            ("create unique index concurrently if not exists i on t (c)", "i", true),
            ("CREATE INDEX CONCURRENTLY i ON t (c)", "other", false),
            ("DROP INDEX CONCURRENTLY i", "i", false),
            ("REINDEX INDEX CONCURRENTLY i", "i", false),
            ("REINDEX INDEX CONCURRENTLY i", "i_ccnew", true),
            ("REINDEX INDEX CONCURRENTLY i", "i_ccnew2", true),
            ("REINDEX INDEX CONCURRENTLY i", "j_ccnew", false),
            ("VACUUM i", "i", false),
            ("CREATE INDEX CONCURRENTLY IF NOT EXISTS By_Day ON t (c)", "by_day", true),
        ];
        for (text, index, expected) in cases {
            assert_eq!(leaves(text, index), expected, "{text}: {index}");
        }
    }

    #[test]
    fn semicolons_in_strings_comments_and_bodies_do_not_count() {
        let cases: &[(&str, &[&str])] = &[
            ("SELECT 1; SELECT 2", &["SELECT 1", "SELECT 2"]),
            (" ; ;\n", &[]),
            ("-- a; b\nSELECT ';' /* ; /* ; */ ; */;", &["SELECT ';' /* ; /* ; */ ; */"]),
            ("SELECT 'it''s;'; SELECT \"a;b\"", &["SELECT 'it''s;'", "SELECT \"a;b\""]),
            ("SELECT E'\\';'; SELECT 2", &["SELECT E'\\';'", "SELECT 2"]),
            ("DO $$BEGIN; END;$$; SELECT 1", &["DO $$BEGIN; END;$$", "SELECT 1"]),
            ("DO $x$ $$;$$ ; $x$", &["DO $x$ $$;$$ ; $x$"]),
            ("SELECT $1; SELECT $2", &["SELECT $1", "SELECT $2"]),
            ("SELECT 'ü;'; -- Ende", &["SELECT 'ü;'"]),
            ("SELECT 'open;", &["SELECT 'open;"]),
        ];
        for (text, expected) in cases {
            assert_eq!(statements(text), *expected, "{text}");
        }
    }

    /// Each of them is one statement, and another one follows.
    #[test]
    fn semicolons_in_a_body_of_statements_do_not_count() {
        for routine in [
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC SELECT 1; SELECT 2; END",
            "create or replace procedure p() begin /* ; */ atomic delete from t; end",
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC; END",
            "CREATE FUNCTION f(n int) RETURNS int BEGIN ATOMIC
                 SELECT CASE WHEN n > 0 THEN CASE n WHEN 1 THEN 2 END ELSE 3 END;
                 SELECT 4;
             END",
            "CREATE FUNCTION f() RETURNS int BEGIN ATOMIC
                 SELECT t.end, t.case AS end, 1 AS case FROM t; SELECT \"end\", 'END' FROM t; -- END
             END",
        ] {
            let text = format!("{routine}; SELECT 1;");
            assert_eq!(statements(&text), [routine, "SELECT 1"]);
        }
        let others = "CREATE VIEW v AS SELECT begin atomic FROM t; SELECT 1; BEGIN; SELECT 2";
        assert_eq!(statements(others).len(), 4);
    }

    #[test]
    fn a_name_is_found_as_a_whole_word_only() {
        assert!(names("CREATE INDEX CONCURRENTLY by_day ON t (day)", "by_day"));
        assert!(!names("CREATE INDEX CONCURRENTLY by_day_2 ON t (day)", "by_day"));
        let long = "x".repeat(70);
        assert!(names(&format!("CREATE INDEX {long} ON t (c)"), &long[..63]));
    }

    #[test]
    fn an_index_without_a_name_is_known() {
        assert!(makes_a_nameless_index("-- no-transaction\nCREATE INDEX CONCURRENTLY ON t (c)"));
        assert!(makes_a_nameless_index("create unique index concurrently on t (c)"));
        for named in [
            "CREATE INDEX CONCURRENTLY i ON t (c)",
            "CREATE INDEX CONCURRENTLY IF NOT EXISTS i ON t (c)",
        ] {
            assert!(!makes_a_nameless_index(named), "{named}");
        }
        assert!(!makes_a_nameless_index("VACUUM t"));
    }
}
