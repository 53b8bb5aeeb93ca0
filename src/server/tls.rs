//! TLS on the server's side.

use std::fmt;
use std::sync::Arc;

use thiserror::Error;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{Error as RustlsError, RootCertStore, ServerConfig};

use crate::pem::{PemError, certificates, private_key};

/// What a server shows of itself, and whether its clients must show something too.
#[derive(Clone)]
pub struct ServerTls(TlsAcceptor);

/// A server cannot speak TLS with what it was given.
#[derive(Debug, Error)]
pub enum ServerTlsError {
    /// A text is no PEM of what it should be.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// They do not fit each other, or are of a kind that is not known.
    #[error("the certificate and the key cannot be used: {0}")]
    Unusable(String),
}

impl From<RustlsError> for ServerTlsError {
    fn from(error: RustlsError) -> Self {
        Self::Unusable(error.to_string())
    }
}

impl ServerTls {
    /// Reads a certificate chain and its key; where there are `client_authorities`, a client must show a certificate of
    /// theirs.
    ///
    /// # Errors
    /// Where one is no PEM, holds none, or they do not fit each other.
    pub fn of_pem(
        chain: &[u8],
        key: &[u8],
        client_authorities: Option<&[u8]>,
    ) -> Result<Self, ServerTlsError> {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let builder = match client_authorities {
            None => builder.with_no_client_auth(),
            Some(pem) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates(pem)? {
                    roots.add(certificate)?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                let verifier = verifier.map_err(|error| ServerTlsError::Unusable(error.to_string()))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let config = builder.with_single_cert(certificates(chain)?, private_key(key)?)?;
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    pub(super) fn acceptor(&self) -> &TlsAcceptor {
        &self.0
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerTls(…)")
    }
}
