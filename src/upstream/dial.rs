//! How is a connection to an endpoint opened?
//!
//! TCP to one of the name's addresses, then TLS where the URL says so, then hyper's HTTP/1.1 with the limits of an
//! answer's head. TLS is always verified, against the server's own authorities or else the system's (`SSL_CERT_FILE` and
//! `SSL_CERT_DIR` name others).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pingora::tls::ClientConfig;
use pingora::tls::RootCertStore;
use pingora::tls::ServerName;
use pingora::tls::TlsConnector;
use rustix::net::sockopt;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio::time::timeout;
use tokio::time::timeout_at;

use crate::upstream::connection::Connection;
use crate::upstream::counted::Counted;
use crate::upstream::endpoint::Endpoint;
use crate::upstream::error::Failure;
use crate::upstream::error::Mishap;
use crate::upstream::tls::Tls;

/// Opens connections.
pub(crate) struct Dialer {
    tls: TlsConnector,
    roots: Arc<RootCertStore>,
}

impl Dialer {
    /// A dialer that trusts the system's root certificates.
    pub(crate) fn new() -> Self {
        let mut roots = RootCertStore::empty();
        match pingora::tls::load_native_certs() {
            // Single certificates that cannot be read are common in the field and harm nobody.
            Ok(certificates) => drop(roots.add_parsable_certificates(certificates)),
            Err(error) => tracing::warn!(%error, "the system's root certificates cannot be read"),
        }
        if roots.is_empty() {
            tracing::warn!("there are no root certificates: no `https` server can be reached");
        }
        Self::trusting(roots)
    }

    /// A dialer that trusts `roots` alone.
    pub(crate) fn trusting(roots: RootCertStore) -> Self {
        pingora::tls::install_default_crypto_provider();
        let roots = Arc::new(roots);
        let config = ClientConfig::builder().with_root_certificates(Arc::clone(&roots)).with_no_client_auth();
        Self { tls: connector(config), roots }
    }

    /// A dialer for a server with TLS of its own. It shares nothing with others: a session that was resumed for one client
    /// certificate must not be for another. `None` cannot be, as the same was built when the configuration was read.
    pub(crate) fn with(&self, tls: &Tls) -> Option<Self> {
        let config = tls.config(&self.roots).ok()?;
        Some(Self { tls: connector(config), roots: Arc::clone(&self.roots) })
    }

    /// A fresh connection, open by `deadline`.
    pub(crate) async fn dial(&self, endpoint: &Endpoint, deadline: Instant) -> Result<Connection, Mishap> {
        let slot = endpoint.slot().await?;
        let era = endpoint.pool.era();
        let tcp = Counted::new(self.tcp(endpoint, deadline).await?, slot);
        let mut connection = self.begin(tcp, endpoint, deadline).await?;
        connection.era = era;
        Ok(connection)
    }

    /// A connection that takes no call's place, for a question of the gateway's own.
    pub(crate) async fn dial_apart(&self, endpoint: &Endpoint, deadline: Instant) -> Result<Connection, Mishap> {
        let tcp = self.tcp(endpoint, deadline).await?;
        self.begin(tcp, endpoint, deadline).await
    }

    async fn begin(
        &self,
        tcp: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        endpoint: &Endpoint,
        deadline: Instant,
    ) -> Result<Connection, Mishap> {
        match &endpoint.target.tls {
            None => speak(tcp).await,
            Some(name) => speak(self.secure(tcp, name, deadline).await?).await,
        }
    }

    /// Whether a connection can be opened by `deadline`, without speaking HTTP on it.
    pub(crate) async fn probe(&self, endpoint: &Endpoint, deadline: Instant) -> Result<(), Mishap> {
        let tcp = self.tcp(endpoint, deadline).await?;
        match &endpoint.target.tls {
            None => Ok(()),
            Some(name) => self.secure(tcp, name, deadline).await.map(drop),
        }
    }

    async fn tcp(&self, endpoint: &Endpoint, deadline: Instant) -> Result<TcpStream, Mishap> {
        // A resolver that does not answer must leave time to dial what it answered last.
        let half = deadline.saturating_duration_since(Instant::now()) / 2;
        let addresses = match timeout(half, endpoint.resolve()).await {
            Ok(resolved) => resolved?,
            Err(_) => endpoint
                .last_addresses()
                .ok_or_else(|| Mishap::new(Failure::Resolve, "the resolver did not answer in time"))?,
        };
        let mut mishap = Mishap::new(Failure::Connect, "no address");
        for (tried, address) in addresses.iter().enumerate() {
            // An address that swallows packets must not use up the time of the others.
            let left = u32::try_from(addresses.len() - tried).unwrap_or(1);
            let share = deadline.saturating_duration_since(Instant::now()) / left;
            match timeout_at(Instant::now() + share, TcpStream::connect(address)).await {
                Ok(Ok(tcp)) => {
                    prepare(&tcp);
                    return Ok(tcp);
                }
                Ok(Err(error)) => mishap = Mishap::of(Failure::Connect, &error),
                Err(_) => mishap = Mishap::new(Failure::Connect, silent(address)),
            }
        }
        Err(mishap)
    }

    async fn secure(
        &self,
        tcp: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        name: &ServerName<'static>,
        deadline: Instant,
    ) -> Result<impl AsyncRead + AsyncWrite + Unpin + Send + 'static, Mishap> {
        match timeout_at(deadline, self.tls.connect(name.clone(), tcp)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(Mishap::of(Failure::Tls, &error)),
            Err(_) => Err(Mishap::new(Failure::Tls, "the handshake did not end in time")),
        }
    }
}

fn connector(mut config: ClientConfig) -> TlsConnector {
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    TlsConnector::from(Arc::new(config))
}

fn silent(address: &SocketAddr) -> String {
    format!("{address} did not answer in time")
}

/// Small messages leave at once, and a peer that vanished without a word is noticed.
fn prepare(tcp: &TcpStream) {
    // None of these can fail on a connected socket in a way that matters: the connection works without them.
    let _ = tcp.set_nodelay(true);
    let _ = sockopt::set_socket_keepalive(tcp, true);
    let _ = sockopt::set_tcp_keepidle(tcp, Duration::from_secs(30));
    let _ = sockopt::set_tcp_keepintvl(tcp, Duration::from_secs(10));
    let _ = sockopt::set_tcp_keepcnt(tcp, 3);
}

/// Begins HTTP/1.1 on a stream.
async fn speak<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) -> Result<Connection, Mishap> {
    Connection::open(stream).await.map_err(|error| Mishap::of_hyper(&error))
}
