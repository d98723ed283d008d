//! Backups and restores that fail or are killed half way: there is no half backup, and no half
//! restore.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::backup::{expect_whole, id_of_the_newest, ids, list};
use crate::domain;
use crate::kills::{Kills, Started};
use crate::stand::{Stand, Visitor, XTASK, docker, run};

/// Rows that do not compress well, so that a backup takes a while.
fn fill(stand: &Stand, rows: u32) {
    let mut visitor = Visitor::new(stand);
    visitor.sign_up();
    stand.sql(&domain::insert(&format!(
        "SELECT (SELECT min(id) FROM accounts), md5(n::text) || md5((n * 7)::text) \
         FROM generate_series(1, {rows}) AS n"
    )));
}

/// Waits until a backup that is being written has this file.
fn until_there_is(stand: &Stand, name: &str) -> PathBuf {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let entries = fs::read_dir(stand.backups()).into_iter().flatten().flatten();
        let partial =
            entries.map(|e| e.path()).find(|path| path.to_string_lossy().contains(".partial-"));
        if let Some(found) = partial.map(|folder| folder.join(name)).filter(|path| path.exists()) {
            return found;
        }
        assert!(Instant::now() < deadline, "{name} does not appear");
        thread::sleep(Duration::from_millis(5));
    }
}

fn signal(stand: &Stand, service: &str, signal: &str) {
    let pid = docker(&["inspect", "--format", "{{.State.Pid}}", &stand.container(service)]).ok();
    stand.as_root(&format!("kill {signal} {}", pid.stdout.trim())).ok();
}

