//! `cargo xtask`: the whole life of the stack, from the first `up` to production.
//!
//! This file is the table of contents: the verbs, one match, and the exit codes.

// Where a standard stream is a pipe that nobody reads any more, `println!` and `eprintln!` panic; `ui::data`
// and `ui::talk` do not.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod audit;
mod backup;
mod cli;
mod commands;
mod ctx;
mod env;
mod host;
mod images;
mod parity;
mod stack;
mod ui;

use std::process::ExitCode;
use std::sync::Arc;

use crate::cli::{Cli, Verb};
use crate::ctx::{Ctx, Interrupted, Usage};
use crate::ui::{Aim, Ui};
use anyhow::Result;

/// Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted. A program that was handed the
/// terminal (`exec`, `psql`, `redis-cli`) passes its own on.
fn main() -> ExitCode {
    let cli = Cli::read();
    let aim = Arc::new(Aim::new(&cli.global.selection()));
    match run(cli, aim.clone()) {
        Ok(code) => code,
        Err(error) => {
            let red = console::Style::new().red().bold().for_stderr();
            ui::talk(&format!("{} {}", red.apply_to("error:"), aim.at(&format!("{error:#}"))));
            match error.root_cause() {
                cause if cause.is::<Interrupted>() => ExitCode::from(130),
                cause if cause.is::<Usage>() => ExitCode::from(2),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn run(cli: Cli, aim: Arc<Aim>) -> Result<ExitCode> {
    let ui = Ui::new(cli.global.volume()).aimed(aim);
    let ctx = Ctx::new(cli::root()?, cli.global.options(), ui)?;
    let env_file = cli.global.env_file(&ctx);
    match cli.verb {
        Verb::Up(args) => commands::up::up(&ctx, &env_file, &args)?,
        Verb::Watch(args) => commands::watch::watch(&ctx, &env_file, &args)?,
        Verb::Deploy(args) => commands::deploy::deploy(&ctx, &env_file, &args)?,
        Verb::Wait(args) => commands::up::wait(&ctx, &env_file, &args)?,
        Verb::Down(args) => commands::down::down(&ctx, &env_file, &args)?,
        Verb::Status(args) => commands::status::status(&ctx, &env_file, &args)?,
        Verb::Logs(args) => return commands::logs::logs(&ctx, &env_file, &args),
        Verb::Migrate(args) => return commands::db::migrate(&ctx, &env_file, &args),
        Verb::Seed(args) => commands::db::seed(&ctx, &env_file, &args)?,
        Verb::Backup(args) => commands::backup::backup(&ctx, &env_file, &args)?,
        Verb::Restore(args) => commands::restore::restore(&ctx, &env_file, &args)?,
        Verb::Psql(args) => return commands::shell::psql(&ctx, &env_file, &args),
        Verb::RedisCli(args) => return commands::shell::redis_cli(&ctx, &env_file, &args),
        Verb::Exec(args) => return commands::shell::exec(&ctx, &env_file, &args),
        Verb::Build(args) => commands::image::build(&ctx, &env_file, &args)?,
        Verb::Test(args) => commands::check::test(&ctx, &args)?,
        Verb::Ci => commands::check::ci(&ctx)?,
        Verb::Doctor(args) => return commands::doctor::doctor(&ctx, &env_file, &args),
        Verb::Setup => commands::setup::setup(&ctx)?,
        Verb::Env(args) => commands::env::env(&ctx, &env_file, cli.global.kind(), &args)?,
        Verb::Audit(args) => return commands::audit::audit(&ctx, &env_file, &args),
        Verb::Parity(args) => return commands::parity::parity(&ctx, &env_file, &args),
        Verb::Cert(args) => commands::cert::cert(&ctx, &env_file, &args)?,
        Verb::Drill(args) => commands::drill::drill(&ctx, cli.global.kind(), &args)?,
        Verb::Bench(args) => commands::bench::bench(&ctx, &args)?,
        Verb::Completions(args) => commands::shell::completions(&ctx, &env_file, &args)?,
    }
    Ok(ExitCode::SUCCESS)
}
