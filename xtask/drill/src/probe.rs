//! Asks `/readyz` again and again, from inside the network, as the container's health check does:
//! nginx does not pass it on.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::stack::Stack;
use crate::workload::{Outcome, Sample};

const PAUSE: Duration = Duration::from_millis(400);
/// Above the backend's own limit for this answer (2 s).
const LIMIT: Duration = Duration::from_millis(2500);

/// One question.
#[derive(Clone, Copy, Debug)]
pub struct Readiness {
    /// Seconds since the case began, when it was asked.
    pub asked: f64,
    /// Seconds since the case began, when the answer came.
    pub answered: f64,
    /// Whether the answer was 200.
    pub ready: bool,
}

/// Asks until `stop` turns true.
pub async fn watch_readiness(
    stack: Stack,
    start: Instant,
    mut stop: watch::Receiver<bool>,
) -> Vec<Readiness> {
    let mut found = Vec::new();
    let mut address = None;
    loop {
        if address.is_none() {
            address = stack.address_of("backend").await.ok();
        }
        let asked = start.elapsed().as_secs_f64();
        let ready = match address {
            Some(address) => timeout(LIMIT, ask(address)).await.ok().flatten(),
            None => None,
        };
        // No answer: the container may have another address now.
        address = address.filter(|_| ready.is_some());
        let answered = start.elapsed().as_secs_f64();
        found.push(Readiness { asked, answered, ready: ready == Some(true) });
        tokio::select! {
            () = sleep(PAUSE) => {}
            _ = stop.wait_for(|stop| *stop) => return found,
        }
    }
}

async fn ask(address: IpAddr) -> Option<bool> {
    let mut stream = TcpStream::connect(SocketAddr::new(address, 3000)).await.ok()?;
    stream.write_all(b"GET /readyz HTTP/1.0\r\nHost: drill\r\n\r\n").await.ok()?;
    let mut answer = Vec::new();
    stream.take(64 * 1024).read_to_end(&mut answer).await.ok()?;
    let status = answer.split(|byte| *byte == b' ').nth(1)?;
    Some(status == b"200")
}

/// How long readiness may be behind the truth: its own answer may take 2 s.
const GRACE: f64 = 2.5;

/// The first stretch in which `/readyz` said "ready" throughout while every write failed. A stretch
/// must be longer than the answer itself may take: no probe knows the future.
pub fn lie(readiness: &[Readiness], samples: &[Sample]) -> Option<String> {
    let mut stretch: Option<(f64, f64)> = None;
    for probe in readiness {
        stretch = match (probe.ready, stretch) {
            (false, _) => None,
            (true, None) => Some((probe.asked, probe.answered)),
            (true, Some((from, _))) => Some((from, probe.answered)),
        };
        let Some((mut from, to)) = stretch else { continue };
        let within = |from: f64| {
            samples.iter().filter(move |s| s.what == "write" && s.sent >= from && s.done <= to)
        };
        if let Some(last) =
            within(from).filter(|s| s.outcome.is_fine()).map(|s| s.done).reduce(f64::max)
        {
            from = last;
        }
        let failed =
            within(from).filter(|s| matches!(s.outcome, Outcome::Unavailable { .. })).count();
        if to - from > GRACE && failed >= 3 {
            return Some(format!(
                "/readyz said ready from {from:.1} s to {to:.1} s, and all of {failed} writes failed"
            ));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probes(ready: &[bool]) -> Vec<Readiness> {
        let at = |index: usize| index as f64 * 0.5;
        let probe = |(index, &ready)| Readiness { asked: at(index), answered: at(index), ready };
        ready.iter().enumerate().map(probe).collect()
    }

    fn writes(fine: &[bool]) -> Vec<Sample> {
        let unavailable = Outcome::Unavailable { status: 503, malformed: None };
        let write = |(index, &fine): (usize, &bool)| Sample {
            what: "write",
            due: index as f64 * 0.25,
            sent: index as f64 * 0.25,
            done: index as f64 * 0.25 + 0.01,
            outcome: if fine { Outcome::Fine } else { unavailable.clone() },
        };
        fine.iter().enumerate().map(write).collect()
    }

    #[test]
    fn readiness_that_goes_on_while_writes_fail_is_a_lie() {
        let failing: Vec<bool> = (0..40).map(|index| index < 4).collect();
        let found = lie(&probes(&[true; 20]), &writes(&failing));
        assert!(found.is_some_and(|text| text.contains("writes failed")));
    }

    #[test]
    fn a_short_failure_between_two_answers_is_none() {
        let mut fine = vec![true; 40];
        fine[8..14].fill(false);
        assert_eq!(lie(&probes(&[true; 20]), &writes(&fine)), None);
    }

    #[test]
    fn whoever_says_not_ready_does_not_lie() {
        let mut ready = [true; 20];
        ready[3..].fill(false);
        let fine: Vec<bool> = (0..40).map(|index| index < 6).collect();
        assert_eq!(lie(&probes(&ready), &writes(&fine)), None);
    }
}
