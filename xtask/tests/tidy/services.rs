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
    for name in ["nginx", "backend", "postgres", "redis"] {
        assert!(services.contains_key(name), "{name} is not among {:?}", services.keys());
    }
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

/// A size as configuration files write it, in bytes: `256mb`, `1g`, `256MB`.
fn bytes(text: &str) -> u64 {
    let text = text.trim().to_lowercase();
    let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
    let unit = match text[digits.len()..].trim_end_matches('b') {
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        other => panic!("{text:?} has no unit that this test knows: {other:?}"),
    };
    digits.parse::<u64>().unwrap() * unit
}

/// What follows `key` on the first line of a file that begins with it.
fn setting(path: &str, key: &str) -> u64 {
    let file = crate::repo::file(path);
    let value = file.text.lines().find_map(|line| line.strip_prefix(key));
    bytes(value.unwrap_or_else(|| panic!("{path} does not set {key}")))
}

/// The memory limit of a service in production.
fn memory_limit(service: &str) -> u64 {
    let services = entries(&crate::repo::file("compose.prod.yaml").text, "services");
    let limit = services[service].iter().find_map(|line| line.strip_prefix("mem_limit: "));
    bytes(limit.unwrap_or_else(|| panic!("{service} has no mem_limit in compose.prod.yaml")))
}

#[test]
fn what_a_server_takes_follows_its_containers_limit() {
    let limit = memory_limit("postgres");
    let conf = "deploy/postgres/postgresql.conf";
    assert_eq!(setting(conf, "shared_buffers = "), limit / 4, "a quarter of postgres' mem_limit");
    let cache = setting(conf, "effective_cache_size = ");
    assert_eq!(cache, limit / 4 * 3, "three quarters of postgres' mem_limit");
    let redis = setting("deploy/redis/redis.conf", "maxmemory ");
    assert!(redis * 2 <= memory_limit("redis"), "twice `maxmemory` must fit: a rewrite copies");
}

/// What a laptop publishes, only the laptop reaches. Production says otherwise in its own file, and the audit
/// and the parity rules look at that.
#[test]
fn every_port_of_a_laptop_is_bound_to_its_own_address() {
    let text = repo::file("compose.yaml").text;
    let mut lines = text.lines();
    let mut published = Vec::new();
    while lines.by_ref().any(|line| line.trim() == "ports:") {
        published.extend(lines.by_ref().take_while(|line| line.trim_start().starts_with("- ")));
    }
    assert!(published.len() >= 3, "nginx, PostgreSQL and Redis publish one each: {published:?}");
    let is_open = |line: &&str| !line.trim_start().starts_with("- \"127.0.0.1:");
    let open: Vec<String> = published
        .iter()
        .filter(|line| is_open(line))
        .map(|line| format!("compose.yaml: {}", line.trim()))
        .collect();
    expect_none(&open, "publish it as \"127.0.0.1:${NAME_PORT}:PORT\"");
}
