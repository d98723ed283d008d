//! One psql in a container, which answers one question after the other: to start a program there takes a
//! tenth of a second, a question to one that runs a few milliseconds, and a restore has twenty of them.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;

use super::swap::quoted;
use crate::ctx::{Ctx, Invocation, Talk};

/// What psql says when it has answered everything.
const AT_END: &str = "(end of the answer)";

/// The psql, once it was asked something.
#[derive(Default)]
pub(super) struct Console {
    talk: Mutex<Option<Talk>>,
}

impl Console {
    /// Has a script run in a database: the lines that it wrote, each within `patience` of the one before.
    /// Where no psql runs yet, `start` says which one to start, all but the database.
    ///
    /// # Errors
    /// The server refuses it, with what psql says; the statements behind the mistake did not run.
    pub(super) fn ask(
        &self,
        ctx: &Ctx,
        start: Invocation,
        database: &str,
        script: &str,
        patience: Duration,
    ) -> Result<Vec<String>> {
        let mut kept = self.talk.lock().unwrap_or_else(PoisonError::into_inner);
        let connect = |mut talk: Talk| {
            talk.set_patience(patience);
            let connect = format!("\\connect {}", quoted(database));
            ask(&mut talk, &connect).map(|_| talk)
        };
        // One whose container was restarted has ended, and nothing was asked of it yet.
        let connected = kept.take().and_then(|talk| connect(talk).ok());
        let mut talk = match connected {
            Some(talk) => talk,
            None => Talk::start(ctx, start.arg(database), patience)?,
        };
        match ask(&mut talk, script) {
            Ok(lines) => {
                *kept = Some(talk);
                Ok(lines)
            }
            Err(error) => Err(talk.explain(error)),
        }
    }
}

fn ask(talk: &mut Talk, script: &str) -> Result<Vec<String>> {
    // The last statement of a script may have no semicolon; one more does nothing.
    let mut line = talk.ask(&format!("{script}\n;\nSELECT '{AT_END}';"))?;
    let mut lines = Vec::new();
    while line != AT_END {
        lines.push(line);
        line = talk.hear()?;
    }
    Ok(lines)
}
