//! One account in two browsers, and one of them ends the other's session.

use fantoccini::key::Key;

use crate::browser::{Browser, PASSWORD, with_browser, with_two_browsers};

const ENDED: &str = "Your session has ended. Sign in again.";

impl Browser {
    /// Makes an account here and signs in with it there. Returns its address.
    pub(crate) async fn share_account_with(&self, there: &Self) -> String {
        let email = self.sign_up().await;
        there.sign_in(&email).await;
        email
    }

    /// Opens the list of the account's sessions, which are so many.
    async fn list_sessions(&self, count: usize) {
        self.choose("Your account").await;
        self.has_sessions(count).await;
    }

    async fn has_sessions(&self, count: usize) {
        self.until(&format!("document.querySelectorAll('#sessions li').length === {count}")).await;
    }

    /// Ends the one session in the list that is another browser's.
    pub(crate) async fn end_the_other_session(&self) {
        self.list_sessions(2).await;
        self.choose_the_other_session().await;
        self.has_sessions(1).await;
    }

    /// Has the one session in the list ended that is another browser's.
    async fn choose_the_other_session(&self) {
        let is_its = |control: &&String| {
            control.starts_with("button: Sign out ") && control.contains(", last used ")
        };
        let controls = self.controls().await;
        let found: Vec<&String> = controls.iter().filter(is_its).collect();
        assert_eq!(found.len(), 1, "{controls:?}");
        self.choose(found[0].trim_start_matches("button: ")).await;
    }

    /// Is told that a step succeeded and that the list after it did not come, and asks for the list alone.
    async fn gets_the_list_after(&self, done: &str) {
        let told = format!("{done} The site cannot be reached.");
        self.sees(&told).await;
        self.until("document.activeElement.textContent === 'Try again'").await;
        self.screenshot("list-after").await;
        self.press(Key::Enter).await;
        self.until("document.getElementById('again').hidden").await;
        self.has_sessions(1).await;
        let said = self.run("return document.getElementById('message-text').textContent").await;
        assert_eq!(said, done);
        // The button has gone, and the way goes on above the list.
        self.until("document.activeElement.tagName === 'SUMMARY'").await;
    }

    /// Goes on as if nothing had happened, and is told; nothing of the account stays on the screen.
    async fn finds_itself_signed_out(&self, email: &str) {
        assert!(self.text().await.contains(email), "{}", self.text().await);
        self.choose("Your account").await;
        self.sees(ENDED).await;
        self.sees("Create an account").await;
        assert!(!self.text().await.contains(email), "{}", self.text().await);
        let source = self.client.source().await.unwrap();
        assert!(!source.contains(email), "the page still holds {email}");
    }

    /// The server knows the session still.
    async fn stays_signed_in(&self, email: &str) {
        self.client.refresh().await.unwrap();
        self.sees(email).await;
        self.list_sessions(1).await;
    }
}

#[tokio::test]
async fn one_other_session_is_ended_from_the_list() {
    with_two_browsers("sessions", async |here, there| {
        let email = here.share_account_with(&there).await;
        here.end_the_other_session().await;
        // The button has gone, and the way goes on above it.
        here.until("document.activeElement.tagName === 'SUMMARY'").await;
        assert!(!here.controls().await.contains(&"button: Sign out everywhere else".to_owned()));
        here.screenshot("one-session").await;
        there.finds_itself_signed_out(&email).await;
        there.screenshot("session-ended").await;
        here.stays_signed_in(&email).await;
        there.sign_in(&email).await;
    })
    .await;
}

#[tokio::test]
async fn every_other_session_is_ended_at_once() {
    with_two_browsers("sessions-others", async |here, there| {
        let email = here.share_account_with(&there).await;
        here.list_sessions(2).await;
        here.choose("Sign out everywhere else").await;
        here.sees("Every other browser is signed out.").await;
        here.has_sessions(1).await;
        there.finds_itself_signed_out(&email).await;
        here.stays_signed_in(&email).await;
    })
    .await;
}

#[tokio::test]
async fn signing_out_everywhere_ends_this_session_too() {
    with_two_browsers("sessions-all", async |here, there| {
        let email = here.share_account_with(&there).await;
        here.list_sessions(2).await;
        here.choose("Sign out everywhere").await;
        here.sees("You are signed out everywhere.").await;
        here.until("document.activeElement.id === 'email'").await;
        assert!(!here.text().await.contains(&email), "{}", here.text().await);
        there.finds_itself_signed_out(&email).await;
        for browser in [here, there] {
            browser.client.refresh().await.unwrap();
            browser.sees("Create an account").await;
            assert!(!browser.text().await.contains(&email), "{}", browser.text().await);
        }
    })
    .await;
}

#[tokio::test]
async fn a_password_that_was_changed_is_not_changed_again_for_the_lists_sake() {
    with_browser("password", async |browser| {
        let email = browser.sign_up().await;
        browser.list_sessions(1).await;
        browser.lose("GET", "/api/sessions").await;
        let new = "another horse battery";
        browser.tab_to("Current password").await;
        browser.types(PASSWORD).await;
        browser.tab_to("New password").await;
        browser.types(new).await;
        browser.press(Key::Enter).await;
        browser.gets_the_list_after("Your password is changed.").await;
        // It goes on with the new session, and the new password is the one that counts.
        browser.client.refresh().await.unwrap();
        browser.sees(&email).await;
        browser.choose("Sign out").await;
        browser.sees("You are signed out.").await;
        browser.enter(&email, new).await;
        browser.sees(&email).await;
    })
    .await;
}

#[tokio::test]
async fn a_session_that_was_ended_is_not_ended_again_for_the_lists_sake() {
    with_two_browsers("sessions-list", async |here, there| {
        here.share_account_with(&there).await;
        here.list_sessions(2).await;
        here.lose("GET", "/api/sessions").await;
        here.choose_the_other_session().await;
        here.gets_the_list_after("That browser is signed out.").await;
    })
    .await;
}

#[tokio::test]
async fn a_session_that_is_gone_already_leaves_the_list() {
    with_two_browsers("sessions-gone", async |here, there| {
        here.share_account_with(&there).await;
        here.list_sessions(2).await;
        there.choose("Sign out").await;
        there.sees("You are signed out.").await;
        here.choose_the_other_session().await;
        here.has_sessions(1).await;
        here.sees("The list was out of date. This is the present one.").await;
        here.until("document.activeElement.tagName === 'SUMMARY'").await;
    })
    .await;
}

#[tokio::test]
async fn who_signs_out_of_a_session_that_has_ended_is_signed_out() {
    with_two_browsers("sessions-out", async |here, there| {
        let email = here.share_account_with(&there).await;
        here.end_the_other_session().await;
        there.choose("Sign out").await;
        there.sees("You are signed out.").await;
        there.until("document.activeElement.id === 'email'").await;
        assert!(!there.text().await.contains(&email), "{}", there.text().await);
    })
    .await;
}
