//! The extractor that stands for "signed in".

use axum::{extract::FromRequestParts, http::request::Parts};

use super::{Session, SessionId};
use crate::{client::ClientAddress, csrf, error::Error, limits, server::App};

/// A handler that takes this runs only for a signed-in caller, and for an unsafe method only with
/// the session's CSRF token: the check cannot be forgotten, because it comes with the session. A safe
/// method may do without; a token that it brings must be right, so that a page which took it from one
/// session never reads what is another's.
pub struct SignedIn {
    /// The cookie's id.
    pub id: SessionId,
    /// The record behind it.
    pub session: Session,
}

impl FromRequestParts<App> for SignedIn {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Error> {
        const NOT_SIGNED_IN: Error = Error::Unauthorized("Sign in first.");
        let id = app.cookies.read(&parts.headers).ok_or(NOT_SIGNED_IN)?;
        // Before Redis is asked: a forged request shall not even keep a session alive.
        if csrf::is_unsafe(&parts.method) || parts.headers.contains_key(csrf::HEADER) {
            app.csrf.check(&parts.headers, id)?;
        }
        let session = app.sessions.find(id).await?.ok_or(NOT_SIGNED_IN)?;
        if csrf::is_unsafe(&parts.method) {
            let Ok(client) = ClientAddress::from_request_parts(parts, app).await;
            let account = session.account_id.to_string();
            app.limits.check(&limits::WRITE, client, Some(&account)).await?;
        }
        Ok(Self { id, session })
    }
}
