//! The two moments of a restore: PostgreSQL changes the names of databases, Redis two databases.

use std::time::Duration;

use anyhow::{Context, Result};

use super::catalogue::Catalogue;
use super::restore::{BYSTANDER, Restore};
use super::sequences;
use super::swap::{Names, swap_script};

/// How long to look for a moment in which nobody is connected; each try waits five seconds.
const SWAP_LIMIT: Duration = Duration::from_secs(90);
const SWAP_PAUSE: Duration = Duration::from_millis(50);

impl Restore<'_> {
    /// The two moments. From the first one on there is a note beside the backups, so that nobody
    /// takes half a restore for a whole one.
    pub(super) fn swap(&self, catalogue: &Catalogue, names: &[Names]) -> Result<()> {
        let step = self.ctx.ui.step("swap");
        catalogue.note_swap(self.backup.id())?;
        if self.parts.postgres {
            self.swap_databases(catalogue, names)?;
        }
        if self.parts.redis {
            self.redis.swap().with_context(|| {
                format!(
                    "swap the keys of Redis: PostgreSQL has the rows of the backup by now. Run \
                     `cargo xtask restore {}` again",
                    self.backup.id()
                )
            })?;
        }
        catalogue.note_replaced(self.backup.id())?;
        catalogue.forget_swap()?;
        step.done("");
        Ok(())
    }

    /// Changes the names of all databases, or of none. What has become of them is asked whenever it is not
    /// certain: to say that nothing was replaced where all was would have the keys thrown away that belong
    /// to the rows.
    fn swap_databases(&self, catalogue: &Catalogue, names: &[Names]) -> Result<()> {
        if let Err(error) = self.rename(names) {
            let live = self.live().with_context(|| {
                format!(
                    "it is not known whether PostgreSQL has changed the databases ({error:#}), because \
                     it does not answer. Both are there, under one name or the other, and Redis has its \
                     old keys: once it answers, run `cargo xtask restore {}` again",
                    self.backup.id()
                )
            })?;
            // Where it is, the answer was lost, and not the change.
            if !is_renamed(names, &live) {
                catalogue.forget_swap()?;
                let _ = self.sweep();
                return Err(error.context("nothing was replaced, the old data serves as before"));
            }
        }
        self.raise_again(names);
        Ok(())
    }

    /// Ends every session, and changes all names in one transaction. Clients come back within
    /// milliseconds, so a try may find one that slipped in between; then the next one follows.
    fn rename(&self, names: &[Names]) -> Result<()> {
        self.ctx.wait_until("PostgreSQL to change the databases", SWAP_LIMIT, SWAP_PAUSE, || {
            let live = self.live()?;
            // The answer to the try before may have been lost on its way.
            if is_renamed(names, &live) {
                return Ok(());
            }
            for names in names.iter().filter(|names| live.contains(&names.live)) {
                let headroom = sequences::HEADROOM;
                sequences::raise(&self.postgres, &names.live, &names.restored, headroom)?;
            }
            self.postgres.query(BYSTANDER, &swap_script(names, &live)).map(|_| ())
        })
    }

    /// The names of all databases.
    fn live(&self) -> Result<Vec<String>> {
        self.postgres.query(BYSTANDER, "SELECT datname FROM pg_database")
    }

    /// What was drawn from sequences between the last look at them and the swap: now nobody can draw any
    /// more. The backup is in place by now, and the headroom is there, so that a failure stops nothing.
    fn raise_again(&self, names: &[Names]) {
        let raise = || {
            let live = self.live()?;
            let mut aside = names.iter().filter(|names| live.contains(&names.before));
            aside.try_for_each(|names| {
                sequences::raise(&self.postgres, &names.before, &names.live, 0)
            })
        };
        let what = "PostgreSQL to go on with the numbers that were given out";
        if let Err(error) = self.ctx.wait_until(what, SWAP_LIMIT, SWAP_PAUSE, raise) {
            self.ctx.ui.warn(format!(
                "the sequences were not compared once more after the swap ({error:#}). They stand {} beyond \
                 where they stood milliseconds before it, which is enough unless more than that was drawn",
                sequences::HEADROOM
            ));
        }
    }
}

/// Whether no database has the name any more under which it was loaded; all change in one transaction.
fn is_renamed(names: &[Names], live: &[String]) -> bool {
    !names.iter().any(|names| live.contains(&names.restored))
}
