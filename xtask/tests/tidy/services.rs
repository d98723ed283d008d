//! Every service of compose.yaml keeps the policy that the contract names.

use std::collections::BTreeMap;

use crate::repo::{self, expect_none};

/// The indented block below a top-level key, and its entries by name.
fn entries(text: &str, key: &str) -> BTreeMap<String, Vec<String>> {
    let inside = text.lines().skip_while(|line| *line != format!("{key}:")).skip(1);
    let inside = inside.take_while(|line| line.is_empty() || line.starts_with([' ', '#']));
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut current = String::new();
    for line in inside.filter(|line| !line.trim_start().starts_with('#')) {
        let indent = line.len() - line.trim_start().len();
        if indent == 2 {
            current = line.trim().trim_end_matches(':').to_owned();
            found.entry(current.clone()).or_default();
        } else if indent == 4 && !current.is_empty() {
            found.entry(current.clone()).or_default().push(line.trim().to_owned());
        }
    }
    found
}

/// The keys of a top-level anchor such as `x-service: &service`.
fn anchor(text: &str, key: &str) -> Vec<String> {
    let start = format!("{key}: &");
    let inside = text.lines().skip_while(|line| !line.starts_with(&start)).skip(1);
    let inside = inside.take_while(|line| line.starts_with(' '));
    inside.map(|line| line.trim().to_owned()).collect()
}

#[test]
fn every_service_says_how_it_is_probed_restarted_and_stopped() {
    let text = repo::file("compose.yaml").text;
    let policy = anchor(&text, "x-service");
    let services = entries(&text, "services");
    assert_eq!(services.len(), 4, "nginx, backend, postgres, redis: {:?}", services.keys());
    let mut findings = Vec::new();
    for (name, lines) in &services {
        let has_policy = lines.iter().any(|line| line == "<<: *service");
        let has = |key: &str| {
            let is_key = |line: &String| line.starts_with(key);
            lines.iter().any(is_key) || has_policy && policy.iter().any(is_key)
        };
        for key in ["healthcheck:", "stop_grace_period:", "restart:", "logging:", "security_opt:"] {
            if !has(key) {
                findings.push(format!("compose.yaml: {name} has no `{key}`"));
            }
        }
    }
    let fix =
        "give it `<<: *service` for the policy, and a health check and a grace period of its own";
    expect_none(&findings, fix);
    assert!(
        policy.iter().any(|line| line == "restart: unless-stopped"),
        "\n\nfix: write `restart: unless-stopped` into x-service, so that `docker stop` means stop\n"
    );
}

#[test]
fn an_overlay_repeats_no_command() {
    let mut findings = Vec::new();
    let is_overlay = |path: &str| path != "compose.yaml";
    for file in repo::files().iter().filter(|file| file.is_compose() && is_overlay(&file.path)) {
        for (name, lines) in entries(&file.text, "services") {
            let repeats = lines.iter().filter(|line| line.starts_with("command:"));
            findings.extend(repeats.map(|line| format!("{}: {name}: {line}", file.path)));
        }
    }
    expect_none(
        &findings,
        "a `command:` in an overlay replaces the base's: configure it elsewhere",
    );
}
