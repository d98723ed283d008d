//! Accounts and sessions, from outside and in Redis.

use std::time::Duration;

use axum::http::HeaderMap;
use backend::{config::Rotating, link::Link, sessions::Sessions};
use redis::Commands;
use serde_json::json;

use crate::{
    app::App,
    support::{
        PASSWORD, as_my_maker, redis_connection, session_cookie, unique, while_redis_has_room,
    },
};

#[test]
fn sign_up_out_and_in_again() {
    let app = App::spawn();
    let mut person = app.person();
    person.get("/api/session").problem(401);

    let answer = person.enter("/api/accounts").expect(201);
    assert_eq!(answer.json()["account"]["email"], person.email);
    let me = person.get("/api/session").expect(200).json();
    assert_eq!(me["account"]["email"], person.email);
    assert_eq!(me["csrf_token"], person.token.clone().unwrap());

    let answer = person.delete("/api/session").expect(204);
    assert_eq!(session_cookie(&answer), "");
    person.get("/api/session").problem(401);

    person.enter("/api/session").expect(200);
    person.get("/api/session").expect(200);
}

#[test]
fn a_cookie_kept_aside_is_dead_after_sign_out() {
    let app = App::spawn();
    let mut person = app.person();
    let cookie = session_cookie(&person.enter("/api/accounts"));
    app.ask_with_cookie(&cookie).expect(200);
    person.delete("/api/session").expect(204);
    app.ask_with_cookie(&cookie).problem(401);
}

#[test]
fn signing_in_gives_a_new_session_and_ends_the_old_one() {
    let app = App::spawn();
    let mut person = app.person();
    let first = session_cookie(&person.enter("/api/accounts"));
    let second = session_cookie(&person.enter("/api/session").expect(200));
    assert_ne!(first, second);
    app.ask_with_cookie(&first).problem(401);
    app.ask_with_cookie(&second).expect(200);
}

#[test]
fn a_planted_session_id_is_not_adopted() {
    let app = App::spawn();
    let mut victim = app.signed_up();
    victim.delete("/api/session").expect(204);
    let planted = "ab".repeat(32);
    let cookie = format!("session={planted}; __Host-session={planted}");
    let credentials = json!({ "email": victim.email, "password": PASSWORD });
    victim.token = None;
    let body = credentials.to_string().into_bytes();
    let answer =
        app.person().call("POST", "/api/session", &[("cookie", &cookie)], body).expect(200);
    assert_ne!(session_cookie(&answer), planted);
    app.ask_with_cookie(&planted).problem(401);
}

#[test]
fn a_wrong_password_and_an_unknown_address_get_the_same_answer() {
    let app = App::spawn();
    let person = app.signed_up();
    let stranger = app.person();
    let wrong = json!({ "email": person.email, "password": "not the password" });
    let unknown = json!({ "email": stranger.email, "password": "not the password" });
    let [mut wrong, mut unknown] =
        [wrong, unknown].map(|body| stranger.post("/api/session", &body).problem(401));
    for problem in [&mut wrong, &mut unknown] {
        problem.as_object_mut().unwrap().remove("request_id");
    }
    assert_eq!(wrong, unknown);
}

#[test]
fn what_cannot_be_an_account_is_refused_field_by_field() {
    let app = App::spawn();
    let problem = app
        .person()
        .post("/api/accounts", &json!({ "email": "nobody", "password": "short" }))
        .problem(422);
    let fields: Vec<_> = problem["errors"].as_array().unwrap().iter().collect();
    assert_eq!(fields.len(), 2, "{problem}");
    assert_eq!(fields[0]["field"], "email");
    assert_eq!(fields[1]["field"], "password");
}

#[test]
fn an_address_has_one_account_however_it_is_typed() {
    let app = App::spawn();
    let mut person = app.signed_up();
    person.email = person.email.to_uppercase();
    person.enter("/api/accounts").problem(409);
    person.enter("/api/session").expect(200);
}

#[test]
fn redis_holds_no_cookie() {
    let app = App::spawn();
    let mut person = app.person();
    let cookie = session_cookie(&person.enter("/api/accounts"));
    let mut redis = redis_connection();
    let keys = app.keys("*");
    assert!(keys.len() >= 3, "a session, a list, a counter: {keys:?}");
    for key in keys {
        assert!(!key.contains(&cookie), "a raw session id is a key: {key}");
        if key.starts_with("session:") {
            let record: Option<String> = redis.get(&key).unwrap();
            assert!(!record.unwrap_or_default().contains(&cookie), "a raw id is in {key}");
        }
    }
}

