//! Whom do the proxies in front of us speak for?
//!
//! `X-Forwarded-For` or `Forwarded`, whichever the configuration names, is read only from proxies it trusts, from the right:
//! each trusted hop vouches for the one before it, and the first that is not trusted is the client. What a client wrote
//! itself stands further left and is never reached. The header that is not named is not looked at: a proxy that sets one
//! passes the other on as the client sent it.

use std::net::IpAddr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;

use http::HeaderMap;
use http::header::HeaderName;

use crate::config::model::Config;
use crate::config::model::ForwardedHeader;
use crate::config::problem::At;
use crate::config::problem::Problems;
use crate::network::Networks;

/// Hops that are followed; what stands further left is not believed.
const HOPS_MAX: usize = 32;
/// Bytes of one hop: an address, a port, and the parameters of `Forwarded`.
const HOP_BYTES_MAX: usize = 512;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// How a client speaks HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    /// The word in URLs and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Http, Self::Https].into_iter().find(|scheme| text.trim().eq_ignore_ascii_case(scheme.name()))
    }
}

/// Who is at the other end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The client's address; port 0 where it is not known. `None` on a Unix socket.
    pub client: Option<SocketAddr>,
    /// The proxy that spoke for it.
    pub via: Option<IpAddr>,
    /// How the client speaks, where that is known.
    pub scheme: Option<Scheme>,
}

/// Which proxies are believed, and what of theirs.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    trusted: Networks,
    header: ForwardedHeader,
}

impl Proxies {
    /// Reads which proxies are trusted, reporting what is no network.
    pub fn compile(config: &Config, problems: &mut Problems) -> Self {
        let at = At::root().key("listen").key("trusted_proxies");
        Self {
            trusted: Networks::compile(&config.listen.trusted_proxies, &at, problems),
            header: config.listen.forwarded_header,
        }
    }

    /// Whether this address is a proxy that is believed.
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.contains(address)
    }

    /// Who sent a request with these headers on a connection from `peer`, on which `scheme` is spoken where it is known.
    pub fn origin(&self, headers: &HeaderMap, peer: Option<SocketAddr>, scheme: Option<Scheme>) -> Origin {
        let unproxied = Origin { client: peer, via: None, scheme };
        let Some(peer) = peer.filter(|peer| self.trusted.contains(peer.ip())) else { return unproxied };
        let hops = match self.header {
            ForwardedHeader::XForwardedFor => self.follow(headers, &X_FORWARDED_FOR, peer, |hop| (node(hop), None)),
            ForwardedHeader::Forwarded => self.follow(headers, &http::header::FORWARDED, peer, element),
        };
        let scheme = match self.header {
            ForwardedHeader::XForwardedFor => single(headers, &X_FORWARDED_PROTO).and_then(Scheme::parse),
            ForwardedHeader::Forwarded => hops.scheme,
        };
        let via = (hops.client != peer).then(|| peer.ip().to_canonical());
        Origin { client: Some(hops.client), via, scheme: scheme.or(unproxied.scheme) }
    }

    /// Follows the hops from the right for as long as each is trusted and can be read.
    fn follow(&self, headers: &HeaderMap, name: &HeaderName, peer: SocketAddr, read: ReadHop) -> Hops {
        let mut hops = Hops { client: peer, scheme: None };
        let values = headers.get_all(name).iter().rev();
        let texts = values.map(|value| value.to_str().unwrap_or_default());
        for hop in texts.flat_map(|text| text.rsplit(',')).take(HOPS_MAX) {
            let (address, scheme) = if hop.len() > HOP_BYTES_MAX { (None, None) } else { read(hop.trim()) };
            hops.scheme = scheme.or(hops.scheme);
            let Some(address) = address else { break };
            hops.client = address;
            if !self.trusted.contains(address.ip()) {
                break;
            }
        }
        hops
    }
}

type ReadHop = fn(&str) -> (Option<SocketAddr>, Option<Scheme>);

struct Hops {
    client: SocketAddr,
    scheme: Option<Scheme>,
}

/// The only value of a header; proxies that each add one contradict each other.
fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())?.to_str().ok()
}

