//! A stack for tests and benchmarks: a name, ports and volumes of its own, so that it never
//! meets the developer's data, and nothing of it stays.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::ctx::{Ctx, Invocation};
use crate::env::{self, Kind, random_hex};
use crate::stack::certificate;
use crate::stack::claim::{self, Claim};
use crate::stack::ports;
use crate::stack::project::{self, LOCAL_ENV, PORTS, Project};
use crate::stack::running::LABEL_PROJECT;
use crate::stack::secrets;

const UP_LIMIT: Duration = Duration::from_secs(40 * 60);
const LIMIT: Duration = Duration::from_secs(5 * 60);

/// A stack of its own, described by an environment file below `target/`.
pub(crate) struct Trial {
    claim: Claim,
    env_file: PathBuf,
}

/// In a dry run: says that `what` would have a stack of its own, and is true. What would happen on it is
/// not known before it is up.
pub(crate) fn is_only_told(ctx: &Ctx, what: &str) -> bool {
    if ctx.is_dry_run() {
        ctx.ui.say(format!("  would bring up a stack of its own for {what}, and remove it again"));
    }
    ctx.is_dry_run()
}

impl Trial {
    /// Writes the environment file: a new name, free ports, new secrets. Trial stacks whose process was
    /// killed before it could remove them are removed first.
    ///
    /// # Errors
    /// No port is free, or the file cannot be written; or the engine does not let go of an old one.
    pub(crate) fn prepare(ctx: &Ctx, purpose: &str, kind: Kind) -> Result<Trial> {
        let example = project::example(ctx)?;
        let variables = project::variables(ctx)?;
        let claim = passing_name(ctx, purpose)?;
        let text = env::fill_in(&example, &variables, kind)?;
        let mut text = env::with_stand_ins(text, &variables)?;
        for port in PORTS {
            text = env::set(&text, port, &ports::any_free()?.to_string());
        }
        text = env::set(&text, "COMPOSE_PROJECT_NAME", claim.name());
        // On this machine only, also what production would publish to the world.
        text = env::set(&text, "HTTP_ADDRESS", "127.0.0.1");
        // Many people from one address, and no e-mail address that is anybody's.
        text = env::set(&text, "APP_ENV", "test");
        let certificates = claim.folder().join("certs/live");
        text = env::set(&text, "CERTS_DIR", &certificates.display().to_string());
        let backups = claim.folder().join("backups");
        text = env::set(&text, "BACKUP_DIR", &backups.display().to_string());
        for (key, value) in image_settings(ctx)? {
            text = env::set(&text, &key, &value);
        }
        let env_file = claim.folder().join("env");
        project::write_private(ctx, &env_file, &text)?;
        Ok(Trial { claim, env_file })
    }

    pub(crate) fn name(&self) -> &str {
        self.claim.name()
    }

    pub(crate) fn env_file(&self) -> &Path {
        &self.env_file
    }

    /// The project as the environment file describes it now.
    ///
    /// # Errors
    /// The file is not in order any more.
    pub(crate) fn project(&self, ctx: &Ctx) -> Result<Project> {
        Project::load(ctx, &self.env_file)
    }

    /// `cargo xtask` on this stack, as a process of its own that the person's exported variables
    /// do not reach.
    ///
    /// # Errors
    /// The variables cannot be read.
    pub(crate) fn xtask(&self, ctx: &Ctx, args: &[&str]) -> Result<Invocation> {
        let program = Invocation::new(ctx.program());
        Ok(self.described_to(ctx, program)?.args(args.to_vec()).limit(UP_LIMIT))
    }

    /// A call of xtask, however it begins, with what makes it work on this stack.
    ///
    /// # Errors
    /// The variables cannot be read.
    pub(crate) fn described_to(&self, ctx: &Ctx, xtask: Invocation) -> Result<Invocation> {
        let invocation = xtask.arg("--env-file").arg(&self.env_file).arg("--yes");
        without_exports(ctx, invocation)
    }

