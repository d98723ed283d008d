//! The OpenAPI document. Each module registers its handlers with `routes!`, which makes the route and
//! its description from the same line, so that neither can be without the other. `openapi.json`
//! beside Cargo.toml is the document as it was last agreed on; a test fails when they differ.

use axum::{Router, response::IntoResponse, routing::get};
use utoipa::{
    Modify, OpenApi,
    openapi::{
        self,
        security::{ApiKey, ApiKeyValue, SecurityScheme},
    },
};
use utoipa_axum::router::OpenApiRouter;

use crate::{
    accounts, csrf,
    error::{FieldError, Problem},
    notes,
    server::App,
    sessions,
};

/// What stands in the document besides the routes.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "The API",
        description = "Errors are problem documents (RFC 9457). Any request may also be answered \
                       with 429 or 503, both with `Retry-After`.",
        license(name = "MIT OR Apache-2.0")
    ),
    components(schemas(Problem, FieldError)),
    modifiers(&Security)
)]
struct Document;

/// How a caller proves who it is.
struct Security;

impl Modify for Security {
    fn modify(&self, document: &mut openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        let cookie = ApiKeyValue::with_description(
            "session",
            "Set by signing up and in; `__Host-session` where the site has TLS.",
        );
        let token = ApiKeyValue::with_description(
            csrf::HEADER,
            "The session's token, from GET /api/session. For every method but GET.",
        );
        components.add_security_scheme("session", SecurityScheme::ApiKey(ApiKey::Cookie(cookie)));
        components.add_security_scheme("token", SecurityScheme::ApiKey(ApiKey::Header(token)));
    }
}

/// Every route that the world sees, and the document about them.
pub fn routes() -> (Router<App>, openapi::OpenApi) {
    OpenApiRouter::with_openapi(Document::openapi())
        .merge(accounts::router())
        .merge(sessions::router())
        .merge(notes::router())
        .split_for_parts()
}

/// The same with the document itself at `/api/openapi.json`.
pub fn router() -> Router<App> {
    let (router, document) = routes();
    // It is the same for the life of the process.
    let text = to_text(&document);
    router.route("/api/openapi.json", get(async move || json(text.clone())))
}

fn json(text: String) -> impl IntoResponse {
    ([(axum::http::header::CONTENT_TYPE, "application/json")], text)
}

fn to_text(document: &openapi::OpenApi) -> String {
    document.to_pretty_json().unwrap_or_default() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_the_one_that_was_agreed_on() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
        let now = to_text(&routes().1);
        if std::env::var_os("UPDATE_OPENAPI").is_some() {
            std::fs::write(path, &now).unwrap();
        }
        let agreed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            agreed == now,
            "the API and backend/openapi.json differ. If the change is meant, run\n    \
             UPDATE_OPENAPI=1 cargo test -p backend openapi\nand commit the file with it"
        );
    }
}
