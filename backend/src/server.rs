//! `backend serve`: waits for the parts it needs, migrates, and only then listens.

mod answer;
mod drain;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, extract::DefaultBodyLimit, http::StatusCode, middleware, serve::ListenerExt};
use tokio::net::TcpListener;
use tower_http::catch_panic::CatchPanicLayer;

use crate::{
    accounts::Passwords,
    config::{AppEnv, Config},
    csrf,
    db::{self, Database},
    error::Error,
    health::{self, Writes},
    limits::Limits,
    link::Link,
    metrics::{self, Metrics},
    migrate::{self, files::Set},
    openapi,
    sessions::{Cookies, Sessions},
};
pub use drain::Draining;

/// How long PostgreSQL and Redis are waited for at the start, each.
const START_LIMIT: Duration = Duration::from_secs(120);
/// How often the secrets' files are looked at. Five reads of a hundred bytes cost nothing, and what
/// cannot wait that long looks for itself: see [`crate::config::Rotating::refresh`].
const LOOK_AT_SECRETS: Duration = Duration::from_secs(1);
/// The largest body of a request. nginx refuses larger ones already.
const BODY_LIMIT: usize = 64 * 1024;

/// What the handlers share. Cloning it copies handles.
#[derive(Clone)]
pub struct App {
    /// PostgreSQL.
    pub db: Database,
    /// Redis.
    pub redis: Link,
    /// The sessions in it.
    pub sessions: Sessions,
    /// How often what may be done.
    pub limits: Limits,
    /// Makes and checks the tokens of unsafe requests.
    pub csrf: csrf::Tokens,
    /// Hashes and verifies passwords.
    pub passwords: Passwords,
    /// Reads and writes the session's cookie.
    pub cookies: Cookies,
    /// The migrations that this program needs.
    pub migrations: Arc<Set>,
    /// What is counted.
    pub metrics: Metrics,
    /// How the last writes ended.
    pub writes: Writes,
    /// Whether the process is about to end.
    pub draining: Draining,
}

/// Every route, inside the layers that each request passes.
pub fn router(app: App) -> Router {
    let (metrics, writes) = (app.metrics.clone(), app.writes.clone());
    Router::new()
        .merge(health::router())
        .merge(metrics::router())
        .merge(openapi::router())
        .fallback(async || StatusCode::NOT_FOUND)
        .method_not_allowed_fallback(async || StatusCode::METHOD_NOT_ALLOWED)
        .with_state(app)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(middleware::from_fn(csrf::same_origin))
        .layer(middleware::from_fn(answer::within_deadline))
        .layer(CatchPanicLayer::custom(answer::panicked))
        .layer(middleware::from_fn_with_state(writes, health::watch))
        .layer(middleware::from_fn_with_state(metrics, metrics::count))
        // Outermost: the log and the problem bodies see what every other layer answered.
        .layer(middleware::from_fn(answer::finish))
}

/// Runs until a signal ends it. The error is a sentence for the operator.
pub async fn serve(config: Config) -> Result<(), String> {
    // First of all, so that a signal during the wait ends the process at once.
    let draining = Draining::on_signal()?;
    let server = tokio::select! {
        server = Server::start(config, draining.clone()) => server?,
        () = draining.started() => return Ok(()),
    };
    server.run().await
}

/// A server that is ready, and listens.
pub struct Server {
    config: Config,
    app: App,
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Waits for PostgreSQL and Redis, migrates, and only then listens.
    pub async fn start(config: Config, draining: Draining) -> Result<Self, String> {
        let app = start(&config, draining).await?;
        let cannot_listen = |error| format!("cannot listen on {}: {error}", config.bind);
        let listener = TcpListener::bind(config.bind).await.map_err(cannot_listen)?;
        // Where it really listens: with port 0 the system chose.
        let address = listener.local_addr().map_err(cannot_listen)?;
        tracing::info!(%address, "listening");
        Ok(Self { config, app, listener, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What its handlers share.
    pub fn app(&self) -> &App {
        &self.app
    }

    /// Answers until the process is told to end.
    pub async fn run(self) -> Result<(), String> {
        let draining = self.app.draining.clone();
        let pool = self.app.db.pool().clone();
        let secrets = follow_secrets(self.config, self.app.clone());
        let listener = self.listener.tap_io(|stream| {
            // An answer is one write: nothing is gained by holding it back.
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!(%error, "TCP_NODELAY was not set");
            }
        });
        let service = router(self.app).into_make_service_with_connect_info::<SocketAddr>();
        let server = axum::serve(listener, service)
            .with_graceful_shutdown({
                let draining = draining.clone();
                async move { draining.started().await }
            })
            .into_future();
        tokio::select! {
            outcome = drain::until_done(server, &draining) => outcome?,
            () = secrets => {}
        }
        // Says goodbye to PostgreSQL; not worth more than a moment.
        let _ = tokio::time::timeout(Duration::from_secs(1), pool.close()).await;
        tracing::info!("stopped");
        Ok(())
    }
}

/// Takes over secrets that are replaced while the server runs. Never returns.
async fn follow_secrets(config: Config, app: App) {
    loop {
        tokio::time::sleep(LOOK_AT_SECRETS).await;
        config.refresh_keys();
        app.db.refresh_password();
        app.redis.refresh_password().await;
    }
}

/// Everything between the process' start and its first request.
async fn start(config: &Config, draining: Draining) -> Result<App, String> {
    let report = |line: &str| tracing::info!("{line}");
    let migrations = Set::embedded().map_err(|error| error.to_string())?;
    let database = async {
        db::wait(&config.owner, START_LIMIT, &report).await.map_err(|e| e.to_string())?;
        let summary = migrate::run(&config.owner, &migrations, &report).await;
        let summary = summary.map_err(|e| e.to_string())?;
        // A wrong password of the other role would otherwise show at the first request only.
        db::wait(&config.database, START_LIMIT, &report).await.map_err(|e| e.to_string())?;
        Ok(summary)
    };
    let redis = Link::connect(&config.redis, START_LIMIT, &report);
    let (summary, redis) = tokio::try_join!(database, redis)?;
    tracing::info!(applied = summary.applied, total = summary.total, "the schema is current");
    let passwords = Passwords::new().map_err(|error: Error| error.to_string())?;
    Ok(App {
        db: Database::new(&config.database),
        sessions: Sessions::new(redis.clone(), config.session_secret.clone()),
        limits: Limits::new(
            redis.clone(),
            config.session_secret.clone(),
            config.app_env != AppEnv::Production,
        ),
        redis,
        csrf: csrf::Tokens::new(config.csrf_key.clone()),
        passwords,
        cookies: Cookies::new(config.secure_cookies()),
        migrations: Arc::new(migrations),
        metrics: Metrics::new(),
        writes: Writes::default(),
        draining,
    })
}
