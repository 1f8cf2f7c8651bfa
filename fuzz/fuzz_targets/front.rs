#![no_main]

//! What balancers and proxies say about the client: no bytes make it stumble, and nobody is believed who is not trusted.

use std::net::SocketAddr;
use std::sync::LazyLock;

use http::HeaderMap;
use http::HeaderValue;
use portcullis::config::model::Config;
use portcullis::config::model::ForwardedHeader;
use portcullis::config::problem::Problems;
use portcullis::transport::forwarded::Proxies;
use portcullis::transport::proxy_protocol;
use portcullis::transport::proxy_protocol::Reading;

static PROXIES: LazyLock<[Proxies; 2]> = LazyLock::new(|| {
    [ForwardedHeader::XForwardedFor, ForwardedHeader::Forwarded].map(|header| {
        let mut config = Config::default();
        config.listen.trusted_proxies = vec!["10.0.0.0/8".into()];
        config.listen.forwarded_header = header;
        Proxies::compile(&config, &mut Problems::new())
    })
});

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    match proxy_protocol::read(input) {
        Reading::Whole(header) => assert!(header.bytes <= input.len()),
        Reading::Partial => assert!(input.len() < proxy_protocol::HEADER_BYTES_MAX),
        Reading::Malformed => {}
    }
    let Ok(value) = HeaderValue::from_bytes(input) else { return };
    let mut headers = HeaderMap::new();
    for name in ["x-forwarded-for", "x-forwarded-proto", "forwarded"] {
        headers.append(name, value.clone());
    }
    let stranger = SocketAddr::from(([192, 0, 2, 7], 1));
    for proxies in PROXIES.iter() {
        proxies.origin(&headers, Some(SocketAddr::from(([10, 0, 0, 1], 1))), None);
        assert_eq!(proxies.origin(&headers, Some(stranger), None).client, Some(stranger));
    }
});
