//! One volley of requests: at a fixed rate or at the limit, with what came of those that were due inside the
//! window that counts. Each of them counts, however late its answer is: whoever left out what is still on
//! its way at the end would leave out the slowest.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::meter::Usage;
use crate::load::{Answer, Client, Failure, Pace, Request};

/// Who cannot keep up is not buried: more requests than this are never on their way at the same
/// time, and what would have been one more is an error.
const MOST: usize = 512;
/// The longest latency that is told apart, in microseconds.
const LONGEST: u64 = 60_000_000;

/// How much is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Load {
    /// So many requests a second, whether or not earlier ones were answered.
    Rate(u32),
    /// On so many connections, each of which asks again when it has its answer.
    Limit(usize),
}

/// A volley that is still to be fired.
pub(super) struct Fire {
    pub(super) client: Client,
    /// Asked in turn.
    pub(super) requests: Vec<Request>,
    pub(super) expected: u16,
    pub(super) load: Load,
    /// Before anything counts.
    pub(super) settle: Duration,
    /// What counts: the requests that are due within it.
    pub(super) window: Duration,
    /// How long after it their answers are waited for.
    pub(super) drain: Duration,
}

/// What came of it.
pub(super) struct Volley<U> {
    /// Of the answers that were right, in microseconds. At a fixed rate from the moment at which the
    /// request was due, so that a late start is not forgiven. Also how old those were that had no answer
    /// when they were given up: they would have taken longer still.
    pub(super) latency: Histogram<u64>,
    /// How many were right.
    pub(super) answers: u64,
    /// The same, for each second.
    pub(super) rate: f64,
    pub(super) errors: u64,
    pub(super) first_error: Option<String>,
    /// What was read at the window's beginning and at its end, and the seconds between.
    pub(super) seconds: f64,
    pub(super) before: U,
    pub(super) after: U,
}

struct Tally {
    latency: Histogram<u64>,
    answers: u64,
    errors: u64,
    first_error: Option<String>,
    /// None while nothing counts yet.
    window: Option<Range<Instant>>,
    /// Since when those are due that have no answer yet.
    waiting: BTreeMap<u64, Instant>,
}

impl Tally {
    fn new() -> Tally {
        Tally {
            latency: histogram(),
            answers: 0,
            errors: 0,
            first_error: None,
            window: None,
            waiting: BTreeMap::new(),
        }
    }

    fn counts(&self, due: Instant) -> bool {
        self.window.as_ref().is_some_and(|window| window.contains(&due))
    }

    fn is_over(&self, now: Instant) -> bool {
        self.window.as_ref().is_some_and(|window| window.end <= now)
    }

    fn record(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(LONGEST);
        self.latency.saturating_record(micros);
    }

    fn failed(&mut self, reason: String) {
        self.errors += 1;
        self.first_error.get_or_insert(reason);
    }

    /// What has no answer yet gets none any more.
    fn give_up(&mut self) {
        for (_, due) in std::mem::take(&mut self.waiting) {
            if self.counts(due) {
                let age = due.elapsed();
                self.record(age);
                self.failed(format!("no answer after {:.1} s", age.as_secs_f64()));
            }
        }
    }
}

#[derive(Clone)]
struct Shooter {
    client: Client,
    requests: Arc<Vec<Request>>,
    expected: u16,
    tally: Arc<Mutex<Tally>>,
}

/// Three digits are exact.
pub(super) fn histogram() -> Histogram<u64> {
    let mut histogram = Histogram::new_with_bounds(1, LONGEST, 3)
        .unwrap_or_else(|_| unreachable!("the bounds are constants that fit"));
    histogram.auto(false);
    histogram
}

impl Fire {
    /// Fires, and reads whatever `read` reads at both ends of the window.
    pub(super) async fn run<U>(self, read: impl Fn() -> Result<U>) -> Result<Volley<U>> {
        let shooter = Shooter {
            client: self.client,
            requests: Arc::new(self.requests),
            expected: self.expected,
            tally: Arc::new(Mutex::new(Tally::new())),
        };
        let mut shooting = tokio::spawn(
            match self.load {
                Load::Rate(rate) => Shooting::Open(shooter.clone(), clock(Pace { rate })),
                Load::Limit(connections) => Shooting::Closed(shooter.clone(), connections),
            }
            .run(),
        );
        sleep(self.settle).await;
        let (before, start) = (read()?, Instant::now());
        shooter.with(|tally| tally.window = Some(start..start + self.window));
        sleep(self.window).await;
        let (seconds, after) = (start.elapsed().as_secs_f64(), read()?);
        if timeout(self.drain, &mut shooting).await.is_err() {
            shooting.abort();
            let _ = shooting.await;
        }
        // The aborted requests' connections are closed, and none of them is the next volley's.
        shooter.client.close_idle();
        Ok(shooter.with(|tally| {
            tally.give_up();
            Volley {
                answers: tally.answers,
                rate: tally.answers as f64 / self.window.as_secs_f64(),
                latency: std::mem::replace(&mut tally.latency, histogram()),
                errors: tally.errors,
                first_error: tally.first_error.take(),
                seconds,
                before,
                after,
            }
        }))
    }
}

enum Shooting {
    Open(Shooter, UnboundedReceiver<(u64, Instant)>),
    Closed(Shooter, usize),
}

