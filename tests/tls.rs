//! `wss://` by the binary, because whom the client trusts comes from the environment of its process.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use floodline::server::{HighVolumeWebSocketServer, ServerConfig, ServerHandle};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig as TlsConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// Far longer than a load of half a second takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// The own server behind a certificate for `localhost`.
struct TlsServer {
    port: u16,
    certificate: tempfile::NamedTempFile,
    plain: ServerHandle,
}

impl TlsServer {
    fn start() -> Self {
        let plain = HighVolumeWebSocketServer::spawn(ServerConfig::default()).unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(certificate.path(), made.cert.pem()).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let config = TlsConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let address = plain.address();
        // Lives as long as the test's process.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(terminate_tls(listener, acceptor, address));
        });
        Self { port, certificate, plain }
    }

    /// Offers 100 messages to `host` at this server's port, trusting the certificate in `trusted`.
    fn load(&self, scheme: &str, host: &str, trusted: &std::path::Path) -> Output {
        let target = format!("{scheme}://{host}:{}/ws", self.port);
        let settings =
            ["--rate", "200", "--duration", "500ms", "--connections", "4", "--connect-timeout", "5s"];
        floodline(trusted, &[&["load", "--json", "-", "--target", &target], &settings[..]].concat())
    }
}

/// Runs the command with these arguments, trusting the certificate in `trusted` alone.
fn floodline(trusted: &std::path::Path, args: &[&str]) -> Output {
    let child = Command::new(env!("CARGO_BIN_EXE_floodline"))
        .args(args)
        .env("SSL_CERT_FILE", trusted)
        .env_remove("SSL_CERT_DIR")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait(child)
}

fn wait(mut child: std::process::Child) -> Output {
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("this hangs");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().unwrap()
}

async fn terminate_tls(listener: std::net::TcpListener, acceptor: TlsAcceptor, address: SocketAddr) {
    let listener = TcpListener::from_std(listener).unwrap();
    loop {
        let (client, _) = listener.accept().await.unwrap();
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            // A client that does not trust the certificate ends here.
            let Ok(mut client) = acceptor.accept(client).await else { return };
            let mut server = TcpStream::connect(address).await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        });
    }
}

#[test]
fn a_trusted_wss_server_answers_all() {
    let server = TlsServer::start();
    let output = server.load("wss", "localhost", server.certificate.path());
    let errors = String::from_utf8_lossy(&output.stderr);
    let results: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{errors}"));
    let messages = &results["messages"];
    assert_eq!((&messages["due"], &messages["answered"]), (&100.into(), &100.into()), "{messages}");
    assert_eq!(results["connections"]["established"], 4);
}

#[test]
fn a_certificate_that_is_not_trusted_or_of_another_host_is_named_as_tls() {
    let server = TlsServer::start();
    let other = TlsServer::start();
    for (host, trusted) in [("localhost", &other), ("127.0.0.1", &server)] {
        let output = server.load("wss", host, trusted.certificate.path());
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(4), "{host}: {errors}");
        assert!(errors.contains("TLS") && errors.contains("certificate"), "{host}: {errors}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn plain_and_encrypted_do_not_speak_to_each_other() {
    let server = TlsServer::start();
    // ws:// to a TLS server: no WebSocket answer.
    let output = server.load("ws", "localhost", server.certificate.path());
    assert_eq!(output.status.code(), Some(4), "{}", String::from_utf8_lossy(&output.stderr));
    // wss:// to a plain server: no TLS answer.
    let plain = TlsServer { port: server.plain.address().port(), ..TlsServer::start() };
    let output = plain.load("wss", "localhost", server.certificate.path());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{errors}");
    assert!(errors.contains("TLS"), "{errors}");
}

#[test]
fn no_certificate_authorities_are_a_matter_of_the_machine() {
    let server = TlsServer::start();
    let empty = tempfile::NamedTempFile::new().unwrap();
    let output = server.load("wss", "localhost", empty.path());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains("no CA certificates"), "{errors}");
}

#[test]
fn faults_are_put_in_front_of_an_encrypted_server_too() {
    let server = TlsServer::start();
    let target = format!("wss://localhost:{}/ws", server.port);
    let args = ["test", "delivery", "--profile", "smoke", "--json", "-", "--target", &target];
    let output = floodline(server.certificate.path(), &args);
    let errors = String::from_utf8_lossy(&output.stderr);
    let test: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{errors}"));
    let case = &test["cases"][0];
    let verdict = |name: &str| {
        let criteria = case["criteria"].as_array().unwrap();
        criteria.iter().find(|criterion| criterion["name"] == name).unwrap()["verdict"].clone()
    };
    for name in ["unanswered", "lost", "corrupted", "timeout_resends"] {
        assert_eq!(verdict(name), "pass", "{name}: {errors}");
    }
    // It keeps no journal, and cannot be killed from here.
    for name in ["processed_twice", "faults_injected"] {
        assert_eq!(verdict(name), "skipped", "{name}: {errors}");
    }
    assert!(case["runs"][0]["run"]["connections"]["reconnects"].as_u64().unwrap() > 0, "{errors}");
}
