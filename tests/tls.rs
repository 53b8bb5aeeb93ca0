//! `wss://` by the binary, because whom the client trusts comes from the environment of its process.

#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

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
    wait(command(trusted, args).spawn().unwrap())
}

fn command(trusted: &std::path::Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_floodline"));
    command.args(args).env("SSL_CERT_FILE", trusted).env_remove("SSL_CERT_DIR");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn wait(child: std::process::Child) -> Output {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    let (sender, ended) = std::sync::mpsc::channel();
    // Its output is read all the time: a pipe holds less than some results.
    std::thread::spawn(move || sender.send(child.wait_with_output().unwrap()));
    ended.recv_timeout(PATIENCE).unwrap_or_else(|_| {
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
        panic!("this hangs");
    })
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
    let mut command = command(server.certificate.path(), &args);
    // 2 s at 50 msg/s, instead of 10.
    command.envs([("FLOODLINE_DELIVERY_MESSAGES", "100"), ("FLOODLINE_DELIVERY_KILL_PERIOD", "1s")]);
    let output = wait(command.spawn().unwrap());
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

/// `floodline serve` that speaks TLS itself; ends with the test.
struct Serve {
    child: std::process::Child,
    dir: tempfile::TempDir,
    port: u16,
}

impl Serve {
    fn start(more: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_floodline"));
        command.args(["serve", "--until-stdin-closes", "--tls-self-signed"]).arg(dir.path()).args(more);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let listening: Value = serde_json::from_str(&line).unwrap();
        let url = listening["listening"].as_str().unwrap();
        assert!(url.starts_with("wss://"), "{url}");
        let port = url.rsplit(':').next().unwrap().trim_end_matches("/ws").parse().unwrap();
        Self { child, dir, port }
    }

    fn certificate(&self) -> String {
        self.dir.path().join("cert.pem").to_str().unwrap().to_owned()
    }

    /// Offers 100 messages on 4 connections to `host`; the system trusts nobody.
    fn load(&self, host: &str, more: &[&str]) -> (Output, String) {
        let target = format!("wss://{host}:{}/ws", self.port);
        let args = ["load", "--json", "-", "--target", &target, "--rate", "200", "--duration", "500ms"];
        let args = [&args[..], &["--connections", "4", "--connect-timeout", "5s"], more].concat();
        let nobody = tempfile::NamedTempFile::new().unwrap();
        let output = floodline(nobody.path(), &args);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        (output, errors)
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn results(output: &Output, errors: &str) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{errors}"))
}

#[test]
fn the_own_server_speaks_tls_and_its_handshake_is_measured_apart() {
    let server = Serve::start(&[]);
    for host in ["localhost", "127.0.0.1"] {
        let (output, errors) = server.load(host, &["--ca", &server.certificate()]);
        assert_eq!(output.status.code(), Some(0), "{errors}");
        let run = results(&output, &errors);
        assert_eq!(run["messages"]["answered"], 100);
        let tls = &run["workload"]["tls"];
        assert_eq!((&tls["verified"], &tls["client_certificate"]), (&true.into(), &false.into()), "{tls}");
        let connections = &run["connections"];
        for part in ["setup_us", "connect_us", "tls_us", "upgrade_us"] {
            assert_eq!(connections[part]["count"], 4, "{part}: {connections}");
        }
        let mean = |part: &str| connections[part]["mean"].as_f64().unwrap();
        let parts = ["connect_us", "tls_us", "upgrade_us"].map(mean);
        // Each is a part of the whole and no part of another; what the whole has beyond them, the dialect's opening, is
        // as long as the machine makes it. Either mean is that of a histogram of three digits, right to a thousandth.
        assert!(parts.iter().all(|&part| part > 0.0), "{connections}");
        assert!(parts.iter().sum::<f64>() <= 1.002 * mean("setup_us"), "{connections}");
        assert!(errors.contains(" TLS + "), "{errors}");
    }
}

#[test]
fn a_certificate_that_is_not_checked_is_said_loudly() {
    let server = Serve::start(&[]);
    let (output, errors) = server.load("localhost", &["--insecure"]);
    assert_eq!(output.status.code(), Some(0), "{errors}");
    assert_eq!(results(&output, &errors)["workload"]["tls"]["verified"], false);
    assert!(errors.contains("warning: --insecure") && errors.contains("INSECURE"), "{errors}");
    // Nothing is said where it is checked.
    let (output, errors) = server.load("localhost", &["--ca", &server.certificate()]);
    assert!(output.status.success() && !errors.to_lowercase().contains("insecure"), "{errors}");
}

#[test]
fn the_name_that_is_asked_for_may_be_another_than_the_hosts() {
    let made = rcgen::generate_simple_self_signed(["inner.example".to_owned()]).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_floodline"));
    command.args(["serve", "--until-stdin-closes", "--tls-cert"]).arg(&cert).arg("--tls-key").arg(&key);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let listening: Value = serde_json::from_str(&line).unwrap();
    let port = listening["listening"].as_str().unwrap().rsplit(':').next().unwrap().replace("/ws", "");
    let server = Serve { child, dir, port: port.parse().unwrap() };
    let (output, errors) = server.load("localhost", &["--ca", &server.certificate()]);
    assert_eq!(output.status.code(), Some(4), "{errors}");
    let named = ["--ca", &server.certificate(), "--server-name", "inner.example"];
    let (output, errors) = server.load("localhost", &named);
    assert_eq!(output.status.code(), Some(0), "{errors}");
    assert_eq!(results(&output, &errors)["workload"]["tls"]["server_name"], "inner.example");
    let (output, errors) = server.load("localhost", &["--ca", &server.certificate(), "--server-name", "a b"]);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains("--server-name") && errors.contains("a b"), "{errors}");
}

#[test]
fn a_client_shows_its_certificate_where_one_is_wanted() {
    let client = rcgen::generate_simple_self_signed(["client.example".to_owned()]).unwrap();
    let files = tempfile::tempdir().unwrap();
    let (cert, key) = (files.path().join("client.pem"), files.path().join("client.key"));
    std::fs::write(&cert, client.cert.pem()).unwrap();
    std::fs::write(&key, client.signing_key.serialize_pem()).unwrap();
    let (cert, key) = (cert.to_str().unwrap(), key.to_str().unwrap());
    let server = Serve::start(&["--tls-client-ca", cert]);
    let (output, errors) = server.load("localhost", &["--ca", &server.certificate()]);
    assert_eq!(output.status.code(), Some(4), "{errors}");
    let shown = ["--ca", &server.certificate(), "--client-cert", cert, "--client-key", key];
    let (output, errors) = server.load("localhost", &shown);
    assert_eq!(output.status.code(), Some(0), "{errors}");
    assert_eq!(results(&output, &errors)["workload"]["tls"]["client_certificate"], true);
    // A certificate is no key.
    let swapped = ["--ca", &server.certificate(), "--client-cert", cert, "--client-key", cert];
    let (output, errors) = server.load("localhost", &swapped);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains("--client-key"), "{errors}");
}
