//! `/healthz`: the process lives. `/readyz`: a request would succeed, because PostgreSQL and Redis
//! really take a write, the schema is current, and the writes of requests do not fail. nginx passes
//! neither on; the container's health check and an orchestrator ask the backend itself.

mod writes;

use std::{pin::pin, sync::LazyLock, time::Duration};

use axum::{
    Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use redis::Script;
use serde::Serialize;
use sqlx::{Connection, PgConnection};
use tokio::time::{sleep, timeout};

use crate::{
    db::{self, Held},
    error::{Problem, chain},
    migrate::history::History,
    server::App,
};

pub use writes::Writes;
pub(crate) use writes::watch;

/// Both questions run at the same time, so an answer takes no longer than this.
const DEADLINE: Duration = Duration::from_millis(1800);

static WRITE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("health/write.lua")));

/// The routes of this module.
pub fn router() -> Router<App> {
    Router::new().route("/healthz", get(healthz)).route("/readyz", get(readyz))
}

async fn healthz() -> axum::Json<serde_json::Value> {
    axum::Json(serde_json::json!({ "status": "alive" }))
}

#[derive(Serialize)]
struct Ready {
    status: &'static str,
}

async fn readyz(State(app): State<App>) -> Response {
    let mut reasons = Vec::new();
    if app.draining.is_draining() {
        reasons.push("shutting down".to_owned());
    }
    if let Some(count) = app.writes.failing() {
        reasons.push(format!("the last {count} writes failed"));
    }
    let (database, redis) =
        tokio::join!(timeout(DEADLINE, database(&app)), timeout(DEADLINE, redis(&app)));
    for (part, outcome) in [("PostgreSQL", database), ("Redis", redis)] {
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(reason)) => reasons.push(format!("{part}: {reason}")),
            Err(_) => reasons.push(format!("{part}: no answer within {DEADLINE:?}")),
        }
    }
    if reasons.is_empty() {
        return axum::Json(Ready { status: "ready" }).into_response();
    }
    let mut response = StatusCode::SERVICE_UNAVAILABLE.into_response();
    let detail = format!("Not ready. {}", reasons.join(". "));
    response
        .extensions_mut()
        .insert(Problem { detail: Some(detail), ..Problem::of(StatusCode::SERVICE_UNAVAILABLE) });
    response
}

async fn database(app: &App) -> Result<(), String> {
    let mut connection = alive_or_reason(app).await?;
    let history = History::read(&mut connection).await.map_err(|error| error.to_string())?;
    let comparison = history.compare(&app.migrations);
    if comparison.is_current() {
        return write(&mut connection).await;
    }
    let pending = comparison.pending.len();
    Err(match comparison.problems() {
        Some(problems) => format!("the migrations disagree:{problems}"),
        None => format!("{pending} migrations are to be applied: run `backend migrate`"),
    })
}

/// Where a connection does not come in a moment, another one is tried beside the pool: it is answered with the
/// reason, when the pool would only say that there was none in time.
async fn alive_or_reason(app: &App) -> Result<Held, String> {
    const MOMENT: Duration = Duration::from_millis(300);
    let mut alive = pin!(alive(app));
    let reason = async {
        sleep(MOMENT).await;
        app.db.reason().await
    };
    let reason = tokio::select! {
        outcome = &mut alive => return outcome.map_err(|error| db::describe(&error)),
        reason = reason => reason,
    };
    match alive.await {
        Err(sqlx::Error::PoolTimedOut) => Err(reason),
        outcome => outcome.map_err(|error| db::describe(&error)),
    }
}

/// The pool hands out what was used a moment ago without a ping, and the server may have ended it
/// since. One such connection says nothing about the next request, so another is taken.
async fn alive(app: &App) -> Result<Held, sqlx::Error> {
    loop {
        let mut connection = app.db.acquire().await?;
        match connection.ping().await {
            Ok(()) => return Ok(connection),
            // The pool may hand it out again if it is not told.
            Err(_) => connection.discard(),
        }
    }
}

/// A write that is really committed, to the log on the disk and to no table: a row that changed with
/// every probe would be in every backup. That a table's file can grow is left to [`Writes`].
async fn write(connection: &mut PgConnection) -> Result<(), String> {
    // The function does not mind a transaction that may not write; ours would.
    let query = "SELECT current_setting('transaction_read_only') = 'on'
                 FROM pg_logical_emit_message(true, 'readyz', '')";
    let read_only: bool =
        sqlx::query_scalar(query).fetch_one(connection).await.map_err(|e| db::describe(&e))?;
    if read_only { Err("it is read-only".to_owned()) } else { Ok(()) }
}

/// A key that is gone within the same script: nobody sees it, and no backup has it.
async fn redis(app: &App) -> Result<(), String> {
    let mut script = WRITE.prepare_invoke();
    script.key(app.redis.key("limit", "readyz"));
    let refused = app.redis.script::<String>(&script).await.map_err(|error| chain(&error))?;
    match refused.trim_start_matches("-") {
        "" => Ok(()),
        refused if refused.starts_with("OOM") => Err("it is full".to_owned()),
        refused => Err(format!("it takes no write: {refused}")),
    }
}
