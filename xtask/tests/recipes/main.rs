//! Recipes without Docker: the real program, a project folder of the test's own, and a fake
//! `docker` as the only program on PATH, which writes down how it was called. Each test compares
//! the exact commands.

// A test that panics has failed, which is what it is for; here that goes for its helpers too.
#![allow(clippy::unwrap_used)]

mod bench;
mod linter;
mod migrations;
mod ownership;
mod terminal;
mod wait;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use bench::{Bench, ok, said};

pub(crate) const COMPOSE: &str = "compose --env-file ROOT/.env --file compose.yaml";

#[test]
fn up_from_nothing_makes_and_starts_in_the_order_of_dependencies() {
    let bench = Bench::new();
    let text = ok(&bench.xtask(&["up"]));
    assert!(text.contains("all is up"), "{text}");
    let mut calls = bench.calls();
    // Where Compose's end is heard of before the engine's word on what it made, the engine is asked.
    let mut place = 0..;
    calls.retain(|call| {
        place.next() < Some(5) || !call.starts_with("ps ") && !call.starts_with("inspect ")
    });
    // Two questions are asked at the same time, and then two more.
    calls[..2].sort();
    calls[2..4].sort();
    let expected = [
        format!("{COMPOSE} config --format json"),
        format!("{COMPOSE} config --hash *"),
        "image inspect db:1 web:1".into(),
        "ps --all --quiet --no-trunc --filter label=com.docker.compose.project=trial".into(),
        format!(
            "{COMPOSE} --progress plain up --no-start --no-build --pull never --no-color db web"
        ),
        "start id-db".into(),
        "start id-web".into(),
    ];
    assert_eq!(calls, expected);
    let mode = fs::metadata(bench.path(".env")).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
}

