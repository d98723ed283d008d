//! HTTPS that trusts one certificate: the one of the stack that is asked, and nobody else's.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Trusts the certificates in a PEM file.
///
/// # Errors
/// The file holds no certificate that can be used.
pub(super) fn trusting(ca: &Path) -> Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(ca)
        .with_context(|| format!("open the certificate {}", ca.display()))?;
    for certificate in certificates {
        let certificate = certificate.with_context(|| format!("read {}", ca.display()))?;
        roots.add(certificate).with_context(|| format!("trust {}", ca.display()))?;
    }
    ensure!(!roots.is_empty(), "{} holds no certificate", ca.display());
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}
