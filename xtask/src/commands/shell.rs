//! `psql`, `redis-cli`, `exec` and `completions`: a way in for the person's own hands.

use std::io::IsTerminal;
use std::path::Path;
use std::process::{ExitCode, ExitStatus};

use anyhow::Result;
use clap::CommandFactory;
use clap::builder::PossibleValuesParser;

use crate::cli::{Cli, CompletionsArgs, ExecArgs, PassArgs};
use crate::commands::up::{load, running_container};
use crate::ctx::{Ctx, Invocation};

/// What a person calls `cargo xtask` in a shell that completes it (see the verb's help): cargo's
/// own completions have the word `cargo`.
const SHELL_NAME: &str = "xtask";

/// Opens psql in PostgreSQL's container, as the owner of the schema: over the socket, so without a
/// password. `-- -U postgres` makes it the superuser.
///
/// # Errors
/// PostgreSQL does not run.
pub(crate) fn psql(ctx: &Ctx, env_file: &Path, args: &PassArgs) -> Result<ExitCode> {
    let (project, container) = running_container(ctx, env_file, "postgres")?;
    let words = ["psql", "--username", "owner", "--dbname", project.value("PG_DBNAME")];
    let command = inside(&container.id).args(words).args(&args.args);
    Ok(passed_on(ctx.hand_over(command)?))
}

/// Opens redis-cli in Redis' container, as the user who may do everything.
///
/// # Errors
/// Redis does not run.
pub(crate) fn redis_cli(ctx: &Ctx, env_file: &Path, args: &PassArgs) -> Result<ExitCode> {
    let (_, container) = running_container(ctx, env_file, "redis")?;
    let command = inside(&container.id).arg("admin-cli").args(&args.args);
    Ok(passed_on(ctx.hand_over(command)?))
}

/// Runs a command in a service's container.
///
/// # Errors
/// There is no such service, or it does not run.
pub(crate) fn exec(ctx: &Ctx, env_file: &Path, args: &ExecArgs) -> Result<ExitCode> {
    let (_, container) = running_container(ctx, env_file, &args.service)?;
    Ok(passed_on(ctx.hand_over(inside(&container.id).args(&args.command))?))
}

/// Prints the completions for a shell, the stack's service names among them.
pub(crate) fn completions(ctx: &Ctx, env_file: &Path, args: &CompletionsArgs) {
    // Without an environment file there is no stack yet to ask.
    let names: Vec<String> = load(ctx, env_file)
        .map(|(_, wanted)| wanted.services.into_iter().map(|service| service.name).collect())
        .unwrap_or_default();
    let mut command = Cli::command();
    for (verb, argument) in [("logs", "services"), ("exec", "service")] {
        let names = PossibleValuesParser::new(names.clone());
        command = command.mut_subcommand(verb, |verb| {
            verb.mut_arg(argument, |argument| argument.value_parser(names))
        });
    }
    clap_complete::generate(args.shell, &mut command, SHELL_NAME, &mut std::io::stdout());
}

/// `docker exec`, with a terminal where there is one: a TTY would corrupt what is piped.
fn inside(container: &str) -> Invocation {
    let has_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let flags = if has_terminal { "--interactive --tty" } else { "--interactive" };
    Invocation::new("docker").arg("exec").args(flags.split(' ')).arg(container)
}

/// The exit code of a program that had the terminal.
pub(crate) fn passed_on(status: ExitStatus) -> ExitCode {
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    // Ended by a signal: a person's Ctrl-C, most of the time.
    ExitCode::from(code.unwrap_or(130))
}
