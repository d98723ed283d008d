//! The checker: compares what the stack says after a fault with what it had acknowledged, and judges
//! every answer that it gave meanwhile. It reads through nginx, as a person would.

mod answers;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, anyhow, bail, ensure};

pub use self::answers::{Measured, Window, judge_answers, measure};
use crate::load::{Client, Request};
use crate::workload::{self, Session, Standing, State, Write, Written};

/// How many violations of one kind are spelled out.
const SHOWN: usize = 3;

/// What became of the writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Acknowledged, and not there.
    pub lost: Vec<String>,
    /// There more than once, whether acknowledged or not.
    pub duplicated: Vec<String>,
    /// There, and never sent.
    pub foreign: Vec<String>,
    /// There, with another text than was sent.
    pub altered: Vec<String>,
    /// Not acknowledged, and there once: the answer was lost, not the write.
    pub kept: usize,
}

/// Compares the writes with the texts that each person's list holds.
pub fn compare(writes: &BTreeMap<String, Written>, found: &BTreeMap<usize, Vec<String>>) -> Count {
    let mut times: BTreeMap<&str, usize> = BTreeMap::new();
    let mut count = Count::default();
    for (person, texts) in found {
        for text in texts {
            let key = text.split(' ').next().unwrap_or_default();
            *times.entry(key).or_default() += 1;
            match writes.get(key) {
                Some(written) if written.person == *person => {
                    if written.text != *text {
                        count.altered.push(key.to_owned());
                    }
                }
                // In somebody else's list it is as foreign as one that was never sent.
                _ => count.foreign.push(key.to_owned()),
            }
        }
    }
    for (key, written) in writes {
        match (times.get(key.as_str()).copied().unwrap_or(0), written.write) {
            (0, Write::Acknowledged) => count.lost.push(key.clone()),
            (0, Write::Unknown) | (1, Write::Acknowledged) => {}
            (1, Write::Unknown) => count.kept += 1,
            (_, _) => count.duplicated.push(key.clone()),
        }
    }
    count
}

/// Every text that one person wrote, newest first.
///
/// # Errors
/// A page cannot be read, or does not lead further back than the one before it.
pub async fn read_all(client: &Client, session: &Session) -> Result<Vec<String>> {
    let mut texts = Vec::new();
    let mut before = None;
    loop {
        let request = workload::sign(workload::page(before), session);
        let answer = client.send(request).await.map_err(|failure| anyhow!("{failure}"))?;
        ensure!(answer.status == 200, "read what was written: the answer is {}", answer.status);
        let page = answer.json();
        texts.extend(workload::texts(&page).map(str::to_owned));
        let Some(next) = workload::next(&page) else { return Ok(texts) };
        // A list that leads in a circle would be read for ever.
        ensure!(
            before.is_none_or(|before| next < before),
            "read what was written: the page before {} leads on to {next}",
            before.unwrap_or_default()
        );
        before = Some(next);
    }
}

/// Reads everything back and compares.
///
/// # Errors
/// Something cannot be read.
pub async fn check_writes(client: &Client, state: &State) -> Result<Count> {
    let mut found = BTreeMap::new();
    for person in 0..state.people.len() {
        let session = state.session_of(person).context("everybody has a session")?;
        found.insert(person, read_all(client, session).await?);
    }
    Ok(compare(&state.writes, &found))
}

/// What became of the sessions, as sentences.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sessions {
    /// Given out, and no longer accepted.
    pub ended: Vec<String>,
    /// Signed out, and accepted again.
    pub revived: Vec<String>,
}

/// Asks for every session.
///
/// # Errors
/// There is no answer, or one that says nothing about the session.
pub async fn check_sessions(client: &Client, state: &State) -> Result<Sessions> {
    let mut found = Sessions::default();
    for session in &state.sessions {
        let request = workload::sign(Request::get("/api/session"), session);
        let answer = client.send(request).await.map_err(|failure| anyhow!("{failure}"))?;
        let Session { person, since, standing, .. } = session;
        let whose = format!("person {person}'s session of second {since:.1}");
        match (standing, answer.status) {
            (Standing::Open, 200) if answer.json()["csrf_token"] != session.token => {
                found.ended.push(format!("{whose} gets 200, with another token"));
            }
            (Standing::Open, 401) => found.ended.push(format!("{whose} gets 401")),
            (Standing::Ended, 200) => found.revived.push(format!("{whose} gets 200")),
            (_, 200 | 401) => {}
            // Neither yes nor no: whether the session lives is still to be found out.
            (_, status) => bail!("ask for {whose}: the answer is {status}"),
        }
    }
    Ok(found)
}

