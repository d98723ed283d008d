//! A person at a browser, and where the stack is.

use std::{
    cell::Cell,
    sync::atomic::{AtomicU32, Ordering},
    sync::{RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::{SystemTime, UNIX_EPOCH},
};

use backend::config::{DatabaseConfig, RedisConfig, Rotating};
use serde_json::{Value, json};
use ureq::http::{HeaderMap, Request, StatusCode};

use crate::wire;

pub(crate) const PASSWORD: &str = "correct horse battery";

/// The value of a variable that says where the stack is.
pub(crate) fn stack(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| {
        panic!("{variable} is not set: `cargo xtask test` sets it, after it started a stack")
    })
}

/// A text that no other test, and no earlier run on the same stack, uses.
pub(crate) fn unique(prefix: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    format!("{prefix}_{now:x}_{}_{count}", std::process::id())
}

/// One browser profile: a cookie jar, and the token of the session.
pub(crate) struct Person {
    agent: ureq::Agent,
    site: String,
    pub(crate) email: String,
    pub(crate) token: Option<String>,
}

/// What came back.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {}", self.text))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Asserts the status, showing the body when it is another.
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self
    }

    /// Asserts a problem document of RFC 9457 with this status and returns it.
    pub(crate) fn problem(self, status: u16) -> Value {
        let answer = self.expect(status);
        assert_eq!(answer.header("content-type"), "application/problem+json");
        let problem = answer.json();
        assert_eq!(problem["status"], status);
        assert_eq!(problem["type"], "about:blank");
        assert!(problem["title"].is_string(), "{problem}");
        assert_eq!(problem["request_id"], answer.header("x-request-id"), "{problem}");
        problem
    }
}

impl Person {
    /// Somebody who has no account yet, in front of nginx.
    pub(crate) fn new() -> Self {
        Self::at(&wire::site())
    }

    /// The same at another address.
    pub(crate) fn at(site: &str) -> Self {
        Self {
            agent: wire::agent(),
            site: site.to_owned(),
            email: format!("{}@example.com", unique("person")),
            token: None,
        }
    }

    /// Somebody who just signed up, in front of nginx.
    pub(crate) fn signed_up() -> Self {
        let mut person = Self::new();
        person.enter("/api/accounts").expect(201);
        person
    }

    /// Signs up or in with the right password.
    pub(crate) fn enter(&mut self, path: &str) -> Answer {
        self.token = None;
        let credentials = json!({ "email": self.email, "password": PASSWORD });
        let answer = self.post(path, &credentials);
        if answer.status.is_success() {
            self.token = answer.json()["csrf_token"].as_str().map(str::to_owned);
        }
        answer
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], Vec::new())
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        self.call("POST", path, &[], body.to_string().into_bytes())
    }

    pub(crate) fn delete(&self, path: &str) -> Answer {
        self.call("DELETE", path, &[], Vec::new())
    }

    /// Asks who is signed in, with a cookie that was noted earlier.
    pub(crate) fn with_cookie(&self, value: &str) -> Answer {
        let cookie = format!("session={value}; __Host-session={value}");
        self.send("GET", "/api/session", &[("cookie", &cookie)], Vec::new())
    }

    /// A JSON request with the token of the session, if there is one.
    pub(crate) fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Answer {
        let mut all = vec![("content-type", "application/json")];
        all.extend(self.token.as_deref().map(|token| ("x-csrf-token", token)));
        all.extend(headers);
        self.send(method, path, &all, body)
    }

    pub(crate) fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> Answer {
        let uri = format!("{}{path}", self.site);
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let _room = while_redis_has_room();
        let response = self.agent.run(request.body(body).unwrap());
        let mut response = response.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        Answer {
            status: response.status(),
            headers: response.headers().clone(),
            text: response.body_mut().read_to_string().unwrap(),
        }
    }
}

/// A few tests need Redis for themselves. All others hold this for reading meanwhile.
static ROOM: RwLock<()> = RwLock::new(());

