//! `deploy/parity.json`: what production may do otherwise, rule by rule with its reason. Pure.

use std::fmt;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How a field differs, seen from local.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// Only production has it.
    Added,
    /// Only local has it.
    Removed,
    /// Both have it, with different values.
    Changed,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Added => "added",
            Kind::Removed => "removed",
            Kind::Changed => "changed",
        })
    }
}

/// One thing that production may do otherwise.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    /// The field's path, word by word; `*` stands for any one word. It means all that is below, too.
    #[serde(rename = "where")]
    pub(crate) place: String,
    pub(crate) difference: Kind,
    /// The value that production must have, where only one is right.
    #[serde(default)]
    pub(crate) value: Option<Value>,
    pub(crate) why: String,
}

impl Rule {
    /// Whether this rule speaks of that difference.
    pub(crate) fn allows(&self, path: &[String], kind: Kind, production: Option<&Value>) -> bool {
        let mut words = self.place.split(' ');
        let mut names = path.iter();
        let is_below =
            words.by_ref().all(|word| names.next().is_some_and(|n| word == "*" || word == n));
        let is_value = self.value.is_none() || self.value.as_ref() == production;
        self.difference == kind && is_below && is_value
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.place, self.difference)
    }
}

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rules {
    pub(crate) rules: Vec<Rule>,
}

impl Rules {
    /// Reads the file's text.
    ///
    /// # Errors
    /// It is no JSON of this shape, a rule has no reason or allows everything, or one stands there
    /// twice.
    pub(crate) fn parse(text: &str) -> Result<Rules> {
        let rules: Rules = serde_json::from_str(text)
            .context("read the rules: docs/parity.md describes their form")?;
        for (at, rule) in rules.rules.iter().enumerate() {
            ensure!(
                rule.why.split_whitespace().count() >= 3,
                "the rule `{rule}` has no reason: say in `why` why production may do this"
            );
            let words: Vec<&str> = rule.place.split(' ').collect();
            ensure!(
                words.len() >= 3 && words.iter().any(|word| *word != "*" && *word != "services"),
                "the rule `{rule}` allows too much: name the field, as in `services * cap_drop`"
            );
            let twice = rules.rules[..at]
                .iter()
                .any(|other| (&other.place, other.difference) == (&rule.place, rule.difference));
            ensure!(!twice, "the rule `{rule}` stands there twice: delete one of them");
        }
        Ok(rules)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(rules: &str) -> String {
        format!("{:#}", Rules::parse(&format!("{{\"rules\": [{rules}]}}")).unwrap_err())
    }

    #[test]
    fn a_rule_that_nobody_could_review_is_refused() {
        let rule = |place: &str, why: &str| {
            format!(r#"{{"where": "{place}", "difference": "added", "why": "{why}"}}"#)
        };
        let why = "a reason in words";
        assert!(error(&rule("services a b", "")).contains("has no reason"));
        assert!(error(&rule("services *", why)).contains("allows too much"));
        assert!(error(&rule("services * *", why)).contains("allows too much"));
        let twice = format!("{0}, {0}", rule("services a b", why));
        assert!(error(&twice).contains("stands there twice"));
        assert!(
            error(r#"{"where": "services a b", "difference": "gone", "why": "x y z"}"#)
                .contains("unknown variant")
        );
        assert!(
            error(r#"{"where": "a b c", "difference": "added", "wy": "x y z"}"#)
                .contains("unknown field")
        );
    }
}
