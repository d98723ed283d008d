//! A database for each test, copied from a template that the real migrations made once.
//!
//! Everything that a run of the tests makes in the stack's PostgreSQL and Redis has a name that
//! begins with the run's. The run holds a lock of that name as long as it lives; what is found
//! without its lock is a dead run's, and is removed by the next one.

use std::sync::{
    LazyLock, Mutex,
    atomic::{AtomicU32, Ordering},
};

use backend::{
    config::{DatabaseConfig, Rotating},
    db,
    migrate::{self, files::Set},
};
use redis::Commands;
use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, PgConnection};
use tokio::runtime::{Builder, Runtime};

use crate::support::{admin_config, database_config, redis_connection, stack, unique};

/// This run: its name, and the connection that holds its lock.
struct Run {
    name: String,
    template: String,
    _lock: Mutex<PgConnection>,
    _runtime: Runtime,
}

static RUN: LazyLock<Run> = LazyLock::new(|| on_a_thread(Run::begin));

/// A name in the stack that only this test has: lower-case letters, digits and `_`.
pub(crate) fn name() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{}_{}", RUN.name, COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A database that exists as long as this value.
pub(crate) struct Database {
    /// As the application's role.
    pub(crate) app: DatabaseConfig,
    /// As the owner of the schema.
    pub(crate) owner: DatabaseConfig,
}

impl Database {
    /// With the schema of the migrations.
    pub(crate) fn new() -> Self {
        Self::create(&RUN.template)
    }

    /// With nothing in it.
    pub(crate) fn empty() -> Self {
        Self::create("template0")
    }

    fn create(template: &str) -> Self {
        let dbname = name();
        run_sql(&format!("CREATE DATABASE {dbname} TEMPLATE {template} OWNER owner"));
        // As deploy/postgres/roles.sql does it; a template does not pass these on.
        let app = database_config().user;
        run_sql(&format!(
            "REVOKE ALL ON DATABASE {dbname} FROM PUBLIC; GRANT CONNECT ON DATABASE {dbname} TO {app}"
        ));
        Self {
            app: DatabaseConfig { dbname: dbname.clone(), ..database_config() },
            owner: owner_of(dbname),
        }
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        run_sql(&format!("DROP DATABASE {} WITH (FORCE)", self.app.dbname));
    }
}

fn owner_of(dbname: String) -> DatabaseConfig {
    let password = Rotating::fixed(stack("STACK_PG_OWNER_PASSWORD"));
    DatabaseConfig { user: "owner".to_owned(), dbname, password, ..database_config() }
}

/// Statements as the role that may create databases and roles.
pub(crate) fn run_sql(statements: &str) {
    let statements = statements.to_owned();
    on_a_thread(move || {
        runtime().block_on(async {
            let mut connection = connect(&admin_config()).await;
            execute(&mut connection, &statements).await;
        });
    });
}

pub(crate) async fn connect(config: &DatabaseConfig) -> PgConnection {
    db::connect(config, "test", &[]).await.unwrap()
}

pub(crate) async fn execute(connection: &mut PgConnection, statements: &str) {
    let outcome = sqlx::raw_sql(AssertSqlSafe(statements)).execute(connection).await;
    outcome.unwrap_or_else(|error| panic!("{statements}: {error}"));
}

/// A test may already be inside a runtime, where another one cannot be waited for.
fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::spawn(work).join().unwrap()
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

impl Run {
    fn begin() -> Self {
        let runtime = runtime();
        let name = unique("test");
        let (lock, template) = runtime.block_on(async {
            let mut lock = connect(&admin_config()).await;
            execute(&mut lock, &format!("SELECT pg_advisory_lock(hashtext('{name}'))")).await;
            sweep(&mut lock).await;
            let template = template(&mut lock, &name).await;
            (lock, template)
        });
        Self { name, template, _lock: Mutex::new(lock), _runtime: runtime }
    }
}

/// The template for the migrations as they are now. It stays for the next run; a run that is killed
/// while it makes one leaves it under its own name.
async fn template(connection: &mut PgConnection, run: &str) -> String {
    let set = Set::embedded().unwrap();
    let mut digest = Sha256::new();
    set.iter().for_each(|migration| digest.update(&migration.checksum));
    let name = format!("test_template_{}", hex::encode(&digest.finalize()[..8]));
    execute(connection, "SELECT pg_advisory_lock(hashtext('test_template'))").await;
    if !exists(connection, &name).await {
        let draft = format!("{run}_template");
        execute(connection, &format!("CREATE DATABASE {draft} OWNER owner")).await;
        let owner = owner_of(draft.clone());
        // As deploy/postgres/roles.sql does in the stack's own database.
        let app = database_config().user;
        let grants = format!(
            "ALTER DEFAULT PRIVILEGES GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {app};
             ALTER DEFAULT PRIVILEGES GRANT USAGE, SELECT ON SEQUENCES TO {app};"
        );
        execute(&mut connect(&owner).await, &grants).await;
        migrate::run(&owner, &set, &|_| {}).await.unwrap();
        execute(connection, &format!("ALTER DATABASE {draft} RENAME TO {name}")).await;
    }
    execute(connection, "SELECT pg_advisory_unlock(hashtext('test_template'))").await;
    name
}

async fn exists(connection: &mut PgConnection, dbname: &str) -> bool {
    let query = "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)";
    sqlx::query_scalar(query).bind(dbname).fetch_one(connection).await.unwrap()
}

/// Removes what dead runs left.
async fn sweep(connection: &mut PgConnection) {
    let query = "SELECT 'DATABASE', datname::text FROM pg_database WHERE datname ~ '^test_[0-9a-f]'
                 UNION ALL SELECT 'ROLE', rolname::text FROM pg_roles WHERE rolname ~ '^test_[0-9a-f]'";
    let found: Vec<(String, String)> =
        sqlx::query_as(query).fetch_all(&mut *connection).await.unwrap();
    for (kind, name) in found {
        if is_dead(connection, run_of(&name)).await {
            let force = if kind == "DATABASE" { "WITH (FORCE)" } else { "" };
            execute(connection, &format!("DROP {kind} IF EXISTS {name} {force}")).await;
        }
    }
    let mut redis = redis_connection();
    let keys: Vec<String> = redis.keys("*:test_*").unwrap();
    let users: Vec<String> = redis::cmd("ACL").arg("USERS").query(&mut redis).unwrap();
    for key in keys {
        let space = key.split(':').nth(1).unwrap_or_default();
        if is_dead(connection, run_of(space)).await {
            let () = redis.del(&key).unwrap();
        }
    }
    for user in users.iter().filter(|user| user.starts_with("test_")) {
        if is_dead(connection, run_of(user)).await {
            let () = redis::cmd("ACL").arg("DELUSER").arg(user).query(&mut redis).unwrap();
        }
    }
}

/// `test_TIME_PROCESS_COUNT` of a longer name: see [`unique`].
fn run_of(name: &str) -> &str {
    name.match_indices('_').nth(3).map_or(name, |(end, _)| &name[..end])
}

/// Nobody holds its lock.
async fn is_dead(connection: &mut PgConnection, run: &str) -> bool {
    let take = "SELECT pg_try_advisory_lock(hashtext($1))";
    let taken: bool = sqlx::query_scalar(take).bind(run).fetch_one(&mut *connection).await.unwrap();
    // Our own lock could be taken twice.
    let release = "SELECT pg_advisory_unlock(hashtext($1))";
    if taken {
        let _: bool =
            sqlx::query_scalar(release).bind(run).fetch_one(&mut *connection).await.unwrap();
    }
    taken
}
