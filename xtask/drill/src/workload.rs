//! The workload: people who sign up, sign in, write under idempotency keys and read them back,
//! through nginx, at a constant rate. It keeps its own log of what was acknowledged ([`Journal`]).

mod answers;
mod domain;
mod journal;
mod schedule;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hyper::header::{COOKIE, HeaderName, SET_COOKIE};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

pub use answers::judge;
pub use domain::{FILL, create, newest, next, page, texts};
pub use journal::{Journal, Outcome, Person, Sample, Session, Standing, State, Write, Written};
pub use schedule::{Op, PEOPLE, Schedule, seed_of_case};

use crate::load::{Answer, Client, Failure, Pace, Request, run_open_loop};

/// How often a write that was not acknowledged is sent again, and the pauses before.
const RETRIES: [Duration; 4] = [
    Duration::from_millis(300),
    Duration::from_millis(700),
    Duration::from_millis(1500),
    Duration::from_secs(3),
];
/// The longest that the last requests are waited for: the retries, each up to the client's limit.
const PATIENCE: Duration = Duration::from_secs(120);
const CSRF: HeaderName = HeaderName::from_static("x-csrf-token");

/// The workload on one stack. Cloning it shares the connections and the journal.
#[derive(Clone)]
pub struct Workload {
    client: Client,
    /// What was seen.
    pub journal: Journal,
    run: Instant,
    case: Instant,
    prefix: String,
}

impl Workload {
    /// A workload without people, for the stack that `client` reaches.
    pub fn new(client: Client) -> Workload {
        let now = Instant::now();
        Workload { client, journal: Journal::default(), run: now, case: now, prefix: String::new() }
    }

    /// The same workload for a new case: times count from now, keys begin with `prefix`.
    #[must_use]
    pub fn for_case(&self, prefix: String) -> Workload {
        self.journal.begin();
        Workload { case: Instant::now(), prefix, ..self.clone() }
    }

    /// The same workload through another client (another way to the same stack).
    #[must_use]
    pub fn through(&self, client: Client) -> Workload {
        Workload { client, ..self.clone() }
    }

    /// The client.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Seconds since the case began.
    pub fn now(&self) -> f64 {
        self.case.elapsed().as_secs_f64()
    }

    /// Seconds since the run began.
    pub fn run_now(&self) -> f64 {
        self.run.elapsed().as_secs_f64()
    }

    /// Signs the first people up.
    ///
    /// # Errors
    /// One of them gets no account.
    pub async fn populate(&self, seed: u64) -> Result<()> {
        for number in 0..PEOPLE {
            let email = format!("drill-{seed:x}-{number}@example.com");
            let answer = self.sign_up(email.clone()).await;
            let answer = answer.map_err(|failure| anyhow::anyhow!("{failure}"))?;
            ensure!(
                answer.status == 201,
                "sign {email} up: {} {}",
                answer.status,
                String::from_utf8_lossy(&answer.body)
            );
        }
        Ok(())
    }

    /// Signs everybody in once more, so that each has a session that nobody uses and that can be signed out.
    pub async fn sign_everybody_in(&self) {
        for person in 0..PEOPLE {
            self.sign_in_once(person).await;
        }
    }

    /// Runs the schedule until `stop` turns true, and waits for the last answers. Fails if some
    /// never end.
    pub async fn run(
        &self,
        pace: Pace,
        schedule: Schedule,
        stop: watch::Receiver<bool>,
    ) -> Result<()> {
        let left =
            run_open_loop(pace, schedule_with_numbers(schedule), stop, PATIENCE, |job, due| {
                let workload = self.clone();
                let (number, op) = job;
                async move { workload.carry_out(number, op, due).await }
            })
            .await;
        ensure!(left == 0, "{left} requests did not end within {} s", PATIENCE.as_secs());
        Ok(())
    }

    /// One read, outside the schedule.
    pub async fn list_once(&self, person: usize) {
        let request = self.signed(person, domain::newest());
        self.timed("read list", 200, request, Instant::now()).await.ok();
    }

    /// One write, outside the schedule; whether it was acknowledged.
    pub async fn write_once(&self, person: usize, name: &str) -> bool {
        let key = format!("{}-{name}", self.prefix);
        self.write(person, &key, 0, false, false, Instant::now()).await
    }

    /// One sign-in, outside the schedule.
    pub async fn sign_in_once(&self, person: usize) {
        self.sign_in(person, Instant::now()).await;
    }

    /// One sign-out, outside the schedule: of this person, or of the next one who has a session to spare.
    pub async fn sign_out_once(&self, person: usize) {
        for turn in 0..PEOPLE {
            if self.sign_out((person + turn) % PEOPLE, Instant::now()).await {
                return;
            }
        }
    }

    /// The e-mail address of somebody.
    pub fn email_of(&self, person: usize) -> String {
        self.journal
            .state()
            .people
            .get(person)
            .map(|person| person.email.clone())
            .unwrap_or_default()
    }

    async fn carry_out(&self, number: u64, op: Op, due: Instant) {
        match op {
            Op::Write { person, retry, read_back, length } => {
                let key = format!("{}-{number}", self.prefix);
                self.write(person, &key, length, retry, read_back, due).await;
            }
            Op::List { person } => {
                let request = self.signed(person, domain::newest());
                self.timed("read list", 200, request, due).await.ok();
            }
            Op::WhoAmI { person } => {
                let request = self.signed(person, Request::get("/api/session"));
                self.timed("read session", 200, request, due).await.ok();
            }
            Op::Page => {
                self.timed("read page", 200, Request::get("/about"), due).await.ok();
            }
            Op::SignIn { person } => self.sign_in(person, due).await,
            Op::SignOut { person } => {
                self.sign_out(person, due).await;
            }
            Op::SignUp => {
                let email = format!("{}-{number}@example.com", self.prefix);
                let request = Request::post("/api/accounts", &credentials_of(&email));
                if let Ok(answer) = self.timed("sign up", 201, request, due).await {
                    self.keep_person(email, &answer);
                }
            }
        }
    }

