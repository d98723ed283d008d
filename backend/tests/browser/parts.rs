//! Parts of the stack that are away for a while, for tests that are alone on it.

use std::ffi::OsStr;
use std::fmt::Debug;
use std::process::Command;
use std::time::{Duration, Instant};

/// Until a part that was started again is healthy.
const LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(200);

/// A part of the stack that does not work, until this is dropped.
pub(crate) struct Away {
    container: String,
    /// What brings it back.
    back: Vec<String>,
}

/// How a part is taken away, and which one.
pub(crate) type Way = (fn(&str) -> Away, &'static str);

impl Away {
    /// It is there and says nothing, as on a machine that has no time for it. By signals from the host:
    /// `docker pause` that meets the start of a health check leaves an engine that never resumes it.
    pub(crate) fn frozen(service: &str) -> Self {
        let container = container(service);
        let listed = docker(&["top", &container, "-eo", "pid"]).unwrap();
        let pids: Vec<&str> = listed.lines().skip(1).map(str::trim).collect();
        // A health probe that was listed may have ended since.
        let signal = |name: &str| format!("kill {name} {} 2>/dev/null; true", pids.join(" "));
        let image = docker(&["inspect", "--format", "{{.Image}}", &container]).unwrap();
        // They are other users' processes, which this one may perhaps not send anything.
        let as_ourselves = |line: &str| ["sh", "-c", line].map(str::to_owned).to_vec();
        let as_root = |line: &str| as_root(&image, line);
        for way in [&as_ourselves as &dyn Fn(&str) -> Vec<String>, &as_root] {
            run(&way(&signal("-STOP"))).unwrap();
            if pids.iter().all(|pid| is_stopped(pid)) {
                return Self { container, back: way(&signal("-CONT")) };
            }
        }
        panic!("{service} runs on");
    }

    /// It has ended, and nobody is at its address.
    pub(crate) fn stopped(service: &str) -> Self {
        let container = container(service);
        let back = ["docker", "start", &container].map(str::to_owned).to_vec();
        let away = Self { container, back };
        docker(&["stop", &away.container]).unwrap();
        away
    }
}

impl Drop for Away {
    /// Back to work, whatever became of the test: the next one needs the whole stack.
    fn drop(&mut self) {
        // Said and no panic: there may be one already.
        if let Err(said) = run(&self.back) {
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

/// Whether a process stands still; one that is gone does.
fn is_stopped(pid: &str) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().find(|line| line.starts_with("State:")).is_none_or(|line| line.contains("T ("))
}

/// A line of shell as root of this machine, whoever runs the tests: in a container with every right, of an image that
/// is here, and without an interface of its own.
fn as_root(image: &str, line: &str) -> Vec<String> {
    let words = "docker run --rm --privileged --pid=host --network=none --volume=/:/host --workdir=/ --user=0 \
                 --entrypoint=chroot";
    let words = words.split(' ').filter(|word| !word.is_empty());
    words.chain([image, "/host", "sh", "-c", line]).map(str::to_owned).collect()
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
    run(&[&["docker"], args].concat())
}

/// What a program prints.
fn run<S: AsRef<OsStr> + Debug>(words: &[S]) -> Result<String, String> {
    let output = Command::new(&words[0]).args(&words[1..]).output().expect("start a program");
    let [printed, said] = [output.stdout, output.stderr]
        .map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned());
    if output.status.success() { Ok(printed) } else { Err(format!("{words:?}: {said}")) }
}
