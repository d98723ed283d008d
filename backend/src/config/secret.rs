//! Values that must never reach a log.

use std::fmt;

/// A value that prints as `***`. Reading it takes a call that is easy to search for.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret<T>(T);

/// 64 random bytes that key a hash.
pub type Key = Secret<[u8; 64]>;

impl<T> Secret<T> {
    /// Wraps a value.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl<T> fmt::Display for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
