//! A Redis that is full, or takes no write for another reason, refuses what is new and loses nothing.

use serde_json::json;

use crate::app::App;
use crate::support::{FullRedis, NoWrites, Person};

#[test]
fn a_full_redis_signs_nobody_out_and_asks_newcomers_to_come_back() {
    let mut person = Person::signed_up();
    let mut newcomer = Person::new();
    let app = App::spawn();
    {
        let _full = FullRedis::new();
        // Nobody has written yet: readiness finds out by itself.
        let problem = app.person().get("/readyz").problem(503);
        assert_eq!(problem["detail"], "Not ready. Redis: it is full");
        person.get("/api/session").expect(200);
        let answer = newcomer.enter("/api/accounts");
        assert_eq!(answer.header("retry-after"), "2");
        answer.problem(503);
        let body = json!({ "email": person.email, "password": crate::support::PASSWORD });
        let answer = Person::new().post("/api/session", &body);
        assert_eq!(answer.header("retry-after"), "2");
        answer.problem(503);
        // Nothing is guessed uncounted, and nobody who is signed in is held up.
        let wrong = json!({ "email": person.email, "password": "not the password" });
        Person::new().post("/api/session", &wrong).problem(503);
        person.delete("/api/sessions?keep=current").expect(204);
        person.get("/api/session").expect(200);
    }
    app.person().get("/readyz").expect(200);
    // It was full for a while, and that was all: the account was not half made.
    newcomer.enter("/api/accounts").expect(201);
    person.get("/api/session").expect(200);
    person.enter("/api/session").expect(200);
}

#[test]
fn who_is_signed_in_stays_so_while_redis_takes_no_write() {
    let person = Person::signed_up();
    let app = App::spawn();
    {
        let _no_writes = NoWrites::new();
        let problem = app.person().get("/readyz").problem(503);
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.starts_with("Not ready. Redis: it takes no write: NOREPLICAS"), "{detail}");
        person.get("/api/session").expect(200);
        let answer = Person::new().enter("/api/accounts");
        assert_eq!(answer.header("retry-after"), "2");
        answer.problem(503);
        person.delete("/api/session").problem(503);
    }
    person.get("/api/session").expect(200);
    person.delete("/api/session").expect(204);
}
