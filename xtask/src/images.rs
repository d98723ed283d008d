//! Where images come from: they are here already, or a registry has them, or they are built from
//! the distribution's packages; and the backend is built here, unless `BACKEND_IMAGE` names what was built
//! elsewhere.
//!
//! The choice between registry and distribution is made once for a stack and written into its
//! environment file, because data keeps to the kind of image that made it.

pub(crate) mod backend;
pub(crate) mod build;
pub(crate) mod distro;
pub(crate) mod former;
pub(crate) mod inputs;
pub(crate) mod registry;

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::ctx::{Ctx, Invocation};
use crate::stack::project::Project;

/// The overlay that replaces the official images.
pub(crate) const DISTRO_OVERLAY: &str = "deploy/distro/compose.yaml";
const BASE_FILE: &str = "compose.yaml";

/// Where the base images come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The official images, from a container registry.
    Registry,
    /// The same services from the distribution's packages.
    Distro,
}

impl Source {
    /// Reads the value of `IMAGE_SOURCE`.
    ///
    /// # Errors
    /// It is neither of the two.
    pub(crate) fn parse(text: &str) -> Result<Source> {
        match text {
            "registry" => Ok(Source::Registry),
            "distro" => Ok(Source::Distro),
            _ => bail!("IMAGE_SOURCE is {text:?}; it takes `registry`, `distro`, or nothing"),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Source::Registry => "registry",
            Source::Distro => "distro",
        })
    }
}

/// Makes sure that the environment file says where images come from, and that its Compose files
/// agree with it; decides first, where nothing is decided yet.
///
/// # Errors
/// Neither a registry nor the distribution can be used; the message says why for each.
pub(crate) fn settle_source(ctx: &Ctx, project: &mut Project) -> Result<Source> {
    let decided = project.image_source()?;
    let source = match decided {
        Some(source) => source,
        None => decide(ctx, project)?,
    };
    let files = compose_files(&project.compose_files, source);
    if decided.is_none() || files != project.compose_files {
        let (source, files) = (source.to_string(), files.join(":"));
        project.remember(ctx, &[("IMAGE_SOURCE", &source), ("COMPOSE_FILE", &files)])?;
    }
    if project.is_production() {
        registry::pin(ctx, project, source)?;
    }
    Ok(source)
}

fn decide(ctx: &Ctx, project: &Project) -> Result<Source> {
    if ctx.is_dry_run() {
        ctx.ui.say("  would find out whether a registry gives the official images");
        return Ok(Source::Registry);
    }
    match registry::provide(ctx, project, Source::Registry) {
        Ok(()) => {
            ctx.ui.say("  images: the official ones (IMAGE_SOURCE=registry)");
            Ok(Source::Registry)
        }
        Err(error) if error.is::<crate::ctx::Interrupted>() => Err(error),
        // What is chosen here stays for the life of the data: a wrong name or a limit on pulls is no reason.
        Err(error) if registry::has_answered(&error) => Err(error.context(
            "a registry answered, so the distribution's packages do not take its place by themselves; \
             mend what it complains about, or write IMAGE_SOURCE=distro into the environment file",
        )),
        Err(error) => {
            distro::check_possible(ctx).with_context(|| {
                format!("the registry cannot be used ({error:#}), and neither can the distribution")
            })?;
            let reason = first_line(&format!("{:#}", error.root_cause()));
            ctx.ui.say(format!(
                "  images: built from the distribution's packages (IMAGE_SOURCE=distro), because \
                 no registry gave the official ones: {reason}"
            ));
            Ok(Source::Distro)
        }
    }
}

/// The Compose files for a source: the overlay stands right after the base, or not at all.
fn compose_files(current: &[String], source: Source) -> Vec<String> {
    let mut files: Vec<String> =
        current.iter().filter(|file| *file != DISTRO_OVERLAY).cloned().collect();
    if source == Source::Distro {
        let after_base = files.iter().position(|file| file == BASE_FILE).map_or(0, |i| i + 1);
        files.insert(after_base, DISTRO_OVERLAY.to_owned());
    }
    files
}