/// An address as proxies write it: `192.0.2.7`, `192.0.2.7:4711`, `2001:db8::7`, `[2001:db8::7]`, `[2001:db8::7]:4711`.
fn node(text: &str) -> Option<SocketAddr> {
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    let without_port = text.parse().ok().or_else(bracketed).map(|address| SocketAddr::new(address, 0));
    let address = without_port.or_else(|| text.parse().ok())?;
    Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

/// One element of `Forwarded`: parameters as RFC 7239 has them, none of them twice. What cannot be read says nothing.
fn element(text: &str) -> (Option<SocketAddr>, Option<Scheme>) {
    let (mut client, mut scheme) = (None, None);
    for parameter in text.split(';') {
        let Some((name, value)) = parameter.trim().split_once('=') else { return (None, None) };
        let value = match value.strip_prefix('"') {
            // Addresses and words need no escapes; a value that has one is none of ours.
            Some(quoted) => quoted.strip_suffix('"').filter(|value| !value.contains(['"', '\\'])),
            None => Some(value).filter(|value| !value.contains(['"', '[', ':', ' '])),
        };
        let Some(value) = value else { return (None, None) };
        let twice = match name.to_ascii_lowercase().as_str() {
            "for" => client.replace(value).is_some(),
            "proto" => scheme.replace(value).is_some(),
            _ => false,
        };
        if twice {
            return (None, None);
        }
    }
    (client.and_then(node), scheme.and_then(Scheme::parse))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The client, the proxy and the scheme that `headers` lead to behind a proxy at 10.0.0.1, where 10.0.0.0/8 and fd00::/8
    /// are trusted.
    fn origin(header: &str, headers: &[(&'static str, &str)], peer: &str) -> String {
        let mut config = Config::default();
        config.listen.trusted_proxies = vec!["10.0.0.0/8".into(), "fd00::/8".into()];
        config.listen.forwarded_header =
            if header == "forwarded" { ForwardedHeader::Forwarded } else { ForwardedHeader::XForwardedFor };
        let mut problems = Problems::new();
        let proxies = Proxies::compile(&config, &mut problems);
        assert!(!problems.has_errors());
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, http::HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let origin = proxies.origin(&map, peer.parse().ok(), None);
        let client = origin.client.map_or_else(String::new, |client| client.to_string());
        let via = origin.via.map_or_else(String::new, |via| format!(" via {via}"));
        format!("{client}{via}{}", origin.scheme.map_or_else(String::new, |scheme| format!(" {}", scheme.name())))
    }

    fn chain(value: &str) -> String {
        origin("x-forwarded-for", &[("x-forwarded-for", value)], "10.0.0.1:9")
    }

    #[test]
    fn the_rightmost_hop_that_is_not_trusted_is_the_client() {
        let table = [
            ("203.0.113.9", "203.0.113.9:0 via 10.0.0.1"),
            ("203.0.113.9:4711", "203.0.113.9:4711 via 10.0.0.1"),
            ("203.0.113.9, 10.0.0.2", "203.0.113.9:0 via 10.0.0.1"),
            ("203.0.113.9,10.0.0.3 , 10.0.0.2", "203.0.113.9:0 via 10.0.0.1"),
            ("1.1.1.1, 203.0.113.9", "203.0.113.9:0 via 10.0.0.1"),
            ("10.0.0.9, 203.0.113.9", "203.0.113.9:0 via 10.0.0.1"),
            ("10.0.0.3, 10.0.0.2", "10.0.0.3:0 via 10.0.0.1"),
            ("2001:db8::7", "[2001:db8::7]:0 via 10.0.0.1"),
            ("[2001:db8::7], fd00::1", "[2001:db8::7]:0 via 10.0.0.1"),
            ("[2001:db8::7]:4711", "[2001:db8::7]:4711 via 10.0.0.1"),
            ("::ffff:203.0.113.9", "203.0.113.9:0 via 10.0.0.1"),
            // Whom a trusted hop names in a way that cannot be read is not known: the hop is the client.
            ("garbage", "10.0.0.1:9"),
            ("unknown", "10.0.0.1:9"),
            ("", "10.0.0.1:9"),
            ("203.0.113.9, ", "10.0.0.1:9"),
            ("203.0.113.9, garbage, 10.0.0.2", "10.0.0.2:0 via 10.0.0.1"),
            ("203.0.113.9, 10.0.0.256", "10.0.0.1:9"),
            ("203.0.113.9 10.0.0.2", "10.0.0.1:9"),
            ("203.0.113.9:99999", "10.0.0.1:9"),
            ("\u{e9}", "10.0.0.1:9"),
        ];
        for (value, expected) in table {
            assert_eq!(chain(value), expected, "{value:?}");
        }
        let lines = [("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "203.0.113.9, 10.0.0.2")];
        assert_eq!(origin("x-forwarded-for", &lines, "10.0.0.1:9"), "203.0.113.9:0 via 10.0.0.1");
        assert_eq!(
            origin("x-forwarded-for", &lines, "10.0.0.1:9"),
            origin("x-forwarded-for", &lines, "[::ffff:10.0.0.1]:9")
        );
    }

    #[test]
    fn nobody_else_is_believed() {
        let headers =
            [("x-forwarded-for", "1.1.1.1"), ("x-forwarded-proto", "https"), ("forwarded", "for=1.1.1.1;proto=https")];
        for header in ["x-forwarded-for", "forwarded"] {
            assert_eq!(origin(header, &headers, "203.0.113.9:9"), "203.0.113.9:9");
            assert_eq!(origin(header, &headers, "a unix socket"), "");
        }
        // Nor the header that the proxy is not known to set.
        assert_eq!(origin("forwarded", &headers[..2], "10.0.0.1:9"), "10.0.0.1:9");
        assert_eq!(origin("x-forwarded-for", &headers[2..], "10.0.0.1:9"), "10.0.0.1:9");
    }

    #[test]
    fn elements_of_forwarded_are_read_as_the_standard_has_them() {
        let table = [
            ("for=203.0.113.9", "203.0.113.9:0 via 10.0.0.1"),
            ("For=\"203.0.113.9:4711\";Proto=HTTPS", "203.0.113.9:4711 via 10.0.0.1 https"),
            ("for=\"[2001:db8::7]:4711\";by=10.0.0.1;host=a", "[2001:db8::7]:4711 via 10.0.0.1"),
            ("for=1.1.1.1, for=203.0.113.9;proto=http, for=10.0.0.2", "203.0.113.9:0 via 10.0.0.1 http"),
            ("for=203.0.113.9;for=1.1.1.1", "10.0.0.1:9"),
            ("for=[2001:db8::7]", "10.0.0.1:9"),
            ("for=203.0.113.9:80", "10.0.0.1:9"),
            ("for=_hidden", "10.0.0.1:9"),
            ("for=unknown;proto=https", "10.0.0.1:9 https"),
            ("for=\"203.0.113.9", "10.0.0.1:9"),
            ("for=\"203.0.113\\.9\"", "10.0.0.1:9"),
            ("203.0.113.9", "10.0.0.1:9"),
            ("proto=https", "10.0.0.1:9 https"),
            ("", "10.0.0.1:9"),
        ];
        for (value, expected) in table {
            assert_eq!(origin("forwarded", &[("forwarded", value)], "10.0.0.1:9"), expected, "{value:?}");
        }
    }

    #[test]
    fn a_scheme_is_believed_only_if_it_is_said_once() {
        let proto = |values: &[&str]| {
            let headers: Vec<_> = values.iter().map(|value| ("x-forwarded-proto", *value)).collect();
            origin("x-forwarded-for", &headers, "10.0.0.1:9")
        };
        assert_eq!(proto(&["https"]), "10.0.0.1:9 https");
        assert_eq!(proto(&["HTTP"]), "10.0.0.1:9 http");
        for values in [&["https", "http"][..], &["https, http"], &["wss"], &[""]] {
            assert_eq!(proto(values), "10.0.0.1:9", "{values:?}");
        }
    }

    #[test]
    fn only_so_many_hops_of_so_many_bytes_are_followed() {
        let hops = |count: usize| format!("203.0.113.9{}", ", 10.0.0.2".repeat(count));
        assert_eq!(chain(&hops(HOPS_MAX - 1)), "203.0.113.9:0 via 10.0.0.1");
        assert_eq!(chain(&hops(HOPS_MAX)), "10.0.0.2:0 via 10.0.0.1");
        let padded = |bytes: usize| format!("for=203.0.113.9;x={}", "y".repeat(bytes - 18));
        let of = |bytes: usize| origin("forwarded", &[("forwarded", &padded(bytes))], "10.0.0.1:9");
        assert_eq!(
            (of(HOP_BYTES_MAX), of(HOP_BYTES_MAX + 1)),
            ("203.0.113.9:0 via 10.0.0.1".into(), "10.0.0.1:9".into())
        );
    }
}
