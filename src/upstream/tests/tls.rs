//! TLS is verified: the name, the issuer, and that there is a name at all.

use super::OK;
use super::Running;
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
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::upstream::Failure;
use crate::upstream::Upstreams;
use crate::upstream::dial::Dialer;

/// A key made for this test alone, and its certificate for `localhost`, valid from 2020 to 2120.
const KEY: &str = "MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgFb9V/JNiPbhdntXLBYOfJ08K6xONtl1e6YP6V542N5ShRANCAASQZjDU+an8\
     n+NE8KGHT0eMhWYUXZluiIDBU7XCbZgj+EDU/QVrzcl68qviB3wyxj6DPhbiNbFKTQduQ2aK6mAa";
const CERTIFICATE: &str = "MIIBPjCB5aADAgECAgEBMAoGCCqGSM49BAMCMBQxEjAQBgNVBAMMCWxvY2FsaG9zdDAgFw0yMDAxMDEwMDAwMDBaGA8yMTIwMDEwMTAwMDAw\
     MFowFDESMBAGA1UEAwwJbG9jYWxob3N0MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEkGYw1Pmp/J/jRPChh09HjIVmFF2ZboiAwVO1wm2Y\
     I/hA1P0Fa83JevKr4gd8MsY+gz4W4jWxSk0HbkNmiupgGqMmMCQwFAYDVR0RBA0wC4IJbG9jYWxob3N0MAwGA1UdEwEB/wQCMAAwCgYIKoZI\
     zj0EAwIDSAAwRQIgYM3MUiFNTCIKMzxkLwwFX7bj0HKwWnYdjTzbjPn3aWwCIQDQyE8CmBXhxRSuWp3tgBiWdZ6kqB+KALiygmCZrXXHWA==";

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
