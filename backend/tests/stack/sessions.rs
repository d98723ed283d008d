//! Accounts and sessions, from outside and in Redis.

use std::time::Duration;

use axum::http::HeaderMap;
use backend::{
    config::{Key, Keys},
    link::Link,
    sessions::Sessions,
};
use redis::Commands;
use serde_json::json;

use crate::support::{
    PASSWORD, Person, ask_with_cookie, redis_config, redis_connection, session_cookie, unique,
    while_redis_has_room,
};

#[test]
fn sign_up_out_and_in_again() {
    let mut person = Person::new();
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
    let mut person = Person::new();
    let cookie = session_cookie(&person.enter("/api/accounts"));
    ask_with_cookie(&cookie).expect(200);
    person.delete("/api/session").expect(204);
    ask_with_cookie(&cookie).problem(401);
}

#[test]
fn signing_in_gives_a_new_session_and_ends_the_old_one() {
    let mut person = Person::new();
    let first = session_cookie(&person.enter("/api/accounts"));
    let second = session_cookie(&person.enter("/api/session").expect(200));
    assert_ne!(first, second);
    ask_with_cookie(&first).problem(401);
    ask_with_cookie(&second).expect(200);
}

#[test]
fn a_planted_session_id_is_not_adopted() {
    let mut victim = Person::signed_up();
    victim.delete("/api/session").expect(204);
    let planted = "ab".repeat(32);
    let cookie = format!("session={planted}; __Host-session={planted}");
    let credentials = json!({ "email": victim.email, "password": PASSWORD });
    victim.token = None;
    let body = credentials.to_string().into_bytes();
    let answer =
        Person::new().call("POST", "/api/session", &[("cookie", &cookie)], body).expect(200);
    assert_ne!(session_cookie(&answer), planted);
    ask_with_cookie(&planted).problem(401);
}

#[test]
fn a_wrong_password_and_an_unknown_address_get_the_same_answer() {
    let person = Person::signed_up();
    let stranger = Person::new();
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
    let problem = Person::new()
        .post("/api/accounts", &json!({ "email": "nobody", "password": "short" }))
        .problem(422);
    let fields: Vec<_> = problem["errors"].as_array().unwrap().iter().collect();
    assert_eq!(fields.len(), 2, "{problem}");
    assert_eq!(fields[0]["field"], "email");
    assert_eq!(fields[1]["field"], "password");
}

#[test]
fn an_address_has_one_account_however_it_is_typed() {
    let mut person = Person::signed_up();
    person.email = person.email.to_uppercase();
    person.enter("/api/accounts").problem(409);
    person.enter("/api/session").expect(200);
}

#[test]
fn redis_holds_no_cookie() {
    let mut person = Person::new();
    let cookie = session_cookie(&person.enter("/api/accounts"));
    let mut redis = redis_connection();
    let keys: Vec<String> = redis.keys("*").unwrap();
    assert!(!keys.is_empty(), "this Redis is not the stack's");
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
    let link = Link::connect(&redis_config(), Duration::from_secs(5), &|_| {}).await.unwrap();
    let sessions = Sessions::new(link, Keys::fixed(Key::new([7; 64])));
    // No account of the stack has such a number.
    let account = i64::MAX / 4096 - i64::from(std::process::id());
    let before = keys_of(account);
    let id = sessions.create(account, &HeaderMap::new()).await.unwrap();
    let key = keys_of(account).into_iter().find(|key| !before.contains(key)).unwrap();
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
    assert!(!redis.exists::<_, bool>(format!("sessions-of:{account}")).unwrap());
}

/// However often an account signs in, it takes up a bounded part of Redis, and none in the end.
#[tokio::test]
async fn the_list_of_an_account_is_bounded_and_forgets_what_is_gone() {
    let _room = while_redis_has_room();
    let link = Link::connect(&redis_config(), Duration::from_secs(5), &|_| {}).await.unwrap();
    let sessions = Sessions::new(link, Keys::fixed(Key::new([8; 64])));
    let account = i64::MAX / 8192 - i64::from(std::process::id());
    let list = format!("sessions-of:{account}");
    let mut redis = redis_connection();
    let mut ids = Vec::new();
    for _ in 0..60 {
        ids.push(sessions.create(account, &HeaderMap::new()).await.unwrap());
    }
    assert_eq!(redis.zcard::<_, usize>(&list).unwrap(), 50);
    assert_eq!(keys_of(account).len(), 50);
    let days = redis.ttl::<_, i64>(&list).unwrap() / (24 * 60 * 60);
    assert!((29..=30).contains(&days), "the list goes away by itself, in {days} days");

    // Records that ran out leave the list when the next session begins.
    for key in keys_of(account) {
        let () = redis.del(key).unwrap();
    }
    let id = sessions.create(account, &HeaderMap::new()).await.unwrap();
    assert_eq!(redis.zcard::<_, usize>(&list).unwrap(), 1);
    assert_eq!(sessions.end_all(account, None).await.unwrap(), 1);
    assert!(sessions.find(id).await.unwrap().is_none());
    assert!(!redis.exists::<_, bool>(&list).unwrap());
}

fn keys_of(account: i64) -> Vec<String> {
    let mut redis = redis_connection();
    let keys: Vec<String> = redis.keys("session:*").unwrap();
    let needle = format!("\"account_id\":{account},");
    keys.into_iter()
        .filter(|key| {
            redis.get::<_, Option<String>>(key).unwrap().is_some_and(|r| r.contains(&needle))
        })
        .collect()
}

fn now() -> u64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_secs()
}

#[test]
fn unique_texts_differ() {
    assert_ne!(unique("a"), unique("a"));
}
