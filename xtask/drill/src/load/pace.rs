//! An open loop: requests leave when the clock says so, whether or not earlier ones were answered.
//! A loop that waits for answers sends less while the server is slow, and then reports how well the
//! few did ("coordinated omission").

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// A constant rate.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Requests a second.
    pub rate: u32,
}

impl Pace {
    /// When the request of this number is due, counted from the start.
    pub fn due(self, number: u64) -> Duration {
        Duration::from_nanos(number * 1_000_000_000 / u64::from(self.rate.max(1)))
    }
}

/// Starts one task for each job at its time, until `stop` turns true or the jobs end, and then waits
/// for the answers that are still to come, for `patience` at the most. Each task is given the moment
/// at which it was due: latency counts from there, so that a late start is not forgiven.
pub async fn run_open_loop<J, F>(
    pace: Pace,
    jobs: impl Iterator<Item = (u64, J)>,
    mut stop: watch::Receiver<bool>,
    patience: Duration,
    start_one: impl Fn(J, Instant) -> F,
) -> usize
where
    F: Future<Output = ()> + Send + 'static,
{
    let start = Instant::now();
    let mut running = JoinSet::new();
    for (number, job) in jobs {
        let due = start + pace.due(number);
        tokio::select! {
            () = sleep_until(due) => {}
            _ = stop.wait_for(|stop| *stop) => break,
        }
        running.spawn(start_one(job, due));
        while running.try_join_next().is_some() {}
    }
    let drain = async { while running.join_next().await.is_some() {} };
    if tokio::time::timeout(patience, drain).await.is_ok() { 0 } else { running.len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_even() {
        let pace = Pace { rate: 50 };
        assert_eq!(pace.due(0), Duration::ZERO);
        assert_eq!(pace.due(1), Duration::from_millis(20));
        assert_eq!(pace.due(500), Duration::from_secs(10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_answer_delays_no_other_request() {
        let (_sender, stop) = watch::channel(false);
        let begun = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let jobs = (0..10).map(|number| (number, number));
        let zero = Instant::now();
        let left =
            run_open_loop(Pace { rate: 10 }, jobs, stop, Duration::from_secs(60), |_, due| {
                let begun = begun.clone();
                async move {
                    begun.lock().unwrap().push((due - zero, zero.elapsed()));
                    tokio::time::sleep(Duration::from_secs(30)).await;
                }
            })
            .await;
        assert_eq!(left, 0);
        let begun = begun.lock().unwrap();
        assert_eq!(begun.len(), 10);
        let late = begun.iter().filter(|(due, at)| *at > *due + Duration::from_millis(50));
        assert_eq!(late.count(), 0, "{begun:?}");
    }
}
