//! What people noticed of a deploy: an answer is asked for all the while, and the proxy's log says what
//! visitors got.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::ctx::{Ctx, Invocation};
use crate::stack::green::Green;
use crate::ui;

/// The proxy keeps lines of its log for a second, so that it writes several at once.
const LOG_DELAY: Duration = Duration::from_millis(1200);
/// Longer than a question waits for its answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(8);
const LOOK: Duration = Duration::from_millis(100);
/// What a new version may do worse: one answer in so many, and a few more than that. A single one of a quiet
/// site may be chance, or be refused on purpose.
const TOLERATED: u64 = 100;
const A_FEW: u64 = 2;
/// By which the questions of a deploy are told from visitors.
const OUR_AGENT: &str = "xtask-deploy";

/// Questions through the proxy, one after the other, for as long as it lives.
pub(super) struct Probes {
    end: Arc<AtomicBool>,
    lines: Receiver<String>,
    /// How many were asked.
    pub(super) asked: u64,
    /// Those that got no answer, or one of a server that failed.
    pub(super) failed: u64,
    /// What the first of them got.
    pub(super) first_failure: Option<String>,
}

impl Probes {
    /// Begins to ask.
    pub(super) fn start(ctx: &Ctx, green: &Green, words: &[String]) -> Probes {
        let end = Arc::new(AtomicBool::new(false));
        let (sender, lines) = channel();
        let (ctx, command, is_over) = (ctx.clone(), green.in_proxy(words), end.clone());
        thread::spawn(move || {
            // Each call asks for a while and ends by itself, whatever becomes of this process.
            while !is_over.load(Ordering::Relaxed) && ctx.check_interrupted().is_ok() {
                let Ok(follow) = ctx.follow(command.clone()) else { return };
                for line in follow.lines.iter() {
                    if is_over.load(Ordering::Relaxed) || sender.send(line).is_err() {
                        return;
                    }
                }
            }
        });
        Probes { end, lines, asked: 0, failed: 0, first_failure: None }
    }

    /// What failed until now was the old version's fault, and no word on the new one.
    pub(super) fn forgive(&mut self) {
        (self.failed, self.first_failure) = (0, None);
    }

    /// Waits for one answer that is none of a server's fault.
    ///
    /// # Errors
    /// None comes for as long as a question may take; or Ctrl-C.
    pub(super) fn expect_an_answer(&mut self, ctx: &Ctx) -> Result<()> {
        let fine = self.asked - self.failed;
        self.wait(ctx, |probes| probes.asked - probes.failed > fine)?;
        ensure!(
            self.asked - self.failed > fine,
            "no request through the proxy was answered for {}{}",
            ui::seconds(ANSWER_LIMIT),
            self.first_failure.as_ref().map_or_else(String::new, |first| format!(" ({first})"))
        );
        Ok(())
    }

    /// Whether questions fail already, before anything is changed.
    ///
    /// # Errors
    /// Ctrl-C.
    pub(super) fn are_failing(&mut self, ctx: &Ctx) -> Result<bool> {
        self.wait(ctx, |probes| probes.asked > 0)?;
        Ok(self.failed > 0)
    }

    /// Counts until something is so, for as long as one question may take.
    fn wait(&mut self, ctx: &Ctx, is_so: impl Fn(&Probes) -> bool) -> Result<()> {
        let end = Instant::now() + ANSWER_LIMIT;
        self.count();
        while Instant::now() < end && !is_so(self) {
            ctx.pause(LOOK)?;
            self.count();
        }
        Ok(())
    }

    /// Counts the answers that came since the last time.
    pub(super) fn count(&mut self) {
        while let Ok(line) = self.lines.try_recv() {
            // What is no status is a word of the engine's client, which is no answer.
            let Some(status) = status(&line) else { continue };
            self.asked += 1;
            if is_failure(status) {
                self.failed += 1;
                self.first_failure.get_or_insert(line);
            }
        }
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
    }
}

/// Three digits; 000 is no answer.
fn status(line: &str) -> Option<u16> {
    let line = line.trim();
    (line.len() == 3).then(|| line.parse().ok()).flatten()
}

/// No answer, or one of a server's fault (RFC 9110, 15.6).
fn is_failure(status: u16) -> bool {
    !matches!(status, 100..500)
}

/// How many requests were answered, and how many of the answers were a server's fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Answers {
    pub(super) total: u64,
    pub(super) failed: u64,
}

