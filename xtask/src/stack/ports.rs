//! Ports of this host: whether one is free, and if not, who holds it.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, TcpListener};

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
        // Without the right to bind, which the engine has: the kernel's tables tell everybody who listens.
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            let rows = listening(port.port);
            !rows.iter().any(|listener| listener.is_at(address))
        }
        // Only what is certain counts: the engine is left to judge what the address is.
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
    let inodes = listening(port).into_iter().map(|listener| listener.inode).collect();
    let processes = processes_of(&inodes).join(" and ");
    match (container, processes.is_empty()) {
        (Some(name), true) => format!("the container `{name}`"),
        // The engine's own, which passes on to the container.
        (Some(name), false) => format!("the container `{name}`, through {processes}"),
        (None, true) => "a process of another user".to_owned(),
        (None, false) => processes,
    }
}

/// A socket that listens.
#[derive(Debug, PartialEq)]
struct Listener {
    /// The address in the kernel's own form: hexadecimal, each four bytes in the order of this machine.
    address: String,
    inode: String,
}

impl Listener {
    /// Whether it is in the way of one at `address`.
    fn is_at(&self, address: &str) -> bool {
        let is_any = |hex: &str| hex.bytes().all(|digit| digit == b'0');
        match address.parse::<IpAddr>() {
            Ok(wanted) if wanted.is_unspecified() || is_any(&self.address) => true,
            Ok(IpAddr::V4(wanted)) => {
                self.address == format!("{:08X}", u32::from_ne_bytes(wanted.octets()))
            }
            // Seldom enough for the engine to judge.
            Ok(IpAddr::V6(_)) | Err(_) => false,
        }
    }
}

/// The sockets that listen on a port, from the kernel's tables (proc(5), `/proc/net/tcp`).
fn listening(port: u16) -> Vec<Listener> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(fs::read_to_string);
    let text: Vec<String> = tables.into_iter().flatten().collect();
    text.iter().flat_map(|table| table.lines()).filter_map(|row| if_listening(row, port)).collect()
}

fn if_listening(row: &str, port: u16) -> Option<Listener> {
    const LISTEN: &str = "0A";
    let fields: Vec<&str> = row.split_whitespace().collect();
    let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
    let (address, hex) = local.rsplit_once(':')?;
    let is_it = *state == LISTEN && u16::from_str_radix(hex, 16).ok()? == port;
    is_it.then(|| Listener { address: address.to_owned(), inode: (*inode).to_owned() })
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
        let listener = if_listening(row, 8080).unwrap();
        assert_eq!(listener.inode, "4242");
        assert!(listener.is_at("127.0.0.1") && listener.is_at("0.0.0.0"));
        assert!(!listener.is_at("10.0.0.7"));
        assert!(Listener { address: "00000000".into(), ..listener }.is_at("10.0.0.7"));
        assert_eq!(if_listening(row, 80), None);
        assert_eq!(if_listening("sl local_address rem_address st", 80), None);
    }

    #[test]
    fn the_holder_of_a_port_is_found_by_name_and_id() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let inodes = listening(port).into_iter().map(|listener| listener.inode).collect();
        let names = processes_of(&inodes);
        let me = format!("process {} ", std::process::id());
        assert!(names.iter().any(|name| name.starts_with(&me)), "{names:?}");
        let published =
            Published { service: "x".into(), address: "127.0.0.1".into(), port, variable: "X" };
        assert!(!is_free(&published));
        drop(listener);
        assert!(is_free(&published));
    }
}
