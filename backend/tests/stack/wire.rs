//! The site's address, and how to get there: plainly, or over TLS with the one certificate that
//! `STACK_CA` names.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
    time::Duration,
};

use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

use crate::support::stack;

/// Bytes in and out, whatever is below.
pub(crate) trait Wire: Read + Write {}
impl<T: Read + Write> Wire for T {}

/// The site without a slash at the end, such as `https://localhost:8443`.
pub(crate) fn site() -> String {
    stack("STACK_URL").trim_end_matches('/').to_owned()
}

/// Its name and port, as a `Host` header has them.
pub(crate) fn host() -> String {
    site().split_once("://").unwrap().1.to_owned()
}

fn certificate() -> Vec<u8> {
    std::fs::read(stack("STACK_CA")).unwrap()
}

/// A client that keeps cookies and follows nothing by itself.
pub(crate) fn agent() -> ureq::Agent {
    let mut config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_global(Some(Duration::from_secs(20)));
    if site().starts_with("https:") {
        let certificate = ureq::tls::Certificate::from_pem(&certificate()).unwrap();
        let roots = ureq::tls::RootCerts::new_with_certs(&[certificate]);
        config = config.tls_config(ureq::tls::TlsConfig::builder().root_certs(roots).build());
    }
    config.build().new_agent()
}

/// A connection for requests that no client would send. Reading from it ends after `limit`.
pub(crate) fn connect(limit: Duration) -> Box<dyn Wire> {
    let host = host();
    let stream = TcpStream::connect(&host).unwrap();
    stream.set_read_timeout(Some(limit)).unwrap();
    if site().starts_with("http:") {
        return Box::new(stream);
    }
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&certificate()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.unwrap().with_root_certificates(roots).with_no_client_auth();
    let name = host.split(':').next().unwrap().to_owned();
    let name = ServerName::try_from(name).unwrap();
    let session = ClientConnection::new(Arc::new(config), name).unwrap();
    Box::new(StreamOwned::new(session, stream))
}
