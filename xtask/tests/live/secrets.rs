//! Secrets are in files that their owners read, and nowhere else.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::domain;
use crate::kills::Kills;
use crate::stand::{Run, Stand, Visitor, docker, root, run};

/// The stack's secrets, by name, but for those that somebody else gives.
fn secrets_of(stand: &Stand) -> Vec<(String, String)> {
    let text = stand.env_text();
    let is_ours =
        |text: &&str| text.starts_with("# Secret") && !text.starts_with("# Secret from outside");
    let paragraphs = text.split("\n\n").filter(is_ours);
    let lines = paragraphs.filter_map(|paragraph| paragraph.trim().lines().next_back());
    let secrets: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    assert!(secrets.len() >= 6, "{text}");
    assert!(secrets.iter().all(|(_, value)| value.len() >= 64), "{text}");
    secrets
}

fn expect_none_in(secrets: &[(String, String)], place: &str, content: &[u8]) {
    assert!(!content.is_empty(), "{place} is empty, so nothing was searched");
    for (name, value) in secrets {
        let found = memchr::memmem::find(content, value.as_bytes());
        assert!(found.is_none(), "{name} is in {place}");
    }
}

/// The file system of an image or a container, whole.
fn exported(args: &[&str]) -> Vec<u8> {
    let output = Command::new("docker").args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn no_secret_is_where_it_could_be_read_by_accident() {
    let stand = Stand::production();
    let up = stand.xtask(&["up", "--yes", "--verbose"]).ok();
    let secrets = secrets_of(&stand);
    let search = |place: &str, run: Run| expect_none_in(&secrets, place, run.text.as_bytes());
    search("what `up --verbose` printed", up);
    search("status", stand.xtask(&["status", "--format", "json"]));
    search("doctor", stand.xtask(&["doctor", "--verbose"]));
    search("env diff", stand.xtask(&["env", "diff", ".env.example"]).ok());
    search("env check", stand.xtask(&["env", "check"]).ok());
    search("audit", stand.xtask(&["audit", "--running", "--format", "json"]).ok());
    search("parity", stand.xtask(&["parity", "--format", "json"]).ok());
    let files = stand.get("COMPOSE_FILE");
    let env_file = stand.env_file().display().to_string();
    let mut compose = vec!["compose", "--env-file", &env_file];
    compose.extend(files.split(':').flat_map(|file| ["--file", file]));
    compose.push("config");
    let mut config = Command::new("docker");
    search("docker compose config", run(config.args(&compose).current_dir(root())).ok());
    for service in ["nginx", "backend", "postgres", "redis"] {
        let container = stand.container(service);
        search("docker inspect", docker(&["inspect", &container]).ok());
        search("its log", docker(&["logs", &container]).ok());
        search("its processes", docker(&["top", &container, "-eo", "pid,args"]).ok());
        let pids = docker(&["top", &container, "-eo", "pid"]).ok().stdout;
        let environs = pids.lines().skip(1).map(|pid| format!("/proc/{}/environ", pid.trim()));
        // Some, such as a health probe, are gone by now.
        let read = format!("cat {}; true", environs.collect::<Vec<_>>().join(" "));
        let environment = stand.as_root(&read).ok().stdout;
        assert!(environment.contains("PATH="), "{environment}");
        expect_none_in(&secrets, &format!("{service}'s environment"), environment.as_bytes());
        expect_none_in(&secrets, &format!("{service}'s layer"), &exported(&["export", &container]));
    }
    search("what `backup --verbose` printed", stand.xtask(&["backup", "--verbose"]).ok());
    for folder in fs::read_dir(stand.backups()).unwrap() {
        for file in fs::read_dir(folder.unwrap().path()).unwrap() {
            let path = file.unwrap().path();
            let mut content = fs::read(&path).unwrap();
            if path.extension().is_some_and(|extension| extension == "zst") {
                let packed = std::mem::take(&mut content);
                archive::file::decompressor(&packed[..])
                    .unwrap()
                    .read_to_end(&mut content)
                    .unwrap();
            }
            expect_none_in(&secrets, &path.display().to_string(), &content);
        }
    }
    let image = format!("{}-backend:current", stand.name);
    expect_none_in(&secrets, "the backend's image", &exported(&["image", "save", &image]));
    search("its history", docker(&["image", "history", "--no-trunc", &image]).ok());
    search("its description", docker(&["image", "inspect", &image]).ok());
}

#[test]
fn a_container_sees_its_own_secrets_alone() {
    let stand = Stand::production();
    stand.up().ok();
    for (service, expected) in [
        ("nginx", ""),
        ("postgres", "pg_owner_password pg_password"),
        ("redis", "redis_admin_password redis_password"),
    ] {
        let list =
            docker(&["exec", &stand.container(service), "sh", "-c", "ls /run/secrets; true"]);
        let names: Vec<&str> = list.stdout.split_whitespace().collect();
        assert_eq!(names.join(" "), expected, "{service}: {}", list.text);
    }
    // Other users of the host do not get as far as the files.
    let folder = root().join(".secrets").join(&stand.name);
    let mut stat = Command::new("stat");
    assert_eq!(run(stat.args(["-c", "%a"]).arg(&folder)).ok().stdout.trim(), "700");
}

#[test]
fn production_refuses_secrets_that_others_may_know() {
    let stand = Stand::production();
    let good = stand.get("SESSION_SECRET");
    for (name, value, reason) in [
        ("PG_PASSWORD", String::new(), "PG_PASSWORD is empty"),
        ("REDIS_PASSWORD", "abc".to_owned(), "REDIS_PASSWORD in"),
        ("PG_PASSWORD", "changeme".repeat(8), "contains `changeme`"),
        ("SESSION_SECRET", "a".repeat(128), "different characters only"),
        ("CSRF_SECRET_KEY", good, "is the same as SESSION_SECRET"),
    ] {
        let before = stand.env_text();
        stand.set(name, &value);
        let run = stand.up().fails(1, &[name, reason]);
        assert!(value.is_empty() || !run.text.contains(&value), "{}", run.text);
        assert_eq!(stand.container_ids(), [""; 0], "something was started all the same");
        stand.set_env_text(&before);
    }
    run(Command::new("chmod").arg("644").arg(stand.env_file())).ok();
    stand.up().fails(1, &["can be read by other users", "chmod 600"]);
}

#[test]
fn secrets_may_come_from_a_command() {
    let stand = Stand::new();
    let secrets = secrets_of(&stand);
    let vault: String = secrets.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    let vault = stand.write("vault", &vault);
    for (name, _) in &secrets {
        stand.set(name, "");
    }
    stand.up().fails(1, &["PG_PASSWORD is empty"]);
    stand.set("SECRETS_COMMAND", "exit 7");
    stand.up().fails(1, &["ask SECRETS_COMMAND for the secrets"]);
    // The environment of the process wins, and then nobody else is asked.
    let mut injected = stand.command(&["up", "--yes", "--dry-run"]);
    let said = run(injected.envs(secrets.iter().cloned())).ok();
    expect_none_in(&secrets, "what a dry run printed", said.text.as_bytes());
    stand.set("SECRETS_COMMAND", &format!("cat {}", vault.display()));
    stand.up().ok();
    // And a rotation takes what the command says then.
    stand.xtask(&["env", "rotate", "PG_PASSWORD"]).fails(1, &["put the new value there first"]);
    let text = fs::read_to_string(&vault).unwrap();
    let old = secrets.iter().find(|(name, _)| name == "PG_PASSWORD").unwrap();
    let new: String = old.1.chars().rev().collect();
    fs::write(&vault, text.replace(&old.1, &new)).unwrap();
    stand.xtask(&["env", "rotate", "PG_PASSWORD"]).ok();
    docker(&["restart", &stand.container("backend")]).ok();
    stand.xtask(&["wait"]).ok();
    assert!(!stand.env_text().contains(&new));

    // All of them are others, and the next command is no rotation: nobody is signed out for that.
    let mut visitor = Visitor::new(&stand);
    visitor.sign_up();
    let mut away = Visitor::new(&stand);
    away.sign_up();
    let started = stand.started_at("backend");
    let other = |(name, value): &(String, String)| {
        format!("{name}={}\n", value.replace(['1', '2', '3'], "0").replace(['a', 'b'], "f"))
    };
    let vault_of_today: String = secrets.iter().map(other).collect();
    fs::write(&vault, &vault_of_today).unwrap();
    stand.up().ok().says(&["SESSION_SECRET is another one than before", "the services learn it"]);
    assert_eq!(stand.started_at("backend"), started);
    let deadline = Instant::now() + Duration::from_secs(60);
    let log = || docker(&["logs", &stand.container("backend")]).ok().text;
    while !log().lines().any(|l| l.contains("SESSION_SECRET") && l.contains("another one now")) {
        assert!(Instant::now() < deadline, "the backend does not see that its keys are others");
        thread::sleep(Duration::from_millis(50));
    }
    visitor.write("after all secrets changed");
    stand.xtask(&["redis-cli", "--", "PING"]).ok().says(&["PONG"]);
    for line in vault_of_today.lines().filter(|line| line.contains("PASSWORD")) {
        let (name, value) = line.split_once('=').unwrap();
        let file = root().join(".secrets").join(&stand.name).join(name.to_lowercase());
        assert_eq!(
            fs::read_to_string(file).unwrap(),
            format!("{value}\n"),
            "{name} is not settled"
        );
    }
    // Somebody had the key who should not: the source has its new value already, and what it signed ends now.
    let rotate = ["env", "rotate", "SESSION_SECRET", "--grace", "0s"];
    stand.xtask(&rotate).ok().says(&["no previous value of SESSION_SECRET is accepted"]);
    stand.xtask(&["down"]).ok();
    stand.up().ok();
    assert!(visitor.sees("after all secrets changed"));
    assert_eq!(away.get("/api/session").0, 401);
}

/// A visitor who never stops: reads and writes until told to, and keeps every failure.
fn busy_visitor(stand: &Stand, end: &Arc<AtomicBool>) -> JoinHandle<(u32, Vec<String>)> {
    let mut visitor = Visitor::new(stand);
    visitor.sign_up();
    let end = Arc::clone(end);
    thread::spawn(move || {
        let (mut count, mut failures) = (0, Vec::new());
        while !end.load(Ordering::Relaxed) {
            count += 1;
            let (read, answer) = visitor.get(domain::PATH);
            if read != 200 {
                failures.push(format!("read {count}: {read} {answer}"));
            }
            let text = domain::body(&format!("number {count}"));
            let (written, answer) = visitor.post(domain::PATH, text);
            if written != 201 {
                failures.push(format!("write {count}: {written} {answer}"));
            }
        }
        (count, failures)
    })
}

#[test]
fn every_secret_rotates_under_load_and_nobody_notices() {
    let stand = Stand::new();
    stand.up().ok();
    let mut idle = Visitor::new(&stand);
    idle.sign_up();
    let end = Arc::new(AtomicBool::new(false));
    let mut busy: Vec<_> = (0..3).map(|_| busy_visitor(&stand, &end)).collect();
    let services = ["backend", "postgres", "redis"];
    let started = services.map(|service| stand.started_at(service));
    for (name, before) in secrets_of(&stand) {
        stand.xtask(&["env", "rotate", &name]).ok().says(&[&format!("{name} is new")]);
        assert_ne!(stand.get(&name), before);
        if name.starts_with("PG_") {
            // More at once than before, so that new connections are made.
            busy.extend((0..2).map(|_| busy_visitor(&stand, &end)));
        } else if name.starts_with("REDIS_") {
            stand.xtask(&["redis-cli", "--", "client", "kill", "user", "backend"]).ok();
        }
    }
    // Until the backend has read the files of the keys again by itself.
    let taken = |name: &str| {
        let log = docker(&["logs", &stand.container("backend")]).text;
        let is_it = |line: &&str| line.contains("another one now") && line.contains(name);
        log.lines().filter(is_it).count()
    };
    let until_taken = |name: &str, times: usize| {
        let deadline = Instant::now() + Duration::from_secs(30);
        while taken(name) < times {
            assert!(Instant::now() < deadline, "the backend did not take {name} over");
            thread::sleep(Duration::from_millis(100));
        }
    };
    until_taken("SESSION_SECRET", 1);
    until_taken("CSRF_SECRET_KEY", 1);
    // The keys, once more while the previous one is still accepted.
    let before = taken("SESSION_SECRET");
    stand.xtask(&["env", "rotate", "SESSION_SECRET"]).ok();
    until_taken("SESSION_SECRET", before + 1);
    end.store(true, Ordering::Relaxed);
    for visitor in busy {
        let (count, failures) = visitor.join().unwrap();
        assert!(count > 5, "{count} requests are too few to tell");
        assert!(failures.is_empty(), "{} of {count}: {failures:#?}", failures.len());
    }
    // Who was away the whole time comes back to an open door, and can write with the old token.
    assert_eq!(idle.get("/api/session").0, 200);
    idle.write("still me");
    let now = services.map(|service| stand.started_at(service));
    assert_eq!(now, started, "{services:?}: one was restarted");
    // Nothing is left to do, and a start from nothing agrees with it.
    stand.up().ok().says(&["nothing to do"]);
    stand.xtask(&["down"]).ok();
    stand.up().ok();
    assert!(idle.sees("still me"));
    a_rotation_that_is_killed_is_made_good(&stand, &idle);
}

/// A container keeps the file that it was started with, whatever is in its place now.
#[test]
fn a_rotation_after_the_loss_of_the_secrets_files_locks_nobody_out() {
    let stand = Stand::new();
    stand.up().ok();
    let mut visitor = Visitor::new(&stand);
    visitor.sign_up();
    visitor.write("before");
    let folder = root().join(".secrets").join(&stand.name);
    let aside = stand.folder().join("aside");
    // Brought back from elsewhere as it was, with its times: nothing looks newer than the containers.
    let copy = |from: &Path, to: &Path| run(Command::new("cp").arg("-a").args([from, to])).ok();
    copy(&folder, &aside);
    fs::remove_dir_all(&folder).unwrap();
    copy(&aside, &folder);
    stand.up().ok().says(&["nothing to do"]);
    for (name, service) in [("PG_PASSWORD", "postgres"), ("REDIS_ADMIN_PASSWORD", "redis")] {
        let before =
            (stand.get(name), fs::read_to_string(folder.join(name.to_lowercase())).unwrap());
        let container = format!("docker restart {}", stand.container(service));
        let said = ["nothing was changed", "written anew", &container];
        stand.xtask(&["env", "rotate", name]).fails(1, &said);
        let after =
            (stand.get(name), fs::read_to_string(folder.join(name.to_lowercase())).unwrap());
        assert_eq!(before, after);
        docker(&["restart", &stand.container(service)]).ok();
        stand.xtask(&["wait"]).ok();
        stand.xtask(&["env", "rotate", name]).ok();
        expect_agreement(&stand, name, "brought back");
    }
    // Lost, and written anew by the next `up`.
    fs::remove_dir_all(&folder).unwrap();
    let started = ["postgres", "redis"].map(|service| stand.started_at(service));
    stand.up().ok();
    for (service, before) in ["postgres", "redis"].iter().zip(started) {
        assert_ne!(stand.started_at(service), before, "{service} reads files that are gone");
    }
    for name in ["PG_PASSWORD", "PG_OWNER_PASSWORD", "REDIS_PASSWORD", "REDIS_ADMIN_PASSWORD"] {
        stand.xtask(&["env", "rotate", name]).ok();
        expect_agreement(&stand, name, "written anew");
    }
    stand.up().ok().says(&["nothing to do"]);
    docker(&["restart", &stand.container("backend")]).ok();
    stand.xtask(&["wait"]).ok();
    assert!(visitor.sees("before"));
}

/// All that holds a secret says the same: the environment file, the secret's own, and who checks it.
fn expect_agreement(stand: &Stand, name: &str, round: &str) {
    let value = stand.get(name);
    let path = root().join(".secrets").join(&stand.name).join(name.to_lowercase());
    let text = fs::read_to_string(path).unwrap();
    let user = match name {
        "REDIS_PASSWORD" => "backend",
        "REDIS_ADMIN_PASSWORD" => "admin",
        "PG_PASSWORD" => "app",
        "PG_OWNER_PASSWORD" => "owner",
        _ => {
            // The previous key is accepted for a while.
            assert!(text.starts_with(&value), "{round}: {text}");
            return;
        }
    };
    assert_eq!(text, format!("{value}\n"), "{round}");
    if name.starts_with("REDIS") {
        let said = stand.xtask(&["redis-cli", "--", "--json", "acl", "getuser", user]).ok();
        let said: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
        let digest = Sha256::digest(value.as_bytes());
        let hash: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(said["passwords"], serde_json::json!([hash]), "{round}: {said}");
    } else {
        let login = format!("PGPASSWORD={value} psql -h $(hostname -i) -d app -U {user} -c ''");
        let said = docker(&["exec", &stand.container("postgres"), "sh", "-c", &login]);
        assert_eq!(said.code, Some(0), "{round}: {}", said.text);
    }
}

/// Whenever it is killed, the same command again makes it good, and so does `up`.
fn a_rotation_that_is_killed_is_made_good(stand: &Stand, visitor: &Visitor) {
    let mut kills = Kills::measured(stand, &["env", "rotate", "REDIS_PASSWORD"]).late();
    let names = ["PG_PASSWORD", "REDIS_PASSWORD", "PG_OWNER_PASSWORD", "REDIS_ADMIN_PASSWORD"];
    let mut names = names.into_iter().cycle();
    while kills.are_fewer_than(11) {
        // A key comes last: its file has the previous values as well.
        let is_last = !kills.are_fewer_than(10);
        let name = if is_last { "SESSION_SECRET" } else { names.next().unwrap() };
        let delay = kills.kill(stand, &["env", "rotate", name]);
        // Half way, the service accepts what the backend may hold.
        let round = format!("round {}, {name}, killed after {delay:?}", kills.rounds);
        assert!(visitor.sees("still me"), "{round}");
        match kills.rounds % 3 {
            0 => stand.xtask(&["env", "rotate", name]).ok(),
            _ => stand.up().ok(),
        };
        expect_agreement(stand, name, &round);
        assert!(visitor.sees("still me"), "{round}");
    }
    stand.xtask(&["down"]).ok();
    stand.up().ok();
    assert!(visitor.sees("still me"));
}
