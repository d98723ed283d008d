//! Whether a secret can be guessed. Pure.

use std::collections::BTreeSet;

use super::{Values, Variable};

/// Fewer different characters than this are a pattern and no random value: of 64 random
/// hexadecimal digits, 8 or fewer are different once in a hundred million times.
const FEWEST_DIFFERENT: usize = 9;
/// Words of examples and of keyboards. A random value in hexadecimal holds none of them.
const KNOWN_WORDS: [&str; 8] =
    ["changeme", "change-me", "secret", "password", "example", "default", "admin", "0123456789"];

/// Why these secrets must not guard production: a line for each, never with its value.
pub(crate) fn weaknesses(file: &str, values: &Values, variables: &[Variable]) -> Vec<String> {
    let secrets = variables.iter().filter_map(|variable| {
        let value = values.get(&variable.name).filter(|value| !value.is_empty())?;
        Some((variable, value))
    });
    let secrets: Vec<_> =
        secrets.filter(|(variable, _)| variable.generated_bytes().is_some()).collect();
    let mut findings = Vec::new();
    for (at, (variable, value)) in secrets.iter().enumerate() {
        let earlier = secrets[..at].iter().find(|(_, other)| other == value);
        let reason = match earlier {
            Some((other, _)) => Some(format!("is the same as {}", other.name)),
            None => weakness(value),
        };
        if let Some(reason) = reason {
            findings.push(format!("{} in {file} {reason}", variable.name));
        }
    }
    findings
}

fn weakness(value: &str) -> Option<String> {
    let lower = value.to_lowercase();
    if let Some(word) = KNOWN_WORDS.iter().find(|word| lower.contains(**word)) {
        return Some(format!("contains `{word}`, which is among the first that anybody tries"));
    }
    let different: BTreeSet<char> = value.chars().collect();
    (different.len() < FEWEST_DIFFERENT)
        .then(|| format!("consists of {} different characters only", different.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::{describe, random_hex};

    const EXAMPLE: &str = "# Secret.\nONE=\n\n# Secret.\nTWO=\n\n# No secret.\nPORT=\n";

    fn found(one: &str, two: &str) -> Vec<String> {
        let values = [("ONE", one), ("TWO", two), ("PORT", "80")];
        let values = values.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        weaknesses("file", &values, &describe("example", EXAMPLE).unwrap())
    }

    #[test]
    fn random_values_are_strong() {
        for _ in 0..100 {
            let [one, two] = [random_hex(32).unwrap(), random_hex(32).unwrap()];
            assert_eq!(found(&one, &two), Vec::<String>::new());
        }
    }

    #[test]
    fn what_can_be_guessed_is_named_and_not_told() {
        let strong = random_hex(32).unwrap();
        for (weak, reason) in [
            ("a".repeat(64), "ONE in file consists of 1 different characters only"),
            ("ChangeMe-f3a9b2c4d5e6f7a8b9c0d1e2f3".to_owned(), "ONE in file contains `changeme`"),
            (strong.clone(), "TWO in file is the same as ONE"),
        ] {
            let findings = found(&weak, &strong);
            assert_eq!(findings.len(), 1, "{findings:?}");
            assert!(findings[0].starts_with(reason), "{findings:?}");
            assert!(!findings[0].contains(&weak));
        }
    }
}
