//! The supervisor: loads the stack, makes a fault, waits until nothing fails any more, and lets the
//! checker judge. One case after the other, on one stack, whose people, writes and sessions grow from
//! case to case: what the first fault endangered is checked after the last one too.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::arena::Arena;
use crate::cases::{CASES, Case, Ground, Scene};
use crate::checker::{self, Count, Window};
use crate::docker::docker;
use crate::load::{Client, Pace};
use crate::probe::{self, Readiness};
use crate::report::{CaseReport, Verdict};
use crate::root::Root;
use crate::secrets;
use crate::stack::SERVICES;
use crate::usage::{self, Usage};
use crate::workload::{PEOPLE, Sample, Schedule, Workload, seed_of_case};

/// Requests a second.
pub const RATE: u32 = 60;
/// Longer than nginx waits for the backend (15 s): that it gives up is for it to say.
pub const CLIENT_LIMIT: Duration = Duration::from_secs(20);
/// Load before the fault; a little more of it is drawn from the seed.
const WARM_UP: Duration = Duration::from_millis(1200);
/// Hashing a password takes a core. What waited behind it is answered by then, so that the fault meets the
/// load that it is meant for and not a queue; the session is fresh all the same.
const BREATH: Duration = Duration::from_millis(250);
/// So many requests at once fill every pool on the way.
const BURST: usize = 64;
/// Nothing failed for this long: it is over.
const QUIET: f64 = 1.5;
/// How long a case may take to make its fault and to take it away.
const CASE_LIMIT: Duration = Duration::from_secs(150);
/// How much longer than its bound a recovery is waited for, to be able to say how long it took.
const PATIENCE: f64 = 20.0;
/// The engine asks every ten seconds how a service is.
const HEALTHY_LIMIT: Duration = Duration::from_secs(45);

/// A run of cases on one stack.
pub struct Supervisor<'a> {
    arena: &'a Arena,
    workload: Workload,
    baseline: Usage,
    seed: u64,
    /// Up to when the logs were searched, in time since 1970. At first to no moment: what a new stack
    /// has logged at its start is to be searched too.
    searched: Mutex<Duration>,
}