    /// Brings the stack up, with every line shown; one of production gets a certificate before.
    ///
    /// # Errors
    /// It does not get ready.
    pub(crate) fn up(&self, ctx: &Ctx) -> Result<()> {
        if certificate::is_needed(&self.project(ctx)?) {
            ctx.run_loud(self.xtask(ctx, &["cert", "self-signed"])?)?;
        }
        ctx.run_loud(self.xtask(ctx, &["up"])?)
    }

    /// Removes containers, volumes, networks, the backend's image and the environment file.
    ///
    /// # Errors
    /// Something does not go away; the message names it.
    pub(crate) fn remove(&self, ctx: &Ctx) -> Result<()> {
        remove_claimed(ctx, &self.claim)
    }
}

/// A name for containers that a command makes for a while and labels as a project of this name. What
/// commands that were killed have left under such names is removed first.
///
/// # Errors
/// The engine does not answer, or the folder of the name cannot be made.
pub(crate) fn passing_name(ctx: &Ctx, purpose: &str) -> Result<Claim> {
    for left in claim::abandoned(ctx, &ctx.state_dir())? {
        ctx.ui.say(format!("removing what a killed run left behind: {}", left.name()));
        remove_claimed(ctx, &left)?;
    }
    let variables = project::variables(ctx)?;
    let product = variables.iter().find(|v| v.name == "COMPOSE_PROJECT_NAME");
    let product = product.map(|v| v.value.as_str()).context("find the product's name")?;
    // By chance, and not by the number of a process: two containers that share an engine count their own.
    Claim::stake(ctx, &ctx.state_dir(), format!("{product}-trial-{}-{purpose}", random_hex(3)?))
}

/// Removes all that has been made under a claimed name, in the engine and here.
///
/// # Errors
/// Something does not go away; the message names it.
pub(crate) fn remove_claimed(ctx: &Ctx, claim: &Claim) -> Result<()> {
    for name in project_names(ctx)?.iter().filter(|name| claim.covers(name)) {
        remove_project(ctx, name)?;
    }
    // When no container of any of them is left to use one.
    remove_images(ctx, claim.name())?;
    remove_folders(ctx, claim)
}

/// What the stacks of a claim have here; a test that was killed leaves its stack's folders beside the claim's own.
fn remove_folders(ctx: &Ctx, claim: &Claim) -> Result<()> {
    for name in covered(claim, &ctx.root().join(secrets::FOLDER))? {
        secrets::remove(ctx, &name)?;
    }
    let state = ctx.state_dir();
    for name in covered(claim, &state)?.iter().filter(|name| *name != claim.name()) {
        let folder = state.join(name);
        fs::remove_dir_all(&folder).with_context(|| format!("delete {}", folder.display()))?;
    }
    // The claim's own comes last: with it goes the word that there may be more.
    let folder = claim.folder();
    fs::remove_dir_all(folder).with_context(|| format!("delete {}", folder.display()))
}

/// The folders in a folder that belong to the stacks of a claim.
fn covered(claim: &Claim, parent: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(parent) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("read {}", parent.display()))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("read {}", parent.display()))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if claim.covers(&name) && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            names.push(name);
        }
    }
    Ok(names)
}

/// A command that the person's exported variables do not reach: the trial's own file decides.
///
/// # Errors
/// The variables cannot be read.
pub(crate) fn without_exports(ctx: &Ctx, mut command: Invocation) -> Result<Invocation> {
    for variable in project::variables(ctx)? {
        command = command.env_remove(&variable.name);
    }
    Ok(command)
}

/// What the developer's own stack has found out about images; looking again takes a while.
fn image_settings(ctx: &Ctx) -> Result<Vec<(String, String)>> {
    let path = ctx.root().join(LOCAL_ENV);
    if !path.exists() {
        return Ok(Vec::new());
    }
    let text = fs::read_to_string(&path).context("read .env")?;
    let values = env::parse(LOCAL_ENV, &text)?;
    let is_image = |name: &String| {
        name.ends_with("_IMAGE") || name == "IMAGE_SOURCE" || name == "DISTRO_MIRROR"
    };
    Ok(values.into_iter().filter(|(name, _)| is_image(name)).collect())
}

