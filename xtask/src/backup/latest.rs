//! Which backup is meant by `latest`: what somebody who does not look would want back. So it is neither one whose time
//! lies in the future nor what a restore has replaced; where such ones are passed over, that is told.

use std::time::SystemTime;

use anyhow::{Result, bail};

use super::ahead::{self, is_ahead};
use super::catalogue::{Backup, Catalogue};
use crate::ctx::Ctx;

/// The newest backup that is whole, not ahead of the clock, and not what a restore has replaced.
///
/// # Errors
/// There is none.
pub(super) fn of(catalogue: &Catalogue, ctx: &Ctx) -> Result<Backup> {
    let now = SystemTime::now();
    let (later, list): (Vec<_>, Vec<_>) =
        catalogue.list()?.into_iter().partition(|(id, _)| is_ahead(id, now));
    let mut replaced = Vec::new();
    let mut whole = list.into_iter().rev().filter_map(|(_, backup)| backup.ok());
    let newest = whole.find(|backup| {
        let is_safety = backup.manifest.is_safety();
        replaced.extend(is_safety.then(|| backup.id().to_owned()));
        !is_safety
    });
    let Some(newest) = newest else {
        let later: Vec<String> = later.into_iter().map(|(id, _)| id).collect();
        let instead = if replaced.is_empty() { String::new() } else { never_latest(&replaced) };
        bail!(
            "there is no backup in {}; `cargo xtask backup` takes one{}{instead}",
            catalogue.folder().display(),
            ahead::but(&later)
        );
    };
    if !replaced.is_empty() {
        ctx.ui.say(format!("the latest is {}{}", newest.id(), never_latest(&replaced)));
    }
    Ok(newest)
}

/// Behind a word on what is the latest backup: what is newer and only looks like it.
fn never_latest(replaced: &[String]) -> String {
    format!(
        ". What restores have replaced is never `latest`, but can be restored by its name: {}",
        replaced.join(", ")
    )
}
