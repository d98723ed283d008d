//! The roles of PostgreSQL, made and mended by the file of this checkout. The container has a file of that name as
//! well, but the one of the day on which it started: what is mounted as a single file stays what it was when
//! `git pull`, or an editor, puts another in its place.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::ctx::{Ctx, Invocation};

/// Makes roles and sets their passwords from the first lines of the files; it may run at any time. It reads the
/// passwords, and who PG_USER is, inside the container.
const FILE: &str = "deploy/postgres/roles.sql";
const LIMIT: Duration = Duration::from_secs(60);

/// Brings the roles, and their rights on a database, to what the file says.
///
/// # Errors
/// The file cannot be read, or PostgreSQL does not take it.
pub(crate) fn apply(ctx: &Ctx, container: &str, database: &str) -> Result<()> {
    let sql = std::fs::read(ctx.root().join(FILE))
        .with_context(|| format!("read {FILE}, which says what the roles are"))?;
    let of = format!("POSTGRES_DB={database}");
    let exec = ["exec", "--interactive", "--env", &of, container];
    let psql = ["psql", "-Xq", "--username", "postgres", "--dbname", database, "--file", "-"];
    let command = Invocation::new("docker").args(exec).args(psql);
    ctx.run(command.stdin(sql).limit(LIMIT)).with_context(|| format!("run {FILE}"))
}
