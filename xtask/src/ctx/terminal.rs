//! What needs the person's terminal: questions, and programs that get it.

use std::io::{IsTerminal, Write};
use std::process::{Child, ExitStatus};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};

use super::invocation::{Invocation, cannot_start, over_time};
use super::process::TERM_GRACE;
use super::{Ctx, Interrupted, TICK};

/// How often the end of a program is looked for while a person waits for it.
const HANDED_OVER_TICK: Duration = Duration::from_millis(10);

impl Ctx {
    /// Gives the terminal to a program (psql, a shell, a log that is followed) until it ends. It has
    /// no deadline but one that is set: a person sits in front of it.
    pub(crate) fn hand_over(&self, command: impl Into<Invocation>) -> Result<ExitStatus> {
        let invocation = command.into();
        if !self.announced(&invocation) {
            return Ok(ExitStatus::default());
        }
        // xshell and duct would close or redirect the standard streams.
        let mut child = invocation.command().spawn().with_context(|| cannot_start(&invocation))?;
        let deadline = invocation.limit.map(|limit| Instant::now() + limit);
        loop {
            if let Some(status) = child.try_wait().with_context(|| cannot_start(&invocation))? {
                return Ok(status);
            }
            if self.terminated.load(Ordering::Relaxed) {
                end_handed_over(&mut child);
                return Err(Interrupted.into());
            }
            // The terminal sent Ctrl-C to the program, too; it was not meant for us.
            self.interrupted.store(false, Ordering::Relaxed);
            if deadline.is_some_and(|deadline| Instant::now() > deadline) {
                end_handed_over(&mut child);
                bail!("{}", over_time(&invocation));
            }
            thread::sleep(HANDED_OVER_TICK);
        }
    }

    /// Whether consent is at hand without asking: `--yes`, or `CI=true`.
    pub(crate) fn has_consent(&self) -> bool {
        self.options.yes || std::env::var_os("CI").is_some_and(|value| value == "true")
    }

    /// Asks before data is deleted. `--yes` alone is consent: a server that sets `CI=true` has not
    /// said a word about data.
    pub(crate) fn confirm_loss(&self, question: &str, instead: &str) -> Result<()> {
        if self.options.yes || self.options.dry_run { Ok(()) } else { self.ask(question, instead) }
    }

    /// Asks before something that reaches beyond the project.
    ///
    /// Without a terminal and without consent it fails, and `instead` says what to run.
    pub(crate) fn confirm(&self, question: &str, instead: &str) -> Result<()> {
        if self.has_consent() || self.options.dry_run {
            return Ok(());
        }
        self.ask(question, instead)
    }

    fn ask(&self, question: &str, instead: &str) -> Result<()> {
        if !std::io::stdin().is_terminal() {
            bail!("{question} needs consent, and there is no terminal to ask on; {instead}");
        }
        let mut screen = std::io::stderr().lock();
        write!(screen, "{question}? [y/N] ").and_then(|()| screen.flush()).context("ask")?;
        drop(screen);
        self.wait_for_an_answer()?;
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer).context("read the answer")?;
        self.check_interrupted()?;
        if matches!(answer.trim(), "y" | "Y" | "yes") {
            return Ok(());
        }
        bail!("{question}: not confirmed, so nothing was changed");
    }

    /// Until a line was typed. A read alone would go on after Ctrl-C, which only sets a flag.
    fn wait_for_an_answer(&self) -> Result<()> {
        let tick = Timespec { tv_sec: 0, tv_nsec: TICK.subsec_nanos().into() };
        let stdin = std::io::stdin();
        loop {
            if self.check_interrupted().is_err() {
                crate::ui::talk("");
            }
            self.check_interrupted()?;
            let mut typed = [PollFd::new(&stdin, PollFlags::IN)];
            match poll(&mut typed, Some(&tick)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(error).context("wait for the answer"),
            }
        }
    }
}

/// Ends a program that has the terminal: it shares our process group, so it is signalled alone.
fn end_handed_over(child: &mut Child) {
    // Gone already is what is wanted.
    let _ = kill_process(Pid::from_child(child), Signal::TERM);
    let deadline = Instant::now() + TERM_GRACE;
    while Instant::now() < deadline {
        if !matches!(child.try_wait(), Ok(None)) {
            return;
        }
        thread::sleep(TICK);
    }
    let _ = child.kill();
    let _ = child.wait();
}
