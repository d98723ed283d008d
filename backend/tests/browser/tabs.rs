//! Two tabs of one browser: they share the cookie, and each has a page that knows nothing of the other.

use fantoccini::wd::WindowHandle;

use crate::browser::{Browser, PASSWORD, with_tabs};

const ANOTHER: &str = "This browser is signed in with another account now. This is its page.";

/// The page's own look at whose session it is, when it comes into view, does not happen in this tab.
const DEAF: &str =
    "addEventListener('visibilitychange', (event) => event.stopImmediatePropagation(), true)";
/// A headless browser shows every tab at any time.
const COMES_INTO_VIEW: &str = "document.dispatchEvent(new Event('visibilitychange'))";

impl Browser {
    /// Leaves the tab that is in view, deaf to what happens elsewhere, for a new one. Returns the way back.
    pub(crate) async fn leave_for_a_new_tab(&self) -> WindowHandle {
        self.run(DEAF).await;
        self.new_tab().await
    }

    async fn new_tab(&self) -> WindowHandle {
        let first = self.client.window().await.unwrap();
        let second = self.client.new_window(true).await.unwrap();
        self.client.switch_to_window(second.handle).await.unwrap();
        self.open("/").await;
        first
    }

    /// Ends the session of whoever is signed in and begins another one, of the same account.
    pub(crate) async fn sign_in_anew(&self, email: &str) {
        self.sees(email).await;
        self.choose("Sign out").await;
        self.sees("You are signed out.").await;
        self.enter(email, PASSWORD).await;
        self.sees(email).await;
    }

    /// Ends the session of whoever is signed in and begins one of a new account.
    pub(crate) async fn become_another(&self) -> String {
        self.sees("Sign out").await;
        self.choose("Sign out").await;
        self.sees("You are signed out.").await;
        self.sign_up_here().await
    }

    /// Shows what is another account's, and nothing of the former's.
    pub(crate) async fn has_turned_over(&self, former: &str, email: &str) {
        self.sees(ANOTHER).await;
        self.sees(email).await;
        self.until("document.activeElement.id === 'main'").await;
        let source = self.client.source().await.unwrap();
        assert!(!source.contains(former), "the page still holds {former}");
    }
}

#[tokio::test]
async fn a_tab_goes_on_after_the_same_person_signed_in_anew_in_another() {
    with_tabs("tabs-same", async |browser| {
        let email = browser.sign_up().await;
        let first = browser.leave_for_a_new_tab().await;
        browser.sign_in_anew(&email).await;
        browser.client.switch_to_window(first).await.unwrap();
        browser.choose("Your account").await;
        browser.sees("this one").await;
        browser.choose("Sign out").await;
        browser.sees("You are signed out.").await;
    })
    .await;
}

#[tokio::test]
async fn a_tab_writes_after_the_same_person_signed_in_anew_in_another() {
    with_tabs("tabs-same-write", async |browser| {
        let email = browser.sign_up().await;
        let first = browser.leave_for_a_new_tab().await;
        browser.sign_in_anew(&email).await;
        browser.client.switch_to_window(first).await.unwrap();
        browser.choose("Sign out").await;
        browser.sees("You are signed out.").await;
    })
    .await;
}

#[tokio::test]
async fn a_tab_reads_nothing_of_another_account_under_the_former_ones_name() {
    with_tabs("tabs-read", async |browser| {
        let former = browser.sign_up().await;
        let first = browser.leave_for_a_new_tab().await;
        let email = browser.become_another().await;
        browser.client.switch_to_window(first).await.unwrap();
        browser.choose("Your account").await;
        browser.has_turned_over(&former, &email).await;
        browser.screenshot("another-account").await;
        browser.choose("Your account").await;
        browser.sees("this one").await;
    })
    .await;
}

#[tokio::test]
async fn a_tab_does_nothing_to_another_account_in_the_former_ones_name() {
    with_tabs("tabs-write", async |browser| {
        let former = browser.sign_up().await;
        let first = browser.leave_for_a_new_tab().await;
        let email = browser.become_another().await;
        browser.client.switch_to_window(first).await.unwrap();
        browser.choose("Sign out").await;
        browser.has_turned_over(&former, &email).await;
        // Nobody signed that account out.
        browser.client.refresh().await.unwrap();
        browser.sees(&email).await;
        browser.choose("Sign out").await;
        browser.sees("You are signed out.").await;
    })
    .await;
}

#[tokio::test]
async fn a_tab_that_comes_into_view_shows_who_is_signed_in_by_now() {
    with_tabs("tabs-view", async |browser| {
        let former = browser.sign_up().await;
        let first = browser.new_tab().await;
        let second = browser.client.window().await.unwrap();
        let email = browser.become_another().await;

        browser.client.switch_to_window(first.clone()).await.unwrap();
        browser.run(COMES_INTO_VIEW).await;
        browser.has_turned_over(&former, &email).await;

        browser.client.switch_to_window(second.clone()).await.unwrap();
        browser.choose("Sign out").await;
        browser.sees("You are signed out.").await;
        browser.client.switch_to_window(first.clone()).await.unwrap();
        browser.run(COMES_INTO_VIEW).await;
        browser.sees("Your session has ended. Sign in again.").await;

        browser.client.switch_to_window(second).await.unwrap();
        browser.enter(&email, PASSWORD).await;
        browser.sees(&email).await;
        browser.client.switch_to_window(first).await.unwrap();
        browser.run(COMES_INTO_VIEW).await;
        browser.sees(&email).await;
        browser.until("!document.getElementById('message-text').textContent").await;
    })
    .await;
}
