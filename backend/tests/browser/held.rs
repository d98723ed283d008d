//! One answer that is under way for as long as a test wants, or is lost on the way.

use serde_json::json;

use crate::browser::Browser;

/// The next answer to METHOD PATH reaches the page when `release` is called. It has come: nothing can stop
/// it any more.
const HOLD: &str = r#"
    const real = window.fetch;
    window.fetch = async (path, options) => {
        if (options.method !== METHOD || path !== PATH) return real(path, options);
        window.fetch = real;
        const answer = await real(path, { ...options, signal: undefined });
        const whole = new Response(await answer.text(), { status: answer.status });
        return new Promise((go) => { window.release = () => go(whole); });
    };
"#;
/// And lets the page do with it what it does.
const RELEASE: &str = r#"
    window.release();
    return new Promise((done) => setTimeout(() => setTimeout(() => done(true))));
"#;

/// The next METHOD PATH is not sent.
const LOSE: &str = r#"
    const real = window.fetch;
    window.fetch = async (path, options) => {
        if (options.method !== METHOD || path !== PATH) return real(path, options);
        window.fetch = real;
        throw new TypeError("the test has cut the line");
    };
"#;

impl Browser {
    pub(crate) async fn hold(&self, method: &str, path: &str) {
        self.run(&aimed(HOLD, method, path)).await;
    }

    pub(crate) async fn lose(&self, method: &str, path: &str) {
        self.run(&aimed(LOSE, method, path)).await;
    }

    /// Waits until the answer is there, and kept.
    pub(crate) async fn holds(&self) {
        self.until("window.release").await;
    }

    pub(crate) async fn release(&self) {
        self.run(RELEASE).await;
    }
}

fn aimed(script: &str, method: &str, path: &str) -> String {
    let (method, path) = (json!(method).to_string(), json!(path).to_string());
    script.replace("METHOD", &method).replace("PATH", &path)
}
