//! Where production differs from local, and whether it may. Pure: two renderings by Compose go in, and
//! a list of differences with their verdicts comes out. docs/parity.md describes both ends.

pub(crate) mod drift;
pub(crate) mod flat;
pub(crate) mod rules;

use serde::Serialize;
use serde_json::Value;

use self::flat::Flat;
use self::rules::{Kind, Rules};

/// One field that is not the same on both sides.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Difference {
    /// The way to the field, such as `services nginx ports 443/tcp`.
    pub(crate) path: String,
    pub(crate) kind: Kind,
    /// Absent where only production has the field.
    pub(crate) local: Option<Value>,
    /// Absent where only local has the field.
    pub(crate) production: Option<Value>,
    /// Why the difference is allowed; absent where no rule allows it, which is a violation.
    pub(crate) allowed: Option<String>,
}

impl Difference {
    /// No rule allows it.
    pub(crate) fn is_violation(&self) -> bool {
        self.allowed.is_none()
    }
}

/// Every difference, in the order of the paths, and the rules that allowed none.
pub(crate) fn compare(local: &Flat, production: &Flat, rules: &Rules) -> Report {
    let mut paths: Vec<&Vec<String>> = local.keys().chain(production.keys()).collect();
    paths.sort();
    paths.dedup();
    let mut used = vec![false; rules.rules.len()];
    let mut differences = Vec::new();
    for path in paths {
        let (here, there) = (local.get(path), production.get(path));
        let kind = match (here, there) {
            (Some(here), Some(there)) if here == there => continue,
            (Some(_), Some(_)) => Kind::Changed,
            (None, _) => Kind::Added,
            (_, None) => Kind::Removed,
        };
        let rule = rules.rules.iter().position(|rule| rule.allows(path, kind, there));
        if let Some(index) = rule {
            used[index] = true;
        }
        differences.push(Difference {
            path: path.join(" "),
            kind,
            local: here.cloned(),
            production: there.cloned(),
            allowed: rule.map(|index| rules.rules[index].why.clone()),
        });
    }
    let idle = rules.rules.iter().zip(used).filter(|(_, used)| !used);
    Report { differences, unused_rules: idle.map(|(rule, _)| rule.to_string()).collect() }
}

/// What a comparison found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) differences: Vec<Difference>,
    /// Rules that allowed nothing: what they speak of is not there any more.
    pub(crate) unused_rules: Vec<String>,
}

impl Report {
    /// How many differences no rule allows, and how many rules are idle.
    pub(crate) fn violations(&self) -> usize {
        self.differences.iter().filter(|difference| difference.is_violation()).count()
            + self.unused_rules.len()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report(local: &Value, production: &Value, rules: &str) -> Report {
        let rules = Rules::parse(rules).unwrap();
        compare(&flat::flatten(local, "/root"), &flat::flatten(production, "/root"), &rules)
    }

    const RULES: &str = r#"{"rules": [
        {"where": "services * read_only", "difference": "added", "value": true, "why": "it is hardened"},
        {"where": "services nginx ports", "difference": "changed", "why": "the world comes"}
    ]}"#;

    #[test]
    fn what_is_the_same_is_no_difference_and_order_does_not_count() {
        let one = json!({"services": {"a": {"environment": {"X": "1", "Y": "2"},
            "cap_drop": ["A", "B"]}}});
        let two = json!({"services": {"a": {"cap_drop": ["B", "A"],
            "environment": {"Y": "2", "X": "1"}}}});
        let rules = r#"{"rules": []}"#;
        assert_eq!(report(&one, &two, rules).differences, []);
    }

    #[test]
    fn a_rule_allows_its_own_difference_and_no_other() {
        let local = json!({"services": {"nginx": {"ports": [
            {"target": 80, "protocol": "tcp", "published": "8080"}]}, "db": {"user": "1"}}});
        let production = json!({"services": {"nginx": {"read_only": true, "ports": [
            {"target": 80, "protocol": "tcp", "published": "80"}]}, "db": {"user": "1",
            "read_only": false}}});
        let report = report(&local, &production, RULES);
        let verdicts: Vec<(&str, bool)> =
            report.differences.iter().map(|d| (d.path.as_str(), d.is_violation())).collect();
        assert_eq!(
            verdicts,
            [
                ("services db read_only", true),
                ("services nginx ports 80/tcp published", false),
                ("services nginx read_only", false),
            ]
        );
        assert_eq!(report.violations(), 1);
    }

    #[test]
    fn an_idle_rule_is_a_violation() {
        let report = report(&json!({}), &json!({}), RULES);
        assert_eq!(
            report.unused_rules,
            ["services * read_only (added)", "services nginx ports (changed)"]
        );
        assert_eq!(report.violations(), 2);
    }
}
