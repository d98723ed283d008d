//! What is asked, and when: a pure function of the seed. The same seed gives the same requests in
//! the same order, on every machine.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// How many accounts write. Enough that the limits for one account are not met.
pub const PEOPLE: usize = 8;
/// One sign-in in so many requests: well below what one address may do.
const SIGN_IN_EVERY: u64 = 400;
/// One sign-out in so many: there must be sessions left to be used.
const SIGN_OUT_EVERY: u64 = 800;

/// One request, or a write with what belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Writes a text.
    Write {
        /// Who writes.
        person: usize,
        /// Whether it is sent again, under the same key, while it is not acknowledged.
        retry: bool,
        /// Whether the list is asked for at once, and must show it.
        read_back: bool,
        /// How many characters beside the key.
        length: usize,
    },
    /// Reads the newest of them.
    List {
        /// Whose.
        person: usize,
    },
    /// Asks who is signed in.
    WhoAmI {
        /// Who.
        person: usize,
    },
    /// A page that nginx serves by itself.
    Page,
    /// Signs in once more.
    SignIn {
        /// Who.
        person: usize,
    },
    /// Signs one out that is not used any more.
    SignOut {
        /// Who.
        person: usize,
    },
    /// Makes an account.
    SignUp,
}

/// The requests in order, without an end.
#[derive(Clone, Debug)]
pub struct Schedule {
    rng: ChaCha8Rng,
    number: u64,
    sign_up_at: Option<u64>,
}

impl Schedule {
    /// The requests of one case. A third of the cases sign somebody up, early, so that a fault may
    /// meet it; more would exceed what one address may do.
    pub fn new(seed: u64) -> Schedule {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let sign_up_at = (rng.next_u32() % 3 == 0).then(|| 40 + u64::from(rng.next_u32() % 100));
        Schedule { rng, number: 0, sign_up_at }
    }

    fn below(&mut self, limit: u32) -> u32 {
        self.rng.next_u32() % limit
    }
}

impl Iterator for Schedule {
    type Item = (u64, Op);

    fn next(&mut self) -> Option<(u64, Op)> {
        let number = self.number;
        self.number += 1;
        // Drawn in any case, so that what is special shifts nothing that comes later.
        let person = self.below(PEOPLE as u32) as usize;
        let kind = self.below(100);
        let (retry, read_back, length) =
            (self.below(2) == 0, self.below(5) == 0, self.below(400) as usize);
        let op = match kind {
            _ if self.sign_up_at == Some(number) => Op::SignUp,
            _ if number % SIGN_IN_EVERY == SIGN_IN_EVERY / 2 => Op::SignIn { person },
            _ if number % SIGN_OUT_EVERY == SIGN_OUT_EVERY / 2 => Op::SignOut { person },
            0..30 => Op::Write { person, retry, read_back, length },
            30..70 => Op::List { person },
            70..95 => Op::WhoAmI { person },
            _ => Op::Page,
        };
        Some((number, op))
    }
}

/// The seed of one case within a run: a case alone does what it does among the others.
pub fn seed_of_case(seed: u64, case: &str) -> u64 {
    // FNV-1a; it must only be the same everywhere.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64 ^ seed;
    for byte in case.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(seed: u64) -> Vec<(u64, Op)> {
        Schedule::new(seed).take(2000).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_schedule() {
        assert_eq!(first(7), first(7));
        assert_ne!(first(7), first(8));
    }

    /// A changed generator or a changed order of draws would make printed seeds worthless.
    #[test]
    fn a_printed_seed_means_the_same_for_ever() {
        let ops: Vec<Op> = first(7).into_iter().map(|(_, op)| op).take(4).collect();
        let write = Op::Write { person: 2, retry: false, read_back: false, length: 51 };
        assert_eq!(ops, [write, Op::List { person: 6 }, Op::List { person: 3 }, Op::Page]);
        assert_eq!(seed_of_case(7, "kill-redis"), 0x59aca9bf7b7bb528);
    }

    #[test]
    fn cases_differ_and_signing_in_stays_rare() {
        assert_ne!(seed_of_case(7, "kill-redis"), seed_of_case(7, "kill-nginx"));
        let ops = first(3);
        let count = |wanted: fn(&Op) -> bool| ops.iter().filter(|(_, op)| wanted(op)).count();
        assert_eq!(count(|op| matches!(op, Op::SignIn { .. })), 5);
        assert_eq!(count(|op| matches!(op, Op::SignOut { .. })), 2);
        assert!(count(|op| *op == Op::SignUp) <= 1);
        let writes = count(|op| matches!(op, Op::Write { .. }));
        assert!((500..700).contains(&writes), "{writes} writes");
    }
}
