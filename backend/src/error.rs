//! One error type for every handler. It becomes `application/problem+json` (RFC 9457): what the
//! caller can act on is in the body, what went wrong inside is in the log under the request id.

use std::{borrow::Cow, error::Error as StdError};

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

/// Seconds after which a caller may try again when a part of the system is away.
const RETRY_AFTER_S: u32 = 2;
/// A 401 has to say how one signs in (RFC 9110, 15.5.2). No scheme is registered for cookies; browsers ask nobody for
/// a password because of one that they do not know.
const CHALLENGE: HeaderValue = HeaderValue::from_static("Cookie realm=\"session\"");

type Source = Box<dyn StdError + Send + Sync>;

/// Why a request was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Fields of the body or the query that are not acceptable.
    #[error("the input is not valid")]
    Invalid(Vec<FieldError>),
    /// The request as a whole cannot be understood; `status` is 400, 411, 413, 415 or 422.
    #[error("{detail}")]
    Rejected {
        /// The status of the answer.
        status: StatusCode,
        /// What was wrong with it.
        detail: String,
    },
    /// Not signed in, or signed in wrongly.
    #[error("{0}")]
    Unauthorized(&'static str),
    /// Refused whoever asks.
    #[error("{0}")]
    Forbidden(&'static str),
    /// It does not exist, or is another's.
    #[error("{0}")]
    NotFound(&'static str),
    /// It exists already.
    #[error("{0}")]
    Conflict(&'static str),
    /// Too often; `seconds` later it is welcome again.
    #[error("Too many attempts. Try again in {seconds} s.")]
    TooMany {
        /// How long to wait.
        seconds: u32,
    },
    /// A part of the system does not answer; trying again later may help.
    #[error("{part} is unavailable")]
    Unavailable {
        /// The part, as a person calls it.
        part: &'static str,
        /// What it said.
        #[source]
        source: Option<Source>,
    },
    /// Whether it was carried out is not known; the text says how the caller finds out.
    #[error("{detail}")]
    Unknown {
        /// What may have happened, and what to do.
        detail: &'static str,
        /// Why nobody knows.
        #[source]
        source: Source,
    },
    /// A mistake of ours.
    #[error("internal error")]
    Internal(#[source] Source),
}

/// What is wrong with one field of the input.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct FieldError {
    /// The field's name in the body or the query.
    pub field: &'static str,
    /// What to do about it.
    pub message: Cow<'static, str>,
}

/// The body of an error's answer. It travels as an extension of the response until the outermost
/// layer adds the request id and writes it: see `server::answer`.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Problem {
    /// No problem of ours needs a page of its own: the title is the status' own phrase.
    pub r#type: &'static str,
    /// The status' phrase.
    pub title: &'static str,
    /// The status, repeated for whoever sees the body alone.
    pub status: u16,
    /// What happened, for a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Per field, when the input is at fault.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// Names the lines of the log that belong to this answer.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub request_id: String,
}

/// Travels beside the [`Problem`] of [`Error::busy`]: nothing is broken, there is only too much to do.
#[derive(Clone, Copy, Debug)]
pub struct Busy;

impl Problem {
    /// A problem that says no more than its status does.
    pub fn of(status: StatusCode) -> Self {
        Self {
            r#type: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: None,
            errors: Vec::new(),
            request_id: String::new(),
        }
    }
}

impl Error {
    /// One field that is not acceptable.
    pub fn field(field: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::Invalid(vec![FieldError { field, message: message.into() }])
    }

    /// A part that does not answer, with what it said.
    pub fn unavailable(part: &'static str, source: impl Into<Source>) -> Self {
        Self::Unavailable { part, source: Some(source.into()) }
    }

    /// A part that cannot take more work at present; see [`Busy`].
    pub fn busy(part: &'static str) -> Self {
        Self::Unavailable { part, source: None }
    }

    /// A mistake of ours.
    pub fn internal(source: impl Into<Source>) -> Self {
        Self::Internal(source.into())
    }

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Rejected { status, .. } => *status,
            Self::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable { .. } | Self::Unknown { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Internals are logged here, once, and never sent.
    fn log(&self) {
        match self {
            Self::Unavailable { part, source } => {
                let cause = source.as_deref().map(|source| chain(source)).unwrap_or_default();
                tracing::warn!(part, cause, "a part of the system is unavailable");
            }
            Self::Unknown { detail, source } => {
                tracing::warn!(
                    detail,
                    cause = chain(source.as_ref()),
                    "the end of a write is unknown"
                );
            }
            Self::Internal(source) => {
                tracing::error!(cause = chain(source.as_ref()), "internal error");
            }
            _ => {}
        }
    }
}

/// An error and its causes in one line.
pub fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // Many libraries print the cause as a part of themselves.
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        self.log();
        let status = self.status();
        let mut problem = Problem::of(status);
        if !matches!(self, Self::Internal(_)) {
            problem.detail = Some(self.to_string());
        }
        let is_busy = matches!(self, Self::Unavailable { source: None, .. });
        let retry_after = match self {
            Self::Unavailable { .. } | Self::Unknown { .. } => Some(RETRY_AFTER_S),
            Self::TooMany { seconds } => Some(seconds),
            _ => None,
        };
        if let Self::Invalid(errors) = self {
            problem.errors = errors;
        }
        let mut response = status.into_response();
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, CHALLENGE);
        }
        response.extensions_mut().insert(problem);
        if is_busy {
            response.extensions_mut().insert(Busy);
        }
        response
    }
}

/// Losing the database is not a mistake of ours, and may be over in a second.
impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        if crate::db::is_unavailable(&error) {
            Self::unavailable("the database", error)
        } else {
            Self::internal(error)
        }
    }
}

impl From<redis::RedisError> for Error {
    fn from(error: redis::RedisError) -> Self {
        Self::unavailable("the session store", error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_internal_error_tells_the_caller_nothing() {
        let response = Error::internal("password of the database").into_response();
        let problem = response.extensions().get::<Problem>().unwrap();
        assert_eq!(problem.status, 500);
        assert!(problem.detail.is_none());
    }

    #[test]
    fn who_is_not_signed_in_is_told_by_what() {
        let response = Error::Unauthorized("sign in first").into_response();
        assert_eq!(response.headers()[header::WWW_AUTHENTICATE], "Cookie realm=\"session\"");
        assert!(!Error::busy("x").into_response().headers().contains_key(header::WWW_AUTHENTICATE));
    }

    #[test]
    fn who_is_told_of_an_unknown_end_is_told_how_to_find_out() {
        let response = Error::Unknown { detail: "Look.", source: "gone".into() }.into_response();
        let problem = response.extensions().get::<Problem>().unwrap();
        assert_eq!((problem.status, problem.detail.as_deref()), (503, Some("Look.")));
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
    }

    #[test]
    fn an_unavailable_part_asks_to_come_back() {
        let response = Error::busy("the database").into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
    }
}
