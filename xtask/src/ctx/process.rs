//! Running children: followed line by line, and ended with everything that they started.

use std::io::{BufRead, BufReader};
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use duct::Handle;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group};

use super::Ctx;
use super::invocation::{Invocation, cannot_start};

/// How long a child may take to end after SIGTERM before it gets SIGKILL.
pub(super) const TERM_GRACE: Duration = Duration::from_secs(10);
/// How long the kernel may take to end it after SIGKILL.
const KILL_GRACE: Duration = Duration::from_secs(5);

/// A running command whose lines arrive on a channel. Dropping it ends the command.
pub(crate) struct Follow {
    handle: Arc<Handle>,
    command: String,
    /// Standard output and standard error, line by line; closed when the command has ended.
    pub(crate) lines: Receiver<String>,
}

impl Follow {
    pub(super) fn start(ctx: &Ctx, invocation: &Invocation) -> Result<Follow> {
        ctx.check_interrupted()?;
        let (reader, writer) = std::io::pipe().context("make a pipe")?;
        let handle = invocation
            .expression()
            .stdin_bytes(invocation.stdin.clone())
            .stderr_to_stdout()
            .stdout_file(writer)
            .start()
            .with_context(|| cannot_start(invocation))?;
        let (sender, lines) = channel();
        thread::spawn(move || {
            let mut reader = BufReader::new(reader);
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                line.clear();
                if sender.send(text).is_err() {
                    break;
                }
            }
        });
        Ok(Follow { handle: Arc::new(handle), command: invocation.to_string(), lines })
    }

    /// How it ended, if it does so in time.
    pub(super) fn ended_within(&self, time: Duration) -> Result<Option<ExitStatus>> {
        let ended = self.handle.wait_timeout(time);
        let ended = ended.with_context(|| format!("wait for `{}`", self.command))?;
        Ok(ended.map(|output| output.status))
    }

    pub(super) fn end(&self) {
        end_group(&self.handle);
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        if !matches!(self.handle.try_wait(), Ok(Some(_))) {
            self.end();
        }
    }
}

/// Ends a child and whatever it has started: SIGTERM, then SIGKILL after a grace period.
pub(super) fn end_group(handle: &Handle) {
    let groups: Vec<Pid> =
        handle.pids().into_iter().filter_map(|pid| Pid::from_raw(pid as i32)).collect();
    let send = |signal| {
        for &group in &groups {
            // A group that has ended already is what we want; what runs through sudo is root's.
            if kill_process_group(group, signal) == Err(Errno::PERM) {
                kill_as_root(group, signal);
            }
        }
    };
    send(Signal::TERM);
    if !matches!(handle.wait_timeout(TERM_GRACE), Ok(Some(_))) {
        send(Signal::KILL);
        let _ = handle.wait_timeout(KILL_GRACE);
    }
}

fn kill_as_root(group: Pid, signal: Signal) {
    let target = format!("-{}", group.as_raw_nonzero());
    let signal = format!("-{}", signal.as_raw());
    let kill = duct::cmd("sudo", ["--non-interactive", "kill", &signal, "--", &target]);
    if let Ok(kill) = kill.unchecked().stdin_null().stdout_null().stderr_null().start() {
        let _ = kill.wait_timeout(KILL_GRACE);
    }
}
