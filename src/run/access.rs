//! How a target is reached, as the configuration says: files are read, variables looked up.

use thiserror::Error;
use tokio_tungstenite::tungstenite::http::header::{
    AUTHORIZATION, CONNECTION, HOST, HeaderName, HeaderValue, PROXY_AUTHORIZATION, UPGRADE,
};

use crate::client::{Access, ClientIdentity, TlsAccess, Token, Tokens};
use crate::config::TargetConfig;
use crate::pem::PemError;
use crate::units::UnitError;

/// What the configuration says of the way to the target cannot be done.
#[derive(Debug, Error)]
pub enum AccessError {
    /// A variable is not there.
    #[error("--token-env {name}: no such variable")]
    Variable {
        /// Its name.
        name: String,
    },
    /// A file cannot be read.
    #[error("{setting} {path}: {cause}")]
    File {
        /// The flag and the key.
        setting: &'static str,
        /// The file.
        path: String,
        /// What the system says.
        cause: std::io::Error,
    },
    /// A file holds no usable certificate or key.
    #[error("{setting} {path}: {cause}")]
    Pem {
        /// The flag and the key.
        setting: &'static str,
        /// The file.
        path: String,
        /// What is wrong with it.
        cause: PemError,
    },
    /// A header cannot stand in a handshake. Its value is not shown.
    #[error("--header {name}: {cause}")]
    Header {
        /// Its name, or what stands in its place.
        name: String,
        /// Why.
        cause: &'static str,
    },
    /// A subprotocol or a part of a query cannot stand in a handshake.
    #[error("{setting} {value}: {cause}")]
    Handshake {
        /// The flag.
        setting: &'static str,
        /// What was given.
        value: String,
        /// Why.
        cause: &'static str,
    },
    /// The token has no such place.
    #[error("--token-in: {0}")]
    TokenPlace(#[from] UnitError),
}

/// The way to the target that `config` describes.
///
/// # Errors
/// At the first thing that is not there or of no use, by its flag or key. No secret is ever shown.
pub fn access(config: &TargetConfig) -> Result<Access, AccessError> {
    let headers: Result<_, _> = config.headers.iter().map(|text| header(text)).collect();
    let host = config.host.as_deref().map(|host| match HeaderValue::from_str(host) {
        Ok(value) if !host.is_empty() => Ok(value),
        _ => Err(handshake("--host", host, "it cannot stand in a header")),
    });
    for protocol in &config.subprotocols {
        if protocol.parse::<HeaderName>().is_err() {
            return Err(handshake("--subprotocol", protocol, "it is no token of HTTP"));
        }
    }
    if let Some(part) = config.query.iter().find(|part| !part.contains('=') || part.contains(['#', ' '])) {
        return Err(handshake("--query", part, "expected KEY=VALUE, percent-encoded"));
    }
    Ok(Access {
        permitted: config.i_may_load.clone(),
        tokens: tokens(config)?,
        token_in: config.token_in.parse()?,
        headers: headers?,
        subprotocols: config.subprotocols.clone(),
        query: config.query.clone(),
        host: host.transpose()?,
        tls: tls(config)?,
        socket_buffer_bytes: None,
    })
}

fn handshake(setting: &'static str, value: &str, cause: &'static str) -> AccessError {
    AccessError::Handshake { setting, value: value.to_owned(), cause }
}

fn tokens(config: &TargetConfig) -> Result<Tokens, AccessError> {
    if let Some(name) = &config.token_env {
        let token = std::env::var(name).map_err(|_| AccessError::Variable { name: name.clone() })?;
        return Ok(Tokens::of([Token::new(token)]));
    }
    let Some(path) = &config.token_file else { return Ok(Tokens::default()) };
    let setting = "--token-file (token_file)";
    Tokens::of_file(path).map_err(|cause| AccessError::File { setting, path: path.clone(), cause })
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), AccessError> {
    let Some((name, value)) = text.split_once(':') else {
        let name = "(not shown)".to_owned();
        return Err(AccessError::Header { name, cause: "expected NAME: VALUE" });
    };
    let refused = |cause| AccessError::Header { name: name.trim().to_owned(), cause };
    let known: HeaderName = name.trim().parse().map_err(|_| refused("this is no name of a header"))?;
    if [AUTHORIZATION, PROXY_AUTHORIZATION].contains(&known) {
        return Err(refused("a secret is given by --token-env or --token-file, where nobody sees it"));
    }
    if known == HOST {
        return Err(refused("it is set by --host"));
    }
    if [CONNECTION, UPGRADE].contains(&known) || known.as_str().starts_with("sec-websocket-") {
        return Err(refused("the handshake sets it itself"));
    }
    let value =
        HeaderValue::from_str(value.trim()).map_err(|_| refused("its value cannot stand in a header"))?;
    Ok((known, value))
}

fn tls(config: &TargetConfig) -> Result<TlsAccess, AccessError> {
    let authorities = config.ca.as_ref().map(|path| {
        let setting = "--ca (target.ca)";
        let pem = read(setting, path)?;
        TlsAccess::authorities_of_pem(&pem).map_err(|cause| AccessError::Pem {
            setting,
            path: path.clone(),
            cause,
        })
    });
    let identity = config.client_cert.as_ref().zip(config.client_key.as_ref()).map(|(cert, key)| {
        let chain = read("--client-cert (target.client_cert)", cert)?;
        let secret = read("--client-key (target.client_key)", key)?;
        ClientIdentity::of_pem(&chain, &secret).map_err(|cause| AccessError::Pem {
            setting: "--client-cert, --client-key",
            path: format!("{cert}, {key}"),
            cause,
        })
    });
    Ok(TlsAccess {
        authorities: authorities.transpose()?,
        identity: identity.transpose()?.map(Into::into),
        server_name: config.server_name.clone(),
        insecure: config.insecure,
    })
}

fn read(setting: &'static str, path: &str) -> Result<Vec<u8>, AccessError> {
    std::fs::read(path).map_err(|cause| AccessError::File { setting, path: path.to_owned(), cause })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(edit: impl FnOnce(&mut TargetConfig)) -> String {
        let mut config = TargetConfig::default();
        edit(&mut config);
        access(&config).unwrap_err().to_string()
    }

    #[test]
    fn what_cannot_be_is_named_and_no_secret_is_shown() {
        for (header, part) in [
            ("Authorization: Bearer s3cret", "--header Authorization: a secret"),
            ("Host: s3cret", "--host"),
            ("Sec-WebSocket-Key: s3cret", "itself"),
            ("X: s3cret\u{7}", "--header X"),
            ("a b: s3cret", "--header a b"),
            ("s3cret", "NAME: VALUE"),
        ] {
            let text = refusal(|config| config.headers = vec![header.to_owned()]);
            assert!(text.contains(part) && !text.contains("s3cret"), "{header}: {text}");
        }
        for (edit, parts) in [
            ((|c| c.subprotocols = vec!["a b".into()]) as fn(&mut TargetConfig), ["--subprotocol", "a b"]),
            (|c| c.query = vec!["room".into()], ["--query", "room"]),
            (|c| c.host = Some("a\nb".into()), ["--host", "header"]),
            (|c| c.token_in = "cookie".into(), ["--token-in", "cookie"]),
            (|c| c.token_env = Some("FLOODLINE_NO_SUCH".into()), ["--token-env", "FLOODLINE_NO_SUCH"]),
            (|c| c.token_file = Some("/no/such".into()), ["--token-file", "/no/such"]),
            (|c| c.ca = Some("/no/such.pem".into()), ["--ca", "/no/such.pem"]),
            (|c| c.ca = Some("Cargo.toml".into()), ["--ca", "no certificate"]),
        ] {
            let text = refusal(edit);
            assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        }
    }
}
