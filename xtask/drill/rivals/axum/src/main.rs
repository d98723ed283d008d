//! The backend's `GET` and `POST /api/notes` with nothing around them: the session from Redis, the rows
//! from PostgreSQL. A rival in a benchmark; ../README.md says what it leaves out.

use std::fs;

use anyhow::{Context, Result};
use axum::extract::{FromRequestParts, Query, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::routing::get;
use axum::serve::ListenerExt;
use axum::{Json, Router};
use redis::aio::ConnectionManager;
use redis::{
    AsyncCommands, Client, ConnectionAddr, Expiry, IntoConnectionInfo, RedisConnectionInfo,
};
use serde::{Deserialize, Serialize};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

const IDLE_SECONDS: u64 = 7 * 24 * 60 * 60;

#[derive(Clone)]
struct App {
    db: PgPool,
    redis: ConnectionManager,
}

#[derive(Serialize, sqlx::FromRow)]
struct Note {
    id: i64,
    text: String,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
}

#[derive(Serialize)]
struct NoteList {
    notes: Vec<Note>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_before: Option<i64>,
}

#[derive(Deserialize)]
struct NewNote {
    text: String,
}

#[derive(Deserialize)]
struct Page {
    limit: Option<i64>,
}

/// The account of the session that a request brings.
#[derive(Deserialize)]
struct SignedIn {
    account_id: i64,
}

impl FromRequestParts<App> for SignedIn {
    type Rejection = StatusCode;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, StatusCode> {
        let cookie = parts.headers.get(header::COOKIE).and_then(|value| value.to_str().ok());
        let cookie = cookie.ok_or(StatusCode::UNAUTHORIZED)?;
        let mut pairs = cookie.split(';').filter_map(|pair| pair.trim().split_once('='));
        let id = pairs.find(|(name, _)| *name == "session").ok_or(StatusCode::UNAUTHORIZED)?.1;
        let key = format!("session:{id}");
        let record: Option<String> =
            app.redis.clone().get_ex(key, Expiry::EX(IDLE_SECONDS)).await.map_err(failed)?;
        serde_json::from_str(&record.ok_or(StatusCode::UNAUTHORIZED)?).map_err(failed)
    }
}

async fn list(
    State(app): State<App>,
    SignedIn { account_id }: SignedIn,
    Query(page): Query<Page>,
) -> Result<Json<NoteList>, StatusCode> {
    let limit = page.limit.unwrap_or(20);
    let statement = "SELECT id, text, created_at FROM notes
                     WHERE account_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3";
    let query = sqlx::query_as(statement).bind(account_id).bind(i64::MAX).bind(limit + 1);
    let mut notes: Vec<Note> = query.fetch_all(&app.db).await.map_err(failed)?;
    let length = usize::try_from(limit).map_err(failed)?;
    let more = notes.len() > length;
    notes.truncate(length);
    let next_before = notes.last().filter(|_| more).map(|note| note.id);
    Ok(Json(NoteList { notes, next_before }))
}

async fn create(
    State(app): State<App>,
    SignedIn { account_id }: SignedIn,
    Json(note): Json<NewNote>,
) -> Result<(StatusCode, Json<Note>), StatusCode> {
    let statement =
        "INSERT INTO notes (account_id, text) VALUES ($1, $2) RETURNING id, text, created_at";
    let query = sqlx::query_as(statement).bind(account_id).bind(note.text);
    let note: Note = query.fetch_one(&app.db).await.map_err(failed)?;
    Ok((StatusCode::CREATED, Json(note)))
}

fn failed(error: impl std::fmt::Display) -> StatusCode {
    eprintln!("{error}");
    StatusCode::INTERNAL_SERVER_ERROR
}

#[tokio::main]
async fn main() -> Result<()> {
    let variable = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set"));
    let options = PgConnectOptions::new()
        .host(&variable("PG_HOST")?)
        .username(&variable("PG_USER")?)
        .database(&variable("PG_DBNAME")?)
        .password(&secret("pg_password")?);
    // No test of a connection before it is used: Node's driver makes none either.
    let pool = PgPoolOptions::new().max_connections(10).test_before_acquire(false);
    let user = RedisConnectionInfo::default().set_username("backend");
    let address = ConnectionAddr::Tcp(variable("REDIS_HOST")?, 6379).into_connection_info()?;
    let address = address.set_redis_settings(user.set_password(secret("redis_password")?));
    let redis = ConnectionManager::new(Client::open(address)?).await?;
    let app = App { db: pool.connect_with(options).await?, redis };
    let router = Router::new().route("/api/notes", get(list).post(create)).with_state(app);
    let listener = TcpListener::bind("0.0.0.0:3000").await?.tap_io(|stream| {
        // As the backend does. One that cannot be set costs time and nothing else.
        let _ = stream.set_nodelay(true);
    });
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        outcome = axum::serve(listener, router).into_future() => outcome?,
        _ = terminate.recv() => {}
    }
    Ok(())
}

/// The first line of a file is the current value.
fn secret(name: &str) -> Result<String> {
    let path = format!("/run/secrets/{name}");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
