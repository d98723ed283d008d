//! Environment files: parsing, checking, generating secrets. Pure, but for the generator.
//!
//! `.env.example` is the one description of what there is: a paragraph that begins with
//! `# Secret` marks the variable below it as one to generate, one that begins with `# Secret from outside`
//! as one that somebody else gives, and an empty live value of any other variable says that it may stay empty.

pub(crate) mod strength;

use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};

/// Random bytes of a secret whose paragraph names no other number.
const DEFAULT_SECRET_BYTES: usize = 32;

/// One environment file: the values by name.
pub(crate) type Values = BTreeMap<String, String>;

/// A variable as `.env.example` describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Variable {
    pub(crate) name: String,
    /// The local value.
    pub(crate) value: String,
    /// The production value, where it is another one: `# NAME=value` above the live line.
    pub(crate) production: Option<String>,
    /// None where it is no secret.
    pub(crate) secret: Option<Secret>,
}

/// Where the value of a secret is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Secret {
    /// Here: so many random bytes.
    Generated(usize),
    /// By somebody else, such as a provider of e-mail: it is neither generated nor rotated here, and not judged.
    Given,
}

/// The two kinds of stack that an environment file is written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Local,
    Production,
}

impl Variable {
    pub(crate) fn is_secret(&self) -> bool {
        self.secret.is_some()
    }

    /// Whether only a person can fill it in.
    pub(crate) fn is_given(&self) -> bool {
        self.secret == Some(Secret::Given)
    }

    /// Random bytes to generate, where it is a secret that is made here.
    pub(crate) fn generated_bytes(&self) -> Option<usize> {
        match self.secret {
            Some(Secret::Generated(bytes)) => Some(bytes),
            Some(Secret::Given) | None => None,
        }
    }

    /// The value that a new environment file of this kind begins with; empty for a secret, but for a laptop's
    /// stand-in of one that is given.
    pub(crate) fn value_for(&self, kind: Kind) -> String {
        match (kind, &self.production) {
            (Kind::Production, _) if self.is_given() => String::new(),
            (Kind::Production, Some(value)) => value.clone(),
            // Both stacks can run on one machine, and the product's name stands in one place.
            (Kind::Production, None) if self.name == "COMPOSE_PROJECT_NAME" => {
                format!("{}-production", self.value)
            }
            _ => self.value.clone(),
        }
    }

    fn may_be_empty(&self) -> bool {
        self.value.is_empty() && self.secret.is_none()
    }
}

/// Parses an environment file. `file` is its name for the messages.
///
/// The grammar is the part of Compose's that has one meaning only: `NAME=value` with an optional
/// pair of quotes, `#` at the start of a line or after white space for a comment.
///
/// # Errors
/// A line that is none of these, naming it by number, with what to write instead.
pub(crate) fn parse(file: &str, text: &str) -> Result<Values> {
    let mut values = Values::new();
    for (number, line) in numbered_assignments(text) {
        let Some((name, rest)) = line.split_once('=') else {
            bail!(
                "{file}, line {number}: expected NAME=value, found {:?}; mend the line, or put \
                 `#` before it",
                abridged(line)
            );
        };
        let name = name.trim_end();
        ensure!(
            is_name(name),
            // What stands before the first `=` may be the secret itself, in Base64.
            "{file}, line {number}: {:?} is no variable name (capital letters, digits and _)",
            abridged(name)
        );
        let value = parse_value(rest.trim()).map_err(|reason| {
            // The value itself stays out of the message: it may be a secret.
            anyhow::anyhow!("{file}, line {number}: the value of {name} {reason}")
        })?;
        ensure!(
            values.insert(name.to_owned(), value).is_none(),
            "{file}, line {number}: {name} was set already further up; delete one of the lines"
        );
    }
    Ok(values)
}

