//! What nginx answers itself, what it passes on, and what it keeps inside.

use serde_json::json;

use crate::support::Person;

#[test]
fn pages_have_clean_addresses() {
    let browser = Person::new();
    for path in ["/", "/about"] {
        let page = browser.get(path).expect(200);
        assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    }
    let redirects = [
        ("/index.html", "/"),
        ("/index", "/"),
        ("/about.html", "/about"),
        ("/about/", "/about"),
        ("/about.html?from=mail", "/about?from=mail"),
    ];
    for (path, target) in redirects {
        // The path alone: nginx knows neither the port nor the scheme that the browser sees.
        assert_eq!(browser.get(path).expect(301).header("location"), target, "{path}");
    }
}

#[test]
fn a_redirect_stays_on_this_site() {
    for path in ["//evil.example/", "/%5Cevil.example/", "/x%0d%0aset-cookie:a=b.html"] {
        let answer = Person::new().get(path);
        let location = answer.header("location");
        assert!(!location.starts_with("//") && !location.contains("evil"), "{path}: {location}");
        assert_eq!(answer.header("set-cookie"), "");
    }
}

#[test]
fn assets_are_typed_cacheable_and_compressed() {
    let browser = Person::new();
    let assets =
        [("/app.css", "text/css"), ("/app.js", "javascript"), ("/favicon.svg", "image/svg+xml")];
    for (path, kind) in assets {
        let asset = browser.get(path).expect(200);
        assert!(asset.header("content-type").contains(kind), "{path}");
        assert_eq!(asset.header("cache-control"), "no-cache", "{path}");
        let tag = asset.header("etag");
        browser.send("GET", path, &[("if-none-match", tag)], Vec::new()).expect(304);
    }
    let script = browser.send("HEAD", "/app.js", &[("accept-encoding", "gzip")], Vec::new());
    assert_eq!(script.header("content-encoding"), "gzip");
    assert_eq!(script.header("vary"), "Accept-Encoding");
}

#[test]
fn every_answer_carries_the_security_headers() {
    let person = Person::signed_up();
    for path in ["/", "/app.js", "/nowhere", "/api/session", "/api/nowhere"] {
        let answer = person.get(path);
        let policy = answer.header("content-security-policy");
        assert!(policy.contains("default-src 'none'"), "{path}: {policy}");
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.headers.get_all("x-request-id").iter().count(), 1, "{path}");
        // The name without the version.
        assert_eq!(answer.header("server"), "nginx", "{path}");
    }
}

#[test]
fn a_page_that_is_not_there_is_a_page() {
    for path in ["/nowhere", "/404", "/404.html", "/.env", "/app-0123abcd.css"] {
        let answer = Person::new().get(path).expect(404);
        assert!(answer.header("content-type").starts_with("text/html"), "{path}");
        assert_eq!(answer.header("cache-control"), "no-store", "{path}");
    }
}

#[test]
fn what_is_for_operation_stays_inside() {
    for path in ["/readyz", "/healthz", "/metrics", "/nginx-health", "/api/../readyz"] {
        let answer = Person::new().get(path).expect(404);
        assert!(!answer.text.contains("ready"), "{path}: {}", answer.text);
    }
}

#[test]
fn the_api_explains_every_refusal_in_one_form() {
    let person = Person::signed_up();
    assert!(person.get("/api/nowhere").header("cache-control").contains("no-store"));
    person.get("/api/nowhere").problem(404);
    person.get("/api").problem(404);
    person.get("/api/session/").problem(404);
    person.get("/api/page.html").problem(404);

    let wrong_method = person.call("PUT", "/api/session", &[], Vec::new());
    assert!(wrong_method.header("allow").contains("POST"), "{:?}", wrong_method.headers);
    wrong_method.problem(405);

    let session = |headers: &[(&str, &str)], body: &str| {
        Person::new().send("POST", "/api/session", headers, body.as_bytes().to_vec())
    };
    let json_type = ("content-type", "application/json");
    session(&[json_type], "{").problem(400);
    session(&[json_type], "{}").problem(422);
    session(&[json_type], &json!({ "email": "", "password": "", "x": 1 }).to_string()).problem(422);
    session(&[], "{}").problem(415);
    session(&[json_type], &"x".repeat(65 * 1024)).problem(413);
}

#[test]
fn a_client_cannot_choose_its_request_id() {
    let answer =
        Person::new().send("GET", "/api/session", &[("x-request-id", "chosen-by-me")], Vec::new());
    assert_eq!(answer.header("x-request-id").len(), 32);
    answer.problem(401);
}

#[test]
fn the_document_describes_what_is_there() {
    let person = Person::signed_up();
    let answer = person.get("/api/openapi.json").expect(200);
    assert_eq!(answer.header("content-type"), "application/json");
    let document = answer.json();
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() >= 5, "{document}");
    for (path, methods) in paths {
        for method in methods.as_object().unwrap().keys() {
            let path = path.replace("{handle}", "none");
            // Without a token, so that nothing is done.
            let answer = Person::new().send(&method.to_uppercase(), &path, &[], Vec::new());
            let status = answer.status.as_u16();
            assert!([401, 415].contains(&status), "{method} {path}: {status}");
        }
    }
}
