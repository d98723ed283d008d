//! A run: case after case, on the grounds that they need. A case that fails does not end the run, and
//! does not spoil the next one: the stack is brought up anew before that.

use std::future::Future;

use anyhow::{Context, Result};

use crate::arena::Arena;
use crate::cases::{Case, Ground};
use crate::report::{self, CaseReport, Verdict};
use crate::supervisor::Supervisor;

/// In this order: the machine-wide faults come last.
const ORDER: [Ground; 3] = [Ground::Usual, Ground::SmallVolumes, Ground::Machine];

/// What cases run on.
pub trait Field {
    /// A stack from nothing, whatever was there before.
    fn renew(&mut self, ground: Ground) -> impl Future<Output = Result<()>>;

    /// One case; an error if nothing could be learned from it.
    fn run(&self, case: &Case) -> impl Future<Output = Result<CaseReport>>;
}

/// The real stacks, one at a time.
pub struct Grounds<'a> {
    arena: &'a Arena,
    seed: u64,
    supervisor: Option<Supervisor<'a>>,
    was_up: bool,
}

impl<'a> Grounds<'a> {
    /// No stack is up yet.
    pub fn new(arena: &'a Arena, seed: u64) -> Grounds<'a> {
        Grounds { arena, seed, supervisor: None, was_up: false }
    }
}

impl Field for Grounds<'_> {
    async fn renew(&mut self, ground: Ground) -> Result<()> {
        self.supervisor = None;
        if self.was_up {
            self.arena.down().await?;
        }
        self.was_up = true;
        self.arena.up(ground).await?;
        self.supervisor = Some(Supervisor::begin(self.arena, self.seed).await?);
        Ok(())
    }

    async fn run(&self, case: &Case) -> Result<CaseReport> {
        self.supervisor.as_ref().context("no stack is up")?.run(case).await
    }
}

/// Runs the cases while there is time, and hands each result to `done`. Every case has one: a case that
/// ends in an error has failed, and the others run all the same.
///
/// # Errors
/// `done` fails: what is found could not be kept.
pub async fn cases(
    field: &mut impl Field,
    cases: &[&Case],
    seed: u64,
    has_time: impl Fn() -> bool,
    mut done: impl FnMut(CaseReport) -> Result<()>,
) -> Result<()> {
    for ground in ORDER {
        // What the stack of this ground is like: not there yet, whole, or why it cannot be had.
        let mut is_whole = false;
        for case in cases.iter().filter(|case| case.ground == ground) {
            if !has_time() {
                done(report::skipped(case, seed, "no time was left for it"))?;
                continue;
            }
            if !is_whole && let Err(error) = field.renew(ground).await {
                done(report::failed(case, seed, format!("no stack to run it on: {error:#}")))?;
                continue;
            }
            let result = field.run(case).await;
            let result = result.unwrap_or_else(|error| {
                report::failed(case, seed, format!("nothing could be learned: {error:#}"))
            });
            // A lost write is missing in every case that follows: told once is enough.
            is_whole = result.verdict == Verdict::Pass;
            done(result)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use anyhow::{bail, ensure};

    use super::*;
    use crate::cases::CASES;

    /// A field that fails where it is told to, and writes down what was asked of it.
    #[derive(Default)]
    struct Scripted {
        asked: RefCell<Vec<String>>,
        broken: &'static [&'static str],
        violated: &'static [&'static str],
        no_stack_at: &'static [usize],
        renewed: usize,
    }

    impl Field for Scripted {
        async fn renew(&mut self, _: Ground) -> Result<()> {
            self.renewed += 1;
            self.asked.borrow_mut().push("renew".to_owned());
            ensure!(!self.no_stack_at.contains(&self.renewed), "no engine");
            Ok(())
        }

        async fn run(&self, case: &Case) -> Result<CaseReport> {
            self.asked.borrow_mut().push(case.name.to_owned());
            if self.broken.contains(&case.name) {
                bail!("the fault could not be made");
            }
            let mut report = report::failed(case, 1, "lost");
            if !self.violated.contains(&case.name) {
                report.verdict = Verdict::Pass;
                report.violations.clear();
            }
            Ok(report)
        }
    }

    async fn run_first(count: usize, field: &mut Scripted) -> (Vec<Verdict>, String) {
        let first: Vec<&Case> = CASES.iter().take(count).collect();
        let mut found = Vec::new();
        let done = |report: CaseReport| {
            found.push(report.verdict);
            Ok(())
        };
        cases(field, &first, 1, || true, done).await.unwrap();
        (found, field.asked.borrow().join(" "))
    }

    #[tokio::test]
    async fn cases_that_pass_share_a_stack() {
        let mut field = Scripted::default();
        let (found, asked) = run_first(2, &mut field).await;
        assert_eq!(found, [Verdict::Pass; 2]);
        assert_eq!(asked, "renew kill-backend kill-postgres-backend");
    }

    #[tokio::test]
    async fn a_case_that_fails_or_breaks_does_not_end_the_run_and_the_next_has_a_new_stack() {
        let mut field = Scripted {
            broken: &["kill-backend"],
            violated: &["kill-postgres-backend"],
            ..Scripted::default()
        };
        let (found, asked) = run_first(3, &mut field).await;
        assert_eq!(found, [Verdict::Fail, Verdict::Fail, Verdict::Pass]);
        assert_eq!(asked, "renew kill-backend renew kill-postgres-backend renew kill-postmaster");
    }

    #[tokio::test]
    async fn without_a_stack_a_case_fails_and_the_next_one_tries_again() {
        let mut field = Scripted { no_stack_at: &[1], ..Scripted::default() };
        let (found, asked) = run_first(2, &mut field).await;
        assert_eq!(found, [Verdict::Fail, Verdict::Pass]);
        assert_eq!(asked, "renew renew kill-postgres-backend");
    }

    #[tokio::test]
    async fn a_case_for_which_no_time_is_left_is_told_and_is_no_pass() {
        let left = Cell::new(1);
        let has_time = || left.replace(0) > 0;
        let two: Vec<&Case> = CASES.iter().take(2).collect();
        let mut report = crate::report::tests::empty();
        let done = |case| {
            report.cases.push(case);
            Ok(())
        };
        cases(&mut Scripted::default(), &two, 1, has_time, done).await.unwrap();
        let verdicts: Vec<Verdict> = report.cases.iter().map(|case| case.verdict).collect();
        assert_eq!(verdicts, [Verdict::Pass, Verdict::Skipped]);
        assert!(!report.is_clean());
        let summary = report::summary(&report);
        assert_eq!(summary, "1 of 2 cases passed; not run: kill-postgres-backend");
    }
}
