//! TLS is verified: the name, the issuer, and that there is a name at all.

use super::OK;
use super::Running;
use super::config;
use super::plans;
use super::read_request;
use super::server;

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pingora::tls::CertificateDer;
use pingora::tls::PrivateKeyDer;
use pingora::tls::RootCertStore;
use pingora::tls::ServerConfig;
use pingora::tls::TlsAcceptor;
use pingora::tls::WebPkiClientVerifier;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::config::model::Server;
use crate::config::model::UpstreamTls;
use crate::config::problem::Problems;
use crate::config::secret::Secret;
use crate::upstream::Failure;
use crate::upstream::Plans;
use crate::upstream::Upstreams;
use crate::upstream::dial::Dialer;

/// A key made for tests alone, and its certificate for `localhost`, valid from 2020 to 2120: DER in base64.
const KEY: &str = include_str!("../../../tests/certificates/localhost.key").trim_ascii();
const CERTIFICATE: &str = include_str!("../../../tests/certificates/localhost.crt").trim_ascii();

/// Another one, for `gateway`.
const OTHER_KEY: &str = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgTkULm3Bj4kkdkfO93fXQVCIKEs+RzlDQa+U59UktZX2hRANCAATT8dbbspyY\
     yGPxxCCSowVDCNODJb4gU8IyStlXffvR1r/LftrogasMAXBGLtu/NCUIViXKlmtS+UOUeFjmsDQ7";
const OTHER_CERTIFICATE: &str = "MIIBVzCB/qADAgECAgECMAoGCCqGSM49BAMCMBIxEDAOBgNVBAMMB2dhdGV3YXkwIBcNMjAwMTAxMDAwMDAwWhgPMjEyMDAxMDEwMDAwMDBa\
     MBIxEDAOBgNVBAMMB2dhdGV3YXkwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAATT8dbbspyYyGPxxCCSowVDCNODJb4gU8IyStlXffvR1r/L\
     ftrogasMAXBGLtu/NCUIViXKlmtS+UOUeFjmsDQ7o0MwQTASBgNVHREECzAJggdnYXRld2F5MAwGA1UdEwEB/wQCMAAwHQYDVR0OBBYEFE0J\
     ST1I+FaItMKBEUeqCmeis6+sMAoGCCqGSM49BAMCA0gAMEUCIQDOGnVgJ4IRNhmxXXA66D/uh3YdXvwZNbXxIhYR21fOugIgYaDGOof9ffx6\
     2mjbH2E/U8mQHiOJ8jtawA4E/+jKzFw=";

fn certificate() -> CertificateDer<'static> {
    CertificateDer::from(STANDARD.decode(CERTIFICATE).unwrap())
}

/// A TLS server that shows the certificate and answers the first request with [`OK`].
async fn tls_server() -> SocketAddr {
    pingora::tls::install_default_crypto_provider();
    let key = PrivateKeyDer::try_from(STANDARD.decode(KEY).unwrap()).unwrap();
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate()], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            if let Ok(mut stream) = acceptor.accept(tcp).await {
                read_request(&mut stream).await;
                stream.write_all(OK.as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
            }
        }
    });
    address
}

/// How a call to `url` ends, with `roots` trusted.
async fn call(url: &str, roots: RootCertStore) -> Result<String, Failure> {
    let upstreams = Upstreams::dialling_with(Dialer::trusting(roots)).unwrap();
    let fleet = upstreams.adopt(&plans(server(url)));
    Running { upstreams, fleet }.call().await.map_err(|error| error.failure())
}

#[tokio::test]
async fn a_server_is_believed_by_its_name_and_issuer_alone() {
    let address = tls_server().await;
    let mut roots = RootCertStore::empty();
    roots.add(certificate()).unwrap();
    let named = format!("https://localhost:{}/mcp", address.port());
    assert_eq!(call(&named, roots.clone()).await, Ok("{\"a\":1}".to_owned()));
    assert_eq!(call(&named, RootCertStore::empty()).await, Err(Failure::Tls), "an unknown issuer");
    assert_eq!(call(&format!("https://{address}/mcp"), roots).await, Err(Failure::Tls), "another name");
}

