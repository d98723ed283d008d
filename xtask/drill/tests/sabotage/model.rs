//! A backend in memory that keeps the stack's contract, and on request breaks it: it acknowledges
//! writes and drops, duplicates or delays them. What the checker says about it is the test.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, COOKIE, RETRY_AFTER, SET_COOKIE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// What is done to acknowledged writes. The number is how often: to one in so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sabotage {
    /// Nothing: the contract is kept.
    None,
    /// Answered with 201 and thrown away.
    Drop(usize),
    /// Kept twice.
    Duplicate(usize),
    /// Kept; but the answer is lost, and the same request again is kept once more.
    ForgetKey(usize),
    /// Answered with 201 and kept a second later.
    Delay(usize),
    /// Kept and answered with 201, a good while later.
    Stall(usize),
    /// Kept without the end of its text.
    Truncate(usize),
    /// Kept in somebody else's list.
    Misplace(usize),
    /// The second page of every list leads on to itself.
    RepeatPage,
    /// Every session of one moment is forgotten.
    ForgetSessions,
    /// Signing out is answered with 204, and the session goes on working.
    KeepSessions,
    /// Whether a session works is answered with 503; one write in so many is thrown away.
    HideSessions(usize),
}

/// How long a stalled answer is held back.
const STALL: Duration = Duration::from_secs(3);

#[derive(Default)]
struct State {
    /// By cookie: whose it is.
    sessions: BTreeMap<String, String>,
    /// By person, oldest first.
    texts: BTreeMap<String, Vec<String>>,
    /// Person and key of what was written.
    keys: BTreeSet<(String, String)>,
    writes: usize,
    cookies: usize,
}

/// The backend.
#[derive(Clone)]
pub(crate) struct Model {
    sabotage: Sabotage,
    state: Arc<Mutex<State>>,
}

type Answer = Response<Full<Bytes>>;

impl Model {
    /// Starts it on a free port.
    pub(crate) async fn start(sabotage: Sabotage) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let model = Model { sabotage, state: Arc::default() };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let model = model.clone();
                let service = service_fn(move |request| {
                    let model = model.clone();
                    async move { Ok::<_, Infallible>(model.answer(request).await) }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        address
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let header = |name: &str| {
            let value = request.headers().get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let (cookie, key) = (header(COOKIE.as_str()), header("idempotency-key"));
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let before = before(request.uri().query().unwrap_or_default());
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        match (method, path.as_str()) {
            (Method::GET, "/about") => answer(200, &json!({})),
            (Method::POST, "/api/accounts") => self.sign_in(201, text("email")),
            (Method::POST, "/api/session") => self.sign_in(200, text("email")),
            (method, path) => {
                let person = self.state().sessions.get(&cookie).cloned();
                let Some(person) = person else { return answer(401, &json!({})) };
                match (method, path) {
                    (Method::GET, "/api/session") if self.hides_sessions() => unavailable(),
                    (Method::DELETE, "/api/session") => self.sign_out(&cookie),
                    (Method::GET, "/api/session") => {
                        answer(200, &json!({ "csrf_token": token(&cookie) }))
                    }
                    (Method::GET, "/api/notes") => self.list(&person, before),
                    (Method::POST, "/api/notes") => {
                        let (answer, delay) = self.write(&person, key, text("text"));
                        tokio::time::sleep(delay).await;
                        answer
                    }
                    _ => answer(404, &json!({})),
                }
            }
        }
    }

    fn sign_in(&self, status: u16, email: String) -> Answer {
        let mut state = self.state();
        state.cookies += 1;
        if self.sabotage == Sabotage::ForgetSessions && state.cookies == 17 {
            state.sessions.clear();
        }
        let cookie = format!("session=cookie-{}", state.cookies);
        state.sessions.insert(cookie.clone(), email);
        let mut answer = answer(status, &json!({ "csrf_token": token(&cookie) }));
        answer.headers_mut().insert(SET_COOKIE, cookie.parse().unwrap());
        answer
    }

    fn hides_sessions(&self) -> bool {
        matches!(self.sabotage, Sabotage::HideSessions(_))
    }

    fn sign_out(&self, cookie: &str) -> Answer {
        if self.sabotage != Sabotage::KeepSessions {
            self.state().sessions.remove(cookie);
        }
        answer(204, &Value::Null)
    }

    /// Pages of fifteen, so that the checker has to turn them; nobody writes as many while they are read back.
    fn list(&self, person: &str, before: usize) -> Answer {
        let state = self.state();
        let texts = state.texts.get(person).map(Vec::as_slice).unwrap_or_default();
        let until = before.min(texts.len());
        let from = until.saturating_sub(15);
        let page = (from..until).rev().map(|id| json!({ "id": id, "text": texts[id] }));
        let page: Vec<Value> = page.collect();
        let next = match from {
            _ if self.sabotage == Sabotage::RepeatPage && before <= texts.len() => json!(before),
            0 => Value::Null,
            _ => json!(from),
        };
        answer(200, &json!({ "notes": page, "next_before": next }))
    }

    /// The answer, and how long it is held back.
    fn write(&self, person: &str, key: String, text: String) -> (Answer, Duration) {
        let state = &mut *self.state();
        state.writes += 1;
        let number = state.writes;
        let is_turn = |every: usize| number % every == every - 1;
        let known = state.keys.contains(&(person.to_owned(), key.clone()));
        let mut keep = |whose: &str, text: String| {
            state.texts.entry(whose.to_owned()).or_default().push(text);
        };
        let mut delay = Duration::ZERO;
        match self.sabotage {
            _ if known => return (answer(201, &json!({})), delay),
            Sabotage::Drop(every) | Sabotage::HideSessions(every) if is_turn(every) => {}
            Sabotage::Duplicate(every) if is_turn(every) => {
                keep(person, text.clone());
                keep(person, text);
            }
            Sabotage::ForgetKey(every) if is_turn(every) => {
                keep(person, text);
                return (unavailable(), delay);
            }
            Sabotage::Delay(every) if is_turn(every) => {
                let (model, person) = (self.clone(), person.to_owned());
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    model.state().texts.entry(person).or_default().push(text);
                });
            }
            Sabotage::Truncate(every) if is_turn(every) => {
                keep(person, text[..text.len() - 1].to_owned());
            }
            Sabotage::Stall(every) if is_turn(every) => {
                keep(person, text);
                delay = STALL;
            }
            Sabotage::Misplace(every) if is_turn(every) => keep("somebody else", text),
            _ => keep(person, text),
        }
        state.keys.insert((person.to_owned(), key));
        (answer(201, &json!({})), delay)
    }
}

fn before(query: &str) -> usize {
    let value = query.split('&').find_map(|pair| pair.strip_prefix("before="));
    value.and_then(|value| value.parse().ok()).unwrap_or(usize::MAX)
}

fn token(cookie: &str) -> String {
    format!("token of {cookie}")
}

fn answer(status: u16, body: &Value) -> Answer {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    Response::builder().status(status).body(Full::new(Bytes::from(body))).unwrap()
}

fn unavailable() -> Answer {
    let problem = json!({
        "type": "about:blank", "title": "Service Unavailable", "status": 503,
        "detail": "The answer was lost.", "request_id": "0",
    });
    let mut answer = answer(503, &problem);
    answer.headers_mut().insert(CONTENT_TYPE, "application/problem+json".parse().unwrap());
    answer.headers_mut().insert(RETRY_AFTER, "1".parse().unwrap());
    answer
}
