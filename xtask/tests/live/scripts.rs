//! The scripts for a host that has only the image and no Rust.

use std::process::Command;

use crate::stand::{Stand, docker, free_port, root, run};

fn script(name: &str) -> Command {
    let mut command = Command::new(root().join("scripts/deploy").join(name));
    command.current_dir(root());
    command
}

#[test]
fn waiting_for_the_database_ends_when_it_answers_and_at_the_deadline() {
    let stand = Stand::new();
    stand.up().ok();
    let image = format!("{}-backend:current", stand.name);
    let nobody = free_port().to_string();
    let port = stand.get("PG_PORT");
    // With PostgreSQL's client where the host has it, and with nothing but the image.
    let bare = tempfile::tempdir().unwrap();
    for program in ["docker", "sh", "env", "date", "sleep"] {
        let path = run(Command::new("which").arg(program)).ok().stdout;
        std::os::unix::fs::symlink(path.trim(), bare.path().join(program)).unwrap();
    }
    for path in [std::env::var("PATH").unwrap(), bare.path().display().to_string()] {
        let wait = |args: &[&str]| {
            run(script("wait-for-db.sh").args(args).env("BACKEND_IMAGE", &image).env("PATH", &path))
        };
        wait(&["127.0.0.1", &port]).ok();
        wait(&["127.0.0.1", &nobody, "1"]).fails(1, &[]);
        wait(&["127.0.0.1"]).fails(2, &["usage"]);
        wait(&["127.0.0.1", "no-number"]).fails(2, &["no-number"]);
    }
}

#[test]
fn migrations_are_applied_by_the_script_and_only_once() {
    let stand = Stand::new();
    stand.xtask(&["build", "--yes"]).ok();
    let compose = |args: &[&str]| {
        let mut command = Command::new("docker");
        command.args(["compose", "--env-file"]).arg(stand.env_file()).args(args);
        command.env("COMPOSE_FILE", stand.get("COMPOSE_FILE")).current_dir(root());
        run(&mut command)
    };
    // PostgreSQL alone: no backend has migrated anything yet.
    compose(&["up", "--detach", "--wait", "postgres"]).ok();
    let migrate = || {
        let mut command = script("run-migrations.sh");
        command.env("ENV_FILE", stand.env_file());
        run(&mut command)
    };
    let count = || {
        let words = ["psql", "--", "-Atc", "select count(*) from schema_migrations"];
        stand.xtask(&words).ok().stdout.trim().parse::<usize>().unwrap()
    };
    migrate().ok();
    let files = std::fs::read_dir(root().join("backend/migrations")).unwrap().flatten();
    let files = files.filter(|file| file.path().extension().is_some_and(|e| e == "sql")).count();
    assert_eq!(count(), files);
    migrate().ok();
    assert_eq!(count(), files);
    let leftover =
        docker(&["ps", "--all", "--quiet", "--filter", &format!("name={}-backend", stand.name)]);
    assert_eq!(leftover.ok().stdout, "");
}

#[test]
fn a_health_probe_asks_until_it_is_answered_and_tells_what_was_said_last() {
    let folder = tempfile::tempdir().unwrap();
    let probe = |asked: &str| {
        let mut command = Command::new(root().join("deploy/probe.sh"));
        run(command.args(["sh", "-c", asked]).current_dir(folder.path()))
    };
    // Each attempt leaves a line.
    let third_time = "echo >>attempts; [ $(wc -l <attempts) -ge 3 ] && echo up";
    assert_eq!(probe(third_time).ok().stdout, "up\n");
    let attempts = std::fs::read_to_string(folder.path().join("attempts")).unwrap();
    assert_eq!(attempts.len(), 3);
    probe("echo the database is starting; exit 7").fails(7, &["the database is starting"]);
}
