//! A stack for one test, driven through the real program.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::domain;
use crate::kills::Started;

pub(crate) const XTASK: &str = env!("CARGO_BIN_EXE_xtask");
static NEXT: AtomicU32 = AtomicU32::new(1);

/// The project's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// What a program printed, both streams together, and how it ended.
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) text: String,
    pub(crate) stdout: String,
}

impl Run {
    fn of(output: Output) -> Run {
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let text = format!("{stdout}{}", String::from_utf8_lossy(&output.stderr));
        Run { code: output.status.code(), text, stdout }
    }

    /// It succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> Run {
        assert_eq!(self.code, Some(0), "{}", self.text);
        self
    }

    /// It failed with this exit code, and said all of this.
    #[track_caller]
    pub(crate) fn fails(self, code: i32, said: &[&str]) -> Run {
        assert_eq!(self.code, Some(code), "{}", self.text);
        self.says(said)
    }

    /// The stack did not get ready, and all this stands on the first screen of the report: what comes
    /// further down is read by nobody.
    #[track_caller]
    pub(crate) fn fails_at_first_sight(self, code: i32, said: &[&str]) -> Run {
        const LINES: usize = 24;
        let run = self.fails(code, said);
        let report = run.text.split("the stack is not ready").nth(1).expect("there is a report");
        let screen: Vec<&str> = report.lines().take(LINES).collect();
        for words in said {
            assert!(screen.join("\n").contains(words), "{words:?} only later in:\n{}", run.text);
        }
        run
    }

    #[track_caller]
    pub(crate) fn says(self, said: &[&str]) -> Run {
        for words in said {
            assert!(self.text.contains(words), "expected {words:?} in:\n{}", self.text);
        }
        self
    }
}

/// A stack of its own.
pub(crate) struct Stand {
    pub(crate) name: String,
    folder: PathBuf,
}

impl Stand {
    /// Writes an environment file with a new name and free ports; starts nothing.
    pub(crate) fn new() -> Stand {
        let stand = Stand::prepared(&["env", "init"]);
        stand.set("APP_ENV", "test");
        stand
    }

    /// The same with production's files and values, published on this machine only.
    pub(crate) fn production() -> Stand {
        let stand = Stand::prepared(&["--prod", "env", "init"]);
        stand.set("HTTP_ADDRESS", "127.0.0.1");
        stand.set("CERTS_DIR", &stand.folder.join("certs/live").display().to_string());
        stand.xtask(&["cert", "self-signed"]).ok();
        stand
    }

    fn prepared(init: &[&str]) -> Stand {
        let base = std::env::var("LIVE_PROJECT").unwrap_or_else(|_| "xtask-live".to_owned());
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{base}-{}-{number}", std::process::id());
        let folder = root().join("target/xtask").join(&name);
        let stand = Stand { name: name.clone(), folder };
        stand.xtask(init).ok();
        stand.set("COMPOSE_PROJECT_NAME", &name);
        stand.set("BACKUP_DIR", &stand.folder.join("backups").display().to_string());
        for secret in stand.secrets_from_outside() {
            stand.set(&secret, "a stand-in of the tests");
        }
        for port in ["HTTP_PORT", "HTTPS_PORT", "PG_PORT", "REDIS_PORT"] {
            stand.set(port, &free_port().to_string());
        }
        if let Ok(source) = std::env::var("LIVE_IMAGE_SOURCE") {
            stand.set("IMAGE_SOURCE", &source);
        }
        stand
    }

    /// Those that somebody else gives, and nobody has.
    fn secrets_from_outside(&self) -> Vec<String> {
        let text = self.env_text();
        let open = text.split("\n\n").filter(|p| p.starts_with("# Secret from outside"));
        let open = open.filter_map(|paragraph| paragraph.trim_end().lines().next_back());
        open.filter_map(|line| line.strip_suffix('=')).map(str::to_owned).collect()
    }

    pub(crate) fn env_file(&self) -> PathBuf {
        self.folder.join("env")
    }

    /// Where this stack's backups are.
    pub(crate) fn backups(&self) -> PathBuf {
        self.folder.join("backups").join(&self.name)
    }

    /// What one query says, asked as the superuser.
    pub(crate) fn sql(&self, sql: &str) -> String {
        let words = ["psql", "--", "-U", "postgres", "-v", "ON_ERROR_STOP=1", "-XAtqc", sql];
        self.xtask(&words).ok().stdout.trim().to_owned()
    }

