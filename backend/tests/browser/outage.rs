//! What a person sees while a part of the stack is away: what is the matter and how to go on, and all
//! that was typed.

use fantoccini::key::Key;
use serde_json::json;

use crate::browser::{Browser, PASSWORD, with_browser_alone};
use crate::parts::{Away, Way};

/// What the page says, whichever part it is: a person can do the same about each. And where nginx waited
/// in vain, as for a backend that is gone, that nobody knows whether it was done.
const TOLD: [&str; 2] = [
    "The site cannot do this at the moment. Try again a little later.",
    "The application did not answer in time. Whether it carried the request out is not known.",
];

impl Browser {
    /// Waits until the page says what is the matter, and offers to try again where the focus is.
    pub(crate) async fn is_told_to_try_again(&self) {
        let told = json!(TOLD);
        self.until(&format!("{told}.includes(document.getElementById('message-text').innerText)"))
            .await;
        self.until("document.activeElement.textContent === 'Try again'").await;
    }

    /// Tries again, and is told so once more: what the button does is another function then.
    pub(crate) async fn tries_in_vain(&self) {
        self.run("window.before = document.getElementById('again').onclick").await;
        self.press(Key::Enter).await;
        self.until("![null, window.before].includes(document.getElementById('again').onclick)")
            .await;
        self.is_told_to_try_again().await;
    }

    /// Tries again what failed; the message goes once it worked.
    pub(crate) async fn try_again(&self) {
        self.press(Key::Enter).await;
        self.until("!document.getElementById('message-text').textContent").await;
        self.until("document.getElementById('again').hidden").await;
    }
}

#[tokio::test]
async fn who_signs_in_while_the_sessions_are_away_types_nothing_twice() {
    with_browser_alone("outage-entrance", async |browser| {
        let email = browser.sign_up().await;
        browser.choose("Sign out").await;
        browser.sees("You are signed out.").await;

        let redis = Away::frozen("redis");
        browser.enter(&email, PASSWORD).await;
        browser.is_told_to_try_again().await;
        browser
            .until(&format!("document.getElementById('email').value === {}", json!(email)))
            .await;
        browser
            .until(&format!("document.getElementById('password').value === {}", json!(PASSWORD)))
            .await;
        browser.looks("outage-entrance").await;
        drop(redis);

        browser.try_again().await;
        browser.sees(&email).await;
    })
    .await;
}

#[tokio::test]
async fn a_page_that_is_opened_while_a_part_is_away_tells_nobody_that_they_are_signed_out() {
    with_browser_alone("outage-page", async |browser| {
        let email = browser.sign_up().await;
        let ways: [Way; 2] = [(Away::frozen, "redis"), (Away::stopped, "backend")];
        for (take_away, service) in ways {
            let part = take_away(service);
            browser.client.refresh().await.unwrap();
            browser.is_told_to_try_again().await;
            let controls = browser.controls().await;
            assert!(controls.contains(&"button: Try again".to_owned()), "{controls:?}");
            assert!(!controls.contains(&"textbox: Password".to_owned()), "{controls:?}");
            drop(part);
            browser.try_again().await;
            browser.sees(&email).await;
        }
    })
    .await;
}

#[tokio::test]
async fn nobody_waits_for_ever_for_a_site_that_says_nothing() {
    with_browser_alone("outage-silence", async |browser| {
        let email = browser.sign_up().await;
        browser.choose("Sign out").await;
        browser.sees("You are signed out.").await;
        // The page's own limit, kept aside and cut short.
        browser
            .run("const real = AbortSignal.timeout; AbortSignal.timeout = (ms) => { window.limit = ms; return real.call(AbortSignal, 300); }")
            .await;
        let nginx = Away::frozen("nginx");
        browser.enter(&email, PASSWORD).await;
        browser
            .sees("The site did not answer in time. Whether it carried the request out is not known.")
            .await;
        browser.until("document.activeElement.textContent === 'Try again'").await;
        browser.screenshot("outage-silence").await;
        // nginx's own word on a backend that is silent comes first.
        browser.until("window.limit > 15000").await;
        drop(nginx);
        browser.run("AbortSignal.timeout = () => new AbortController().signal").await;
        browser.try_again().await;
        browser.sees(&email).await;
    })
    .await;
}
