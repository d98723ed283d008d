//! `psql`, `redis-cli`, `exec` and `completions`: a way in for the person's own hands.

use std::io::IsTerminal;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitCode, ExitStatus};

use anyhow::Result;
use clap::CommandFactory;
use clap::builder::PossibleValuesParser;
use clap_complete::Shell;

use crate::cli::{Cli, CompletionsArgs, ExecArgs, PassArgs};
use crate::commands::up::{load, running_container};
use crate::ctx::{Ctx, Invocation};
use crate::ui;

/// What a person calls `cargo xtask` in a shell that completes it (see the verb's help): cargo's
/// own completions have the word `cargo`.
const SHELL_NAME: &str = "xtask";

/// The verbs that take the name of a service, and what the argument is called.
const OF_A_SERVICE: [(&str, &str); 2] = [("logs", "services"), ("exec", "service")];

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
///
/// # Errors
/// They cannot be printed.
pub(crate) fn completions(ctx: &Ctx, env_file: &Path, args: &CompletionsArgs) -> Result<()> {
    // Without an environment file there is no stack yet to ask.
    let names: Vec<String> = load(ctx, env_file)
        .map(|(_, wanted)| wanted.services.into_iter().map(|service| service.name).collect())
        .unwrap_or_default();
    let text = completions_for(args.shell, &names);
    ui::data(text.trim_end())
}

fn completions_for(shell: Shell, services: &[String]) -> String {
    let mut command = Cli::command();
    for (verb, argument) in OF_A_SERVICE {
        let names = PossibleValuesParser::new(services.to_vec());
        command = command.mut_subcommand(verb, |verb| {
            verb.mut_arg(argument, |argument| argument.value_parser(names))
        });
    }
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command, SHELL_NAME, &mut text);
    let mut text = String::from_utf8_lossy(&text).into_owned();
    if shell == Shell::Fish {
        // The generator leaves out what an argument without a flag may be.
        let (verbs, names) = (OF_A_SERVICE.map(|(verb, _)| verb).join(" "), services.join(" "));
        text.push_str(&format!(
            "complete -c {SHELL_NAME} -n \"__fish_seen_subcommand_from {verbs}\" -f -a \"{names}\"\n"
        ));
    }
    text
}

/// `docker exec`, with a terminal where there is one: a TTY would corrupt what is piped.
fn inside(container: &str) -> Invocation {
    let has_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let flags = if has_terminal { "--interactive --tty" } else { "--interactive" };
    Invocation::new("docker").arg("exec").args(flags.split(' ')).arg(container)
}

/// The exit code of a program that had the terminal.
pub(crate) fn passed_on(status: ExitStatus) -> ExitCode {
    // As shells say it: a signal's number over 128.
    let code = status.code().or_else(|| Some(128 + status.signal()?));
    ExitCode::from(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completions_know_the_verbs_and_the_services() {
        let services = ["nginx".to_owned(), "queue".to_owned()];
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let text = completions_for(shell, &services);
            for word in ["queue", "redis-cli", "--env-file"] {
                let written =
                    if shell == Shell::Fish { word.trim_start_matches('-') } else { word };
                assert!(text.contains(written), "{shell}: {word} is not there");
            }
        }
    }
}
