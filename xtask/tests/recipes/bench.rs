//! The folder, the fake `docker` and what it was called with.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

/// Answers like an engine with two services, `db` and `web`; what it says can be changed by files
/// in the folder: `containers` (what inspect prints), `hashes`, `history` (what psql prints), `volumes`, `fail-VERB`
/// (what VERB says as it fails), `mute` and `mute-web` (that service never gets healthy by itself).
const FAKE_DOCKER: &str = r#"#!/bin/sh
state=$(dirname "$0")/state
case "$*" in *events*) ;; *) printf '%s\n' "$*" >>"$state/calls" ;; esac
for word in "$@"; do
    if [ -f "$state/fail-$word" ]; then cat "$state/fail-$word" >&2; exit 17; fi
done
event() {
    printf '{"Action":"%s","Actor":{"ID":"id-%s","Attributes":{"com.docker.compose.service":"%s"}}}\n' \
        "$1" "$2" "$2" >>"$state/events"
}
case "$*" in
    --version) echo "Docker version 26.1.5" ;;
    "version --format"*) echo 26.1.5 ;;
    "compose version --short") echo 2.26.1 ;;
    "buildx version") echo "buildx 0.13.1" ;;
    *"config --format json"*) cat "$state/config.json" ;;
    *"config --hash"*) cat "$state/hashes" ;;
    ps*) [ ! -f "$state/containers" ] || echo id ;;
    inspect*) cat "$state/containers" ;;
    "rm --force id-2") ;;
    "pull web:1") cat "$state/images-after.json" >"$state/images.json" ;;
    "image inspect"*) cat "$state/images.json" ;;
    *"up --no-start"*) event create db; event create web; cp "$state/made" "$state/containers" ;;
    "start id-db") [ -f "$state/mute" ] || event 'health_status: healthy' db ;;
    "start id-web") [ -f "$state/mute-web" ] || event 'health_status: healthy' web ;;
    "start id-backend") event 'health_status: healthy' backend ;;
    exec*" psql "*) cat "$state/history" ;;
    *" run --rm "*) echo "applying 0001_a.sql" ;;
    "network ls"*) echo n1 ;;
    "volume ls"*) cat "$state/volumes" ;;
    *" down "* | *" logs "*) echo "done: $*" ;;
    exec*) echo "inside: $*"; exit 7 ;;
    events*) : >>"$state/events"; exec /usr/bin/tail -n +1 -f "$state/events" ;;
    *) echo "the fake docker knows no such call: $*" >&2; exit 18 ;;
esac
"#;

pub(crate) struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new() -> Bench {
        let bench = Bench { folder: tempfile::tempdir().unwrap() };
        let programs = bench.path("bin");
        fs::create_dir_all(programs.join("state")).unwrap();
        fs::create_dir_all(bench.path("xtask")).unwrap();
        fs::write(programs.join("docker"), FAKE_DOCKER).unwrap();
        fs::set_permissions(programs.join("docker"), fs::Permissions::from_mode(0o755)).unwrap();
        for program in ["cat", "cp", "dirname"] {
            std::os::unix::fs::symlink(format!("/usr/bin/{program}"), programs.join(program))
                .unwrap();
        }
        let example = "COMPOSE_PROJECT_NAME=trial\nAPP_ENV=test\nHTTP_PORT=1\nHTTPS_PORT=4\nPG_PORT=2\nREDIS_PORT=3\n\
                       IMAGE_SOURCE=registry\nCOMPOSE_FILE=compose.yaml\n\n# Secret.\nPG_PASSWORD=\n\n\
                       NGINX_IMAGE=web:1\nPOSTGRES_IMAGE=db:1\nREDIS_IMAGE=db:1\nRUST_IMAGE=db:1\n";
        fs::write(bench.path(".env.example"), example).unwrap();
        fs::write(bench.path("compose.yaml"), "services: {}\n").unwrap();
        bench.state(
            "config.json",
            r#"{"services":{
                "web":{"image":"web:1","depends_on":{"db":{"condition":"service_healthy"}}},
                "db":{"image":"db:1"}},
              "volumes":{"data":{"name":"trial_data"}}}"#,
        );
        let made = ["db", "web"].map(|service| {
            let made = container(&format!("id-{service}"), &format!("trial-{service}-1"), "");
            made.replace("\"running\"", "\"created\"").replace("\"db\"", &format!("\"{service}\""))
        });
        bench.state("made", &format!("[{}]", made.join(",")));
        bench.state("hashes", "db hash-db\nweb hash-web\n");
        bench.state(
            "images.json",
            r#"[{"Id":"i-web","RepoTags":["web:1"]},{"Id":"i-db","RepoTags":["db:1"]}]"#,
        );
        bench
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// An environment file, and one container of the service `db` that runs.
    pub(crate) fn with_a_container() -> Bench {
        let bench = Bench::new();
        ok(&bench.xtask(&["env", "init"]));
        bench.state("containers", &format!("[{}]", container("id-1", "trial-db-1", "")));
        bench.calls();
        bench
    }

    /// Sets what the fake program answers.
    pub(crate) fn state(&self, name: &str, text: &str) {
        fs::write(self.path("bin/state").join(name), text).unwrap();
    }

    pub(crate) fn xtask(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.args(args).current_dir(self.folder.path()).env_clear();
        command.env("PATH", self.path("bin")).env("CARGO_MANIFEST_DIR", self.path("xtask"));
        command.env("HOME", self.folder.path()).env("TMPDIR", self.folder.path());
        command
    }

    /// How docker was called since the last time, looks at versions left out.
    pub(crate) fn calls(&self) -> Vec<String> {
        let path = self.path("bin/state/calls");
        let text = fs::read_to_string(&path).unwrap_or_default();
        let _ = fs::remove_file(&path);
        let root = self.folder.path().display().to_string();
        let calls = text.lines().filter(|line| !line.contains("version"));
        calls.map(|line| line.replace(&root, "ROOT")).collect()
    }
}

/// A container as the engine tells it, of the service `db`, which runs what is wanted; with more
/// `labels`, each with its comma.
pub(crate) fn container(id: &str, name: &str, labels: &str) -> String {
    format!(
        r#"{{"Id":"{id}","Name":"/{name}","Image":"i-db","Mounts":[],"RestartCount":0,
            "State":{{"Status":"running","ExitCode":0,"OOMKilled":false,"Error":"",
                      "StartedAt":"2026-01-01T00:00:00Z"}},
            "NetworkSettings":{{"Ports":{{}}}},
            "Config":{{"Image":"db:1","Labels":{{{labels}
                "com.docker.compose.project":"trial","com.docker.compose.service":"db",
                "com.docker.compose.config-hash":"hash-db"}}}}}}"#
    )
}

#[track_caller]
pub(crate) fn ok(output: &Output) -> String {
    let text = said(output);
    assert!(output.status.success(), "{text}");
    text
}

pub(crate) fn said(output: &Output) -> String {
    let streams = [&output.stdout, &output.stderr];
    streams.map(|bytes| String::from_utf8_lossy(bytes)).concat()
}
