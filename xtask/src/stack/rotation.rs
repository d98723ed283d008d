//! Passwords between two values: a secret's file that holds more than one says that a rotation is under
//! way, or was killed. Whoever holds any of them is let in, and settling leaves the wanted one alone:
//! in the database or in Redis first, and then in the file.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use crate::ctx::{Ctx, Invocation};
use crate::images::hex;
use crate::stack::project::{Project, shown};
use crate::stack::running::{self, Container};
use crate::stack::{roles, secrets};

const LIMIT: Duration = Duration::from_secs(60);
/// Until what was written is seen through a mount; at once but where the engine is in a virtual machine. And until a
/// server that has no connection left has one again.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(100);
/// Where Compose mounts secrets.
const MOUNTED: &str = "/run/secrets";
/// How many names a file has, none where it was deleted, and its sum.
const LOOK: &str = "stat -c %h \"$1\" && sha256sum <\"$1\"";
/// Over TCP, as the backend does it; the password is read from standard input, so that it stands in no argument list.
const SIGN_IN: &str = "IFS= read -r PGPASSWORD && export PGPASSWORD && \
    exec psql -Xqw --host 127.0.0.1 --username \"$1\" --dbname \"$2\" --command 'SELECT 1'";

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
            settle(ctx, project, name, *password, container)?;
            ctx.ui.say(format!("{name} is new; the previous value is not accepted any more"));
        }
    }
    Ok(())
}

/// Leaves the first value of a password's file alone in force, once it is proven to be.
///
/// # Errors
/// As [`settle_all`].
pub(crate) fn settle(
    ctx: &Ctx,
    project: &Project,
    name: &str,
    password: Password,
    container: &Container,
) -> Result<()> {
    let path = secrets::file(ctx, project, name);
    let values = secrets::read(&path);
    let value = values.ok().and_then(|values| values.into_iter().next());
    let value = value.with_context(|| format!("find a value in {}", shown(ctx, &path)))?;
    let again = || format!("set {name}; both values are accepted, so run this again");
    expect_in_sight(ctx, project, name, container).with_context(again)?;
    match password {
        Password::Role => {
            let database = project.value("PG_DBNAME");
            roles::apply(ctx, &container.id, database).with_context(again)?;
            let role = if name == "PG_PASSWORD" { project.value("PG_USER") } else { "owner" };
            expect_sign_in(ctx, &container.id, [role, database], &value).with_context(again)?;
        }
        // In one step, and whatever else an earlier rotation has left there.
        Password::RedisUser(user) => {
            let words = format!("ACL SETUSER {user} resetpass #{}", sha256(value.as_bytes()));
            set_redis(ctx, &container.id, &words).with_context(again)?;
        }
    }
    secrets::drop_previous(&path).with_context(|| format!("write {}", shown(ctx, &path)))
}

/// That a service's container reads the file of a secret that is there now. Where the file was lost and written anew, or
/// brought back from elsewhere, a container that was started before still has the former one: it would set the value of
/// back then, and the backend would be told the other.
///
/// # Errors
/// It reads another one: then it has to be restarted.
pub(crate) fn expect_in_sight(
    ctx: &Ctx,
    project: &Project,
    name: &str,
    container: &Container,
) -> Result<()> {
    let path = secrets::file(ctx, project, name);
    let mounted = Path::new(MOUNTED).join(name.to_lowercase());
    let look = Invocation::new("docker").args(["exec", &container.id, "sh", "-c", LOOK, "sh"]);
    let look = look.args([mounted]).limit(LIMIT);
    ctx.wait_until(&format!("{} to see it", container.service), PATIENCE, PAUSE, || {
        let here = fs::read(&path).with_context(|| format!("read {}", shown(ctx, &path)))?;
        let here = sha256(&here);
        let there = ctx.read(look.clone())?;
        let mut there = there.split_whitespace();
        let (links, sum) = (there.next(), there.next());
        ensure!(
            links != Some("0") && sum == Some(here.as_str()),
            "{} reads another {name} than {} has: that file was written anew, or brought back, after the container \
             had started, which keeps the former one. `docker restart {}` gives it the present one, with a short pause",
            container.service,
            shown(ctx, &path),
            container.name
        );
        Ok(())
    })
}

/// That a role is let in with a value, before any other is forgotten.
fn expect_sign_in(
    ctx: &Ctx,
    container: &str,
    [role, database]: [&str; 2],
    value: &str,
) -> Result<()> {
    let words = ["exec", "--interactive", container, "sh", "-c", SIGN_IN, "sh", role, database];
    let sign_in = Invocation::new("docker").args(words).stdin(format!("{value}\n")).limit(LIMIT);
    ctx.wait_until(&format!("{role} to be let in"), PATIENCE, PAUSE, || {
        ctx.read(sign_in.clone()).map(drop)
    })
    .with_context(|| format!("sign in to PostgreSQL as {role} with the new value"))
}

/// Has a user of Redis accept one more password.
///
/// # Errors
/// Redis does not take it.
pub(crate) fn add_to_redis(ctx: &Ctx, container: &str, user: &str, value: &str) -> Result<()> {
    set_redis(ctx, container, &format!("ACL SETUSER {user} #{}", sha256(value.as_bytes())))
}

/// Redis is told the hash of a password, so that the password stands in no argument list.
fn set_redis(ctx: &Ctx, container: &str, command: &str) -> Result<()> {
    let words = ["exec", container, "admin-cli", "-e"];
    let command = Invocation::new("docker").args(words).args(command.split(' ')).limit(LIMIT);
    ctx.run(command).context("change a user of Redis")
}

fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}
