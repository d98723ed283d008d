//! The life of a stack: up, again, down, up, and what must survive each.

use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use crate::kills::Kills;
use crate::stand::{Run, Stand, Visitor, docker, root, run};

#[test]
fn a_session_and_what_was_written_survive_down_and_up() {
    let stand = Stand::new();
    stand.up().ok().says(&["all is up in", &stand.address()]);
    let mut visitor = Visitor::new(&stand);
    visitor.sign_up();
    visitor.write("still here");
    stand.xtask(&["down"]).ok();
    assert_eq!(stand.container_ids(), [""; 0]);
    stand.up().ok();
    assert!(visitor.sees("still here"));
}

#[test]
fn up_again_changes_nothing_and_says_so() {
    let stand = Stand::new();
    stand.up().ok();
    let before = stand.container_ids();
    assert_eq!(before.len(), 4);
    stand.up().ok().says(&["nothing to do"]);
    assert_eq!(stand.container_ids(), before);
    let status = stand.status();
    assert_eq!(status["ready"], true, "{status}");
    assert_eq!(status["migrations"]["pending"], 0, "{status}");
    let names: Vec<&str> =
        status["services"].as_array().unwrap().iter().filter_map(|s| s["name"].as_str()).collect();
    assert_eq!(names, ["postgres", "redis", "backend", "nginx"]);
}

const SERVICES: [&str; 4] = ["postgres", "redis", "backend", "nginx"];

/// The id of each service's container and the start of its process; empty where there is none.
fn seen(stand: &Stand) -> Vec<(String, String)> {
    let of = |service: &&str, field: &str| {
        let format = format!("{{{{{field}}}}}");
        docker(&["inspect", "--format", &format, &stand.container(service)]).stdout
    };
    SERVICES.iter().map(|service| (of(service, ".Id"), of(service, ".State.StartedAt"))).collect()
}

/// What the dry run says it would do: service and action, but for what is only kept.
fn said_to_do(plan: &str) -> Vec<(String, String)> {
    let of_line = |line: &str| {
        let mut words = line.split_whitespace();
        let (action, service) = (words.next()?.to_owned(), words.next()?.to_owned());
        (action != "keep" && action != "leave").then_some((service, action))
    };
    plan.lines().filter_map(of_line).collect()
}

/// The same, as `status` has it.
fn pending(stand: &Stand) -> Vec<(String, String)> {
    let status = stand.status();
    let word = |step: &serde_json::Value, field: &str| step[field].as_str().unwrap().to_owned();
    let steps = status["pending"].as_array().unwrap().iter();
    steps.map(|step| (word(step, "service"), word(step, "action"))).collect()
}

/// Plans with the dry run, carries out, and compares what happened to every service with its word.
fn expect_plan(stand: &Stand, situation: &str, words: [&str; 4]) {
    let plan = stand.xtask(&["up", "--dry-run"]).ok().stdout;
    assert_eq!(pending(stand), said_to_do(&plan), "{situation}");
    let before = seen(stand);
    stand.up().ok();
    let after = seen(stand);
    for (index, (service, word)) in SERVICES.iter().zip(words).enumerate() {
        let is_it = |line: &&str| line.split_whitespace().any(|w| w == *service);
        let line = plan.lines().find(is_it).unwrap_or_default();
        assert!(line.starts_with(word), "{situation}: {service}, {word} expected:\n{plan}");
        let is_new = before[index].0 != after[index].0;
        let is_started = before[index].1 != after[index].1;
        let expected = match word {
            "create" | "recreate" => (true, true),
            "start" | "restart" => (false, true),
            _ => (false, false),
        };
        assert_eq!((is_new, is_started), expected, "{situation}: {word} {service}");
    }
    let after = stand.xtask(&["up", "--dry-run"]).ok().stdout;
    let is_settled = |line: &str| line.starts_with("keep") || line.starts_with("leave");
    assert!(after.lines().all(is_settled), "{situation}: {after}");
}

