//! A stack's configuration as Compose renders it, without any stack being there: what `parity` and
//! `audit` judge. Secrets are made up, and no environment file of the person's is read.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::ctx::Ctx;
use crate::env::{self, Kind};
use crate::stack::project::{self, Project};

/// One name for all renderings, so that two of them do not differ by their names.
const NAME: &str = "rendering";

/// Renders the files of this kind of stack; with `overlays`, those after the base as well.
///
/// # Errors
/// Compose finds a mistake in the files; its own words are in the error.
pub(crate) fn rendering(ctx: &Ctx, kind: Kind, overlays: &[&str]) -> Result<Value> {
    let folder = tempfile::tempdir().context("make a folder for an environment file")?;
    let path = folder.path().join("env");
    let variables = project::variables(ctx)?;
    let text = env::fill_in(&project::example(ctx)?, &variables, kind)?;
    let text = env::with_stand_ins(text, &variables)?;
    let text = env::set(&text, "COMPOSE_PROJECT_NAME", NAME);
    std::fs::write(&path, text).context("write an environment file to render with")?;
    let project = Project::load(ctx, &path)?;
    let mut files = project.compose_files.clone();
    for (place, overlay) in overlays.iter().enumerate() {
        files.insert(1 + place, (*overlay).to_owned());
    }
    let command = project.compose_with(&files).args(["config", "--format", "json"]);
    let text = ctx.read(command).with_context(|| format!("render {}", files.join(" + ")))?;
    serde_json::from_str(&text).context("read Compose's configuration")
}
