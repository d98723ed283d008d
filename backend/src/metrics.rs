//! `/metrics`: what is counted, in the text format of Prometheus (OpenMetrics 1.0). nginx does not
//! pass it on; whoever collects it stands in the network.
//!
//! Labels have few values each: a route is the pattern, never the path, and a method that HTTP does
//! not know is `OTHER`. So a stranger cannot make the list longer.

use std::time::Instant;

use axum::{
    Router,
    extract::{MatchedPath, Request, State},
    http::{Method, header},
    middleware::Next,
    response::{IntoResponse, Response},
    routing::get,
};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use crate::{error::Error, server::App};

/// From a millisecond, the time of a simple query, to the deadline of an answer.
const BUCKETS: [f64; 12] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    method: &'static str,
    route: String,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Route {
    route: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Use {
    state: &'static str,
}

/// The counters of this process. Cloning shares them.
#[derive(Clone)]
pub struct Metrics {
    requests: Family<Answered, Counter>,
    seconds: Family<Route, Histogram, fn() -> Histogram>,
    sign_ins: Family<Outcome, Counter>,
    connections: Family<Use, Gauge>,
}

/// The routes of this module.
pub fn router() -> Router<App> {
    Router::new().route("/metrics", get(show))
}

impl Metrics {
    /// All zero.
    pub fn new() -> Self {
        Self {
            requests: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            sign_ins: Family::default(),
            connections: Family::default(),
        }
    }

    /// Counts an attempt to sign in.
    pub fn signed_in(&self, right: bool) {
        let outcome = if right { "right" } else { "wrong" };
        self.sign_ins.get_or_create(&Outcome { outcome }).inc();
    }

    fn registry(&self) -> Registry {
        let mut registry = Registry::default();
        registry.register("http_requests", "Requests answered", self.requests.clone());
        registry.register_with_unit(
            "http_request_duration",
            "Time until the answer began",
            Unit::Seconds,
            self.seconds.clone(),
        );
        registry.register("sign_ins", "Attempts to sign in", self.sign_ins.clone());
        registry.register(
            "database_connections",
            "Connections to PostgreSQL by what they do; most is the size of the pool",
            self.connections.clone(),
        );
        registry
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// A layer that counts every request.
pub async fn count(State(metrics): State<Metrics>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let method = method_name(request.method());
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str);
    let route = route.to_owned();
    let response = next.run(request).await;
    let seconds = start.elapsed().as_secs_f64();
    metrics.seconds.get_or_create(&Route { route: route.clone() }).observe(seconds);
    let answered = Answered { method, route, status: response.status().as_u16() };
    metrics.requests.get_or_create(&answered).inc();
    response
}

fn method_name(method: &Method) -> &'static str {
    const KNOWN: [&str; 7] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    KNOWN.into_iter().find(|name| *name == method.as_str()).unwrap_or("OTHER")
}

async fn show(State(app): State<App>) -> Result<Response, Error> {
    let size = i64::from(app.db.pool().size());
    let idle = i64::try_from(app.db.pool().num_idle()).unwrap_or(i64::MAX);
    let most = i64::from(app.db.pool().options().get_max_connections());
    // The two are read one after the other, so that for a moment more may seem idle than there are.
    for (state, value) in [("idle", idle), ("busy", (size - idle).max(0)), ("most", most)] {
        app.metrics.connections.get_or_create(&Use { state }).set(value);
    }
    let mut text = String::new();
    encode(&mut text, &app.metrics.registry()).map_err(Error::internal)?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, middleware};
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn requests_are_counted_by_pattern_and_strangers_add_no_labels() {
        let metrics = Metrics::new();
        let router = Router::new()
            .route("/things/{id}", get(async || "fine"))
            .fallback(async || axum::http::StatusCode::NOT_FOUND)
            .layer(middleware::from_fn_with_state(metrics.clone(), count));
        for (method, path) in
            [("GET", "/things/1"), ("GET", "/things/2"), ("GET", "/a"), ("BREW", "/b")]
        {
            let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
            router.clone().oneshot(request).await.unwrap();
        }
        metrics.signed_in(false);
        let mut text = String::new();
        encode(&mut text, &metrics.registry()).unwrap();
        for line in [
            r#"http_requests_total{method="GET",route="/things/{id}",status="200"} 2"#,
            r#"http_requests_total{method="GET",route="none",status="404"} 1"#,
            r#"http_requests_total{method="OTHER",route="none",status="404"} 1"#,
            r#"http_request_duration_seconds_count{route="/things/{id}"} 2"#,
            r#"http_request_duration_seconds_bucket{le="10.0",route="none"} 2"#,
            r#"sign_ins_total{outcome="wrong"} 1"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
