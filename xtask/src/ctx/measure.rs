//! What a command costs: its time, and what the kernel has counted of its processor time and memory.

use std::fs;
use std::io::BufReader;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::param::clock_ticks_per_second;
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use super::invocation::{Invocation, cannot_start, check};
use super::{Ctx, pipe};

/// How often to look: the peak of memory is the kernel's own, so only what came after the last look is
/// missing from it.
const LOOK: Duration = Duration::from_millis(5);

/// What a command has cost.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    pub(crate) time: Duration,
    /// Of the command and of all the programs that it waited for.
    pub(crate) processor: Duration,
    /// The most memory that the command itself had resident, without other programs; bytes.
    pub(crate) peak: u64,
}

impl Ctx {
    /// Runs a command that changes something, quietly, and tells what it cost. A dry run must not come here.
    ///
    /// # Errors
    /// It fails, is interrupted or takes too long; the error has what it said.
    pub(crate) fn measure(&self, command: impl Into<Invocation>) -> Result<Cost> {
        let invocation = command.into();
        self.check_interrupted()?;
        self.ui.echo(&invocation.to_string());
        let (reader, writer) = std::io::pipe().context("make a pipe")?;
        let mut command = invocation.command();
        let second = writer.try_clone().context("make a pipe")?;
        command.stdin(Stdio::null()).stdout(writer).stderr(second).process_group(0);
        let started = Instant::now();
        let mut child = command.spawn().with_context(|| cannot_start(&invocation))?;
        // It holds the writing ends, and `said` would wait for their end.
        drop(command);
        let said = thread::spawn(move || pipe::tail(BufReader::new(reader)));
        let pid = Pid::from_child(&child);
        let mut cost = Cost::default();
        // Not reaped yet when it has ended: until then the kernel keeps the account of its time.
        let seen = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        while waitid(WaitId::Pid(pid), seen).context("wait for a command")?.is_none() {
            cost.peak = cost.peak.max(peak(pid).unwrap_or(0));
            let limit = started + invocation.deadline();
            if let Err(error) = self.check_running(limit, &invocation, || pipe::end(pid)) {
                // Its end was asked for, and nobody is left to be told of it.
                let _ = child.wait();
                return Err(error);
            }
            thread::sleep(LOOK);
        }
        cost.time = started.elapsed();
        cost.processor = processor(pid).context("read the processor time of a command")?;
        let status = child.wait().with_context(|| format!("wait for `{invocation}`"))?;
        let said = said.join().unwrap_or_default();
        check(&invocation, said.into_output(status))?;
        Ok(cost)
    }
}

fn peak(pid: Pid) -> Option<u64> {
    peak_in(&fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).ok()?)
}

fn peak_in(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib << 10)
}

fn processor(pid: Pid) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    let ticks = ticks_in(&stat)?;
    Some(Duration::from_millis(ticks * 1000 / clock_ticks_per_second()))
}

/// Its own time, in the program and in the kernel, and that of the children that it has waited for.
fn ticks_in(stat: &str) -> Option<u64> {
    // The name before it may hold anything, also spaces and brackets.
    let (_, fields) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    fields.get(11..15)?.iter().map(|field| field.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_account_is_understood() {
        assert_eq!(peak_in("Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t 7 kB\n"), Some(2 << 20));
        let stat = "42 (a) b) Z 1 42 42 0 -1 4194560 9 8 7 6 10 20 30 40 20 0 1 0 99";
        assert_eq!(ticks_in(stat), Some(100));
        assert_eq!(ticks_in("42 (x) Z 1"), None);
    }
}
