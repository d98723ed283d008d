//! Accounts and signing in and out: `/api/accounts` and `/api/session`.

mod email;
mod password;
mod queries;

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    routing::post,
};
use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, FieldError},
    extract::Json,
    server::App,
    sessions::{SessionId, SignedIn},
};
use email::Email;
pub use password::Passwords;
pub use queries::Account;

/// The routes of this module.
pub fn router() -> Router<App> {
    Router::new()
        .route("/api/accounts", post(sign_up))
        .route("/api/session", post(sign_in).get(who_am_i).delete(sign_out))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Credentials {
    email: String,
    password: String,
}

/// The caller's session as the page sees it.
#[derive(Serialize)]
struct SessionView {
    account: Account,
    csrf_token: String,
}

type WithCookie<T> = ([(HeaderName, HeaderValue); 1], T);

/// Makes an account and signs it in.
async fn sign_up(
    State(app): State<App>,
    headers: HeaderMap,
    Json(credentials): Json<Credentials>,
) -> Result<(StatusCode, WithCookie<axum::Json<SessionView>>), Error> {
    let email = Email::parse(&credentials.email);
    let password = password::check_length(&credentials.password);
    let (email, ()) = match (email, password) {
        (Ok(email), Ok(())) => (email, ()),
        (email, password) => {
            let messages = [("email", email.err()), ("password", password.err())];
            let errors = messages.into_iter().filter_map(|(field, message)| {
                message.map(|message| FieldError { field, message: message.into() })
            });
            return Err(Error::Invalid(errors.collect()));
        }
    };
    let hash = app.passwords.hash(credentials.password).await?;
    let account = queries::insert(&app.db, &email, &hash).await?;
    tracing::info!(account = account.id, "account made");
    Ok((StatusCode::CREATED, start_session(&app, &headers, account).await?))
}

/// Signs in. Both ways of being wrong get the same answer after the same work.
async fn sign_in(
    State(app): State<App>,
    headers: HeaderMap,
    Json(credentials): Json<Credentials>,
) -> Result<WithCookie<axum::Json<SessionView>>, Error> {
    let found = match Email::parse(&credentials.email) {
        Ok(email) => queries::find_by_email(&app.db, &email).await?,
        Err(_) => None,
    };
    let (account, hash) = found.unzip();
    let right = app.passwords.verify(credentials.password, hash).await?;
    match account {
        Some(account) if right => start_session(&app, &headers, account).await,
        _ => Err(Error::Unauthorized("The e-mail address or the password is wrong.")),
    }
}

/// A new id at every sign-in: one that was known before it (planted, or left on a shared machine)
/// is worth nothing after it.
async fn start_session(
    app: &App,
    headers: &HeaderMap,
    account: Account,
) -> Result<WithCookie<axum::Json<SessionView>>, Error> {
    if let Some(old) = app.cookies.read(headers) {
        app.sessions.delete(old).await?;
    }
    let id = app.sessions.create(account.id).await?;
    Ok(([(header::SET_COOKIE, app.cookies.set(id))], axum::Json(view(app, id, account))))
}

fn view(app: &App, id: SessionId, account: Account) -> SessionView {
    SessionView { account, csrf_token: app.csrf.issue(id) }
}

/// Who the caller is, and the token that its next unsafe request needs.
async fn who_am_i(
    State(app): State<App>,
    SignedIn { id, session }: SignedIn,
) -> Result<axum::Json<SessionView>, Error> {
    let account = queries::find(&app.db, session.account_id).await?;
    // The account may have been removed since; its sessions are worth nothing then.
    let account = account.ok_or(Error::Unauthorized("Sign in first."))?;
    Ok(axum::Json(view(&app, id, account)))
}

/// Ends the session on the server, not only in the browser.
async fn sign_out(
    State(app): State<App>,
    SignedIn { id, .. }: SignedIn,
) -> Result<WithCookie<StatusCode>, Error> {
    app.sessions.delete(id).await?;
    Ok(([(header::SET_COOKIE, app.cookies.clear())], StatusCode::NO_CONTENT))
}
