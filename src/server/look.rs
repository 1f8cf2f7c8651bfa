//! Does the gateway answer itself?
//!
//! A real request on its own data listener, over TLS where that is spoken. Whatever is answered is a sign of life, a refusal
//! too: a listener that is full, or wants a certificate that the gateway does not have, lives. Nothing of it is on record.

use std::fmt;
use std::io;
use std::io::ErrorKind;
use std::io::Read;
use std::io::Write;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::ClientConnection;
use rustls::DigitallySignedStruct;
use rustls::SignatureScheme;
use rustls::StreamOwned;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::client::danger::ServerCertVerified;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::ServerName;
use rustls::pki_types::UnixTime;

use crate::runtime::Runtime;

/// Looks at one data listener.
pub(super) struct Looking {
    runtime: Arc<Runtime>,
    data: String,
    tls: Arc<ClientConfig>,
}

impl Looking {
    /// At the listener that `runtime` serves, whose address is `data`.
    pub(super) fn at(data: &str, runtime: Arc<Runtime>) -> Result<Self, rustls::Error> {
        Ok(Self { runtime, data: data.to_owned(), tls: Arc::new(own_tls()?) })
    }

    /// Whether a request is answered in time, however.
    pub(super) fn look(&self, time_max: Duration) -> io::Result<()> {
        let speaks_tls = self.runtime.front().tls.is_some();
        match self.data.strip_prefix("unix:") {
            Some(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(time_max))?;
                stream.set_write_timeout(Some(time_max))?;
                self.ask(stream, speaks_tls)
            }
            None => {
                let address = self.data.parse().map(reachable).map_err(io::Error::other)?;
                let stream = TcpStream::connect_timeout(&address, time_max)?;
                stream.set_read_timeout(Some(time_max))?;
                stream.set_write_timeout(Some(time_max))?;
                self.runtime.asks_itself_from(stream.local_addr().ok());
                let answered = self.ask(stream, speaks_tls);
                self.runtime.asks_itself_from(None);
                answered
            }
        }
    }

    fn ask(&self, stream: impl Read + Write, speaks_tls: bool) -> io::Result<()> {
        if !speaks_tls {
            return ask(stream);
        }
        let name = ServerName::from(IpAddr::from(Ipv4Addr::LOCALHOST));
        let session = ClientConnection::new(Arc::clone(&self.tls), name).map_err(io::Error::other)?;
        ask(StreamOwned::new(session, stream))
    }
}

fn ask(mut stream: impl Read + Write) -> io::Result<()> {
    let asked = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    match asked.and_then(|()| stream.read(&mut [0; 64])) {
        Err(error) if !is_turned_away(&error) => Err(error),
        _ => Ok(()),
    }
}

/// Whether an error is the other side's doing: it breaks the connection, or says in a handshake what it wants.
fn is_turned_away(error: &io::Error) -> bool {
    let is_told = || {
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
        matches!(cause, Some(rustls::Error::AlertReceived(_)))
    };
    let broken =
        [ErrorKind::ConnectionReset, ErrorKind::ConnectionAborted, ErrorKind::BrokenPipe, ErrorKind::UnexpectedEof];
    broken.contains(&error.kind()) || is_told()
}

/// Where a listener on every address is reached from here.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// TLS for a question whose answer is no secret, to a listener of this very process: its certificate is for names that
/// others know it by, and may have expired.
fn own_tls() -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let verifier = Arc::new(Anybody(provider));
    let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Takes any certificate, and holds its owner to having its key.
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        crypto::verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        crypto::verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

impl fmt::Debug for Anybody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Anybody")
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// What a listener at `address` is asked.
    fn answers(listener: &TcpListener, time_max: Duration) -> io::Result<()> {
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        stream.set_read_timeout(Some(time_max)).unwrap();
        ask(stream)
    }

    #[test]
    fn a_listener_that_answers_lives_and_one_that_only_accepts_does_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let silent = answers(&listener, Duration::from_millis(100));
        assert!(silent.is_err(), "the system accepts, nobody answers");
        let accepting = listener.try_clone().unwrap();
        let server = thread::spawn(move || {
            let _first = accepting.accept().unwrap();
            let (mut second, _) = accepting.accept().unwrap();
            let mut asked = [0; 12];
            second.read_exact(&mut asked).unwrap();
            second.write_all(b"HTTP/1.1 503 Service Unavailable\r\n\r\n").unwrap();
            asked
        });
        answers(&listener, Duration::from_secs(5)).unwrap();
        assert_eq!(&server.join().unwrap(), b"GET /healthz");
    }

    #[test]
    fn a_listener_on_every_address_is_asked_on_loopback() {
        let reached = |address: &str| reachable(address.parse().unwrap()).to_string();
        assert_eq!(reached("0.0.0.0:80"), "127.0.0.1:80");
        assert_eq!(reached("[::]:80"), "[::1]:80");
        assert_eq!(reached("192.0.2.1:80"), "192.0.2.1:80");
    }

    #[test]
    fn a_listener_that_is_full_and_breaks_connections_lives() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let accepting = listener.try_clone().unwrap();
        let server = thread::spawn(move || {
            let (stream, _) = accepting.accept().unwrap();
            // What was sent is there and was not read: the system resets the connection.
            while stream.peek(&mut [0; 1]).unwrap() == 0 {}
        });
        assert!(answers(&listener, Duration::from_secs(5)).is_ok());
        server.join().unwrap();
    }
}
