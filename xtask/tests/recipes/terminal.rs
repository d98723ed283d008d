//! What becomes of a command whose terminal, or whose reader, goes away; and for which stack its words are.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::bench::{Bench, ok, said};

/// Far more than a fake program takes.
const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn what_nobody_listens_to_is_done_all_the_same() {
    let bench = Bench::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    // As of `cargo xtask up 2>&1 | head -1`, once head has its line.
    let status = bench.command(&["up"]).stderr(writer).status().unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(bench.calls().contains(&"start id-web".to_owned()));
}

#[test]
fn a_terminal_that_is_closed_ends_a_command_as_ctrl_c_does() {
    let bench = Bench::new();
    bench.state("mute", "");
    let mut child =
        bench.command(&["up"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let started = Instant::now();
    let calls = bench.path("bin/state/calls");
    // Now it waits for a database that never gets healthy.
    while !fs::read_to_string(&calls).unwrap_or_default().contains("start id-db") {
        assert!(started.elapsed() < LIMIT, "it never starts the database");
        thread::sleep(Duration::from_millis(10));
    }
    Command::new("kill").args(["-HUP", &child.id().to_string()]).status().unwrap();
    let status = child.wait().unwrap();
    assert_eq!((status.code(), status.signal()), (Some(130), None));
}

#[test]
fn a_next_step_names_the_stack_that_it_is_for() {
    let bench = Bench::new();
    ok(&bench.xtask(&["--env-file", ".env.blue", "env", "init"]));
    let text = said(&bench.xtask(&["--env-file", ".env.blue", "wait"]));
    assert!(text.contains("`cargo xtask --env-file .env.blue up` makes and starts them"), "{text}");
    let text = said(&bench.xtask(&["--prod", "status"]));
    assert!(text.contains("`cargo xtask --prod env init` writes it"), "{text}");
}
