//! `deploy/audit.json`: items that are not met on purpose, each with its reason. Pure.

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// One item that one service does not meet.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Exception {
    pub(crate) item: String,
    pub(crate) service: String,
    pub(crate) why: String,
}

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Exceptions {
    pub(crate) exceptions: Vec<Exception>,
}

impl Exceptions {
    /// Reads the file's text.
    ///
    /// # Errors
    /// It is no JSON of this shape, speaks of an item that is not on the list, or gives no reason.
    pub(crate) fn parse(text: &str) -> Result<Exceptions> {
        let read: Exceptions = serde_json::from_str(text)
            .context("read the exceptions: docs/audit.md describes their form")?;
        for exception in &read.exceptions {
            let Exception { item, service, why } = exception;
            ensure!(
                super::items().any(|known| known.id == item),
                "an exception speaks of `{item}`, which is no item of the checklist"
            );
            ensure!(
                why.split_whitespace().count() >= 3,
                "the exception for {item} of {service} has no reason: say in `why` why it is accepted"
            );
        }
        Ok(read)
    }

    /// The exception for an item and a service.
    pub(crate) fn position(&self, item: &str, service: &str) -> Option<usize> {
        self.exceptions.iter().position(|e| e.item == item && e.service == service)
    }
}
