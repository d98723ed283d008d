//! `deploy`: nobody notices a new version, nor one that is no good, nor a deploy that is killed half way.

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::images::distro_images;
use crate::stand::{Run, Stand, docker, run};

/// Far more than any of it takes.
const LIMIT: Duration = Duration::from_secs(120);

/// A new version, as far as Compose can tell.
fn change(stand: &Stand, environment: &str) {
    stand.overlay(&format!("services:\n  backend:\n    environment:\n      {environment}\n"));
}

/// Carries something out while people read and write, and returns what those did not get.
fn visited<T>(stand: &Stand, body: impl FnOnce() -> T) -> (T, u32, Vec<String>) {
    let (end, count) = (AtomicBool::new(false), AtomicU32::new(0));
    let visit = |number: u32| {
        let mut failures = Vec::new();
        let (address, mut turn) = (stand.address(), 0);
        // On one connection for as long as nobody closes it.
        let agent: ureq::Agent =
            ureq::Agent::config_builder().http_status_as_error(false).build().into();
        while !end.load(Ordering::Relaxed) {
            turn += 1;
            // A wrong password is a write to Redis; it is refused as such, or for there being too many.
            let answer = if number == 0 {
                agent.get(format!("{address}/api/session")).call()
            } else {
                let body =
                    json!({"email": format!("{turn}@example.com"), "password": "wrong password"});
                let request = agent.post(format!("{address}/api/session"));
                request.header("Sec-Fetch-Site", "same-origin").send_json(body)
            };
            count.fetch_add(1, Ordering::Relaxed);
            match answer.map(|answer| answer.status().as_u16()) {
                Ok(401 | 429) => {}
                other => failures.push(format!("{number}: {other:?}")),
            }
        }
        failures
    };
    thread::scope(|scope| {
        let visitors = [0, 1].map(|number| scope.spawn(move || visit(number)));
        let done = body();
        end.store(true, Ordering::Relaxed);
        let failures = visitors.map(|visitor| visitor.join().unwrap()).concat();
        (done, count.load(Ordering::Relaxed), failures)
    })
}

fn backend_id(stand: &Stand) -> String {
    docker(&["inspect", "--format", "{{.Id}}", &stand.container("backend")]).ok().stdout
}

/// nginx was told to send requests to the second container.
fn is_moved(stand: &Stand) -> bool {
    let test = ["exec", &stand.container("nginx"), "test", "-e", "/tmp/switched"];
    docker(&test).code == Some(0)
}

/// What a deploy uses for a while is gone.
#[track_caller]
fn expect_no_trace(stand: &Stand) {
    let green = format!("{}-backend-green", stand.name);
    assert_ne!(docker(&["inspect", &green]).code, Some(0), "the second container is still there");
    assert!(!is_moved(stand), "requests still go there");
}

#[track_caller]
fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < LIMIT, "{what}: not within {LIMIT:?}");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_new_version_takes_over_and_no_request_is_lost() {
    let stand = Stand::new();
    stand.up().ok();
    stand.xtask(&["deploy"]).ok().says(&["nothing to deploy"]);
    let before = (stand.container_ids(), backend_id(&stand));

    change(&stand, "SHADE: blue");
    let plan = stand.xtask(&["deploy", "--dry-run"]).ok().stdout;
    assert_eq!(plan, "replace   backend   its configuration changed; without a pause\n");
    let (deployed, count, failures) = visited(&stand, || stand.xtask(&["deploy", "--watch", "2"]));
    let deployed: Run = deployed.ok().says(&["none failed", "deployed in"]);
    assert!(failures.is_empty(), "{} of {count}: {failures:#?}\n{}", failures.len(), deployed.text);
    assert!(count > 20, "{count} requests are no load");
    assert_ne!(backend_id(&stand), before.1);
    let kept = stand.container_ids().iter().filter(|id| before.0.contains(id)).count();
    assert_eq!(kept, 3, "the others were left alone");
    expect_no_trace(&stand);
    stand.up().ok().says(&["nothing to do"]);

    // What takes a pause is left to `up`.
    stand.overlay("services:\n  redis:\n    environment:\n      SHADE: green\n");
    let refused = stand.xtask(&["deploy"]).fails(1, &["recreate redis", "with the pause"]);
    assert!(refused.text.contains("up` does all of it"), "{}", refused.text);
}

