//! The OpenAPI document. Each module registers its handlers with `routes!`, which makes the route and
//! its description from the same line, so that neither can be without the other. `openapi.json`
//! beside Cargo.toml is the document as it was last agreed on; a test fails when they differ.

use axum::{Router, response::IntoResponse, routing::get};
use utoipa::{
    Modify, OpenApi,
    openapi::{
        self, Content, Header, Object, PathItem, Ref, RefOr, ResponseBuilder, Type,
        path::Operation,
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

const JSON: &str = "application/json";
const PROBLEM: &str = "application/problem+json";

/// What stands in the document besides the routes.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "The API",
        description = "Errors are problem documents (RFC 9457).",
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
            "The session's token, from GET /api/session. For every method but GET, which is refused \
             with one of another session, and needs none.",
        );
        components.add_security_scheme("session", SecurityScheme::ApiKey(ApiKey::Cookie(cookie)));
        components.add_security_scheme("token", SecurityScheme::ApiKey(ApiKey::Header(token)));
    }
}

/// Every route that the world sees, and the document about them.
pub fn routes() -> (Router<App>, openapi::OpenApi) {
    let (router, mut document) = OpenApiRouter::with_openapi(Document::openapi())
        .merge(accounts::router())
        .merge(sessions::router())
        .merge(notes::router())
        .split_for_parts();
    for path in document.paths.paths.values_mut() {
        for operation in operations(path) {
            complete(operation);
        }
    }
    (router, document)
}

fn operations(path: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut path.get, &mut path.put, &mut path.post, &mut path.delete, &mut path.patch]
        .into_iter()
        .flatten()
}

/// What is the same for every route, and stands at none: the type of a problem document, and the
/// answers that come from around the handlers.
fn complete(operation: &mut Operation) {
    let answers = &mut operation.responses.responses;
    for answer in answers.values_mut() {
        if let RefOr::T(answer) = answer
            && let Some(content) = answer.content.get(JSON)
            && is_problem(content)
            && let Some(content) = answer.content.shift_remove(JSON)
        {
            answer.content.insert(PROBLEM.to_owned(), content);
        }
    }
    let again = Header::builder().schema(Some(Object::with_type(Type::Integer)));
    let again = again.description(Some("Seconds after which to try again.")).build();
    for (status, reason) in [
        ("429", "Too many requests of this kind from this address or account."),
        ("503", "A part of the system does not answer."),
    ] {
        let content = Content::new(Some(Ref::from_schema_name("Problem")));
        let answer = ResponseBuilder::new()
            .description(reason)
            .content(PROBLEM, content)
            .header("Retry-After", again.clone());
        answers.insert(status.to_owned(), answer.into());
    }
}

fn is_problem(content: &RefOr<Content>) -> bool {
    let RefOr::T(Content { schema: Some(RefOr::Ref(schema)), .. }) = content else {
        return false;
    };
    schema.ref_location.ends_with("/Problem")
}

/// The same with the document itself at `/api/openapi.json`.
pub fn router() -> Router<App> {
    let (router, document) = routes();
    // It is the same for the life of the process.
    let text = to_text(&document);
    router.route("/api/openapi.json", get(async move || json(text.clone())))
}

fn json(text: String) -> impl IntoResponse {
    ([(axum::http::header::CONTENT_TYPE, JSON)], text)
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

    #[test]
    fn every_error_is_a_problem_and_every_operation_has_a_name_of_its_own() {
        let document = serde_json::to_value(routes().1).unwrap();
        let mut names = std::collections::BTreeSet::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let name = operation["operationId"].as_str().unwrap().to_owned();
                assert!(names.insert(name), "{method} {path}: give it an `operation_id`");
                let answers = operation["responses"].as_object().unwrap();
                assert!(answers["429"]["headers"]["Retry-After"].is_object(), "{method} {path}");
                for (status, answer) in
                    answers.iter().filter(|(status, _)| status.as_str() >= "400")
                {
                    let types: Vec<_> = answer["content"].as_object().unwrap().keys().collect();
                    assert_eq!(types, [PROBLEM], "{method} {path} {status}");
                }
            }
        }
    }
}
