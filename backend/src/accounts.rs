//! Accounts and signing in and out: `/api/accounts` and `/api/session`.

mod email;
mod password;
mod queries;

use std::time::Duration;

use axum::{
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    client::ClientAddress,
    db::{self, Begun},
    error::{Error, FieldError, Problem},
    extract::Json,
    limits,
    server::App,
    sessions::{SessionId, SignedIn},
};
use email::Email;
pub use password::Passwords;
pub use queries::Account;

/// The routes of this module.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(sign_up))
        .routes(routes!(sign_in, who_am_i, sign_out))
        .routes(routes!(change_password))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Credentials {
    #[schema(max_length = 254, pattern = r"^\s*[!-?A-~]+@[!-\-/-?A-~]+(\.[!-\-/-?A-~]+)*\s*$")]
    email: String,
    #[schema(min_length = 8, max_length = 128)]
    password: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PasswordChange {
    current_password: String,
    #[schema(min_length = 8, max_length = 128)]
    new_password: String,
}

/// The caller's session as the page sees it.
#[derive(Serialize, ToSchema)]
struct SessionView {
    account: Account,
    csrf_token: String,
}

type WithCookie<T> = ([(HeaderName, HeaderValue); 1], T);
/// A new session's cookie and what the page gets to know of it.
type SignedInAnswer = WithCookie<axum::Json<SessionView>>;

/// Makes an account and signs it in.
#[utoipa::path(
    post, path = "/api/accounts", tag = "accounts", request_body = Credentials,
    responses(
        (status = 201, body = SessionView),
        (status = 400, body = Problem),
        (status = 403, body = Problem),
        (status = 409, body = Problem),
        (status = 413, body = Problem),
        (status = 415, body = Problem),
        (status = 422, body = Problem)
    )
)]
async fn sign_up(
    State(app): State<App>,
    client: ClientAddress,
    headers: HeaderMap,
    Json(credentials): Json<Credentials>,
) -> Result<(StatusCode, SignedInAnswer), Error> {
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
    app.limits.check(&limits::SIGN_UP, client, Some(email.as_str())).await?;
    let hash = app.passwords.hash(credentials.password).await?;
    // One transaction around both: without a session there is no account either, and trying again
    // later succeeds.
    let mut transaction = app.db.begin().await?;
    let account = queries::insert(&mut *transaction, &email, &hash).await?;
    let (_, session) = start_session(&app, &headers, account).await?;
    end_former(&app, &headers).await?;
    let account_id = session.1.account.id;
    commit(transaction, MADE_OR_NOT, async || {
        queries::was_made(&app.db, account_id, &email, &hash).await
    })
    .await?;
    tracing::info!(account = account_id, "account made");
    Ok((StatusCode::CREATED, session))
}

/// How long the answer may take. Then there is time left to find out, before the request's own deadline.
const COMMIT_DEADLINE: Duration = Duration::from_secs(3);
/// Where the database cannot be asked either.
const MADE_OR_NOT: &str = "The connection to the database broke, so that the account may have been made: try to \
                           sign in, and sign up again if that is refused.";
const CHANGED_OR_NOT: &str = "The connection to the database broke, so that the password may have been changed: \
                              sign in with the new one, or with the old one if that is refused.";

/// Makes a transaction count. Where its connection broke before the answer came, `counts` finds out on another
/// one, because who is told of a failure believes that nothing happened.
async fn commit(
    transaction: Begun,
    unknown: &'static str,
    counts: impl AsyncFnOnce() -> Result<bool, Error>,
) -> Result<(), Error> {
    let committed = db::answered(COMMIT_DEADLINE, transaction.commit()).await;
    let Err(error) = committed else { return Ok(()) };
    if !db::is_unavailable(&error) {
        return Err(error.into());
    }
    match counts().await {
        Ok(true) => {
            tracing::warn!(cause = db::describe(&error), "a write was committed, its answer lost");
            Ok(())
        }
        Ok(false) => Err(error.into()),
        Err(source) => Err(Error::Unknown { detail: unknown, source: source.into() }),
    }
}

