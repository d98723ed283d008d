//! Secrets that are replaced while requests come in: none of them fails, and nobody is signed out.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use backend::config::{DatabaseConfig, Rotating};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::{
    app::{App, random_hex},
    database::{name, run_sql},
    redis_user::RedisUser,
    support::{NoWrites, Person, as_my_maker, session_cookie, while_redis_has_room},
};

/// A change that does not come about within this time will not come about.
const LIMIT: Duration = Duration::from_secs(20);

/// Requests that ask PostgreSQL and Redis, the unsafe one with its token, as long as `change` takes
/// and for a while before and after it. Each must succeed.
fn under_load(app: &App, change: impl FnOnce()) {
    let _room = while_redis_has_room();
    let (done, count) = (AtomicBool::new(false), AtomicUsize::new(0));
    let people: Vec<Person> = (0..2).map(|_| app.signed_up()).collect();
    let ask = |person: &Person| {
        as_my_maker();
        while !done.load(Ordering::Relaxed) {
            person.get("/api/session").expect(200);
            person.delete("/api/sessions?keep=current").expect(204);
            count.fetch_add(1, Ordering::Relaxed);
        }
    };
    let more = |rounds| {
        let goal = count.load(Ordering::Relaxed) + rounds;
        until("the requests go on", || count.load(Ordering::Relaxed) >= goal);
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = people.iter().map(|person| scope.spawn(|| ask(person))).collect();
        // Whatever happens, the threads end: a scope waits for them.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            more(20);
            change();
            more(20);
        }));
        done.store(true, Ordering::Relaxed);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        outcome.unwrap();
    });
}

/// Waits for what another part does in its own time.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        std::thread::yield_now();
    }
}

fn until_accepted<T>(secret: &Rotating<T>, count: usize) {
    until("the file is taken over", || secret.accepted().len() == count);
}

#[test]
fn a_new_session_secret_signs_nobody_out() {
    let app = App::spawn();
    let mut idle = app.person();
    let idle_cookie = session_cookie(&idle.enter("/api/accounts").expect(201));
    let lost_cookie = session_cookie(&app.person().enter("/api/accounts").expect(201));
    let old = app.secrets.read("SESSION_SECRET").remove(0);
    let new = random_hex(64);
    let before = app.keys("session");

    under_load(&app, || {
        app.secrets.write("SESSION_SECRET", &[&new, "# until=a while", &old]);
        until_accepted(&app.config.session_secret, 2);
    });
    // Whoever came meanwhile stands under the new hash, and under no other.
    let after = app.keys("session");
    assert_eq!(after.iter().filter(|key| before.contains(key)).count(), 2, "{before:?} {after:?}");

    // The list goes with them: each is there once, the own one is known, and it can be ended.
    let other = session_cookie(&app.signed_in(&idle.email));
    let list = || idle.get("/api/sessions").expect(200).json()["sessions"].clone();
    assert_eq!(list().as_array().unwrap().len(), 2);
    assert_eq!(list().as_array().unwrap().iter().filter(|one| one["current"] == true).count(), 1);
    idle.delete("/api/sessions?keep=current").expect(204);
    app.ask_with_cookie(&other).problem(401);

    // The previous key goes: who used the session since then does not notice.
    app.secrets.write("SESSION_SECRET", &[&new]);
    until_accepted(&app.config.session_secret, 1);
    app.ask_with_cookie(&idle_cookie).expect(200);
    app.ask_with_cookie(&lost_cookie).problem(401);
    idle.delete("/api/session").expect(204);
    app.ask_with_cookie(&idle_cookie).problem(401);
}

#[test]
fn a_session_of_the_previous_key_is_ended_like_any_other() {
    let app = App::spawn();
    let old = app.secrets.read("SESSION_SECRET").remove(0);
    let mut person = app.person();
    let first = session_cookie(&person.enter("/api/accounts").expect(201));
    let second = session_cookie(&app.signed_in(&person.email));
    app.secrets.write("SESSION_SECRET", &[&random_hex(64), &old]);
    until_accepted(&app.config.session_secret, 2);
    // The sign-in ends the session that it came with, and a new password all others.
    person.enter("/api/session").expect(200);
    app.ask_with_cookie(&first).problem(401);
    let change = json!({
        "current_password": crate::support::PASSWORD,
        "new_password": "another password",
    });
    person.call("PUT", "/api/account/password", &[], change.to_string().into_bytes()).expect(200);
    app.ask_with_cookie(&second).problem(401);
    assert_eq!(app.keys("session").len(), 1);
}

