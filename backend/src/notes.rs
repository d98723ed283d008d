//! THE SAMPLE DOMAIN: short texts that an account writes and lists. It shows how a domain is laid
//! out here, and is made to be removed; backend/README.md says how.

mod queries;

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    error::{Error, Problem},
    extract::{Json, Query, idempotency_key},
    server::App,
    sessions::SignedIn,
};
use queries::{Note, Retry};
use sha2::{Digest, Sha256};

/// The longest note, in characters.
const MAX_CHARS: usize = 2000;
/// How many notes a page has unless asked otherwise, and at most.
const DEFAULT_LIMIT: i64 = 20;
const MAX_LIMIT: i64 = 100;

/// The routes of this module.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, create))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewNote {
    /// Something to see in it, and no U+0000.
    #[schema(min_length = 1, max_length = 2000, pattern = r"^[^\u0000]*\S[^\u0000]*$")]
    text: String,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Page {
    /// Notes older than this one: `next_before` of the page before.
    before: Option<i64>,
    /// How many at most; 20 if it is left out.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<i64>,
}

#[derive(Serialize, ToSchema)]
struct NoteList {
    notes: Vec<Note>,
    /// Passed as `before`, it gives the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_before: Option<i64>,
}

/// The caller's notes, newest first. Pages go by key: what is written meanwhile shifts nothing.
#[utoipa::path(
    get, path = "/api/notes", operation_id = "list_notes", tag = "notes", params(Page), security(("session" = [])),
    responses(
        (status = 200, body = NoteList),
        (status = 400, body = Problem),
        (status = 401, body = Problem),
        (status = 403, body = Problem),
        (status = 422, body = Problem)
    )
)]
async fn list(
    State(app): State<App>,
    SignedIn { session, .. }: SignedIn,
    Query(page): Query<Page>,
) -> Result<axum::Json<NoteList>, Error> {
    let limit = page.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(Error::field("limit", "Ask for 1 to 100 notes."));
    }
    // One more than asked for tells whether there is another page.
    let notes = queries::list(&app.db, session.account_id, page.before, limit + 1).await?;
    Ok(axum::Json(NoteList::cut(notes, limit)))
}

impl NoteList {
    /// A page of at most `limit` out of one note more, if there is one more.
    fn cut(mut notes: Vec<Note>, limit: i64) -> Self {
        let length = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = notes.len() > length;
        notes.truncate(length);
        let next_before = notes.last().filter(|_| more).map(|note| note.id);
        Self { notes, next_before }
    }
}

/// Writes a note. With an `Idempotency-Key`, writes it once: the same request again gets the same
/// answer.
#[utoipa::path(
    post, path = "/api/notes", operation_id = "create_note", tag = "notes", request_body = NewNote,
    params(("Idempotency-Key" = Option<String>, Header, description = "Chosen by the client.",
            min_length = 1, max_length = 255, pattern = "^[!-~]+$")),
    security(("session" = [], "token" = [])),
    responses(
        (status = 201, body = Note),
        (status = 400, body = Problem),
        (status = 401, body = Problem),
        (status = 403, body = Problem),
        (status = 413, body = Problem),
        (status = 415, body = Problem),
        (status = 422, body = Problem)
    )
)]
async fn create(
    State(app): State<App>,
    SignedIn { session, .. }: SignedIn,
    headers: HeaderMap,
    Json(note): Json<NewNote>,
) -> Result<(StatusCode, axum::Json<Note>), Error> {
    let text = check(&note.text).map_err(|message| Error::field("text", message))?;
    let note = match idempotency_key(&headers)? {
        None => queries::insert(&app.db, session.account_id, text).await?,
        Some(key) => {
            let retry = Retry { key, hash: Sha256::digest(text).into() };
            let note = queries::insert_once(&app.db, session.account_id, text, &retry).await?;
            note.ok_or_else(|| Error::Rejected {
                status: StatusCode::UNPROCESSABLE_ENTITY,
                detail: "This Idempotency-Key was used with another body: choose a new key for a \
                         new request."
                    .to_owned(),
            })?
        }
    };
    Ok((StatusCode::CREATED, axum::Json(note)))
}

fn check(text: &str) -> Result<&str, &'static str> {
    let text = text.trim();
    if text.is_empty() {
        return Err("Write something.");
    }
    if text.chars().count() > MAX_CHARS {
        return Err("Write at most 2000 characters.");
    }
    // PostgreSQL stores every character but this one.
    if text.contains('\0') {
        return Err("Remove the character U+0000.");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_trimmed_and_bounded() {
        assert_eq!(check("  hello \n"), Ok("hello"));
        assert!(check(" \n ").is_err());
        assert!(check(&"ä".repeat(2000)).is_ok());
        assert!(check(&"a".repeat(2001)).is_err());
        assert!(check("a\0b").is_err());
    }

    proptest::proptest! {
        /// Going from page to page shows every note once, in order, whatever the ids and limits.
        #[test]
        fn the_pages_together_are_the_whole(
            ids in proptest::collection::btree_set(1_i64..i64::MAX, 0..60),
            limit in 1..=MAX_LIMIT,
        ) {
            let newest_first: Vec<i64> = ids.into_iter().rev().collect();
            let (mut seen, mut before) = (Vec::new(), None);
            loop {
                let count = usize::try_from(limit + 1).unwrap();
                let notes = newest_first
                    .iter()
                    .filter(|id| **id < before.unwrap_or(i64::MAX))
                    .take(count)
                    .map(|id| Note { id: *id, text: String::new(), created_at: MOMENT })
                    .collect();
                let page = NoteList::cut(notes, limit);
                seen.extend(page.notes.iter().map(|note| note.id));
                before = page.next_before;
                if before.is_none() {
                    break;
                }
            }
            proptest::prop_assert_eq!(seen, newest_first);
        }

        #[test]
        fn a_text_that_is_kept_is_kept_as_it_is(text in "(?s).{0,60}") {
            if let Ok(kept) = check(&text) {
                proptest::prop_assert!(!kept.is_empty() && !kept.contains('\0'));
                proptest::prop_assert_eq!(check(kept), Ok(kept));
            }
        }
    }

    const MOMENT: time::OffsetDateTime = time::OffsetDateTime::UNIX_EPOCH;
}
