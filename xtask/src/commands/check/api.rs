//! The API against its own description: random requests by Schemathesis, through nginx.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::ctx::{Ctx, Invocation};
use crate::env::random_hex;
use crate::host::packages;
use crate::stack::trial::Trial;

/// On PyPI, like the linter of nginx' configuration.
const SCHEMATHESIS: &str = "schemathesis==4.32.5";
const SETTINGS: &str = "backend/tests/schemathesis.toml";
/// Operations that make a session, and end the one that they are sent with: they get a run of their
/// own, by nobody.
const SIGNING_IN: [&str; 2] = ["sign_up", "sign_in"];
/// How long a run goes on looking: by somebody who is signed in, and by nobody.
const SECONDS: [&str; 2] = ["30", "10"];
/// The same with a first installation.
const LIMIT: Duration = Duration::from_secs(5 * 60);

/// What it needs to be somebody.
struct Session {
    cookie: String,
    token: String,
}

/// What the backend says to whoever signed up.
#[derive(Deserialize)]
struct SignedUp {
    csrf_token: String,
}

/// Sends what the description allows and what it forbids, and compares the answers with it.
///
/// # Errors
/// An answer is not what the description says; the request is printed as a curl command.
pub(super) fn check(ctx: &Ctx, trial: &Trial) -> Result<()> {
    let programs = [("pipx", "pipx"), ("curl", "curl")];
    packages::ensure_programs(ctx, &programs, "compare the API with its description")?;
    let address = trial.project(ctx)?.address();
    let address = address.trim_end_matches('/');
    let session = sign_up(ctx, address)?;
    run(ctx, address, &session, "--exclude-operation-id", SECONDS[0])?;
    // Without its session it would have been turned away everywhere, and found nothing.
    let status = curl(ctx, &format!("{address}/api/session"), &session.header())?;
    ensure!(
        status.lines().next().is_some_and(|line| line.contains(" 200")),
        "the run lost its session on the way, so little was checked: leave the operation that ended \
         it out in {SETTINGS}"
    );
    let nobody = Session { cookie: String::new(), token: String::new() };
    run(ctx, address, &nobody, "--include-operation-id", SECONDS[1])
}

/// A run with or without the operations that make a session.
fn run(ctx: &Ctx, address: &str, session: &Session, filter: &str, seconds: &str) -> Result<()> {
    let run = Invocation::new("pipx")
        .args(["run", "--spec", SCHEMATHESIS, "schemathesis", "--config-file", SETTINGS, "run"])
        .args(["--no-color", "--max-time", seconds])
        .args(SIGNING_IN.iter().flat_map(|operation| [filter, operation]))
        .arg(format!("{address}/api/openapi.json"))
        .dir(ctx.root())
        .env("PIPX_HOME", ctx.state_dir().join("pipx"))
        .env("API_SESSION", &session.cookie)
        .env("API_TOKEN", &session.token)
        .limit(LIMIT);
    ctx.run_loud(run).context("compare the API with its description")
}

impl Session {
    fn header(&self) -> String {
        format!("header = \"Cookie: session={}\"\n", self.cookie)
    }
}

fn sign_up(ctx: &Ctx, address: &str) -> Result<Session> {
    let (name, password) = (random_hex(8)?, random_hex(16)?);
    let options = format!(
        "header = \"Content-Type: application/json\"\nheader = \"Origin: {address}\"\n\
         data = \"{{\\\"email\\\":\\\"{name}@example.com\\\",\\\"password\\\":\\\"{password}\\\"}}\"\n"
    );
    let answer = curl(ctx, &format!("{address}/api/accounts"), &options)?;
    session_of(&answer).context("sign up")
}

/// The cookie and the token in an answer, as `curl --include` prints it; pure.
fn session_of(answer: &str) -> Result<Session> {
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer is cut")?;
    let status = head.lines().next().unwrap_or_default();
    let cookie = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": session=")?;
        let value = value.split(';').next().unwrap_or_default();
        name.eq_ignore_ascii_case("set-cookie").then(|| value.to_owned())
    });
    let cookie = cookie.with_context(|| format!("the answer `{status}` has no session: {body}"))?;
    let body: SignedUp = serde_json::from_str(body).context("read who signed up")?;
    Ok(Session { cookie, token: body.csrf_token })
}

/// Asks with options from standard input: what is secret stands in no argument list.
fn curl(ctx: &Ctx, url: &str, options: &str) -> Result<String> {
    let words = ["--silent", "--show-error", "--include", "--max-time", "10", "--config", "-", url];
    ctx.read(Invocation::new("curl").args(words).stdin(options))
}

#[cfg(test)]
mod tests {
    use super::session_of;

    #[test]
    fn the_session_is_read_from_the_answer() {
        let head =
            "HTTP/1.1 201 Created\r\nServer: nginx\r\nset-cookie: session=abc; Path=/\r\n\r\n";
        let session =
            session_of(&format!("{head}{{\"account\":{{}},\"csrf_token\":\"t\"}}")).unwrap();
        assert_eq!((session.cookie.as_str(), session.token.as_str()), ("abc", "t"));
        let error = session_of("HTTP/1.1 422 Unprocessable Entity\r\n\r\n{}").err().unwrap();
        assert!(error.to_string().contains("422 Unprocessable Entity"), "{error:#}");
    }
}
