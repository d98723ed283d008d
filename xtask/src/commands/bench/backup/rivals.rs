//! The other ways, and the servers into which they restore: a PostgreSQL of the stack's own image and
//! settings, with pgBackRest beside it, and a Redis. Each is a container that sleeps, in which the server is
//! started and stopped, so that a restore can find an empty folder and what it cost is counted in one place.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::backup::load::lanes;
use crate::backup::postgres::Postgres;
use crate::backup::redis::Redis;
use crate::backup::take::Servers;
use crate::ctx::{Ctx, Invocation};
use crate::images::build;
use crate::stack::running::LABEL_PROJECT;
use crate::stack::trial::{RIVAL, Trial};

const IMAGE: &str = "xtask/drill/rivals/pgbackrest";
const LIMIT: Duration = Duration::from_secs(60 * 60);
const SUPERUSER: &str = "postgres";

/// As docs/backups.md has it for a host without this program. $1 PostgreSQL, $2 Redis, $3 a folder.
const BARE_BACKUP: &str = "\
set -euo pipefail; umask 022
docker exec \"$1\" pg_dumpall --username backup --no-role-passwords | zstd -T0 -qf -o \"$3/all.sql.zst\"
docker exec \"$2\" admin-cli --rdb - | zstd -T0 -qf -o \"$3/redis.rdb.zst\"";
/// The way back into empty servers. Redis reads the snapshot at its start, and then begins its log again,
/// without which the next restart would lose what came.
const BARE_RESTORE: &str = "\
set -euo pipefail
zstd -dcq \"$3/all.sql.zst\" | docker exec --interactive \"$1\" psql -Xq -o /dev/null --username postgres --dbname postgres
zstd -dcq \"$3/redis.rdb.zst\" | docker exec --interactive \"$2\" sh -c 'cat >/data/dump.rdb'
docker exec \"$2\" sh -euc '
    redis-server --dir /data --save \"\" --appendonly no --daemonize yes >/dev/null
    until redis-cli ping 2>/dev/null | grep -q PONG; do sleep 0.02; done
    redis-cli config set appendonly yes >/dev/null
    until redis-cli info persistence | grep -q aof_rewrite_in_progress:0; do sleep 0.02; done'";
/// $1 PostgreSQL, $2 the database, $3 a folder.
const CUSTOM_BACKUP: &str = "\
umask 022; exec docker exec \"$1\" pg_dump --username backup --format custom \"$2\" >\"$3/rows.dump\"";

/// The same settings as the stack's server; more come behind it.
const START: &str = "\
pg_ctl --silent --wait --timeout 600 --log /tmp/postgres.log --options \"-c config_file=/etc/postgresql/postgresql.conf";
/// pgBackRest needs the write-ahead log of the time of its backup.
const ARCHIVES: &str = " -c archive_mode=on -c archive_command='pgbackrest archive-push %p'";
const STOP: &str = "if pg_ctl status >/dev/null; then pg_ctl --silent --mode fast stop; fi";
const EMPTY: &str = "find \"$PGDATA\" -mindepth 1 -delete";
const RECOVERED: &str = "until [ \"$(psql -XAtc 'SELECT pg_is_in_recovery()' postgres postgres)\" = f ]; do sleep 0.02; done";
/// pgBackRest's settings: as many processes as there are cores, and zstd as the others.
const PGBACKREST: [(&str, &str); 11] = [
    ("STANZA", "bench"),
    ("PG1_PATH", "/var/lib/postgresql/data/pgdata"),
    ("PG1_SOCKET_PATH", "/run/postgresql"),
    ("PG1_USER", SUPERUSER),
    ("REPO1_PATH", "/repo"),
    ("REPO1_RETENTION_FULL", "1"),
    ("COMPRESS_TYPE", "zst"),
    ("START_FAST", "y"),
    ("LOCK_PATH", "/tmp/pgbackrest"),
    ("LOG_LEVEL_FILE", "off"),
    ("LOG_LEVEL_CONSOLE", "warn"),
];

/// The containers, and the folder that the pipelines write to.
pub(super) struct Rivals<'a> {
    ctx: &'a Ctx,
    pub(super) postgres: String,
    pub(super) redis: String,
    folder: PathBuf,
    database: String,
}

