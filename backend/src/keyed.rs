//! Keyed hashes: names for things that shall not be readable where the names are kept.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::config::Key;

/// HMAC-SHA-256.
pub fn hash(key: &Key, message: &[u8]) -> [u8; 32] {
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
    fn it_is_an_hmac() {
        let mut key = [0; 64];
        key[..20].copy_from_slice(&[0x0b; 20]);
        let expected = "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7";
        assert_eq!(hex::encode(hash(&Key::new(key), b"Hi There")), expected);
    }
}
