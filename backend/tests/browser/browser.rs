//! A person at a browser: keys, what is on the screen, and what the browser complains about.

use std::fmt::Display;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fantoccini::actions::{InputSource, KeyAction, KeyActions};
use fantoccini::key::Key;
use fantoccini::{Client, Locator};
use serde_json::{Value, json};
use tokio::sync::RwLock;

use crate::driver::{self, Driver};
use crate::parts;

pub(crate) const PASSWORD: &str = "correct horse battery";
/// One test, on a machine that is busy with others.
const TEST_LIMIT: Duration = Duration::from_secs(120);
/// Until something that was asked for is on the screen.
const LIMIT: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(20);
/// More controls than any page has.
const MANY_TABS: usize = 60;

/// Every test shares the stack with others, but one that takes a part of it away.
static STACK: RwLock<()> = RwLock::const_new(());

/// Runs a test in a browser of its own, and asks the browser at the end what it had to complain about.
/// Whatever happens, the browser goes; after a failure a screenshot stays.
pub(crate) async fn with_browser<F>(name: &str, body: impl FnOnce(Browser) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let _shared = STACK.read().await;
    with_browsers(name, &[], |[browser]| body(browser)).await;
}

/// The same with two browsers that know nothing of each other. One may end the other's session.
pub(crate) async fn with_two_browsers<F>(name: &str, body: impl FnOnce(Browser, Browser) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let _shared = STACK.read().await;
    let expected = ["status of 401", "status of 404"];
    with_browsers(name, &expected, |[here, there]| body(here, there)).await;
}

/// The same with one browser whose tabs share a cookie. One may replace the session of the other.
pub(crate) async fn with_tabs<F>(name: &str, body: impl FnOnce(Browser) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let _shared = STACK.read().await;
    with_browsers(name, &["status of 401", "status of 403"], |[browser]| body(browser)).await;
}

/// The same with one browser while no other test runs, for a test that takes a part of the stack away.
pub(crate) async fn with_browser_alone<F>(name: &str, body: impl FnOnce(Browser) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let _alone = STACK.write().await;
    let expected = ["status of 502", "status of 503", "status of 504"];
    with_browsers(name, &expected, |[browser]| body(browser)).await;
}

