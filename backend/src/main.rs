//! The roles of one program: serve, migrate, seed, wait, healthcheck.

use std::{net::SocketAddr, process::ExitCode, time::Duration};

use backend::{
    config::{Config, DEFAULT_BIND, DatabaseConfig, Reader},
    db,
    migrate::{self, files::Set},
    probe, seed, server, telemetry,
};
use clap::{Parser, Subcommand, ValueEnum};

/// How long the one-shot roles wait for PostgreSQL: it may just be restarting. Whoever expects a
/// longer wait runs `backend wait` first.
const PATIENCE: Duration = Duration::from_secs(10);

/// The product's backend. Its configuration is the environment: see .env.example.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// Wait for PostgreSQL and Redis, apply the migrations, then serve until a signal.
    Serve,
    /// Apply the migrations that the database does not have yet.
    Migrate {
        #[command(subcommand)]
        action: Option<MigrateAction>,
    },
    /// Insert the data of backend/seeds; refused where APP_ENV=production.
    Seed,
    /// Wait until PostgreSQL accepts connections. Needs no password.
    Wait {
        /// Host name or address.
        #[arg(long, env = "PG_HOST", default_value = "127.0.0.1")]
        host: String,
        /// TCP port.
        #[arg(long, env = "PG_PORT", default_value_t = 5432)]
        port: u16,
        /// Seconds after which to give up.
        #[arg(long, default_value_t = 60)]
        timeout: u64,
    },
    /// Ask the server in this container whether it is ready; for the engine's health check.
    Healthcheck {
        /// Where the server listens.
        #[arg(long, env = "BIND", default_value = DEFAULT_BIND)]
        bind: SocketAddr,
    },
}

#[derive(Subcommand)]
enum MigrateAction {
    /// Show which migrations are applied; writes nothing. Exit code 1 if one was tampered with.
    Status {
        /// A table for people, JSON for scripts.
        #[arg(long, value_enum, default_value_t = Format::Table)]
        format: Format,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Table,
    Json,
}

fn main() -> ExitCode {
    match run(Cli::parse().role) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(role: Role) -> Result<ExitCode, String> {
    match role {
        Role::Serve => return serve(),
        Role::Migrate { action: None } => migrate(),
        Role::Migrate { action: Some(MigrateAction::Status { format }) } => status(format),
        Role::Seed => seed(),
        Role::Wait { host, port, timeout } => {
            probe::wait(&host, port, Duration::from_secs(timeout), &say)
        }
        Role::Healthcheck { bind } => probe::healthcheck(bind.port()),
    }?;
    Ok(ExitCode::SUCCESS)
}

/// The one-shot roles talk on standard error; standard output is data.
fn say(line: &str) {
    eprintln!("{line}");
}

/// Once logging has started, the log is where errors go: they are not repeated by `main`.
fn serve() -> Result<ExitCode, String> {
    let config = Config::read(Reader::from_env()).map_err(|error| error.to_string())?;
    let _log = telemetry::init();
    Ok(match block_on(server::serve(config))? {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    })
}

fn migrate() -> Result<(), String> {
    let (config, set) = migration_input()?;
    let summary = block_on(async {
        db::wait(&config, PATIENCE, &say).await.map_err(|error| error.to_string())?;
        migrate::run(&config, &set, &say).await.map_err(|error| error.to_string())
    })??;
    say(&format!("{} migrations applied now, {} in all", summary.applied, summary.total));
    Ok(())
}

fn status(format: Format) -> Result<(), String> {
    let (config, set) = migration_input()?;
    let status = block_on(async {
        db::wait(&config, PATIENCE, &say).await.map_err(|error| error.to_string())?;
        migrate::status::status(&config, &set).await.map_err(|error| error.to_string())
    })??;
    match format {
        Format::Table => print!("{}", status.table()),
        Format::Json => {
            println!("{}", serde_json::to_string_pretty(&status).map_err(|e| e.to_string())?);
        }
    }
    match status.problems {
        None => Ok(()),
        Some(problems) => Err(format!("the migrations and the database disagree:{problems}")),
    }
}

fn seed() -> Result<(), String> {
    let (app_env, config) =
        DatabaseConfig::read_with_env(Reader::from_env()).map_err(|error| error.to_string())?;
    block_on(async {
        db::wait(&config, PATIENCE, &say).await.map_err(|error| error.to_string())?;
        seed::run(app_env, &config, &say).await
    })?
}

fn migration_input() -> Result<(DatabaseConfig, Set), String> {
    let config =
        DatabaseConfig::read_owner(Reader::from_env()).map_err(|error| error.to_string())?;
    let set = Set::embedded().map_err(|error| error.to_string())?;
    Ok((config, set))
}

fn block_on<T>(future: impl Future<Output = T>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start the runtime: {error}"))?;
    Ok(runtime.block_on(future))
}
