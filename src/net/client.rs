//! One question, one answer: nothing is kept open, nothing followed, nothing sent but the question.

use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use bytes::BytesMut;
use http::HeaderMap;
use http::HeaderValue;
use http::Request;
use http::Response;
use http::header;
use http_body_util::BodyExt;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::pki_types::ServerName;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;
use tokio::time::timeout_at;
use tokio_rustls::TlsConnector;

use crate::net::address;
use crate::net::error::NetError;
use crate::net::network::Network;
use crate::net::network::Stream;
use crate::net::network::System;
use crate::net::url::Host;
use crate::net::url::Url;
use crate::network::Networks;

/// Addresses of one name. A name with more is refused whole: what is not looked at could be anything.
const ADDRESSES_MAX: usize = 64;
/// Addresses that are tried.
const TRIED_MAX: usize = 4;
/// Header lines of one answer.
const HEADERS_MAX: usize = 64;
/// Bytes of one answer's head.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// What the gateway calls itself.
const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("portcullis/", env!("CARGO_PKG_VERSION")));
/// Bytes of a proxy's answer to the wish for a way through.
const PROXY_HEAD_BYTES_MAX: usize = 8 * 1024;

/// What one use of the client may do. The default is the strictest: `https` on port 443, to the Internet's addresses alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Whether `http` is allowed.
    pub http: bool,
    /// Ports that may be connected to.
    pub ports: Vec<u16>,
    /// Networks of one's own that may be connected to.
    pub networks: Networks,
    /// The proxy that stands between, which resolves names itself: what they resolve to is then its to check.
    pub proxy: Option<Url>,
    /// From beginning to end.
    pub timeout: Duration,
    /// Bytes of an answer's body.
    pub bytes_max: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            http: false,
            ports: vec![443],
            networks: Networks::default(),
            proxy: None,
            timeout: Duration::from_secs(5),
            bytes_max: 256 * 1024,
        }
    }
}

/// Asks servers of others.
pub struct Client {
    network: Arc<dyn Network>,
    tls: TlsConnector,
}

impl Client {
    /// A client on the system's network, which trusts the system's root certificates.
    pub fn new() -> Self {
        let mut roots = RootCertStore::empty();
        match rustls_native_certs::load_native_certs() {
            // Single certificates that cannot be read are common in the field and harm nobody.
            Ok(certificates) => drop(roots.add_parsable_certificates(certificates)),
            Err(error) => tracing::warn!(%error, "the system's root certificates cannot be read"),
        }
        Self::on(Arc::new(System), roots)
    }

    /// A client on another network, which trusts `roots` alone.
    pub fn on(network: Arc<dyn Network>, roots: RootCertStore) -> Self {
        // A second installation is refused, and the first serves as well: both are ring.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { network, tls: TlsConnector::from(Arc::new(config)) }
    }

    /// The body at `url`, if it answers 200 within the limits.
    ///
    /// # Errors
    /// See [`NetError`].
    pub async fn get(&self, url: &Url, accept: &'static str, rules: &Rules) -> Result<Bytes, NetError> {
        let deadline = Instant::now() + rules.timeout;
        let request = Request::get(url.path.clone()).header(header::ACCEPT, accept);
        let request = request.body(Full::default()).map_err(malformed)?;
        let asked = timeout_at(deadline, self.ask(url, request, rules, Takes::Found)).await;
        asked.unwrap_or(Err(NetError::Timeout)).map(Response::into_body)
    }

    /// Sends a body to `url`. What it answers counts, whatever its status: nothing is followed.
    ///
    /// # Errors
    /// See [`NetError`].
    pub async fn post(
        &self,
        url: &Url,
        headers: HeaderMap,
        body: Bytes,
        rules: &Rules,
    ) -> Result<Response<Bytes>, NetError> {
        let mut request = Request::post(url.path.clone()).body(Full::new(body)).map_err(malformed)?;
        *request.headers_mut() = headers;
        let deadline = Instant::now() + rules.timeout;
        timeout_at(deadline, self.ask(url, request, rules, Takes::Anything)).await.unwrap_or(Err(NetError::Timeout))
    }

    async fn ask(
        &self,
        url: &Url,
        mut request: Request<Full<Bytes>>,
        rules: &Rules,
        takes: Takes,
    ) -> Result<Response<Bytes>, NetError> {
        admit(url, rules)?;
        let stream = match &rules.proxy {
            Some(proxy) => self.through(proxy, url).await?,
            None => self.dial(&self.addresses(&url.host, Some(&rules.networks)).await?, url.port).await?,
        };
        let stream = if url.is_secure { self.secure(stream, &url.host).await? } else { stream };
        let headers = request.headers_mut();
        headers.insert(header::HOST, HeaderValue::try_from(url.authority()).map_err(|error| malformed(error.into()))?);
        headers.insert(header::USER_AGENT, USER_AGENT);
        let protocol = |error: hyper::Error| NetError::Protocol(error.to_string());
        let (mut handle, connection) = http1::Builder::new()
            .max_headers(HEADERS_MAX)
            .max_header_size(HEAD_BYTES_MAX)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(protocol)?;
        let answer = async {
            let answer = handle.send_request(request).await.map_err(protocol)?;
            read(answer, rules.bytes_max, takes).await
        };
        tokio::pin!(connection, answer);
        tokio::select! {
            biased;
            answer = &mut answer => answer,
            // The connection may end before what it brought was taken up.
            _ = &mut connection => answer.await,
        }
    }