/// It cannot be moved then, and is there all the same.
#[test]
fn a_session_of_the_previous_key_is_found_while_redis_takes_no_write() {
    let app = App::spawn();
    let old = app.secrets.read("SESSION_SECRET").remove(0);
    let mut person = app.person();
    let cookie = session_cookie(&person.enter("/api/accounts").expect(201));
    app.secrets.write("SESSION_SECRET", &[&random_hex(64), &old]);
    until_accepted(&app.config.session_secret, 2);
    {
        let _no_writes = NoWrites::new();
        app.ask_with_cookie(&cookie).expect(200);
    }
    app.ask_with_cookie(&cookie).expect(200);
}

/// A replica that has not looked at the file yet meets a session of one that has.
#[test]
fn a_session_under_a_key_that_is_seconds_old_is_found() {
    let app = App::spawn();
    let [old, new] = [app.secrets.read("SESSION_SECRET").remove(0), random_hex(64)];
    let ahead = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _room = while_redis_has_room();
    let id = ahead.block_on(async {
        let mut bytes = [0; 64];
        hex::decode_to_slice(&new, &mut bytes).unwrap();
        let link = backend::link::Link::connect(&app.redis(), LIMIT, &|_| {}).await.unwrap();
        let sessions = backend::sessions::Sessions::new(link, Rotating::fixed(bytes));
        app.secrets.write("SESSION_SECRET", &[&new, &old]);
        sessions.create(1, &axum::http::HeaderMap::new()).await.unwrap()
    });
    // No such account is the answer of someone who found the session.
    let found = ahead.block_on(app.inner.sessions.find(id)).unwrap();
    assert_eq!(found.unwrap().account_id, 1);
}

#[test]
fn a_new_csrf_key_refuses_no_page_that_is_open() {
    let app = App::spawn();
    let old = app.secrets.read("CSRF_SECRET_KEY").remove(0);
    let new = random_hex(64);
    let mut open = app.signed_up();
    under_load(&app, || {
        app.secrets.write("CSRF_SECRET_KEY", &[&new, &old]);
        until_accepted(&app.config.csrf_key, 2);
    });
    open.delete("/api/sessions?keep=current").expect(204);
    let fresh = open.get("/api/session").expect(200).json()["csrf_token"].clone();
    app.secrets.write("CSRF_SECRET_KEY", &[&new]);
    until_accepted(&app.config.csrf_key, 1);
    open.delete("/api/sessions?keep=current").problem(403);
    open.token = fresh.as_str().map(str::to_owned);
    open.delete("/api/sessions?keep=current").expect(204);
}

/// A role of PostgreSQL that exists as long as this value.
struct Role(String);

impl Role {
    fn new(password: &str) -> Self {
        let name = name();
        run_sql(&format!("CREATE ROLE {name} LOGIN PASSWORD '{password}' IN ROLE app ROLE tests"));
        Self(name)
    }

    fn set_password(&self, password: &str) {
        run_sql(&format!("ALTER ROLE {} PASSWORD '{password}'", self.0));
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        run_sql(&format!("DROP ROLE {}", self.0));
    }
}

/// Who looks why nothing goes any more reads the reason, and not that there was no connection in time.
#[test]
fn a_password_that_nobody_told_us_is_what_makes_us_not_ready() {
    let role = Role::new("first");
    let app = App::with(|config, _| {
        config.database.user = role.0.clone();
        config.database.password = Rotating::fixed("first".to_owned());
    });
    role.set_password("second");
    reconnecting(&app, "/readyz tells the reason", |_| {
        let answer = app.person().get("/readyz");
        answer.status.as_u16() == 503
            && answer.text.contains("PostgreSQL: password authentication failed")
    });
    role.set_password("first");
    app.person().get("/readyz").expect(200);
}

