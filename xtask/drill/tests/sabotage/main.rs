//! The checker can fail. A backend that drops, duplicates, delays or misplaces what it acknowledged
//! is caught, each time and whatever the seed; one that keeps its word is not.
#![allow(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod model;

use std::time::Duration;

use drill::cases::{Bound, Errors, FAST};
use drill::checker::{self, Count, Window};
use drill::load::{Client, Pace};
use drill::workload::{Schedule, Session, Standing, Workload};
use model::{Model, Sabotage};
use tokio::sync::{Semaphore, watch};
use tokio::time::sleep;

const SEEDS: [u64; 5] = [1, 7, 42, 1_802_248_315, u64::MAX];
/// Faster than on a real stack, and so over sooner.
const PACE: Pace = Pace { rate: 200 };
const LOAD: Duration = Duration::from_millis(2500);
/// As if there were a fault from here on that nobody may notice. No model is sabotaged earlier.
const WINDOW: Window = Window { fault: 1.0, healed: 2.5 };

struct Found {
    count: Count,
    /// What is wrong with what is there, as sentences.
    wrong: Vec<String>,
    stale: usize,
    writes: usize,
    signed_out: usize,
    /// What is wrong with the answers, if each must come within a second.
    hasty: Vec<String>,
    /// And within the time that a case grants.
    patient: Vec<String>,
}

impl Found {
    fn says(&self, kind: &str) -> bool {
        self.wrong.iter().any(|sentence| sentence.starts_with(kind))
    }
}

/// How many loads there are at a time, of all these tests: with all sixty, a machine that does other things as well
/// is late with answers, and the model is accused of it.
static AT_A_TIME: Semaphore = Semaphore::const_new(12);

/// The same workload and the same checker as on a real stack.
async fn run(sabotage: Sabotage, seed: u64) -> Found {
    let _turn = AT_A_TIME.acquire().await.unwrap();
    let address = Model::start(sabotage).await;
    let client = Client::new(&format!("http://{address}"), None, Duration::from_secs(12)).unwrap();
    let workload = Workload::new(client);
    workload.populate(seed).await.unwrap();
    workload.sign_everybody_in().await;
    let workload = workload.for_case("sabotage".to_owned());
    let (stop, stopped) = watch::channel(false);
    let (ran, ()) = tokio::join!(workload.run(PACE, Schedule::new(seed), stopped), async {
        sleep(LOAD / 2).await;
        // As before a fault; the schedule's own may come too late on a busy machine.
        workload.sign_out_once(3).await;
        workload.sign_in_once(7).await;
        sleep(LOAD / 2).await;
        stop.send_replace(true);
    });
    ran.unwrap();
    // What was delayed is there by now: only whoever asked at once can tell.
    sleep(Duration::from_millis(1200)).await;
    let (stale, samples) = {
        let state = workload.journal.state();
        (state.stale.len(), state.samples.clone())
    };
    let state = workload.journal.snapshot();
    let judge = |slowest| {
        let bound = Bound { errors: Errors::None, recover: Duration::ZERO, slowest };
        checker::judge_answers(&samples, WINDOW, &bound)
    };
    let (hasty, patient) = (judge(Duration::from_secs(1)), judge(FAST));
    let (count, wrong) = checker::check_data(workload.client(), &state).await;
    let is_out = |session: &&Session| session.standing == Standing::Ended;
    let signed_out = state.sessions.iter().filter(is_out).count();
    let writes = state.writes.len();
    Found { count, wrong, stale, writes, signed_out, hasty, patient }
}

async fn each_time(sabotage: Sabotage, is_caught: impl Fn(&Found) -> bool) {
    let runs = SEEDS.map(|seed| (seed, tokio::spawn(run(sabotage, seed))));
    for (seed, run) in runs {
        let found = run.await.unwrap();
        assert!(found.writes > 100, "seed {seed}: only {} writes", found.writes);
        assert!(is_caught(&found), "seed {seed}: {sabotage:?} was not caught: {:?}", found.wrong);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_keeps_the_contract_is_not_accused() {
    each_time(Sabotage::None, |found| {
        found.count == Count::default()
            && found.wrong.is_empty()
            && found.stale == 0
            && found.signed_out > 0
            && found.patient.is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_writes_are_lost() {
    each_time(Sabotage::Drop(100), |found| !found.count.lost.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_that_are_kept_twice_are_duplicates() {
    each_time(Sabotage::Duplicate(100), |found| !found.count.duplicated.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_that_is_kept_once_more_is_a_duplicate() {
    each_time(Sabotage::ForgetKey(20), |found| !found.count.duplicated.is_empty()).await;
}

/// Nothing is missing in the end: it was missing when it had been promised. A fifth of the writes is read
/// back, so every second one is delayed: of a hundred writes some are both.
#[tokio::test(flavor = "multi_thread")]
async fn delayed_writes_are_stale() {
    each_time(Sabotage::Delay(2), |found| found.stale > 0 && found.count.lost.is_empty()).await;
}

/// Its key is there, once, and its last character is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_text_is_another_one() {
    each_time(Sabotage::Truncate(100), |found| !found.count.altered.is_empty()).await;
}

/// The checker says so instead of reading for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_leads_in_a_circle_cannot_be_read() {
    each_time(Sabotage::RepeatPage, |found| found.says("what was written cannot be read")).await;
}

/// Nothing is missing and nothing failed: it only took long.
#[tokio::test(flavor = "multi_thread")]
async fn stalled_answers_are_late() {
    each_time(Sabotage::Stall(100), |found| {
        found.hasty.iter().any(|text| text.starts_with("answered, but after too long a wait"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_in_another_list_is_lost() {
    each_time(Sabotage::Misplace(100), |found| !found.count.lost.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forgotten_sessions_have_ended() {
    each_time(Sabotage::ForgetSessions, |found| found.says("sessions that ended")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_were_signed_out_must_not_work() {
    each_time(Sabotage::KeepSessions, |found| {
        found.says("sessions that were signed out and work") && found.count == Count::default()
    })
    .await;
}

/// An answer that says nothing about a session neither ends it nor hides what is known of the writes.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_nobody_can_ask_for_has_not_ended() {
    each_time(Sabotage::HideSessions(100), |found| {
        found.says("the sessions cannot be asked for")
            && !found.says("sessions that ended")
            && !found.count.lost.is_empty()
    })
    .await;
}
