//! What the services hold: memory, descriptors, connections. After a fault it must be what it was.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::stack::{SERVICES, Stack};

/// How long after the load the stack may take to return what it held.
const SETTLE: Duration = Duration::from_secs(12);

/// A measurement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Anonymous memory of each service's processes, in kilobytes; caches are not part of it.
    pub memory_kb: [u64; 4],
    /// Open descriptors of that process of each service which has the most. (How many processes
    /// PostgreSQL has is counted below; the files of tables that each of them keeps open are a cache
    /// with a bound of its own, `max_files_per_process`, and do not count.)
    pub descriptors: [u64; 4],
    /// Connections of clients to PostgreSQL.
    pub pg_connections: u64,
    /// Connections of the backend to Redis.
    pub redis_connections: u64,
}

impl Usage {
    /// Measures.
    ///
    /// # Errors
    /// A service does not run, or this user may not look.
    pub async fn read(stack: &Stack) -> Result<Usage> {
        let mut usage = Usage::default();
        for (index, service) in SERVICES.into_iter().enumerate() {
            for (pid, _) in stack.processes(service).await? {
                usage.memory_kb[index] += memory_of(pid).unwrap_or(0);
                let descriptors = descriptors_of(pid).unwrap_or(0);
                usage.descriptors[index] = usage.descriptors[index].max(descriptors);
            }
        }
        let count = "SELECT count(*) FROM pg_stat_activity
             WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
        usage.pg_connections = stack.sql(count).await?.parse().context("count connections")?;
        let clients = stack.redis(&["client", "list"]).await?;
        let is_backend = |line: &&str| line.contains(" user=backend ");
        usage.redis_connections = clients.lines().filter(is_backend).count() as u64;
        Ok(usage)
    }

    /// What is held beyond what was held before, sentence by sentence.
    fn beyond(&self, before: &Usage) -> Vec<String> {
        let mut found = Vec::new();
        for (index, service) in SERVICES.into_iter().enumerate() {
            let (now, then) = (self.memory_kb[index], before.memory_kb[index]);
            // A tenth, or what one password that is being hashed takes (19 MB) and its like: the
            // services are small, and a tenth of little is less than an allocator's habit.
            if now > (then + then / 10).max(then + 24 * 1024) {
                found.push(format!("{service} holds {now} kB of memory, {then} kB before"));
            }
            let (now, then) = (self.descriptors[index], before.descriptors[index]);
            if now > (then + then / 10).max(then + 24) {
                found
                    .push(format!("a process of {service} holds {now} descriptors, {then} before"));
            }
        }
        // The pool may have grown to its size, which is 10, whatever it was before.
        if self.pg_connections > before.pg_connections.max(10) {
            let (now, then) = (self.pg_connections, before.pg_connections);
            found.push(format!("PostgreSQL has {now} connections, {then} before"));
        }
        if self.redis_connections > before.redis_connections.max(2) {
            let (now, then) = (self.redis_connections, before.redis_connections);
            found.push(format!("Redis has {now} connections of the backend, {then} before"));
        }
        found
    }
}

/// Waits until the stack holds no more than before; returns what it still holds beyond that at the
/// deadline, and the last measurement.
///
/// # Errors
/// It cannot be measured.
pub async fn settle(stack: &Stack, before: &Usage) -> Result<(Usage, Vec<String>)> {
    let deadline = Instant::now() + SETTLE;
    loop {
        let usage = Usage::read(stack).await?;
        let beyond = usage.beyond(before);
        if beyond.is_empty() || Instant::now() > deadline {
            return Ok((usage, beyond));
        }
        sleep(Duration::from_millis(500)).await;
    }
}

fn memory_of(pid: i32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Where PostgreSQL's tables are, inside its container.
const TABLES: &str = "/var/lib/postgresql/data/";

fn descriptors_of(pid: i32) -> Option<u64> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
    let targets = descriptors.filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
    Some(targets.filter(|target| !target.starts_with(TABLES)).count() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leak_is_named_and_an_allocators_habit_is_not() {
        let before = Usage {
            memory_kb: [10_000, 20_000, 100_000, 8_000],
            descriptors: [40, 30, 300, 20],
            pg_connections: 6,
            redis_connections: 1,
        };
        let mut after = before.clone();
        after.memory_kb[1] += 19_000;
        after.pg_connections = 10;
        assert_eq!(after.beyond(&before), [""; 0]);
        after.memory_kb[1] = 60_000;
        after.descriptors[0] = 90;
        after.pg_connections = 11;
        after.redis_connections = 3;
        let found = after.beyond(&before);
        assert_eq!(found.len(), 4, "{found:?}");
        assert!(found.iter().any(|text| text.contains("backend holds 60000 kB")), "{found:?}");
    }
}
