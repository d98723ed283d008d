//! `logs`: what the services say.

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;

use crate::cli::LogsArgs;
use crate::commands::shell::passed_on;
use crate::commands::up::load;
use crate::ctx::Ctx;

/// Prints the logs of some services or of all.
///
/// # Errors
/// A service of that name does not exist, or the engine does not answer.
pub(crate) fn logs(ctx: &Ctx, env_file: &Path, args: &LogsArgs) -> Result<ExitCode> {
    let (project, wanted) = load(ctx, env_file)?;
    for service in &args.services {
        wanted.expect_service(service)?;
    }
    let tail = args.tail.to_string();
    let mut command = project.compose().args(["logs", "--tail", &tail]);
    if !std::io::stdout().is_terminal() {
        command = command.arg("--no-color");
    }
    if args.follow {
        command = command.arg("--follow");
    }
    let status = ctx.hand_over(command.args(&args.services))?;
    Ok(passed_on(status))
}
