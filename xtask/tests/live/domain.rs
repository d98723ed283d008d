//! THE SAMPLE DOMAIN, as the driver's tests use it: a text that a person writes, and reads back. Whoever
//! replaces the notes by a product of their own changes this file, and nothing else of these tests.

use serde_json::{Value, json};

/// Where a person's texts are written with POST, and the newest read with GET.
pub(crate) const PATH: &str = "/api/notes";
/// The same for as many as one answer has.
pub(crate) const PATH_OF_MANY: &str = "/api/notes?limit=100";
/// The table that holds them, one in a row, with an `id` that counts.
pub(crate) const TABLE: &str = "notes";
/// The table's column with the text.
pub(crate) const TEXT: &str = "text";

/// What a person sends to write a text.
pub(crate) fn body(text: &str) -> Value {
    json!({"text": text})
}

/// The statement that writes what a query gives, which is accounts' ids and texts.
pub(crate) fn insert(query: &str) -> String {
    format!("INSERT INTO {TABLE} (account_id, {TEXT}) {query}")
}
