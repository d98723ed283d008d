//! Brings the stack up as the drill needs it: with its proxies between the backend and its data, and
//! for some cases with volumes that can be filled. Everything else is what the Compose files say.

use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cases::Ground;
use crate::docker::{docker, run_loud};
use crate::proxy::Proxy;
use crate::stack::Stack;

/// The Compose file of the drill's own, beside the environment file.
pub const OVERLAY: &str = "drill.yaml";
/// Images are there; a first build of the backend may still be part of it.
const UP_LIMIT: Duration = Duration::from_secs(20 * 60);
/// The small file systems. PostgreSQL's new volume takes 40 MB.
const SMALL_PG: &str = "size=96m,mode=0700,uid=70,gid=70";
const SMALL_REDIS: &str = "size=24m,mode=0755,uid=999,gid=1000";

/// A stack of the drill's own and the proxies in front of its data.
pub struct Arena {
    /// The stack.
    pub stack: Stack,
    /// Between the backend and PostgreSQL.
    pub postgres: Proxy,
    /// Between the backend and Redis.
    pub redis: Proxy,
    /// The program that brings it up.
    pub xtask: PathBuf,
    overlay: PathBuf,
}

impl Arena {
    /// Starts the proxies; the stack is not up yet.
    ///
    /// # Errors
    /// The engine has no bridge on this machine, or the environment file cannot be changed.
    pub async fn prepare(stack: Stack, xtask: PathBuf) -> Result<Arena> {
        let template = "{{(index .IPAM.Config 0).Gateway}}";
        let gateway = docker(&["network", "inspect", "bridge", "--format", template]).await?;
        let gateway: IpAddr = gateway
            .trim()
            .parse()
            .context("find this machine's address on the engine's bridge; is the engine here?")?;
        let postgres = Proxy::start(stack.clone(), "postgres", 5432, gateway).await?;
        let redis = Proxy::start(stack.clone(), "redis", 6379, gateway).await?;
        let overlay = stack.env_file.with_file_name(OVERLAY);
        let text = fs::read_to_string(&stack.env_file).context("read the environment file")?;
        let changed: Vec<String> = text
            .lines()
            .map(|line| match line.strip_prefix("COMPOSE_FILE=") {
                Some(files) => format!("COMPOSE_FILE={files}:{}", overlay.display()),
                None => line.to_owned(),
            })
            .collect();
        fs::write(&stack.env_file, changed.join("\n") + "\n").context("change COMPOSE_FILE")?;
        Ok(Arena { stack, postgres, redis, xtask, overlay })
    }

    /// Brings the stack up from nothing.
    ///
    /// # Errors
    /// It does not become healthy.
    pub async fn up(&self, ground: Ground) -> Result<()> {
        fs::write(&self.overlay, self.overlay_text(ground)).context("write the drill's overlay")?;
        self.postgres.forget().await;
        self.redis.forget().await;
        self.xtask(&["up"]).await?;
        if ground == Ground::SmallVolumes {
            self.keep_mounted().await?;
        }
        Ok(())
    }

    /// Takes it down with its data.
    ///
    /// # Errors
    /// Something does not go away.
    pub async fn down(&self) -> Result<()> {
        // It may be there or not: only the small volumes have it.
        let _ = docker(&["rm", "--force", &self.keeper()]).await;
        self.xtask(&["down", "--volumes"]).await
    }

    async fn xtask(&self, args: &[&str]) -> Result<()> {
        let env_file = self.stack.env_file.display().to_string();
        let common = ["--quiet", "--yes", "--env-file", &env_file];
        run_loud(&self.xtask, &[&common[..], args].concat(), UP_LIMIT).await
    }

    fn overlay_text(&self, ground: Ground) -> String {
        let (postgres, redis) = (self.postgres.address, self.redis.address);
        let mut text = format!(
            "# The drill's proxies stand between the backend and its data.\n\
             services:\n  backend:\n    environment:\n      \
             PG_HOST: {}\n      PG_PORT: \"{}\"\n      REDIS_HOST: {}\n      REDIS_PORT: \"{}\"\n",
            postgres.ip(),
            postgres.port(),
            redis.ip(),
            redis.port()
        );
        if ground == Ground::SmallVolumes {
            text.push_str("volumes:\n");
            for (volume, options) in [("pgdata", SMALL_PG), ("redis_data", SMALL_REDIS)] {
                // Writing to a string does not fail.
                let _ = write!(
                    text,
                    "  {volume}:\n    driver_opts: {{type: tmpfs, device: tmpfs, o: \"{options}\"}}\n"
                );
            }
        }
        text
    }

    fn keeper(&self) -> String {
        format!("{}-keeper", self.stack.project)
    }

    /// A file system in memory is gone when its last container ends. This one stays.
    async fn keep_mounted(&self) -> Result<()> {
        let image = self.stack.inspect("redis", "{{.Image}}").await?;
        let project = &self.stack.project;
        let (pg, redis) = (format!("{project}_pgdata:/pg"), format!("{project}_redis_data:/redis"));
        let (label, keeper) = (self.stack.label(), self.keeper());
        let options =
            ["run", "--detach", "--network", "none", "--user", "0", "--entrypoint", "sleep"];
        let what = ["--name", &keeper, "--label", &label, "-v", &pg, "-v", &redis, &image, "86400"];
        docker(&[&options[..], &what].concat()).await?;
        Ok(())
    }

    /// Runs a shell command on the small volumes, as root: `/pg` and `/redis`.
    ///
    /// # Errors
    /// It fails.
    pub async fn on_volumes(stack: &Stack, script: &str) -> Result<String> {
        docker(&["exec", &format!("{}-keeper", stack.project), "sh", "-c", script]).await
    }
}
