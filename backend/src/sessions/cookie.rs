//! The one cookie of this site.

use axum::http::{HeaderMap, HeaderValue, header};

use super::{SessionId, store::ABSOLUTE};

/// How the cookie is named and marked in this installation.
#[derive(Clone, Copy, Debug)]
pub struct Cookies {
    secure: bool,
}

impl Cookies {
    /// `secure` where browsers come over TLS.
    pub fn new(secure: bool) -> Self {
        Self { secure }
    }

    /// With `__Host-` a browser takes the cookie only over TLS, for this host alone and for `/`,
    /// so that no neighbouring subdomain can plant one. Without TLS it would refuse that name.
    fn name(self) -> &'static str {
        if self.secure { "__Host-session" } else { "session" }
    }

    /// The id that a request brings. Of several cookies with the name, the first that is one.
    pub fn read(self, headers: &HeaderMap) -> Option<SessionId> {
        headers
            .get_all(header::COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .filter(|(name, _)| *name == self.name())
            .find_map(|(_, value)| SessionId::parse(value))
    }

    /// Gives the id to the browser. The server's own time-outs decide; `Max-Age` only lets a
    /// browser forget what can no longer be valid.
    pub fn set(self, id: SessionId) -> HeaderValue {
        self.header(&id.to_cookie_value(), ABSOLUTE.as_secs())
    }

    /// Takes it away. The attributes repeat: a browser ignores the removal of a `__Host-` cookie
    /// that is not itself marked `Secure`.
    pub fn clear(self) -> HeaderValue {
        self.header("", 0)
    }

    fn header(self, value: &str, max_age: u64) -> HeaderValue {
        let secure = if self.secure { "; Secure" } else { "" };
        let name = self.name();
        let text =
            format!("{name}={value}; Path=/; Max-Age={max_age}; HttpOnly; SameSite=Lax{secure}");
        // Names, digits and hexadecimal only: always a valid header.
        HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> SessionId {
        SessionId::parse(&"a1".repeat(32)).unwrap()
    }

    #[test]
    fn production_cookies_are_bound_to_the_host_and_to_tls() {
        let value = Cookies::new(true).set(id());
        let expected = format!(
            "__Host-session={}; Path=/; Max-Age=2592000; HttpOnly; SameSite=Lax; Secure",
            "a1".repeat(32)
        );
        assert_eq!(value, expected);
    }

    #[test]
    fn removal_carries_the_attributes_too() {
        let expected = "__Host-session=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax; Secure";
        assert_eq!(Cookies::new(true).clear(), expected);
    }

    #[test]
    fn the_id_is_found_among_other_cookies() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::COOKIE, text.parse().unwrap());
            Cookies::new(false).read(&headers)
        };
        let value = "a1".repeat(32);
        assert_eq!(read(&format!("a=b; session={value}; c=d")), Some(id()));
        assert_eq!(read(&format!("session=short; session={value}")), Some(id()));
        assert_eq!(read(&format!("__Host-session={value}")), None);
        assert_eq!(read("session"), None);
    }
}
