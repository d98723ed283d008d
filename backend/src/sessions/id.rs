//! The secret that a browser holds.

use std::fmt;

use crate::error::Error;

/// 256 random bits. Whoever knows them is signed in, so they never reach a log or Redis.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SessionId([u8; 32]);

impl SessionId {
    /// A new one, from the operating system's generator.
    pub fn generate() -> Result<Self, Error> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)
            .map_err(|error| Error::internal(format!("no random bytes: {error}")))?;
        Ok(Self(bytes))
    }

    /// From a cookie's value; nothing when it is not one of ours.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).ok()?;
        Some(Self(bytes))
    }

    /// For the cookie's value.
    pub(super) fn to_cookie_value(self) -> String {
        hex::encode(self.0)
    }

    /// For a keyed hash.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn an_id_survives_its_cookie(bytes: [u8; 32]) {
            let id = SessionId(bytes);
            proptest::prop_assert_eq!(SessionId::parse(&id.to_cookie_value()), Some(id));
        }

        /// Nothing but 64 digits is an id, and nothing makes the parser panic.
        #[test]
        fn only_64_digits_are_an_id(text in "[0-9a-fA-F]{62,66}|(?s).{0,80}") {
            let digits = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            proptest::prop_assert_eq!(SessionId::parse(&text).is_some(), digits);
        }
    }
}
