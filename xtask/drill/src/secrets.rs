//! What must not be in a log: the stack's secrets, and the cookies, tokens and passwords of the
//! workload.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use crate::workload::State;

/// Shorter values would be found by accident.
const SHORTEST: usize = 12;

/// The values of an environment file whose comment begins with `# Secret`, and what the workload
/// was given.
pub fn of(example: &str, environment: &str, state: &State) -> BTreeSet<String> {
    let names = names(example);
    let mut secrets: BTreeSet<String> = environment
        .lines()
        .filter_map(|line| line.split_once('='))
        .filter(|(name, _)| names.contains(name))
        .map(|(_, value)| value.trim().to_owned())
        .collect();
    for session in &state.sessions {
        let value = session.cookie.split_once('=').map_or("", |(_, value)| value);
        secrets.extend([value.to_owned(), session.token.clone()]);
    }
    secrets.extend(state.people.iter().map(|person| person.password.clone()));
    secrets.retain(|secret| secret.len() >= SHORTEST);
    secrets
}

/// The variables that .env.example calls secret.
fn names(example: &str) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    let mut is_secret = false;
    for line in example.lines() {
        match line.split_once('=') {
            _ if line.starts_with("# Secret") => is_secret = true,
            _ if line.starts_with('#') => {}
            Some((name, _)) if is_secret => {
                names.insert(name);
                is_secret = false;
            }
            _ => is_secret = false,
        }
    }
    names
}

/// The lines of a log that hold secrets, with the first four characters of each in its place.
pub fn leaks(log: &str, secrets: &BTreeSet<String>) -> Vec<String> {
    // The longest first: one that is a part of another must not hide the rest of it from the search.
    let mut secrets: Vec<&String> = secrets.iter().collect();
    secrets.sort_by_key(|secret| Reverse(secret.len()));
    let mut found = Vec::new();
    for line in log.lines() {
        let mut masked = line.to_owned();
        for secret in &secrets {
            if masked.contains(secret.as_str()) {
                let shown: String = secret.chars().take(4).collect();
                masked = masked.replace(secret.as_str(), &format!("{shown}…"));
            }
        }
        if masked != line {
            found.push(masked.chars().take(300).collect());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::{Person, Session, Standing};

    #[test]
    fn secrets_come_from_the_environment_and_from_the_workload() {
        let example = "# Secret. The password\n# of a role.\nPG_PASSWORD=\nPG_USER=app\n";
        let environment = "PG_PASSWORD=0123456789abcdef\nPG_USER=app-with-a-long-name\n";
        let state = State {
            sessions: vec![Session {
                person: 0,
                cookie: "session=cafecafecafecafe".to_owned(),
                token: "beefbeefbeefbeef".to_owned(),
                since: 0.0,
                standing: Standing::Open,
            }],
            people: vec![Person { email: "e".to_owned(), password: "correct horse".to_owned() }],
            ..State::default()
        };
        let secrets = of(example, environment, &state);
        let wanted = ["0123456789abcdef", "beefbeefbeefbeef", "cafecafecafecafe", "correct horse"];
        assert_eq!(secrets.iter().map(String::as_str).collect::<Vec<_>>(), wanted);

        let log = "all is well\n{\"cookie\":\"session=cafecafecafecafe\"}\n";
        assert_eq!(leaks(log, &secrets), ["{\"cookie\":\"session=cafe…\"}"]);
    }

    #[test]
    fn every_secret_of_a_line_is_masked() {
        let secrets = ["0123456789abcdef", "0123456789abcdef0123", "correct horse"];
        let secrets = secrets.map(str::to_owned).into();
        let log = "0123456789abcdef0123 and correct horse and 0123456789abcdef";
        assert_eq!(leaks(log, &secrets), ["0123… and corr… and 0123…"]);
    }
}