/// Names of all Compose projects that have a container, a volume or a network here.
fn project_names(ctx: &Ctx) -> Result<BTreeSet<String>> {
    let format = format!("{{{{.Label \"{LABEL_PROJECT}\"}}}}");
    let mut names = BTreeSet::new();
    for listing in ["ps --all", "volume ls", "network ls"] {
        let command =
            Invocation::new("docker").args(listing.split(' ')).args(["--format", &format]);
        names.extend(ctx.read(command)?.lines().map(str::to_owned));
    }
    Ok(names)
}

/// Removes all that a project has in the engine, by its label: no Compose file is needed, so it
/// works whatever state the files are in.
fn remove_project(ctx: &Ctx, name: &str) -> Result<()> {
    let filter = format!("label={LABEL_PROJECT}={name}");
    let steps = [
        ("ps --all --quiet", "rm --force --volumes"),
        ("network ls --quiet", "network rm"),
        ("volume ls --quiet", "volume rm"),
    ];
    for (list, remove) in steps {
        let command = Invocation::new("docker").args(list.split(' ')).args(["--filter", &filter]);
        let found = ctx.read(command)?;
        let found: Vec<&str> = found.split_whitespace().collect();
        if !found.is_empty() {
            ctx.run(Invocation::new("docker").args(remove.split(' ')).args(found).limit(LIMIT))?;
        }
    }
    Ok(())
}

/// Stands in the references of images that a benchmark builds for rivals, behind the stack's name.
pub(crate) const RIVAL: &str = "-rival";

/// Removes the images that stacks of this name and their tests have built; the base images are everybody's.
fn remove_images(ctx: &Ctx, name: &str) -> Result<()> {
    let filters = ["", "localhost/"].map(|place| format!("reference={place}{name}-*"));
    let words = ["image", "ls", "--format", "{{.Repository}}:{{.Tag}}"].into_iter();
    let words = words.chain(filters.iter().flat_map(|filter| ["--filter", filter]));
    let found = ctx.read(Invocation::new("docker").args(words))?;
    let found: Vec<&str> = found.split_whitespace().collect();
    if !found.is_empty() {
        ctx.run(Invocation::new("docker").args(["image", "rm"]).args(found).limit(LIMIT))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctx::tests::ctx_in;

    #[test]
    fn what_the_tests_of_a_dead_run_have_left_here_goes_with_it_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let ctx = ctx_in(root.path());
        let (state, secrets) = (ctx.state_dir(), root.path().join(secrets::FOLDER));
        let claim = Claim::stake(&ctx, &state, "shop-trial-1".to_owned()).unwrap();
        for parent in [&state, &secrets] {
            for name in ["shop", "shop-trial-1-77-3", "shop-trial-12"] {
                fs::create_dir_all(parent.join(name).join("below")).unwrap();
            }
        }
        fs::create_dir(secrets.join("shop-trial-1")).unwrap();
        remove_folders(&ctx, &claim).unwrap();
        for parent in [&state, &secrets] {
            let entries = fs::read_dir(parent).unwrap().map(|entry| entry.unwrap());
            let folders = entries.filter(|entry| entry.file_type().unwrap().is_dir());
            let names: BTreeSet<_> = folders.map(|folder| folder.file_name()).collect();
            assert_eq!(names.into_iter().collect::<Vec<_>>(), ["shop", "shop-trial-12"]);
        }
        // The secrets of none were ever written.
        fs::remove_dir_all(&secrets).unwrap();
        let claim = Claim::stake(&ctx, &state, "shop-trial-2".to_owned()).unwrap();
        remove_folders(&ctx, &claim).unwrap();
    }
}
