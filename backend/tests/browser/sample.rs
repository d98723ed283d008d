//! The sample domain's page.

use fantoccini::key::Key;

use crate::browser::{Browser, PASSWORD, with_browser, with_browser_alone, with_two_browsers};
use crate::parts::{Away, Way};

/// One more than the API gives at once.
const MANY: usize = 21;

impl Browser {
    async fn write(&self, text: &str) {
        self.until("document.activeElement.id === 'text' && !document.activeElement.value").await;
        self.types(text).await;
        self.chord(Key::Control, Key::Enter).await;
    }

    /// Waits until so many notes are on the screen.
    async fn counts(&self, notes: usize) {
        self.until(&format!("document.querySelectorAll('#notes li').length === {notes}")).await;
    }
}

#[tokio::test]
async fn notes_are_kept_and_shown_page_by_page() {
    with_browser("notes", async |browser| {
        browser.sign_up().await;
        browser.sees("Nothing yet").await;
        let controls = browser.controls().await;
        let wanted = [
            "link: Skip to the content",
            "link: Notes",
            "button: Sign out",
            "textbox: New note",
            "button: Keep it",
            "DisclosureTriangle: Your account",
            "link: What is kept about you",
        ];
        assert_eq!(controls, wanted);

        browser.write("Water the plants on Thursday.").await;
        browser.counts(1).await;
        browser.client.refresh().await.unwrap();
        browser.sees("Water the plants on Thursday.").await;
        browser.expect_calm("desk").await;

        browser.tab_to("New note").await;
        for number in 2..=MANY {
            browser.write(&format!("Note {number}: <b>as it was typed</b>")).await;
            browser.counts(number).await;
        }
        browser.client.refresh().await.unwrap();
        browser.counts(MANY - 1).await;
        assert!(!browser.text().await.contains("Thursday"));
        browser.choose("Older notes").await;
        browser.counts(MANY).await;
        browser.sees("Water the plants on Thursday.").await;
        browser.sees("<b>as it was typed</b>").await;
        // The button has gone, and the way goes on where it stood.
        browser.until("document.activeElement !== document.body").await;
        browser.run("scrollTo(0, 0)").await;
        browser.looks("signed-in").await;
    })
    .await;
}

#[tokio::test]
async fn a_note_written_offline_is_kept_once_there_is_a_line_again() {
    with_browser("offline", async |browser| {
        browser.sign_up().await;
        browser.sees("Nothing yet").await;
        browser.offline(true).await;
        browser.write("Written in a tunnel.").await;
        browser.sees("cannot be reached").await;
        browser.screenshot("offline").await;
        browser.until("document.getElementById('text').value === 'Written in a tunnel.'").await;
        browser.offline(false).await;
        browser.until("document.activeElement.textContent === 'Try again'").await;
        browser.press(Key::Enter).await;
        browser.counts(1).await;
        browser.until("!document.getElementById('message-text').textContent").await;
        browser.client.refresh().await.unwrap();
        browser.counts(1).await;
    })
    .await;
}

#[tokio::test]
async fn a_list_that_does_not_come_is_asked_for_again_and_nobody_signs_in_twice() {
    with_browser("list", async |browser| {
        let email = browser.sign_up().await;
        browser.write("Still there.").await;
        browser.counts(1).await;
        browser.choose("Sign out").await;
        browser.sees("You are signed out.").await;
        browser.cut(&["*/api/notes*"]).await;
        browser.enter(&email, PASSWORD).await;
        browser.sees("cannot be reached").await;
        browser.sees(&email).await;
        browser.until("document.activeElement.textContent === 'Try again'").await;
        browser.counts(0).await;
        browser.cut(&[]).await;
        browser.try_again().await;
        browser.sees("Still there.").await;
    })
    .await;
}

#[tokio::test]
async fn a_note_written_while_a_part_is_away_is_kept_once_when_it_is_back() {
    with_browser_alone("outage-notes", async |browser| {
        browser.sign_up().await;
        browser.sees("Nothing yet").await;
        let ways: [Way; 4] = [
            (Away::frozen, "redis"),
            (Away::stopped, "redis"),
            (Away::frozen, "postgres"),
            (Away::stopped, "backend"),
        ];
        for (number, (take_away, service)) in (1..).zip(ways) {
            let part = take_away(service);
            let text = format!("Note {number}, written without {service}.");
            browser.write(&text).await;
            browser.is_told_to_try_again().await;
            browser.screenshot(&format!("outage-{number}-{service}")).await;
            let typed = browser.run("return document.getElementById('text').value").await;
            assert_eq!(typed, text.as_str());
            // Still nobody there, and still nothing is lost.
            browser.tries_in_vain().await;
            drop(part);
            browser.try_again().await;
            browser.counts(number).await;
            browser.sees(&text).await;
        }
        browser.client.refresh().await.unwrap();
        browser.counts(ways.len()).await;
    })
    .await;
}

#[tokio::test]
async fn a_note_outlives_the_session_that_it_was_written_in() {
    with_two_browsers("sessions-notes", async |here, there| {
        let email = here.share_account_with(&there).await;
        there.until("document.activeElement.id === 'text'").await;
        there.types("Half a thought").await;
        here.end_the_other_session().await;
        there.chord(Key::Control, Key::Enter).await;
        there.sees("Your session has ended. Sign in again.").await;
        there.tab_to("E-mail address").await;
        there.enter(&email, PASSWORD).await;
        there.sees(&email).await;
        there.until("document.activeElement.id === 'text'").await;
        there.until("document.activeElement.value === 'Half a thought'").await;
        there.chord(Key::Control, Key::Enter).await;
        there.counts(1).await;
    })
    .await;
}
