//! External commands as values, and what they left behind as text.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Result, bail};

/// How long a command may take when its caller names no limit.
const DEFAULT_LIMIT: Duration = Duration::from_secs(60);
/// How many last lines of a failed command's output go into its error.
const TAIL_LINES: usize = 40;

/// An external command as a value: what to run, where, with what, and for how long at the most.
#[derive(Clone, Debug)]
pub(crate) struct Invocation {
    program: OsString,
    args: Vec<OsString>,
    envs: Vec<(OsString, Option<OsString>)>,
    dir: Option<PathBuf>,
    pub(super) stdin: Vec<u8>,
    /// None: the caller has named none.
    pub(super) limit: Option<Duration>,
    pub(super) first_line: Option<Duration>,
}

impl Invocation {
    pub(crate) fn new(program: impl Into<OsString>) -> Invocation {
        Invocation {
            program: program.into(),
            args: Vec::new(),
            envs: Vec::new(),
            dir: None,
            stdin: Vec::new(),
            limit: None,
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
        self.limit = Some(limit);
        self
    }

    pub(super) fn deadline(&self) -> Duration {
        self.limit.unwrap_or(DEFAULT_LIMIT)
    }

    /// The deadline for the first line of output, where it is streamed: something that hangs
    /// is told from something that is slow.
    pub(crate) fn first_line(mut self, limit: Duration) -> Self {
        self.first_line = Some(limit);
        self
    }

    pub(super) fn command(&self) -> Command {
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

    pub(super) fn expression(&self) -> duct::Expression {
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

/// The last lines of what a command says while it runs, for the error if it fails.
#[derive(Default)]
pub(super) struct Tail(VecDeque<String>);

impl Tail {
    pub(super) fn push(&mut self, line: String) {
        self.0.push_back(line);
        if self.0.len() > TAIL_LINES {
            self.0.pop_front();
        }
    }

    pub(super) fn into_output(self, status: ExitStatus) -> Output {
        let stderr = Vec::from(self.0).join("\n");
        Output { status, stdout: String::new(), stderr }
    }
}

/// Turns a command that did not succeed into an error with what it said.
pub(super) fn check(invocation: &Invocation, output: Output) -> Result<Output> {
    if output.status.success() {
        return Ok(output);
    }
    let said = if output.stderr.trim().is_empty() { &output.stdout } else { &output.stderr };
    let lines: Vec<&str> = said.trim().lines().collect();
    let tail = &lines[lines.len().saturating_sub(TAIL_LINES)..];
    let said = if tail.is_empty() { "it printed nothing".to_owned() } else { tail.join("\n  ") };
    bail!("`{invocation}` failed ({}):\n  {said}", how_it_ended(output.status));
}

pub(super) fn how_it_ended(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "no exit code".to_owned(),
    }
}

pub(super) fn cannot_start(invocation: &Invocation) -> String {
    format!("start `{invocation}`")
}

pub(super) fn over_time(invocation: &Invocation) -> String {
    let limit = crate::ui::seconds(invocation.deadline());
    match invocation.first_line {
        Some(first) => {
            let first = crate::ui::seconds(first);
            format!("`{invocation}` said nothing for {first}, or took more than {limit}")
        }
        None => format!("`{invocation}` did not end within {limit} and was stopped"),
    }
}
