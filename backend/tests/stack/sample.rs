//! The sample domain. Removed together with it.

use serde_json::{Value, json};

use crate::{
    app::App,
    database::{connect, execute},
    support::{Answer, Person},
};

fn texts(page: &Value) -> Vec<&str> {
    page["notes"].as_array().unwrap().iter().map(|note| note["text"].as_str().unwrap()).collect()
}

#[test]
fn notes_are_written_and_listed_newest_first_page_by_page() {
    let app = App::spawn();
    let person = app.signed_up();
    for text in ["one", "two", "three"] {
        let note = person.post("/api/notes", &json!({ "text": text })).expect(201).json();
        assert_eq!(note["text"], text);
        assert!(note["created_at"].as_str().unwrap().ends_with('Z'), "{note}");
    }
    let first = person.get("/api/notes?limit=2").expect(200).json();
    assert_eq!(texts(&first), ["three", "two"]);

    // What is written meanwhile does not shift the next page.
    person.post("/api/notes", &json!({ "text": "four" })).expect(201);
    let next = format!("/api/notes?limit=2&before={}", first["next_before"]);
    let second = person.get(&next).expect(200).json();
    assert_eq!(texts(&second), ["one"]);
    assert_eq!(second.get("next_before"), None);
}

#[test]
fn nobody_sees_the_notes_of_another() {
    let app = App::spawn();
    let [one, other] = [app.signed_up(), app.signed_up()];
    one.post("/api/notes", &json!({ "text": "mine" })).expect(201);
    assert!(texts(&other.get("/api/notes").expect(200).json()).is_empty());
    app.person().get("/api/notes").problem(401);
}

#[test]
fn a_session_of_a_removed_account_writes_nothing() {
    let app = App::spawn();
    let person = app.signed_up();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        execute(&mut connect(&app.database.owner).await, "DELETE FROM accounts").await;
    });
    person.post("/api/notes", &json!({ "text": "late" })).problem(401);
}

#[test]
fn what_is_no_note_is_refused() {
    let app = App::spawn();
    let person = app.signed_up();
    for text in ["", "   ", &"x".repeat(2001), "a\0b"] {
        let problem = person.post("/api/notes", &json!({ "text": text })).problem(422);
        assert_eq!(problem["errors"][0]["field"], "text");
    }
    for query in ["limit=0", "limit=101"] {
        person.get(&format!("/api/notes?{query}")).problem(422);
    }
    person.get("/api/notes?before=x").problem(400);
    assert!(texts(&person.get("/api/notes").json()).is_empty());
}

#[test]
fn a_note_needs_the_token() {
    let app = App::spawn();
    let mut person = app.signed_up();
    person.token = None;
    person.post("/api/notes", &json!({ "text": "forged" })).problem(403);
    assert!(texts(&person.get("/api/notes").json()).is_empty());
}

#[test]
fn markup_comes_back_as_it_was_written() {
    let app = App::spawn();
    let person = app.signed_up();
    let text = "<script>alert('é')</script>\nΩ \u{1f331}";
    person.post("/api/notes", &json!({ "text": text })).expect(201);
    assert_eq!(texts(&person.get("/api/notes").json()), [text]);
}

fn keyed(person: &Person, key: &str, text: &str) -> Answer {
    let body = json!({ "text": text }).to_string().into_bytes();
    person.call("POST", "/api/notes", &[("idempotency-key", key)], body)
}

#[test]
fn a_request_sent_again_writes_once_and_gets_the_same_answer() {
    let app = App::spawn();
    let [person, other] = [app.signed_up(), app.signed_up()];
    let first = keyed(&person, "key-1", "once").expect(201);
    let again = keyed(&person, "key-1", "once").expect(201);
    assert_eq!(first.text, again.text);
    keyed(&person, "key-1", "something else").problem(422);
    assert_eq!(texts(&person.get("/api/notes").json()), ["once"]);

    // Another key, no key and another person's same key are other requests.
    keyed(&person, "key-2", "once").expect(201);
    person.post("/api/notes", &json!({ "text": "once" })).expect(201);
    keyed(&other, "key-1", "mine").expect(201);
    assert_eq!(texts(&person.get("/api/notes").json()).len(), 3);
    assert_eq!(texts(&other.get("/api/notes").json()), ["mine"]);
    for key in ["", "a b", &"k".repeat(256)] {
        keyed(&person, key, "refused").problem(400);
    }
}

#[test]
fn the_same_request_many_times_at_once_writes_once() {
    let app = App::spawn();
    let person = app.signed_up();
    let answers: Vec<String> = std::thread::scope(|scope| {
        let ask = |_| scope.spawn(|| keyed(&person, "at-once", "only one").expect(201).text);
        let threads: Vec<_> = (0..16).map(ask).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!(texts(&person.get("/api/notes").json()), ["only one"]);

    // With different bodies one wins, and the others learn that they did not.
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let ask = |round| {
            let person = &person;
            scope.spawn(move || keyed(person, "race", &format!("{round}")).status.as_u16())
        };
        let threads: Vec<_> = (0..8).map(ask).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 1, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 422).count(), 7, "{statuses:?}");
    assert_eq!(texts(&person.get("/api/notes").json()).len(), 2);
}