/// Reads `.env.example` as the description of all variables, in order.
///
/// # Errors
/// The same as [`parse`].
pub(crate) fn describe(file: &str, text: &str) -> Result<Vec<Variable>> {
    let values = parse(file, text)?;
    let mut variables = Vec::new();
    let mut paragraph = String::new();
    for line in text.lines() {
        match line.strip_prefix('#') {
            Some(comment) => {
                paragraph.push_str(comment);
                paragraph.push('\n');
            }
            None if line.trim().is_empty() => paragraph.clear(),
            None => {
                let name = line.split('=').next().unwrap_or_default().trim().to_owned();
                let value = values.get(&name).cloned().unwrap_or_default();
                let production = production_value(&paragraph, &name);
                let secret = secret(&paragraph);
                variables.push(Variable { name, value, production, secret });
            }
        }
    }
    Ok(variables)
}

/// The text of a new environment file: the example with the values of its kind, and with secrets
/// of its own.
///
/// # Errors
/// The operating system's random generator failed.
pub(crate) fn fill_in(example: &str, variables: &[Variable], kind: Kind) -> Result<String> {
    let mut text = example.to_owned();
    for variable in variables {
        text = match variable.generated_bytes() {
            Some(bytes) => set(&text, &variable.name, &random_hex(bytes)?),
            None => set(&text, &variable.name, &variable.value_for(kind)),
        };
    }
    Ok(text)
}

/// The same text with `name` set to `value`: its line is replaced where there is one, and added
/// at the end where there is none. Comments and order stay as they are.
pub(crate) fn set(text: &str, name: &str, value: &str) -> String {
    let assignment = format!("{name}={value}");
    let mut found = false;
    let mut lines: Vec<&str> = Vec::new();
    for line in text.lines() {
        let is_it = line.split_once('=').is_some_and(|(left, _)| left.trim() == name);
        lines.push(if is_it { assignment.as_str() } else { line });
        found |= is_it;
    }
    if !found {
        lines.push(assignment.as_str());
    }
    lines.join("\n") + "\n"
}

/// The same text with random values in the place of the secrets that somebody else would have to give, for a stack that
/// is there for a while and talks to nobody.
///
/// # Errors
/// As [`fill_in`].
pub(crate) fn with_stand_ins(text: String, variables: &[Variable]) -> Result<String> {
    let values = parse("the environment file", &text)?;
    let is_open = |variable: &&Variable| {
        variable.is_given() && values.get(&variable.name).is_none_or(String::is_empty)
    };
    variables.iter().filter(is_open).try_fold(text, |text, variable| {
        Ok(set(&text, &variable.name, &random_hex(DEFAULT_SECRET_BYTES)?))
    })
}

/// A value as [`parse`] reads it back; none where no quotes are left for it.
pub(crate) fn quoted(value: &str) -> Option<String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./+=:@%,".contains(c);
    if value.chars().all(is_plain) {
        return Some(value.to_owned());
    }
    let fits = |quote: char, others: &[char]| !value.contains(quote) && !value.contains(others);
    [('\'', &[][..]), ('"', &['$', '\\'][..])]
        .into_iter()
        .find(|(quote, others)| fits(*quote, others))
        .map(|(quote, _)| format!("{quote}{value}{quote}"))
}

/// What is wrong with `values`, measured against the example: a line per finding, with its fix.
pub(crate) fn findings(file: &str, values: &Values, variables: &[Variable]) -> Vec<String> {
    let mut findings = Vec::new();
    for variable in variables {
        let name = &variable.name;
        match values.get(name) {
            None if variable.may_be_empty() => {}
            None => findings.push(format!("{name} is missing from {file}")),
            Some(value) if value.is_empty() && variable.is_given() => findings.push(format!(
                "{name} is empty in {file}: it comes from outside, so put it there by hand"
            )),
            Some(value) if value.is_empty() && !variable.may_be_empty() => {
                findings.push(format!("{name} is empty in {file}"));
            }
            Some(value) if value.starts_with('#') && variable.is_given() => findings.push(format!(
                "{name} in {file} begins with `#`, which would make a comment of it in its file: ask for another one"
            )),
            Some(value) => {
                if let Some(bytes) = variable.generated_bytes()
                    && value.len() < bytes
                {
                    findings.push(format!(
                        "{name} in {file} is too short: {} characters, {} expected",
                        value.len(),
                        bytes * 2
                    ));
                }
            }
        }
    }
    findings
}

