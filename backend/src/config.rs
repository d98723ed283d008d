//! The environment, read once and checked as a whole: every error is reported in one go, with the
//! name of the variable and what to do. Nothing else in the program reads the environment.

mod reader;
mod rotating;
mod secret;

use std::{fmt, net::SocketAddr};

pub use reader::Reader;
pub use rotating::{Accepted, Rotating};
pub use secret::{Key, Secret};

/// Which kind of installation this is. It decides on cookies and seeds, never on topology.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppEnv {
    /// A developer's machine, without TLS.
    Local,
    /// A stack of its own that a test run makes and removes.
    Test,
    /// Real users, behind TLS.
    Production,
}

/// How to reach PostgreSQL.
#[derive(Clone, Debug)]
pub struct DatabaseConfig {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The role.
    pub user: String,
    /// Its password.
    pub password: Rotating<String>,
    /// The database.
    pub dbname: String,
}

/// How to reach Redis.
#[derive(Clone, Debug)]
pub struct RedisConfig {
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The user.
    pub user: String,
    /// Its password.
    pub password: Rotating<String>,
    /// Stands in every key behind its kind, as in `session:SPACE…`. Empty but for tests, which share
    /// a Redis; behind the kind, so that Redis' rules for this user hold for them too.
    pub space: String,
}

/// Everything that serving needs.
#[derive(Clone, Debug)]
pub struct Config {
    /// The kind of installation.
    pub app_env: AppEnv,
    /// Where to listen.
    pub bind: SocketAddr,
    /// PostgreSQL as the application's role, which reads and writes rows.
    pub database: DatabaseConfig,
    /// PostgreSQL as the owner of the schema, who migrates it.
    pub owner: DatabaseConfig,
    /// Redis.
    pub redis: RedisConfig,
    /// Keys the hash under which a session is stored.
    pub session_secret: Rotating<[u8; 64]>,
    /// Keys the tokens against cross-site request forgery.
    pub csrf_key: Rotating<[u8; 64]>,
}

/// What is wrong with the environment, one sentence per variable.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigErrors(Vec<String>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the environment is not usable:")?;
        self.0.iter().try_for_each(|error| write!(f, "\n  - {error}"))
    }
}

impl std::error::Error for ConfigErrors {}

impl Config {
    /// Reads and checks every variable; reports every error at once.
    pub fn read(mut reader: Reader<'_>) -> Result<Self, ConfigErrors> {
        let app_env = app_env(&mut reader);
        let bind = reader.parse("BIND", DEFAULT_BIND, "an address and a port such as 0.0.0.0:3000");
        let database = database(&mut reader);
        let owner = owner(&mut reader);
        let redis = redis(&mut reader);
        let session_secret = reader.key("SESSION_SECRET");
        let csrf_key = reader.key("CSRF_SECRET_KEY");
        if let (Some(session), Some(csrf)) = (&session_secret, &csrf_key)
            && session.current() == csrf.current()
        {
            reader.reject("CSRF_SECRET_KEY must differ from SESSION_SECRET: generate a second key");
        }
        reader.finish(|| {
            Some(Self {
                app_env: app_env?,
                bind: bind?,
                database: database?,
                owner: owner?,
                redis: redis?,
                session_secret: session_secret?,
                csrf_key: csrf_key?,
            })
        })
    }

    /// Takes over the keys whose files have changed. The passwords are refreshed by the connections
    /// that use them.
    pub fn refresh_keys(&self) {
        self.session_secret.refresh();
        self.csrf_key.refresh();
    }

    /// Cookies are marked `Secure` where a browser reaches the site over TLS.
    pub fn secure_cookies(&self) -> bool {
        self.app_env == AppEnv::Production
    }
}

impl DatabaseConfig {
    /// Reads what a migration needs and nothing else, so that it runs without the other secrets.
    pub fn read_owner(mut reader: Reader<'_>) -> Result<Self, ConfigErrors> {
        let owner = owner(&mut reader);
        reader.finish(|| owner)
    }

    /// Reads what seeding needs: the database, and the environment in which it is refused.
    pub fn read_with_env(mut reader: Reader<'_>) -> Result<(AppEnv, Self), ConfigErrors> {
        let app_env = app_env(&mut reader);
        let database = database(&mut reader);
        reader.finish(|| Some((app_env?, database?)))
    }
}

/// Where the server listens unless told otherwise; the image exposes this port.
pub const DEFAULT_BIND: &str = "0.0.0.0:3000";

fn app_env(reader: &mut Reader<'_>) -> Option<AppEnv> {
    let value = reader.required("APP_ENV")?;
    match value.as_str() {
        "local" => Some(AppEnv::Local),
        "test" => Some(AppEnv::Test),
        "production" => Some(AppEnv::Production),
        other => {
            reader.reject(format!("APP_ENV is `{other}`: set it to local, test or production"));
            None
        }
    }
}