    /// This stack's own folder; it goes away with it.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// A file of this stack's own, such as an overlay.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.join(name);
        fs::write(&path, text).unwrap();
        path
    }

    pub(crate) fn env_text(&self) -> String {
        fs::read_to_string(self.env_file()).unwrap()
    }

    pub(crate) fn set_env_text(&self, text: &str) {
        fs::write(self.env_file(), text).unwrap();
    }

    /// The value of a variable.
    pub(crate) fn get(&self, name: &str) -> String {
        let text = self.env_text();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name}=")));
        line.unwrap_or_else(|| panic!("{name} is not in {text}")).to_owned()
    }

    pub(crate) fn set(&self, name: &str, value: &str) {
        let text = self.env_text();
        let change = |line: &str| {
            if line.starts_with(&format!("{name}=")) {
                format!("{name}={value}")
            } else {
                line.to_owned()
            }
        };
        let lines: Vec<String> = text.lines().map(change).collect();
        self.set_env_text(&(lines.join("\n") + "\n"));
    }

    /// Lays a Compose file of the test's own over the stack's.
    pub(crate) fn overlay(&self, text: &str) {
        let path = self.write("overlay.yaml", text);
        let files = self.get("COMPOSE_FILE");
        if !files.contains("overlay.yaml") {
            self.set("COMPOSE_FILE", &format!("{files}:{}", path.display()));
        }
    }

    /// Names the official images as this registry would hold them.
    pub(crate) fn take_images_from(&self, registry: &str) {
        for name in ["NGINX_IMAGE", "POSTGRES_IMAGE", "REDIS_IMAGE", "RUST_IMAGE"] {
            let official = self.get(name);
            self.set(name, &format!("{registry}/library/{official}"));
        }
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(XTASK);
        command.arg("--env-file").arg(self.env_file()).args(args).stdin(Stdio::null());
        // What the person or the server has set must not reach the stack under test.
        for name in ["CI", "COMPOSE_FILE", "COMPOSE_PROJECT_NAME", "IMAGE_SOURCE", "APP_ENV"] {
            command.env_remove(name);
        }
        command
    }

    pub(crate) fn xtask(&self, args: &[&str]) -> Run {
        Run::of(self.command(args).output().unwrap())
    }

    pub(crate) fn up(&self) -> Run {
        self.xtask(&["up", "--yes"])
    }

    /// Starts the program and does not wait for it.
    pub(crate) fn spawn(&self, args: &[&str]) -> Started {
        Started::new(self.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()))
    }

    /// Waits until this process has the stack's lock, and has written that into it.
    pub(crate) fn wait_for_holder(&self, pid: u32) {
        let user = rustix::process::getuid().as_raw();
        let lock = format!("xtask-locks-{user}/{}.lock", self.name);
        let (lock, pid) = (std::env::temp_dir().join(lock), format!("\"pid\":{pid},"));
        let deadline = Instant::now() + Duration::from_secs(30);
        while !fs::read_to_string(&lock).is_ok_and(|text| text.contains(&pid)) {
            assert!(Instant::now() < deadline, "{} does not say {pid}", lock.display());
            thread::sleep(Duration::from_millis(2));
        }
    }

    pub(crate) fn status(&self) -> Value {
        let run = self.xtask(&["status", "--format", "json"]).ok();
        serde_json::from_str(&run.stdout).unwrap()
    }

    pub(crate) fn container(&self, service: &str) -> String {
        format!("{}-{service}-1", self.name)
    }

    /// The ids of the stack's containers, sorted.
    pub(crate) fn container_ids(&self) -> Vec<String> {
        let filter = format!("label=com.docker.compose.project={}", self.name);
        let run = docker(&["ps", "--all", "--quiet", "--no-trunc", "--filter", &filter]).ok();
        let mut ids: Vec<String> = run.stdout.lines().map(str::to_owned).collect();
        ids.sort();
        ids
    }

    /// A line of shell as root of this machine, whoever runs the tests: in a container with every right, whose
    /// root is the machine's own.
    pub(crate) fn as_root(&self, line: &str) -> Run {
        let format = ["inspect", "--format", "{{.Image}}", &self.container("redis")];
        let image = docker(&format).ok().stdout;
        let rights = "--privileged --pid=host --network=none --volume=/:/host --workdir=/";
        let mut words = vec!["run", "--rm", "--user=0", "--entrypoint=chroot"];
        words.extend(rights.split(' ').chain([image.trim(), "/host", "sh", "-c", line]));
        docker(&words)
    }

    /// When a container's process was started, as the engine writes it.
    pub(crate) fn started_at(&self, service: &str) -> String {
        let name = self.container(service);
        docker(&["inspect", "--format", "{{.State.StartedAt}}", &name]).ok().stdout
    }

    pub(crate) fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.get("HTTP_PORT"))
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(root().join(".secrets").join(&self.name));
        let filter = format!("label=com.docker.compose.project={}", self.name);
        for (list, remove) in [
            ("ps --all --quiet", "rm --force --volumes"),
            ("network ls --quiet", "network rm"),
            ("volume ls --quiet", "volume rm"),
        ] {
            let mut args: Vec<&str> = list.split(' ').collect();
            args.extend(["--filter", &filter]);
            let found = docker(&args).stdout;
            let mut args: Vec<&str> = remove.split(' ').collect();
            args.extend(found.split_whitespace());
            if !found.trim().is_empty() {
                docker(&args);
            }
        }
        for places in ["", "localhost/"] {
            remove_images(&format!("{places}{}-*", self.name));
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Removes the names that match, and with its last name an image. A pull by digest leaves a name of its own.
pub(crate) fn remove_images(reference: &str) {
    let filter = format!("reference={reference}");
    let format = "{{.Repository}}:{{.Tag}} {{.Repository}}@{{.Digest}}";
    let list = ["image", "ls", "--digests", "--filter", &filter, "--format", format];
    let found = docker(&list).stdout;
    let names: BTreeSet<&str> =
        found.split_whitespace().filter(|name| !name.ends_with("<none>")).collect();
    for name in names {
        docker(&["image", "rm", "--force", name]);
    }
}

/// Runs docker itself.
pub(crate) fn docker(args: &[&str]) -> Run {
    run(Command::new("docker").args(args))
}

pub(crate) fn run(command: &mut Command) -> Run {
    Run::of(command.stdin(Stdio::null()).output().unwrap())
}

/// A port that nobody has, and that no other test was given either.
pub(crate) fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        if GIVEN.lock().unwrap().insert(port) {
            return port;
        }
    }
}

