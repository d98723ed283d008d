//! Commands whose streams are ours: what a server writes is read here byte by byte, and what it
//! is to read is written here, so that a pipeline is a few Rust readers and writers between two
//! commands, and each command's own end is looked at. A shell would forget all but the last.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process_group};

use super::invocation::{Invocation, Output, Tail, cannot_start, check, over_time};
use super::process::TERM_GRACE;
use super::{Ctx, Interrupted, TICK};

/// A running command whose standard input and output are pipes of ours. Dropping it ends it.
pub(crate) struct Pipe {
    invocation: Invocation,
    child: Child,
    said: Option<JoinHandle<Tail>>,
    watch: Arc<Watch>,
}

/// Shared with the thread that ends the command at its deadline or after a Ctrl-C.
#[derive(Default)]
struct Watch {
    is_over: AtomicBool,
    ended_by: Mutex<Option<Reason>>,
}

#[derive(Clone, Copy)]
enum Reason {
    Interrupt,
    Deadline,
}

impl Ctx {
    /// Starts a command with pipes to it and from it. It changes something or it does not: a dry
    /// run must not come here.
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) fn pipe(&self, command: impl Into<Invocation>) -> Result<Pipe> {
        let invocation = command.into();
        self.check_interrupted()?;
        self.ui.echo(&invocation.to_string());
        let mut command = invocation.command();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0);
        let mut child = command.spawn().with_context(|| cannot_start(&invocation))?;
        let stderr = child.stderr.take().context("open a pipe for errors")?;
        let said = thread::spawn(move || tail(BufReader::new(stderr)));
        let watch = Arc::new(Watch::default());
        let (ctx, watched, limit) = (self.clone(), watch.clone(), invocation.deadline());
        let pid = Pid::from_child(&child);
        thread::spawn(move || watch_over(&ctx, pid, &watched, limit));
        Ok(Pipe { invocation, child, said: Some(said), watch })
    }
}

impl Pipe {
    /// What the command writes. A read fails when it writes nothing for as long as `patience`.
    ///
    /// # Errors
    /// It was taken already.
    pub(crate) fn output(&mut self, patience: Duration) -> Result<Patient> {
        let from = self.child.stdout.take().context("the output was taken already")?;
        Ok(Patient { from, patience })
    }

    /// What the command reads. It sees the end of its input when this is dropped.
    ///
    /// # Errors
    /// It was taken already.
    pub(crate) fn input(&mut self) -> Result<ChildStdin> {
        self.child.stdin.take().context("the input was taken already")
    }

    /// Waits for the end of the command.
    ///
    /// # Errors
    /// It failed, was interrupted, or took too long; the error has what it said.
    pub(crate) fn finish(mut self) -> Result<()> {
        // Else a command that reads would wait for us.
        drop(self.child.stdin.take());
        let mut stdout = Vec::new();
        if let Some(mut rest) = self.child.stdout.take() {
            rest.read_to_end(&mut stdout).context("read the end of the output")?;
        }
        let status = self.child.wait();
        self.watch.is_over.store(true, Ordering::Relaxed);
        let status = status.with_context(|| format!("wait for `{}`", self.invocation))?;
        let said = self.said.take().and_then(|said| said.join().ok()).unwrap_or_default();
        match *self.watch.ended_by.lock().unwrap_or_else(std::sync::PoisonError::into_inner) {
            Some(Reason::Interrupt) => return Err(Interrupted.into()),
            Some(Reason::Deadline) => bail!("{}", over_time(&self.invocation)),
            None => {}
        }
        let stdout = String::from_utf8_lossy(&stdout).into_owned();
        check(&self.invocation, Output { stdout, ..said.into_output(status) }).map(drop)
    }

