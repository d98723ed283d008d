//! Passwords between two values: a secret's file that holds more than one says that a rotation is under
//! way, or was killed. Whoever holds any of them is let in, and settling leaves the wanted one alone:
//! in the database or in Redis first, and then in the file.

use std::time::Duration;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::ctx::{Ctx, Invocation};
use crate::images::hex;
use crate::stack::project::{Project, shown};
use crate::stack::running::{self, Container};
use crate::stack::secrets;

/// Makes roles and sets their passwords from the first lines of the files; it may run at any time.
const ROLES: &str = "/docker-entrypoint-initdb.d/10-roles.sql";
const LIMIT: Duration = Duration::from_secs(60);

/// A secret that a service knows as well, and so has to be told.
#[derive(Clone, Copy)]
pub(crate) enum Password {
    /// A role of PostgreSQL: its password is in the database.
    Role,
    /// A user of Redis.
    RedisUser(&'static str),
}

/// The secrets that are passwords; the others are keys, which the backend alone uses.
const PASSWORDS: [(&str, Password); 4] = [
    ("PG_PASSWORD", Password::Role),
    ("PG_OWNER_PASSWORD", Password::Role),
    ("REDIS_PASSWORD", Password::RedisUser("backend")),
    ("REDIS_ADMIN_PASSWORD", Password::RedisUser("admin")),
];

impl Password {
    /// Nothing for a key.
    pub(crate) fn named(name: &str) -> Option<Password> {
        PASSWORDS.iter().find(|(known, _)| *known == name).map(|(_, password)| *password)
    }

    fn service(self) -> &'static str {
        match self {
            Password::Role => "postgres",
            Password::RedisUser(_) => "redis",
        }
    }
}

/// Settles every password that a rotation left with several values, with the wanted one first. Says
/// which ones.
///
/// # Errors
/// A service does not take the value; it accepts what it accepted before.
pub(crate) fn settle_all(ctx: &Ctx, project: &Project) -> Result<()> {
    let is_open = |name: &str| {
        secrets::read(&secrets::file(ctx, project, name)).is_ok_and(|values| values.len() > 1)
    };
    let open: Vec<_> = PASSWORDS.iter().filter(|(name, _)| is_open(name)).collect();
    if open.is_empty() {
        return Ok(());
    }
    let containers = running::containers(ctx, project)?;
    for (name, password) in open {
        let of_service = |c: &&Container| c.service == password.service() && c.is_running();
        if let Some(container) = containers.iter().find(of_service) {
            settle(ctx, project, name, *password, &container.id)?;
            ctx.ui.say(format!("{name} is new; the previous value is not accepted any more"));
        }
    }
    Ok(())
}

/// Leaves the first value of a password's file alone in force.
///
/// # Errors
/// As [`settle_all`].
pub(crate) fn settle(
    ctx: &Ctx,
    project: &Project,
    name: &str,
    password: Password,
    container: &str,
) -> Result<()> {
    let path = secrets::file(ctx, project, name);
    let values = secrets::read(&path);
    let value = values.ok().and_then(|values| values.into_iter().next());
    let value = value.with_context(|| format!("find a value in {}", shown(ctx, &path)))?;
    let again = || format!("set {name}; both values are accepted, so run this again");
    match password {
        Password::Role => {
            let words = ["exec", container, "psql", "--quiet", "--username", "postgres"];
            let database = project.value("PG_DBNAME");
            let command = Invocation::new("docker").args(words);
            let command = command.args(["--file", ROLES, "--dbname", database]);
            ctx.run(command.limit(LIMIT)).with_context(again)?;
        }
        // In one step, and whatever else an earlier rotation has left there.
        Password::RedisUser(user) => {
            let words = format!("ACL SETUSER {user} resetpass #{}", sha256(&value));
            set_redis(ctx, container, &words).with_context(again)?;
        }
    }
    secrets::drop_previous(&path).with_context(|| format!("write {}", shown(ctx, &path)))
}

/// Has a user of Redis accept one more password.
///
/// # Errors
/// Redis does not take it.
pub(crate) fn add_to_redis(ctx: &Ctx, container: &str, user: &str, value: &str) -> Result<()> {
    set_redis(ctx, container, &format!("ACL SETUSER {user} #{}", sha256(value)))
}

/// Redis is told the hash of a password, so that the password stands in no argument list.
fn set_redis(ctx: &Ctx, container: &str, command: &str) -> Result<()> {
    let words = ["exec", container, "admin-cli", "-e"];
    let command = Invocation::new("docker").args(words).args(command.split(' ')).limit(LIMIT);
    ctx.run(command).context("change a user of Redis")
}

fn sha256(value: &str) -> String {
    hex(&Sha256::digest(value.as_bytes()))
}