#[test]
fn a_missing_image_is_pulled_and_nothing_is_built_for_it() {
    let bench = Bench::new();
    let both = fs::read_to_string(bench.path("bin/state/images.json")).unwrap();
    bench.state("images-after.json", &both);
    bench.state("images.json", r#"[{"Id":"i-db","RepoTags":["db:1"]}]"#);
    ok(&bench.xtask(&["up"]));
    let calls = bench.calls();
    assert_eq!(calls.iter().filter(|call| *call == "pull web:1").count(), 1, "{calls:?}");
    assert!(!calls.iter().any(|call| call.contains(" build")), "{calls:?}");
}

#[test]
fn a_dry_run_does_not_even_close_an_open_environment_file() {
    let bench = Bench::new();
    ok(&bench.xtask(&["env", "init"]));
    let path = bench.path(".env");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    ok(&bench.xtask(&["up", "--dry-run"]));
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
}

#[test]
fn a_dry_run_looks_and_changes_nothing() {
    let bench = Bench::new();
    ok(&bench.xtask(&["env", "init"]));
    bench.calls();
    let output = bench.xtask(&["up", "--dry-run"]);
    ok(&output);
    let plan = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(
        plan,
        "create    db        there is no container\ncreate    web       there is no container\n"
    );
    let looks = ["config", "ps", "image inspect"];
    let calls = bench.calls();
    assert!(calls.iter().all(|call| looks.iter().any(|look| call.contains(look))), "{calls:?}");
}

#[test]
fn a_dry_run_of_what_takes_minutes_brings_nothing_up() {
    let bench = Bench::new();
    ok(&bench.xtask(&["env", "init"]));
    bench.calls();
    for verb in [&["drill", "--quick"][..], &["bench", "up"], &["bench", "http"]] {
        let output = bench.xtask(&[verb, &["--dry-run"]].concat());
        ok(&output);
        assert!(said(&output).contains("would bring up a stack of its own"), "{verb:?}");
    }
    let calls = bench.calls();
    assert!(
        !calls.iter().any(|call| call.contains(" up ") || call.contains(" build")),
        "{calls:?}"
    );
}

#[test]
fn what_compose_says_as_it_fails_is_in_the_error() {
    let bench = Bench::new();
    bench.state("fail-config", "services.web.image: a mistake\n");
    let output = bench.xtask(&["up"]);
    assert_eq!(output.status.code(), Some(1));
    let text = said(&output);
    assert!(text.contains("failed (exit code 17)"), "{text}");
    assert!(text.contains("services.web.image: a mistake"), "{text}");
}

#[test]
fn without_docker_each_verb_says_how_to_get_it() {
    let bench = Bench::new();
    ok(&bench.xtask(&["env", "init"]));
    fs::remove_file(bench.path("bin/docker")).unwrap();
    for verb in ["status", "logs", "down", "wait"] {
        let output = bench.xtask(&[verb]);
        assert_eq!(output.status.code(), Some(1));
        assert!(said(&output).contains("`cargo xtask setup` installs it"), "{}", said(&output));
    }
}

#[test]
fn a_variable_of_the_shell_is_not_blamed_on_the_file() {
    let bench = Bench::new();
    ok(&bench.xtask(&["env", "init"]));
    for (name, value) in
        [("COMPOSE_FILE", "docker-compose.yml"), ("HTTP_PORT", ""), ("PG_PORT", "x")]
    {
        let output = bench.command(&["status"]).env(name, value).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(said(&output).contains("`unset` it there"), "{name}: {}", said(&output));
    }
}

#[test]
fn without_the_right_to_talk_to_the_engine_it_says_how_to_get_it() {
    let bench = Bench::new();
    bench.state(
        "fail-version",
        "permission denied while trying to connect to the Docker daemon socket\n",
    );
    let output = bench.xtask(&["up"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("sudo usermod"), "{}", said(&output));
}

#[test]
fn on_a_system_that_it_cannot_set_up_it_says_what_to_install() {
    let bench = Bench::new();
    fs::remove_file(bench.path("bin/docker")).unwrap();
    let output = bench.xtask(&["setup"]);
    assert_eq!(output.status.code(), Some(1));
    let text = said(&output);
    // Debian and Ubuntu have packages, which need consent; others get a list.
    let has_remedy = text.contains("pass --yes, or run") || text.contains("install Docker Engine");
    assert!(has_remedy || text.contains("apt-get"), "{text}");
    assert!(!bench.path("bin/state/calls").exists());
}

#[test]
fn wrong_usage_is_told_from_failure() {
    let bench = Bench::new();
    assert_eq!(bench.xtask(&["no-such-verb"]).status.code(), Some(2));
    assert_eq!(bench.xtask(&["logs", "wbe"]).status.code(), Some(1), "no .env yet");
    ok(&bench.xtask(&["env", "init"]));
    let output = bench.xtask(&["logs", "wbe"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("did you mean `web`?"), "{}", said(&output));
}

#[test]
fn an_environment_file_that_others_can_read_is_closed() {
    let bench = Bench::new();
    ok(&bench.xtask(&["env", "init"]));
    let path: &Path = &bench.path(".env");
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    let text = ok(&bench.xtask(&["env", "check"]));
    assert!(text.contains("readable by other users (mode 644)"), "{text}");
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn a_new_migration_has_the_next_number_and_a_name_that_the_engine_takes() {
    let bench = Bench::new();
    let folder = bench.path("backend/migrations");
    fs::create_dir_all(&folder).unwrap();
    for file in ["0009_a.sql", "0010_b.sql", "README.md"] {
        fs::write(folder.join(file), "").unwrap();
    }
    ok(&bench.xtask(&["migrate", "new", "add_tags", "--dry-run"]));
    assert!(!folder.join("0011_add_tags.sql").exists());
    let output = bench.xtask(&["migrate", "new", "add_tags"]);
    ok(&output);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "backend/migrations/0011_add_tags.sql\n");
    ok(&bench.xtask(&["migrate", "new", "index_tags", "--no-transaction"]));
    let text = fs::read_to_string(folder.join("0012_index_tags.sql")).unwrap();
    assert!(text.starts_with("-- no-transaction\n"), "{text}");
    let text = said(&bench.xtask(&["migrate", "new", "Add-Tags"]));
    assert!(text.contains("`Add-Tags` is no name for a migration"), "{text}");
    assert_eq!(bench.calls(), Vec::<String>::new());
}

const INSPECTED: [&str; 2] = [
    "ps --all --quiet --no-trunc --filter label=com.docker.compose.project=trial",
    "inspect --type=container id",
];

#[test]
fn down_keeps_data_and_deletes_it_only_on_a_word() {
    let bench = Bench::with_a_container();
    let down = format!("{COMPOSE} --progress plain down --remove-orphans");
    ok(&bench.xtask(&["down"]));
    // What Compose makes of its files is asked once and then remembered.
    let calls = bench.calls();
    assert_eq!(calls[calls.len() - 3..], [INSPECTED[0], INSPECTED[1], &down]);

    bench.state("volumes", "trial_data\nother_data\n");
    let output = bench.xtask(&["down", "--volumes"]);
    assert_eq!(output.status.code(), Some(1));
    let text = said(&output);
    assert!(text.contains("trial_data") && !text.contains("other_data"), "{text}");
    assert_eq!(bench.calls(), [INSPECTED[0], INSPECTED[1], "volume ls --quiet"]);

    ok(&bench.xtask(&["down", "--volumes", "--yes"]));
    assert_eq!(bench.calls().last(), Some(&format!("{down} --volumes")));
}

#[test]
fn logs_and_exec_hand_their_words_over_and_pass_the_exit_code_on() {
    let bench = Bench::with_a_container();
    let text = ok(&bench.xtask(&["logs", "db", "--tail", "5"]));
    let logs = format!("{COMPOSE} logs --tail 5 --no-color db");
    assert!(text.contains("done: compose"), "{text}");
    assert_eq!(bench.calls().last(), Some(&logs));
    let output = bench.xtask(&["exec", "db", "--", "df", "-h", "a file"]);
    assert_eq!(output.status.code(), Some(7), "{}", said(&output));
    assert_eq!(bench.calls().last().unwrap(), "exec --interactive id-1 df -h a file");
    let output = bench.xtask(&["exec", "web", "--", "true"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("`web` of `trial` does not run"), "{}", said(&output));
}

#[test]
fn verbose_echoes_each_command_and_quiet_says_nothing() {
    let bench = Bench::with_a_container();
    let text = ok(&bench.xtask(&["down", "--verbose"]));
    assert!(text.contains("$ docker ps --all --quiet --no-trunc --filter"), "{text}");
    assert!(text.contains("down --remove-orphans"), "{text}");
    assert_eq!(said(&bench.xtask(&["down", "--quiet"])), "");
    let output = bench.xtask(&["logs", "wbe", "--quiet"]);
    assert!(said(&output).contains("did you mean `web`?"), "an error is never left out");
}
