//! An application of a test's own: the real router on a port of its own, with a database of its own,
//! a key space of its own in Redis, and secrets in files that the test may change.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use backend::{
    config::{Config, Reader, RedisConfig},
    server::{self, Draining, Server},
};
use redis::Commands;
use serde_json::json;
use tokio::{
    runtime::{Builder, Runtime},
    sync::watch,
};

use crate::{
    database::{self, Database},
    support::{Answer, PASSWORD, Person, redis_config, redis_connection, while_redis_has_room},
};

/// Gone, with all that it wrote, when this is dropped.
pub(crate) struct App {
    /// Where it listens, as `http://127.0.0.1:PORT`.
    pub(crate) site: String,
    pub(crate) database: Database,
    pub(crate) config: Config,
    /// What its handlers share.
    pub(crate) inner: server::App,
    /// Which keys are its own: see [`RedisConfig::space`].
    pub(crate) space: String,
    pub(crate) secrets: SecretFiles,
    /// Whether it goes on to run: it ends when this is gone.
    _running: watch::Sender<bool>,
    runtime: Option<Runtime>,
}

impl App {
    pub(crate) fn spawn() -> Self {
        Self::with(|_, _| {})
    }

    /// With another configuration, and perhaps other values in its secrets' files.
    pub(crate) fn with(change: impl FnOnce(&mut Config, &SecretFiles)) -> Self {
        let database = Database::new();
        let name = database::name();
        let secrets = SecretFiles::new(&name, &database);
        let mut config = secrets.config(&database);
        config.redis.space = format!("{name}:");
        change(&mut config, &secrets);
        let space = config.redis.space.clone();
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (running, draining) = Draining::when_told();
        let start = Server::start(config.clone(), draining);
        let (site, inner) = std::thread::scope(|scope| {
            let start = || {
                let server = runtime.block_on(start).unwrap();
                let (site, inner) = (format!("http://{}", server.address()), server.app().clone());
                runtime.spawn(server.run());
                (site, inner)
            };
            // A test may already be inside a runtime, where another one cannot be waited for.
            scope.spawn(start).join().unwrap()
        });
        let runtime = Some(runtime);
        Self { site, database, config, inner, space, secrets, _running: running, runtime }
    }

    /// Somebody who has no account yet.
    pub(crate) fn person(&self) -> Person {
        Person::at(&self.site)
    }

    /// Somebody who just signed up.
    pub(crate) fn signed_up(&self) -> Person {
        let mut person = self.person();
        person.enter("/api/accounts").expect(201);
        person
    }

    /// What another browser gets that signs in to an account.
    pub(crate) fn signed_in(&self, email: &str) -> Answer {
        let body = json!({ "email": email, "password": PASSWORD });
        self.person().post("/api/session", &body).expect(200)
    }

    /// Asks with a cookie that was noted earlier, from a jar that is otherwise empty.
    pub(crate) fn ask_with_cookie(&self, value: &str) -> Answer {
        self.person().with_cookie(value)
    }

    /// Redis as this application sees it.
    pub(crate) fn redis(&self) -> RedisConfig {
        RedisConfig { space: self.space.clone(), ..redis_config() }
    }

    /// The key of something of a kind.
    pub(crate) fn redis_key(&self, kind: &str, rest: &str) -> String {
        format!("{kind}:{}{rest}", self.space)
    }

    /// Its keys of a kind, such as `session`, or of all kinds: `*`.
    pub(crate) fn keys(&self, kind: &str) -> Vec<String> {
        redis_connection().keys(format!("{kind}:{}*", self.space)).unwrap()
    }
}

impl Drop for App {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        // Another test may have Redis take no write just now.
        let _room = while_redis_has_room();
        for key in self.keys("*") {
            let () = redis_connection().del(key).unwrap();
        }
    }
}

/// The secrets as production has them, each in a file.
pub(crate) struct SecretFiles(PathBuf);

impl SecretFiles {
    fn new(name: &str, database: &Database) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&folder).unwrap();
        let files = Self(folder);
        files.write("PG_PASSWORD", &[database.app.password.current().expose()]);
        files.write("PG_OWNER_PASSWORD", &[database.owner.password.current().expose()]);
        files.write("REDIS_PASSWORD", &[redis_config().password.current().expose()]);
        files.write("SESSION_SECRET", &[&random_hex(64)]);
        files.write("CSRF_SECRET_KEY", &[&random_hex(64)]);
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name.to_lowercase())
    }

    /// Replaces a secret's values: the current one, then those that are still accepted.
    pub(crate) fn write(&self, name: &str, values: &[&str]) {
        fs::write(self.path(name), values.join("\n") + "\n").unwrap();
    }

    /// The values of a secret.
    pub(crate) fn read(&self, name: &str) -> Vec<String> {
        fs::read_to_string(self.path(name)).unwrap().lines().map(str::to_owned).collect()
    }

    /// What a backend reads from them.
    pub(crate) fn config(&self, database: &Database) -> Config {
        let redis = redis_config();
        let mut variables = HashMap::from([
            ("APP_ENV".to_owned(), "test".to_owned()),
            ("BIND".to_owned(), "127.0.0.1:0".to_owned()),
            ("PG_HOST".to_owned(), database.app.host.clone()),
            ("PG_PORT".to_owned(), database.app.port.to_string()),
            ("PG_USER".to_owned(), database.app.user.clone()),
            ("PG_DBNAME".to_owned(), database.app.dbname.clone()),
            ("REDIS_HOST".to_owned(), redis.host),
            ("REDIS_PORT".to_owned(), redis.port.to_string()),
        ]);
        for entry in fs::read_dir(&self.0).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_uppercase();
            variables.insert(format!("{name}_FILE"), path.to_str().unwrap().to_owned());
        }
        Config::read(Reader::new(&|name| variables.get(name).cloned())).unwrap()
    }
}

impl Drop for SecretFiles {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn random_hex(bytes: usize) -> String {
    let mut buffer = vec![0; bytes];
    getrandom::fill(&mut buffer).unwrap();
    hex::encode(buffer)
}
