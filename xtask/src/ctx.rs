//! The only door to the outside world: every external program, every question and every wait
//! passes here. Echo, dry run, time-outs and Ctrl-C live in this file and nowhere else.
//!
//! Commands are values ([`Invocation`], usually written with `xshell::cmd!`); pure code builds
//! them and this gate carries them out. A function that is not given a [`Ctx`] cannot touch the
//! world, and can be unit-tested.

mod invocation;
mod measure;
mod pipe;
mod process;
mod terminal;

use std::fmt;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

pub(crate) use self::invocation::{Invocation, Output};
use self::invocation::{Tail, cannot_start, check, how_it_ended, over_time};
pub(crate) use self::measure::Cost;
pub(crate) use self::pipe::{Patient, Pipe, Talk};
pub(crate) use self::process::Follow;
use self::process::end_group;
use crate::ui::{Step, Ui};

/// How long the engine may take to answer on its socket.
const ENGINE_LIMIT: Duration = Duration::from_secs(10);
/// How often a wait looks at the interrupt flag.
const TICK: Duration = Duration::from_millis(50);

/// The person pressed Ctrl-C, or the process was told to end. Exit code 130.
#[derive(Debug)]
pub(crate) struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted; run the same command again to go on from here")
    }
}
impl std::error::Error for Interrupted {}

/// The command line asked for something that cannot be; nothing was done. Exit code 2.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl std::error::Error for Usage {}

/// What the person asked for, for every command alike.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    /// Consent to everything that would be asked.
    pub(crate) yes: bool,
    /// Print what would be done, and change nothing.
    pub(crate) dry_run: bool,
}

/// The capability to act on the world. Shared by threads.
#[derive(Clone)]
pub(crate) struct Ctx {
    root: PathBuf,
    program: PathBuf,
    options: Options,
    interrupted: Arc<AtomicBool>,
    /// SIGTERM or SIGHUP came. The terminal sends Ctrl-C to a program that was handed over as well; these it
    /// does not hear of.
    terminated: Arc<AtomicBool>,
    pub(crate) ui: Ui,
}