async fn with_browsers<const N: usize, F>(
    name: &str,
    expected: &[&str],
    body: impl FnOnce([Browser; N]) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    parts::wait_for_the_network();
    let driver = Driver::start();
    let mut browsers = Vec::new();
    for _ in 0..N {
        browsers.push(Browser { client: driver.open().await });
    }
    let theirs = std::array::from_fn(|at| browsers[at].clone());
    // In a task of its own, so that a panic is a value.
    let test = tokio::spawn(tokio::time::timeout(TEST_LIMIT, body(theirs))).await;
    let passed = matches!(test, Ok(Ok(())));
    let mut complaints = Vec::new();
    for (at, browser) in browsers.into_iter().enumerate() {
        complaints.extend(browser.complaints(expected).await);
        if !passed {
            let which = if at == 0 { String::new() } else { format!("-{}", at + 1) };
            browser.screenshot(&format!("{name}{which}-failed")).await;
        }
        let _ = browser.client.close().await;
    }
    if !passed {
        eprintln!("the browser's own complaints: {complaints:#?}");
    }
    match test {
        Ok(Ok(())) => assert!(complaints.is_empty(), "the browser complains: {complaints:#?}"),
        Ok(Err(_)) => panic!("{name} was not through after {TEST_LIMIT:?}"),
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

#[derive(Clone)]
pub(crate) struct Browser {
    pub(crate) client: Client,
}

/// The site without a slash at the end.
fn site() -> String {
    let site = std::env::var("STACK_URL").expect("STACK_URL is set by `cargo xtask test`");
    site.trim_end_matches('/').to_owned()
}

/// An address that no other test, and no earlier run on the same stack, uses.
pub(crate) fn new_email() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    format!("browser_{now:x}@example.com")
}

impl Browser {
    pub(crate) async fn open(&self, path: &str) {
        self.client.goto(&format!("{}{path}", site())).await.unwrap();
    }

    /// The value of a script's `return`.
    pub(crate) async fn run(&self, script: &str) -> Value {
        let value = self.client.execute(script, Vec::new()).await;
        value.unwrap_or_else(|error| panic!("{script}: {error}"))
    }

    /// Waits until an expression of JavaScript is true.
    pub(crate) async fn until(&self, condition: &str) {
        let deadline = Instant::now() + LIMIT;
        loop {
            // While a page is replaced by the next, there is none to ask.
            let answer = self.client.execute(&format!("return !!({condition})"), Vec::new()).await;
            if matches!(answer, Ok(Value::Bool(true))) {
                return;
            }
            if Instant::now() > deadline {
                let text = self.text().await;
                panic!("after {LIMIT:?} not true: {condition}; {answer:?}; on the screen:\n{text}");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Waits until a text can be seen.
    pub(crate) async fn sees(&self, text: &str) {
        self.until(&format!("document.body.innerText.includes({})", json!(text))).await;
    }

    /// All that can be seen.
    pub(crate) async fn text(&self) -> String {
        self.run("return document.body.innerText").await.as_str().unwrap().to_owned()
    }

    pub(crate) async fn press(&self, key: Key) {
        self.keys(&[key.into()]).await;
    }

    /// Presses the last key while the others are held.
    pub(crate) async fn chord(&self, held: Key, key: Key) {
        self.keys(&[held.into(), key.into()]).await;
    }

    async fn keys(&self, keys: &[char]) {
        let down = keys.iter().map(|&value| KeyAction::Down { value });
        let up = keys.iter().rev().map(|&value| KeyAction::Up { value });
        let actions = KeyActions::new("keyboard".to_owned());
        let actions = down.chain(up).fold(actions, |actions, action| actions.then(action));
        self.client.perform_actions(actions).await.unwrap();
    }

    /// Types into whatever has the focus.
    pub(crate) async fn types(&self, text: &str) {
        self.client.active_element().await.unwrap().send_keys(text).await.unwrap();
    }

    /// Presses Tab until the focus is on the control with this accessible name, and checks that it
    /// can be seen there.
    pub(crate) async fn tab_to(&self, name: &str) {
        let mut passed = Vec::new();
        while passed.len() < MANY_TABS {
            self.press(Key::Tab).await;
            let (_, label) = self.focused().await;
            if label == name {
                let ring = "return getComputedStyle(document.activeElement).outlineStyle";
                assert_ne!(self.run(ring).await, "none", "{name} has the focus, and shows nothing");
                return;
            }
            passed.push(label);
        }
        panic!("Tab never reaches {name:?}; it passed {passed:?}");
    }

    /// Goes to a control by Tab and presses Enter.
    pub(crate) async fn choose(&self, name: &str) {
        self.tab_to(name).await;
        self.press(Key::Enter).await;
    }

    /// Role and accessible name of what has the focus.
    pub(crate) async fn focused(&self) -> (String, String) {
        let element = self.client.active_element().await.unwrap();
        self.named(&element.element_id()).await
    }

    /// Role and accessible name of every control that can be seen, as `role: name`.
    pub(crate) async fn controls(&self) -> Vec<String> {
        let all = Locator::Css("a[href], button, input, textarea, select, summary");
        let mut found = Vec::new();
        for element in self.client.find_all(all).await.unwrap() {
            if element.is_displayed().await.unwrap() {
                let (role, name) = self.named(&element.element_id()).await;
                found.push(format!("{role}: {name}"));
            }
        }
        found
    }

    async fn named(&self, element: impl AsRef<str> + Display) -> (String, String) {
        let ask = async |what: &str| {
            let answer = driver::ask(&self.client, format!("element/{element}/{what}")).await;
            answer.unwrap().as_str().unwrap_or_default().to_owned()
        };
        (ask("computedrole").await, ask("computedlabel").await)
    }

    /// What the browser wrote to its console since it was asked last, but what is expected: an answer
    /// 401 to who is not signed in, 422 to who is no address, a page that is not there, what happens
    /// while a test has cut the line, and answers of the API that this test is about.
    async fn complaints(&self, answers: &[&str]) -> Vec<String> {
        let log = driver::tell(&self.client, "se/log", json!({ "type": "browser" })).await;
        let log = log.expect("the browser's log");
        let text = |entry: &Value| entry["message"].as_str().unwrap_or_default().to_owned();
        let is_expected = |text: &String| {
            text.contains("/api/session - Failed to load resource")
                && text.contains("status of 401")
                || text.contains("/api/accounts - Failed to load resource")
                    && text.contains("status of 422")
                || text.contains("/nowhere - Failed to load resource")
                || text.contains("net::ERR_INTERNET_DISCONNECTED")
                || text.contains("net::ERR_BLOCKED_BY_CLIENT")
                || text.contains("/api/") && answers.iter().any(|answer| text.contains(answer))
        };
        log.as_array().unwrap().iter().map(text).filter(|text| !is_expected(text)).collect()
    }

    /// Cuts the line to every server, or mends it.
    pub(crate) async fn offline(&self, offline: bool) {
        let conditions = json!({ "offline": offline, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1 });
        driver::chromium(&self.client, "Network.enable", json!({})).await;
        driver::chromium(&self.client, "Network.emulateNetworkConditions", conditions).await;
    }

    /// Cuts the line to these addresses alone; to none mends it.
    pub(crate) async fn cut(&self, addresses: &[&str]) {
        driver::chromium(&self.client, "Network.enable", json!({})).await;
        driver::chromium(&self.client, "Network.setBlockedURLs", json!({ "urls": addresses }))
            .await;
    }

    /// Keeps what can be seen as `target/ci/screenshots/SCHEME/NAME.png`.
    pub(crate) async fn screenshot(&self, name: &str) {
        let folder = std::env::var_os("SCREENSHOTS").map_or_else(
            || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/ci/screenshots"),
            PathBuf::from,
        );
        let folder = folder.join(site().split(':').next().unwrap());
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join(format!("{name}.png"));
        match self.client.screenshot().await {
            Ok(picture) => std::fs::write(&file, picture).unwrap(),
            Err(error) => eprintln!("no screenshot {}: {error}", file.display()),
        }
    }
}
