//! The name of a session that its owner may see.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::SessionId;
use crate::config::Key;

/// A keyed hash of the session's id, in hexadecimal. It names the record in Redis and the entry in
/// the owner's list, and is no cookie: nobody gets from it to the id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct Handle(String);

impl Handle {
    /// The handle of an id.
    pub(super) fn of(id: SessionId, key: &Key) -> Self {
        Self(hex::encode(keyed_hash(key, id.as_bytes())))
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

fn keyed_hash(key: &Key, message: &[u8]) -> [u8; 32] {
    // HMAC takes keys of every length, so this cannot fail; the empty key is never reached.
    let mut mac = Hmac::<Sha256>::new_from_slice(key.expose())
        .unwrap_or_else(|_| Hmac::<Sha256>::new(&Default::default()));
    mac.update(message);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231, test case 1: the key is padded by us as HMAC itself pads it.
    #[test]
    fn a_handle_is_an_hmac_of_the_id() {
        let mut key = [0; 64];
        key[..20].copy_from_slice(&[0x0b; 20]);
        let hash = hex::encode(keyed_hash(&Key::new(key), b"Hi There"));
        let expected = "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7";
        assert_eq!(hash, expected);
    }

    #[test]
    fn only_what_was_given_out_is_a_handle() {
        let right = "0a".repeat(32);
        assert_eq!(Handle::try_from(right.clone()).unwrap().as_str(), right);
        for wrong in ["", "0a", &"0A".repeat(32), &"0g".repeat(32), &"*".repeat(64)] {
            assert!(Handle::try_from((*wrong).to_owned()).is_err(), "{wrong}");
        }
    }
}
