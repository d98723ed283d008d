//! Parts of the stack that are away for a while, for tests that are alone on it.

use std::process::Command;
use std::time::{Duration, Instant};

/// Until a part that was started again is healthy.
const LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(200);

/// A part of the stack that does not work, until this is dropped.
pub(crate) struct Away {
    container: String,
    back: &'static str,
}

/// How a part is taken away, and which one.
pub(crate) type Way = (fn(&str) -> Away, &'static str);

impl Away {
    /// It is there and says nothing, as on a machine that has no time for it.
    pub(crate) fn frozen(service: &str) -> Self {
        Self::by("pause", "unpause", service)
    }

    /// It has ended, and nobody is at its address.
    pub(crate) fn stopped(service: &str) -> Self {
        Self::by("stop", "start", service)
    }

    fn by(verb: &str, back: &'static str, service: &str) -> Self {
        let away = Self { container: container(service), back };
        docker(&[verb, &away.container]).unwrap();
        away
    }
}

impl Drop for Away {
    /// Back to work, whatever became of the test: the next one needs the whole stack.
    fn drop(&mut self) {
        // Said and no panic: there may be one already.
        if let Err(said) = docker(&[self.back, &self.container]) {
            eprintln!("{said}");
        }
        let deadline = Instant::now() + LIMIT;
        let health = ["inspect", "--format", "{{.State.Health.Status}}", &self.container];
        while docker(&health).is_ok_and(|health| health != "healthy") && Instant::now() < deadline {
            std::thread::sleep(PAUSE);
        }
        wait_for_the_network();
    }
}

/// Waits until the network of this machine is at rest.
pub(crate) fn wait_for_the_network() {
    let deadline = Instant::now() + LIMIT;
    while !is_network_settled() && Instant::now() < deadline {
        std::thread::sleep(PAUSE);
    }
}

/// Whether no interface of this machine waits for its address. A container that was started brings one,
/// whose IPv6 address counts a second or two later; at that moment Chromium gives up whatever is on its
/// way, to any site (ERR_NETWORK_CHANGED).
fn is_network_settled() -> bool {
    /// `IFA_F_TENTATIVE` of the kernel's `if_addr.h`.
    const TENTATIVE: u32 = 0x40;
    // Without IPv6 there is no such file, and nothing to wait for.
    let addresses = std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    let flags = |line: &str| u32::from_str_radix(line.split_whitespace().nth(4)?, 16).ok();
    addresses.lines().filter_map(flags).all(|flags| flags & TENTATIVE == 0)
}

/// The one container of a service.
fn container(service: &str) -> String {
    let project =
        std::env::var("STACK_PROJECT").expect("STACK_PROJECT is set by `cargo xtask test`");
    let [project, service] = [("project", project.as_str()), ("service", service)]
        .map(|(key, value)| format!("label=com.docker.compose.{key}={value}"));
    let found = docker(&["ps", "--quiet", "--filter", &project, "--filter", &service]).unwrap();
    assert!(!found.is_empty() && !found.contains('\n'), "{project}, {service}: {found:?}");
    found
}

/// What docker prints.
fn docker(args: &[&str]) -> Result<String, String> {
    let output = Command::new("docker").args(args).output().expect("start docker");
    let [printed, said] = [output.stdout, output.stderr]
        .map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned());
    if output.status.success() { Ok(printed) } else { Err(format!("docker {args:?}: {said}")) }
}
