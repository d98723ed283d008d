//! The hostile rows of the sample domain. Removed together with it.

use crate::hostile::{Row, World};

const WRITE: &str = "POST /api/notes HTTP/1.1";

#[rustfmt::skip]
const ROWS: &[Row] = &[
    ("negative limit", "GET /api/notes?limit=-1 HTTP/1.1", "{IN}", "", 422),
    ("no limit", "GET /api/notes?limit=0 HTTP/1.1", "{IN}", "", 422),
    ("large limit", "GET /api/notes?limit=1000000 HTTP/1.1", "{IN}", "", 422),
    ("limit past 64 bits", "GET /api/notes?limit=99999999999999999999999 HTTP/1.1", "{IN}", "", 400),
    ("greatest limit", "GET /api/notes?limit=9223372036854775807 HTTP/1.1", "{IN}", "", 422),
    ("garbage for a limit", "GET /api/notes?limit=ten HTTP/1.1", "{IN}", "", 400),
    ("fraction for a limit", "GET /api/notes?limit=1e1 HTTP/1.1", "{IN}", "", 400),
    ("Arabic digits", "GET /api/notes?limit=%D9%A1 HTTP/1.1", "{IN}", "", 400),
    ("two limits", "GET /api/notes?limit=1&limit=100 HTTP/1.1", "{IN}", "", 400),
    ("SQL for a key", "GET /api/notes?before=1%20OR%201=1 HTTP/1.1", "{IN}", "", 400),
    ("negative key", "GET /api/notes?before=-9223372036854775808 HTTP/1.1", "{IN}", "", 200),
    ("greatest key", "GET /api/notes?before=9223372036854775807 HTTP/1.1", "{IN}", "", 200),
    ("key past 64 bits", "GET /api/notes?before=9223372036854775808 HTTP/1.1", "{IN}", "", 400),
    ("zero byte for a key", "GET /api/notes?before=%00 HTTP/1.1", "{IN}", "", 400),
    ("invalid UTF-8 in the query", "GET /api/notes?before=%FF HTTP/1.1", "{IN}", "", 400),
    ("another's account", "GET /api/notes?account_id=1 HTTP/1.1", "{IN}", "", 200),
    ("nobody", "GET /api/notes HTTP/1.1", "", "", 401),
    ("writing for another", WRITE, "{IN}\n{JSON}", r#"{"text":"x","account_id":1}"#, 422),
    ("zero byte in the text", WRITE, "{IN}\n{JSON}", r#"{"text":"a\u0000b"}"#, 422),
    ("only blanks", WRITE, "{IN}\n{JSON}", r#"{"text":" \u00a0\u2003\n"}"#, 422),
    ("too long", WRITE, "{IN}\n{JSON}", r#"{"text":"{9K}"}"#, 422),
    ("no token", WRITE, "cookie: session={COOKIE}\n{JSON}", r#"{"text":"forged"}"#, 403),
    ("cross-site", WRITE, "{IN}\n{JSON}\nsec-fetch-site: cross-site", r#"{"text":"forged"}"#, 403),
    ("old session", WRITE, "cookie: session={OLD_COOKIE}\nx-csrf-token: {OLD_TOKEN}\n{JSON}", r#"{"text":"forged"}"#, 401),
    ("blank retry key", WRITE, "{IN}\n{JSON}\nidempotency-key: a b", r#"{"text":"x"}"#, 400),
    ("two retry keys", WRITE, "{IN}\n{JSON}\nidempotency-key: a\nidempotency-key: b", r#"{"text":"x"}"#, 400),
    ("long retry key", WRITE, "{IN}\n{JSON}\nidempotency-key: {300}", r#"{"text":"x"}"#, 400),
    ("retry key with another body", WRITE, "{IN}\n{JSON}\nidempotency-key: taken", r#"{"text":"another"}"#, 422),
    ("retry key in a replay", WRITE, "{IN}\n{JSON}\nidempotency-key: taken", r#"{"text":"the first"}"#, 201),
];

/// What the last two rows meet.
const FIRST: Row =
    ("first use", WRITE, "{IN}\n{JSON}\nidempotency-key: taken", r#"{"text":"the first"}"#, 201);

#[tokio::test(flavor = "multi_thread")]
async fn every_row_about_notes_gets_its_status_and_changes_nothing() {
    let world = tokio::task::spawn_blocking(World::new).await.unwrap();
    let answer = world.send(&FIRST);
    assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
    world.try_all(ROWS).await;
}
