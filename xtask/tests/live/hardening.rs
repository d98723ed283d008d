//! Production in use, beside a local stack, and attacked from where an attacker would stand: inside a container, with the application's
//! own rights, and from outside.

use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use crate::domain;
use crate::https;
use crate::stand::{Run, Stand, Visitor, docker, run};

/// Runs a line in a service's container.
fn inside(stand: &Stand, service: &str, line: &str) -> Run {
    docker(&["exec", &stand.container(service), "sh", "-c", line])
}

fn expect_refused(run: &Run, reason: &str) {
    assert_ne!(run.code, Some(0), "it was allowed: {}", run.text);
    assert!(run.text.contains(reason), "expected {reason:?} in: {}", run.text);
}

fn the_root_file_system_cannot_be_written(stand: &Stand) {
    for service in ["nginx", "postgres", "redis"] {
        for place in ["/x", "/etc/x", "/usr/bin/x"] {
            expect_refused(&inside(stand, service, &format!("echo x >{place}")), "ead-only file");
        }
        let line = "cp /bin/sh /tmp/sh && /tmp/sh -c true";
        expect_refused(&inside(stand, service, line), "ermission denied");
    }
    // The backend has no shell to try it with; the host's root is stopped by the same mount.
    let format = "{{.State.Pid}}";
    let pid = docker(&["inspect", "--format", format, &stand.container("backend")]).ok().stdout;
    let touch = format!("touch /proc/{}/root/x", pid.trim());
    expect_refused(&stand.as_root(&touch), "Read-only file system");
}

fn the_application_has_the_rights_of_an_application(stand: &Stand) {
    let app = |statement: &str| {
        inside(
            stand,
            "postgres",
            &format!("psql -U app -d app -v ON_ERROR_STOP=1 -c \"{statement}\""),
        )
    };
    app("select count(*) from accounts").ok();
    for statement in [
        "create table x (i int)",
        "drop table accounts",
        "alter table accounts add column x int",
        "truncate accounts",
        "create role x superuser",
        "set role owner",
        "copy accounts to program 'id'",
        "select pg_read_file('/etc/passwd')",
    ] {
        expect_refused(&app(statement), "ERROR");
    }
    let login =
        "PGPASSWORD=$(head -n 1 /run/secrets/pg_owner_password) psql -h $(hostname -i) -d app";
    inside(stand, "postgres", &format!("{login} -U owner -c 'select 1'")).ok();
    for role in ["postgres", "backup"] {
        let line = format!("{login} -U {role} -c 'select 1'");
        expect_refused(&inside(stand, "postgres", &line), "pg_hba.conf rejects");
    }
}

fn redis_obeys_the_backend_in_its_own_matters_only(stand: &Stand) {
    let login =
        "REDISCLI_AUTH=$(head -n 1 /run/secrets/redis_password) redis-cli -e --user backend";
    inside(stand, "redis", &format!("{login} set session:x 1 ex 1")).ok();
    for command in
        ["FLUSHALL", "FLUSHDB", "KEYS '*'", "CONFIG GET '*'", "SHUTDOWN", "SET other 1", "ACL LIST"]
    {
        expect_refused(&inside(stand, "redis", &format!("{login} {command}")), "NOPERM");
    }
    expect_refused(&inside(stand, "redis", "redis-cli -e FLUSHALL"), "NOAUTH");
    let health = "redis-cli -e --user health --pass x --no-auth-warning GET session:x";
    expect_refused(&inside(stand, "redis", health), "NOPERM");
}

fn only_nginx_answers_from_outside(stand: &Stand) {
    for service in ["backend", "postgres", "redis"] {
        assert_eq!(docker(&["port", &stand.container(service)]).ok().stdout, "");
    }
    let addresses = run(Command::new("hostname").arg("-I")).stdout;
    let ports = [3000, 5432, 6379, stand.get("PG_PORT").parse().unwrap()];
    for address in addresses.split_whitespace().chain(["127.0.0.1"]).filter(|a| !a.contains(':')) {
        for port in ports {
            let place = format!("{address}:{port}").parse().unwrap();
            let reached = TcpStream::connect_timeout(&place, Duration::from_secs(2));
            // Something else may listen there, but not for this stack: what it holds is its own.
            let ours = docker(&[
                "ps",
                "--filter",
                &format!("name={}", stand.name),
                "--format",
                "{{.Ports}}",
            ]);
            assert!(reached.is_err() || !ours.stdout.contains(&format!(":{port}->")), "{place}");
        }
    }
}

/// A laptop's stack comes and goes, data and all, beside one of production that notices nothing.
fn a_local_stack_does_not_touch_it(stand: &Stand, browser: &https::Browser) {
    let before = stand.container_ids();
    let local = Stand::new();
    local.up().ok();
    let mut visitor = Visitor::new(&local);
    visitor.sign_up();
    visitor.write("on the laptop");
    let texts = browser.get(domain::PATH).body;
    assert!(texts.contains("over HTTPS") && !texts.contains("on the laptop"), "{texts}");
    assert!(!visitor.sees("over HTTPS"));
    local.xtask(&["down", "--volumes", "--yes"]).ok();
    assert_eq!(stand.container_ids(), before);
    assert!(browser.get(domain::PATH).body.contains("over HTTPS"));
}

#[test]
fn production_serves_and_holds_against_who_got_in() {
    let stand = Stand::production();
    // Not the address that anything here would try by itself.
    stand.set("HTTP_ADDRESS", "127.0.0.5");
    stand.xtask(&["cert", "self-signed", "--yes"]).ok();
    stand.up().ok().says(&["https://127.0.0.5:"]);
    let browser = https::serves_people(&stand);
    https::port_80_leads_to_https(&stand, &browser);
    https::a_certificate_is_renewed_unnoticed(&stand, &browser);
    a_local_stack_does_not_touch_it(&stand, &browser);
    the_root_file_system_cannot_be_written(&stand);
    the_application_has_the_rights_of_an_application(&stand);
    redis_obeys_the_backend_in_its_own_matters_only(&stand);
    only_nginx_answers_from_outside(&stand);
    for (service, secret) in [("nginx", "session_secret"), ("redis", "pg_password")] {
        let line = format!("cat /run/secrets/{secret}");
        expect_refused(&inside(&stand, service, &line), "No such file");
    }

    // With a root that cannot be written, without capabilities, and through HTTPS.
    let files = stand.get("COMPOSE_FILE");
    stand.overlay("services:\n  backend:\n    environment:\n      SHADE: blue\n");
    stand.xtask(&["deploy", "--watch", "1"]).ok().says(&["none failed", "deployed in"]);
    stand.set("COMPOSE_FILE", &files);
    stand.xtask(&["deploy", "--watch", "1"]).ok().says(&["none failed", "deployed in"]);
    assert!(browser.get("/about").body.contains("<title>"));

    let audit = stand.xtask(&["audit", "--running"]).ok();
    assert!(!audit.text.contains("not checked"), "{}", audit.text);
    stand.xtask(&["parity"]).ok().says(&["4 services compared"]);
    // A container that somebody changed by hand is told from one that the files describe.
    docker(&["update", "--pids-limit", "500", &stand.container("redis")]).ok();
    docker(&["network", "connect", "bridge", &stand.container("redis")]).ok();
    let drifted = stand.xtask(&["parity"]);
    drifted.fails(1, &["drift: redis pids", "500", "drift: redis networks", "bridge"]);
}
