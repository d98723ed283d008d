//! What follows from the migrations and is kept in the repository: the schema as a whole, for people
//! to read and to review, and what PostgreSQL says about the backend's statements, for the compiler.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::files::{FOLDER, every_file};
use super::scratch::{Scratch, with_scratch};
use crate::commands::up::running_container;
use crate::ctx::{Ctx, Invocation};
use crate::stack::lock;
use crate::stack::project::Project;
use crate::stack::running::address_of;
use crate::ui;

const SCHEMA: &str = "backend/schema.sql";
const STATEMENTS: &str = "backend/.sqlx";
/// What `pg_dump` leaves out: who owns what and may do what is in deploy/postgres/roles.sql.
const WORDS: [&str; 3] = ["--schema-only", "--no-owner", "--no-privileges"];
/// The settings of the session that `pg_dump` writes, of all its versions.
const SETTINGS: [&str; 12] = [
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "transaction_timeout",
    "client_encoding",
    "standard_conforming_strings",
    "check_function_bodies",
    "xmloption",
    "client_min_messages",
    "row_security",
    "default_tablespace",
    "default_table_access_method",
];
/// The first lines of the schema's file.
const TITLE: &str = "\
-- The schema after every migration: to read and to review, never to run. `cargo xtask migrate schema`
-- writes it, and `cargo xtask ci` fails where it is out of step.
";
/// A build of the backend's libraries from nothing.
const LIMIT: Duration = Duration::from_secs(15 * 60);

/// The files as they are to be: the name in the repository, and the contents.
type Files = BTreeMap<String, String>;

/// Writes the files anew, or with `check` only compares them.
///
/// # Errors
/// A migration fails on an empty database, a statement does not fit the schema, or a file differs.
pub(super) fn schema(ctx: &Ctx, env_file: &Path, check: bool) -> Result<()> {
    let wanted = wanted_files(&ctx.on_scratch(), env_file)?;
    let here = files_here(ctx)?;
    let changes = changes(&here, &wanted);
    if changes.is_empty() {
        ctx.ui.say(format!("{SCHEMA} and {STATEMENTS} are in step with the migrations"));
        return Ok(());
    }
    if check {
        bail!(
            "these are not what the migrations and statements make:\n  {}\n`cargo xtask migrate \
             schema` writes them anew; commit them with the change",
            changes.join("\n  ")
        );
    }
    for change in &changes {
        ui::data(change)?;
    }
    if ctx.is_dry_run() {
        ctx.ui.say("nothing was changed (--dry-run)");
        return Ok(());
    }
    for name in here.keys().filter(|name| !wanted.contains_key(*name)) {
        fs::remove_file(ctx.root().join(name)).with_context(|| format!("delete {name}"))?;
    }
    fs::create_dir_all(ctx.root().join(STATEMENTS)).context("make the folder of statements")?;
    for (name, text) in wanted.iter().filter(|(name, text)| here.get(*name) != Some(text)) {
        fs::write(ctx.root().join(name), text).with_context(|| format!("write {name}"))?;
    }
    Ok(())
}

/// Every migration on an empty database, then what is to be known about it.
fn wanted_files(ctx: &Ctx, env_file: &Path) -> Result<Files> {
    let (project, container) = running_container(ctx, env_file, "postgres")?;
    let _lock = lock::acquire(ctx, &project, "migrate schema")?;
    with_scratch(ctx, &container.id, |scratch| {
        // Not by the engine: it is in the backend, which compiles once its statements are described.
        for file in every_file(&ctx.root().join(FOLDER))? {
            let text = fs::read_to_string(ctx.root().join(&file));
            let text = text.with_context(|| format!("read {file}"))?;
            scratch.apply(&file, &text)?;
        }
        let mut files = described(ctx, &project, scratch)?;
        let dump = scratch.dump(&scratch.name, &WORDS)?;
        files.insert(SCHEMA.to_owned(), normalised(&dump));
        Ok(files)
    })
}

/// Has the compiler ask the database about each statement, and write the answers down.
fn described(ctx: &Ctx, project: &Project, scratch: &Scratch) -> Result<Files> {
    let folder = tempfile::tempdir().context("make a folder for the statements")?;
    let address = address_of(ctx, project, "postgres", 5432)?;
    let cargo = |words: &[&str]| {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        let words = words.iter().copied().chain(["--quiet", "--locked"]);
        Invocation::new(cargo).args(words).dir(ctx.root()).limit(LIMIT)
    };
    let step = ctx.ui.step("statements").announce();
    // The answers must not come from a cache. Of the libraries, which take a minute, what the lints left
    // is used: it has the features of the whole workspace and of its tests, hence the profile.
    ctx.run(cargo(&["clean", "--package", "backend"])).context("forget what was built before")?;
    let compile = cargo(&["check", "--workspace", "--lib", "--profile", "test"])
        .env("DATABASE_URL", format!("postgres://owner@{address}/{}", scratch.name))
        .env("PGPASSWORD", project.value("PG_OWNER_PASSWORD"))
        .env("SQLX_OFFLINE", "false")
        .env("SQLX_OFFLINE_DIR", folder.path());
    ctx.run(compile).context("compare the backend's statements with the schema")?;
    let files = files_in(folder.path())?;
    step.done(format!("{} compared with the schema", files.len()));
    Ok(files)
}

