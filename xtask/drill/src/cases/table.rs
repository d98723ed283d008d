//! All cases in one table, with their bounds.

use std::time::Duration;

use super::{Bound, Case, Errors, Ground, kill};

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Above the longest that the backend waits for a connection to PostgreSQL or for Redis (1.5 s each).
const FAST: Duration = Duration::from_millis(4000);

const fn honest(recover: u64) -> Bound {
    Bound { errors: Errors::Honest, recover: seconds(recover), slowest: FAST }
}

const fn no_answer(recover: u64) -> Bound {
    Bound { errors: Errors::AlsoNoAnswer, ..honest(recover) }
}

const fn case(
    name: &'static str,
    what: &'static str,
    bound: Bound,
    run: for<'a> fn(&'a super::Scene) -> super::Running<'a>,
) -> Case {
    Case { name, what, bound, ground: Ground::Usual, quick: false, run }
}

impl Case {
    const fn quick(self) -> Case {
        Case { quick: true, ..self }
    }
}

/// Every case, in the order in which they run.
pub const CASES: &[Case] = &[
    case("kill-backend", "SIGKILL of the backend", honest(5), kill::backend).quick(),
    case(
        "kill-postgres-backend",
        "SIGKILL of one server process of PostgreSQL",
        honest(8),
        kill::postgres_backend,
    )
    .quick(),
    case("kill-postmaster", "SIGKILL of PostgreSQL's first process", honest(12), kill::postmaster)
        .quick(),
    case("kill-redis", "SIGKILL of Redis", honest(5), kill::redis).quick(),
    case("kill-nginx", "SIGKILL of nginx", no_answer(5), kill::nginx).quick(),
    case("kill-nginx-worker", "SIGKILL of one worker of nginx", no_answer(2), kill::nginx_worker),
];
