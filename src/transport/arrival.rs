//! What happens on a connection before its first request?
//!
//! A balancer says for whom it speaks, where the configuration says that it does; then comes the handshake, where there is
//! TLS. Both under one deadline. A connection that fails here is on record, and answered where the client can read an
//! answer; one that ends without a byte, as a balancer's probe does, is nothing to speak of.

use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;
use pingora::protocols::Stream;
use pingora::protocols::l4;
use tokio::io::AsyncReadExt;
use tokio::time::Instant;
use tokio::time::timeout_at;

use crate::config::model::Config;
use crate::config::problem::At;
use crate::config::problem::Problems;
use crate::network::Networks;
use crate::transport::admission::Place;
use crate::transport::connection::Connection;
use crate::transport::forwarded::Proxies;
use crate::transport::gate_io::GateIo;
use crate::transport::gate_io::Gatekeeper;
use crate::transport::head::Refusal;
use crate::transport::proxy_protocol;
use crate::transport::proxy_protocol::Header;
use crate::transport::proxy_protocol::Reading;
use crate::transport::tls::Tls;
use crate::transport::tls::TlsIo;

/// Bytes read at once while a header is awaited.
const READ_BYTES: usize = 512;

/// A connection from a balancer that does not say for whom it speaks, or says it wrongly.
const PROXY_HEADER: Refusal = Refusal {
    status: 400,
    reason: "proxy_header",
    text: "connections from this address must begin with a header of the PROXY protocol",
};
/// Plain HTTP where TLS is spoken.
const PLAIN_HTTP: Refusal =
    Refusal { status: 400, reason: "tls_plain_http", text: "TLS is spoken here: the URL must begin with https://" };
const HANDSHAKE_TIMEOUT: &str = "tls_timeout";
const HANDSHAKE: &str = "tls_handshake";
const CLIENT_CERTIFICATE: &str = "tls_client_certificate";

/// What a configuration says about those in front of the gateway, and about the way to it.
#[derive(Debug, Default)]
pub struct Front {
    /// Balancers that announce whom they speak for.
    announcing: Networks,
    /// How the listener speaks TLS, if it does.
    pub tls: Option<Tls>,
    /// Proxies that are believed whom they speak for.
    pub proxies: Proxies,
}

impl Front {
    /// Compiles it, reporting every mistake. `previous` is what is in force.
    pub fn compile(config: &Config, previous: Option<&Self>, problems: &mut Problems) -> Self {
        let at = At::root().key("listen").key("proxy_protocol_from");
        Self {
            announcing: Networks::compile(&config.listen.proxy_protocol_from, &at, problems),
            tls: Tls::compile(config, previous.and_then(|previous| previous.tls.as_ref()), problems),
            proxies: Proxies::compile(config, problems),
        }
    }
}

impl Front {
    /// Whether connections from this address are made for others.
    pub fn is_proxy(&self, address: IpAddr) -> bool {
        self.announcing.contains(address) || self.proxies.trusts(address)
    }

    /// Whether the certificate that a client showed on a connection would be taken on another one now. One that showed none, or is
    /// no longer asked for one, is as good as any.
    pub fn vouches_for(&self, connection: &Connection) -> bool {
        let shown = connection.secured().filter(|secured| secured.client.is_some());
        let issuers = self.tls.as_ref().and_then(|tls| tls.issuers.as_ref());
        shown.zip(issuers).is_none_or(|(secured, issuers)| secured.is_vouched_for(issuers))
    }
}

/// Sees a fresh connection through to its first request, and counts it for the client that a balancer speaks for. `None`: it
/// was ended.
pub(super) async fn arrive<G: Gatekeeper>(
    stream: Stream,
    peer: Option<SocketAddr>,
    keeper: &Arc<G>,
    place: &mut Place,
) -> Option<(Stream, Connection)> {
    let front = keeper.front();
    let wait = front.tls.as_ref().map_or(keeper.limits().timeout, |tls| tls.handshake_timeout);
    let mut arriving = Arriving { stream, connection: Connection::new(peer), keeper, deadline: Instant::now() + wait };
    if peer.is_some_and(|peer| front.announcing.contains(peer.ip())) {
        arriving = arriving.announce(front.tls.is_none()).await?;
        // Before a handshake costs anything.
        if let Some(client) = arriving.client().filter(|client| !front.proxies.trusts(*client))
            && let Err(refusal) = place.count_for(client, &keeper.limits().address)
        {
            arriving.turn_away(&refusal, front.tls.is_none()).await;
            return None;
        }
    }
    match &front.tls {
        Some(tls) => arriving.secure(tls).await,
        None => Some((arriving.stream, arriving.connection)),
    }
}

