//! The drill's own log, kept outside the stack: what was acknowledged, what may have happened, and
//! how every request ended.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What is known of a write from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// Answered with 201: it must be there once.
    Acknowledged,
    /// Sent, and not answered with 201: it may be there once.
    Unknown,
}

/// One write, by whoever sends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Who.
    pub person: usize,
    /// The whole text, whose first word is its key.
    pub text: String,
    /// What is known of it.
    pub write: Write,
}

/// What is known of a session from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Given out: it must work.
    Open,
    /// A sign-out was sent, and not answered with 204: it may work.
    Leaving,
    /// The sign-out was answered with 204: it must not work.
    Ended,
}

/// A session that was given out.
#[derive(Clone, Debug)]
pub struct Session {
    /// Whose.
    pub person: usize,
    /// The cookie, as it is sent back.
    pub cookie: String,
    /// The token of unsafe requests.
    pub token: String,
    /// Seconds since the start of the run at which the answer came.
    pub since: f64,
    /// What must be true of it.
    pub standing: Standing,
}

/// Somebody with an account.
#[derive(Clone, Debug)]
pub struct Person {
    /// The e-mail address.
    pub email: String,
    /// The password.
    pub password: String,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it should.
    Fine,
    /// 502, 503 or 504; with what is wrong with its form, if something is.
    Unavailable {
        /// The status.
        status: u16,
        /// What RFC 9457 or the stack's own rule asks for and is not there.
        malformed: Option<String>,
    },
    /// No answer at all.
    NoAnswer(String),
    /// An answer that no fault explains.
    Wrong(String),
}

impl Outcome {
    /// Whether the request did what it was sent for.
    pub fn is_fine(&self) -> bool {
        *self == Outcome::Fine
    }
}

/// One request.
#[derive(Clone, Debug)]
pub struct Sample {
    /// What was asked.
    pub what: &'static str,
    /// When it was due, in seconds since the case began.
    pub due: f64,
    /// When it was sent.
    pub sent: f64,
    /// When the answer was there, or the request was given up.
    pub done: f64,
    /// How it ended.
    pub outcome: Outcome,
}

/// Everything that was seen so far. Cloning shares it.
#[derive(Clone, Default)]
pub struct Journal(Arc<Mutex<State>>);

/// What the journal holds.
#[derive(Default)]
pub struct State {
    /// Everybody who has an account.
    pub people: Vec<Person>,
    /// Every session that was given out.
    pub sessions: Vec<Session>,
    /// Every write of the run, by its key.
    pub writes: BTreeMap<String, Written>,
    /// Every request of the running case.
    pub samples: Vec<Sample>,
    /// Keys that were acknowledged and not in the list that was asked for afterwards, as they were written.
    pub stale: Vec<String>,
}

impl State {
    /// The newest session of somebody that must work.
    pub fn session_of(&self, person: usize) -> Option<&Session> {
        let works = |session: &&Session| session.standing == Standing::Open;
        self.sessions.iter().filter(works).rfind(|session| session.person == person)
    }
}

impl Journal {
    /// The state, for as long as the guard lives.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of everything but the samples.
    pub fn snapshot(&self) -> State {
        let state = self.state();
        State {
            people: state.people.clone(),
            sessions: state.sessions.clone(),
            writes: state.writes.clone(),
            samples: Vec::new(),
            stale: state.stale.clone(),
        }
    }

    /// Records that a write is about to be sent.
    pub fn sending(&self, key: &str, person: usize, text: &str) {
        let written = Written { person, text: text.to_owned(), write: Write::Unknown };
        self.state().writes.entry(key.to_owned()).or_insert(written);
    }

    /// Records that a write was answered with 201.
    pub fn acknowledged(&self, key: &str) {
        if let Some(written) = self.state().writes.get_mut(key) {
            written.write = Write::Acknowledged;
        }
    }

    /// The newest session of somebody that must work.
    pub fn session_of(&self, person: usize) -> Option<Session> {
        self.state().session_of(person).cloned()
    }

    /// Records that the oldest session of somebody is about to be signed out, and returns it. It must be one
    /// that no request can meet in its end: every request takes the newest, and this one was not the newest
    /// any more at `began`, before which all earlier requests were answered.
    pub fn leaving(&self, person: usize, began: f64) -> Option<Session> {
        let mut state = self.state();
        let is_theirs = |session: &&mut Session| {
            let is_open = session.standing == Standing::Open;
            session.person == person && is_open && session.since < began
        };
        let mut open = state.sessions.iter_mut().filter(is_theirs);
        let (oldest, _newer) = (open.next()?, open.next()?);
        oldest.standing = Standing::Leaving;
        Some(oldest.clone())
    }

    /// Records that a session was answered with 204 to its sign-out.
    pub fn signed_out(&self, cookie: &str) {
        let mut state = self.state();
        let session = state.sessions.iter_mut().rfind(|session| session.cookie == cookie);
        if let Some(session) = session {
            session.standing = Standing::Ended;
        }
    }

    /// Adds one request to the running case.
    pub fn add(&self, sample: Sample) {
        self.state().samples.push(sample);
    }

    /// Begins a case: takes the samples of the one before away.
    pub fn begin(&self) -> Vec<Sample> {
        let mut state = self.state();
        state.stale.clear();
        std::mem::take(&mut state.samples)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_session_that_no_request_uses_is_signed_out() {
        let journal = Journal::default();
        for (person, since) in [(0, 1.0), (1, 1.0), (0, 2.0), (0, 9.0)] {
            let (cookie, token) = (format!("{person} {since}"), String::new());
            let session = Session { person, cookie, token, since, standing: Standing::Open };
            journal.state().sessions.push(session);
        }
        assert!(journal.leaving(1, 5.0).is_none(), "it is the only one");
        let leaving = journal.leaving(0, 5.0).unwrap();
        assert_eq!(leaving.cookie, "0 1");
        assert!(journal.leaving(0, 5.0).is_none(), "the other one was the newest at that moment");
        journal.signed_out(&leaving.cookie);
        let standing: Vec<Standing> =
            journal.state().sessions.iter().map(|session| session.standing).collect();
        assert_eq!(standing, [Standing::Ended, Standing::Open, Standing::Open, Standing::Open]);
        assert_eq!(journal.session_of(0).unwrap().cookie, "0 9");
    }
}
