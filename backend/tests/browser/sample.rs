//! The sample domain's page.

use fantoccini::key::Key;

use crate::browser::{Browser, with_browser};

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
