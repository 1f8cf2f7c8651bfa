//! A client of HTTP/2 that writes exactly the frames a test wants. Nothing of it is shared with the gateway: fields are written
//! as literals, and of answers only what a test asks about is understood.

use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pingora::tls::CertificateDer;
use pingora::tls::ClientConfig;
use pingora::tls::ClientTlsStream;
use pingora::tls::RootCertStore;
use pingora::tls::ServerName;
use pingora::tls::TlsConnector;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpSocket;
use tokio::net::TcpStream;
use tokio::time::timeout;

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;
pub(crate) const WITH_PRIORITY: u8 = 0x20;

/// What every connection begins with.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const PATIENCE: Duration = Duration::from_secs(10);

/// A frame, written.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Fields as literals that are never indexed.
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0x10);
        for text in [name, value] {
            push_length(&mut block, text.len());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

fn push_length(block: &mut Vec<u8>, length: usize) {
    if length < 127 {
        block.push(u8::try_from(length).unwrap());
        return;
    }
    block.push(127);
    let mut rest = length - 127;
    while rest >= 128 {
        block.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    block.push(u8::try_from(rest).unwrap());
}

/// A frame, read.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// How a stream, or the connection with it, ended.
#[derive(Debug)]
pub(crate) enum End {
    /// With an answer: whether its status is 200, and its body.
    Answered { ok: bool, body: Vec<u8> },
    /// The stream was reset, with this code.
    Reset(u32),
    /// The connection was ended, with this code if one was said.
    Dead(Option<u32>),
}

/// A connection.
pub(crate) struct Connection {
    stream: ClientTlsStream<TcpStream>,
    buffered: Vec<u8>,
}

impl Connection {
    /// Connects from an address of this machine and asks for HTTP/2 in the handshake; nothing else is written.
    pub(crate) async fn open(issuer: &str, source: Ipv4Addr, address: SocketAddr) -> Self {
        Self::open_as(None, issuer, source, address).await
    }

    /// The same, showing the certificate in `IDENTITY.pem`, whose key is in `IDENTITY.key`.
    pub(crate) async fn open_as(identity: Option<&str>, issuer: &str, source: Ipv4Addr, address: SocketAddr) -> Self {
        pingora::tls::install_default_crypto_provider();
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&std::fs::read(issuer).unwrap()).unwrap()).unwrap();
        let builder = ClientConfig::builder().with_root_certificates(roots);
        let mut config = match identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let own = CertificateDer::from_pem_file(format!("{identity}.pem")).unwrap();
                let key = PrivateKeyDer::from_pem_file(format!("{identity}.key")).unwrap();
                builder.with_client_auth_cert(vec![own], key).unwrap()
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((source, 0).into()).unwrap();
        let tcp = socket.connect(address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        Self { stream, buffered: Vec::new() }
    }

    /// Writes; what the other side no longer wants to read is lost.
    pub(crate) async fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
        let _ = self.stream.flush().await;
    }

    /// The next frame; `None` at the end of the connection.
    pub(crate) async fn frame(&mut self) -> Option<Frame> {
        timeout(PATIENCE, self.read_frame()).await.expect("a frame in time")
    }

    async fn read_frame(&mut self) -> Option<Frame> {
        loop {
            if self.buffered.len() >= 9 {
                let length = usize::from(self.buffered[0]) << 16
                    | usize::from(self.buffered[1]) << 8
                    | usize::from(self.buffered[2]);
                if self.buffered.len() >= 9 + length {
                    let bytes: Vec<u8> = self.buffered.drain(..9 + length).collect();
                    let stream = u32::from_be_bytes(bytes[5..9].try_into().unwrap());
                    return Some(Frame { kind: bytes[3], flags: bytes[4], stream, payload: bytes[9..].to_vec() });
                }
            }
            if self.stream.read_buf(&mut self.buffered).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    /// How a stream ends.
    pub(crate) async fn end_of(&mut self, stream: u32) -> End {
        let (mut head, mut body) = (None, Vec::new());
        while let Some(frame) = self.frame().await {
            let code =
                |at: usize| frame.payload.get(at..at + 4).map(|code| u32::from_be_bytes(code.try_into().unwrap()));
            match frame.kind {
                GOAWAY if code(4) != Some(0) => return End::Dead(code(4)),
                RST_STREAM if frame.stream == stream => return End::Reset(code(0).unwrap()),
                HEADERS if frame.stream == stream => head = head.or(Some(frame.payload)),
                DATA if frame.stream == stream => body.extend(frame.payload),
                _ => continue,
            }
            if frame.flags & END_STREAM != 0 {
                // The indexed field `:status: 200`.
                return End::Answered { ok: head.is_some_and(|head| head.first() == Some(&0x88)), body };
            }
        }
        End::Dead(None)
    }
}
