//! TLS on the client's side: whom it trusts, what it shows of itself.

use std::fmt;
use std::sync::Arc;

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::{Resumption, WebPkiServerVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    ClientConfig, DigitallySignedStruct, Error as RustlsError, RootCertStore, SignatureScheme,
};

use super::connect::ConnectError;
use crate::pem::{PemError, certificates, private_key};

/// What holds for `wss://`. By [`Default`] the system's certificate authorities are trusted, and nothing is shown.
#[derive(Debug, Clone, Default)]
pub struct TlsAccess {
    /// The certificate authorities to trust in place of the system's.
    pub authorities: Option<Arc<[CertificateDer<'static>]>>,
    /// What the client shows of itself, where the server asks.
    pub identity: Option<Arc<ClientIdentity>>,
    /// The name that is asked for (SNI) and must stand in the certificate, where it is not the URL's host.
    pub server_name: Option<String>,
    /// Whether any certificate is taken, whoever shows it.
    pub insecure: bool,
}

impl TlsAccess {
    /// The certificates of a PEM text, to be trusted.
    ///
    /// # Errors
    /// Where it is no PEM, or holds no certificate.
    pub fn authorities_of_pem(pem: &[u8]) -> Result<Arc<[CertificateDer<'static>]>, PemError> {
        certificates(pem).map(Into::into)
    }
}

/// A client's certificate chain and its private key.
pub struct ClientIdentity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl ClientIdentity {
    /// Reads both from PEM texts.
    ///
    /// # Errors
    /// Where one is no PEM or holds none.
    pub fn of_pem(chain: &[u8], key: &[u8]) -> Result<Self, PemError> {
        Ok(Self { chain: certificates(chain)?, key: private_key(key)? })
    }
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientIdentity(…)")
    }
}

/// What opens TLS sessions as `access` says. No session is resumed: a load stands for clients that know nothing of each
/// other, so each pays for a whole handshake.
pub(super) fn connector(access: &TlsAccess) -> Result<TlsConnector, ConnectError> {
    // The provider is named, not left to a process-wide default that nobody has installed.
    let provider = Arc::new(ring::default_provider());
    let unusable = |error: RustlsError| ConnectError::UnusableTls { cause: error.to_string() };
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?;
    let builder = if access.insecure {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
    } else {
        let roots = roots(access)?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        let verifier = verifier.map_err(|error| ConnectError::UnusableTls { cause: error.to_string() })?;
        builder.with_webpki_verifier(verifier)
    };
    let mut config = match &access.identity {
        Some(identity) => {
            let (chain, key) = (identity.chain.clone(), identity.key.clone_key());
            builder.with_client_auth_cert(chain, key).map_err(unusable)?
        }
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    Ok(TlsConnector::from(Arc::new(config)))
}

fn roots(access: &TlsAccess) -> Result<RootCertStore, ConnectError> {
    let mut roots = RootCertStore::empty();
    let no_roots = |cause: String| ConnectError::NoRoots { cause };
    if let Some(given) = &access.authorities {
        for certificate in given.iter() {
            roots
                .add(certificate.clone())
                .map_err(|error| ConnectError::UnusableTls { cause: error.to_string() })?;
        }
        return Ok(roots);
    }
    let loaded = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(loaded.certs);
    if roots.is_empty() {
        let causes: Vec<String> = loaded.errors.iter().map(ToString::to_string).collect();
        return Err(no_roots(causes.join("; ")));
    }
    Ok(roots)
}

/// Takes any certificate, but holds its owner to it: signatures are checked, so that what comes is TLS all the same.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, RustlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
