//! `SECRETS_COMMAND` as it goes wrong: what is said then, and that no secret is among it.

use super::*;
use crate::ctx::Options;
use crate::ctx::tests::{ctx, expect_ended, message};

const NAMES: [&str; 2] = ["PG_PASSWORD", "REDIS_PASSWORD"];
const SECRET: &str = "c2VjcmV0IGVub3VnaCBmb3IgYW55Ym9keQ";
/// Far beyond what any of these commands needs.
const PATIENCE: Duration = Duration::from_secs(60);

fn asked(command: &str) -> Result<Values> {
    printed_by(&ctx(Options::default()), command, &NAMES, PATIENCE)
}

/// What is said of a command that fails, which is all of this and no secret.
#[track_caller]
fn expect_failure(command: &str, said: &[&str]) {
    let message = message(asked(command));
    for words in said {
        assert!(message.contains(words), "{words:?} is not in: {message}");
    }
    // The command itself is the person's own, and stands in the environment file for everybody.
    let printed = message.replace(command, "");
    assert!(!printed.contains(SECRET), "{printed}");
}

#[test]
fn what_was_asked_for_is_taken_and_nothing_else() {
    let given = asked(
        "echo '# of the vault'; echo PG_PASSWORD=one; echo REDIS_PASSWORD='two'; echo HTTP_PORT=1",
    );
    let expected = [("PG_PASSWORD", "one"), ("REDIS_PASSWORD", "two")];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(given.unwrap(), Values::from(expected));
}

#[test]
fn a_command_that_hangs_is_ended_and_named_with_its_limit_and_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    // As a client of a vault that waits for a password, with a helper of its own.
    let (client, helper) = (file("client"), file("helper"));
    let command = format!(
        "echo PG_PASSWORD={SECRET}; echo $$ >{}; sleep 600 & echo $! >{}; wait",
        client.display(),
        helper.display()
    );
    let limit = Duration::from_millis(300);
    let said = message(printed_by(&ctx(Options::default()), &command, &NAMES, limit));
    for words in
        ["SECRETS_COMMAND", "did not end within 0.30 s", "try it in a shell: within 0.30 s"]
    {
        assert!(said.contains(words), "{words:?} is not in: {said}");
    }
    expect_ended(&fs::read_to_string(client).unwrap());
    expect_ended(&fs::read_to_string(helper).unwrap());
}

#[test]
fn a_command_that_fails_is_quoted_without_what_it_printed() {
    let remedy = "ask SECRETS_COMMAND for the secrets; try it in a shell";
    expect_failure("echo 'no token' >&2; exit 7", &[remedy, "exit code 7", "no token"]);
    expect_failure("exit 7", &[remedy, "exit code 7", "it printed nothing"]);
    expect_failure("no-such-client get app", &[remedy, "exit code 127", "no-such-client"]);
    let half = format!("echo PG_PASSWORD={SECRET}; exit 7");
    expect_failure(&half, &[remedy, "exit code 7", "what it printed is not shown"]);
}

#[test]
fn a_command_that_prints_nothing_is_told_which_secrets_are_missing() {
    let (both, remedy) = ("for PG_PASSWORD, REDIS_PASSWORD;", "let it print a line NAME=value");
    expect_failure("true", &["SECRETS_COMMAND gives no value", both, remedy]);
    expect_failure("echo '# nothing yet'", &["SECRETS_COMMAND gives no value", both, remedy]);
    let half = format!("echo PG_PASSWORD={SECRET}; echo REDIS_PASSWORD=");
    expect_failure(&half, &["gives no value for REDIS_PASSWORD;", remedy]);
}

#[test]
fn a_command_that_prints_something_else_is_told_in_which_line() {
    let place = "the output of SECRETS_COMMAND, line 1";
    for (printed, said) in [
        (SECRET.to_owned(), "expected NAME=value"),
        (format!("{SECRET}=="), "is no variable name"),
        (format!("{{\"PG_PASSWORD\":\"{SECRET}\"}}"), "expected NAME=value"),
        (format!("PG_PASSWORD=\"{SECRET}"), "the value of PG_PASSWORD"),
    ] {
        expect_failure(&format!("printf '%s\\n' '{printed}'"), &[place, said]);
    }
    expect_failure("printf 'PG_PASSWORD=1\\nPG_PASSWORD=2\\n'", &["line 2", "set already"]);
}
