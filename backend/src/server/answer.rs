//! The layers around every request: its id, its deadline, its line in the log, and the one form
//! that errors have, whichever layer they come from.

use std::{any::Any, time::Duration};

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use tokio::time::{Instant, timeout};
use tracing::Instrument;

use crate::error::{Error, Problem};

/// The header by which a request is known in every log. nginx sets it.
const REQUEST_ID: &str = "x-request-id";
/// No answer takes longer. Above the limit of a statement, below nginx's patience.
const DEADLINE: Duration = Duration::from_secs(10);

/// The outermost layer.
pub(super) async fn finish(request: Request, next: Next) -> Response {
    let start = Instant::now();
    let id = request_id(request.headers());
    let method = request.method().clone();
    // Without the query: it may hold what a person typed.
    let path = request.uri().path().to_owned();
    let span = tracing::info_span!("request", request_id = %id);
    async move {
        let mut response = with_problem(next.run(request).await, &id);
        let headers = response.headers_mut();
        if let Ok(value) = HeaderValue::from_str(&id) {
            headers.insert(REQUEST_ID, value);
        }
        // What the API says belongs to one person and one moment.
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
        let status = response.status().as_u16();
        let ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        // Health checks and the collector come every few seconds for ever; they are worth a line when they fail.
        if !(matches!(path.as_str(), "/healthz" | "/readyz" | "/metrics") && status == 200) {
            tracing::info!(%method, path, status, ms, "request");
        }
        response
    }
    .instrument(span)
    .await
}

/// The id that nginx gave, if it has a sane form, or a new one.
fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let sane = |id: &&str| {
        (8..=64).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    given.filter(sane).map_or_else(new_id, str::to_owned)
}

fn new_id() -> String {
    let mut bytes = [0; 16];
    // Without random bytes the requests share one id: bad for whoever reads the log, and no
    // reason to refuse them.
    let _ = getrandom::fill(&mut bytes);
    hex::encode(bytes)
}

/// Gives every error the form of RFC 9457: ours with what they say, and those of axum itself (no
/// such route, no such method) with what their status says.
fn with_problem(response: Response, id: &str) -> Response {
    let status = response.status();
    if !status.is_client_error() && !status.is_server_error() {
        return response;
    }
    let (mut parts, _) = response.into_parts();
    let mut problem = parts.extensions.remove().unwrap_or_else(|| Problem::of(status));
    id.clone_into(&mut problem.request_id);
    let body = serde_json::to_vec(&problem).unwrap_or_default();
    let problem_json = HeaderValue::from_static("application/problem+json");
    parts.headers.insert(header::CONTENT_TYPE, problem_json);
    parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    Response::from_parts(parts, Body::from(body))
}

/// A handler that hangs (a frozen database, say) is given up.
pub(super) async fn within_deadline(request: Request, next: Next) -> Response {
    match timeout(DEADLINE, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let reason = format!("no answer within {} s", DEADLINE.as_secs());
            Error::unavailable("a part of the system", reason).into_response()
        }
    }
}

/// The panic hook has logged it already, with its place.
pub(super) fn panicked(_: Box<dyn Any + Send + 'static>) -> Response {
    StatusCode::INTERNAL_SERVER_ERROR.into_response()
}

#[cfg(test)]
mod tests {
    use axum::{Router, middleware, routing::get};
    use serde_json::Value;
    use tower::ServiceExt;

    use super::*;

    fn router() -> Router {
        Router::new()
            .route("/ok", get(async || "fine"))
            .route("/field", get(async || Error::field("text", "Write something.")))
            .route("/panic", get(async || -> &'static str { panic!("a test's own panic") }))
            .layer(tower_http::catch_panic::CatchPanicLayer::custom(panicked))
            .layer(middleware::from_fn(finish))
    }

    async fn ask(request: axum::http::request::Builder) -> (Response, Value) {
        let response = router().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, 10_000).await.unwrap();
        let value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        (Response::from_parts(parts, Body::empty()), value)
    }

    #[tokio::test]
    async fn errors_of_every_layer_have_one_form() {
        let expected = [
            (Request::get("/nowhere"), 404, "Not Found"),
            (Request::post("/ok"), 405, "Method Not Allowed"),
            (Request::get("/field"), 422, "Unprocessable Entity"),
            (Request::get("/panic"), 500, "Internal Server Error"),
        ];
        for (request, status, title) in expected {
            let (response, problem) = ask(request).await;
            assert_eq!(response.status(), status);
            assert_eq!(response.headers()[header::CONTENT_TYPE], "application/problem+json");
            assert_eq!(problem["type"], "about:blank");
            assert_eq!(problem["title"], title);
            assert_eq!(problem["status"], status);
            assert_eq!(response.headers()[REQUEST_ID], problem["request_id"].as_str().unwrap());
        }
    }

    #[tokio::test]
    async fn a_field_error_names_its_field() {
        let (_, problem) = ask(Request::get("/field")).await;
        assert_eq!(problem["errors"][0]["field"], "text");
    }

    #[tokio::test]
    async fn the_id_of_nginx_is_kept_and_a_strange_one_is_not() {
        let given = "0123456789abcdef0123456789abcdef";
        let (response, _) = ask(Request::get("/ok").header(REQUEST_ID, given)).await;
        assert_eq!(response.headers()[REQUEST_ID], given);
        for strange in ["short", "has spaces in it", &"x".repeat(65)] {
            let (response, _) = ask(Request::get("/ok").header(REQUEST_ID, strange)).await;
            assert_eq!(response.headers()[REQUEST_ID].len(), 32, "{strange}");
        }
    }
}