thread_local! {
    /// Whether this thread holds it in either way: to ask for it again could wait for whoever waits for this thread.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Until this is dropped, no other test has Redis for itself.
pub(crate) struct Room(Option<RwLockReadGuard<'static, ()>>);

pub(crate) fn while_redis_has_room() -> Room {
    // A test that failed while it filled Redis poisons the lock, and put Redis right before.
    let free = !INSIDE.replace(true);
    Room(free.then(|| ROOM.read().unwrap_or_else(|poisoned| poisoned.into_inner())))
}

/// The same for a thread whose maker has it, and outlives it. Asked for anew it would wait behind whoever waits to
/// have Redis for himself, and he for the maker.
pub(crate) fn as_my_maker() {
    INSIDE.set(true);
}

impl Drop for Room {
    fn drop(&mut self) {
        if self.0.is_some() {
            INSIDE.set(false);
        }
    }
}

/// Redis without the other tests, until this is dropped.
pub(crate) struct Alone(#[allow(dead_code, reason = "held")] RwLockWriteGuard<'static, ()>);

impl Alone {
    pub(crate) fn in_redis() -> Self {
        let alone = Self(ROOM.write().unwrap_or_else(|poisoned| poisoned.into_inner()));
        INSIDE.set(true);
        alone
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        INSIDE.set(false);
    }
}

/// A Redis without room for one more key, until this is dropped.
pub(crate) struct FullRedis {
    before: String,
    _alone: Alone,
}

impl FullRedis {
    pub(crate) fn new() -> Self {
        let alone = Alone::in_redis();
        let before: Vec<String> = config(&["GET", "maxmemory"]);
        let full = Self { before: before[1].clone(), _alone: alone };
        config::<()>(&["SET", "maxmemory", "1mb"]);
        full
    }
}

impl Drop for FullRedis {
    fn drop(&mut self) {
        config::<()>(&["SET", "maxmemory", &self.before]);
    }
}

/// A Redis that reads and takes no write, as one that cannot persist, until this is dropped.
pub(crate) struct NoWrites {
    _alone: Alone,
}

impl NoWrites {
    pub(crate) fn new() -> Self {
        let no_writes = Self { _alone: Alone::in_redis() };
        // It has no replica.
        config::<()>(&["SET", "min-replicas-to-write", "1"]);
        no_writes
    }
}

impl Drop for NoWrites {
    fn drop(&mut self) {
        config::<()>(&["SET", "min-replicas-to-write", "0"]);
    }
}

fn config<T: redis::FromRedisValue>(words: &[&str]) -> T {
    redis::cmd("CONFIG").arg(words).query(&mut redis_connection()).unwrap()
}

pub(crate) fn redis_connection() -> redis::Connection {
    redis::Client::open(stack("STACK_REDIS_URL")).unwrap().get_connection().unwrap()
}

pub(crate) fn redis_config() -> RedisConfig {
    let url = stack("STACK_REDIS_URL");
    let address = url.rsplit_once('@').unwrap().1.trim_end_matches('/');
    let (host, port) = address.split_once(':').unwrap();
    RedisConfig {
        host: host.to_owned(),
        port: port.parse().unwrap(),
        user: "backend".to_owned(),
        password: Rotating::fixed(stack("STACK_REDIS_PASSWORD")),
        space: String::new(),
    }
}

/// The stack's database as the application's role.
pub(crate) fn database_config() -> DatabaseConfig {
    config_of(&stack("STACK_PG_URL"))
}

/// The same server as a role that may create databases.
pub(crate) fn admin_config() -> DatabaseConfig {
    config_of(&stack("STACK_PG_ADMIN_URL"))
}

/// From `postgres://user:password@host:port/database`.
fn config_of(url: &str) -> DatabaseConfig {
    let rest = url.split_once("://").unwrap().1;
    let (credentials, place) = rest.rsplit_once('@').unwrap();
    let (user, password) = credentials.split_once(':').unwrap();
    let (address, dbname) = place.split_once('/').unwrap();
    let (host, port) = address.split_once(':').unwrap_or((address, "5432"));
    DatabaseConfig {
        host: host.to_owned(),
        port: port.parse().unwrap(),
        user: user.to_owned(),
        password: Rotating::fixed(password.to_owned()),
        dbname: dbname.to_owned(),
    }
}

/// The value of the session's cookie in an answer, `""` when it is removed.
pub(crate) fn session_cookie(answer: &Answer) -> String {
    let cookie = answer.header("set-cookie");
    let (name, rest) = cookie.split_once('=').unwrap_or_else(|| panic!("no cookie: {cookie}"));
    assert!(["session", "__Host-session"].contains(&name), "{cookie}");
    for attribute in ["HttpOnly", "SameSite=Lax", "Path=/"] {
        assert!(cookie.contains(attribute), "{attribute} is not in {cookie}");
    }
    rest.split(';').next().unwrap().to_owned()
}