#[test]
fn a_backup_that_fails_half_way_is_none() {
    let stand = Stand::new();
    stand.up().ok();
    fill(&stand, 60_000);
    stand.xtask(&["backup", "--verify"]).ok();
    let before = ids(&stand);
    // A disk that is full: a file system of half a megabyte, for this process alone.
    let mut full = Command::new("unshare");
    let script = format!(
        "mkdir -p {0} && mount -t tmpfs -o size=512k tmpfs {0} && \
         ! {1} --env-file {2} backup && exec {1} --env-file {2} backup --force",
        stand.backups().join("../full").display(),
        XTASK,
        stand.env_file().display()
    );
    let env = stand.env_text();
    stand.set("BACKUP_DIR", &stand.backups().join("../full").display().to_string());
    // Locks are a user's, and the one that this process takes itself for may have locks here already.
    full.env("TMPDIR", stand.folder());
    let said = run(full.args(["--map-root-user", "--mount", "sh", "-c", &script]));
    stand.set_env_text(&env);
    // It is not begun; by force it is. Schema and rows are written at the same time; whichever comes first meets the end
    // of the disk.
    let not_begun = "there is no room for a backup";
    said.fails(1, &[not_begun, "No space left on device", "error: save the ", " of app: "]);
    // The servers, killed in the middle.
    for (service, file) in [("postgres", "app.data.zst"), ("redis", "redis.rdb.zst")] {
        if service == "redis" {
            // A snapshot of so few keys is there in no time, unless each one takes five seconds.
            let slow = ["redis-cli", "--", "CONFIG", "SET", "rdb-key-save-delay", "5000000"];
            stand.xtask(&slow).ok().says(&["OK"]);
        }
        let child = stand.spawn(&["backup"]);
        let path = until_there_is(&stand, file);
        // Held there, or it might be done before its server is killed: pipes do not take all the rows.
        let backup = Pid::from_child(&child);
        kill_process(backup, Signal::STOP).unwrap();
        // Sessions first: one without its row would become that of the next sign-up.
        let is_early = !path.with_file_name("app.data.zst").exists();
        assert_eq!(is_early, service == "redis", "Redis is saved before PostgreSQL");
        signal(&stand, service, "-KILL");
        kill_process(backup, Signal::CONT).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{service}: {said}");
        assert!(said.contains("error:"), "{said}");
        stand.xtask(&["wait"]).ok();
    }
    // The stack's own database, closed: what is left to save would be proven, and would push the good one out.
    let allow = |word: &str| {
        let sql = format!("ALTER DATABASE app ALLOW_CONNECTIONS {word}");
        stand.xtask(&["psql", "--", "-U", "postgres", "-d", "postgres", "-qc", &sql]).ok();
    };
    allow("false");
    stand.xtask(&["backup", "--verify"]).fails(1, &["there is no database app (PG_DBNAME)"]);
    allow("true");
    assert_eq!(ids(&stand), before);
    expect_whole(&stand);
    assert!(list(&stand)[0]["verified_at"].is_string());
    stand.xtask(&["backup"]).ok();
    // What is left of the failed ones is nothing.
    let names: Vec<_> =
        fs::read_dir(stand.backups()).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[test]
fn a_backup_that_is_killed_at_any_moment_is_none() {
    let stand = Stand::new();
    stand.up().ok();
    fill(&stand, 20_000);
    let mut kills = Kills::measured(&stand, &["backup"]);
    while kills.are_fewer_than(20) {
        let (before, round) = (ids(&stand), kills.rounds);
        let was_killed = kills.kill(&stand, &["backup"]).is_some();
        let after = ids(&stand);
        assert!(after.starts_with(&before), "round {round}: {before:?} became {after:?}");
        assert!(was_killed || after.len() == before.len() + 1, "round {round}: said done, is not");
        expect_whole(&stand);
    }
    stand.xtask(&["backup", "--verify"]).ok();
    let names = fs::read_dir(stand.backups()).unwrap().flatten().map(|e| e.file_name());
    let partial = names.filter(|name| name.to_string_lossy().starts_with('.')).count();
    assert_eq!(partial, 0, "what killed ones left is not gone");
}

/// A program that was started in a container does not end with the command that started it.
#[test]
fn a_backup_that_is_stopped_leaves_no_session_that_holds_tables() {
    let stand = Stand::new();
    stand.up().ok();
    // Whoever changes a table, and takes longer for it than the test.
    let lock = format!("BEGIN; LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", domain::TABLE);
    let hold = format!("{lock}; SELECT pg_sleep(600)");
    let words = ["psql", "-U", "postgres", "-d", "app", "-c", &hold];
    let mut holder = Command::new("docker");
    let holder = holder.arg("exec").arg(stand.container("postgres")).args(words);
    let mut holder = Started::new(holder);
    let until = |sql: &str, is_it: &dyn Fn(&BTreeSet<String>) -> bool| {
        let deadline = Instant::now() + Duration::from_secs(40);
        loop {
            let found = stand.sql(sql).lines().map(str::to_owned).collect();
            if is_it(&found) {
                return found;
            }
            assert!(Instant::now() < deadline, "{sql}: {found:?}");
            thread::sleep(Duration::from_millis(20));
        }
    };
    let held = format!(
        "SELECT pid FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted \
         AND relation = '{}'::regclass",
        domain::TABLE
    );
    until(&held, &|found| !found.is_empty());
    let waiting = "SELECT pid FROM pg_stat_activity \
                   WHERE usename = 'backup' AND query LIKE 'LOCK TABLE%'";
    let until = |is_it: &dyn Fn(&BTreeSet<String>) -> bool| until(waiting, is_it);
    let mut stopped = stand.spawn(&["backup"]);
    until(&|found| !found.is_empty());
    run(Command::new("kill").args(["-INT", &stopped.id().to_string()])).ok();
    assert_eq!(stopped.wait().unwrap().code(), Some(130));
    until(&BTreeSet::is_empty);
    // A killed one can end nothing; the next backup does it first.
    let mut killed = stand.spawn(&["backup"]);
    let left = until(&|found| !found.is_empty());
    killed.kill().unwrap();
    killed.wait().unwrap();
    let mut next = stand.spawn(&["backup"]);
    until(&|found| !found.is_empty() && found.is_disjoint(&left));
    stand.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE query LIKE '%pg_sleep(600)' AND usename = 'postgres' AND pid <> pg_backend_pid()",
    );
    assert!(next.wait().unwrap().success());
    holder.wait().unwrap();
}

/// What the stack holds: rows with their digest, and keys.
fn content(stand: &Stand) -> (String, BTreeMap<String, String>) {
    let digest = |table: &str| {
        format!("SELECT count(*), sum(hashtextextended(t::text, 0)) FROM {table} AS t")
    };
    let digests = [domain::TABLE, "accounts"].map(digest);
    let rows = stand.sql(&digests.join(" UNION ALL "));
    let names = stand.xtask(&["redis-cli", "--", "--scan", "--pattern", "test:*"]).ok().stdout;
    let value = |name: &str| {
        let said = stand.xtask(&["redis-cli", "--", "get", name]).ok();
        (name.to_owned(), said.stdout)
    };
    (rows, names.lines().map(value).collect())
}