/// The ids of the images that these references mean here; one that is not here is left out.
///
/// # Errors
/// The engine does not answer.
pub(crate) fn ids(ctx: &Ctx, references: &[&str]) -> Result<BTreeMap<String, String>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Image {
        id: String,
        repo_tags: Option<Vec<String>>,
        repo_digests: Option<Vec<String>>,
    }
    if references.is_empty() {
        return Ok(BTreeMap::new());
    }
    let command = Invocation::new("docker").args(["image", "inspect"]).args(references.to_vec());
    let output = ctx.try_read(command)?;
    // Where no engine answers there is a list all the same, an empty one.
    let said = output.stdout.trim();
    if said.is_empty() || said == "[]" && !output.stderr.contains("No such image") {
        let error = anyhow::anyhow!("{}", output.stderr.trim());
        return Err(crate::host::tools::explain_engine(ctx, error));
    }
    let images: Vec<Image> =
        serde_json::from_str(said).context("read what `docker image inspect` says")?;
    let names = |image: &Image| {
        let tags = image.repo_tags.iter().flatten().chain(image.repo_digests.iter().flatten());
        tags.cloned().collect::<Vec<_>>()
    };
    let mut found = BTreeMap::new();
    for image in &images {
        let names = names(image);
        for reference in references.iter().filter(|reference| means(&names, reference)) {
            found.insert((*reference).to_owned(), image.id.clone());
        }
    }
    Ok(found)
}

/// Whether one of an image's names is this reference; the engine leaves out Docker Hub's parts, and
/// the tag where there is a digest.
fn means(names: &[String], reference: &str) -> bool {
    let reference = match reference.split_once('@') {
        Some((tagged, digest)) => format!("{}@{digest}", without_tag(tagged)),
        None if without_tag(reference) == reference => format!("{reference}:latest"),
        None => reference.to_owned(),
    };
    let short = reference.strip_prefix("docker.io/").unwrap_or(&reference);
    let short = short.strip_prefix("library/").unwrap_or(short);
    names.iter().any(|name| name == short || *name == reference)
}

/// A reference without its tag; a colon before the last `/` belongs to the registry's port.
pub(crate) fn without_tag(reference: &str) -> &str {
    match reference.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        _ => reference,
    }
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn first_line(text: &str) -> String {
    text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn the_overlay_stands_right_after_the_base_or_not_at_all() {
        let (base, prod) = (BASE_FILE, "compose.prod.yaml");
        let with = compose_files(&files(&[base, prod]), Source::Distro);
        assert_eq!(with, [base, DISTRO_OVERLAY, prod]);
        assert_eq!(compose_files(&with, Source::Distro), with);
        assert_eq!(compose_files(&with, Source::Registry), [base, prod]);
    }

    #[test]
    fn a_reference_is_known_with_and_without_docker_hubs_parts() {
        let names = files(&["postgres:15-alpine"]);
        assert!(means(&names, "postgres:15-alpine"));
        assert!(means(&names, "docker.io/library/postgres:15-alpine"));
        assert!(!means(&names, "postgres:16-alpine"));
        assert!(means(&files(&["mail:latest"]), "mail") && !means(&files(&["mail:2"]), "mail"));
    }

    #[test]
    fn a_pinned_reference_is_known_by_its_digest_whatever_its_tag() {
        let names = files(&["postgres:15-alpine", "127.0.0.1:5000/library/postgres@sha256:ab"]);
        assert!(means(&names, "127.0.0.1:5000/library/postgres:15-alpine@sha256:ab"));
        assert!(!means(&names, "127.0.0.1:5000/library/postgres:15-alpine@sha256:cd"));
        assert_eq!(without_tag("127.0.0.1:5000/nginx"), "127.0.0.1:5000/nginx");
    }
}