fn files_here(ctx: &Ctx) -> Result<Files> {
    let mut files = files_in(&ctx.root().join(STATEMENTS))?;
    if let Ok(text) = fs::read_to_string(ctx.root().join(SCHEMA)) {
        files.insert(SCHEMA.to_owned(), text);
    }
    Ok(files)
}

/// The described statements of a folder, under the names that they have in the repository.
fn files_in(folder: &Path) -> Result<Files> {
    let mut files = Files::new();
    if !folder.exists() {
        return Ok(files);
    }
    for entry in fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        files.insert(format!("{STATEMENTS}/{name}"), text);
    }
    Ok(files)
}

/// One line for each file that differs; pure.
fn changes(here: &Files, wanted: &Files) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, text) in wanted {
        match here.get(name) {
            None => lines.push(format!("new       {}", shown(name, text))),
            Some(old) if old != text => lines.push(format!("changed   {}", shown(name, text))),
            Some(_) => {}
        }
    }
    let gone = here.iter().filter(|(name, _)| !wanted.contains_key(*name));
    lines.extend(gone.map(|(name, text)| format!("needless  {}", shown(name, text))));
    lines
}

/// A file's name, and which statement it describes: the name is a hash of it.
fn shown(name: &str, text: &str) -> String {
    let described = serde_json::from_str::<serde_json::Value>(text).ok();
    let query = described.as_ref().and_then(|value| value["query"].as_str());
    let Some(query) = query else {
        return name.to_owned();
    };
    let words: Vec<&str> = query.split_whitespace().take(8).collect();
    format!("{name} ({} …)", words.join(" "))
}

/// What `pg_dump` says, without what differs between its versions or says nothing: settings of the
/// session, titles, and the key against injected commands.
fn normalised(dump: &str) -> String {
    // By their names: a line of a function's body may begin with SET as well.
    let is_setting = |line: &str| {
        let name = line.strip_prefix("SET ").and_then(|rest| rest.split(' ').next());
        name.is_some_and(|name| SETTINGS.contains(&name))
    };
    let is_noise = |line: &&str| {
        let starts = ["\\restrict ", "\\unrestrict ", "SELECT pg_catalog.set_config("];
        let titles = ["-- Name: ", "-- Dumped ", "-- PostgreSQL database dump"];
        *line == "--"
            || is_setting(line)
            || starts.iter().chain(&titles).any(|start| line.starts_with(start))
    };
    let mut text = TITLE.to_owned();
    let mut is_gap = true;
    for line in dump.lines().filter(|line| !is_noise(line)) {
        if line.is_empty() {
            is_gap = true;
            continue;
        }
        if is_gap {
            text.push('\n');
        }
        is_gap = false;
        text.push_str(line);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_has_statements_and_neither_versions_nor_keys() {
        let dump = "--\n-- PostgreSQL database dump\n--\n\n\\restrict abc\n\n\
                    -- Dumped from database version 15.14\n\nSET lock_timeout = 0;\n\
                    SELECT pg_catalog.set_config('search_path', '', false);\n\n\
                    --\n-- Name: t; Type: TABLE; Schema: public; Owner: -\n--\n\n\
                    CREATE TABLE public.t (\n    id bigint\n);\n\n\n--\n-- Name: i\n--\n\n\
                    CREATE INDEX i ON public.t USING btree (id);\n\n    UPDATE t\nSET id = 1;\n\n\\unrestrict abc\n";
        let text = normalised(dump);
        let (_, statements) = text.split_once("\n\n").unwrap();
        assert_eq!(
            statements,
            "CREATE TABLE public.t (\n    id bigint\n);\n\n\
             CREATE INDEX i ON public.t USING btree (id);\n\n    UPDATE t\nSET id = 1;\n"
        );
    }

    #[test]
    fn each_difference_is_a_line_that_tells_the_statement() {
        let files = |pairs: &[(&str, &str)]| -> Files {
            pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
        };
        let here = files(&[("a", "1"), ("b", "{\"query\":\"SELECT 1\\n FROM t\"}"), ("c", "3")]);
        let wanted = files(&[("a", "1"), ("c", "4"), ("d", "5")]);
        let lines = changes(&here, &wanted);
        assert_eq!(lines, ["changed   c", "new       d", "needless  b (SELECT 1 FROM t …)"]);
        assert!(changes(&here, &here).is_empty());
    }
}
