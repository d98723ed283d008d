//! Broken as a user would break it: each time the message names the true cause on the first screen.

use std::fs;
use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::stand::{Stand, docker, free_port, root, run};

#[test]
fn a_taken_port_is_met_with_the_name_of_its_holder() {
    let stand = Stand::new();
    stand.xtask(&["build", "--yes"]).ok();
    let port: u16 = stand.get("HTTP_PORT").parse().unwrap();
    let holder = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let me = format!("process {}", std::process::id());
    stand.up().fails(1, &["nginx wants port", &port.to_string(), &me, "HTTP_PORT"]);
    assert_eq!(stand.container_ids(), [""; 0], "nothing was changed before the check");
    drop(holder);
    stand.up().ok();

    // A container that works is not taken down for one that could not start.
    let before = stand.container_ids();
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().port().to_string();
    stand.set("HTTP_PORT", &taken);
    stand.up().fails(1, &["nginx wants port", &taken, &me]);
    assert_eq!(stand.container_ids(), before);
    stand.set("HTTP_PORT", &port.to_string());
    stand.up().ok().says(&["nothing to do"]);

    // With both of its neighbours the backend is made anew, too; that is said before.
    for port in ["PG_PORT", "HTTPS_PORT"] {
        stand.set(port, &free_port().to_string());
    }
    let plan = stand.xtask(&["up", "--dry-run"]).ok().stdout;
    assert_eq!(plan.matches("recreate").count(), 3, "{plan}");
    let before = stand.container_ids();
    stand.up().ok().says(&["all is up"]);
    let kept = stand.container_ids().iter().filter(|id| before.contains(id)).count();
    assert_eq!(kept, 1, "Redis is kept, and nothing else");

    // Held by another stack: the container is named.
    let other = Stand::new();
    other.xtask(&["build", "--yes"]).ok();
    other.set("PG_PORT", &stand.get("PG_PORT"));
    other.up().fails(1, &["postgres wants port", &stand.container("postgres"), "PG_PORT"]);
}

#[test]
fn a_wrong_password_on_an_existing_volume_is_recognised() {
    let stand = Stand::new();
    stand.up().ok();
    stand.xtask(&["down"]).ok();
    stand.set("PG_PASSWORD", &"0".repeat(64));
    // With the previous one at hand it would be a rotation.
    fs::remove_file(root().join(".secrets").join(&stand.name).join("pg_password")).unwrap();
    stand.up().fails_at_first_sight(
        1,
        &[
            "backend:",
            "hint: the volume `pgdata` was made with another password",
            "nginx: not started yet; it waits for backend",
        ],
    );
    // What worked was left running.
    assert_eq!(stand.status()["services"][0]["health"], "healthy");
}

#[test]
fn a_backend_that_ends_at_its_start_shows_its_own_words() {
    let stand = Stand::new();
    stand.xtask(&["build", "--yes"]).ok();
    stand.overlay(
        "services:\n  backend:\n    environment:\n      SESSION_SECRET: not-hexadecimal\n",
    );
    stand.up().fails_at_first_sight(
        1,
        &["backend: it ended 3 times", "SESSION_SECRET", "it waits for backend"],
    );
}

#[test]
fn a_migration_that_fails_is_named_with_its_file() {
    let stand = Stand::new();
    stand.up().ok();
    // To the backend it looks as if the file had been edited since it was applied.
    stand.sql("UPDATE schema_migrations SET checksum = repeat('0', 64) WHERE version = 1");
    docker(&["restart", &stand.container("backend")]).ok();
    stand.xtask(&["wait"]).fails_at_first_sight(
        1,
        &[
            "backend: it ended 3 times",
            "hint: a migration did not apply; the log names its file",
            "0001_",
        ],
    );
}

#[test]
fn a_probe_that_never_succeeds_is_shown_with_its_output() {
    let stand = Stand::new();
    stand.xtask(&["build", "--yes"]).ok();
    stand.overlay(
        "services:\n  backend:\n    healthcheck:\n      test: [\"CMD\", \"/backend\", \"no-such-role\"]\n      \
         start_period: 1s\n      interval: 1s\n      retries: 2\n",
    );
    stand.up().fails_at_first_sight(
        1,
        &["backend: its health check gave up", "last health probe:", "no-such-role"],
    );
}

#[test]
fn a_postgres_that_keeps_ending_is_named_and_nobody_waits_for_the_time_out() {
    let stand = Stand::new();
    stand.xtask(&["build", "--yes"]).ok();
    stand.overlay(
        "services:\n  postgres:\n    command: [\"postgres\", \"-c\", \"no_such_setting=1\"]\n",
    );
    stand.up().fails_at_first_sight(
        1,
        &[
            "postgres: it ended 3 times",
            "no_such_setting",
            "backend: not started yet; it waits for postgres",
        ],
    );
}

#[test]
fn a_memory_limit_that_is_too_low_is_recognised() {
    let stand = Stand::new();
    stand.xtask(&["build", "--yes"]).ok();
    stand.overlay("services:\n  postgres:\n    mem_limit: 8m\n    memswap_limit: 8m\n");
    stand.up().fails_at_first_sight(
        1,
        &["postgres:", "memory", "hint: raise the service's memory limit"],
    );
}

