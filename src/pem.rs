//! Certificates and keys as they stand in PEM files (RFC 7468).

use thiserror::Error;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A text holds no usable certificate or key.
#[derive(Debug, Error)]
pub enum PemError {
    /// It is no PEM, or the wrong one.
    #[error("{0}")]
    Malformed(String),
    /// It holds no certificate.
    #[error("there is no certificate in it")]
    NoCertificate,
}

/// The certificates of a PEM text, in order.
///
/// # Errors
/// Where it is no PEM, or holds none.
pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = read.map_err(|error| PemError::Malformed(error.to_string()))?;
    if certificates.is_empty() { Err(PemError::NoCertificate) } else { Ok(certificates) }
}

/// The first private key of a PEM text.
///
/// # Errors
/// Where there is none.
pub(crate) fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, PemError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| PemError::Malformed(error.to_string()))
}
