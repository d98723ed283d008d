//! What the backend logs, and what it must never log.

use serde_json::{Value, json};

use crate::{
    own_backend::OwnBackend,
    support::{unique, while_redis_has_room},
};

/// A header's value in an answer.
fn header<'a>(answer: &'a str, name: &str) -> &'a str {
    let line = answer.lines().find(|line| line.to_lowercase().starts_with(&format!("{name}:")));
    line.and_then(|line| line.split_once(": ")).map_or("", |(_, value)| value.trim())
}

fn body(answer: &str) -> Value {
    let text = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    serde_json::from_str(text).unwrap_or_default()
}

/// Goes through everything that handles a secret, rightly and wrongly, and then reads the log.
#[test]
fn the_log_holds_no_secret() {
    let _room = while_redis_has_room();
    let backend = OwnBackend::start("production");
    let mut secrets = backend.secrets.clone();
    let email = format!("{}@example.com", unique("log"));
    let [password, wrong, next] =
        ["the-first-password", "a-wrong-password", "the-second-password"].map(str::to_owned);
    let credentials = |password: &str| json!({ "email": email, "password": password }).to_string();

    let answer = backend.send("POST", "/api/accounts", "", &credentials(&password));
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    let cookie = header(&answer, "set-cookie").split(';').next().unwrap().to_owned();
    assert!(cookie.starts_with("__Host-session="), "{cookie}");
    let token = body(&answer)["csrf_token"].as_str().unwrap().to_owned();
    let signed_in = format!("cookie: {cookie}\r\nx-csrf-token: {token}\r\n");
    let handle = {
        let list = body(&backend.send("GET", "/api/sessions", &signed_in, ""));
        list["sessions"][0]["handle"].as_str().unwrap().to_owned()
    };

    backend.send("POST", "/api/accounts", "", &credentials(&password));
    backend.send("POST", "/api/session", "", &credentials(&wrong));
    backend.send("POST", "/api/session", "", &format!("{{\"password\":\"{wrong}\",{wrong}"));
    backend.send("POST", "/api/session", "", &format!("{{\"password\":[\"{wrong}\"]}}"));
    backend.send("GET", &format!("/api/session?password={wrong}&t={token}"), &signed_in, "");
    backend.send("POST", "/api/session", "origin: https://evil.example\r\n", &credentials(&wrong));
    backend.send("DELETE", "/api/session", &format!("cookie: {cookie}\r\n"), "");
    let change = json!({ "current_password": password, "new_password": next }).to_string();
    let answer = backend.send("PUT", "/api/account/password", &signed_in, &change);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let second = header(&answer, "set-cookie").split(';').next().unwrap().to_owned();
    let second_token = body(&answer)["csrf_token"].as_str().unwrap().to_owned();

    let log = backend.stop();
    let requests = log.lines().filter(|line| line.contains("\"message\":\"request\"")).count();
    assert_eq!(requests, 10, "{log}");
    for line in log.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
        if line["message"] == "request" {
            assert!(line["span"]["request_id"].is_string(), "{line}");
        }
    }
    secrets.extend([password, wrong, next, token, second_token, handle, email]);
    secrets.extend([cookie, second].map(|cookie| cookie.split_once('=').unwrap().1.to_owned()));
    for secret in secrets {
        assert!(secret.len() > 8, "too short to be told from chance: {secret}");
        assert!(!log.contains(&secret), "{secret} is in\n{log}");
    }
    assert!(!log.contains("argon2"), "{log}");
}

/// Inside the network, beside the health checks; `site.rs` checks that nginx keeps it there.
#[test]
fn the_collector_gets_its_figures() {
    let _room = while_redis_has_room();
    let backend = OwnBackend::start("test");
    let body = json!({ "email": "nobody", "password": "x" }).to_string();
    backend.send("POST", "/api/session", "", &body);
    let text = backend.send("GET", "/metrics", "", "");
    assert!(header(&text, "content-type").starts_with("application/openmetrics-text"), "{text}");
    for line in [
        r#"http_requests_total{method="POST",route="/api/session",status="401"} 1"#,
        r#"http_request_duration_seconds_count{route="/api/session"} 1"#,
        r#"sign_ins_total{outcome="wrong"} 1"#,
        r#"database_connections{state="most"} 10"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    assert!(text.trim_end().ends_with("# EOF"), "{text}");
    backend.stop();
}