#[tokio::test]
async fn a_server_that_does_not_speak_tls_is_a_failure_before_anything_was_sent() {
    let scripted = super::Scripted::new([]);
    let running = Running::new(server(&format!("https://{}/mcp", scripted.address)));
    let error = running.call().await.unwrap_err();
    assert_eq!((error.failure(), error.sent()), (Failure::Tls, false));
    assert!(scripted.requests().is_empty());
}

fn pem(label: &str, base64: &str) -> String {
    format!("-----BEGIN {label}-----\n{base64}\n-----END {label}-----\n")
}

/// TLS as configured, its files read: an authority, and a certificate with its key.
fn tls(ca: Option<&str>, client: Option<(&str, &str)>) -> UpstreamTls {
    UpstreamTls {
        ca_file: ca.map(|_| "ca.pem".into()),
        client_cert_file: client.map(|_| "client.pem".into()),
        client_key_file: client.map(|_| "client.key".into()),
        server_name: None,
        ca: ca.map(|base64| pem("CERTIFICATE", base64)),
        client_cert: client.map(|(certificate, _)| pem("CERTIFICATE", certificate)),
        client_key: client.map(|(_, key)| Secret::new(pem("PRIVATE KEY", key))),
    }
}

/// A TLS server that wants a certificate of the authorities `clients`, and keeps connections; it answers every request
/// with the length of the certificate that the connection was made with.
async fn mutual_server(clients: &[&str]) -> SocketAddr {
    pingora::tls::install_default_crypto_provider();
    let mut roots = RootCertStore::empty();
    for client in clients {
        roots.add(CertificateDer::from(STANDARD.decode(client).unwrap())).unwrap();
    }
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
    let key = PrivateKeyDer::try_from(STANDARD.decode(KEY).unwrap()).unwrap();
    let config = ServerConfig::builder().with_client_cert_verifier(verifier);
    let config = config.with_single_cert(vec![certificate()], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(tcp).await else { return };
                let shown = stream.get_ref().1.peer_certificates().unwrap()[0].len().to_string();
                while read_request(&mut stream).await.is_some() {
                    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{shown}", shown.len());
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            });
        }
    });
    address
}

fn server_with(url: &str, tls: UpstreamTls) -> Server {
    Server { tls, timeout_ms: 5_000, connect_timeout_ms: 5_000, ..server(url) }
}

#[tokio::test]
async fn a_servers_own_authority_takes_the_place_of_the_systems() {
    let url = format!("https://localhost:{}/mcp", tls_server().await.port());
    let own = Running::new(server_with(&url, tls(Some(CERTIFICATE), None)));
    assert_eq!(own.call().await.unwrap(), "{\"a\":1}");
    let other = Running::new(server_with(&url, tls(Some(OTHER_CERTIFICATE), None)));
    assert_eq!(other.call().await.unwrap_err().failure(), Failure::Tls);
}

#[tokio::test]
async fn a_servers_name_may_be_another_than_its_host() {
    let address = tls_server().await;
    let named = |server_name: &str| {
        let tls = UpstreamTls { server_name: Some(server_name.into()), ..tls(Some(CERTIFICATE), None) };
        Running::new(server_with(&format!("https://{address}/mcp"), tls))
    };
    assert_eq!(named("localhost").call().await.unwrap(), "{\"a\":1}");
    assert_eq!(named("gateway").call().await.unwrap_err().failure(), Failure::Tls);
}

#[tokio::test]
async fn a_server_that_wants_a_certificate_gets_the_configured_one_and_connections_are_each_ones_own() {
    let url = format!("https://localhost:{}/mcp", mutual_server(&[CERTIFICATE, OTHER_CERTIFICATE]).await.port());
    let upstreams = Upstreams::new().unwrap();
    let mut both = Problems::new();
    let mut config = config(server_with(&url, tls(Some(CERTIFICATE), Some((CERTIFICATE, KEY)))));
    let other = server_with(&url, tls(Some(CERTIFICATE), Some((OTHER_CERTIFICATE, OTHER_KEY))));
    config.servers.insert("y".into(), other);
    let fleet = upstreams.adopt(&Plans::compile(&config, &mut both));
    assert!(!both.has_errors());
    let length = |certificate: &str| STANDARD.decode(certificate).unwrap().len().to_string();
    for round in 0..3 {
        for (name, certificate) in [("x", CERTIFICATE), ("y", OTHER_CERTIFICATE)] {
            let upstream = fleet.get(name).unwrap();
            let ticket = upstream.pick(crate::upstream::Choice::Next).unwrap();
            let dispatch = super::dispatch(http::HeaderMap::new());
            let answer = upstream.send(&ticket, &super::permitted(super::CALL), dispatch).await.unwrap();
            assert_eq!(answer.reused, round > 0, "{name}");
            assert_eq!(super::read(answer).await.unwrap(), length(certificate), "{name}");
        }
    }
}

