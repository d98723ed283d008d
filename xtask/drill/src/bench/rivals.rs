//! The rivals: containers beside the stack's own, on its network, that do the backend's work in the same
//! PostgreSQL and Redis. Their sources are in `xtask/drill/rivals`.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::{Instant, sleep};

use super::{Ask, CLIENT_LIMIT, Way};
use crate::docker::docker;
use crate::load::Client;
use crate::stack::Stack;
use crate::workload::{Session, Standing};

/// How long a rival may take to start.
const START_LIMIT: Duration = Duration::from_secs(30);

/// A rival: what the table calls it, what its container is called, how many processes it has.
const RIVALS: [(&str, &str, u32); 3] = [
    ("minimal axum", "axum", 1),
    ("Express", "express", 1),
    ("Express, 2 processes", "cluster", 2),
];

/// Rivals that run. They carry the stack's label, and go away with it.
pub struct Rivals {
    sessions: Vec<Session>,
}

impl Rivals {
    /// Starts them. `image` has Node.js and Express in it; `binary` is the other one.
    ///
    /// # Errors
    /// One does not start.
    pub async fn start(stack: &Stack, image: &str, binary: &Path) -> Result<Rivals> {
        for (_, service, processes) in RIVALS {
            start(stack, service, image, binary, processes).await?;
        }
        let sessions = sessions(stack).await?;
        Ok(Rivals { sessions })
    }

    /// The ways to them, once they answer.
    pub(super) async fn ways(&self, stack: &Stack) -> Result<Vec<Way>> {
        let mut ways = Vec::new();
        for (name, service, _) in RIVALS {
            let url = format!("http://{}:3000", stack.address_of(service).await?);
            let client = Client::new(&url, None, CLIENT_LIMIT)?;
            let (server, sessions) = (stack.container(service), self.sessions.clone());
            let way = Way { name, server, client, sessions };
            wait_for(&way).await?;
            ways.push(way);
        }
        Ok(ways)
    }
}

async fn start(
    stack: &Stack,
    service: &str,
    image: &str,
    binary: &Path,
    processes: u32,
) -> Result<()> {
    let secrets = stack.root.join(".secrets").join(&stack.project);
    let secret = |name: &str| format!("{}:/run/secrets/{name}:ro", secrets.join(name).display());
    let mut args: Vec<String> =
        ["run", "--detach", "--security-opt", "no-new-privileges"].map(str::to_owned).to_vec();
    let mut option = |name: &str, value: String| args.extend([name.to_owned(), value]);
    option("--name", stack.container(service));
    option("--label", stack.label());
    option("--network", stack.network());
    option("--volume", secret("pg_password"));
    option("--volume", secret("redis_password"));
    option("--volume", format!("{}:/rival/axum:ro", binary.display()));
    option("--env", format!("PROCESSES={processes}"));
    for name in ["PG_HOST", "PG_USER", "PG_DBNAME", "REDIS_HOST"] {
        option("--env", format!("{name}={}", stack.value(name)));
    }
    args.push(image.to_owned());
    if service == "axum" {
        args.push("/rival/axum".to_owned());
    }
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    docker(&args).await.with_context(|| format!("start the rival {service}"))?;
    Ok(())
}

/// One for each account, in the form of the backend's: a record under what the cookie says.
async fn sessions(stack: &Stack) -> Result<Vec<Session>> {
    let accounts = stack.sql("SELECT id FROM accounts ORDER BY id").await?;
    let mut sessions = Vec::new();
    for (person, account) in accounts.lines().enumerate() {
        let record = format!(r#"{{"account_id":{account},"created":0,"agent":""}}"#);
        stack.redis(&["set", &format!("session:rival-{account}"), &record, "EX", "86400"]).await?;
        let cookie = format!("session=rival-{account}");
        // A rival looks at no token; it gets one all the same, so that the requests are alike.
        let token = "0".repeat(64);
        sessions.push(Session { person, cookie, token, since: 0.0, standing: Standing::Open });
    }
    Ok(sessions)
}

async fn wait_for(way: &Way) -> Result<()> {
    let deadline = Instant::now() + START_LIMIT;
    let session = way.sessions.first().context("somebody has an account")?;
    loop {
        let reason = match way.client.send(Ask::Read.request(session)).await {
            Ok(answer) if answer.status == Ask::Read.expected() => return Ok(()),
            Ok(answer) => format!("it answers {}", answer.status),
            Err(failure) => failure.to_string(),
        };
        if Instant::now() > deadline {
            let log = docker(&["logs", "--tail", "20", &way.server]).await.unwrap_or_default();
            let seconds = START_LIMIT.as_secs();
            bail!("{} is not ready after {seconds} s: {reason}\n{log}", way.name);
        }
        sleep(Duration::from_millis(100)).await;
    }
}