impl<'a> Supervisor<'a> {
    /// Signs people up and warms the stack up, to know what it holds when nothing is wrong.
    ///
    /// # Errors
    /// The stack does not even work without a fault.
    pub async fn begin(arena: &'a Arena, seed: u64) -> Result<Supervisor<'a>> {
        let stack = &arena.stack;
        let certificate = stack.certificate();
        let client = Client::new(&stack.address(), certificate.as_deref(), CLIENT_LIMIT)?;
        let workload = Workload::new(client);
        workload.populate(seed).await.context("sign the first people up")?;
        workload.sign_everybody_in().await;
        let (baseline, searched) = (Usage::default(), Mutex::default());
        let supervisor = Supervisor { arena, workload, baseline, seed, searched };
        let warm = supervisor.workload.for_case(format!("drill-{seed:x}-warm"));
        let (stop, stopped) = watch::channel(false);
        let schedule = Schedule::new(seed_of_case(seed, "warm-up"));
        let load = warm.run(Pace { rate: RATE }, schedule, stopped);
        let (ran, ()) = tokio::join!(load, async {
            sleep(Duration::from_secs(3)).await;
            stop.send_replace(true);
        });
        ran?;
        supervisor.fill_pools().await;
        let baseline = Usage::read(stack).await.context("measure what the stack holds")?;
        Ok(Supervisor { baseline, ..supervisor })
    }

    /// Many requests at the same moment, as a fault piles them up: pools grow to their size once, and
    /// what they hold then is not a leak.
    async fn fill_pools(&self) {
        for _ in 0..3 {
            let mut burst = JoinSet::new();
            for person in 0..BURST {
                let workload = self.workload.clone();
                burst.spawn(async move { workload.list_once(person % PEOPLE).await });
            }
            while burst.join_next().await.is_some() {}
        }
        self.workload.client().close_idle();
        sleep(Duration::from_millis(300)).await;
    }

    /// Runs one case and judges it.
    ///
    /// # Errors
    /// The stack is not healthy before it, so that nothing could be learned.
    pub async fn run(&self, case: &Case) -> Result<CaseReport> {
        let stack = &self.arena.stack;
        stack.wait_healthy(HEALTHY_LIMIT).await.context("begin with a healthy stack")?;
        let root = Root::new(stack).await?;
        let seed = seed_of_case(self.seed, case.name);
        let workload = self.workload.for_case(format!("{:x}-{}", self.seed, case.name));
        let start = Instant::now();
        let (stop, stopped) = watch::channel(false);
        let load = {
            let (workload, stopped) = (workload.clone(), stopped.clone());
            let schedule = Schedule::new(seed);
            tokio::spawn(async move { workload.run(Pace { rate: RATE }, schedule, stopped).await })
        };
        let probes = tokio::spawn(probe::watch_readiness(stack.clone(), start, stopped));
        sleep(WARM_UP + Duration::from_millis(seed % 500)).await;

        let scene = Scene::new(self.arena, root, workload.clone());
        // The schedule signs somebody in or out every few seconds only, and most faults are over by then.
        // One after the other, because of what one account may do.
        let number = CASES.iter().position(|other| other.name == case.name);
        let person = number.unwrap_or_default() % PEOPLE;
        workload.sign_out_once((person + PEOPLE / 2) % PEOPLE).await;
        workload.sign_in_once(person).await;
        sleep(BREATH).await;
        let (fault, fault_in_run) = (workload.now(), workload.run_now());
        let made = timeout(CASE_LIMIT, (case.run)(&scene)).await;
        let healed = scene.healed_at().unwrap_or_else(|| workload.now());
        let window = Window { fault, healed };
        self.wait_until_quiet(&workload, window, case).await;
        stop.send_replace(true);

        let mut violations = scene.violations();
        match made {
            Ok(Ok(())) => {}
            Ok(Err(error)) => violations.push(format!("the fault was not made: {error:#}")),
            Err(_) => violations.push("the fault did not end in time".to_owned()),
        }
        if !checker::is_fresh_session_at_risk(&workload.journal.state().sessions, fault_in_run) {
            let missing = "nobody was signed in within the last second before the fault";
            violations.push(format!("no fresh session was at risk: {missing}"));
        }
        if let Err(error) = load.await.context("the load failed")? {
            violations.push(error.to_string());
        }
        let readiness = probes.await.context("the probe failed")?;
        let seen = Seen { window, readiness };
        self.judge(case, seen, violations).await
    }

    /// Until the last failure is a while ago, but not for ever.
    async fn wait_until_quiet(&self, workload: &Workload, window: Window, case: &Case) {
        let deadline = window.healed + case.bound.recover.as_secs_f64() + PATIENCE;
        loop {
            let failed = {
                let state = workload.journal.state();
                let failed = state.samples.iter().filter(|sample| !sample.outcome.is_fine());
                failed.map(|sample| sample.done).fold(window.healed, f64::max)
            };
            let now = workload.now();
            if now - failed > QUIET || now > deadline {
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    async fn judge(
        &self,
        case: &Case,
        seen: Seen,
        mut violations: Vec<String>,
    ) -> Result<CaseReport> {
        let stack = &self.arena.stack;
        if let Err(error) = stack.wait_healthy(HEALTHY_LIMIT).await {
            violations.push(format!("it did not recover by itself: {error:#}"));
        }
        let samples = {
            let state = self.workload.journal.state();
            if !state.stale.is_empty() {
                let kind =
                    "acknowledged, and not in the list asked for afterwards, as it was written";
                violations.push(checker::summary(kind, &state.stale));
            }
            state.samples.clone()
        };
        violations.extend(checker::judge_answers(&samples, seen.window, &case.bound));
        violations.extend(probe::lie(&seen.readiness, &samples));
        let snapshot = self.workload.journal.snapshot();
        let (count, wrong) = checker::check_data(self.workload.client(), &snapshot).await;
        violations.extend(wrong);
        self.workload.client().close_idle();
        match usage::settle(stack, &self.baseline).await {
            Ok((_, beyond)) => violations.extend(beyond),
            Err(error) => violations.push(format!("what it holds cannot be measured: {error:#}")),
        }
        match self.leaks(case).await {
            Ok(leaks) => violations.extend(leaks),
            Err(error) => violations.push(format!("the logs cannot be searched: {error:#}")),
        }
        Ok(report(case, self.seed, seen.window, &samples, count, violations))
    }

    /// Secrets in what the services logged since the last search.
    async fn leaks(&self, case: &Case) -> Result<Vec<String>> {
        let stack = &self.arena.stack;
        let example = fs::read_to_string(stack.root.join(".env.example"))?;
        let environment = fs::read_to_string(&stack.env_file)?;
        let secrets = secrets::of(&example, &environment, &self.workload.journal.snapshot());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let last = *self.searched.lock().unwrap_or_else(PoisonError::into_inner);
        // Where the clock was moved, so were the times in the log: all of it is searched then.
        let since = if case.ground == Ground::Machine { Duration::ZERO } else { last };
        let mut found = BTreeMap::new();
        for service in SERVICES {
            let leaks = secrets::leaks(&stack.log(service, since).await?, &secrets);
            if !leaks.is_empty() {
                found.insert(service, leaks);
            }
        }
        // Only now: what could not be read this time is read the next time.
        *self.searched.lock().unwrap_or_else(PoisonError::into_inner) = now;
        let sentences = found.iter().map(|(service, lines)| {
            checker::summary(&format!("a secret in the log of {service}"), lines)
        });
        Ok(sentences.collect())
    }
}

/// What was seen beside the answers.
struct Seen {
    window: Window,
    readiness: Vec<Readiness>,
}

fn report(
    case: &Case,
    seed: u64,
    window: Window,
    samples: &[Sample],
    count: Count,
    violations: Vec<String>,
) -> CaseReport {
    let measured = checker::measure(samples, window);
    CaseReport {
        name: case.name,
        what: case.what,
        bound: case.bound.into(),
        seed,
        requests: samples.len(),
        errors: measured.count,
        window: measured.seen,
        lost: count.lost.len(),
        duplicated: count.duplicated.len(),
        kept: count.kept,
        recovered_after: measured.recovered_after,
        slowest: measured.slowest,
        verdict: if violations.is_empty() { Verdict::Pass } else { Verdict::Fail },
        violations,
        fault_at: window.fault,
        healed_at: window.healed,
        timeline: crate::report::timeline(samples),
    }
}

/// What the engine says of itself, for the report.
///
/// # Errors
/// It does not answer.
pub async fn engine() -> Result<String> {
    Ok(docker(&["version", "--format", "{{.Server.Version}}"]).await?.trim().to_owned())
}