    async fn sign_in(&self, person: usize, due: Instant) {
        let Some(credentials) = self.credentials(person) else { return };
        let request = Request::post("/api/session", &credentials);
        if let Ok(answer) = self.timed("sign in", 200, request, due).await {
            self.keep_session(person, &answer);
        }
    }

    /// Signs one out that nobody uses any more; false if this person has none.
    async fn sign_out(&self, person: usize, due: Instant) -> bool {
        let began = (self.case - self.run).as_secs_f64();
        let Some(session) = self.journal.leaving(person, began) else { return false };
        let request = sign(Request::delete("/api/session"), &session);
        if self.timed("sign out", 204, request, due).await.is_ok() {
            self.journal.signed_out(&session.cookie);
        }
        true
    }

    async fn write(
        &self,
        person: usize,
        key: &str,
        length: usize,
        retry: bool,
        read_back: bool,
        due: Instant,
    ) -> bool {
        let text = text_of(key, length);
        self.journal.sending(key, person, &text);
        let request = self.signed(person, domain::write(key, &text));
        let pauses: &[Duration] = if retry { &RETRIES } else { &[] };
        let mut due = due;
        let mut pauses = pauses.iter();
        loop {
            if self.timed("write", 201, request.clone(), due).await.is_ok() {
                self.journal.acknowledged(key);
                if read_back {
                    self.read_back(person, key, &text).await;
                }
                return true;
            }
            let Some(pause) = pauses.next() else { return false };
            sleep(*pause).await;
            due = Instant::now();
        }
    }

    /// What was acknowledged is seen by whoever asks next.
    async fn read_back(&self, person: usize, key: &str, written: &str) {
        let request = self.signed(person, domain::page(None));
        let Ok(answer) = self.timed("read back", 200, request, Instant::now()).await else {
            return;
        };
        if !texts(&answer.json()).any(|text| text == written) {
            self.journal.state().stale.push(key.to_owned());
        }
    }

    /// Sends one request and records how it ended; the answer only if it is the expected one.
    async fn timed(
        &self,
        what: &'static str,
        expected: u16,
        request: Request,
        due: Instant,
    ) -> Result<Answer, Outcome> {
        let at = |instant: Instant| instant.saturating_duration_since(self.case).as_secs_f64();
        let sent = self.now();
        let answer = self.client.send(request).await;
        let outcome = judge(expected, &answer);
        let (due, done) = (at(due), self.now());
        self.journal.add(Sample { what, due, sent, done, outcome: outcome.clone() });
        answer.ok().filter(|_| outcome.is_fine()).ok_or(outcome)
    }

    fn signed(&self, person: usize, request: Request) -> Request {
        match self.journal.session_of(person) {
            Some(session) => sign(request, &session),
            None => request,
        }
    }

    fn credentials(&self, person: usize) -> Option<Value> {
        let state = self.journal.state();
        let person = state.people.get(person)?;
        Some(json!({ "email": person.email, "password": person.password }))
    }

    async fn sign_up(&self, email: String) -> Result<Answer, Failure> {
        let request = Request::post("/api/accounts", &credentials_of(&email));
        let answer = self.client.send(request).await?;
        if answer.status == 201 {
            self.keep_person(email, &answer);
        }
        Ok(answer)
    }

    fn keep_person(&self, email: String, answer: &Answer) {
        let person = Person { password: password_of(&email), email };
        let number = {
            let mut state = self.journal.state();
            state.people.push(person);
            state.people.len() - 1
        };
        self.keep_session(number, answer);
    }

    fn keep_session(&self, person: usize, answer: &Answer) {
        if let Ok(session) = session(person, answer, self.run_now()) {
            self.journal.state().sessions.push(session);
        }
    }
}

fn schedule_with_numbers(schedule: Schedule) -> impl Iterator<Item = (u64, (u64, Op))> {
    schedule.map(|(number, op)| (number, (number, op)))
}

/// A request of somebody who is signed in.
#[must_use]
pub fn sign(request: Request, session: &Session) -> Request {
    request.header(COOKIE, &session.cookie).header(CSRF, &session.token)
}

/// The key, and so many characters that no other key has: a piece of another text is none of this one.
fn text_of(key: &str, length: usize) -> String {
    let rest: String = key.chars().cycle().take(length).collect();
    format!("{key} {rest}").trim_end().to_owned()
}

/// Never used for anything but the drill; it must not be in a log all the same.
fn password_of(email: &str) -> String {
    format!("swordfish {email}")
}

fn credentials_of(email: &str) -> Value {
    json!({ "email": email, "password": password_of(email) })
}

fn session(person: usize, answer: &Answer, since: f64) -> Result<Session> {
    let cookie = answer.headers.get(SET_COOKIE).and_then(|value| value.to_str().ok());
    let cookie = cookie.and_then(|value| value.split(';').next()).context("find the cookie")?;
    let token = answer.json()["csrf_token"].as_str().context("find the token")?.to_owned();
    Ok(Session { person, cookie: cookie.to_owned(), token, since, standing: Standing::Open })
}
