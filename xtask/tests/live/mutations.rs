//! Changes to the files, one at a time, as they happen by mistake: `parity` or `audit` catches each that
//! matters, for the right reason, and lets the harmless ones pass. Needs Compose, and no engine.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::stand::{XTASK, root, run};

/// Who catches a change, and by what: a path of `parity`, or an item of `audit`.
enum Caught {
    Parity(&'static str),
    Audit(&'static str),
    /// Nobody, because it harms nothing.
    Harmless,
}
use Caught::{Audit, Harmless, Parity};

const BASE: &str = "compose.yaml";
const PROD: &str = "compose.prod.yaml";
const ENV: &str = ".env.example";

/// What is done, in which file, which text becomes which, and who catches it.
type Mutation = (&'static str, &'static str, &'static str, &'static str, Caught);

/// The heads of services; what follows is put right below.
const NGINX: &str = "  nginx:\n    <<: *hardened\n";
const POSTGRES: &str = "  postgres:\n    <<: *hardened\n";
const REDIS: &str = "  redis:\n    <<: *hardened\n";
const BACKEND: &str = "  backend:\n    <<: *hardened\n";
const BASE_REDIS: &str = "  redis:\n    <<: *service\n";
const BASE_BACKEND: &str = "  backend:\n    <<: *service\n";

#[rustfmt::skip]
const MUTATIONS: &[Mutation] = &[
    // One side only.
    ("a volume is gone in production", PROD, POSTGRES, "  postgres:\n    <<: *hardened\n    volumes: !reset []\n",
        Parity("services postgres volumes /var/lib/postgresql/data source")),
    ("another image in production", PROD, NGINX, "  nginx:\n    <<: *hardened\n    image: nginx:1.27-alpine\n",
        Parity("services nginx image")),
    ("no health check in production", PROD, REDIS, "  redis:\n    <<: *hardened\n    healthcheck: {disable: true}\n",
        Parity("services redis healthcheck disable")),
    ("slower health checks in production", PROD, REDIS, "  redis:\n    <<: *hardened\n    healthcheck: {interval: 5m}\n",
        Parity("services redis healthcheck interval")),
    ("another command in production", PROD, REDIS, "  redis:\n    <<: *hardened\n    command: [redis-server]\n",
        Parity("services redis command")),
    ("another entrypoint in production", PROD, POSTGRES, "  postgres:\n    <<: *hardened\n    entrypoint: [docker-entrypoint.sh]\n",
        Parity("services postgres entrypoint")),
    ("a variable only production has", PROD, BACKEND, "  backend:\n    <<: *hardened\n    environment: {DEBUG: \"1\"}\n",
        Parity("services backend environment DEBUG")),
    ("a dependency dropped in production", PROD, NGINX, "  nginx:\n    <<: *hardened\n    depends_on: !reset {}\n",
        Parity("services nginx depends_on backend condition")),
    ("no restart in production", PROD, BACKEND, "  backend:\n    <<: *hardened\n    restart: \"no\"\n",
        Parity("services backend restart")),
    ("less time to end in production", PROD, POSTGRES, "  postgres:\n    <<: *hardened\n    stop_grace_period: 1s\n",
        Parity("services postgres stop_grace_period")),
    ("a secret less in production", PROD, BACKEND, "  backend:\n    <<: *hardened\n    secrets: !override [pg_password]\n",
        Parity("services backend secrets /run/secrets/session_secret source")),
    ("a fifth service in production", PROD, "services:\n", "services:\n  cache:\n    image: redis:7-alpine\n",
        Parity("services cache image")),
    ("a second network in production", PROD, "services:\n  nginx:\n    <<: *hardened\n",
        "networks: {other: {}}\nservices:\n  nginx:\n    <<: *hardened\n    networks: {other: {}}\n",
        Parity("services nginx networks other")),
    ("a value that no rule allows", ENV, "# APP_ENV=production", "# APP_ENV=staging",
        Parity("services backend environment APP_ENV")),
    ("a tmpfs that may execute", PROD, "mode=1777,noexec,nosuid,nodev\n      # The socket.", "mode=1777,nosuid,nodev\n      # The socket.",
        Parity("services postgres tmpfs /tmp")),
    // Hardening, in production or on both sides.
    ("PostgreSQL published in production", PROD, "    # Nobody outside the network needs it; `cargo xtask --prod psql` goes through the engine.\n    ports: !reset []\n", "",
        Audit("CIS-5.9")),
    ("the backend published", BASE, BASE_BACKEND, "  backend:\n    <<: *service\n    ports: [\"127.0.0.1:3000:3000\"]\n",
        Audit("CIS-5.9")),
    ("a capability added", PROD, NGINX, "  nginx:\n    <<: *hardened\n    cap_add: [NET_ADMIN]\n",
        Audit("CIS-5.4")),
    ("capabilities kept", PROD, "  cap_drop: [ALL]\n", "", Audit("CIS-5.4")),
    ("a writable root", PROD, "  read_only: true\n", "", Audit("CIS-5.13")),
    ("privileged", BASE, BASE_REDIS, "  redis:\n    <<: *service\n    privileged: true\n", Audit("CIS-5.5")),
    ("as root", BASE, "user: \"999:1000\"", "user: \"0:0\"", Audit("CIS-4.1")),
    ("the image's user, whoever that is", BASE, "    user: \"999:1000\"\n", "", Audit("CIS-4.1")),
    ("an image that floats", ENV, "REDIS_IMAGE=redis:7-alpine", "REDIS_IMAGE=redis:latest", Audit("CIS-4.2")),
    ("no health check on either side", BASE, "      test: [\"CMD\", \"/backend\", \"healthcheck\"]\n", "      test: [\"NONE\"]\n", Audit("CIS-4.6")),
    ("a secret in the environment", BASE, "      SESSION_SECRET_FILE: /run/secrets/session_secret\n", "      SESSION_SECRET: ${SESSION_SECRET}\n",
        Audit("CIS-4.10")),
    ("the engine's socket", BASE, "      - redis_data:/data\n", "      - redis_data:/data\n      - /var/run/docker.sock:/var/run/docker.sock:ro\n",
        Audit("CIS-5.32")),
    ("the folder with the engine's socket", BASE, "      - redis_data:/data\n", "      - redis_data:/data\n      - /var/run:/host:ro\n",
        Audit("CIS-5.32")),
    ("somebody's keys", BASE, "      - redis_data:/data\n", "      - redis_data:/data\n      - /root/.ssh:/host:ro\n", Audit("CIS-5.6")),
    ("a folder of the host", BASE, "      - redis_data:/data\n", "      - redis_data:/data\n      - /etc:/host:ro\n", Audit("CIS-5.6")),
    ("a writable file of the host", BASE, "/usr/share/nginx/html:ro", "/usr/share/nginx/html", Audit("OWASP-8")),
    ("the host's processes", BASE, BASE_REDIS, "  redis:\n    <<: *service\n    pid: host\n", Audit("CIS-5.16")),
    ("the host's shared memory", BASE, BASE_REDIS, "  redis:\n    <<: *service\n    ipc: host\n", Audit("CIS-5.17")),
    ("a device of the host", BASE, BASE_REDIS, "  redis:\n    <<: *service\n    devices: [\"/dev/kmsg:/dev/kmsg\"]\n", Audit("CIS-5.18")),
    ("no filter of system calls", BASE, "[\"no-new-privileges:true\"]", "[\"no-new-privileges:true\", \"seccomp:unconfined\"]", Audit("CIS-5.22")),
    ("new privileges", BASE, "  security_opt: [\"no-new-privileges:true\"]\n", "", Audit("CIS-5.26")),
    ("no memory limit", PROD, "    mem_limit: 512m\n", "", Audit("CIS-5.11")),
    ("no limit of processes", PROD, "    pids_limit: 256\n", "", Audit("CIS-5.29")),
    ("logs without an end", BASE, "    options: {max-size: 10m, max-file: \"3\"}\n", "    options: {}\n", Audit("LOG-1")),
    // Nothing that matters.
    ("a comment", PROD, "services:\n", "# To be read.\nservices:\n", Harmless),
    ("another order of keys", PROD, "    mem_limit: 1g\n    cpus: 2\n", "    cpus: 2\n    mem_limit: 1g\n", Harmless),
    ("a little more memory", PROD, "    mem_limit: 512m\n", "    mem_limit: 600m\n", Harmless),
    ("more processes", PROD, "    pids_limit: 256\n", "    pids_limit: 300\n", Harmless),
    ("fewer processors", PROD, "    cpus: 2\n", "    cpus: 1.5\n", Harmless),
    ("a label on both sides", BASE, BASE_REDIS, "  redis:\n    <<: *service\n    labels: {team: data}\n", Harmless),
    ("logs that the host's journal has", BASE, "    driver: json-file\n    options: {max-size: 10m, max-file: \"3\"}\n", "    driver: journald\n", Harmless),
    ("another local port", ENV, "\nHTTP_PORT=8080", "\nHTTP_PORT=8888", Harmless),
];

/// What `parity` and `audit` say of a copy of the project.
fn verdicts(folder: &Path) -> (Vec<String>, Vec<String>, String) {
    let ask = |verb: &str| {
        let mut xtask = Command::new(XTASK);
        xtask.args([verb, "--format", "json"]).env("CARGO_MANIFEST_DIR", folder.join("xtask"));
        for name in ["APP_ENV", "COMPOSE_FILE", "COMPOSE_PROJECT_NAME", "IMAGE_SOURCE"] {
            xtask.env_remove(name);
        }
        run(xtask.stdin(Stdio::null()))
    };
    let (parity, audit) = (ask("parity"), ask("audit"));
    let json = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
    let (report, items) = (json(&parity.stdout), json(&audit.stdout));
    let texts = |value: &Value, key: &str, keep: &dyn Fn(&Value) -> bool| -> Vec<String> {
        let found = value.as_array().into_iter().flatten().filter(|item| keep(item));
        found.map(|item| item[key].as_str().unwrap_or_default().to_owned()).collect()
    };
    let mut violations = texts(&report["differences"], "path", &|item| item["allowed"].is_null());
    let unused = report["unused_rules"].as_array().into_iter().flatten();
    violations.extend(unused.map(|rule| format!("unused rule {rule}")));
    let failures = texts(&items["items"], "id", &|item| item["outcome"] == "fail");
    // The exit codes must agree with what was printed.
    assert_eq!(parity.code == Some(0), violations.is_empty(), "{}", parity.text);
    let idle = items["unused_exceptions"].as_array().is_none_or(Vec::is_empty);
    assert_eq!(audit.code == Some(0), failures.is_empty() && idle, "{}", audit.text);
    (violations, failures, format!("{}\n{}", parity.text, audit.text))
}

#[test]
fn every_change_that_matters_is_caught_and_the_harmless_ones_pass() {
    let copy = tempfile::tempdir().unwrap();
    let words = ["-a", "compose.yaml", "compose.prod.yaml", ".env.example", "deploy"];
    run(Command::new("cp").args(words).arg(copy.path()).current_dir(root())).ok();
    let (violations, failures, text) = verdicts(copy.path());
    assert!(violations.is_empty() && failures.is_empty(), "before any change:\n{text}");
    assert!(MUTATIONS.len() >= 25);
    let mut wrong = Vec::new();
    for (name, file, from, to, caught) in MUTATIONS {
        let path = copy.path().join(file);
        let before = fs::read_to_string(&path).unwrap();
        assert!(before.contains(from), "{name}: {file} has no {from:?} any more");
        fs::write(&path, before.replacen(from, to, 1)).unwrap();
        let (violations, failures, text) = verdicts(copy.path());
        fs::write(&path, before).unwrap();
        let is_right = match caught {
            Parity(place) => violations.iter().any(|violation| violation == place),
            Audit(item) => failures.iter().any(|failure| failure == item),
            Harmless => violations.is_empty() && failures.is_empty(),
        };
        if !is_right {
            let start: String = text.chars().take(300).collect();
            wrong.push(format!("{name}: parity {violations:?}, audit {failures:?}; {start}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), MUTATIONS.len(), wrong.join("\n"));
}
