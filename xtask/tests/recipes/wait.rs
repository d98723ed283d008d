//! Services that do not get ready, and an engine that does not answer meanwhile.

use std::fs;
use std::io::Write;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use crate::bench::{Bench, ok, said};

#[test]
fn a_container_that_cannot_start_is_named_with_the_engines_words() {
    let bench = Bench::new();
    bench.state("fail-start", "Error response from daemon: exec format error\n");
    let output = bench.xtask(&["up"]);
    assert_eq!(output.status.code(), Some(1));
    let text = said(&output);
    assert!(text.contains("db: it could not be started"), "{text}");
    assert!(text.contains("hint: the image is for another processor architecture"), "{text}");
    assert!(text.contains("web: not started yet; it waits for db"), "{text}");
}

#[test]
fn what_compose_could_not_make_is_said_once_and_blamed_on_nobody_else() {
    let bench = Bench::with_a_container();
    bench.state("fail-up", "Error response from daemon: no space left on device\n");
    let output = bench.xtask(&["up"]);
    assert_eq!(output.status.code(), Some(1));
    let text = said(&output);
    assert_eq!(text.matches("no space left").count(), 1, "{text}");
    assert!(text.contains("containers: create the containers: "), "{text}");
    assert!(text.contains("hint: the disk is full"), "{text}");
    assert!(text.contains("web: its container was not made"), "{text}");
    assert!(!text.contains("db: "), "{text}");
}

#[test]
fn an_engine_that_is_away_for_a_while_is_asked_again() {
    let bench = Bench::with_a_container();
    bench.state("mute-web", "");
    let mut child = bench.command(&["up", "--timeout", "30"]);
    let child = child.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let calls = bench.path("bin/state/calls");
    let until = |what: &str, times: usize| {
        let deadline = Instant::now() + Duration::from_secs(60);
        let count = || fs::read_to_string(&calls).unwrap_or_default().matches(what).count();
        let so_far = count();
        while count() < so_far + times {
            assert!(Instant::now() < deadline, "{what} is not called");
            thread::sleep(Duration::from_millis(10));
        }
    };
    until("start id-web", 1);
    bench.state("fail-ps", "Cannot connect to the Docker daemon\n");
    until("ps --all", 2);
    fs::remove_file(bench.path("bin/state/fail-ps")).unwrap();
    let healthy = r#"{"Action":"health_status: healthy","Actor":{"Attributes":{"com.docker.compose.service":"web"}}}"#;
    let mut events =
        fs::OpenOptions::new().append(true).open(bench.path("bin/state/events")).unwrap();
    writeln!(events, "{healthy}").unwrap();
    let text = ok(&child.wait_with_output().unwrap());
    assert!(text.contains("the Docker Engine does not answer; it is asked again"), "{text}");
    assert!(text.contains("all is up"), "{text}");
}

#[test]
fn a_service_that_never_gets_ready_ends_the_wait_at_its_deadline() {
    let bench = Bench::new();
    bench.state("mute", "");
    let output = bench.xtask(&["up", "--timeout", "1"]);
    assert_eq!(output.status.code(), Some(1));
    let text = said(&output);
    assert!(text.contains("web: not started yet; it waits for db"), "{text}");
    assert!(text.contains("what works was left running"), "{text}");
}