impl Answers {
    /// Whether a greater share failed than of `before`, by more than chance.
    pub(super) fn is_worse_than(self, before: Answers) -> bool {
        // failed > total * (before.failed / before.total + 1 / TOLERATED) + A_FEW, without a division.
        let base = before.total.max(1);
        let expected = self.total * (before.failed * TOLERATED + base);
        self.failed * base * TOLERATED > expected + A_FEW * base * TOLERATED
    }
}

/// A line of the proxy's log, which is JSON: see deploy/nginx/nginx.conf.
#[derive(Deserialize)]
struct Line {
    status: String,
    upstream: String,
    agent: String,
}

/// What visitors got between two moments: from one place (`ADDRESS:PORT`), or from any.
///
/// # Errors
/// The engine does not give the log out.
pub(super) fn visitors(
    ctx: &Ctx,
    proxy: &str,
    from: SystemTime,
    to: SystemTime,
    place: Option<&str>,
) -> Result<Answers> {
    let time = |moment| humantime::format_rfc3339_millis(moment).to_string();
    // By the engine's clock, at which a line came.
    let (from, to) = (time(from), time(to + LOG_DELAY));
    let words = ["logs", "--since", &from, "--until", &to, proxy];
    let log = ctx.read(Invocation::new("docker").args(words)).context("read the proxy's log")?;
    Ok(count(&log, place))
}

/// Waits until the log has all that was answered before now.
///
/// # Errors
/// Ctrl-C.
pub(super) fn let_the_log_come(ctx: &Ctx) -> Result<()> {
    ctx.pause(LOG_DELAY)
}

fn count(log: &str, place: Option<&str>) -> Answers {
    let mut answers = Answers::default();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
    let is_from = |line: &Line| match place {
        Some(place) => line.upstream.split(", ").any(|one| one == place),
        None => !line.upstream.is_empty(),
    };
    for line in lines.filter(|line| line.agent != OUR_AGENT && is_from(line)) {
        answers.total += 1;
        answers.failed += u64::from(line.status.starts_with('5'));
    }
    answers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_none_or_a_servers_fault_is_a_failure() {
        for fine in ["200", "401", "404", "429\n"] {
            assert_eq!(status(fine).map(is_failure), Some(false), "{fine}");
        }
        for failure in ["000", "502", "503"] {
            assert_eq!(status(failure).map(is_failure), Some(true), "{failure}");
        }
        for word in ["WARNING: Error loading config file", ""] {
            assert_eq!(status(word), None, "{word}");
        }
    }

    #[test]
    fn a_version_is_worse_if_more_fails_than_before_by_more_than_chance() {
        let of = |failed, total| Answers { total, failed };
        assert!(!of(0, 0).is_worse_than(of(0, 0)));
        assert!(!of(0, 50).is_worse_than(of(5, 100)));
        // Of few requests, two may be chance.
        assert!(!of(2, 3).is_worse_than(of(0, 0)));
        assert!(of(3, 3).is_worse_than(of(0, 0)));
        assert!(of(3, 50).is_worse_than(of(0, 1000)));
        // Of many, one in a hundred may; and what failed before fails again.
        assert!(!of(12, 1000).is_worse_than(of(0, 1000)));
        assert!(of(13, 1000).is_worse_than(of(0, 1000)));
        assert!(!of(62, 1000).is_worse_than(of(50, 1000)));
        assert!(of(63, 1000).is_worse_than(of(50, 1000)));
    }

    #[test]
    fn the_proxys_log_tells_what_came_from_where() {
        let line = |status: &str, upstream: &str, agent: &str| {
            format!(r#"{{"status":"{status}","upstream":"{upstream}","agent":"{agent}","more":1}}"#)
        };
        let log = [
            line("200", "10.0.0.2:3000", "firefox"),
            line("502", "10.0.0.2:3000, 10.0.0.3:3000", "firefox"),
            line("500", "10.0.0.3:3000", "xtask-deploy"),
            line("200", "", "firefox"),
            "2026/11/28 [notice] 7#7: signal process started".to_owned(),
        ]
        .join("\n");
        assert_eq!(count(&log, None), Answers { total: 2, failed: 1 });
        assert_eq!(count(&log, Some("10.0.0.3:3000")), Answers { total: 1, failed: 1 });
        assert_eq!(count(&log, Some("10.0.0.3:30")), Answers::default());
    }
}
