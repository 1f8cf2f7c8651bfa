//! From where does a request come, as records have it?

use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;

use http::HeaderMap;

use crate::audit;
use crate::auth;
use crate::clock;
use crate::principal::Principal;
use crate::principal::Subject;
use crate::transport::arrival::Front;
use crate::transport::connection::Connection;
use crate::transport::forwarded::Proxies;
use crate::transport::forwarded::Scheme;

/// Who sent a request, by which proxy, on which connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Whence {
    /// The client's address; port 0 where it is not known.
    source: Option<SocketAddr>,
    via: Option<IpAddr>,
    /// How the client speaks, where that is known.
    pub(crate) scheme: Option<Scheme>,
    connection: Option<Arc<Connection>>,
}

impl Whence {
    /// What the headers of a request add to what is known of its connection.
    pub(crate) fn of_request(connection: Option<Arc<Connection>>, headers: &HeaderMap, proxies: &Proxies) -> Self {
        let Some(connection) = connection else { return Self::default() };
        let origin = proxies.origin(headers, connection.peer(), scheme_of(&connection));
        Self {
            source: origin.client,
            via: origin.via.or(connection.via()),
            scheme: origin.scheme,
            connection: Some(connection),
        }
    }

    /// Who asks from here, now.
    pub(crate) fn subject<'s>(&self, principal: &'s Principal) -> Subject<'s> {
        Subject { source: self.source.map(|source| source.ip()), now: clock::now_seconds(), ..Subject::of(principal) }
    }

    /// The certificate of the connection, if the client showed one and clients are asked for any.
    pub(crate) fn certificate(&self, front: &Front) -> Option<auth::Certificate<'_>> {
        front.tls.as_ref()?.issuers.as_ref()?;
        let connection = self.connection.as_ref()?;
        let client = connection.secured()?.client.as_ref()?;
        Some(auth::Certificate {
            subject: Some(&*client.subject).filter(|_| client.is_plain),
            names: &client.names,
            sha256: &client.sha256,
            ends: client.ends,
            is_vouched_for: front.vouches_for(connection),
        })
    }

    /// The part of a record that says so.
    pub(crate) fn request(&self) -> audit::Request<'_> {
        let of_connection = self.connection.as_deref().map(of_connection).unwrap_or_default();
        let scheme = self.scheme.map(Scheme::name);
        audit::Request { source: self.source, via: self.via, scheme, ..of_connection }
    }
}

/// The part of a record that says what is known of a connection alone.
pub(crate) fn of_connection(connection: &Connection) -> audit::Request<'_> {
    let secured = connection.secured().map(|secured| audit::Secured {
        version: secured.version,
        client: secured.client.as_ref().map(|client| audit::Certificate {
            subject: &client.subject,
            names: &client.names,
            sha256: &client.sha256,
        }),
    });
    let scheme = scheme_of(connection).map(Scheme::name);
    audit::Request { source: connection.peer(), via: connection.via(), scheme, secured, ..audit::Request::default() }
}

/// How the client speaks, as far as its connection tells: in the clear may mean a balancer that ended TLS.
fn scheme_of(connection: &Connection) -> Option<Scheme> {
    connection.secured().map(|_| Scheme::Https)
}