#[test]
fn a_restore_that_is_killed_at_any_moment_leaves_the_old_data_or_the_new() {
    let stand = Stand::new();
    stand.up().ok();
    fill(&stand, 5000);
    let key = |value: &str| stand.xtask(&["redis-cli", "--", "set", "test:key", value]).ok();
    key("new");
    let new = content(&stand);
    stand.xtask(&["backup"]).ok();
    let id = id_of_the_newest(&stand);
    let verb = ["restore", &id, "--yes", "--skip-safety-backup"];
    let mut kills = Kills::measured(&stand, &verb);
    let old = |stand: &Stand| {
        stand.sql(&format!("DELETE FROM {} WHERE id % 2 = 0", domain::TABLE));
        key("old");
        content(stand)
    };
    let mut became = 0;
    while kills.are_fewer_than(20) {
        let (old, round) = (old(&stand), kills.rounds);
        let delay = kills.kill(&stand, &verb);
        let now = content(&stand);
        let doctor = stand.xtask(&["doctor", "--format", "json"]).text;
        if doctor.contains("interrupted between PostgreSQL and Redis") {
            assert!(now.0 == new.0 || now.0 == old.0, "round {round}: {now:?}");
        } else {
            let is_one = now == old || now == new;
            assert!(is_one, "round {round}, killed after {delay:?}: {now:?}");
        }
        became += u32::from(now == new);
        assert_eq!(Visitor::new(&stand).get("/api/session").0, 401, "round {round}");
        if round % 4 == 3 {
            stand.xtask(&verb).ok();
            assert_eq!(content(&stand), new, "round {round}: running it again leads nowhere");
        }
    }
    println!("{became} of {} had replaced the data", kills.rounds);
    stand.xtask(&verb).ok();
    assert_eq!(content(&stand), new);
    assert_eq!(stand.sql(PUT_ASIDE), "0");
    what_was_replaced_waits_for_its_copy(&stand, &id, &new);
}

/// How many databases there are beside the live one.
const PUT_ASIDE: &str = "SELECT count(*) FROM pg_database WHERE datname LIKE 'app\\_%'";

/// Killed after the swap, before the copy of what was replaced is whole.
fn what_was_replaced_waits_for_its_copy(
    stand: &Stand,
    id: &str,
    new: &(String, BTreeMap<String, String>),
) {
    stand.sql(&format!("DELETE FROM {} WHERE id % 3 = 0", domain::TABLE));
    stand.xtask(&["redis-cli", "--", "set", "test:key", "old"]).ok();
    let old = content(stand);
    let before = ids(stand);
    let mut child = stand.spawn(&["restore", id, "--yes"]);
    until_there_is(stand, "redis.rdb.zst");
    child.kill().unwrap();
    assert!(!child.wait().unwrap().success());
    assert_eq!(&content(stand), new, "the copy was begun before the swap");
    assert_eq!((stand.sql(PUT_ASIDE), ids(stand)), ("1".to_owned(), before.clone()));
    let doctor = stand.xtask(&["doctor", "--format", "json"]).text;
    assert!(doctor.contains("put aside, and there is no copy"), "{doctor}");
    // Where there is no room for the copy, it goes on waiting.
    let env = stand.env_text();
    stand.set("BACKUP_DIR", "/proc/nowhere");
    stand.xtask(&["backup"]).fails(1, &["nothing is lost", "app_before_"]);
    stand.set_env_text(&env);
    stand.xtask(&["backup"]).ok().says(&["saving what was replaced", "app_before_"]);
    assert_eq!(stand.sql(PUT_ASIDE), "0");
    let keys = stand.xtask(&["redis-cli", "--", "-n", "15", "dbsize"]).ok();
    assert_eq!(keys.stdout.trim(), "0");
    assert!(!stand.xtask(&["doctor", "--format", "json"]).text.contains("put aside"));
    let copy = ids(stand).into_iter().find(|id| !before.contains(id)).unwrap();
    stand.xtask(&["backup", "verify", &copy]).ok();
    stand.xtask(&["restore", &copy, "--yes"]).ok();
    assert_eq!(content(stand), old, "the copy is not what was replaced");
}
