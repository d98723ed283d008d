//! What a run found: a table for people, JSON for programs, a page with a plot per case.

mod page;
mod plot;
mod table;

use serde::Serialize;

pub use page::page;
pub use table::{line, list, markdown, summary, table};

use crate::cases::{Bound, Case, Errors};
use crate::workload::Sample;

/// The length of one step of a timeline, in seconds.
pub const STEP: f64 = 0.25;

/// How a case ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Within its bound, with nothing lost.
    Pass,
    /// Not.
    Fail,
    /// Not run. Nothing is known of it, so that a run with such a case has not passed.
    Skipped,
}

/// A bound, as it is shown.
#[derive(Clone, Debug, Serialize)]
pub struct ShownBound {
    /// `none`, `honest` (502, 503, 504) or `no-answer` (these, or none at all).
    pub errors: &'static str,
    /// Seconds after the end of the fault.
    pub recover: f64,
    /// Seconds until a request is answered, whether it failed or not.
    pub slowest: f64,
}

impl From<Bound> for ShownBound {
    fn from(bound: Bound) -> ShownBound {
        let errors = match bound.errors {
            Errors::None => "none",
            Errors::Honest => "honest",
            Errors::AlsoNoAnswer => "no-answer",
        };
        let (recover, slowest) = (bound.recover.as_secs_f64(), bound.slowest.as_secs_f64());
        ShownBound { errors, recover, slowest }
    }
}

/// A quarter of a second of a case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Tick {
    /// Requests that were due and did what they were sent for.
    pub fine: u32,
    /// Requests that were due and failed.
    pub failed: u32,
    /// The longest that one of them took, from the moment at which it was due, in seconds.
    pub slowest: f64,
}

/// One case.
#[derive(Clone, Debug, Serialize)]
pub struct CaseReport {
    /// Its name.
    pub name: &'static str,
    /// What was done.
    pub what: &'static str,
    /// What it promises.
    pub bound: ShownBound,
    /// The seed of the run.
    pub seed: u64,
    /// Requests sent.
    pub requests: usize,
    /// Requests that failed.
    pub errors: usize,
    /// Seconds from the fault to the first and the last request that failed.
    pub window: Option<(f64, f64)>,
    /// Writes of the run that were acknowledged and are gone.
    pub lost: usize,
    /// Writes of the run that are there more than once.
    pub duplicated: usize,
    /// Writes of the run that were not acknowledged and are there: the answer was lost.
    pub kept: usize,
    /// Seconds from the end of the fault to the last error.
    pub recovered_after: f64,
    /// Seconds that the slowest request took, from when it was due, of those that worked.
    pub slowest: f64,
    /// The verdict.
    pub verdict: Verdict,
    /// Why it failed, or was skipped.
    pub violations: Vec<String>,
    /// Seconds from the beginning of the case.
    pub fault_at: f64,
    /// Seconds from the beginning of the case.
    pub healed_at: f64,
    /// Quarters of a second, from the beginning of the case.
    pub timeline: Vec<Tick>,
}

/// A case that was not run.
pub fn skipped(case: &Case, seed: u64, why: impl Into<String>) -> CaseReport {
    unmeasured(case, seed, Verdict::Skipped, why.into())
}

/// A case that was begun, and that nothing could be learned from.
pub fn failed(case: &Case, seed: u64, why: impl Into<String>) -> CaseReport {
    unmeasured(case, seed, Verdict::Fail, why.into())
}

fn unmeasured(case: &Case, seed: u64, verdict: Verdict, why: String) -> CaseReport {
    CaseReport {
        name: case.name,
        what: case.what,
        bound: case.bound.into(),
        seed,
        requests: 0,
        errors: 0,
        window: None,
        lost: 0,
        duplicated: 0,
        kept: 0,
        recovered_after: 0.0,
        slowest: 0.0,
        verdict,
        violations: vec![why],
        fault_at: 0.0,
        healed_at: 0.0,
        timeline: Vec::new(),
    }
}

/// A run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Gives the same schedules again.
    pub seed: u64,
    /// `local` or `production`.
    pub stack: &'static str,
    /// The engine's version.
    pub engine: String,
    /// Requests a second.
    pub rate: u32,
    /// When it began, in seconds since 1970.
    pub began: u64,
    /// How long it took, in seconds.
    pub took: f64,
    /// The cases.
    pub cases: Vec<CaseReport>,
}

impl Report {
    /// Whether every case that was asked for ran and passed. One that was skipped proves nothing.
    pub fn is_clean(&self) -> bool {
        self.cases.iter().all(|case| case.verdict == Verdict::Pass)
    }
}

/// The samples in steps of a quarter of a second.
pub fn timeline(samples: &[Sample]) -> Vec<Tick> {
    let step = |sample: &Sample| (sample.due / STEP).max(0.0) as usize;
    let length = samples.iter().map(step).max().map_or(0, |last| last + 1);
    let mut ticks = vec![Tick::default(); length];
    for sample in samples {
        let tick = &mut ticks[step(sample)];
        if sample.outcome.is_fine() {
            tick.fine += 1;
        } else {
            tick.failed += 1;
        }
        tick.slowest = tick.slowest.max(sample.done - sample.due);
    }
    ticks
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::workload::Outcome;

    pub(crate) fn empty() -> Report {
        Report {
            seed: 1,
            stack: "local",
            engine: "0".to_owned(),
            rate: 60,
            began: 0,
            took: 0.0,
            cases: Vec::new(),
        }
    }

    fn names(value: &serde_json::Value) -> Vec<&str> {
        let mut names: Vec<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    /// Scripts read it, and docs/reliability.md describes it: fields are only ever added.
    #[test]
    fn the_report_has_the_form_that_is_documented() {
        let report =
            Report { cases: vec![skipped(&crate::cases::CASES[0], 1, "a test")], ..empty() };
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(names(&json), ["began", "cases", "engine", "rate", "seed", "stack", "took"]);
        let case = &json["cases"][0];
        let expected = "bound duplicated errors fault_at healed_at kept lost name recovered_after \
                        requests seed slowest timeline verdict violations what window";
        assert_eq!(names(case).join(" "), expected);
        assert_eq!(names(&case["bound"]), ["errors", "recover", "slowest"]);
        assert_eq!(case["verdict"], "skipped");
    }

    #[test]
    fn a_timeline_counts_by_when_requests_were_due() {
        let sample =
            |due: f64, done: f64, outcome| Sample { what: "w", due, sent: due, done, outcome };
        let failed = Outcome::NoAnswer("broken".to_owned());
        let ticks = timeline(&[
            sample(0.1, 0.2, Outcome::Fine),
            sample(0.6, 2.6, failed),
            sample(0.7, 0.8, Outcome::Fine),
        ]);
        assert_eq!(ticks.len(), 3);
        assert_eq!((ticks[0].fine, ticks[1].fine, ticks[2].fine), (1, 0, 1));
        assert_eq!(ticks[2].failed, 1);
        assert!((ticks[2].slowest - 2.0).abs() < 1e-9);
    }
}