/// A person with a browser: keeps cookies.
pub(crate) struct Visitor {
    agent: ureq::Agent,
    address: String,
    token: String,
}

impl Visitor {
    pub(crate) fn new(stand: &Stand) -> Visitor {
        let config = ureq::Agent::config_builder().http_status_as_error(false).build();
        Visitor { agent: config.into(), address: stand.address(), token: String::new() }
    }

    /// Another browser at the same address.
    pub(crate) fn somebody_else(&self) -> Visitor {
        let config = ureq::Agent::config_builder().http_status_as_error(false).build();
        Visitor { agent: config.into(), address: self.address.clone(), token: String::new() }
    }

    pub(crate) fn post(&mut self, path: &str, body: Value) -> (u16, Value) {
        let request = self.agent.post(format!("{}{path}", self.address));
        let mut response = request.header("X-CSRF-Token", &self.token).send_json(body).unwrap();
        let json: Value = response.body_mut().read_json().unwrap_or_default();
        if let Some(token) = json["csrf_token"].as_str() {
            token.clone_into(&mut self.token);
        }
        (response.status().as_u16(), json)
    }

    pub(crate) fn get(&self, path: &str) -> (u16, Value) {
        let mut response = self.agent.get(format!("{}{path}", self.address)).call().unwrap();
        (response.status().as_u16(), response.body_mut().read_json().unwrap_or_default())
    }

    /// Signs up with an address that nobody else has.
    pub(crate) fn sign_up(&mut self) {
        let email = format!("visitor-{}@example.com", free_port());
        let body = serde_json::json!({"email": email, "password": "a long enough password"});
        let (status, answer) = self.post("/api/accounts", body);
        assert_eq!(status, 201, "{answer}");
    }

    pub(crate) fn write(&mut self, text: &str) {
        let (status, answer) = self.post(domain::PATH, domain::body(text));
        assert_eq!(status, 201, "{answer}");
    }

    /// Whether this text is in the list; fails where the session is gone.
    pub(crate) fn sees(&self, text: &str) -> bool {
        let (status, answer) = self.get(domain::PATH);
        assert_eq!(status, 200, "{answer}");
        answer.to_string().contains(text)
    }
}
