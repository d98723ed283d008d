//! The sample domain's page.

use fantoccini::key::Key;
use serde_json::json;

use crate::browser::{
    Browser, PASSWORD, with_browser, with_browser_alone, with_tabs, with_two_browsers,
};
use crate::parts::{Away, Way};

/// One more than the API gives at once.
const MANY: usize = 21;

impl Browser {
    async fn write(&self, text: &str) {
        self.until("document.activeElement.id === 'text' && !document.activeElement.value").await;
        self.types(text).await;
        self.chord(Key::Control, Key::Enter).await;
    }

    /// Begins a note and does not send it.
    async fn begin(&self, text: &str) {
        self.until("document.activeElement.id === 'text'").await;
        self.types(text).await;
    }

    /// Waits until this, and nothing else, is being written.
    async fn has_draft(&self, text: &str) {
        self.until(&format!("document.getElementById('text').value === {}", json!(text))).await;
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

#[tokio::test]
async fn what_is_typed_while_a_note_is_sent_stays() {
    with_browser("sending", async |browser| {
        browser.sign_up().await;
        browser.sees("Nothing yet").await;
        browser.hold("POST", "/api/notes").await;
        browser.write("One thought").await;
        browser.holds().await;
        browser.begin(", and the next").await;
        browser.release().await;
        browser.counts(1).await;
        browser.has_draft("One thought, and the next").await;
        browser.chord(Key::Control, Key::Enter).await;
        browser.counts(2).await;
        browser.has_draft("").await;
    })
    .await;
}

#[tokio::test]
async fn a_draft_is_for_its_own_writer_to_see() {
    with_two_browsers("draft", async |here, there| {
        here.share_account_with(&there).await;
        there.begin("Nobody else's business").await;
        here.end_the_other_session().await;
        there.chord(Key::Control, Key::Enter).await;
        there.sees("Your session has ended. Sign in again.").await;
        there.sign_up_here().await;
        there.has_draft("").await;
        there.sees("Nothing yet").await;
        let source = there.client.source().await.unwrap();
        assert!(!source.contains("business"), "{source}");
    })
    .await;
}

#[tokio::test]
async fn who_signs_out_of_a_session_that_has_ended_leaves_no_draft() {
    with_two_browsers("draft-out", async |here, there| {
        let email = here.share_account_with(&there).await;
        there.begin("Thought better of").await;
        here.end_the_other_session().await;
        there.choose("Sign out").await;
        there.sees("You are signed out.").await;
        there.enter(&email, PASSWORD).await;
        there.sees(&email).await;
        there.has_draft("").await;
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_comes_late_is_not_shown_to_who_is_there_by_then() {
    with_browser("late", async |browser| {
        let former = browser.sign_up().await;
        browser.write("Written before.").await;
        browser.counts(1).await;
        browser.choose("Sign out").await;
        browser.sees("You are signed out.").await;
        browser.hold("GET", "/api/notes").await;
        browser.enter(&former, PASSWORD).await;
        browser.sees(&former).await;
        browser.holds().await;
        browser.choose("Sign out").await;
        browser.sees("You are signed out.").await;
        browser.sign_up_here().await;
        // Their own list has come, whatever became of the other one.
        browser.sees("Nothing yet").await;
        browser.release().await;
        browser.counts(0).await;
        browser.sees("Nothing yet").await;
    })
    .await;
}

#[tokio::test]
async fn a_draft_is_kept_by_who_signed_in_anew_in_another_tab() {
    with_tabs("tabs-draft", async |browser| {
        let email = browser.sign_up().await;
        browser.begin("Begun before").await;
        let first = browser.leave_for_a_new_tab().await;
        browser.sign_in_anew(&email).await;
        browser.client.switch_to_window(first).await.unwrap();
        browser.until("document.activeElement.id === 'text'").await;
        browser.chord(Key::Control, Key::Enter).await;
        browser.counts(1).await;
        browser.has_draft("").await;
    })
    .await;
}

#[tokio::test]
async fn older_notes_are_those_of_who_is_on_the_screen() {
    with_tabs("tabs-older", async |browser| {
        let former = browser.sign_up().await;
        for number in 1..=MANY {
            browser.write(&format!("Former {number}")).await;
            browser.counts(number).await;
        }
        browser.client.refresh().await.unwrap();
        browser.counts(MANY - 1).await;
        let text = browser.client.find(fantoccini::Locator::Id("text")).await.unwrap();
        text.send_keys("A draft of the former").await.unwrap();
        let first = browser.leave_for_a_new_tab().await;
        let email = browser.become_another().await;
        browser.write("The only one").await;
        browser.counts(1).await;

        browser.client.switch_to_window(first).await.unwrap();
        browser.choose("Older notes").await;
        browser.has_turned_over(&former, &email).await;
        browser.counts(1).await;
        browser.sees("The only one").await;
        browser.has_draft("").await;
    })
    .await;
}
