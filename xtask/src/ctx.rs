//! The only door to the outside world: every external program, every question and every wait
//! passes here. Echo, dry run, time-outs and Ctrl-C live in this file and nowhere else.
//!
//! Commands are values ([`Invocation`], usually written with `xshell::cmd!`); pure code builds
//! them and this gate carries them out. A function that is not given a [`Ctx`] cannot touch the
//! world, and can be unit-tested.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use duct::Handle;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::ui::{Step, Ui};

/// How long a command may take when its caller names no limit.
const DEFAULT_LIMIT: Duration = Duration::from_secs(60);
/// How long a child may take to end after SIGTERM before it gets SIGKILL.
const TERM_GRACE: Duration = Duration::from_secs(10);
/// How long the engine may take to answer on its socket.
const ENGINE_LIMIT: Duration = Duration::from_secs(10);
/// How often a wait looks at the interrupt flag.
const TICK: Duration = Duration::from_millis(50);
/// How many last lines of a failed command's output go into its error.
const TAIL_LINES: usize = 40;

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

/// An external command as a value: what to run, where, with what, and for how long at the most.
#[derive(Clone, Debug)]
pub(crate) struct Invocation {
    program: OsString,
    args: Vec<OsString>,
    envs: Vec<(OsString, Option<OsString>)>,
    dir: Option<PathBuf>,
    stdin: Vec<u8>,
    limit: Duration,
    first_line: Option<Duration>,
}

impl Invocation {
    pub(crate) fn new(program: impl Into<OsString>) -> Invocation {
        Invocation {
            program: program.into(),
            args: Vec::new(),
            envs: Vec::new(),
            dir: None,
            stdin: Vec::new(),
            limit: DEFAULT_LIMIT,
            first_line: None,
        }
    }

    pub(crate) fn args<T: Into<OsString>>(mut self, args: impl IntoIterator<Item = T>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    pub(crate) fn arg(self, arg: impl Into<OsString>) -> Self {
        self.args([arg])
    }

    /// Sets a variable for the child. Values are never echoed.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.envs.push((name.into(), Some(value.as_ref().to_owned())));
        self
    }

    pub(crate) fn env_remove(mut self, name: &str) -> Self {
        self.envs.push((name.into(), None));
        self
    }

    pub(crate) fn dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.dir = Some(dir.into());
        self
    }

    /// What the child reads on standard input; by default nothing.
    pub(crate) fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// The deadline, counted from the start.
    pub(crate) fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The deadline for the first line of output, where it is streamed: something that hangs
    /// is told from something that is slow.
    pub(crate) fn first_line(mut self, limit: Duration) -> Self {
        self.first_line = Some(limit);
        self
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args);
        for (name, value) in &self.envs {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        command
    }

    fn expression(&self) -> duct::Expression {
        let mut expression = duct::cmd(&self.program, &self.args);
        for (name, value) in &self.envs {
            expression = match value {
                Some(value) => expression.env(name, value),
                None => expression.env_remove(name),
            };
        }
        if let Some(dir) = &self.dir {
            expression = expression.dir(dir);
        }
        // A process group of its own: Ctrl-C reaches xtask alone, which then ends the child
        // with everything that the child has started.
        expression.unchecked().before_spawn(|command| {
            command.process_group(0);
            Ok(())
        })
    }
}

/// As it could be pasted into a shell. Environment values stay out: they may be secrets.
impl fmt::Display for Invocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [&self.program].into_iter().chain(&self.args);
        for (index, word) in words.enumerate() {
            let word = word.to_string_lossy();
            let quoted = shlex::try_quote(&word).unwrap_or_else(|_| word.as_ref().into());
            write!(f, "{}{quoted}", if index == 0 { "" } else { " " })?;
        }
        Ok(())
    }
}

impl From<xshell::Cmd<'_>> for Invocation {
    fn from(cmd: xshell::Cmd<'_>) -> Invocation {
        let command = Command::from(cmd);
        let mut invocation = Invocation::new(command.get_program()).args(command.get_args());
        invocation.envs =
            command.get_envs().map(|(k, v)| (k.to_owned(), v.map(OsStr::to_owned))).collect();
        invocation.dir = command.get_current_dir().map(Path::to_owned);
        invocation
    }
}

/// What a command left behind.
pub(crate) struct Output {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

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
    pub(crate) ui: Ui,
}