/// Closes connections of the pool that are idle, again and again, until `holds`: new ones sign in.
fn reconnecting(app: &App, what: &str, mut holds: impl FnMut(usize) -> bool) {
    let mut closed = 0;
    until(what, || {
        while let Some(connection) = app.inner.db.pool().try_acquire() {
            drop(connection.detach());
            closed += 1;
        }
        holds(closed)
    });
}

#[test]
fn a_new_password_of_the_database_fails_no_request() {
    let role = Role::new("first");
    let app = App::with(|config, secrets| {
        config.database.user.clone_from(&role.0);
        secrets.write("PG_PASSWORD", &["first"]);
        config.database.password.refresh();
    });
    under_load(&app, || {
        // As `cargo xtask env rotate` does it: the file first, in which both stand.
        app.secrets.write("PG_PASSWORD", &["second", "# until=soon", "first"]);
        until_accepted(&app.config.database.password, 2);
        reconnecting(&app, "connections with the previous password", |closed| closed > 5);
        role.set_password("second");
        reconnecting(&app, "connections with the new password", |closed| closed > 5);
        app.secrets.write("PG_PASSWORD", &["second"]);
        until_accepted(&app.config.database.password, 1);
        reconnecting(&app, "connections without another choice", |closed| closed > 5);
        // The other way round, as a database that somebody else operates does it.
        role.set_password("third");
        app.secrets.write("PG_PASSWORD", &["third"]);
        let password = &app.config.database.password;
        reconnecting(&app, "the third", |_| password.current().expose() == "third");
        reconnecting(&app, "connections with the third", |closed| closed > 5);
    });
}

/// The pool alone, without anybody who looks at the file from time to time.
#[test]
fn a_refused_password_is_looked_up_at_once() {
    let role = Role::new("first");
    let app = App::with(|config, secrets| {
        config.database.user.clone_from(&role.0);
        secrets.write("PG_PASSWORD", &["first"]);
        config.database.password.refresh();
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = app.secrets.config(&app.database);
    let config = DatabaseConfig { user: role.0.clone(), ..config.database };
    runtime.block_on(async {
        let pool = backend::db::Database::new(&config);
        let _first = pool.acquire().await.unwrap();
        role.set_password("second");
        app.secrets.write("PG_PASSWORD", &["not in force", "second"]);
        let _second = pool.acquire().await.unwrap();
        role.set_password("not in force");
        let _third = pool.begin().await.unwrap();
        // None is right: told within the deadline, and right again as soon as one is.
        app.secrets.write("PG_PASSWORD", &["wrong"]);
        role.set_password("fourth");
        pool.acquire().await.err().unwrap();
        app.secrets.write("PG_PASSWORD", &["fourth"]);
        let _fourth = pool.acquire().await.unwrap();
    });
}

#[test]
fn a_start_in_the_middle_of_a_change_finds_the_password_that_is_good() {
    let app = App::with(|_, secrets| {
        for name in ["PG_PASSWORD", "PG_OWNER_PASSWORD", "REDIS_PASSWORD"] {
            let good = secrets.read(name).remove(0);
            secrets.write(name, &["not in force yet", &good]);
        }
    });
    app.signed_up().get("/api/session").expect(200);
}

fn hash(password: &str) -> String {
    hex::encode(Sha256::digest(password))
}

#[test]
fn a_new_password_of_redis_fails_no_request() {
    let user = RedisUser::new("first");
    let app = App::with(|config, secrets| {
        config.redis.user.clone_from(&user.0);
        secrets.write("REDIS_PASSWORD", &["first"]);
        config.redis.password.refresh();
    });
    under_load(&app, || {
        // As `cargo xtask env rotate` does it: Redis learns the new one, then the file has both.
        user.set(&[">second".to_owned()]);
        app.secrets.write("REDIS_PASSWORD", &["second", "first"]);
        user.cut();
        user.set(&[format!("!{}", hash("first"))]);
        user.cut();
        app.secrets.write("REDIS_PASSWORD", &["second"]);
        until_accepted(&app.config.redis.password, 1);
        user.cut();
    });
    // A connection that knew an old password only, and finds it refused.
    under_load(&app, || {
        user.set(&[">third".to_owned(), format!("!{}", hash("second"))]);
        app.secrets.write("REDIS_PASSWORD", &["third"]);
        user.cut();
    });
    assert_eq!(app.config.redis.password.current().expose(), "third");
}
