//! Every image is pinned: the same files mean the same programs next year.

use crate::environment::{compose_variables, example};
use crate::repo::{self, File, expect_none};

/// Built by this project, from its own files: the tag is no version.
const BUILT_HERE: [&str; 1] = ["${BACKEND_IMAGE:-${COMPOSE_PROJECT_NAME}-backend:current}"];

/// A tag that names a version, or a digest.
fn is_pinned(reference: &str) -> bool {
    if reference.contains("@sha256:") {
        return true;
    }
    // A port of a registry stands before the last `/`.
    let last = reference.rsplit('/').next().unwrap_or_default();
    let tag = last.split_once(':').map_or("", |(_, tag)| tag);
    tag.starts_with(|c: char| c.is_ascii_digit())
}

#[test]
fn a_tag_is_judged_by_its_version() {
    for pinned in ["postgres:15-alpine", "localhost:5000/a/redis:7", "x@sha256:00"] {
        assert!(is_pinned(pinned), "{pinned}");
    }
    for floating in ["postgres", "postgres:latest", "localhost:5000/redis", "nginx:stable-alpine"] {
        assert!(!is_pinned(floating), "{floating}");
    }
}

/// Every reference with its place, variables replaced by their defaults.
fn references() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for file in repo::files() {
        if file.is_compose() {
            found.extend(keyed(&file, "image:"));
        } else if file.is_dockerfile() {
            found.extend(bases(&file));
        }
    }
    for (name, value) in example().into_iter().filter(|(name, _)| name.ends_with("_IMAGE")) {
        found.push((format!(".env.example: {name}"), value));
    }
    let defaults = compose_variables().into_iter().filter(|v| v.name.ends_with("_IMAGE"));
    found.extend(defaults.map(|v| (v.place, v.default.unwrap_or_default())));
    // The backend's is empty: it is built here unless somebody names one.
    found.retain(|(_, reference)| !reference.is_empty());
    found
}

fn keyed(file: &File, key: &str) -> Vec<(String, String)> {
    let values = file.lines().filter_map(|(number, line)| {
        let value = line.trim().strip_prefix(key)?.trim().to_owned();
        // A variable's value is judged where it is written.
        let is_judged = BUILT_HERE.contains(&value.as_str()) || value.contains("_IMAGE");
        (!is_judged).then(|| (format!("{}:{number}", file.path), value))
    });
    values.collect()
}

/// What the stages of a Dockerfile begin with, other stages and `scratch` left out.
fn bases(file: &File) -> Vec<(String, String)> {
    let mut stages = vec!["scratch".to_owned()];
    let mut found = Vec::new();
    for (number, line) in file.lines() {
        let place = format!("{}:{number}", file.path);
        if let Some((name, value)) = line.strip_prefix("ARG ").and_then(|rest| rest.split_once('='))
            && name.ends_with("_IMAGE")
        {
            found.push((place.clone(), value.to_owned()));
        }
        let Some(rest) = line.strip_prefix("FROM ") else { continue };
        let mut words = rest.split_whitespace().filter(|word| !word.starts_with("--"));
        let base = words.next().unwrap_or_default().to_owned();
        if !stages.contains(&base) && !base.contains("_IMAGE") {
            found.push((place, base));
        }
        stages.extend(words.nth(1).map(str::to_owned));
    }
    found
}

#[test]
fn no_image_floats() {
    let references = references();
    assert!(references.len() > 8, "only {} were found: mend the search", references.len());
    let floating = references.iter().filter(|(_, reference)| !is_pinned(reference));
    let floating: Vec<_> = floating.map(|(place, image)| format!("{place}: {image:?}")).collect();
    expect_none(&floating, "name a version in the tag, such as postgres:15-alpine");
}

#[test]
fn dockerfiles_default_to_the_documented_images() {
    let example = example();
    let mut findings = Vec::new();
    for file in repo::files().iter().filter(|file| file.is_dockerfile()) {
        for (number, line) in file.lines() {
            let Some((name, value)) = line.strip_prefix("ARG ").and_then(|arg| arg.split_once('='))
            else {
                continue;
            };
            let documented = example.get(name);
            if documented.is_some_and(|documented| documented != value) {
                findings.push(format!("{}:{number}: {name} is {value}", file.path));
            }
        }
    }
    expect_none(&findings, "write the value of .env.example");
}
