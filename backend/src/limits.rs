//! Limits against abuse: how often something may be done for one account and from one address.
//! Counted in Redis, so that all replicas count together. docs/security.md has the table too.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::LazyLock,
    time::Duration,
};

use redis::Script;

use crate::{client::ClientAddress, config::Rotating, error::Error, keyed, link::Link};

/// `burst` requests at once, and one more every `every`.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    /// How many fit at once.
    pub burst: u32,
    /// How long one of them takes to be forgotten.
    pub every: Duration,
}

/// What is limited, and how.
#[derive(Debug)]
pub struct Rule {
    /// A part of the key in Redis.
    pub name: &'static str,
    /// For one account, from wherever.
    pub account: Rate,
    /// From one address, for whatever account.
    pub address: Rate,
    /// Whether the account's rate bounds work, as an address' always does, and not guessing. Rates
    /// that bound work are [`RELAXED`] outside production.
    pub bounds_work: bool,
    /// What to do when Redis is too full to count: go on, or answer 503.
    pub passes_uncounted: bool,
}

/// Outside production every developer, test and benchmark comes from one address, and measures.
const RELAXED: u32 = 100;

/// Guessing one password: 10 at once, then 120 an hour. From one address rather more, because an
/// office, a school or a mobile network has one address for all.
pub static SIGN_IN: Rule = Rule {
    name: "sign-in",
    account: Rate { burst: 10, every: Duration::from_secs(30) },
    address: Rate { burst: 50, every: Duration::from_secs(2) },
    bounds_work: false,
    passes_uncounted: false,
};

/// Each makes a row for ever and costs a hash. The account is the address that is signed up:
/// asking whether it has an account is what is limited there.
pub static SIGN_UP: Rule = Rule {
    name: "sign-up",
    account: Rate { burst: 5, every: Duration::from_secs(60) },
    address: Rate { burst: 20, every: Duration::from_secs(60) },
    bounds_work: false,
    passes_uncounted: false,
};

/// Guessing the password with a stolen session; also two hashes each.
pub static CHANGE_PASSWORD: Rule = Rule {
    name: "password",
    account: Rate { burst: 5, every: Duration::from_secs(60) },
    address: Rate { burst: 20, every: Duration::from_secs(10) },
    bounds_work: false,
    passes_uncounted: false,
};

/// Every unsafe request of a signed-in caller. Nobody writes ten times a second by hand, and a
/// program that imports something may do 120 at once.
pub static WRITE: Rule = Rule {
    name: "write",
    account: Rate { burst: 120, every: Duration::from_millis(100) },
    address: Rate { burst: 600, every: Duration::from_millis(20) },
    bounds_work: true,
    // The caller is signed in, so that it is known who it is: a full Redis shall not stop the work.
    passes_uncounted: true,
};

static GCRA: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("limits.lua")));

/// The counters. Cloning shares them.
#[derive(Clone)]
pub struct Limits {
    link: Link,
    key: Rotating<[u8; 64]>,
    relaxed: bool,
}

impl Limits {
    /// `relaxed` outside production. The key hides in Redis who was counted; with a new one,
    /// counting begins anew.
    pub fn new(link: Link, key: Rotating<[u8; 64]>, relaxed: bool) -> Self {
        Self { link, key, relaxed }
    }

    /// Counts one request, or refuses it with 429. `account` is whatever names it, if one is named.
    pub async fn check(
        &self,
        rule: &Rule,
        ClientAddress(address): ClientAddress,
        account: Option<&str>,
    ) -> Result<(), Error> {
        let mut script = GCRA.prepare_invoke();
        let mut bucket = |kind: &str, whom: &str, rate: Rate, relaxed: bool| {
            let factor = if relaxed { RELAXED } else { 1 };
            let every = rate.every.as_micros() / u128::from(factor);
            script.key(self.bucket(rule, kind, whom));
            script.arg(u64::try_from(every).unwrap_or(u64::MAX)).arg(rate.burst * factor);
        };
        bucket("address", &neighbourhood(address).to_string(), rule.address, self.relaxed);
        if let Some(account) = account {
            bucket("account", account, rule.account, self.relaxed && rule.bounds_work);
        }
        match self.link.script::<i64>(&script).await? {
            0 => Ok(()),
            -1 if rule.passes_uncounted => Ok(()),
            -1 => Err(Error::unavailable("the session store", "Redis is full")),
            seconds => {
                tracing::warn!(rule = rule.name, seconds, "too many requests");
                Err(Error::TooMany { seconds: u32::try_from(seconds).unwrap_or(u32::MAX) })
            }
        }
    }

    /// Half the hash is more than enough to tell buckets apart.
    fn bucket(&self, rule: &Rule, kind: &str, whom: &str) -> String {
        let hash = keyed::hash(&self.key.current(), format!("limit:{kind}:{whom}").as_bytes());
        let bucket = format!("{}:{kind}:{}", rule.name, hex::encode(&hash[..16]));
        self.link.key("limit", bucket)
    }
}

/// Whoever has an IPv6 address has 2^64 of them: the network counts.
fn neighbourhood(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_ipv6_counts_as_one() {
        let cases = [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ];
        for (address, expected) in cases {
            assert_eq!(neighbourhood(address.parse().unwrap()).to_string(), expected);
        }
    }
}
