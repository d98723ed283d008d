//! Against cross-site request forgery: two checks that do not depend on each other.
//!
//! 1. Every unsafe request: where a browser says it comes from ([`same_origin`], a layer).
//! 2. Every unsafe request of a signed-in caller: a token that only a page of this site can read
//!    ([`Tokens::check`], a part of the extractor `SignedIn`). A safe one may bring it too, and then gets
//!    nothing of another session's.
//!
//! docs/redis-session-strategy.md tells what each stops.

use axum::{
    extract::Request,
    http::{HeaderMap, Method, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::{
    config::{Key, Rotating},
    error::Error,
    sessions::SessionId,
};

/// The header that carries the token.
pub const HEADER: &str = "x-csrf-token";

/// Makes and checks tokens. A token is a keyed hash of the session's id: nothing is stored, and a
/// token dies with its session, or with its key once that is not accepted any more.
#[derive(Clone)]
pub struct Tokens(Rotating<[u8; 64]>);

impl Tokens {
    /// With the key `CSRF_SECRET_KEY`.
    pub fn new(key: Rotating<[u8; 64]>) -> Self {
        Self(key)
    }

    /// The token of a session.
    pub fn issue(&self, id: SessionId) -> String {
        hex::encode(mac(&self.0.current(), id).finalize().into_bytes())
    }

    /// Refuses a request without the token of its session.
    pub fn check(&self, headers: &HeaderMap, id: SessionId) -> Result<(), Error> {
        let before = self.0.accepted();
        let token = headers.get(HEADER).and_then(|value| hex::decode(value).ok());
        // A replica that learnt of a new key a moment earlier may have made the token.
        match token {
            Some(token) if self.is_good(&token, id) => Ok(()),
            Some(token) if self.0.is_other_than(&before) && self.is_good(&token, id) => Ok(()),
            _ => Err(Error::Forbidden(
                "The header X-CSRF-Token is missing or not this session's. GET /api/session \
                 returns the token.",
            )),
        }
    }

    /// The comparison takes the same time for every wrong token.
    fn is_good(&self, token: &[u8], id: SessionId) -> bool {
        self.0.accepted().iter().any(|key| mac(key, id).verify_slice(token).is_ok())
    }
}

fn mac(key: &Key, id: SessionId) -> Hmac<Sha256> {
    // HMAC takes keys of every length, so this cannot fail; the empty key is never reached.
    let mut mac = Hmac::<Sha256>::new_from_slice(key.expose())
        .unwrap_or_else(|_| Hmac::<Sha256>::new(&Default::default()));
    mac.update(b"csrf-token:");
    mac.update(id.as_bytes());
    mac
}

/// Whether a method may change something.
pub fn is_unsafe(method: &Method) -> bool {
    !method.is_safe()
}

/// A layer that refuses unsafe requests which a browser made for another site.
pub async fn same_origin(request: Request, next: Next) -> Response {
    if is_unsafe(request.method()) && !comes_from_here(request.headers()) {
        let detail = "This request comes from another site. Send it from a page of this one.";
        return Error::Forbidden(detail).into_response();
    }
    next.run(request).await
}

fn comes_from_here(headers: &HeaderMap) -> bool {
    // What comes twice is nobody's honest word, and equals nothing below.
    let text = |name: &str| {
        let mut values = headers.get_all(name).iter();
        let first = values.next()?.to_str().unwrap_or_default();
        Some(if values.next().is_some() { "" } else { first })
    };
    // Browsers since 2023 say it themselves, and no script can change what they say. `same-site`
    // is refused: a neighbouring subdomain is another site to us.
    if let Some(site) = text("sec-fetch-site") {
        return matches!(site, "same-origin" | "none");
    }
    // Older browsers send the origin with every unsafe request to another site. The scheme is not
    // compared: TLS ends in front of us.
    if let Some(origin) = text(header::ORIGIN.as_str()) {
        let authority = origin.split_once("://").map(|(_, authority)| authority);
        let host = text(header::HOST.as_str());
        return matches!((authority, host), (Some(a), Some(b)) if a.eq_ignore_ascii_case(b));
    }
    // Neither: not a browser, so there is no victim whose cookies it could use. A signed-in
    // caller still needs the token.
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn where_a_request_may_come_from() {
        let host = ("host", "example.com:8080");
        let cases: &[(&[(&'static str, &str)], bool)] = &[
            (&[("sec-fetch-site", "same-origin")], true),
            (&[("sec-fetch-site", "none")], true),
            (&[("sec-fetch-site", "same-site")], false),
            (&[("sec-fetch-site", "cross-site")], false),
            (&[("sec-fetch-site", "")], false),
            // What the browser says about the site outranks the origin.
            (
                &[("sec-fetch-site", "cross-site"), ("origin", "http://example.com:8080"), host],
                false,
            ),
            (&[("origin", "http://example.com:8080"), host], true),
            (&[("origin", "https://EXAMPLE.com:8080"), host], true),
            (&[("origin", "http://example.com"), host], false),
            (&[("origin", "http://example.com:8080.evil.test"), host], false),
            (&[("origin", "null"), host], false),
            (&[("origin", "http://example.com:8080")], false),
            (&[host], true),
            (&[], true),
        ];
        for (pairs, expected) in cases {
            assert_eq!(comes_from_here(&headers(pairs)), *expected, "{pairs:?}");
        }
    }

    #[test]
    fn a_token_is_good_for_its_session_and_key_only() {
        let tokens = Tokens::new(Rotating::fixed([1; 64]));
        let [mine, other] = ["0a", "0b"].map(|byte| SessionId::parse(&byte.repeat(32)).unwrap());
        let check = |token: &str, id| tokens.check(&headers(&[(HEADER, token)]), id).is_ok();
        let token = tokens.issue(mine);
        assert!(check(&token, mine));
        assert!(!check(&token, other));
        assert!(!check(&token[..62], mine));
        assert!(!check("not hexadecimal", mine));
        assert!(tokens.check(&HeaderMap::new(), mine).is_err());
        assert_ne!(Tokens::new(Rotating::fixed([2; 64])).issue(mine), token);
    }
}