impl Ctx {
    /// Opens the door for the project in `root` and starts to listen for Ctrl-C.
    pub(crate) fn new(root: PathBuf, options: Options, ui: Ui) -> Result<Ctx> {
        let interrupted = Arc::new(AtomicBool::new(false));
        // Children are in groups of their own: they do not hear of a terminal that is closed, and would go on
        // without the lock. With `nohup` nobody is to hear of it.
        let hangup = (!ignores_hangup()).then_some(SIGHUP);
        for signal in [SIGINT, SIGTERM].into_iter().chain(hangup) {
            // Registered first, so that a second signal ends the process at once.
            signal_hook::flag::register_conditional_shutdown(signal, 130, interrupted.clone())
                .and_then(|_| signal_hook::flag::register(signal, interrupted.clone()))
                .context("listen for Ctrl-C")?;
        }
        let terminated = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM].into_iter().chain(hangup) {
            signal_hook::flag::register(signal, terminated.clone())
                .context("listen for the end")?;
        }
        // Asked for at the start: a rebuild of xtask while it runs would change the answer.
        let program = std::env::current_exe().context("find the program's own file")?;
        Ok(Ctx { root, program, options, interrupted, terminated, ui })
    }

    /// The project's root folder.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A folder for what xtask remembers between runs; everything in it can be made anew.
    pub(crate) fn state_dir(&self) -> PathBuf {
        self.root.join("target/xtask")
    }

    /// A shell for `cmd!`, standing in the project's root.
    pub(crate) fn shell(&self) -> Result<xshell::Shell> {
        let shell = xshell::Shell::new().context("open a shell")?;
        shell.change_dir(&self.root);
        Ok(shell)
    }

    pub(crate) fn is_dry_run(&self) -> bool {
        self.options.dry_run
    }

    /// The same capability, deaf to a Ctrl-C that came before: for cleaning up after one.
    pub(crate) fn shielded(&self) -> Ctx {
        Ctx { interrupted: Arc::new(AtomicBool::new(false)), ..self.clone() }
    }

    /// The same capability, which acts in a dry run too: for a scratch copy that is made for the dry
    /// run and removed by it. Nothing that was there before may be touched through it.
    pub(crate) fn on_scratch(&self) -> Ctx {
        Ctx { options: Options { dry_run: false, ..self.options }, ..self.clone() }
    }

    /// This program's own file, for commands that run it on another stack.
    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// Fails once Ctrl-C was pressed: long loops call it.
    pub(crate) fn check_interrupted(&self) -> Result<()> {
        if self.interrupted.load(Ordering::Relaxed) { Err(Interrupted.into()) } else { Ok(()) }
    }

    /// Whether a program is on PATH, and where.
    pub(crate) fn find(&self, program: &str) -> Option<PathBuf> {
        which::which(program).ok()
    }

    /// Runs a command that only looks, dry run or not, and returns its standard output.
    pub(crate) fn read(&self, command: impl Into<Invocation>) -> Result<String> {
        let invocation = command.into();
        let output = self.try_read(invocation.clone())?;
        check(&invocation, output).map(|output| output.stdout)
    }

    /// Like [`Ctx::read`], for output that nobody may see: if the command fails, the error has what it
    /// said on its standard error, and nothing else.
    pub(crate) fn read_secret(&self, command: impl Into<Invocation>) -> Result<String> {
        let invocation = command.into();
        let mut output = self.try_read(invocation.clone())?;
        if !output.status.success() && !output.stdout.is_empty() {
            "what it printed is not shown: it may be secret".clone_into(&mut output.stdout);
        }
        check(&invocation, output).map(|output| output.stdout)
    }

    /// Like [`Ctx::read`], but a failure of the command is a value and not an error.
    pub(crate) fn try_read(&self, command: impl Into<Invocation>) -> Result<Output> {
        let invocation = command.into();
        self.ui.echo(&invocation.to_string());
        self.capture(&invocation)
    }

    /// Runs a command that changes something, quietly; its output is in the error if it fails.
    pub(crate) fn run(&self, command: impl Into<Invocation>) -> Result<()> {
        let invocation = command.into();
        if !self.announced(&invocation) {
            return Ok(());
        }
        check(&invocation, self.capture(&invocation)?).map(drop)
    }

    /// Runs a command that changes something and takes a while: its last line of output is the
    /// note of `step`, and its last forty lines are in the error if it fails.
    pub(crate) fn run_step(&self, step: &Step, command: impl Into<Invocation>) -> Result<()> {
        let invocation = command.into();
        if !self.announced(&invocation) {
            return Ok(());
        }
        let verbose = self.ui.is_verbose();
        let mut tail = Tail::default();
        let status = self.stream(&invocation, |line| {
            if verbose {
                self.ui.say(format!("  {} | {line}", step.label()));
            }
            step.note(&line);
            tail.push(line);
        })?;
        check(&invocation, tail.into_output(status)).map(drop)
    }

    /// Runs a command that changes something and prints every line of its output, as it comes.
    pub(crate) fn run_loud(&self, command: impl Into<Invocation>) -> Result<()> {
        let invocation = command.into();
        if !self.announced(&invocation) {
            return Ok(());
        }
        let mut tail = Tail::default();
        let status = self.stream(&invocation, |line| {
            self.ui.say(&line);
            tail.push(line);
        })?;
        if self.ui.is_quiet() {
            return check(&invocation, tail.into_output(status)).map(drop);
        }
        if !status.success() {
            bail!("`{invocation}` failed ({}); its output stands above", how_it_ended(status));
        }
        Ok(())
    }

    /// Runs a command and passes each line of its two streams on, as it comes.
    pub(crate) fn stream(
        &self,
        invocation: &Invocation,
        mut on_line: impl FnMut(String),
    ) -> Result<ExitStatus> {
        let follow = Follow::start(self, invocation)?;
        let end = Instant::now() + invocation.deadline();
        let mut deadline = invocation.first_line.map_or(end, |limit| Instant::now() + limit);
        // A command that never stops talking is interrupted and has a deadline like any other, and so
        // has one that closed its streams and goes on.
        loop {
            let next = follow.lines.recv_timeout(TICK);
            if next == Err(RecvTimeoutError::Disconnected)
                && let Some(status) = follow.ended_within(TICK)?
            {
                return Ok(status);
            }
            self.check_running(deadline, invocation, || follow.end())?;
            if let Ok(line) = next {
                deadline = end;
                on_line(line);
            }
        }
    }

    /// Whether a command may go on; otherwise it is ended, and the error says why.
    fn check_running(
        &self,
        deadline: Instant,
        invocation: &Invocation,
        end: impl FnOnce(),
    ) -> Result<()> {
        let interrupted = self.check_interrupted();
        if interrupted.is_err() || Instant::now() > deadline {
            end();
        }
        interrupted?;
        ensure!(Instant::now() <= deadline, "{}", over_time(invocation));
        Ok(())
    }

    /// Starts a command that tells what happens, line by line, until it is dropped.
    pub(crate) fn follow(&self, command: impl Into<Invocation>) -> Result<Follow> {
        let invocation = command.into();
        self.ui.echo(&invocation.to_string());
        Follow::start(self, &invocation)
    }

    /// Reads from the engine's own interface what its client has no words for. Only where the
    /// engine listens on a socket of this host.
    pub(crate) fn engine_get(&self, path: &str) -> Result<serde_json::Value> {
        let host = std::env::var("DOCKER_HOST").unwrap_or_default();
        let socket = if host.is_empty() { "unix:///var/run/docker.sock" } else { &host };
        let socket = socket.strip_prefix("unix://").context("the engine is on another host")?;
        let mut stream = UnixStream::connect(socket).with_context(|| format!("open {socket}"))?;
        stream.set_read_timeout(Some(ENGINE_LIMIT))?;
        // HTTP/1.0: the answer ends with the connection, and is not sent in chunks.
        write!(stream, "GET {path} HTTP/1.0\r\nHost: docker\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).with_context(|| format!("ask the engine for {path}"))?;
        let (head, body) = answer.split_once("\r\n\r\n").context("the engine's answer is cut")?;
        let status = head.lines().next().unwrap_or_default();
        ensure!(status.contains(" 200"), "the engine answers `{status}` to {path}");
        serde_json::from_str(body).with_context(|| format!("read the engine's answer to {path}"))
    }

    /// Stands still for a while, unless Ctrl-C is pressed.
    pub(crate) fn pause(&self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.check_interrupted()?;
            thread::sleep(TICK.min(end.saturating_duration_since(Instant::now())));
        }
        self.check_interrupted()
    }

    /// Calls `probe` until it gives a value, with `pause` between, for `limit` at the most.
    /// At the deadline it fails with the last reason that the probe gave.
    pub(crate) fn wait_until<T>(
        &self,
        what: &str,
        limit: Duration,
        pause: Duration,
        mut probe: impl FnMut() -> Result<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + limit;
        loop {
            self.check_interrupted()?;
            match probe() {
                Ok(value) => return Ok(value),
                Err(error) if Instant::now() >= deadline => {
                    let waited = crate::ui::seconds(limit);
                    return Err(error.context(format!("waited {waited} for {what}")));
                }
                Err(_) => self.pause(pause)?,
            }
        }
    }

    /// Echoes a command that changes something; false in a dry run, which prints it instead.
    fn announced(&self, invocation: &Invocation) -> bool {
        if self.options.dry_run {
            self.ui.say(format!("  would run: {invocation}"));
            return false;
        }
        self.ui.echo(&invocation.to_string());
        true
    }

    fn capture(&self, invocation: &Invocation) -> Result<Output> {
        self.check_interrupted()?;
        let handle = invocation
            .expression()
            .stdin_bytes(invocation.stdin.clone())
            .stdout_capture()
            .stderr_capture()
            .start()
            .with_context(|| cannot_start(invocation))?;
        let deadline = Instant::now() + invocation.deadline();
        loop {
            let waited = handle.wait_timeout(TICK).with_context(|| cannot_start(invocation))?;
            if let Some(output) = waited {
                return Ok(Output {
                    status: output.status,
                    stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
                    stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
                });
            }
            self.check_running(deadline, invocation, || end_group(&handle))?;
        }
    }
}

/// Whether the program was started so that SIGHUP means nothing to it (proc(5), `SigIgn`); a system without
/// that file tells nothing, and then it counts.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    mask & (1 << (SIGHUP - 1)) != 0
}

#[cfg(test)]
pub(crate) mod tests;
