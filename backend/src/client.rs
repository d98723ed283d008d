//! Who is asking, as far as the network tells.

use std::{
    convert::Infallible,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use axum::{
    extract::{ConnectInfo, FromRequestParts},
    http::{HeaderMap, request::Parts},
};

/// Set by nginx to the one address that it saw; what a client sent is replaced there.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// The address of the caller, one hop behind the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

impl<S: Send + Sync> FromRequestParts<S> for ClientAddress {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
        let peer = peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        Ok(Self(forwarded(&parts.headers).unwrap_or(peer)))
    }
}

/// The last entry of the last header: the one that our own proxy wrote. Everything before it is
/// somebody's claim.
fn forwarded(headers: &HeaderMap) -> Option<IpAddr> {
    let value = headers.get_all(FORWARDED_FOR).iter().next_back()?.to_str().ok()?;
    value.rsplit(',').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_hop_is_believed_and_no_more() {
        let cases: &[(&[&str], Option<&str>)] = &[
            (&["192.0.2.1"], Some("192.0.2.1")),
            (&["203.0.113.9, 192.0.2.1"], Some("192.0.2.1")),
            (&["203.0.113.9", "192.0.2.1"], Some("192.0.2.1")),
            (&["2001:db8::1"], Some("2001:db8::1")),
            (&["192.0.2.1, unknown"], None),
            (&[""], None),
            (&[], None),
        ];
        for (values, expected) in cases {
            let headers = values.iter().map(|value| {
                (axum::http::HeaderName::from_static(FORWARDED_FOR), value.parse().unwrap())
            });
            let expected = expected.map(|text| text.parse().unwrap());
            assert_eq!(forwarded(&HeaderMap::from_iter(headers)), expected, "{values:?}");
        }
    }
}
