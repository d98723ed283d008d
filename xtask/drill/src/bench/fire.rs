//! One volley of requests: at a fixed rate or at the limit, with what came of it inside the window that
//! counts.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use hdrhistogram::Histogram;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::task::JoinSet;
use tokio::time::sleep;

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
    /// What counts.
    pub(super) window: Duration,
}

/// What came of it.
pub(super) struct Volley<U> {
    /// Of the answers that were right, in microseconds. At a fixed rate from the moment at which the
    /// request was due, so that a late start is not forgiven.
    pub(super) latency: Histogram<u64>,
    pub(super) answers: u64,
    pub(super) errors: u64,
    pub(super) first_error: Option<String>,
    /// How long the window really was.
    pub(super) seconds: f64,
    /// What was read at its beginning and its end.
    pub(super) before: U,
    pub(super) after: U,
}

struct Tally {
    latency: Histogram<u64>,
    errors: u64,
    first_error: Option<String>,
    is_open: bool,
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
        let tally = Tally { latency: histogram(), errors: 0, first_error: None, is_open: false };
        let shooter = Shooter {
            client: self.client,
            requests: Arc::new(self.requests),
            expected: self.expected,
            tally: Arc::new(Mutex::new(tally)),
        };
        let shooting = tokio::spawn(
            match self.load {
                Load::Rate(rate) => Shooting::Open(shooter.clone(), clock(Pace { rate })),
                Load::Limit(connections) => Shooting::Closed(shooter.clone(), connections),
            }
            .run(),
        );
        sleep(self.settle).await;
        let (before, start) = (read()?, Instant::now());
        shooter.with(|tally| tally.is_open = true);
        sleep(self.window).await;
        shooter.with(|tally| tally.is_open = false);
        let (seconds, after) = (start.elapsed().as_secs_f64(), read()?);
        shooting.abort();
        let _ = shooting.await;
        // The aborted requests' connections are closed, and none of them is the next volley's.
        shooter.client.close_idle();
        Ok(shooter.with(|tally| Volley {
            answers: tally.latency.len(),
            latency: std::mem::replace(&mut tally.latency, histogram()),
            errors: tally.errors,
            first_error: tally.first_error.take(),
            seconds,
            before,
            after,
        }))
    }
}

enum Shooting {
    Open(Shooter, UnboundedReceiver<(u64, Instant)>),
    Closed(Shooter, usize),
}

impl Shooting {
    /// Never ends by itself. The tasks end with it.
    async fn run(self) {
        let mut running = JoinSet::new();
        match self {
            Shooting::Closed(shooter, connections) => {
                for first in 0..connections {
                    let shooter = shooter.clone();
                    running.spawn(async move {
                        for number in (first as u64..).step_by(connections) {
                            shooter.shoot(number, Instant::now()).await;
                        }
                    });
                }
                while running.join_next().await.is_some() {}
            }
            Shooting::Open(shooter, mut clock) => {
                while let Some((number, due)) = clock.recv().await {
                    while running.try_join_next().is_some() {}
                    if running.len() >= MOST {
                        shooter.failed(format!("{MOST} requests wait for their answers"));
                        continue;
                    }
                    let shooter = shooter.clone();
                    running.spawn(async move { shooter.shoot(number, due).await });
                }
            }
        }
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
        let index = number as usize % self.requests.len();
        let answer = self.client.send(self.requests[index].clone()).await;
        let took = due.elapsed();
        match wrong(self.expected, &answer) {
            None => self.with(|tally| {
                if tally.is_open {
                    let micros = u64::try_from(took.as_micros()).unwrap_or(LONGEST);
                    tally.latency.saturating_record(micros);
                }
            }),
            Some(reason) => self.failed(reason),
        }
    }

    /// An error counts outside the window too: there shall be none at all.
    fn failed(&self, reason: String) {
        self.with(|tally| {
            tally.errors += 1;
            tally.first_error.get_or_insert(reason);
        });
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