#[test]
fn data_of_another_kind_of_image_is_refused() {
    let stand = Stand::new();
    stand.up().ok();
    stand.xtask(&["down"]).ok();
    let mount = format!("{}_pgdata:/data", stand.name);
    let script =
        "grep -qx glibc /data/.flavour && echo musl >/data/.flavour || echo glibc >/data/.flavour";
    let change = ["run", "--rm", "--user", "70:70", "--entrypoint", "sh", "--volume", &mount];
    docker(&[&change[..], &[&postgres_image(&stand), "-c", script]].concat()).ok();
    stand.up().fails(
        1,
        &[
            "postgres: it ended 3 times",
            "musl",
            "glibc",
            "hint: the data was made by another kind of image",
        ],
    );
}

fn postgres_image(stand: &Stand) -> String {
    let status = stand.status();
    status["services"][0]["image"].as_str().unwrap().to_owned()
}

#[test]
fn a_bad_environment_file_is_met_with_the_line() {
    let stand = Stand::new();
    let good = stand.env_text();
    let number = good.lines().count() + 1;
    stand.set_env_text(&(good.clone() + "this is no assignment\n"));
    stand.up().fails(1, &[&format!("line {number}: expected NAME=value")]);
    stand.set_env_text(&good.replace("PG_HOST=postgres\n", ""));
    stand.up().fails(1, &["PG_HOST is missing", "cargo xtask --env-file", "env init` adds"]);
    stand.xtask(&["env", "init"]).ok().says(&["added PG_HOST"]);
    stand.set("SESSION_SECRET", "");
    stand.up().fails(1, &["SESSION_SECRET is empty"]);
    stand.set("SESSION_SECRET", "abc");
    stand.up().fails(1, &["SESSION_SECRET", "too short"]);
    assert_eq!(stand.container_ids(), [""; 0]);
}

#[test]
fn an_engine_that_does_not_answer_is_told_from_everything_else() {
    let stand = Stand::new();
    let mut command = stand.command(&["status"]);
    command.env("DOCKER_HOST", "unix:///nonexistent/docker.sock");
    // It is not this host's own: nothing here could start it.
    let said = ["DOCKER_HOST=unix:///nonexistent/docker.sock does not answer", "start it there"];
    run(&mut command).fails(1, &said);
}

#[test]
fn an_image_for_another_architecture_is_recognised() {
    let stand = Stand::new();
    // A program for the other of the two common architectures: the field e_machine, at byte 18 of an
    // ELF file's header, says which (183: aarch64, 62: x86-64).
    let mut program = std::fs::read("/bin/sh").unwrap();
    program[18] = if cfg!(target_arch = "x86_64") { 183 } else { 62 };
    let path = stand.write("server", "");
    std::fs::write(&path, program).unwrap();
    run(Command::new("chmod").arg("755").arg(&path)).ok();
    stand.overlay(&format!(
        "services:\n  redis:\n    entrypoint: [/server]\n    volumes: [\"{}:/server:ro\"]\n",
        path.display()
    ));
    stand.up().fails(1, &["redis", "hint: the image is for another processor"]);
}

/// What a path is answered with, once it is this status.
#[track_caller]
fn until_answered(stand: &Stand, path: &str, status: u16) -> String {
    let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
    let (began, mut last) = (Instant::now(), String::new());
    while began.elapsed() < Duration::from_secs(120) {
        match agent.get(format!("{}{path}", stand.address())).call() {
            Ok(mut answer) if answer.status() == status => {
                return answer.body_mut().read_to_string().unwrap();
            }
            Ok(answer) => last = answer.status().to_string(),
            Err(error) => last = error.to_string(),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{path} is not answered with {status}, but at last with {last}");
}

/// After a restart of the engine addresses are dealt out anew, and nginx may be there first.
#[test]
fn nginx_starts_before_the_backend_and_finds_it_at_another_address() {
    let stand = Stand::new();
    stand.up().ok();
    let (nginx, backend) = (stand.container("nginx"), stand.container("backend"));
    let inspect = |format: &str| docker(&["inspect", "--format", format, &backend]).ok().stdout;
    const ADDRESS: &str = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
    let before = inspect(ADDRESS);
    docker(&["stop", &backend]).ok();
    // Somebody else takes the address. The label has it removed with the stack.
    let label = format!("com.docker.compose.project={}", stand.name);
    let network = format!("{}_internal", stand.name);
    let image = docker(&["inspect", "--format", "{{.Image}}", &nginx]).ok().stdout;
    let place = ["--label", &label, "--network", &network, "--entrypoint", "sleep"];
    docker(&[&["run", "--detach"][..], &place, &[image.trim(), "600"]].concat()).ok();
    docker(&["restart", &nginx]).ok();
    until_answered(&stand, "/", 200);
    let problem = until_answered(&stand, "/api/session", 502);
    assert!(problem.contains("The application does not answer"), "{problem}");
    docker(&["start", &backend]).ok();
    assert_ne!(inspect(ADDRESS), before, "it has its old address, so nothing is shown");
    until_answered(&stand, "/api/session", 401);
}
