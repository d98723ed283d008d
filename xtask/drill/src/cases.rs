//! The faults: each a named case with its bound, and a function that makes the fault, holds it and
//! takes it away. Guards put right what a case has done, however it ends.

mod crowd;
mod damage;
mod exhaust;
mod kill;
mod log;
mod machine;
mod memory;
mod network;
mod operate;
mod pause;
mod restart;
mod space;
mod table;

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep};

pub use self::table::CASES;
use crate::arena::Arena;
use crate::docker::run;
use crate::proxy::Proxy;
use crate::root::Root;
use crate::stack::Stack;
use crate::workload::Workload;

/// The longest verb: a backup that is proven by a restore.
const XTASK_LIMIT: Duration = Duration::from_secs(120);

/// The longest that anybody waits where nothing is broken any more, and where a part that is broken is
/// told from one that works. Above the longest that the backend waits for a connection to PostgreSQL and
/// for Redis (1.5 s each).
pub const FAST: Duration = Duration::from_secs(4);

/// Which errors a case explains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errors {
    /// None: nobody outside may notice anything.
    None,
    /// 502, 503 and 504, well-formed and fast.
    Honest,
    /// Also connections without an answer: where nginx itself is hit, nobody is left to answer.
    AlsoNoAnswer,
}

/// What a case promises.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// Which errors are allowed, while it lasts.
    pub errors: Errors,
    /// How long after the end of the fault (of the stroke, if it is one) errors may go on.
    pub recover: Duration,
    /// The slowest answer, whether the request failed or not.
    pub slowest: Duration,
}

/// What a case needs to be run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ground {
    /// The stack as it is.
    Usual,
    /// Volumes that are small file systems of their own.
    SmallVolumes,
    /// The whole machine: every container on it is hit. Run only when it is named.
    Machine,
}

type Running<'a> = Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>>;

/// One fault.
pub struct Case {
    /// Its name on the command line and in the report.
    pub name: &'static str,
    /// What is done, as a sentence without a full stop.
    pub what: &'static str,
    /// What it promises.
    pub bound: Bound,
    /// What it runs on.
    pub ground: Ground,
    /// Whether `--quick` runs it.
    pub quick: bool,
    /// Does it.
    pub run: for<'a> fn(&'a Scene) -> Running<'a>,
}

/// What a case acts on, and where it says what it found.
pub struct Scene {
    /// The stack.
    pub stack: Stack,
    /// What only root may do.
    pub root: Root,
    /// Between the backend and PostgreSQL.
    pub postgres: Proxy,
    /// Between the backend and Redis.
    pub redis: Proxy,
    /// The load, for cases that send something of their own.
    pub workload: Workload,
    xtask: PathBuf,
    healed: Mutex<Option<f64>>,
    violations: Mutex<Vec<String>>,
}

impl Scene {
    /// A scene for one case.
    pub fn new(arena: &Arena, root: Root, workload: Workload) -> Scene {
        Scene {
            stack: arena.stack.clone(),
            root,
            postgres: arena.postgres.clone(),
            redis: arena.redis.clone(),
            workload,
            xtask: arena.xtask.clone(),
            healed: Mutex::default(),
            violations: Mutex::default(),
        }
    }

    /// A verb of the driver, on this stack; returns what it printed.
    ///
    /// # Errors
    /// It fails.
    pub async fn xtask(&self, args: &[&str]) -> Result<String> {
        let (program, env_file) =
            (self.xtask.display().to_string(), self.stack.env_file.display().to_string());
        let common = ["--quiet", "--yes", "--env-file", &env_file];
        run(&program, &[&common[..], args].concat(), XTASK_LIMIT).await
    }

    /// The fault goes on for a while.
    pub async fn hold(&self, time: Duration) {
        sleep(time).await;
    }

    /// The fault is over from now on: the time for recovery begins.
    pub fn healed(&self) {
        *self.healed.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.workload.now());
    }

    /// When [`Scene::healed`] was called, in seconds since the case began.
    pub fn healed_at(&self) -> Option<f64> {
        *self.healed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that something was not as the case expects.
    pub fn violation(&self, text: impl Into<String>) {
        self.violations.lock().unwrap_or_else(PoisonError::into_inner).push(text.into());
    }

    /// What was not as the cases expected.
    pub fn violations(&self) -> Vec<String> {
        self.violations.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until something is true, which it must be by the deadline.
    pub async fn expect<F>(&self, what: &str, limit: Duration, probe: impl Fn() -> F)
    where
        F: Future<Output = Result<bool>>,
    {
        let deadline = Instant::now() + limit;
        while !matches!(probe().await, Ok(true)) {
            if Instant::now() > deadline {
                return self.violation(format!("not within {} s: {what}", limit.as_secs()));
            }
            sleep(Duration::from_millis(100)).await;
        }
    }
}
