//! The name of a session that its owner may see.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::SessionId;
use crate::{config::Key, keyed};

/// A keyed hash of the session's id, in hexadecimal. It names the record in Redis and the entry in
/// the owner's list, and is no cookie: nobody gets from it to the id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Handle(String);

impl Handle {
    /// The handle of an id.
    pub(super) fn of(id: SessionId, key: &Key) -> Self {
        Self(hex::encode(keyed::hash(key, id.as_bytes())))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// Only the one form that is ever given out: it becomes a part of a key.
impl TryFrom<String> for Handle {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == 64 && text.bytes().all(digit) {
            Ok(Self(text))
        } else {
            Err("not the handle of a session")
        }
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_given_out_is_a_handle() {
        let right = "0a".repeat(32);
        assert_eq!(Handle::try_from(right.clone()).unwrap().as_str(), right);
        for wrong in ["", "0a", &"0A".repeat(32), &"0g".repeat(32), &"*".repeat(64)] {
            assert!(Handle::try_from((*wrong).to_owned()).is_err(), "{wrong}");
        }
    }
}
