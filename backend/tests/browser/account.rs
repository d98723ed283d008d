//! An account, from its beginning to the end of its session, by keyboard alone.

use fantoccini::key::Key;

use crate::browser::{Browser, PASSWORD, new_email, with_browser};

impl Browser {
    /// Makes an account by keyboard, and is signed in with it.
    pub(crate) async fn sign_up(&self) -> String {
        self.open("/").await;
        self.sees("Sign in").await;
        let email = self.sign_up_here().await;
        self.sees("Sign out").await;
        email
    }

    /// Makes an account at the entrance that is in view.
    pub(crate) async fn sign_up_here(&self) -> String {
        let email = new_email();
        self.choose("Create an account").await;
        self.sees("I have an account").await;
        self.enter(&email, PASSWORD).await;
        self.sees(&email).await;
        email
    }

    /// Signs in by keyboard.
    pub(crate) async fn sign_in(&self, email: &str) {
        self.open("/").await;
        self.sees("Sign in").await;
        self.tab_to("E-mail address").await;
        self.enter(email, PASSWORD).await;
        self.sees(email).await;
    }

    /// Fills the form of the entrance in and sends it. The focus is on its first field.
    pub(crate) async fn enter(&self, email: &str, password: &str) {
        assert_eq!(self.focused().await.1, "E-mail address");
        self.fill(email).await;
        self.tab_to("Password").await;
        self.fill(password).await;
        self.press(Key::Enter).await;
    }

    /// Replaces what is in the field that has the focus.
    async fn fill(&self, text: &str) {
        self.run("document.activeElement.select()").await;
        self.types(text).await;
    }
}

#[tokio::test]
async fn an_account_is_used_by_keyboard_alone() {
    with_browser("account", async |browser| {
        let email = browser.sign_up().await;
        browser.choose("Your account").await;
        browser.sees("this one").await;
        browser.screenshot("account").await;

        browser.press(Key::Home).await;
        browser.choose("Sign out").await;
        browser.sees("You are signed out.").await;

        // The fields are empty, and the message is read out.
        browser
            .until("document.activeElement.id === 'email' && !document.activeElement.value")
            .await;
        browser.until("document.querySelector('[role=status]').textContent").await;

        browser.enter(&email, "not the password").await;
        browser.sees("password").await;
        browser
            .until("document.getElementById('message-text').textContent.includes('password')")
            .await;
        browser.screenshot("wrong-password").await;

        browser.sign_in(&email).await;
    })
    .await;
}

#[tokio::test]
async fn a_button_that_was_of_no_avail_keeps_the_focus() {
    with_browser("button", async |browser| {
        browser.open("/").await;
        browser.sees("Sign in").await;
        browser.tab_to("E-mail address").await;
        browser.types(&new_email()).await;
        browser.tab_to("Password").await;
        browser.types(PASSWORD).await;
        browser.choose("Sign in").await;
        browser.sees("The e-mail address or the password is wrong.").await;
        browser.until("document.activeElement.id === 'enter'").await;
    })
    .await;
}

#[tokio::test]
async fn an_error_stands_at_its_field() {
    with_browser("field", async |browser| {
        browser.open("/").await;
        browser.sees("Sign in").await;
        browser.choose("Create an account").await;
        browser.sees("I have an account").await;
        browser.enter("no address", "short").await;
        browser.until("document.getElementById('email-error').textContent").await;
        // What is wrong is said of the field, and the focus is there.
        browser.until("document.activeElement.getAttribute('aria-invalid') === 'true'").await;
        browser
            .until(
                "document.activeElement.getAttribute('aria-describedby').includes('email-error')",
            )
            .await;
        browser.screenshot("field-error").await;
    })
    .await;
}

#[tokio::test]
async fn the_way_back_leads_to_nothing_private() {
    with_browser("back", async |browser| {
        let email = browser.sign_up().await;
        browser.choose("What is kept about you").await;
        browser.sees("One cookie").await;

        // Signed out meanwhile, in another tab.
        let first = browser.client.window().await.unwrap();
        let second = browser.client.new_window(true).await.unwrap();
        browser.client.switch_to_window(second.handle).await.unwrap();
        browser.open("/").await;
        browser.sees(&email).await;
        browser.choose("Sign out").await;
        browser.sees("You are signed out.").await;
        browser.client.close_window().await.unwrap();
        browser.client.switch_to_window(first).await.unwrap();

        browser.client.back().await.unwrap();
        browser.sees("Create an account").await;
        assert!(!browser.text().await.contains(&email), "{}", browser.text().await);
        let source = browser.client.source().await.unwrap();
        assert!(!source.contains(&email), "the page still holds {email}");
    })
    .await;
}
