//! axum's extractors with our error type in place of their plain-text answers.

use axum::{
    extract::{FromRequest, FromRequestParts, Request},
    http::{HeaderMap, StatusCode, request::Parts},
};
use serde::de::DeserializeOwned;

use crate::error::Error;

/// A JSON body.
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Error;

    async fn from_request(request: Request, state: &S) -> Result<Self, Error> {
        match axum::Json::from_request(request, state).await {
            Ok(axum::Json(value)) => Ok(Self(value)),
            Err(error) => {
                Err(Error::Rejected { status: error.status(), detail: error.body_text() })
            }
        }
    }
}

/// The query of the URI.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        match axum::extract::Query::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(value)) => Ok(Self(value)),
            Err(error) => {
                Err(Error::Rejected { status: error.status(), detail: error.body_text() })
            }
        }
    }
}

/// The variable part of the path. What does not fit names nothing, so the answer is 404.
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Error> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(_) => Err(Error::NotFound("There is nothing at this address.")),
        }
    }
}

/// The header by which a client names a request that it may send again.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// The request's `Idempotency-Key`, if it has one: 1 to 255 visible characters of ASCII, once.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Error> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let key = match (values.next(), values.next()) {
        (None, _) => return Ok(None),
        (Some(value), None) => value.to_str().ok(),
        (Some(_), Some(_)) => None,
    };
    let good = |key: &&str| {
        (1..=255).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic())
    };
    key.filter(good).map(Some).ok_or_else(|| Error::Rejected {
        status: StatusCode::BAD_REQUEST,
        detail: "Idempotency-Key must come once, with 1 to 255 visible characters of ASCII."
            .to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key_of(values: &[&str]) -> Result<Option<String>, ()> {
        let name = axum::http::HeaderName::from_static(IDEMPOTENCY_KEY);
        let headers = values.iter().map(|value| {
            (name.clone(), axum::http::HeaderValue::from_bytes(value.as_bytes()).unwrap())
        });
        let headers = HeaderMap::from_iter(headers);
        idempotency_key(&headers).map(|key| key.map(str::to_owned)).map_err(|_| ())
    }

    #[test]
    fn keys_are_visible_bounded_and_come_once() {
        assert_eq!(key_of(&[]), Ok(None));
        assert_eq!(key_of(&["k-1"]), Ok(Some("k-1".to_owned())));
        assert!(key_of(&[&"k".repeat(255)]).is_ok());
        for values in [&[""][..], &["a b"], &["\u{fc}"], &["a", "a"], &[&"k".repeat(256)]] {
            assert!(key_of(values).is_err(), "{values:?}");
        }
    }
}