#[test]
fn what_the_dry_run_says_is_what_up_does() {
    let stand = Stand::new();
    stand.xtask(&["build", "--yes"]).ok();
    expect_plan(&stand, "nothing is there", ["create"; 4]);
    expect_plan(&stand, "all is well", ["keep"; 4]);
    // What is done to which containers, and the plan's word for each service.
    let keep = "keep";
    let situations: [(&[&str], &[&str], [&str; 4]); 8] = [
        (&["stop"], &["nginx"], [keep, keep, keep, "start"]),
        (&["kill"], &["redis"], [keep, "start", keep, keep]),
        (&["pause"], &["redis"], [keep, "resume", keep, keep]),
        (&["rm", "--force"], &["backend"], [keep, keep, "create", keep]),
        (&["stop"], &["postgres", "redis"], ["start", "start", keep, keep]),
        (&["stop"], &SERVICES, ["start"; 4]),
        (&["rm", "--force"], &["postgres", "nginx"], ["create", keep, keep, "create"]),
        (&["rm", "--force"], &SERVICES, ["create"; 4]),
    ];
    for (act, services, words) in situations {
        let names: Vec<String> = services.iter().map(|service| stand.container(service)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        docker(&[act, &names[..]].concat()).ok();
        expect_plan(&stand, &format!("{act:?} {services:?}"), words);
    }
    let names = SERVICES.map(|service| stand.container(service));
    docker(&[&["stop"], &names.each_ref().map(String::as_str)[..]].concat()).ok();
    docker(&["network", "rm", &format!("{}_internal", stand.name)]).ok();
    expect_plan(&stand, "no network any more", ["recreate"; 4]);
    stand.set("HTTP_PORT", &crate::stand::free_port().to_string());
    expect_plan(&stand, "another port of nginx", [keep, keep, keep, "recreate"]);
    stand.set("REDIS_PORT", &crate::stand::free_port().to_string());
    expect_plan(&stand, "another port of Redis", [keep, "recreate", keep, keep]);
    let (postgres, redis) = (stand.get("PG_PORT"), stand.get("REDIS_PORT"));
    stand.set("PG_PORT", &redis);
    stand.set("REDIS_PORT", &postgres);
    expect_plan(&stand, "ports exchanged", ["recreate", "recreate", keep, keep]);
    stand.set("APP_ENV", "local");
    expect_plan(&stand, "another environment", [keep, keep, "recreate", keep]);
    let of_us = |label: &str, value: &str| format!("com.docker.compose.{label}={value}");
    let (project, service) = (of_us("project", &stand.name), of_us("service", "gone"));
    let image = stand.status()["services"][1]["image"].as_str().unwrap().to_owned();
    docker(&["create", "--label", &project, "--label", &service, &image]).ok();
    expect_plan(&stand, "a container of no service", [keep; 4]);
    assert_eq!(Visitor::new(&stand).get("/api/session").0, 401);
}

#[test]
fn an_image_that_is_gone_is_made_again() {
    let stand = Stand::new();
    stand.up().ok();
    stand.xtask(&["down"]).ok();
    docker(&["image", "rm", "--force", &format!("{}-backend:current", stand.name)]).ok();
    let plan = stand.xtask(&["up", "--dry-run"]).ok().stdout;
    assert!(plan.contains("build     backend"), "{plan}");
    stand.up().ok().says(&["image backend"]);
    assert_eq!(stand.status()["ready"], true);
}

#[test]
fn plain_compose_works_once_the_environment_is_written() {
    let stand = Stand::new();
    stand.xtask(&["build", "--yes"]).ok();
    let mut compose = std::process::Command::new("docker");
    compose.args(["compose", "--env-file"]).arg(stand.env_file());
    for file in stand.get("COMPOSE_FILE").split(':') {
        compose.args(["--file", file]);
    }
    compose.args(["up", "--detach", "--wait"]).current_dir(root());
    run(&mut compose).ok();
    assert_eq!(Visitor::new(&stand).get("/api/session").0, 401);
    stand.up().ok().says(&["nothing to do"]);
}

#[test]
fn deleting_data_asks_and_does_nothing_without_an_answer() {
    let stand = Stand::new();
    stand.up().ok();
    stand.xtask(&["down", "--volumes"]).fails(1, &["delete the volumes", "pgdata", "--yes"]);
    // A server that sets CI has consented to installations, and not to a loss.
    let mut command = stand.command(&["down", "--volumes"]);
    run(command.env("CI", "true")).fails(1, &["delete the volumes"]);
    assert_eq!(stand.container_ids().len(), 4);
    stand.xtask(&["down", "--volumes", "--yes"]).ok();
    let filter = format!("label=com.docker.compose.project={}", stand.name);
    assert_eq!(docker(&["volume", "ls", "--quiet", "--filter", &filter]).ok().stdout, "");
    stand.xtask(&["down"]).ok().says(&["nothing to do"]);
}

#[test]
fn two_at_once_take_turns_and_a_dead_holder_blocks_nobody() {
    let stand = Stand::new();
    stand.xtask(&["build", "--yes"]).ok();
    let first = stand.spawn(&["up", "--yes"]);
    let second = stand.spawn(&["up", "--yes"]);
    let outputs = [first, second].map(|child| child.wait_with_output().unwrap());
    let texts = outputs.map(|output| {
        assert!(output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    });
    assert_eq!(texts.iter().filter(|text| text.contains("nothing to do")).count(), 1, "{texts:?}");
    assert!(
        texts
            .iter()
            .any(|text| text.contains("waiting for `cargo xtask") && text.contains("up` (process")),
        "{texts:?}"
    );

    stand.xtask(&["down"]).ok();
    let mut holder = stand.spawn(&["up", "--yes"]);
    stand.wait_for_holder(holder.id());
    holder.kill().unwrap();
    holder.wait().unwrap();
    stand.up().ok();
}

/// Command lines on this machine that name the stack: what xtask started for it and did not end.
fn processes_of(stand: &Stand) -> Vec<String> {
    let of_process = |entry: std::fs::DirEntry| {
        let words = std::fs::read(entry.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&words).replace('\0', " ");
        line.contains(&stand.name).then_some(line)
    };
    std::fs::read_dir("/proc").unwrap().flatten().filter_map(of_process).collect()
}

#[test]
fn an_interrupted_up_says_so_and_the_next_one_goes_on() {
    let stand = Stand::new();
    stand.xtask(&["build", "--yes"]).ok();
    for delay in [40, 200, 400, 700, 1100, 1600] {
        let child = stand.spawn(&["up", "--yes"]);
        std::thread::sleep(Duration::from_millis(delay));
        let pid = child.id().to_string();
        run(std::process::Command::new("kill").args(["-INT", &pid]));
        let asked = Instant::now();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        // It may have been done by then; or it knew of no signal yet, and had begun nothing.
        let done = output.status.code() == Some(0)
            || (output.status.signal() == Some(2) && text.is_empty());
        assert!(done || output.status.code() == Some(130), "after {delay} ms: {text}");
        assert!(done || text.contains("interrupted"), "{text}");
        assert!(asked.elapsed() < Duration::from_secs(60), "{text}");
        assert_eq!(processes_of(&stand), [""; 0], "after {delay} ms: {text}");
    }
    stand.up().ok();
    assert_eq!(stand.status()["ready"], true);
}

#[test]
fn killed_at_random_moments_it_leaves_nothing_that_the_next_up_does_not_mend() {
    let (stand, up) = (Stand::new(), ["up", "--yes"]);
    stand.xtask(&["build", "--yes"]).ok();
    let mut kills = Kills::measured(&stand, &up);
    while kills.are_fewer_than(15) {
        stand.xtask(&["down"]).ok();
        let mut delays = vec![kills.kill(&stand, &up)];
        // Sometimes the next one is killed as well, before anything is mended. How long it takes, with half of it
        // done, says nothing of the others.
        if kills.rounds.is_multiple_of(3) {
            let whole = kills.whole;
            delays.push(kills.kill(&stand, &up));
            kills.whole = whole;
        }
        stand.up().ok();
        assert_eq!(stand.status()["ready"], true, "killed after {delays:?}");
    }
    let mut visitor = Visitor::new(&stand);
    stand.up().ok();
    visitor.sign_up();
}

#[test]
fn a_changed_configuration_file_restarts_its_service_and_no_other() {
    let stand = Stand::new();
    // A copy of nginx's configuration, so that the repository's own is not touched.
    let original = std::fs::read_to_string(root().join("deploy/nginx/nginx.conf")).unwrap();
    let copy = stand.write("nginx.conf", &original);
    stand.xtask(&["build", "--yes"]).ok();
    stand.overlay(&format!(
        "x-restart-on-change:
  nginx: [\"{0}\"]
\
         services:
  nginx:
    volumes:
      - {0}:/etc/nginx/nginx.conf:ro
",
        copy.display()
    ));
    stand.up().ok();
    let before = (stand.started_at("nginx"), stand.started_at("backend"), stand.container_ids());
    // Files keep time in whole ticks of the kernel's clock: let one pass.
    std::thread::sleep(Duration::from_millis(20));
    std::fs::write(&copy, original + "\n# changed\n").unwrap();
    stand.up().ok();
    assert_ne!(stand.started_at("nginx"), before.0);
    assert_eq!(stand.started_at("backend"), before.1);
    assert_eq!(stand.container_ids(), before.2);
}

/// The `X-Trial` header that nginx sends; empty where it sends none.
fn trial_header(stand: &Stand) -> String {
    let answer = ureq::get(stand.address()).call().unwrap();
    let header = answer.headers().get("x-trial");
    header.map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
}

#[test]
fn what_nginx_can_read_anew_needs_no_restart_and_a_mistake_stops_nothing() {
    let stand = Stand::new();
    let snippets = stand.folder().join("snippets");
    let original = root().join("deploy/nginx/snippets");
    run(std::process::Command::new("cp").arg("--recursive").args([&original, &snippets])).ok();
    let file = snippets.join("security-headers.conf");
    let text = std::fs::read_to_string(&file).unwrap();
    let change = |line: &str| {
        // Files keep time in whole ticks of the kernel's clock: let one pass.
        std::thread::sleep(Duration::from_millis(20));
        std::fs::write(&file, format!("{text}\n{line}\n")).unwrap();
    };
    let shown = snippets.display();
    // An overlay's extension takes the place of the whole one, so the command has to be in it.
    let compose = std::fs::read_to_string(root().join("compose.yaml")).unwrap();
    let (_, from_it) = compose.split_once("x-reload-on-change:").unwrap();
    let command = from_it.lines().find_map(|line| line.trim().strip_prefix("command: ")).unwrap();
    stand.overlay(&format!(
        "x-reload-on-change: {{nginx: {{files: [\"{shown}\"], command: {command}}}}}\n\
         services: {{nginx: {{volumes: [\"{shown}:/etc/nginx/snippets:ro\"]}}}}\n"
    ));
    stand.up().ok();
    let started = stand.started_at("nginx");
    assert_eq!(trial_header(&stand), "");

    change("add_header X-Trial one always;");
    let plan = stand.xtask(&["up", "--dry-run"]).ok().stdout;
    assert!(plan.lines().any(|line| line.starts_with("reload    nginx")), "{plan}");
    assert_eq!(stand.status()["pending"][0]["action"], "reload");
    stand.up().ok().says(&["nginx reloaded"]);
    // The old workers end when they have nothing left to do.
    let deadline = Instant::now() + Duration::from_secs(60);
    while trial_header(&stand) != "one" {
        assert!(Instant::now() < deadline, "nginx does not show what changed");
    }
    stand.up().ok().says(&["nothing to do"]);

    change("a_directive_that_is_none;");
    stand.up().fails(1, &["a_directive_that_is_none", "goes on with what it had"]);
    assert_eq!(trial_header(&stand), "one");
    change("add_header X-Trial one always;");
    stand.up().ok().says(&["nginx reloaded"]);
    assert_eq!(stand.started_at("nginx"), started);
}

#[test]
fn the_verbs_for_ones_own_hands_work() {
    let stand = Stand::new();
    stand.up().ok();
    let says = |run: Run, words: &str| assert!(run.stdout.contains(words), "{}", run.text);
    says(stand.xtask(&["psql", "--", "-Atc", "select 40 + 2"]).ok(), "42");
    says(stand.xtask(&["redis-cli", "--", "ping"]).ok(), "PONG");
    says(stand.xtask(&["exec", "nginx", "--", "id", "-u"]).ok(), "101");
    says(stand.xtask(&["logs", "backend", "--tail", "50"]).ok(), "listening");
    stand.xtask(&["wait", "--timeout", "60"]).ok();
    says(stand.xtask(&["migrate", "status"]).ok(), "applied");
    stand.xtask(&["migrate"]).ok();
    stand.xtask(&["seed"]).ok();
    stand.xtask(&["seed"]).ok();
    stand.xtask(&["exec", "postgres", "--", "false"]).fails(1, &[]);
    stand.xtask(&["logs", "postgre"]).fails(2, &["did you mean `postgres`?"]);
    stand.xtask(&["exec", "ngnix", "--", "true"]).fails(2, &["did you mean `nginx`?"]);
    stand.xtask(&["doctor"]).ok().says(&["0 failures"]);
    // There is no backup yet.
    stand.xtask(&["doctor", "--strict"]).fails(1, &["backup", "0 failures"]);
}

/// The image is built from nothing, so all of it is over its base. Ready is when it listens: it does so
/// once the migrations are checked and the sessions are there.
#[test]
fn the_backend_is_small_and_ready_at_once() {
    let stand = Stand::new();
    stand.up().ok();
    let container = stand.container("backend");
    let inspect = |words: &[&str]| docker(words).ok().stdout.trim().to_owned();
    let image = inspect(&["inspect", "--format", "{{.Image}}", &container]);
    let size = inspect(&["image", "inspect", "--format", "{{.Size}}", &image]);
    assert!(size.parse::<u64>().unwrap() <= 30_000_000, "{size} bytes");

    // The best of five: what else this machine does is not the backend's slowness.
    let start = |_| {
        docker(&["restart", &container]).ok();
        stand.xtask(&["wait", "--timeout", "60"]).ok();
        let began = inspect(&["inspect", "--format", "{{.State.StartedAt}}", &container]);
        let log = docker(&["logs", "--since", &began, &container]).ok().text;
        let line = log
            .lines()
            .find(|line| line.contains("\"listening\""))
            .unwrap_or_else(|| panic!("{log}"));
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let listens = humantime::parse_rfc3339(line["timestamp"].as_str().unwrap()).unwrap();
        listens.duration_since(humantime::parse_rfc3339(&began).unwrap()).unwrap()
    };
    // Other tests take the processors away from most of them, and not from every one.
    let limit = Duration::from_millis(500);
    let starts: Vec<Duration> = (0..20).map(start).take_while(|took| *took > limit).collect();
    assert!(starts.len() < 20, "none of them took {limit:?} at most: {starts:?}");
}
