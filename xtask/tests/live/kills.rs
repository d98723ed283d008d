//! Programs that a test ends before their time, and none that outlives it.

use std::ops::{Deref, DerefMut};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::stand::Stand;

/// A program that ends with the test, also where that fails: a stopped one is woken for it.
pub(crate) struct Started(Option<Child>);

impl Started {
    pub(crate) fn new(command: &mut Command) -> Started {
        Started(Some(command.spawn().unwrap()))
    }

    pub(crate) fn wait_with_output(mut self) -> std::io::Result<Output> {
        self.0.take().unwrap().wait_with_output()
    }
}

impl Deref for Started {
    type Target = Child;

    fn deref(&self) -> &Child {
        self.0.as_ref().unwrap()
    }
}

impl DerefMut for Started {
    fn deref_mut(&mut self) -> &mut Child {
        self.0.as_mut().unwrap()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let Some(child) = &mut self.0 else { return };
        // Once it was waited for, its number may be somebody else's.
        if matches!(child.try_wait(), Ok(None)) {
            let _ = kill_process(Pid::from_child(child), Signal::CONT);
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Moments that the seed decides: it is printed, and `SEED` sets it.
pub(crate) struct Moments {
    state: u64,
}

impl Moments {
    fn new() -> Moments {
        let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
        let state = seed.unwrap_or(20_260_101);
        println!("SEED={state}");
        Moments { state }
    }

    /// A time below `end`, in whole milliseconds.
    fn below(&mut self, end: Duration) -> Duration {
        let (factor, term) = (6_364_136_223_846_793_005, 1_442_695_040_888_963_407);
        self.state = self.state.wrapping_mul(factor).wrapping_add(term);
        Duration::from_millis((self.state >> 33) % end.as_millis().max(1) as u64)
    }
}

/// A verb, killed again and again at moments of its run.
pub(crate) struct Kills {
    moments: Moments,
    /// How long it takes when nothing happens to it, as far as is known.
    pub(crate) whole: Duration,
    /// The part of it in which nothing is killed yet, as a divisor.
    spared: Option<u32>,
    pub(crate) rounds: u32,
    killed: u32,
}

impl Kills {
    /// Carries the verb out once, to know how long it takes.
    pub(crate) fn measured(stand: &Stand, verb: &[&str]) -> Kills {
        let started = Instant::now();
        stand.xtask(verb).ok();
        let whole = started.elapsed();
        Kills { moments: Moments::new(), whole, spared: None, rounds: 0, killed: 0 }
    }

    /// Not in the first third, where nothing can be half done yet.
    pub(crate) fn late(self) -> Kills {
        Kills { spared: Some(3), ..self }
    }

    /// Whether there are still to be some. That a verb ends before its moment again and again is a failure: it then
    /// takes another time whenever it runs.
    #[track_caller]
    pub(crate) fn are_fewer_than(&self, goal: u32) -> bool {
        let is_reached = self.killed >= goal;
        let (killed, rounds) = (self.killed, self.rounds);
        assert!(is_reached || rounds < goal * 3, "only {killed} of {rounds} were killed");
        !is_reached
    }

    /// Starts the verb and kills it, and says after how long; or none where it had ended by then. That one does not
    /// count, and has told how long it takes now: the machine was slower when that was measured.
    #[track_caller]
    pub(crate) fn kill(&mut self, stand: &Stand, verb: &[&str]) -> Option<Duration> {
        let spared = self.spared.map_or(Duration::ZERO, |part| self.whole / part);
        let delay = spared + self.moments.below(self.whole - spared);
        self.rounds += 1;
        let (mut child, started) = (stand.spawn(verb), Instant::now());
        while child.try_wait().unwrap().is_none() && started.elapsed() < delay {
            thread::sleep(Duration::from_millis(2));
        }
        let took = started.elapsed();
        child.kill().unwrap();
        let status = child.wait().unwrap();
        if status.signal() == Some(Signal::KILL.as_raw()) {
            self.killed += 1;
            return Some(delay);
        }
        if !status.success() {
            let output = child.wait_with_output().unwrap();
            panic!("{verb:?} failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        self.whole = took;
        None
    }
}