impl Shooting {
    /// Ends when the window is over and everything is answered. The tasks end with it.
    async fn run(self) {
        let mut running = JoinSet::new();
        match self {
            Shooting::Closed(shooter, connections) => {
                for first in 0..connections {
                    let shooter = shooter.clone();
                    running.spawn(async move {
                        for number in (first as u64..).step_by(connections) {
                            let now = Instant::now();
                            if shooter.with(|tally| tally.is_over(now)) {
                                return;
                            }
                            shooter.shoot(number, now).await;
                        }
                    });
                }
            }
            Shooting::Open(shooter, mut clock) => {
                while let Some((number, due)) = clock.recv().await {
                    while running.try_join_next().is_some() {}
                    if shooter.with(|tally| tally.is_over(due)) {
                        break;
                    }
                    if running.len() >= MOST {
                        shooter.failed(format!("{MOST} requests wait for their answers"));
                        continue;
                    }
                    let shooter = shooter.clone();
                    running.spawn(async move { shooter.shoot(number, due).await });
                }
            }
        }
        while running.join_next().await.is_some() {}
    }
}

/// A thread that says when the next request is due. The runtime's own timers are as coarse as a
/// millisecond, which is longer than most answers take. It ends with whoever listens.
fn clock(pace: Pace) -> UnboundedReceiver<(u64, Instant)> {
    let (sender, receiver) = mpsc::unbounded_channel();
    thread::spawn(move || {
        let start = Instant::now();
        for number in 0.. {
            let due = start + pace.due(number);
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if sender.send((number, due)).is_err() {
                return;
            }
        }
    });
    receiver
}

impl Shooter {
    async fn shoot(&self, number: u64, due: Instant) {
        self.with(|tally| tally.waiting.insert(number, due));
        let index = number as usize % self.requests.len();
        let answer = self.client.send(self.requests[index].clone()).await;
        let took = due.elapsed();
        self.with(|tally| {
            tally.waiting.remove(&number);
            match wrong(self.expected, &answer) {
                None if tally.counts(due) => {
                    tally.answers += 1;
                    tally.record(took);
                }
                None => {}
                // An error counts outside the window too: there shall be none at all.
                Some(reason) => tally.failed(reason),
            }
        });
    }

    fn failed(&self, reason: String) {
        self.with(|tally| tally.failed(reason));
    }

    fn with<T>(&self, act: impl FnOnce(&mut Tally) -> T) -> T {
        act(&mut self.tally.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What is wrong with an answer, beginning with its status.
fn wrong(expected: u16, answer: &Result<Answer, Failure>) -> Option<String> {
    match answer {
        Ok(answer) if answer.status == expected => None,
        Ok(answer) => {
            let body: String = String::from_utf8_lossy(&answer.body).chars().take(200).collect();
            Some(format!("{} instead of {expected}: {body}", answer.status))
        }
        Err(failure) => Some(failure.to_string()),
    }
}

/// What the volleys of a benchmark read: processor times.
impl Volley<Usage> {
    /// Shares of one processor.
    pub(super) fn shares(&self) -> [f64; 5] {
        let mut shares = [0.0; 5];
        for (share, (from, to)) in shares.iter_mut().zip(self.before.iter().zip(&self.after)) {
            *share = to.saturating_sub(*from).as_secs_f64() / self.seconds;
        }
        shares
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const WINDOW: Duration = Duration::from_millis(500);

    /// Answers each request after a while, or never.
    async fn server(delay: Option<Duration>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut buffer = [0; 1024];
                    // A request is small enough to come in one piece.
                    while matches!(stream.read(&mut buffer).await, Ok(1..)) {
                        match delay {
                            Some(delay) => sleep(delay).await,
                            None => std::future::pending().await,
                        }
                        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
                        stream.write_all(answer).await.unwrap();
                    }
                });
            }
        });
        format!("http://{address}")
    }

    async fn volley(delay: Option<Duration>, load: Load, drain: Duration) -> Volley<()> {
        let client = Client::new(&server(delay).await, None, Duration::from_secs(60)).unwrap();
        let (requests, settle) = (vec![Request::get("/")], Duration::from_millis(100));
        let fire = Fire { client, requests, expected: 200, load, settle, window: WINDOW, drain };
        fire.run(|| Ok(())).await.unwrap()
    }

    #[tokio::test]
    async fn an_answer_after_the_window_counts_if_its_request_was_due_within() {
        let delay = Duration::from_millis(400);
        let volley = volley(Some(delay), Load::Rate(100), Duration::from_secs(60)).await;
        assert!((49..=51).contains(&volley.answers), "{} answers", volley.answers);
        assert_eq!(volley.latency.len(), volley.answers);
        assert!((volley.rate - 2.0 * volley.answers as f64).abs() < 1e-9);
        assert_eq!(volley.errors, 0);
    }

    #[tokio::test]
    async fn what_is_never_answered_counts_with_its_age() {
        let drain = Duration::from_millis(200);
        let volley = volley(None, Load::Rate(100), drain).await;
        assert_eq!(volley.answers, 0);
        assert!((49..=51).contains(&volley.errors), "{} errors", volley.errors);
        assert_eq!(volley.latency.len(), volley.errors);
        // Within the three digits that are exact.
        assert!(volley.latency.min() >= 198_000, "{} µs", volley.latency.min());
        assert!(volley.first_error.unwrap().starts_with("no answer after"));
    }

    #[tokio::test]
    async fn at_the_limit_a_volley_ends_when_everything_is_answered() {
        let (delay, drain) = (Duration::from_millis(100), Duration::from_secs(3600));
        let volley = volley(Some(delay), Load::Limit(4), drain).await;
        assert!(volley.answers <= 4 * 5, "{} answers", volley.answers);
        assert_eq!(volley.latency.len(), volley.answers);
        assert_eq!(volley.errors, 0);
    }
}
