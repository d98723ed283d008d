//! What a restore has put aside: the former databases under another name, and the former keys in
//! Redis' scratch database. Nobody can write to them any more, so a backup of exactly these holds
//! everything that was acknowledged before the swap. They stay until that backup is whole, also when
//! xtask is killed meanwhile: the next `restore` or `backup` finds them and goes on from there.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use super::both;
use super::catalogue::Catalogue;
use super::postgres::{self, Postgres};
use super::redis::Redis;
use super::swap::quoted;
use super::take::{self, Servers};
use crate::ctx::Ctx;
use crate::stack::project::Project;

/// Through which databases are dropped: nobody keeps data in it.
const BYSTANDER: &str = "template1";

/// What was put aside and is still there.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Replaced {
    /// The name that a database has now, by the one that it had.
    pub(crate) databases: BTreeMap<String, String>,
    /// Whether the former keys of Redis are in its scratch database.
    pub(crate) keys: bool,
}

impl Replaced {
    /// Looks for it.
    ///
    /// # Errors
    /// A server does not answer.
    pub(crate) fn find(postgres: &Postgres, redis: &Redis) -> Result<Replaced> {
        let (names, keys) = both(
            || postgres.query(BYSTANDER, "SELECT datname FROM pg_database ORDER BY 1"),
            || redis.has_replaced(),
        )?;
        Ok(Replaced { databases: put_aside(&names), keys })
    }

    pub(crate) fn is_empty(&self) -> bool {
        *self == Replaced::default()
    }

    /// In words, with the names that they have now.
    pub(crate) fn describe(&self) -> String {
        let databases = self.databases.values().map(|name| format!("the database {name}"));
        let keys = self.keys.then(|| "the former keys in Redis' database 15".to_owned());
        databases.chain(keys).collect::<Vec<_>>().join(" and ")
    }

    fn drop(&self, ctx: &Ctx, servers: &Servers) -> Result<()> {
        let postgres = Postgres::own(ctx, &servers.postgres.id);
        let drop = |name: &String| {
            let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quoted(name));
            let dropped = postgres.query(BYSTANDER, &sql);
            dropped.map(|_| ()).with_context(|| format!("drop the database {name}"))
        };
        let discard =
            || if self.keys { Redis::live(ctx, &servers.redis.id).discard() } else { Ok(()) };
        both(|| self.databases.values().try_for_each(drop), discard)?;
        Ok(())
    }
}

/// The databases that a restore has put aside; of several that had the same name, the oldest.
fn put_aside(names: &[String]) -> BTreeMap<String, String> {
    let mut databases = BTreeMap::new();
    for name in names.iter().filter(|name| postgres::is_ours(name)) {
        if let Some((live, _)) = name.rsplit_once(postgres::BEFORE) {
            databases.entry(live.to_owned()).or_insert_with(|| name.clone());
        }
    }
    databases
}

/// Makes a backup of what was put aside, where something was, and removes it after that; without a
/// copy where none is wanted. Returns the backup's name. The caller holds the project's lock.
///
/// # Errors
/// There is no such backup: then what was put aside is still there, and the message names it.
pub(crate) fn settle(
    ctx: &Ctx,
    project: &Project,
    catalogue: &Catalogue,
    servers: &Servers,
    postgres: &Postgres,
    reason: &str,
    is_copied: bool,
) -> Result<Option<String>> {
    let mut copy = None;
    let redis = Redis::live(ctx, &servers.redis.id);
    loop {
        let replaced = Replaced::find(postgres, &redis)?;
        if replaced.is_empty() {
            catalogue.forget_replaced()?;
            return Ok(copy);
        }
        if is_copied {
            ctx.ui.say(format!("saving what was replaced: {}", replaced.describe()));
            let taken = take::take(ctx, project, catalogue, servers, &replaced, reason);
            let taken = taken.with_context(|| {
                format!(
                    "save what a restore has replaced. The restored data serves, and nothing is \
                     lost: what was replaced is {}. `cargo xtask backup` saves it, and removes it \
                     after that",
                    replaced.describe()
                )
            })?;
            copy = Some(taken.id().to_owned());
        } else {
            ctx.ui.say(format!("removing what was replaced: {}", replaced.describe()));
        }
        // What is saved can go, also after a Ctrl-C.
        replaced.drop(&ctx.shielded(), servers)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_aside_is_known_by_the_name_that_it_had() {
        let names = [
            "app",
            "app_before_20261124t125502z",
            "app_before_20261125t125502z",
            "app_restore_20261124t125502z",
            "notes_before_2026",
        ];
        let found = put_aside(&names.map(str::to_owned));
        let oldest = ("app".to_owned(), "app_before_20261124t125502z".to_owned());
        assert_eq!(found, BTreeMap::from([oldest]));
        let replaced = Replaced { databases: found, keys: true };
        let said = replaced.describe();
        assert!(said.contains("app_before_20261124t125502z and the former keys"), "{said}");
    }
}
