//! A person's own sessions: `/api/sessions`.

use axum::{
    extract::State,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Handle, SignedIn, store::Listed};
use crate::{
    error::{Error, Problem},
    extract::{Path, Query},
    server::App,
};

/// The routes of this module.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, end_all)).routes(routes!(end_one))
}

/// A session, for its owner's eyes.
#[derive(Serialize, ToSchema)]
struct SessionEntry {
    /// Its name in `DELETE /api/sessions/{handle}`.
    handle: String,
    /// When it began.
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    created_at: OffsetDateTime,
    /// When it was last used.
    #[serde(with = "time::serde::rfc3339")]
    #[schema(value_type = String, format = DateTime)]
    last_used_at: OffsetDateTime,
    /// What the browser is called; may be empty.
    agent: String,
    /// Whether it is the one that asks.
    current: bool,
}

/// The caller's sessions, the last used first.
#[derive(Serialize, ToSchema)]
struct SessionList {
    sessions: Vec<SessionEntry>,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct Ending {
    /// `current` leaves the session that asks alone.
    #[param(inline)]
    keep: Option<Keep>,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Keep {
    Current,
}

/// Where the caller is signed in.
#[utoipa::path(
    get, path = "/api/sessions", operation_id = "list_sessions", tag = "sessions", security(("session" = [])),
    responses(
        (status = 200, body = SessionList),
        (status = 401, body = Problem),
        (status = 403, body = Problem)
    )
)]
async fn list(
    State(app): State<App>,
    SignedIn { id, session }: SignedIn,
) -> Result<axum::Json<SessionList>, Error> {
    let listed = app.sessions.list(session.account_id).await?;
    let entry = |listed: Listed| {
        Ok(SessionEntry {
            current: app.sessions.is_named(id, &listed.handle),
            handle: listed.handle,
            created_at: moment(listed.session.created)?,
            last_used_at: moment(listed.last_used)?,
            agent: listed.session.agent,
        })
    };
    let sessions = listed.into_iter().map(entry).collect::<Result<_, Error>>()?;
    Ok(axum::Json(SessionList { sessions }))
}

/// Signs one browser out.
#[utoipa::path(
    delete, path = "/api/sessions/{handle}", tag = "sessions",
    params(("handle" = String, Path, description = "From the list.")),
    security(("session" = [], "token" = [])),
    responses(
        (status = 204),
        (status = 401, body = Problem),
        (status = 403, body = Problem),
        (status = 404, body = Problem)
    )
)]
async fn end_one(
    State(app): State<App>,
    SignedIn { id, session }: SignedIn,
    Path(handle): Path<Handle>,
) -> Result<Response, Error> {
    if !app.sessions.end_one(session.account_id, &handle).await? {
        return Err(Error::NotFound("You have no such session."));
    }
    Ok(ended(&app, app.sessions.is_named(id, handle.as_str())))
}

/// Signs out everywhere, or everywhere else.
#[utoipa::path(
    delete, path = "/api/sessions", tag = "sessions", params(Ending),
    security(("session" = [], "token" = [])),
    responses(
        (status = 204),
        (status = 400, body = Problem),
        (status = 401, body = Problem),
        (status = 403, body = Problem)
    )
)]
async fn end_all(
    State(app): State<App>,
    SignedIn { id, session }: SignedIn,
    Query(ending): Query<Ending>,
) -> Result<Response, Error> {
    let keep = ending.keep.map(|Keep::Current| id);
    let count = app.sessions.end_all(session.account_id, keep).await?;
    tracing::info!(account = session.account_id, count, "sessions ended");
    Ok(ended(&app, keep.is_none()))
}

/// The browser forgets its cookie if the session behind it is gone.
fn ended(app: &App, own: bool) -> Response {
    if !own {
        return StatusCode::NO_CONTENT.into_response();
    }
    let cookie: [(HeaderName, HeaderValue); 1] = [(header::SET_COOKIE, app.cookies.clear())];
    (cookie, StatusCode::NO_CONTENT).into_response()
}

fn moment(seconds: u64) -> Result<OffsetDateTime, Error> {
    let seconds = i64::try_from(seconds).map_err(Error::internal)?;
    OffsetDateTime::from_unix_timestamp(seconds).map_err(Error::internal)
}
