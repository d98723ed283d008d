//! chromedriver: the program between these tests and Chromium.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use fantoccini::error::CmdError;
use fantoccini::wd::{Capabilities, WebDriverCompatibleCommand};
use fantoccini::{Client, ClientBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use ureq::http::Method;

const START_LIMIT: Duration = Duration::from_secs(30);
/// What precedes the port in the line by which it says that it listens.
const STARTED: &str = "started successfully on port ";

/// A chromedriver, until this is dropped.
pub(crate) struct Driver {
    child: Child,
    address: String,
}

/// With port 0 it takes a free one for IPv4 and wants the same for IPv6, where somebody may have it; then
/// it ends, and its next choice is another one.
const ATTEMPTS: u32 = 5;

impl Driver {
    pub(crate) fn start() -> Self {
        (0..ATTEMPTS)
            .find_map(|_| Self::try_start())
            .unwrap_or_else(|| panic!("chromedriver ended {ATTEMPTS} times without listening"))
    }

    /// None where it ended before it listened.
    fn try_start() -> Option<Self> {
        let mut child = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .spawn()
            .expect("chromedriver: `cargo xtask test` installs it (Debian's chromium-driver)");
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (said, port) = mpsc::channel();
        // Reads until the end: a driver whose pipe is full would stand still.
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some((_, port)) = line.split_once(STARTED) {
                    let _ = said.send(port.trim_end_matches('.').to_owned());
                }
            }
        });
        match port.recv_timeout(START_LIMIT) {
            Ok(port) => Some(Self { child, address: format!("http://127.0.0.1:{port}") }),
            Err(RecvTimeoutError::Disconnected) => {
                let status = child.wait().expect("wait for chromedriver");
                eprintln!("chromedriver ended before it listened: {status}");
                None
            }
            Err(RecvTimeoutError::Timeout) => {
                let _ = child.kill();
                panic!("chromedriver does not listen after {START_LIMIT:?}")
            }
        }
    }

    /// A browser with a fresh profile.
    pub(crate) async fn open(&self) -> Client {
        let capabilities: Capabilities = serde_json::from_value(capabilities()).unwrap();
        let mut builder = ClientBuilder::new(HttpConnector::new());
        builder.capabilities(capabilities).connect(&self.address).await.expect("start Chromium")
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn capabilities() -> Value {
    let mut arguments: Vec<String> = [
        "--headless",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-dev-shm-usage",
        "--force-prefers-reduced-motion",
        "--lang=en",
        "--window-size=1280,900",
    ]
    .map(str::to_owned)
    .to_vec();
    // Its sandbox needs rights that root in a container lacks. It opens this site alone.
    arguments.push("--no-sandbox".to_owned());
    // This one key, and no other whose certificate nobody vouches for.
    if let Ok(pin) = std::env::var("STACK_KEY_PIN") {
        arguments.push(format!("--ignore-certificate-errors-spki-list={pin}"));
    }
    json!({
        "browserName": "chrome",
        "goog:chromeOptions": { "args": arguments },
        "goog:loggingPrefs": { "browser": "ALL" },
        "timeouts": { "pageLoad": 20_000, "script": 10_000 },
    })
}

/// A command that fantoccini has no name for: its path below the session's.
#[derive(Debug)]
struct Plain {
    path: String,
    body: Option<Value>,
}

impl WebDriverCompatibleCommand for Plain {
    fn endpoint(
        &self,
        base: &url::Url,
        session: Option<&str>,
    ) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/{}", session.unwrap_or_default(), self.path))
    }

    fn method_and_body(&self, _: &url::Url) -> (Method, Option<String>) {
        match &self.body {
            Some(body) => (Method::POST, Some(body.to_string())),
            None => (Method::GET, None),
        }
    }
}

/// Asks the driver something by GET.
pub(crate) async fn ask(client: &Client, path: String) -> Result<Value, CmdError> {
    client.issue_cmd(Plain { path, body: None }).await
}

/// Has the driver do something by POST.
pub(crate) async fn tell(client: &Client, path: &str, body: Value) -> Result<Value, CmdError> {
    client.issue_cmd(Plain { path: path.to_owned(), body: Some(body) }).await
}

/// A command of Chromium's own protocol.
pub(crate) async fn chromium(client: &Client, command: &str, parameters: Value) {
    let body = json!({ "cmd": command, "params": parameters });
    tell(client, "goog/cdp/execute", body).await.unwrap_or_else(|e| panic!("{command}: {e}"));
}
