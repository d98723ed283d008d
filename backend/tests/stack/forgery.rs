//! Cross-site request forgery: what a page of another site could make a browser send.

use serde_json::json;

use crate::{
    support::{PASSWORD, Person},
    wire,
};

fn sign_in_body(person: &Person) -> Vec<u8> {
    json!({ "email": person.email, "password": PASSWORD }).to_string().into_bytes()
}

#[test]
fn requests_from_another_site_are_refused_before_anything_else() {
    let person = Person::signed_up();
    let foreign: [&[(&str, &str)]; 5] = [
        &[("sec-fetch-site", "cross-site")],
        &[("sec-fetch-site", "same-site")],
        &[("origin", "https://evil.example")],
        &[("origin", "null")],
        &[("sec-fetch-site", "cross-site"), ("origin", "http://localhost")],
    ];
    for headers in foreign {
        // Signing in as somebody else's account is an attack too, and has no session to bind to.
        let stranger = Person::new();
        stranger.call("POST", "/api/session", headers, sign_in_body(&person)).problem(403);
        // The right token does not help either.
        person.call("DELETE", "/api/session", headers, Vec::new()).problem(403);
    }
    person.get("/api/session").expect(200);
}

#[test]
fn requests_of_this_site_and_of_no_browser_pass() {
    let url = wire::site();
    let own: [&[(&str, &str)]; 4] = [
        &[("sec-fetch-site", "same-origin")],
        &[("sec-fetch-site", "none")],
        &[("origin", &url)],
        &[],
    ];
    let person = Person::signed_up();
    for headers in own {
        Person::new().call("POST", "/api/session", headers, sign_in_body(&person)).expect(200);
    }
}

#[test]
fn an_unsafe_request_of_a_session_needs_its_own_token() {
    let mut person = Person::signed_up();
    let right = person.token.take();
    person.delete("/api/session").problem(403);
    person.token = Person::signed_up().token;
    person.delete("/api/session").problem(403);
    person.token = Some("00".repeat(32));
    person.delete("/api/session").problem(403);
    person.token = right;
    person.delete("/api/session").expect(204);
}

#[test]
fn reading_needs_no_token_and_is_refused_with_another_sessions() {
    let person = Person::signed_up();
    person.get("/api/session").expect(200);
    let read =
        |token: &str| person.send("GET", "/api/sessions", &[("x-csrf-token", token)], Vec::new());
    read(person.token.as_deref().unwrap()).expect(200);
    read(Person::signed_up().token.as_deref().unwrap()).problem(403);
    read("").problem(403);
}