/// Compares everything that is there with what was acknowledged: what could be counted, and what is
/// wrong, as sentences. What cannot be read hides nothing of what can.
pub async fn check_data(client: &Client, state: &State) -> (Count, Vec<String>) {
    let mut violations = Vec::new();
    let count = check_writes(client, state).await.unwrap_or_else(|error| {
        violations.push(format!("what was written cannot be read: {error:#}"));
        Count::default()
    });
    let sessions = check_sessions(client, state).await.unwrap_or_else(|error| {
        violations.push(format!("the sessions cannot be asked for: {error:#}"));
        Sessions::default()
    });
    for (kind, list) in [
        ("acknowledged and lost", &count.lost),
        ("there more than once", &count.duplicated),
        ("there and never written", &count.foreign),
        ("there with another text than was written", &count.altered),
        ("sessions that ended", &sessions.ended),
        ("sessions that were signed out and work", &sessions.revived),
    ] {
        if !list.is_empty() {
            violations.push(summary(kind, list));
        }
    }
    (count, violations)
}

/// A session is fresh for so many seconds: as long as Redis may keep it from the disk (`everysec`).
const FRESH: f64 = 1.0;

/// Whether somebody was signed in so shortly before a moment (in seconds since the start of the run) that
/// nothing but what was just acknowledged speaks for them: what a fault takes first.
pub fn is_fresh_session_at_risk(sessions: &[Session], fault: f64) -> bool {
    let mut open = sessions.iter().filter(|session| session.standing == Standing::Open);
    open.any(|session| (fault - FRESH..=fault).contains(&session.since))
}

/// One sentence for any number of violations of a kind.
pub fn summary(kind: &str, list: &[String]) -> String {
    let distinct: BTreeSet<&String> = list.iter().collect();
    let shown: Vec<&str> = distinct.into_iter().take(SHOWN).map(String::as_str).collect();
    format!("{kind} ({}): {}", list.len(), shown.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writes(list: &[(&str, Write)]) -> BTreeMap<String, Written> {
        let written = |(key, write): &(&str, Write)| {
            (key.to_string(), Written { person: 0, text: format!("{key} text"), write: *write })
        };
        list.iter().map(written).collect()
    }

    fn found(texts: &[&str]) -> BTreeMap<usize, Vec<String>> {
        BTreeMap::from([(0, texts.iter().map(|text| (*text).to_owned()).collect())])
    }

    #[test]
    fn an_acknowledged_write_is_there_exactly_once() {
        let one = writes(&[("a", Write::Acknowledged)]);
        assert_eq!(compare(&one, &found(&["a text"])), Count::default());
        assert_eq!(compare(&one, &found(&[])).lost, ["a"]);
        assert_eq!(compare(&one, &found(&["a text", "a text"])).duplicated, ["a"]);
    }

    #[test]
    fn an_unknown_write_is_there_at_most_once() {
        let one = writes(&[("a", Write::Unknown)]);
        assert_eq!(compare(&one, &found(&[])), Count::default());
        assert_eq!(compare(&one, &found(&["a text"])).kept, 1);
        assert_eq!(compare(&one, &found(&["a text", "a text"])).duplicated, ["a"]);
    }

    #[test]
    fn what_nobody_wrote_is_foreign_and_so_is_what_another_wrote() {
        assert_eq!(compare(&writes(&[]), &found(&["x text"])).foreign, ["x"]);
        let theirs = BTreeMap::from([(1, vec!["a text".to_owned()])]);
        assert_eq!(compare(&writes(&[("a", Write::Acknowledged)]), &theirs).foreign, ["a"]);
    }

    #[test]
    fn a_text_must_be_the_one_that_was_sent() {
        for write in [Write::Acknowledged, Write::Unknown] {
            assert_eq!(compare(&writes(&[("a", write)]), &found(&["a tex"])).altered, ["a"]);
        }
    }

    #[test]
    fn only_who_was_just_signed_in_has_a_fresh_session() {
        let text = String::new;
        let since = |since| Session {
            person: 0,
            cookie: text(),
            token: text(),
            since,
            standing: Standing::Open,
        };
        assert!(is_fresh_session_at_risk(&[since(2.0), since(8.9)], 9.0));
        assert!(!is_fresh_session_at_risk(&[since(2.0), since(7.9), since(9.1)], 9.0));
        let out = Session { standing: Standing::Ended, ..since(8.9) };
        assert!(!is_fresh_session_at_risk(&[out], 9.0));
    }
}