#[test]
fn a_version_that_is_no_good_is_rolled_back_and_a_killed_deploy_is_finished() {
    let stand = Stand::new();
    stand.up().ok();
    let before = backend_id(&stand);

    // It does not start.
    change(&stand, "SESSION_SECRET: not-hexadecimal");
    let (refused, count, failures) = visited(&stand, || stand.xtask(&["deploy"]));
    refused.fails(1, &["rolled back: the version before serves on", "SESSION_SECRET", "exit code"]);
    assert!(failures.is_empty() && count > 0, "{failures:#?}");
    assert_eq!(backend_id(&stand), before);
    expect_no_trace(&stand);

    // It starts, and ends while it is watched.
    change(&stand, "SHADE: blue");
    let (mut deploy, green) =
        (stand.spawn(&["deploy", "--watch", "600"]), format!("{}-backend-green", stand.name));
    wait_until("the switch", || is_moved(&stand));
    docker(&["kill", &green]).ok();
    let text = deploy.wait_with_output();
    let text = text.map(|output| String::from_utf8_lossy(&output.stderr).into_owned()).unwrap();
    assert!(text.contains("rolled back: the version before serves on"), "{text}");
    assert_eq!(backend_id(&stand), before);
    expect_no_trace(&stand);

    // Killed in the middle: requests are answered all the while, and `up` does the rest.
    deploy = stand.spawn(&["deploy", "--watch", "600"]);
    wait_until("the switch", || is_moved(&stand));
    run(Command::new("kill").args(["-KILL", &deploy.id().to_string()])).ok();
    deploy.wait().unwrap();
    // With the service's own container away, only the second one serves: nothing may touch it.
    docker(&["kill", &stand.container("backend")]).ok();
    let id_of_green = || docker(&["inspect", "--format", "{{.Id}}", &green]).ok().stdout;
    let serving = id_of_green();
    stand
        .xtask(&["deploy"])
        .fails(1, &[&green, "may be what serves; `cargo xtask", "up` finishes it"]);
    assert_eq!(id_of_green(), serving);
    let (up, count, failures) = visited(&stand, || stand.up());
    up.ok().says(&["which an interrupted deploy left"]);
    assert!(failures.is_empty() && count > 0, "{failures:#?}");
    assert_ne!(backend_id(&stand), before);
    expect_no_trace(&stand);
}

/// A service beside the four, built from a folder of its own; and one whose image only its name tells.
#[test]
fn services_of_ones_own_are_built_pulled_and_deployed() {
    distro_images();
    let stand = Stand::new();
    stand.set("IMAGE_SOURCE", "distro");
    let folder = stand.folder().join("mailer");
    fs::create_dir(&folder).unwrap();
    let version = |number: u32| {
        let lines = ["FROM localhost/distro/debian:12", "STOPSIGNAL SIGKILL"];
        let last = format!("LABEL number={number}\nCMD [\"sleep\", \"infinity\"]\n");
        fs::write(folder.join("Dockerfile"), format!("{}\n{last}", lines.join("\n"))).unwrap();
    };
    let services = |image: &str| {
        let mailer =
            format!("  mailer:\n    build: {}\n    depends_on: [postgres]\n", folder.display());
        stand.overlay(&format!("services:\n{mailer}  helper:\n    image: {image}\n"));
    };
    let label = || {
        let format = "{{index .Config.Labels \"number\"}}";
        docker(&["inspect", "--format", format, &stand.container("mailer")]).ok().stdout
    };
    // Nobody listens there.
    let nowhere = format!("127.0.0.1:{}/no/such:1", crate::stand::free_port());
    version(1);
    services(&nowhere);
    stand.up().fails(1, &[&nowhere, "which a service needs", "docker load"]);
    // An image that is here already, with a service that would end at once.
    services("localhost/distro/redis:7.0");
    stand.up().ok().says(&["mailer", "helper"]);
    assert_eq!(label(), "1\n");
    let again = stand.up().ok().says(&["nothing to do"]);
    assert!(!again.text.contains("image mailer"), "{}", again.text);

    version(2);
    let backend = backend_id(&stand);
    stand.xtask(&["deploy", "--dry-run"]).ok().says(&["mailer", "nobody waits for it"]);
    stand.xtask(&["deploy", "--watch", "1"]).ok().says(&["deployed in"]);
    assert_eq!(label(), "2\n");
    assert_eq!(backend_id(&stand), backend);
    stand.up().ok().says(&["nothing to do"]);
}