/// `bytes` random bytes in hexadecimal, from the operating system.
///
/// # Errors
/// The generator failed.
pub(crate) fn random_hex(bytes: usize) -> Result<String> {
    let mut buffer = vec![0; bytes];
    getrandom::fill(&mut buffer)
        .map_err(|error| anyhow::anyhow!("read {bytes} random bytes: {error}"))?;
    Ok(buffer.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Lines that assign something, with their numbers from 1.
fn numbered_assignments(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

fn is_name(name: &str) -> bool {
    let first_is_fine = name.starts_with(|c: char| c.is_ascii_uppercase() || c == '_');
    first_is_fine && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}

fn parse_value(raw: &str) -> Result<String, &'static str> {
    for quote in ['\'', '"'] {
        if let Some(rest) = raw.strip_prefix(quote) {
            let Some((value, after)) = rest.split_once(quote) else {
                return Err("has an opening quote and no closing one");
            };
            let after = after.trim();
            if !after.is_empty() && !after.starts_with('#') {
                return Err("goes on after its closing quote; quote the whole of it");
            }
            if quote == '"' && value.contains(['$', '\\']) {
                return Err("has `$` or `\\` in double quotes, which Compose would replace; use \
                            single quotes");
            }
            return Ok(value.to_owned());
        }
    }
    let value = raw.split_once(" #").map_or(raw, |(value, _)| value).trim_end();
    if value.contains(['$', '`']) {
        return Err("has a `$` or a backtick, which Compose or a shell would replace; put it in \
                    single quotes");
    }
    Ok(value.to_owned())
}

fn production_value(paragraph: &str, name: &str) -> Option<String> {
    let assigned = paragraph.lines().filter_map(|line| line.trim().split_once('='));
    assigned.filter(|(left, _)| *left == name).map(|(_, value)| value.to_owned()).next_back()
}

fn secret(paragraph: &str) -> Option<Secret> {
    let rest = paragraph.trim_start().strip_prefix("Secret")?;
    if rest.trim_start().starts_with("from outside") {
        return Some(Secret::Given);
    }
    let named = paragraph.split_once(" random bytes").and_then(|(before, _)| {
        before.rsplit(char::is_whitespace).next().and_then(|number| number.parse().ok())
    });
    Some(Secret::Generated(named.unwrap_or(DEFAULT_SECRET_BYTES)))
}

/// Enough of a line to recognise it, and too little to give a secret away.
fn abridged(line: &str) -> String {
    let start: String = line.chars().take(12).collect();
    if start.len() < line.len() { format!("{start}…") } else { start }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "\
# A plain one.
PORT=8080

# Secret, 64 random bytes.
KEY=

# Secret. A password.
PASSWORD=

# May be empty.
SOURCE=
";

    #[test]
    fn quotes_and_comments_are_taken_off() {
        let values = parse(".env", "A=1 # one\nB='x $y'\nC=\"two words\"\n\n# no\nD=\n").unwrap();
        let expected = [("A", "1"), ("B", "x $y"), ("C", "two words"), ("D", "")];
        assert_eq!(values, expected.map(|(k, v)| (k.into(), v.into())).into());
    }

    #[test]
    fn a_bad_line_is_named_by_number_and_its_value_is_not_told() {
        for (text, expected) in [
            ("A=1\nnonsense", ".env, line 2: expected NAME=value"),
            ("a=1", "line 1: \"a\" is no variable name"),
            ("A='1", "line 1: the value of A has an opening quote"),
            ("A=\"1\"2", "goes on after its closing quote"),
            ("A=s3cr$t", "single quotes"),
            ("A=1\nA=2", "line 2: A was set already"),
        ] {
            let message = parse(".env", text).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
            assert!(!message.contains("s3cr"), "{message}");
        }
    }

    #[test]
    fn the_example_says_which_variables_are_secret_and_how_long() {
        let variables = describe(".env.example", EXAMPLE).unwrap();
        let secrets: Vec<_> = variables.iter().map(|v| (v.name.as_str(), v.secret)).collect();
        let made = |bytes| Some(Secret::Generated(bytes));
        assert_eq!(
            secrets,
            [("PORT", None), ("KEY", made(64)), ("PASSWORD", made(32)), ("SOURCE", None)]
        );
    }

    #[test]
    fn a_secret_from_outside_is_not_generated_and_not_judged_but_has_to_be_there() {
        let example = "# Secret from outside. The provider of e-mail gives it.\nSMTP_PASSWORD=none\n\n\
                       # Secret from outside, 64 random bytes of theirs.\nPAYMENT_KEY=\n";
        let variables = describe(".env.example", example).unwrap();
        assert!(variables.iter().all(|variable| variable.secret == Some(Secret::Given)));
        let of = |kind| parse(".env", &fill_in(example, &variables, kind).unwrap()).unwrap();
        let (local, production) = (of(Kind::Local), of(Kind::Production));
        assert_eq!((&*local["SMTP_PASSWORD"], &*local["PAYMENT_KEY"]), ("none", ""));
        assert!(
            production.values().all(String::is_empty),
            "a laptop's stand-in is no production's"
        );
        assert_eq!(
            findings(".env", &local, &variables),
            ["PAYMENT_KEY is empty in .env: it comes from outside, so put it there by hand"]
        );
        assert_eq!(findings(".env", &production, &variables).len(), 2);
        let given = parse(".env", "SMTP_PASSWORD=secret\nPAYMENT_KEY=x\n").unwrap();
        assert_eq!(findings(".env", &given, &variables), Vec::<String>::new());
        assert_eq!(strength::weaknesses(".env", &given, &variables), Vec::<String>::new());
        let text = with_stand_ins("SMTP_PASSWORD=none\n".to_owned(), &variables).unwrap();
        let values = parse(".env", &text).unwrap();
        assert_eq!((&*values["SMTP_PASSWORD"], values["PAYMENT_KEY"].len()), ("none", 64));
    }

    #[test]
    fn a_filled_in_example_has_no_finding_and_no_two_secrets_alike() {
        let variables = describe(".env.example", EXAMPLE).unwrap();
        let text = fill_in(EXAMPLE, &variables, Kind::Local).unwrap();
        let values = parse(".env", &text).unwrap();
        assert_eq!(findings(".env", &values, &variables), Vec::<String>::new());
        assert_eq!(values["KEY"].len(), 128);
        assert_ne!(values["KEY"][..64], values["PASSWORD"]);
        assert!(text.contains("# A plain one.\nPORT=8080\n"));
    }

    #[test]
    fn missing_empty_and_short_values_are_all_found_at_once() {
        let variables = describe(".env.example", EXAMPLE).unwrap();
        let values = parse(".env", "KEY=abc\nPASSWORD=\n").unwrap();
        assert_eq!(
            findings(".env", &values, &variables),
            [
                "PORT is missing from .env",
                "KEY in .env is too short: 3 characters, 128 expected",
                "PASSWORD is empty in .env",
            ]
        );
    }

    #[test]
    fn a_value_that_is_put_back_is_read_as_it_was() {
        for value in ["0af", "a b #c", "p$1'", "it's \"so\"", "it's so", "", "'", "#1"] {
            let Some(line) = quoted(value) else {
                assert!(value.contains('\'') && value.contains(['"', '$']), "{value}");
                continue;
            };
            assert_eq!(parse(".env", &format!("A={line}\n")).unwrap()["A"], value);
        }
        assert_eq!(quoted("0af").unwrap(), "0af");
    }

    #[test]
    fn setting_a_value_keeps_everything_else() {
        assert_eq!(set("# c\nA=1\nB=2\n", "A", "3"), "# c\nA=3\nB=2\n");
        assert_eq!(set("A=1\n", "B", "2"), "A=1\nB=2\n");
    }
}
