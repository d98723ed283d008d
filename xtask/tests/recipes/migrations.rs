//! Pending migrations come before a new backend, in a container of their own; and nothing is asked where none starts.

use std::fs;

use crate::COMPOSE;
use crate::bench::{Bench, container, ok, said};

const PSQL: &str =
    "exec --interactive id-1 psql -v ON_ERROR_STOP=1 --no-psqlrc --quiet --username postgres";
/// SHA-256 of the migration's text.
const SUM: &str = "b4e0497804e46e0a0b0b8c31975b062152d551bac49c3c2e80932567b4085dcd";

/// PostgreSQL serves, and so does a backend that was made from this configuration.
fn bench(hash_of_backend: &str) -> Bench {
    let bench = Bench::new();
    bench.state(
        "config.json",
        r#"{"services":{"postgres":{"image":"db:1"},
            "backend":{"image":"web:1","depends_on":{"postgres":{"condition":"service_healthy"}}}}}"#,
    );
    bench.state("hashes", "postgres hash-db\nbackend hash-web\n");
    let of = |id: &str, service: &str| {
        container(id, &format!("trial-{service}-1"), "")
            .replace("service\":\"db\"", &format!("service\":\"{service}\""))
    };
    let stack = |hash: &str, status: &str| {
        let backend = of("id-backend", "backend").replace("hash-db", hash).replace("i-db", "i-web");
        format!("[{},{}]", of("id-1", "postgres"), backend.replace("\"running\"", status))
    };
    bench.state("containers", &stack(hash_of_backend, "\"running\""));
    bench.state("made", &stack("hash-web", "\"created\""));
    fs::create_dir_all(bench.path("backend/migrations")).unwrap();
    fs::write(bench.path("backend/migrations/0001_a.sql"), "SELECT 1;\n").unwrap();
    bench.state("history", "");
    ok(&bench.xtask(&["env", "init"]));
    bench.calls();
    bench
}

/// The calls that change something, or ask PostgreSQL.
fn deeds(bench: &Bench) -> Vec<String> {
    let is_look = |call: &String| {
        ["config", "ps --all", "inspect", "image inspect"].iter().any(|look| call.contains(look))
    };
    bench.calls().into_iter().filter(|call| !is_look(call)).collect()
}

#[test]
fn what_is_pending_is_applied_before_the_old_version_is_touched() {
    let bench = bench("hash-old");
    let plan = bench.xtask(&["up", "--dry-run"]);
    let first = "migrate   postgres  0001_a.sql first, beside what runs\n";
    assert!(ok(&plan).starts_with(first), "{}", said(&plan));
    let asked = deeds(&bench);
    assert!(asked.len() == 1 && asked[0].starts_with(PSQL), "{asked:?}");

    assert!(ok(&bench.xtask(&["up"])).contains("applying 0001_a.sql"));
    let calls = deeds(&bench);
    assert!(calls[0].starts_with(PSQL), "{calls:?}");
    let rest = [
        format!("{COMPOSE} --progress quiet run --rm --no-deps --no-TTY backend migrate"),
        format!(
            "{COMPOSE} --progress plain up --no-start --no-build --pull never --no-color backend"
        ),
        "start id-backend".to_owned(),
    ];
    assert_eq!(calls[1..], rest);

    // One that fails leaves what serves alone.
    let bench = self::bench("hash-old");
    bench.state("fail-run", "error: migrations/0001_a.sql failed: division by zero\n");
    let output = bench.xtask(&["up"]);
    assert_eq!(output.status.code(), Some(1));
    let text = said(&output);
    assert!(text.contains("0001_a.sql failed") && text.contains("nothing was replaced"), "{text}");
    assert_eq!(deeds(&bench).len(), 2);
}

#[test]
fn nothing_is_run_where_all_is_applied_and_nothing_asked_where_no_backend_starts() {
    let applied = format!("1|a|{SUM}\n");
    let bench = bench("hash-old");
    bench.state("history", &applied);
    ok(&bench.xtask(&["up"]));
    let calls = deeds(&bench);
    assert!(!calls.iter().any(|call| call.contains(" run ")), "{calls:?}");
    // Somebody is at it: that is waited for.
    let bench = self::bench("hash-old");
    bench.state("history", &format!("under way\n{applied}"));
    let text = ok(&bench.xtask(&["up"]));
    assert!(text.contains("being applied, and are waited for"), "{text}");

    let bench = self::bench("hash-web");
    assert!(ok(&bench.xtask(&["up"])).contains("nothing to do"));
    assert_eq!(deeds(&bench), [""; 0]);
}

#[test]
fn more_containers_of_a_service_than_one_are_refused_before_anything_is_done() {
    let bench = bench("hash-old");
    bench.state("config.json", r#"{"services":{"backend":{"image":"web:1","scale":2}}}"#);
    // What was said before is remembered by the files.
    fs::write(bench.path("compose.yaml"), "services: {}\n# changed\n").unwrap();
    let output = bench.xtask(&["up"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("`scale: 2` of backend"), "{}", said(&output));
    assert_eq!(deeds(&bench), [""; 0]);
}