/// Signs in. Both ways of being wrong get the same answer after the same work.
#[utoipa::path(
    post, path = "/api/session", tag = "accounts", request_body = Credentials,
    responses(
        (status = 200, body = SessionView),
        (status = 400, body = Problem),
        (status = 401, body = Problem),
        (status = 403, body = Problem),
        (status = 413, body = Problem),
        (status = 415, body = Problem),
        (status = 422, body = Problem)
    )
)]
async fn sign_in(
    State(app): State<App>,
    client: ClientAddress,
    headers: HeaderMap,
    Json(credentials): Json<Credentials>,
) -> Result<SignedInAnswer, Error> {
    let email = Email::parse(&credentials.email).ok();
    app.limits.check(&limits::SIGN_IN, client, email.as_ref().map(Email::as_str)).await?;
    let found = match &email {
        Some(email) => queries::find_by_email(&app.db, email).await?,
        None => None,
    };
    const WRONG: Error = Error::Unauthorized("The e-mail address or the password is wrong.");
    let hash = found.as_ref().map(|(_, hash)| hash.as_str());
    let right = app.passwords.verify(credentials.password, hash).await?;
    app.metrics.signed_in(right);
    let (account, hash) = found.filter(|_| right).ok_or(WRONG)?;
    let account_id = account.id;
    let (id, session) = start_session(&app, &headers, account).await?;
    // The password may have been changed since it was verified, and the sessions ended before
    // this one was made: then it must not live.
    if !queries::still_has_hash(&app.db, account_id, &hash).await? {
        app.sessions.end(id).await?;
        return Err(WRONG);
    }
    end_former(&app, &headers).await?;
    Ok(session)
}

/// A new id at every sign-in; [`end_former`] sees to the one before.
async fn start_session(
    app: &App,
    headers: &HeaderMap,
    account: Account,
) -> Result<(SessionId, SignedInAnswer), Error> {
    let id = app.sessions.create(account.id, headers).await?;
    let cookie = [(header::SET_COOKIE, app.cookies.set(id))];
    Ok((id, (cookie, axum::Json(view(app, id, account)))))
}

/// An id that was known before a sign-in (planted, or left on a shared machine) is worth nothing after it. It ends
/// once there is a new one: where Redis is full or away, whoever tried is signed in as before.
async fn end_former(app: &App, headers: &HeaderMap) -> Result<(), Error> {
    match app.cookies.read(headers) {
        Some(former) => app.sessions.end(former).await,
        None => Ok(()),
    }
}

fn view(app: &App, id: SessionId, account: Account) -> SessionView {
    SessionView { account, csrf_token: app.csrf.issue(id) }
}

/// Who the caller is, and the token that its next unsafe request needs.
#[utoipa::path(
    get, path = "/api/session", tag = "accounts", security(("session" = [])),
    responses(
        (status = 200, body = SessionView),
        (status = 401, body = Problem),
        (status = 403, body = Problem)
    )
)]
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
#[utoipa::path(
    delete, path = "/api/session", tag = "accounts", security(("session" = [], "token" = [])),
    responses(
        (status = 204),
        (status = 401, body = Problem),
        (status = 403, body = Problem)
    )
)]
async fn sign_out(
    State(app): State<App>,
    SignedIn { id, .. }: SignedIn,
) -> Result<WithCookie<StatusCode>, Error> {
    app.sessions.end(id).await?;
    Ok(([(header::SET_COOKIE, app.cookies.clear())], StatusCode::NO_CONTENT))
}

/// Sets a new password, gives this browser a new session and ends all others: whoever knew the old
/// password, or held a cookie, is out.
#[utoipa::path(
    put, path = "/api/account/password", tag = "accounts", request_body = PasswordChange,
    security(("session" = [], "token" = [])),
    responses(
        (status = 200, body = SessionView),
        (status = 400, body = Problem),
        (status = 401, body = Problem),
        (status = 403, body = Problem),
        (status = 409, body = Problem),
        (status = 413, body = Problem),
        (status = 415, body = Problem),
        (status = 422, body = Problem)
    )
)]
async fn change_password(
    State(app): State<App>,
    SignedIn { session, .. }: SignedIn,
    client: ClientAddress,
    headers: HeaderMap,
    Json(change): Json<PasswordChange>,
) -> Result<SignedInAnswer, Error> {
    password::check_length(&change.new_password)
        .map_err(|message| Error::field("new_password", message))?;
    let account = session.account_id.to_string();
    app.limits.check(&limits::CHANGE_PASSWORD, client, Some(&account)).await?;
    let found = queries::find_with_hash(&app.db, session.account_id).await?;
    let (account, old) = found.ok_or(Error::Unauthorized("Sign in first."))?;
    if !app.passwords.verify(change.current_password, Some(&old)).await? {
        return Err(Error::field("current_password", "This is not your password."));
    }
    let new = app.passwords.hash(change.new_password).await?;
    // The new hash counts only if the sessions were really ended. A sign-in that verified the old
    // one meanwhile waits for this transaction, and ends its own session then (`sign_in`).
    let mut transaction = app.db.begin().await?;
    if !queries::replace_hash(&mut *transaction, account.id, &old, &new).await? {
        return Err(Error::Conflict("The password was just changed from elsewhere."));
    }
    let account_id = account.id;
    // The new session first: where none can be made, nobody is signed out.
    let (id, session) = start_session(&app, &headers, account).await?;
    app.sessions.end_all(account_id, Some(id)).await?;
    commit(transaction, CHANGED_OR_NOT, async || {
        queries::still_has_hash(&app.db, account_id, &new).await
    })
    .await?;
    tracing::info!(account = account_id, "password changed");
    Ok(session)
}