impl<'a> Rivals<'a> {
    /// Builds the image and starts both containers, without a server in them.
    ///
    /// # Errors
    /// pgBackRest cannot be installed into the image, or the engine fails.
    pub(super) fn start(
        ctx: &'a Ctx,
        trial: &Trial,
        servers: &Servers,
        database: &str,
    ) -> Result<Rivals<'a>> {
        let image = format!("{}{RIVAL}", trial.name());
        build::on_image(ctx, &servers.postgres.image, IMAGE, &image)?;
        let folder = ctx.state_dir().join(trial.name()).join("rivals");
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        // The server's user reads the dump there; the folder above it is closed.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755))?;
        let name = |service: &str| format!("{}-rival-{service}", trial.name());
        let label = format!("{LABEL_PROJECT}={}", trial.name());
        let volume = |name: &str| {
            ctx.run(Invocation::new("docker").args(["volume", "create", "--label", &label, name]))
        };
        let (data, repository, keys) = (name("pgdata"), name("repository"), name("redis_data"));
        [&data, &repository, &keys].into_iter().try_for_each(|name| volume(name))?;
        let (postgres, redis) = (name("postgres"), name("redis"));
        let mut command = sleeper(&postgres, &label)
            .args(["--user", "70:70", "--shm-size", "128m", "--volume"])
            .args([&format!("{data}:/var/lib/postgresql/data"), "--volume"])
            .args([&format!("{repository}:/repo"), "--volume"])
            .args([&format!("{}:/bench:ro", folder.display()), "--env"])
            .arg("PGDATA=/var/lib/postgresql/data/pgdata")
            .args(["--env", &format!("PGBACKREST_PROCESS_MAX={}", lanes())]);
        for file in ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"] {
            let here = ctx.root().join("deploy/postgres").join(file);
            let mount = format!("{}:/etc/postgresql/{file}:ro", here.display());
            command = command.args(["--volume", &mount]);
        }
        for (name, value) in PGBACKREST {
            command = command.args(["--env", &format!("PGBACKREST_{name}={value}")]);
        }
        ctx.run(command.args([&image, "infinity"]))?;
        let command = sleeper(&redis, &label).args(["--user", "999:1000", "--volume"]);
        let command = command.args([&format!("{keys}:/data"), &servers.redis.image, "infinity"]);
        ctx.run(command)?;
        Ok(Rivals { ctx, postgres, redis, folder, database: database.to_owned() })
    }

    /// Empty servers: PostgreSQL runs, with nothing in it; Redis does not, because it reads at its start.
    ///
    /// # Errors
    /// A program fails.
    pub(super) fn begin(&self) -> Result<()> {
        let init = "initdb --username postgres --data-checksums --auth-local peer \
                    --auth-host scram-sha-256 >/dev/null";
        let script = format!("mkdir -p \"$PGDATA\"; {STOP}; {EMPTY}; {init}; {START}\" start");
        self.prepare(&script)?;
        let script =
            "redis-cli shutdown nosave >/dev/null 2>&1 || :; find /data -mindepth 1 -delete";
        self.ctx.run(inside(&self.redis, script))
    }

    /// Both servers stopped, so that nothing runs beside what is measured elsewhere.
    ///
    /// # Errors
    /// A program fails.
    pub(super) fn end(&self) -> Result<()> {
        self.prepare(STOP)?;
        self.ctx.run(inside(&self.redis, "redis-cli shutdown nosave >/dev/null 2>&1 || :"))
    }

    /// `pg_dumpall | zstd`, and Redis' snapshot.
    pub(super) fn bare_backup(&self, servers: &Servers) -> Invocation {
        bash(BARE_BACKUP, &[&servers.postgres.id, &servers.redis.id], &self.folder)
    }

    /// `zstd -d | psql`, and Redis' snapshot.
    pub(super) fn bare_restore(&self) -> Invocation {
        bash(BARE_RESTORE, &[&self.postgres, &self.redis], &self.folder)
    }

    /// `pg_dump -Fc`.
    pub(super) fn custom_backup(&self, servers: &Servers) -> Invocation {
        bash(CUSTOM_BACKUP, &[&servers.postgres.id, &self.database], &self.folder)
    }

    /// An empty database for `pg_restore`, in a server that archives nothing. The roles are there.
    ///
    /// # Errors
    /// A program fails.
    pub(super) fn begin_custom(&self) -> Result<()> {
        let database = &self.database;
        self.prepare(&format!(
            "{STOP}; {START}\" start; dropdb --username postgres {database}; \
             createdb --username postgres --template template0 --owner owner {database}; \
             psql -Xqc CHECKPOINT postgres postgres"
        ))
    }

    /// `pg_restore` with as many jobs as there are cores; those need a file.
    pub(super) fn custom_restore(&self) -> Invocation {
        let jobs = format!("--jobs={}", lanes());
        let words = ["exec", &self.postgres, "pg_restore", "--username", SUPERUSER, &jobs];
        let command = Invocation::new("docker").args(words);
        command.args(["--dbname", &self.database, "/bench/rows.dump"]).limit(LIMIT)
    }

    /// A server that archives its log, and an empty repository.
    ///
    /// # Errors
    /// A program fails.
    pub(super) fn begin_pgbackrest(&self) -> Result<()> {
        self.prepare(&format!(
            "{STOP}; find /repo -mindepth 1 -delete; {START}{ARCHIVES}\" start; \
             pgbackrest stanza-create; pgbackrest check"
        ))
    }

    /// A full backup by pgBackRest.
    pub(super) fn pgbackrest_backup(&self) -> Invocation {
        inside(&self.postgres, "pgbackrest --type=full backup")
    }

    /// No server any more, and an empty folder.
    ///
    /// # Errors
    /// A program fails.
    pub(super) fn lose(&self) -> Result<()> {
        self.prepare(&format!("{STOP}; {EMPTY}"))
    }

    /// pgBackRest's restore, until the server has read the log and takes writes.
    pub(super) fn pgbackrest_restore(&self) -> Invocation {
        let script = format!("pgbackrest restore; {START}{ARCHIVES}\" start; {RECOVERED}");
        inside(&self.postgres, &script)
    }

    /// Bytes in pgBackRest's repository: the backup and the log that belongs to it.
    ///
    /// # Errors
    /// The container does not answer.
    pub(super) fn repository_bytes(&self) -> Result<u64> {
        let said = self.ctx.read(inside(&self.postgres, "du -sk /repo"))?;
        let kib = said.split_whitespace().next().and_then(|word| word.parse::<u64>().ok());
        kib.map(|kib| kib << 10).with_context(|| format!("read the size of /repo: {said:?}"))
    }

    /// Bytes of what the bare pipeline wrote, and of what `pg_dump -Fc` wrote.
    ///
    /// # Errors
    /// It is not there.
    pub(super) fn bytes(&self, names: &[&str]) -> Result<u64> {
        let size = |name: &&str| {
            let path = self.folder.join(name);
            let file =
                fs::metadata(&path).with_context(|| format!("look at {}", path.display()))?;
            Ok(file.len())
        };
        names.iter().map(size).sum()
    }

    /// The PostgreSQL, to be asked.
    pub(super) fn server(&self) -> Postgres<'_> {
        Postgres::own(self.ctx, &self.postgres)
    }

    /// The Redis, to be asked.
    pub(super) fn keys(&self) -> Result<u64> {
        Redis { ctx: self.ctx, container: &self.redis, client: "redis-cli" }.count(0)
    }

    fn prepare(&self, script: &str) -> Result<()> {
        self.ctx.run(inside(&self.postgres, script))
    }
}

/// A container that does nothing, for programs to be started in.
fn sleeper(name: &str, label: &str) -> Invocation {
    let words = ["run", "--detach", "--init", "--network", "none", "--pull", "never"];
    let command = Invocation::new("docker").args(words);
    command.args(["--name", name, "--label", label, "--entrypoint", "sleep"])
}

fn inside(container: &str, script: &str) -> Invocation {
    Invocation::new("docker").args(["exec", container, "sh", "-euc", script]).limit(LIMIT)
}

/// As a person would type it. A shell, because the shell's own pipe is what is measured.
fn bash(script: &str, words: &[&str], folder: &Path) -> Invocation {
    let command = Invocation::new("bash").args(["-c", script, "bash"]).args(words.to_vec());
    command.arg(folder).limit(LIMIT)
}
