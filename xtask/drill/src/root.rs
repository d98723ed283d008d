//! What only root of this machine may do: signals to processes of containers, and whatever else is done to them
//! from outside. Who may use the engine may do all that too, through a container with every right whose root
//! is the machine's own, so that nobody needs sudo for a drill.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use tokio::time::{Instant, sleep};

use crate::docker::run;
use crate::stack::Stack;
use crate::undo::Undo;

/// A signal is sent within a moment, and the container that sends it started within a second.
const LIMIT: Duration = Duration::from_secs(60);
/// Memory is given back before a process is gone.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// A shell with root's rights on this machine.
#[derive(Clone, Debug)]
pub enum Root {
    /// The drill runs as root.
    Own,
    /// The engine gives them, in a container of an image that is here and for a stack's label.
    Engine {
        /// The image: anything that has `chroot`.
        image: String,
        /// The label of the stack that the container goes away with.
        label: String,
    },
}

impl Root {
    /// Root's rights as this user has them, for a stack that is up.
    ///
    /// # Errors
    /// The engine does not answer.
    pub async fn new(stack: &Stack) -> Result<Root> {
        if geteuid().is_root() {
            return Ok(Root::Own);
        }
        let image = stack.inspect("redis", "{{.Image}}").await?;
        Ok(Root::Engine { image, label: stack.label() })
    }

    /// The program and its arguments that carry out a line of shell as root.
    pub fn words(&self, script: &str) -> Vec<String> {
        let shell = ["sh", "-c", script];
        let words: Vec<&str> = match self {
            Root::Own => shell.to_vec(),
            Root::Engine { image, label } => {
                // Processes and control groups are the machine's, and so is the file system.
                let rights = "--privileged --pid=host --cgroupns=host --userns=host --network=none";
                ["docker", "run", "--rm", "--interactive", "--volume=/:/host"]
                    .into_iter()
                    .chain(rights.split(' '))
                    .chain(["--label", label, "--user=0", "--workdir=/", "--entrypoint=chroot"])
                    .chain([image, "/host"])
                    .chain(shell)
                    .collect()
            }
        };
        words.into_iter().map(str::to_owned).collect()
    }

    /// The same as a command that is yet to be started.
    pub fn command(&self, script: &str) -> Command {
        let words = self.words(script);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command
    }

    /// Carries out a line of shell as root, and returns what it printed.
    ///
    /// # Errors
    /// It fails, or takes longer than a minute.
    pub async fn run(&self, script: &str) -> Result<String> {
        let words = self.words(script);
        let args: Vec<&str> = words[1..].iter().map(String::as_str).collect();
        run(&words[0], &args, LIMIT).await
    }

    /// Sends a signal to processes of containers: the engine does not know, so its restart policy stays
    /// armed (`docker kill` would disarm it).
    ///
    /// # Errors
    /// One of them is not there; the others got it.
    pub async fn signal(&self, pids: &[i32], signal: Signal) -> Result<()> {
        let context = || format!("send {signal:?} to {pids:?}");
        if matches!(self, Root::Own) {
            let send = |pid: &i32| {
                let process = Pid::from_raw(*pid).context("a process has a number")?;
                kill_process(process, signal).with_context(context)
            };
            return pids.iter().map(send).fold(Ok(()), Result::and);
        }
        let script = format!("kill -{} {}", signal.as_raw(), spaced(pids));
        self.run(&script).await.with_context(context).map(drop)
    }

    /// Sends SIGKILL and waits until the process has ended.
    ///
    /// # Errors
    /// It lives on.
    pub async fn kill(&self, pid: i32) -> Result<()> {
        self.signal(&[pid], Signal::KILL).await?;
        let deadline = Instant::now() + KILL_LIMIT;
        while !matches!(state(pid), None | Some('Z' | 'X')) {
            ensure!(Instant::now() < deadline, "process {pid} lives on after SIGKILL");
            sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}

fn spaced(pids: &[i32]) -> String {
    pids.iter().map(i32::to_string).collect::<Vec<_>>().join(" ")
}

/// What the kernel says a process does, by its letter: `T` if it is stopped, `Z` if only its number is
/// left; none if it is gone.
pub fn state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it is in parentheses, and may hold any character.
    stat.rsplit_once(") ")?.1.chars().next()
}

/// Processes that are stopped until this is dropped, however the drill ends.
pub struct Stopped {
    pids: Vec<i32>,
    undo: Undo,
}

impl Stopped {
    /// Stops them.
    ///
    /// # Errors
    /// One cannot be stopped; those that were go on.
    pub async fn new(root: &Root, pids: Vec<i32>) -> Result<Stopped> {
        let mut stopped = Stopped { pids: Vec::new(), undo: Undo::as_root(root)? };
        stopped.stop(root, &pids).await?;
        Ok(stopped)
    }

    async fn stop(&mut self, root: &Root, pids: &[i32]) -> Result<()> {
        self.undo.promise(&format!("kill -CONT {} 2>/dev/null", spaced(pids)))?;
        self.pids.extend(pids);
        root.signal(pids, Signal::STOP).await
    }

    /// Whether all of them stand still, as the kernel sees it.
    ///
    /// # Errors
    /// One does not, or has ended: the fault that was meant is not there.
    pub fn ensure_still(&self) -> Result<()> {
        for &pid in &self.pids {
            let state = state(pid);
            // The engine's probes end by themselves when they are killed for being late.
            let is_still = matches!(state, Some('T' | 'Z') | None);
            ensure!(is_still, "process {pid} is {state:?}, and not stopped");
        }
        let first = self.pids.first().and_then(|pid| state(*pid));
        ensure!(first == Some('T'), "the first process is {first:?}, and not stopped");
        Ok(())
    }

    /// Stops every process of a service, those too that start while it does so.
    ///
    /// # Errors
    /// The service does not run.
    pub async fn all_of(root: &Root, stack: &Stack, service: &str) -> Result<Stopped> {
        let mut stopped = Stopped::new(root, vec![stack.pid(service).await?]).await?;
        loop {
            let running = stack.processes(service).await?.into_iter().map(|(pid, _)| pid);
            let new: Vec<i32> = running.filter(|pid| !stopped.pids.contains(pid)).collect();
            if new.is_empty() {
                return Ok(stopped);
            }
            // The engine's probes come and go; one that has ended needs no stopping.
            let _ = stopped.stop(root, &new).await;
        }
    }
}