impl Ctx {
    /// Opens the door for the project in `root` and starts to listen for Ctrl-C.
    pub(crate) fn new(root: PathBuf, options: Options, ui: Ui) -> Result<Ctx> {
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            // Registered first, so that a second signal ends the process at once.
            signal_hook::flag::register_conditional_shutdown(signal, 130, interrupted.clone())
                .and_then(|_| signal_hook::flag::register(signal, interrupted.clone()))
                .context("listen for Ctrl-C")?;
        }
        // Asked for at the start: a rebuild of xtask while it runs would change the answer.
        let program = std::env::current_exe().context("find the program's own file")?;
        Ok(Ctx { root, program, options, interrupted, ui })
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
        let mut tail = VecDeque::new();
        let status = self.stream(&invocation, |line| {
            if verbose {
                self.ui.say(format!("  | {line}"));
            }
            step.note(&line);
            tail.push_back(line);
            if tail.len() > TAIL_LINES {
                tail.pop_front();
            }
        })?;
        let stderr = Vec::from(tail).join("\n");
        check(&invocation, Output { status, stdout: String::new(), stderr }).map(drop)
    }

    /// Runs a command that changes something and prints every line of its output, as it comes.
    pub(crate) fn run_loud(&self, command: impl Into<Invocation>) -> Result<()> {
        let invocation = command.into();
        if !self.announced(&invocation) {
            return Ok(());
        }
        let status = self.stream(&invocation, |line| self.ui.say(line))?;
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
        let end = Instant::now() + invocation.limit;
        let mut deadline = invocation.first_line.map_or(end, |limit| Instant::now() + limit);
        loop {
            match follow.lines.recv_timeout(TICK) {
                Ok(line) => {
                    deadline = end;
                    on_line(line);
                }
                Err(RecvTimeoutError::Timeout) => {
                    if let Err(error) = self.check_interrupted() {
                        follow.end();
                        return Err(error);
                    }
                    if Instant::now() > deadline {
                        follow.end();
                        bail!("{}", over_time(invocation));
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return follow.wait(),
            }
        }
    }

    /// Starts a command that tells what happens, line by line, until it is dropped.
    pub(crate) fn follow(&self, command: impl Into<Invocation>) -> Result<Follow> {
        let invocation = command.into();
        self.ui.echo(&invocation.to_string());
        Follow::start(self, &invocation)
    }

    /// Gives the terminal to a program (psql, a shell, a log that is followed) until it ends.
    pub(crate) fn hand_over(&self, command: impl Into<Invocation>) -> Result<ExitStatus> {
        let invocation = command.into();
        if !self.announced(&invocation) {
            return Ok(ExitStatus::default());
        }
        // xshell and duct would close or redirect the standard streams.
        let mut command = invocation.command();
        let status = command.status().with_context(|| cannot_start(&invocation))?;
        // Ctrl-C went to the program; it was not meant for us.
        self.interrupted.store(false, Ordering::Relaxed);
        Ok(status)
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

    /// Whether consent is at hand without asking: `--yes`, or `CI=true`.
    pub(crate) fn has_consent(&self) -> bool {
        self.options.yes || std::env::var_os("CI").is_some_and(|value| value == "true")
    }

    /// Asks before something that cannot be undone or that reaches beyond the project.
    ///
    /// Without a terminal and without consent it fails, and `instead` says what to run.
    pub(crate) fn confirm(&self, question: &str, instead: &str) -> Result<()> {
        if self.has_consent() || self.options.dry_run {
            return Ok(());
        }
        if !std::io::stdin().is_terminal() {
            bail!("{question} needs consent, and there is no terminal to ask on; {instead}");
        }
        eprint!("{question}? [y/N] ");
        std::io::stderr().flush().ok();
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer).context("read the answer")?;
        self.check_interrupted()?;
        if matches!(answer.trim(), "y" | "Y" | "yes") {
            return Ok(());
        }
        bail!("{question}: not confirmed, so nothing was changed");
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
        let deadline = Instant::now() + invocation.limit;
        loop {
            let waited = handle.wait_timeout(TICK).with_context(|| cannot_start(invocation))?;
            if let Some(output) = waited {
                return Ok(Output {
                    status: output.status,
                    stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
                    stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
                });
            }
            if let Err(error) = self.check_interrupted() {
                end_group(&handle);
                return Err(error);
            }
            if Instant::now() > deadline {
                end_group(&handle);
                bail!("{}", over_time(invocation));
            }
        }
    }
}

/// A running command whose lines arrive on a channel. Dropping it ends the command.
pub(crate) struct Follow {
    handle: Arc<Handle>,
    command: String,
    /// Standard output and standard error, line by line; closed when the command has ended.
    pub(crate) lines: Receiver<String>,
}

impl Follow {
    fn start(ctx: &Ctx, invocation: &Invocation) -> Result<Follow> {
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

    fn wait(&self) -> Result<ExitStatus> {
        let output = self.handle.wait().with_context(|| format!("wait for `{}`", self.command))?;
        Ok(output.status)
    }

    fn end(&self) {
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
fn end_group(handle: &Handle) {
    let groups: Vec<Pid> =
        handle.pids().into_iter().filter_map(|pid| Pid::from_raw(pid as i32)).collect();
    let send = |signal| {
        for &group in &groups {
            // A group that has ended already is what we want.
            let _ = kill_process_group(group, signal);
        }
    };
    send(Signal::TERM);
    if !matches!(handle.wait_timeout(TERM_GRACE), Ok(Some(_))) {
        send(Signal::KILL);
        let _ = handle.wait();
    }
}

/// Turns a command that did not succeed into an error with what it said.
fn check(invocation: &Invocation, output: Output) -> Result<Output> {
    if output.status.success() {
        return Ok(output);
    }
    let said = if output.stderr.trim().is_empty() { &output.stdout } else { &output.stderr };
    let lines: Vec<&str> = said.trim().lines().collect();
    let tail = &lines[lines.len().saturating_sub(TAIL_LINES)..];
    let said = if tail.is_empty() { "it printed nothing".to_owned() } else { tail.join("\n  ") };
    bail!("`{invocation}` failed ({}):\n  {said}", how_it_ended(output.status));
}

fn how_it_ended(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "no exit code".to_owned(),
    }
}

fn cannot_start(invocation: &Invocation) -> String {
    format!("start `{invocation}`")
}

fn over_time(invocation: &Invocation) -> String {
    let limit = crate::ui::seconds(invocation.limit);
    match invocation.first_line {
        Some(first) => {
            let first = crate::ui::seconds(first);
            format!("`{invocation}` said nothing for {first}, or took more than {limit}")
        }
        None => format!("`{invocation}` did not end within {limit} and was stopped"),
    }
}