/// The store itself, as the time-outs cannot be waited for from outside.
#[tokio::test]
async fn time_outs_slide_up_to_an_absolute_end() {
    const DAY: i64 = 24 * 60 * 60;
    let _room = while_redis_has_room();
    let app = App::spawn();
    let sessions = store(&app).await;
    // Scripts have floating-point numbers only; this one they can still tell from its neighbours.
    let account = i64::MAX / 4096 - 1;
    let id = sessions.create(account, &HeaderMap::new()).await.unwrap();
    let key = app.keys("session").pop().unwrap();
    let mut redis = redis_connection();

    // A request starts the seven idle days anew.
    let () = redis.expire(&key, 60).unwrap();
    assert!(sessions.find(id).await.unwrap().is_some());
    assert!(redis.ttl::<_, i64>(&key).unwrap() > 6 * DAY);

    // Used or not, it ends 30 days after it began.
    let age = |redis: &mut redis::Connection, days: i64| {
        let created = i64::try_from(now()).unwrap() - days * DAY;
        let record = json!({ "account_id": account, "created": created }).to_string();
        let () = redis.set_ex(&key, record, 3600).unwrap();
    };
    age(&mut redis, 29);
    assert!(sessions.find(id).await.unwrap().is_some());
    age(&mut redis, 30);
    assert!(sessions.find(id).await.unwrap().is_none());
    assert!(!redis.exists::<_, bool>(&key).unwrap());
    assert!(!redis.exists::<_, bool>(app.redis_key("sessions-of", &account.to_string())).unwrap());
}

/// However often an account signs in, it takes up a bounded part of Redis, and none in the end.
#[tokio::test]
async fn the_list_of_an_account_is_bounded_and_forgets_what_is_gone() {
    let _room = while_redis_has_room();
    let app = App::spawn();
    let sessions = store(&app).await;
    let account = 42;
    let list = app.redis_key("sessions-of", "42");
    let mut redis = redis_connection();
    let mut ids = Vec::new();
    for _ in 0..60 {
        ids.push(sessions.create(account, &HeaderMap::new()).await.unwrap());
    }
    assert_eq!(redis.zcard::<_, usize>(&list).unwrap(), 50);
    assert_eq!(app.keys("session").len(), 50);
    let days = redis.ttl::<_, i64>(&list).unwrap() / (24 * 60 * 60);
    assert!((29..=30).contains(&days), "the list goes away by itself, in {days} days");

    // Records that ran out leave the list when the next session begins.
    for key in app.keys("session") {
        let () = redis.del(key).unwrap();
    }
    let id = sessions.create(account, &HeaderMap::new()).await.unwrap();
    assert_eq!(redis.zcard::<_, usize>(&list).unwrap(), 1);
    assert_eq!(sessions.end_all(account, None).await.unwrap(), 1);
    assert!(sessions.find(id).await.unwrap().is_none());
    assert!(!redis.exists::<_, bool>(&list).unwrap());
}

/// The store itself, beside an application with another key.
async fn store(app: &App) -> Sessions {
    let link = Link::connect(&app.redis(), Duration::from_secs(5), &|_| {}).await.unwrap();
    Sessions::new(link, Rotating::fixed([7; 64]))
}

fn now() -> u64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

#[test]
fn unique_texts_differ() {
    assert_ne!(unique("a"), unique("a"));
}

/// A sign-in with the old password that comes in the middle of a change of it. The change has ended
/// the sessions and is about to commit; the sign-in has verified the old password and made another.
#[test]
fn a_sign_in_beside_a_change_of_the_password_leaves_no_session() {
    let app = App::spawn();
    let mut person = app.signed_up();
    person.delete("/api/session").expect(204);
    // Whoever waited for it in the middle would wait longer than PostgreSQL lets a transaction stand open.
    let _room = while_redis_has_room();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut change = runtime.block_on(app.inner.db.begin()).unwrap();
    let update = sqlx::query("UPDATE accounts SET password_hash = 'new'").execute(&mut *change);
    runtime.block_on(update).unwrap();
    std::thread::scope(|scope| {
        let sign_in = scope.spawn(|| {
            as_my_maker();
            person.enter("/api/session")
        });
        // It has made its session, and waits for the row.
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while app.keys("session").is_empty() {
            assert!(std::time::Instant::now() < deadline, "no session was made");
            std::thread::yield_now();
        }
        runtime.block_on(change.commit()).unwrap();
        sign_in.join().unwrap().problem(401);
    });
    assert_eq!(app.keys("session"), Vec::<String>::new());
    assert_eq!(app.keys("sessions-of"), Vec::<String>::new());
}

/// The same for real: many sign-ins while the password changes.
#[test]
fn no_session_of_an_old_password_outlives_its_change() {
    let app = App::spawn();
    for _ in 0..5 {
        let person = app.signed_up();
        let body = json!({ "email": person.email, "password": PASSWORD });
        let change = json!({ "current_password": PASSWORD, "new_password": "a new password" });
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    // In time, too late, or asked to come back because many hashes are under way.
                    let status = app.person().post("/api/session", &body).status.as_u16();
                    assert!([200, 401, 503].contains(&status), "{status}");
                });
            }
            let change = change.to_string().into_bytes();
            person.call("PUT", "/api/account/password", &[], change).expect(200);
        });
        let listed = person.get("/api/sessions").expect(200).json();
        assert_eq!(listed["sessions"].as_array().unwrap().len(), 1, "{listed}");
        person.get("/api/session").expect(200);
    }
    assert_eq!(app.keys("session").len(), 5);
}
