//! Limits against abuse: how many, for whom, and what cannot get around them.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    time::Duration,
};

use backend::{
    client::ClientAddress,
    config::{Key, Rotating},
    error::Error,
    limits::{self, Limits, Rule},
    link::Link,
};
use redis::Commands;
use serde_json::json;

use crate::app::App;
use crate::support::{
    Alone, Answer, PASSWORD, Person, as_my_maker, redis_config, redis_connection, stack, unique,
    while_redis_has_room,
};

fn guess(email: &str, password: &str, headers: &[(&str, &str)]) -> Answer {
    let body = json!({ "email": email, "password": password }).to_string().into_bytes();
    Person::new().call("POST", "/api/session", headers, body)
}

#[test]
fn a_flood_of_guesses_ends_whatever_address_it_claims() {
    let mut person = Person::signed_up();
    for round in 0..10 {
        let claimed = format!("203.0.113.{round}");
        let headers = [("x-forwarded-for", claimed.as_str()), ("x-real-ip", claimed.as_str())];
        guess(&person.email, "not the password", &headers).problem(401);
    }
    let answer = guess(&person.email, "not the password", &[("x-forwarded-for", "198.51.100.1")]);
    let wait: u32 = answer.header("retry-after").parse().unwrap();
    assert!((1..=30).contains(&wait), "{wait}");
    answer.problem(429);
    // However the address is typed, and with the right password too: nothing is learnt.
    guess(&person.email.to_uppercase(), PASSWORD, &[]).problem(429);
    // Whoever is signed in stays so, and others are not touched.
    person.get("/api/session").expect(200);
    Person::signed_up().enter("/api/session").expect(200);
    person.enter("/api/session").problem(429);
}

/// Counted, because a clock on a busy machine tells nothing.
#[test]
fn signing_in_takes_the_same_work_whoever_is_named() {
    let app = App::spawn();
    let person = app.signed_up();
    let work_of = |email: &str, password: &str, status: u16| {
        let before = app.inner.passwords.work();
        let body = json!({ "email": email, "password": password });
        let answer = app.person().post("/api/session", &body).expect(status);
        (app.inner.passwords.work() - before, answer.json()["detail"].clone())
    };
    let (known, said) = work_of(&person.email, "not the password", 401);
    assert!(known > 0);
    for nobody in ["nobody@example.com", "no address at all", ""] {
        assert_eq!(work_of(nobody, "not the password", 401), (known, said.clone()), "{nobody:?}");
    }
    assert_eq!(work_of(&person.email, PASSWORD, 200).0, known);
    // No account can have such a password: nothing is hashed, for either.
    let long = "x".repeat(129);
    assert_eq!(work_of(&person.email, &long, 401), work_of("nobody@example.com", &long, 401));
}

#[test]
fn changing_the_password_is_no_way_to_guess_it() {
    let app = App::spawn();
    let person = app.signed_up();
    let body = json!({ "current_password": "a guess of mine", "new_password": "my new password" });
    let body = body.to_string().into_bytes();
    for _ in 0..5 {
        person.call("PUT", "/api/account/password", &[], body.clone()).problem(422);
    }
    let answer = person.call("PUT", "/api/account/password", &[], body);
    assert_ne!(answer.header("retry-after"), "");
    answer.problem(429);
}

/// What a client claims about its address reaches no bucket: through nginx all are one.
#[test]
fn a_forged_address_is_not_counted() {
    let _alone = Alone::in_redis();
    let url = redis_config();
    let mut monitor = TcpStream::connect((url.host.as_str(), url.port)).unwrap();
    let url = stack("STACK_REDIS_URL");
    let admin = url.trim_start_matches("redis://").split('@').next().unwrap().replace(':', " ");
    monitor.write_all(format!("AUTH {admin}\r\nMONITOR\r\n").as_bytes()).unwrap();
    let mut lines = BufReader::new(monitor).lines();
    for _ in 0..2 {
        assert_eq!(lines.next().unwrap().unwrap(), "+OK");
    }

    guess("nobody", "x", &[]).problem(401);
    let headers = ["x-forwarded-for", "forwarded", "x-real-ip", "x-client-ip", "client-ip", "via"];
    for header in headers {
        guess("nobody", "x", &[(header, "198.51.100.77")]).problem(401);
        guess("nobody", "x", &[(header, "for=198.51.100.78, 198.51.100.79")]).problem(401);
        guess("nobody", "x", &[(header, "198.51.100.1"), (header, "198.51.100.2")]).problem(401);
    }
    let () = redis::cmd("ECHO").arg("that was all").query(&mut redis_connection()).unwrap();
    let mut buckets: Vec<String> = lines
        .map(Result::unwrap)
        .take_while(|line| !line.contains("that was all"))
        .filter(|line| line.contains("EVALSHA"))
        .filter_map(|line| Some(line.split_once("limit:sign-in:address:")?.1[..32].to_owned()))
        .collect();
    assert_eq!(buckets.len(), 1 + 3 * headers.len(), "{buckets:?}");
    buckets.dedup();
    assert_eq!(buckets.len(), 1, "{buckets:?}");
}