#[tokio::test]
async fn a_certificate_that_changed_is_presented_after_a_reload_on_a_new_connection() {
    let url = format!("https://localhost:{}/mcp", mutual_server(&[CERTIFICATE, OTHER_CERTIFICATE]).await.port());
    let mut running = Running::new(server_with(&url, tls(Some(CERTIFICATE), Some((CERTIFICATE, KEY)))));
    let first = running.call().await.unwrap();
    assert!(running.send().await.unwrap().reused);
    let changed = server_with(&url, tls(Some(CERTIFICATE), Some((OTHER_CERTIFICATE, OTHER_KEY))));
    running.fleet = running.upstreams.adopt(&plans(changed));
    let answer = running.send().await.unwrap();
    assert!(!answer.reused);
    assert_ne!(super::read(answer).await.unwrap(), first);
    let ends: Vec<_> = running.upstream().plan().certificate_expiries().collect();
    assert_eq!(ends, [("ca", 4_733_510_400), ("client", 4_733_510_400)], "2120-01-01");
}

#[tokio::test]
async fn a_server_that_wants_a_certificate_and_gets_none_or_anothers_is_not_called() {
    let url = format!("https://localhost:{}/mcp", mutual_server(&[CERTIFICATE]).await.port());
    for client in [None, Some((OTHER_CERTIFICATE, OTHER_KEY))] {
        let running = Running::new(server_with(&url, tls(Some(CERTIFICATE), client)));
        assert!(running.call().await.is_err());
    }
}

#[test]
fn mistakes_in_tls_are_told_at_the_key_that_names_the_file() {
    let mistakes = |tls: UpstreamTls, url: &str| {
        let mut problems = Problems::new();
        Plans::compile(&config(server_with(url, tls)), &mut problems);
        let texts = problems.iter().map(|problem| format!("{}: {}", problem.at, problem.message));
        texts.map(|text| text.replace("servers.x.tls", "tls")).collect::<Vec<_>>()
    };
    let https = "https://localhost/mcp";
    let whole = tls(Some(CERTIFICATE), Some((CERTIFICATE, KEY)));
    assert_eq!(mistakes(whole.clone(), https), [""; 0]);
    assert_eq!(mistakes(whole.clone(), "http://localhost/mcp"), ["tls: `tls` is set, and no endpoint speaks TLS"]);
    let no_key = UpstreamTls { client_key_file: None, client_key: None, ..whole.clone() };
    assert_eq!(mistakes(no_key, https), ["tls: `client_cert_file` needs `client_key_file`"]);
    let no_certificate = UpstreamTls { client_cert_file: None, client_cert: None, ..whole.clone() };
    assert_eq!(mistakes(no_certificate, https), ["tls: `client_key_file` needs `client_cert_file`"]);
    let empty = UpstreamTls { ca: Some("nothing".into()), ..whole.clone() };
    assert_eq!(mistakes(empty, https), ["tls.ca_file: there is no certificate in `ca.pem`"]);
    let none = UpstreamTls { ca: Some(pem("CERTIFICATE", "AAAA")), ..whole.clone() };
    assert_eq!(mistakes(none, https), ["tls.ca_file: certificate 1 in `ca.pem` cannot be read"]);
    let no_text = UpstreamTls { client_key: Some(Secret::new("nothing")), ..whole.clone() };
    assert_eq!(mistakes(no_text, https), ["tls.client_key_file: there is no private key in `client.key`"]);
    let name = UpstreamTls { server_name: Some("not a name".into()), ..whole.clone() };
    assert_eq!(mistakes(name, https), ["tls.server_name: this is neither a name nor an address"]);
    let found = mistakes(tls(None, Some((CERTIFICATE, OTHER_KEY))), https);
    assert!(found.len() == 1 && found[0].starts_with("tls.client_key_file: it cannot be used"), "{found:?}");
    let shown = format!("{:?}", plans(server_with(https, whole)));
    assert!(!shown.contains(&KEY[..20]) && !shown.contains("PRIVATE"), "{shown}");
}
