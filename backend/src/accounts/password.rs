//! Argon2id, and the limits that keep a flood of sign-ins from taking the machine down: each hash
//! costs 19 MiB and a core for some tens of milliseconds.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use argon2::{
    Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version,
    password_hash::{self, phc::PasswordHash},
};
use tokio::{sync::Semaphore, task::spawn_blocking, time::timeout};

use crate::error::Error;

/// The shortest password, in characters.
const MIN_CHARS: usize = 8;
/// The longest: more adds no strength, and hashing megabytes is a way to keep a server busy.
const MAX_CHARS: usize = 128;
/// How long a sign-in waits for its turn before it is told to come back.
const TURN: Duration = Duration::from_secs(1);

/// Hashes and verifies, a few at a time.
#[derive(Clone)]
pub struct Passwords {
    turns: Arc<Semaphore>,
    /// Verified when there is no such account, so that this takes as long as a wrong password.
    dummy: Arc<str>,
    /// See [`Passwords::work`].
    work: Arc<AtomicU64>,
}

/// Whether a new password has an acceptable length.
pub(super) fn check_length(password: &str) -> Result<(), &'static str> {
    match password.chars().count() {
        0..MIN_CHARS => Err("Choose a password of at least 8 characters."),
        MIN_CHARS..=MAX_CHARS => Ok(()),
        _ => Err("Choose a password of at most 128 characters."),
    }
}

impl Passwords {
    /// As many hashes at a time as the machine has cores.
    pub fn new() -> Result<Self, Error> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let dummy = hash_now("no account has this password")?;
        let turns = Arc::new(Semaphore::new(cores));
        Ok(Self { turns, dummy: dummy.into(), work: Arc::default() })
    }

    /// How much was hashed so far: for each hash its memory in KiB, times the passes over it. This is
    /// what the time of an answer follows, without the accidents of a clock.
    pub fn work(&self) -> u64 {
        self.work.load(Ordering::Relaxed)
    }

    /// The hash to store for a new password.
    pub(super) async fn hash(&self, password: String) -> Result<String, Error> {
        let work = Arc::clone(&self.work);
        self.in_turn(move || {
            let hash = hash_now(&password)?;
            work.fetch_add(work_of(&hash)?, Ordering::Relaxed);
            Ok(hash)
        })
        .await
    }

    /// Whether the password is the one of the hash; never without a hash, after the same work.
    pub(super) async fn verify(&self, password: String, hash: Option<&str>) -> Result<bool, Error> {
        // No account can have such a password, and the length tells nothing about one.
        if password.chars().count() > MAX_CHARS {
            return Ok(false);
        }
        let known = hash.is_some();
        let hash = hash.unwrap_or(&self.dummy).to_owned();
        let work = Arc::clone(&self.work);
        let right = self.in_turn(move || {
            let right = verify_now(&password, &hash)?;
            work.fetch_add(work_of(&hash)?, Ordering::Relaxed);
            Ok(right)
        });
        let right = right.await?;
        Ok(known && right)
    }

    /// Runs on a thread that may block. The permit moves there too: a caller who hangs up ends
    /// its request, not the hash, and the next one must not start beside it.
    async fn in_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let permit = timeout(TURN, Arc::clone(&self.turns).acquire_owned())
            .await
            .map_err(|_| Error::busy("signing in"))?
            .map_err(Error::internal)?;
        spawn_blocking(move || {
            let outcome = work();
            drop(permit);
            outcome
        })
        .await
        .map_err(Error::internal)?
    }
}

/// OWASP's first choice for Argon2id: 19 MiB, two passes, one lane.
fn argon2() -> Result<Argon2<'static>, Error> {
    let params = Params::new(19_456, 2, 1, None).map_err(|error| failure(&error))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn hash_now(password: &str) -> Result<String, Error> {
    // The salt is random, from the operating system's generator, and part of the result.
    let hash: Result<PasswordHash, _> = argon2()?.hash_password(password.as_bytes());
    Ok(hash.map_err(|error| failure(&error))?.to_string())
}

fn verify_now(password: &str, hash: &str) -> Result<bool, Error> {
    // The hash carries its own parameters, so that old ones stay valid when ours change.
    let hash = PasswordHash::new(hash).map_err(|error| failure(&error))?;
    match argon2()?.verify_password(password.as_bytes(), &hash) {
        Ok(()) => Ok(true),
        Err(password_hash::Error::PasswordInvalid) => Ok(false),
        Err(error) => Err(failure(&error)),
    }
}

/// What computing this hash took.
fn work_of(hash: &str) -> Result<u64, Error> {
    let hash = PasswordHash::new(hash).map_err(|error| failure(&error))?;
    let params = Params::try_from(&hash).map_err(|error| failure(&error))?;
    Ok(u64::from(params.m_cost()) * u64::from(params.t_cost()))
}

fn failure(error: &dyn std::fmt::Display) -> Error {
    Error::internal(format!("password hashing: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_right_password_of_a_known_account_verifies() {
        let passwords = Passwords::new().unwrap();
        let hash = passwords.hash("correct horse".to_owned()).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        let verify = |password: &str, hash| passwords.verify(password.to_owned(), hash);
        assert!(verify("correct horse", Some(hash.as_str())).await.unwrap());
        assert!(!verify("wrong horse", Some(hash.as_str())).await.unwrap());
        assert!(!verify(&"x".repeat(129), Some(hash.as_str())).await.unwrap());
        assert!(!verify("no account has this password", None).await.unwrap());
    }

    #[tokio::test]
    async fn an_unknown_account_takes_the_same_work_as_a_wrong_password() {
        let passwords = Passwords::new().unwrap();
        let hash = passwords.hash("correct horse".to_owned()).await.unwrap();
        let before = passwords.work();
        assert_eq!(before, 19_456 * 2, "one hash with OWASP's parameters");
        assert!(!passwords.verify("wrong horse".to_owned(), Some(&hash)).await.unwrap());
        let known = passwords.work() - before;
        assert!(!passwords.verify("wrong horse".to_owned(), None).await.unwrap());
        assert_eq!(passwords.work() - before - known, known);
        assert_eq!(known, before);
    }

    #[tokio::test]
    async fn a_flood_is_told_to_come_back() {
        let passwords = Passwords::new().unwrap();
        let all = u32::try_from(passwords.turns.available_permits()).unwrap();
        let _held = passwords.turns.acquire_many(all).await.unwrap();
        let error = passwords.hash("correct horse".to_owned()).await.unwrap_err();
        assert_eq!(error.status(), axum::http::StatusCode::SERVICE_UNAVAILABLE);
    }

    #[test]
    fn lengths_count_characters_not_bytes() {
        assert!(check_length("1234567").is_err());
        assert!(check_length("ääääääää").is_ok());
        assert!(check_length(&"ä".repeat(128)).is_ok());
        assert!(check_length(&"a".repeat(129)).is_err());
    }

    proptest::proptest! {
        #[test]
        fn every_password_of_8_to_128_characters_is_accepted(text in "(?s).{0,140}") {
            let right = (8..=128).contains(&text.chars().count());
            proptest::prop_assert_eq!(check_length(&text).is_ok(), right);
        }
    }
}