/// An image that some version was built as is made of the present one, with another label.
fn as_another(image: &str, name: &str) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("Dockerfile"), format!("FROM {image}\nLABEL former=1\n")).unwrap();
    docker(&["build", "--quiet", "--tag", name, &folder.path().display().to_string()]).ok();
}

#[test]
fn there_is_a_way_back_to_the_version_before() {
    let stand = Stand::new();
    let [current, previous] =
        ["current", "previous"].map(|tag| format!("{}-backend:{tag}", stand.name));
    stand.up().ok();
    let id_of =
        |reference: &str| docker(&["image", "inspect", "--format", "{{.Id}}", reference]).stdout;
    let serving =
        || docker(&["inspect", "--format", "{{.Image}}", &stand.container("backend")]).ok().stdout;
    // Nothing was replaced yet.
    stand.xtask(&["deploy", "--back"]).fails(1, &[&previous, "no version to go back to"]);

    // The version that is checked out takes the place of one that serves.
    as_another(&current, &current);
    let former = id_of(&current);
    let mut compose = Command::new("docker");
    compose.args(["compose", "--env-file"]).arg(stand.env_file());
    compose.env("COMPOSE_FILE", stand.get("COMPOSE_FILE")).current_dir(crate::stand::root());
    run(compose.args(["up", "--detach", "--wait", "--no-build", "backend"])).ok();
    assert_eq!(serving(), former);
    stand.xtask(&["deploy", "--watch", "1"]).ok().says(&["deployed in"]);
    let checked_out = serving();
    assert_eq!((id_of(&current), id_of(&previous)), (checked_out.clone(), former.clone()));
    assert_ne!(checked_out, former);
    stand.up().ok().says(&["nothing to do"]);

    let plan = stand.xtask(&["deploy", "--back", "--dry-run"]).ok();
    plan.says(&["replace   backend", &previous, "the migrations stay applied"]);
    assert_eq!((serving(), id_of(&current)), (checked_out.clone(), checked_out.clone()));
    let (back, count, failures) =
        visited(&stand, || stand.xtask(&["deploy", "--back", "--watch", "1"]));
    let back = back.ok().says(&["none failed", "the version before", "builds what is checked out"]);
    assert!(failures.is_empty() && count > 0, "{failures:#?}\n{}", back.text);
    assert_eq!((serving(), id_of(&previous)), (former.clone(), checked_out.clone()));
    expect_no_trace(&stand);
    // As it said.
    stand.xtask(&["deploy", "--dry-run"]).ok().says(&["build     backend"]);
    stand.up().ok().says(&["image backend"]);
    assert_eq!((serving(), id_of(&previous)), (checked_out.clone(), former.clone()));
    stand.up().ok().says(&["nothing to do"]);

    // One that is no good any more is rolled back like any other, and its name with it.
    let redis = docker(&["inspect", "--format", "{{.Image}}", &stand.container("redis")]).ok();
    docker(&["tag", redis.stdout.trim(), &previous]).ok();
    stand.xtask(&["deploy", "--back"]).fails(1, &["rolled back: the version before serves on"]);
    assert_eq!((serving(), id_of(&current)), (checked_out.clone(), checked_out));
    expect_no_trace(&stand);
    stand.up().ok().says(&["nothing to do"]);
    docker(&["image", "rm", former.trim()]).ok();
}
