//! A person's list of sessions, what ends them, and the password that can be changed.

use serde_json::{Value, json};

use crate::{
    app::App,
    support::{PASSWORD, Person, session_cookie},
};

/// The same person at another browser: the cookie's value, and the browser.
fn elsewhere(app: &App, person: &Person, agent: &str) -> (String, Person) {
    let mut other = app.person();
    other.email.clone_from(&person.email);
    let body = json!({ "email": person.email, "password": PASSWORD }).to_string().into_bytes();
    let headers = [("user-agent", agent)];
    let answer = other.call("POST", "/api/session", &headers, body).expect(200);
    other.token = answer.json()["csrf_token"].as_str().map(str::to_owned);
    (session_cookie(&answer), other)
}

fn listed(person: &Person) -> Vec<Value> {
    person.get("/api/sessions").expect(200).json()["sessions"].as_array().unwrap().clone()
}

fn handle_of(person: &Person) -> String {
    let own = listed(person).into_iter().find(|entry| entry["current"] == true).unwrap();
    own["handle"].as_str().unwrap().to_owned()
}

#[test]
fn the_list_shows_each_browser_and_no_secret() {
    let app = App::spawn();
    let mut person = app.person();
    let first = session_cookie(&person.enter("/api/accounts").expect(201));
    let firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:121.0) Gecko/20100101 Firefox/121.0";
    let (second, other) = elsewhere(&app, &person, firefox);
    let entries = listed(&other);
    assert_eq!(entries.len(), 2, "{entries:?}");
    let current: Vec<_> = entries.iter().filter(|entry| entry["current"] == true).collect();
    assert_eq!(current.len(), 1);
    assert_eq!(current[0]["agent"], "Firefox on Linux");
    for entry in &entries {
        let [created, used] = ["created_at", "last_used_at"].map(|name| entry[name].as_str());
        assert!(created.unwrap().ends_with('Z') && used >= created, "{entry}");
    }
    let text = json!(entries).to_string();
    assert!(!text.contains(&first) && !text.contains(&second), "an id is in {text}");
    // What the list shows signs nobody in.
    app.ask_with_cookie(entries[0]["handle"].as_str().unwrap()).problem(401);
    assert_eq!(listed(&app.signed_up()).len(), 1, "each sees their own");
    app.person().get("/api/sessions").problem(401);
}

#[test]
fn one_session_is_ended_and_the_others_stay() {
    let app = App::spawn();
    let person = app.signed_up();
    let (cookie, other) = elsewhere(&app, &person, "curl/8");
    let path = format!("/api/sessions/{}", handle_of(&other));
    assert_eq!(person.delete(&path).expect(204).header("set-cookie"), "");
    app.ask_with_cookie(&cookie).problem(401);
    person.get("/api/session").expect(200);
    assert_eq!(listed(&person).len(), 1);
    person.delete(&path).problem(404);

    // One's own: the browser forgets its cookie too.
    let path = format!("/api/sessions/{}", handle_of(&person));
    assert_eq!(session_cookie(&person.delete(&path).expect(204)), "");
    person.get("/api/session").problem(401);
}

#[test]
fn nobody_ends_the_session_of_another() {
    let app = App::spawn();
    let [person, stranger] = [app.signed_up(), app.signed_up()];
    let path = format!("/api/sessions/{}", handle_of(&person));
    stranger.delete(&path).problem(404);
    for wrong in ["/api/sessions/*", "/api/sessions/0a", "/api/sessions/%00"] {
        stranger.delete(wrong);
    }
    person.get("/api/session").expect(200);
}

#[test]
fn sign_out_everywhere_else_and_everywhere() {
    let app = App::spawn();
    let person = app.signed_up();
    let (second, _) = elsewhere(&app, &person, "curl/8");
    let (third, _) = elsewhere(&app, &person, "curl/8");
    person.delete("/api/sessions?keep=others").problem(400);
    assert_eq!(person.delete("/api/sessions?keep=current").expect(204).header("set-cookie"), "");
    for cookie in [&second, &third] {
        app.ask_with_cookie(cookie).problem(401);
    }
    person.get("/api/session").expect(200);

    let (fourth, _) = elsewhere(&app, &person, "curl/8");
    assert_eq!(session_cookie(&person.delete("/api/sessions").expect(204)), "");
    app.ask_with_cookie(&fourth).problem(401);
    person.get("/api/session").problem(401);
}

#[test]
fn a_new_password_rotates_this_session_and_ends_the_others() {
    let app = App::spawn();
    let mut person = app.person();
    let first = session_cookie(&person.enter("/api/accounts").expect(201));
    let (second, _) = elsewhere(&app, &person, "curl/8");
    let change = |person: &Person, current: &str, new: &str| {
        let body = json!({ "current_password": current, "new_password": new });
        person.call("PUT", "/api/account/password", &[], body.to_string().into_bytes())
    };
    let problem = change(&person, "not the password", "a new password").problem(422);
    assert_eq!(problem["errors"][0]["field"], "current_password");
    let problem = change(&person, PASSWORD, "short").problem(422);
    assert_eq!(problem["errors"][0]["field"], "new_password");
    app.ask_with_cookie(&second).expect(200);

    let answer = change(&person, PASSWORD, "a new password").expect(200);
    let third = session_cookie(&answer);
    for old in [&first, &second] {
        app.ask_with_cookie(old).problem(401);
    }
    app.ask_with_cookie(&third).expect(200);
    // The old token went with the old session.
    person.delete("/api/session").problem(403);
    person.token = answer.json()["csrf_token"].as_str().map(str::to_owned);
    assert_eq!(listed(&person).len(), 1);
    person.delete("/api/session").expect(204);

    person.enter("/api/session").problem(401);
    let credentials = json!({ "email": person.email, "password": "a new password" });
    app.person().post("/api/session", &credentials).expect(200);
}