    /// What went wrong when our side of a pipe failed: what the command itself says comes first,
    /// because a broken pipe is only the echo of it.
    pub(crate) fn explain(self, ours: Error) -> Error {
        let is_echo = ours.root_cause().downcast_ref::<io::Error>().is_some_and(|error| {
            matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof)
        });
        if !is_echo {
            return ours;
        }
        match self.finish() {
            Err(theirs) => theirs,
            Ok(()) => ours,
        }
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        if !self.watch.is_over.load(Ordering::Relaxed) {
            end(Pid::from_child(&self.child));
            // Reaped, so that its number is not anybody else's before the watch ends.
            let _ = self.child.wait();
            self.watch.is_over.store(true, Ordering::Relaxed);
        }
    }
}

/// The output of a command, which has to come in time.
pub(crate) struct Patient {
    from: ChildStdout,
    patience: Duration,
}

impl Read for Patient {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let patience = Timespec::try_from(self.patience).map_err(io::Error::other)?;
        let mut wanted = [PollFd::new(&self.from, PollFlags::IN)];
        if poll(&mut wanted, Some(&patience))? == 0 {
            let waited = crate::ui::seconds(self.patience);
            let error = format!("nothing came for {waited}");
            return Err(io::Error::new(io::ErrorKind::TimedOut, error));
        }
        self.from.read(buffer)
    }
}

/// A conversation with a program that answers each request with a line or more, such as psql.
pub(crate) struct Talk {
    pipe: Pipe,
    input: ChildStdin,
    output: BufReader<Patient>,
}

impl Talk {
    /// # Errors
    /// The program cannot be started.
    pub(crate) fn start(ctx: &Ctx, command: Invocation, patience: Duration) -> Result<Talk> {
        let mut pipe = ctx.pipe(command)?;
        let input = pipe.input()?;
        let output = BufReader::new(pipe.output(patience)?);
        Ok(Talk { pipe, input, output })
    }

    /// Sends a request and returns the first line that comes back.
    ///
    /// # Errors
    /// The program has ended, or says nothing in time.
    pub(crate) fn ask(&mut self, request: &str) -> Result<String> {
        writeln!(self.input, "{request}")?;
        self.hear()
    }

    /// Another line of the answer.
    ///
    /// # Errors
    /// The same.
    pub(crate) fn hear(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        Ok(line.trim_end().to_owned())
    }

    /// How long the program may take for its next lines.
    pub(crate) fn set_patience(&mut self, patience: Duration) {
        self.output.get_mut().patience = patience;
    }

    /// Ends the conversation and the program.
    ///
    /// # Errors
    /// The program failed.
    pub(crate) fn finish(self) -> Result<()> {
        drop(self.input);
        self.pipe.finish()
    }

    /// See [`Pipe::explain`].
    pub(crate) fn explain(self, ours: Error) -> Error {
        drop(self.input);
        self.pipe.explain(ours)
    }
}

fn watch_over(ctx: &Ctx, pid: Pid, watch: &Watch, limit: Duration) {
    let deadline = Instant::now() + limit;
    while !watch.is_over.load(Ordering::Relaxed) {
        let reason = match ctx.check_interrupted() {
            Err(_) => Some(Reason::Interrupt),
            Ok(()) if Instant::now() > deadline => Some(Reason::Deadline),
            Ok(()) => None,
        };
        if reason.is_some() {
            *watch.ended_by.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = reason;
            return end(pid);
        }
        thread::sleep(TICK);
    }
}

/// SIGTERM to the command and all that it started, then SIGKILL.
pub(super) fn end(group: Pid) {
    let _ = kill_process_group(group, Signal::TERM);
    let until = Instant::now() + TERM_GRACE;
    while Instant::now() < until {
        thread::sleep(TICK);
        // Gone, or a zombie that waits for us: both are what is wanted.
        if !is_alive(group) {
            return;
        }
    }
    let _ = kill_process_group(group, Signal::KILL);
}

fn is_alive(pid: Pid) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    stat.is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or_default().starts_with(" Z"))
}

pub(super) fn tail(from: impl BufRead) -> Tail {
    let mut tail = Tail::default();
    for line in from.split(b'\n').map_while(Result::ok) {
        tail.push(String::from_utf8_lossy(&line).trim_end().to_owned());
    }
    tail
}
