//! Judges every answer of a case: whether it may have failed, in which form, when, and how long whoever
//! asked had to wait.

use std::collections::BTreeMap;

use super::summary;
use crate::cases::{Bound, Errors, FAST};
use crate::workload::{Outcome, Sample};

/// When the fault was there, in seconds since the case began.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// It was made.
    pub fault: f64,
    /// It was taken away, or was over by itself.
    pub healed: f64,
}

/// What the answers meanwhile were like.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measured {
    /// How many requests did not do what they were sent for.
    pub count: usize,
    /// Seconds from the fault to the first and to the last of them (when they were due).
    pub seen: Option<(f64, f64)>,
    /// Seconds from the end of the fault until nothing failed any more.
    pub recovered_after: f64,
    /// Seconds that the slowest of those took that did what they were sent for.
    pub slowest: f64,
}

/// Measures the errors of a case.
pub fn measure(samples: &[Sample], window: Window) -> Measured {
    let failed: Vec<&Sample> = samples.iter().filter(|sample| !sample.outcome.is_fine()).collect();
    let first = failed.iter().map(|sample| sample.due).reduce(f64::min);
    let last = failed.iter().map(|sample| sample.due).reduce(f64::max);
    let seen = first.zip(last).map(|(first, last)| (first - window.fault, last - window.fault));
    let recovered_after = last.map_or(0.0, |last| (last - window.healed).max(0.0));
    let fine = samples.iter().filter(|sample| sample.outcome.is_fine());
    let slowest = fine.map(waited).fold(0.0, f64::max);
    Measured { count: failed.len(), seen, recovered_after, slowest }
}

/// From the moment at which a request was due: whoever asks counts the time until it leaves too.
fn waited(sample: &Sample) -> f64 {
    sample.done - sample.due
}

/// What was wrong with the answers of a case, as sentences.
pub fn judge_answers(samples: &[Sample], window: Window, bound: &Bound) -> Vec<String> {
    let mut found: BTreeMap<&'static str, Vec<String>> = BTreeMap::new();
    let end = window.healed + bound.recover.as_secs_f64();
    for sample in samples.iter().filter(|sample| !sample.outcome.is_fine()) {
        let (what, due) = (sample.what, sample.due - window.fault);
        let mut add = |kind, text: String| {
            found.entry(kind).or_default().push(format!("{what} at {due:+.2} s: {text}"));
        };
        let took = sample.done - sample.sent;
        match &sample.outcome {
            Outcome::Fine => {}
            Outcome::Wrong(text) => add("no fault explains this answer", text.clone()),
            _ if bound.errors == Errors::None => add("nothing may fail here", text_of(sample)),
            Outcome::NoAnswer(text) if bound.errors == Errors::Honest => {
                add("without an answer", text.clone());
            }
            Outcome::Unavailable { malformed: Some(text), .. } => {
                add("an error of another form than promised", text.clone());
            }
            Outcome::Unavailable { .. } | Outcome::NoAnswer(_) => {}
        }
        if sample.done < window.fault {
            add("failed before there was a fault", text_of(sample));
        }
        if sample.due > end {
            add("failed after the time for recovery", text_of(sample));
        }
        if took > bound.slowest.as_secs_f64() {
            add("slow to say that it failed", format!("{took:.2} s, {}", text_of(sample)));
        }
    }
    let late = late(samples, window, bound);
    if !late.is_empty() {
        found.insert("answered, but after too long a wait", late);
    }
    found.into_iter().map(|(kind, list)| summary(kind, &list)).collect()
}

/// The answers that were right and came too late: who waits has noticed. While the fault and its recovery
/// last the case's own bound holds, and [`FAST`] after that. What the slowest answer took before there was
/// a fault is granted on top: so slow is this machine today, which is nobody's fault.
fn late(samples: &[Sample], window: Window, bound: &Bound) -> Vec<String> {
    let end = window.healed + bound.recover.as_secs_f64();
    let fine = || samples.iter().filter(|sample| sample.outcome.is_fine());
    let before = fine().filter(|sample| sample.done < window.fault).map(waited).fold(0.0, f64::max);
    let limit = |sample: &Sample| {
        let is_hit = sample.due <= end;
        before + if is_hit { bound.slowest } else { FAST }.as_secs_f64()
    };
    let late = fine().filter(|sample| waited(sample) > limit(sample));
    let told = late.map(|sample| {
        let (what, due) = (sample.what, sample.due - window.fault);
        format!("{what} at {due:+.2} s: {:.2} s, at most {:.2} s", waited(sample), limit(sample))
    });
    told.collect()
}

