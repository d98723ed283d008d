//! `test NAME…`: some of the tests on a stack, again and again while one works on them.

use anyhow::{Result, bail};
use xshell::cmd;

use super::{Checks, LIMIT, backend_tests, browser, driver_tests};
use crate::ctx::{Ctx, Invocation, Usage};
use crate::stack::trial::Trial;

/// The targets of tests that need a stack, and what each check is called.
pub(super) const TARGETS: [(&str, &str); 3] = [
    ("stack", "tests through nginx"),
    ("browser", "pages in a browser"),
    ("live", "tests of the driver"),
];

/// Which targets have tests whose names have one of `names` in them.
///
/// # Errors
/// The tests do not compile, or no test has such a name.
pub(super) fn targets(ctx: &Ctx, names: &[String]) -> Result<Vec<&'static str>> {
    let shell = ctx.shell()?;
    let mut found = Vec::new();
    let step = ctx.ui.step("finding the tests").announce();
    for (target, _) in TARGETS {
        let list =
            cmd!(shell, "cargo test --workspace --locked --test {target} -- --list {names...}");
        let listed = match ctx.read(Invocation::from(list).limit(LIMIT)) {
            Ok(listed) => listed,
            Err(error) => {
                step.failed();
                return Err(error);
            }
        };
        if listed.lines().any(|line| line.ends_with(": test")) {
            found.push(target);
        }
    }
    step.done("");
    if found.is_empty() {
        let names = names.join("`, nor `");
        bail!(Usage(format!(
            "no test that needs a stack has `{names}` in its name; those without run with `cargo test`"
        )));
    }
    Ok(found)
}

/// Brings the tests' stack up and runs them.
///
/// # Errors
/// The run was interrupted.
pub(super) fn check(
    ctx: &Ctx,
    checks: &mut Checks,
    trial: &Trial,
    targets: &[&str],
    names: &[String],
) -> Result<()> {
    if !checks.check("stack up", || trial.up(ctx))? {
        return Ok(());
    }
    for (target, name) in TARGETS.into_iter().filter(|(target, _)| targets.contains(target)) {
        checks.check(name, || match target {
            "stack" => backend_tests(ctx, trial, names),
            "browser" => browser::tests(ctx, trial, names),
            _ => driver_tests(ctx, trial, names),
        })?;
    }
    Ok(())
}
