//! Ports of this host: whether one is free, and if not, who holds it.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};

use anyhow::{Result, bail};

use crate::ctx::{Ctx, Invocation};

/// A port that a service publishes on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Published {
    pub(crate) service: String,
    pub(crate) address: String,
    pub(crate) port: u16,
    /// The variable that sets it, for the message.
    pub(crate) variable: &'static str,
}

/// Fails if one of `ports` cannot be taken, naming for each who holds it and what to do.
pub(crate) fn check_free(ctx: &Ctx, ports: &[Published]) -> Result<()> {
    let taken: Vec<&Published> = ports.iter().filter(|port| !is_free(port)).collect();
    if taken.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = taken
        .iter()
        .map(|port| {
            let holder = holder(ctx, port.port);
            let Published { service, port, variable, .. } = port;
            format!("{service} wants port {port}, which {holder} holds; end it, or set {variable} to another port in the environment file")
        })
        .collect();
    bail!("a port is taken:\n  {}", lines.join("\n  "));
}

/// A port that nothing listens on right now.
///
/// # Errors
/// The host has none left.
pub(crate) fn any_free() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn is_free(port: &Published) -> bool {
    let address = if port.address.is_empty() { "0.0.0.0" } else { port.address.as_str() };
    // The standard library sets SO_REUSEADDR, so a connection that lingers is no obstacle.
    match TcpListener::bind((address, port.port)) {
        Ok(_) => true,
        // Only what is certain counts: without the right to bind, Docker is left to judge.
        Err(error) => error.kind() != std::io::ErrorKind::AddrInUse,
    }
}

/// Who listens on a port: a container of Docker's, or a process by name and id.
pub(crate) fn holder(ctx: &Ctx, port: u16) -> String {
    let listing = Invocation::new("docker").args([
        "ps",
        "--filter",
        &format!("publish={port}"),
        "--format",
        "{{.Names}}",
    ]);
    let container = ctx.read(listing).ok().and_then(|out| out.lines().next().map(str::to_owned));
    let processes = processes_of(&listening_inodes(port)).join(" and ");
    match (container, processes.is_empty()) {
        (Some(name), true) => format!("the container `{name}`"),
        // The engine's own, which passes on to the container.
        (Some(name), false) => format!("the container `{name}`, through {processes}"),
        (None, true) => "a process of another user".to_owned(),
        (None, false) => processes,
    }
}

/// Inodes of the sockets that listen on a port, from the kernel's tables (proc(5), `/proc/net/tcp`).
fn listening_inodes(port: u16) -> BTreeSet<String> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(fs::read_to_string);
    let text: Vec<String> = tables.into_iter().flatten().collect();
    text.iter()
        .flat_map(|table| table.lines())
        .filter_map(|row| inode_if_listening(row, port))
        .collect()
}

fn inode_if_listening(row: &str, port: u16) -> Option<String> {
    const LISTEN: &str = "0A";
    let fields: Vec<&str> = row.split_whitespace().collect();
    let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
    let (_, hex) = local.rsplit_once(':')?;
    let is_it = *state == LISTEN && u16::from_str_radix(hex, 16).ok()? == port;
    is_it.then(|| (*inode).to_owned())
}

fn processes_of(inodes: &BTreeSet<String>) -> Vec<String> {
    let mut found = Vec::new();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    for entry in entries {
        let pid = entry.file_name().to_string_lossy().into_owned();
        if !pid.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let descriptors = fs::read_dir(entry.path().join("fd")).into_iter().flatten().flatten();
        let holds_it = descriptors.filter_map(|fd| fs::read_link(fd.path()).ok()).any(|target| {
            let target = target.to_string_lossy();
            let inode = target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
            inode.is_some_and(|inode| inodes.contains(inode))
        });
        if holds_it {
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            found.push(format!("process {pid} ({})", name.trim()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_is_read() {
        let row = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4242 1 0000000000000000 100 0 0 10 0";
        assert_eq!(inode_if_listening(row, 8080), Some("4242".into()));
        assert_eq!(inode_if_listening(row, 80), None);
        assert_eq!(inode_if_listening("sl local_address rem_address st", 80), None);
    }

    #[test]
    fn the_holder_of_a_port_is_found_by_name_and_id() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let names = processes_of(&listening_inodes(port));
        let me = format!("process {} ", std::process::id());
        assert!(names.iter().any(|name| name.starts_with(&me)), "{names:?}");
        let published =
            Published { service: "x".into(), address: "127.0.0.1".into(), port, variable: "X" };
        assert!(!is_free(&published));
        drop(listener);
        assert!(is_free(&published));
    }
}