fn text_of(sample: &Sample) -> String {
    match &sample.outcome {
        Outcome::Fine => "fine".to_owned(),
        Outcome::Unavailable { status, .. } => status.to_string(),
        Outcome::NoAnswer(text) | Outcome::Wrong(text) => text.clone(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn sample(due: f64, took: f64, outcome: Outcome) -> Sample {
        Sample { what: "write", due, sent: due, done: due + took, outcome }
    }

    const UNAVAILABLE: Outcome = Outcome::Unavailable { status: 503, malformed: None };

    fn judged(sample: Sample, errors: Errors) -> Vec<String> {
        let bound =
            Bound { errors, recover: Duration::from_secs(3), slowest: Duration::from_secs(2) };
        judge_answers(&[sample], Window { fault: 2.0, healed: 5.0 }, &bound)
    }

    #[test]
    fn an_honest_error_within_the_window_is_no_violation() {
        assert_eq!(judged(sample(2.5, 0.1, UNAVAILABLE), Errors::Honest), [""; 0]);
        assert_eq!(judged(sample(7.9, 0.1, UNAVAILABLE), Errors::Honest), [""; 0]);
    }

    #[test]
    fn each_rule_catches_what_it_is_for() {
        let no_answer = Outcome::NoAnswer("broken".to_owned());
        let malformed = Outcome::Unavailable { status: 502, malformed: Some("html".to_owned()) };
        let wrong = Outcome::Wrong("500".to_owned());
        let cases = [
            (sample(1.0, 0.1, UNAVAILABLE), Errors::Honest, "failed before there was a fault"),
            (sample(8.1, 0.1, UNAVAILABLE), Errors::Honest, "failed after the time for recovery"),
            (sample(3.0, 2.1, UNAVAILABLE), Errors::Honest, "slow to say that it failed"),
            (sample(3.0, 0.1, UNAVAILABLE), Errors::None, "nothing may fail here"),
            (sample(3.0, 0.1, no_answer.clone()), Errors::Honest, "without an answer"),
            (sample(3.0, 0.1, malformed), Errors::Honest, "an error of another form"),
            (sample(3.0, 0.1, wrong), Errors::AlsoNoAnswer, "no fault explains this answer"),
            (sample(3.0, 2.1, Outcome::Fine), Errors::None, "answered, but after too long a wait"),
            (sample(8.1, 4.1, Outcome::Fine), Errors::None, "answered, but after too long a wait"),
        ];
        for (sample, errors, expected) in cases {
            let found = judged(sample, errors);
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].starts_with(expected), "{found:?} is not {expected:?}");
        }
        assert_eq!(judged(sample(3.0, 0.1, no_answer), Errors::AlsoNoAnswer), [""; 0]);
    }

    #[test]
    fn a_wait_within_the_bound_is_none_nor_one_that_this_machine_had_before_the_fault() {
        assert_eq!(judged(sample(3.0, 1.9, Outcome::Fine), Errors::None), [""; 0]);
        let bound = Bound { errors: Errors::None, recover: Duration::ZERO, slowest: FAST };
        let window = Window { fault: 2.0, healed: 5.0 };
        let waits = |before: f64| {
            let samples = [sample(0.0, before, Outcome::Fine), sample(3.0, 5.0, Outcome::Fine)];
            judge_answers(&samples, window, &bound)
        };
        assert_eq!(waits(0.5).len(), 1);
        assert_eq!(waits(1.5), [""; 0]);
    }

    #[test]
    fn recovery_counts_from_the_end_of_the_fault() {
        let window = Window { fault: 2.0, healed: 5.0 };
        let fine = sample(6.0, 0.3, Outcome::Fine);
        let samples = [sample(2.5, 0.1, UNAVAILABLE), sample(6.0, 0.1, UNAVAILABLE), fine];
        let measured = measure(&samples, window);
        assert_eq!(measured.count, 2);
        assert_eq!(measured.seen, Some((0.5, 4.0)));
        assert!((measured.recovered_after - 1.0).abs() < 1e-9);
        assert!((measured.slowest - 0.3).abs() < 1e-9);
        let none = measure(&[], window);
        assert_eq!(none, Measured::default());
    }
}