/// The role that owns the schema: deploy/postgres/roles.sql makes it.
const OWNER: &str = "owner";
/// The user of Redis: deploy/redis/backend.acl says what it may do.
const REDIS_USER: &str = "backend";

fn database(reader: &mut Reader<'_>) -> Option<DatabaseConfig> {
    let user = reader.required("PG_USER");
    let password = reader.password("PG_PASSWORD");
    database_of(reader, user, password)
}

fn owner(reader: &mut Reader<'_>) -> Option<DatabaseConfig> {
    let password = reader.password("PG_OWNER_PASSWORD");
    database_of(reader, Some(OWNER.to_owned()), password)
}

fn database_of(
    reader: &mut Reader<'_>,
    user: Option<String>,
    password: Option<Rotating<String>>,
) -> Option<DatabaseConfig> {
    let host = reader.required("PG_HOST");
    let port = reader.parse("PG_PORT", "5432", "a port number");
    let dbname = reader.required("PG_DBNAME");
    Some(DatabaseConfig {
        host: host?,
        port: port?,
        user: user?,
        password: password?,
        dbname: dbname?,
    })
}

fn redis(reader: &mut Reader<'_>) -> Option<RedisConfig> {
    let host = reader.required("REDIS_HOST");
    let port = reader.parse("REDIS_PORT", "6379", "a port number");
    let password = reader.password("REDIS_PASSWORD");
    let (user, space) = (REDIS_USER.to_owned(), String::new());
    Some(RedisConfig { host: host?, port: port?, user, password: password?, space })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn complete() -> HashMap<&'static str, String> {
        HashMap::from([
            ("APP_ENV", "local".to_owned()),
            ("PG_HOST", "postgres".to_owned()),
            ("PG_USER", "app".to_owned()),
            ("PG_PASSWORD", "hunter2".to_owned()),
            ("PG_OWNER_PASSWORD", "hunter3".to_owned()),
            ("PG_DBNAME", "app".to_owned()),
            ("REDIS_HOST", "redis".to_owned()),
            ("REDIS_PASSWORD", "hunter4".to_owned()),
            ("SESSION_SECRET", "5e".repeat(64)),
            ("CSRF_SECRET_KEY", "c5".repeat(64)),
        ])
    }

    fn read(variables: &HashMap<&str, String>) -> Result<Config, ConfigErrors> {
        Config::read(Reader::new(&|name| variables.get(name).cloned()))
    }

    #[test]
    fn a_complete_environment_is_accepted_with_its_defaults() {
        let config = read(&complete()).unwrap();
        assert_eq!(config.bind.to_string(), DEFAULT_BIND);
        assert_eq!((config.database.port, config.redis.port), (5432, 6379));
        assert!(!config.secure_cookies());
    }

    #[test]
    fn every_error_is_reported_at_once_with_its_variable() {
        let mut variables = complete();
        variables.remove("PG_HOST");
        variables.insert("APP_ENV", "prod".to_owned());
        variables.insert("PG_PORT", "fast".to_owned());
        variables.insert("SESSION_SECRET", "abc".to_owned());
        let message = read(&variables).unwrap_err().to_string();
        for name in ["PG_HOST", "APP_ENV", "PG_PORT", "SESSION_SECRET"] {
            assert!(message.contains(name), "{name} is not in:\n{message}");
        }
        assert_eq!(message.lines().count(), 5, "{message}");
    }

    #[test]
    fn an_empty_variable_counts_as_missing() {
        let mut variables = complete();
        variables.insert("PG_PASSWORD", String::new());
        let message = read(&variables).unwrap_err().to_string();
        assert!(message.contains("PG_PASSWORD is not set"), "{message}");
    }

    #[test]
    fn the_two_keys_must_differ() {
        let mut variables = complete();
        variables.insert("CSRF_SECRET_KEY", "5e".repeat(64));
        assert!(read(&variables).unwrap_err().to_string().contains("must differ"));
    }

    #[test]
    fn no_secret_is_printed() {
        let printed = format!("{:?}", read(&complete()).unwrap());
        assert!(!printed.contains("hunter") && !printed.contains("5e5e"), "{printed}");
        assert!(printed.contains("***"));
    }

    #[test]
    fn a_secret_may_come_from_a_file_but_not_from_both() {
        let path = std::env::temp_dir().join(format!("backend-config-{}", std::process::id()));
        std::fs::write(&path, "from-a-file\n# until then\nprevious\n").unwrap();
        let mut variables = complete();
        variables.insert("PG_PASSWORD_FILE", path.display().to_string());
        let message = read(&variables).unwrap_err().to_string();
        assert!(message.contains("both PG_PASSWORD and PG_PASSWORD_FILE"), "{message}");

        variables.remove("PG_PASSWORD");
        let config = read(&variables).unwrap();
        std::fs::remove_file(&path).unwrap();
        let accepted = config.database.password.accepted();
        let accepted: Vec<&str> = accepted.iter().map(|value| value.expose().as_str()).collect();
        assert_eq!(accepted, ["from-a-file", "previous"]);
    }
}