/// How many requests pass before one is refused, and for how long.
async fn passing(limits: &Limits, rule: &Rule, address: &str, account: Option<&str>) -> (u32, u32) {
    let client = ClientAddress(address.parse().unwrap());
    for count in 0..10_000 {
        match limits.check(rule, client, account).await {
            Ok(()) => {}
            Err(Error::TooMany { seconds }) => return (count, seconds),
            Err(error) => panic!("{error}"),
        }
    }
    panic!("no limit in sight")
}

#[tokio::test]
async fn the_table_holds_as_in_production() {
    let _room = while_redis_has_room();
    let app = App::spawn();
    let link = Link::connect(&app.redis(), Duration::from_secs(5), &|_| {}).await.unwrap();
    let strict = Limits::new(link, Rotating::fixed([7; 64]), false);

    for rule in [&limits::SIGN_IN, &limits::SIGN_UP, &limits::CHANGE_PASSWORD] {
        let account = unique("account");
        let (count, wait) = passing(&strict, rule, "192.0.2.1", Some(&account)).await;
        assert_eq!(count, rule.account.burst, "{}", rule.name);
        assert!((1..=60).contains(&wait), "{}: {wait} s", rule.name);
        // Another address does not help this account.
        let (count, _) = passing(&strict, rule, "192.0.2.2", Some(&account)).await;
        assert_eq!(count, 0, "{}", rule.name);
        // Another account is free, as long as the address is. What was refused was not charged.
        let left = rule.address.burst - rule.account.burst;
        let (count, _) = passing(&strict, rule, "192.0.2.1", None).await;
        assert!((left..=left + 1).contains(&count), "{}: {count} of {left}", rule.name);
    }
    // A network of IPv6 is one address.
    passing(&strict, &limits::SIGN_IN, "2001:db8::1", None).await;
    let (count, _) = passing(&strict, &limits::SIGN_IN, "2001:db8::ffff:2", None).await;
    assert!(count <= 1, "{count}");
    // Writing refills while this counts: the burst is what passes at least.
    let (count, _) = passing(&strict, &limits::WRITE, "192.0.2.9", Some("1")).await;
    assert!((120..=140).contains(&count), "{count}");
}

/// The same as buckets that were charged an hour ahead of the clock that counts now.
#[tokio::test]
async fn a_clock_that_was_put_back_locks_nobody_out() {
    const HOUR: f64 = 3600.0 * 1e6;
    let _room = while_redis_has_room();
    let app = App::spawn();
    let link = Link::connect(&app.redis(), Duration::from_secs(5), &|_| {}).await.unwrap();
    let strict = Limits::new(link, Rotating::fixed([7; 64]), false);
    let (rule, account) = (&limits::SIGN_UP, unique("account"));
    let (count, _) = passing(&strict, rule, "192.0.2.1", Some(&account)).await;
    assert_eq!(count, rule.account.burst);
    let buckets = app.keys("limit");
    assert_eq!(buckets.len(), 2, "{buckets:?}");
    for bucket in buckets {
        let ahead: f64 = redis_connection().get::<_, f64>(&bucket).unwrap() + HOUR;
        let () = redis_connection().set_ex(&bucket, format!("{ahead:.0}"), 60).unwrap();
    }
    let (count, wait) = passing(&strict, rule, "192.0.2.1", Some(&account)).await;
    assert_eq!(count, rule.account.burst, "wait for {wait} s");
}

#[test]
fn redis_knows_neither_addresses_nor_accounts() {
    let app = App::spawn();
    let person = app.signed_up();
    let keys = app.keys("limit");
    assert!(!keys.is_empty());
    for key in keys {
        assert!(!key.contains(&person.email) && !key.contains('@'), "{key}");
        let ttl: i64 = redis_connection().ttl(&key).unwrap();
        // -2: it ran out meanwhile.
        assert!(ttl >= 0 || ttl == -2, "{key} stays for ever");
    }
}

/// nginx says whom it saw, and that is who is counted: without its header it would be nginx itself,
/// and everybody together.
#[test]
fn nginx_passes_the_one_address_on() {
    // From here to the containers' network: that is the address that nginx saw.
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    let database = crate::support::database_config();
    socket.connect((database.host.as_str(), database.port)).unwrap();
    let own = socket.local_addr().unwrap().ip();
    let mut key = [0; 64];
    hex::decode_to_slice(stack("STACK_SESSION_SECRET"), &mut key).unwrap();
    let hash = backend::keyed::hash(&Key::new(key), format!("limit:address:{own}").as_bytes());
    let bucket = format!("limit:sign-up:address:{}", hex::encode(&hash[..16]));
    // Outside production each is remembered for 0.6 s only, from before the password is hashed.
    let _room = while_redis_has_room();
    let mut redis = redis_connection();
    let is_counted = |_| {
        std::thread::scope(|scope| {
            let sign_up = scope.spawn(|| {
                as_my_maker();
                Person::signed_up();
            });
            let mut is_there = false;
            while !is_there && !sign_up.is_finished() {
                is_there = redis.exists(&bucket).unwrap();
            }
            sign_up.join().unwrap();
            is_there
        })
    };
    assert!((0..5).any(is_counted), "{own} was not counted");
}