    /// The addresses of a host, all of which may be connected to. Resolved once: what is connected to is what was checked.
    async fn addresses(&self, host: &Host, rules: Option<&Networks>) -> Result<Vec<IpAddr>, NetError> {
        let addresses = match host {
            Host::Address(address) => vec![*address],
            Host::Name(name) => {
                self.network.resolve(name).await.map_err(|error| NetError::Resolve(error.to_string()))?
            }
        };
        if addresses.is_empty() || addresses.len() > ADDRESSES_MAX {
            return Err(NetError::Resolve(format!("it has {} addresses", addresses.len())));
        }
        if let Some(networks) = rules {
            for address in &addresses {
                address::check(*address, networks).map_err(|special| NetError::Forbidden(*address, special))?;
            }
        }
        Ok(addresses)
    }

    async fn dial(&self, addresses: &[IpAddr], port: u16) -> Result<Box<dyn Stream>, NetError> {
        let mut last = String::from("no address");
        for address in addresses.iter().take(TRIED_MAX) {
            match self.network.connect(SocketAddr::new(*address, port)).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error.to_string(),
            }
        }
        Err(NetError::Connect(last))
    }

    async fn secure(&self, stream: Box<dyn Stream>, host: &Host) -> Result<Box<dyn Stream>, NetError> {
        let name = match host {
            Host::Name(name) => ServerName::try_from(name.to_string()),
            Host::Address(address) => Ok(ServerName::from(*address)),
        };
        let name = name.map_err(|error| NetError::Tls(error.to_string()))?;
        let stream = self.tls.connect(name, stream).await.map_err(|error| NetError::Tls(error.to_string()))?;
        Ok(Box::new(stream))
    }

    /// A way through a proxy. The operator named it, so it may stand anywhere.
    async fn through(&self, proxy: &Url, url: &Url) -> Result<Box<dyn Stream>, NetError> {
        let mut stream = self.dial(&self.addresses(&proxy.host, None).await?, proxy.port).await?;
        if proxy.is_secure {
            stream = self.secure(stream, &proxy.host).await?;
        }
        let refused = |error: std::io::Error| NetError::Proxy(error.to_string());
        let (host, port) = (&url.host, url.port);
        let wish = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n");
        stream.write_all(wish.as_bytes()).await.map_err(refused)?;
        stream.flush().await.map_err(refused)?;
        // Byte by byte: what comes after the head is already the other's.
        let mut head = Vec::with_capacity(128);
        while !head.ends_with(b"\r\n\r\n") {
            if head.len() >= PROXY_HEAD_BYTES_MAX {
                return Err(NetError::Proxy("its answer is too long".into()));
            }
            head.push(stream.read_u8().await.map_err(refused)?);
        }
        match head.split(|byte| *byte == b' ').nth(1) {
            Some(b"200") if head.starts_with(b"HTTP/1.") => Ok(stream),
            _ => Err(NetError::Proxy("it did not answer 200".into())),
        }
    }
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

/// Whether a URL may be asked at all, before anything is resolved.
fn admit(url: &Url, rules: &Rules) -> Result<(), NetError> {
    if !url.is_secure && !rules.http {
        return Err(NetError::Insecure);
    }
    if !rules.ports.contains(&url.port) {
        return Err(NetError::Port(url.port));
    }
    if url.host.is_local_name() && rules.networks.is_empty() {
        return Err(NetError::LocalName);
    }
    // Where a proxy resolves names, an address as it is written can still be judged.
    if let Host::Address(address) = url.host {
        address::check(address, &rules.networks).map_err(|special| NetError::Forbidden(address, special))?;
    }
    Ok(())
}

/// Which answers are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    /// The one that is what was asked for.
    Found,
    /// Every one.
    Anything,
}

fn malformed(error: http::Error) -> NetError {
    NetError::Protocol(error.to_string())
}

async fn read(answer: Response<Incoming>, bytes_max: usize, takes: Takes) -> Result<Response<Bytes>, NetError> {
    match answer.status().as_u16() {
        200 => {}
        _ if takes == Takes::Anything => {}
        status @ 300..400 => return Err(NetError::Redirect(status)),
        status => return Err(NetError::Status(status)),
    }
    let plain = |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    if !answer.headers().get_all(header::CONTENT_ENCODING).iter().all(plain) {
        return Err(NetError::Encoded);
    }
    let (head, mut body) = answer.into_parts();
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| NetError::Protocol(error.to_string()))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > bytes_max {
            return Err(NetError::TooLarge(bytes_max));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Response::from_parts(head, bytes.freeze()))
}
