//! THE SAMPLE DOMAIN, as the drill uses it: how something is written once, and how it is read back.
//! Whoever replaces the notes by a product of their own changes this file, and nothing else here.

use hyper::header::HeaderName;
use serde_json::{Value, json};

use crate::load::Request;

const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// How many there are on one page, at most.
const PAGE: usize = 100;

/// Writes a text once, however often it is sent under this key.
pub(super) fn write(key: &str, text: &str) -> Request {
    Request::post("/api/notes", &json!({ "text": text })).header(KEY, key)
}

/// Writes a text, as often as it is sent.
pub fn create(text: &str) -> Request {
    Request::post("/api/notes", &json!({ "text": text }))
}

/// The statement that gives every account as many as a page has, and one more.
pub const FILL: &str = "INSERT INTO notes (account_id, text)
    SELECT id, 'remember the milk, number ' || number FROM accounts, generate_series(1, 21) AS number";

/// The newest few.
pub fn newest() -> Request {
    Request::get("/api/notes?limit=20")
}

/// A whole page, the newest or the one after another.
pub fn page(before: Option<i64>) -> Request {
    let before = before.map(|id| format!("&before={id}")).unwrap_or_default();
    Request::get(format!("/api/notes?limit={PAGE}{before}"))
}

/// The texts of a page.
pub fn texts(page: &Value) -> impl Iterator<Item = &str> {
    let notes = page["notes"].as_array().map(Vec::as_slice).unwrap_or_default();
    notes.iter().filter_map(|note| note["text"].as_str())
}

/// Where the next page begins, if there is one.
pub fn next(page: &Value) -> Option<i64> {
    page["next_before"].as_i64()
}