struct Arriving<'k, G> {
    stream: Stream,
    connection: Connection,
    keeper: &'k Arc<G>,
    deadline: Instant,
}

/// Why nobody arrived.
enum Failed {
    /// The connection ended before its first byte.
    Unused,
    /// What came is no header, or not all of one in time.
    Malformed,
}

impl<G: Gatekeeper> Arriving<'_, G> {
    /// The client that a balancer spoke for.
    fn client(&self) -> Option<IpAddr> {
        let connection = &self.connection;
        connection.peer().filter(|_| connection.via().is_some()).map(|client| client.ip())
    }

    /// Reads whom a balancer speaks for. A failure is answered where the answer can be read.
    async fn announce(mut self, is_readable: bool) -> Option<Self> {
        let mut held = BytesMut::with_capacity(READ_BYTES);
        let read = self.read_header(&mut held).await;
        self.recognise();
        match read {
            Ok(header) => {
                if let Some(client) = header.client {
                    self.connection.announce(client);
                }
                self.put_back(held.get(header.bytes..).unwrap_or_default())
            }
            Err(Failed::Unused) => None,
            Err(Failed::Malformed) => {
                self.turn_away(&PROXY_HEADER, is_readable).await;
                None
            }
        }
    }

    async fn read_header(&mut self, held: &mut BytesMut) -> Result<Header, Failed> {
        loop {
            match proxy_protocol::read(held) {
                Reading::Whole(header) => return Ok(header),
                Reading::Malformed => return Err(Failed::Malformed),
                Reading::Partial => {}
            }
            match timeout_at(self.deadline, self.stream.read_buf(held)).await {
                Ok(Ok(0)) if held.is_empty() => return Err(Failed::Unused),
                Ok(Ok(1..)) => {}
                _ => return Err(Failed::Malformed),
            }
        }
    }

    /// Gives bytes back to the stream, to be read first.
    fn put_back(mut self, bytes: &[u8]) -> Option<Self> {
        if bytes.is_empty() {
            return Some(self);
        }
        // Listeners hand out nothing else; whatever else it were, bytes of it would be lost.
        let mut stream = self.stream.into_any().downcast::<l4::stream::Stream>().ok()?;
        stream.rewind(bytes);
        self.stream = stream;
        Some(self)
    }

    /// Does the handshake.
    async fn secure(mut self, tls: &Tls) -> Option<(Stream, Connection)> {
        let mut first = [0];
        match timeout_at(self.deadline, self.stream.read(&mut first)).await {
            Ok(Ok(1..)) => {}
            Ok(_) => return None,
            Err(_) => return self.drop_for(HANDSHAKE_TIMEOUT),
        }
        self.recognise();
        let is_plain_http = first.iter().all(u8::is_ascii_uppercase);
        let arriving = self.put_back(&first)?;
        if is_plain_http {
            arriving.turn_away(&PLAIN_HTTP, true).await;
            return None;
        }
        let Self { stream, mut connection, keeper, deadline } = arriving;
        let failure =
            match timeout_at(deadline, TlsIo::accept(&tls.acceptor, stream, keeper.limits().write.patience)).await {
                Ok(Ok(secure)) => {
                    connection.secure(secure.secured(tls.issuers.as_ref()));
                    return Some((Box::new(secure), connection));
                }
                Ok(Err(error)) => {
                    tracing::debug!(client = ?connection.peer(), %error, "a TLS handshake failed");
                    if is_about_client(&error) { CLIENT_CERTIFICATE } else { HANDSHAKE }
                }
                Err(_) => HANDSHAKE_TIMEOUT,
            };
        keeper.dropped(&connection, failure);
        None
    }

    /// Asked once a byte has come, before which the gateway has said where it asks itself from.
    fn recognise(&self) {
        if self.keeper.is_itself(&self.connection) {
            self.connection.be_own();
        }
    }

    /// Puts a connection on record that cannot be answered, and ends it.
    fn drop_for<T>(self, reason: &'static str) -> Option<T> {
        self.keeper.dropped(&self.connection, reason);
        None
    }

    /// Ends a connection, with an answer where the client can read one.
    async fn turn_away(self, refusal: &Refusal, is_readable: bool) {
        if is_readable {
            GateIo::new(self.stream, Arc::new(self.connection), Arc::clone(self.keeper)).turn_away(refusal).await;
        } else {
            self.keeper.dropped(&self.connection, refusal.reason);
        }
    }
}

/// Whether a handshake failed because of the certificate that the client showed, or did not show.
fn is_about_client(error: &io::Error) -> bool {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>());
    matches!(cause, Some(rustls::Error::NoCertificatesPresented | rustls::Error::InvalidCertificate(_)))
}
