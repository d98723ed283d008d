//! All cases in one table, with their bounds.

use std::time::Duration;

use super::{
    Bound, Case, Errors, FAST, Ground, crowd, damage, exhaust, kill, log, machine, memory, network,
    operate, pause, restart, space,
};

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Nobody outside may notice anything: no error, and no wait either.
const UNSEEN: Bound = Bound { errors: Errors::None, recover: seconds(0), slowest: FAST };

const fn honest(recover: u64) -> Bound {
    Bound { errors: Errors::Honest, recover: seconds(recover), slowest: FAST }
}

const fn no_answer(recover: u64) -> Bound {
    Bound { errors: Errors::AlsoNoAnswer, ..honest(recover) }
}

impl Bound {
    /// Some that were in flight, or came meanwhile, are told only when the deadline for any request is over: the
    /// backend's (10 s), nginx' (15 s) or, where nginx itself stands still, the client's own (20 s).
    const fn told_after(self, slowest: u64) -> Bound {
        Bound { slowest: seconds(slowest + 1), ..self }
    }
}

type Run = for<'a> fn(&'a super::Scene) -> super::Running<'a>;

const fn case(name: &'static str, what: &'static str, bound: Bound, run: Run) -> Case {
    Case { name, what, bound, ground: Ground::Usual, quick: false, run }
}

impl Case {
    const fn quick(self) -> Case {
        Case { quick: true, ..self }
    }

    const fn on(self, ground: Ground) -> Case {
        Case { ground, ..self }
    }
}

/// Every case, in the order in which they run.
#[rustfmt::skip]
pub const CASES: &[Case] = &[
    case("kill-backend", "SIGKILL of the backend", honest(5), kill::backend).quick(),
    case("kill-postgres-backend", "SIGKILL of one server process of PostgreSQL", honest(8), kill::postgres_backend).quick(),
    case("kill-postmaster", "SIGKILL of PostgreSQL's first process", honest(12), kill::postmaster).quick(),
    case("kill-redis", "SIGKILL of Redis", honest(5), kill::redis).quick(),
    case("kill-nginx", "SIGKILL of nginx", no_answer(5), kill::nginx).quick(),
    case("kill-nginx-worker", "SIGKILL of one worker of nginx", no_answer(2), kill::nginx_worker),

    case("restart-backend", "a graceful restart of the backend", honest(3), restart::backend).quick(),
    case("restart-postgres", "a graceful restart of PostgreSQL", honest(5), restart::postgres),
    case("restart-redis", "a graceful restart of Redis", honest(5), restart::redis),
    case("restart-nginx", "a graceful restart of nginx", no_answer(3), restart::nginx),
    case("end-slow-request", "SIGTERM of the backend while a request waits for a lock", honest(5), restart::with_a_slow_request).quick(),

    case("reset-postgres", "one in 25 answers of PostgreSQL lost with its connection, for 8 s", honest(2), network::reset_postgres).quick(),
    case("reset-redis", "one in 25 answers of Redis lost with its connection, for 8 s", honest(2), network::reset_redis),
    case("late-postgres", "40 ms on the way back from PostgreSQL, for 8 s", UNSEEN, network::late_postgres),
    case("late-redis", "40 ms on the way back from Redis, for 8 s", UNSEEN, network::late_redis),
    case("slow-postgres", "128 kB a second on a connection to PostgreSQL, for 8 s", UNSEEN, network::slow_postgres),
    case("slow-redis", "128 kB a second on the connection to Redis, for 8 s", UNSEEN, network::slow_redis),
    case("half-open-postgres", "connections to PostgreSQL go silent, for 12 s", honest(3).told_after(10), network::half_open_postgres),
    case("half-open-redis", "connections to Redis go silent, for 12 s", honest(3), network::half_open_redis),
    case("cut-postgres", "PostgreSQL out of the network for 12 s", honest(5).told_after(10), network::cut_postgres),
    case("cut-redis", "Redis out of the network for 12 s", honest(5), network::cut_redis),
    case("cut-backend", "the backend out of the network for 12 s", honest(5).told_after(15), network::cut_backend),

    case("redis-maxmemory", "Redis at its ceiling for 8 s", honest(2), space::redis_memory).quick(),
    case("aof-tail-cut", "Redis' log ends in half a command", honest(5), damage::tail_cut).quick(),
    case("aof-middle-flipped", "a byte in the middle of Redis' log is another, for 5 s", honest(15), damage::middle_flipped),

    case("postgres-connections", "a client takes every connection of PostgreSQL for 8 s", honest(3), exhaust::connections),
    case("migration-blocked", "a migration waits for a transaction of 8 s", UNSEEN, operate::migration),
    case("deploy", "a new version of the backend, deployed", UNSEEN, operate::deploy).quick(),
    case("deploy-broken", "one that does not start, and the way back", UNSEEN, operate::deploy_broken),
    case("backup-under-faults", "backups while PostgreSQL and Redis are killed", honest(12), operate::backup),
    case("log-pipe-blocked", "nobody takes the backend's log for 20 s, and more is logged than it keeps", UNSEEN, log::pipe),
    case("slow-loris", "600 clients send the head of a request drop by drop", UNSEEN, crowd::slow_loris),
    case("connection-flood", "4096 connections without a request for 6 s", no_answer(2), crowd::flood),

    case("memory-backend", "no memory left for the backend", honest(5), memory::backend),
    case("memory-postgres", "no memory left for PostgreSQL", honest(12), memory::postgres),
    case("memory-redis", "no memory left for Redis", honest(5), memory::redis),
    case("memory-nginx", "no memory left for nginx", no_answer(5), memory::nginx),

    case("stop-backend", "SIGSTOP of the backend for 30 s", honest(5).told_after(15), pause::backend),
    case("stop-postgres", "SIGSTOP of PostgreSQL for 30 s", honest(5).told_after(10), pause::postgres),
    case("stop-redis", "SIGSTOP of Redis for 30 s", honest(3), pause::redis),
    case("stop-nginx", "SIGSTOP of nginx for 30 s", no_answer(3).told_after(20), pause::nginx),

    case("postgres-full", "no byte left on PostgreSQL's volume, for 12 s", honest(15), space::postgres).on(Ground::SmallVolumes),
    case("redis-full", "no byte left on Redis' volume, for 12 s", honest(5), space::redis).on(Ground::SmallVolumes),

    case("engine-restart", "a restart of the container engine", no_answer(30), machine::engine).on(Ground::Machine),
    case("clock-ahead", "the machine's clock an hour ahead for 8 s", UNSEEN, machine::clock_ahead).on(Ground::Machine),
    case("clock-behind", "the machine's clock an hour behind for 8 s", UNSEEN, machine::clock_behind).on(Ground::Machine),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn there_are_thirty_and_each_has_a_name_of_its_own() {
        let names: BTreeSet<&str> = CASES.iter().map(|case| case.name).collect();
        assert_eq!(names.len(), CASES.len());
        assert!(CASES.iter().filter(|case| case.ground != Ground::Machine).count() >= 30);
    }

    #[test]
    fn the_short_version_needs_no_ground_of_its_own() {
        let quick: Vec<&Case> = CASES.iter().filter(|case| case.quick).collect();
        assert!(quick.len() >= 8);
        assert!(quick.iter().all(|case| case.ground == Ground::Usual));
    }
}
