//! What does a proxy cost that only moves bytes? The yardstick: Pingora with nothing but a peer.
//!
//! Of the gateway's Pingora, allocator, TLS provider, thread count and build profile. It looks at nothing, so whatever the
//! gateway costs more is the gateway's own.

use std::net::SocketAddr;

use async_trait::async_trait;
use clap::Parser;
use pingora::prelude::HttpPeer;
use pingora::server::Server;
use pingora::server::configuration::ServerConf;
use pingora_proxy::ProxyHttp;
use pingora_proxy::Session;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A Pingora proxy with nothing but a peer.
#[derive(Debug, Parser)]
struct Options {
    /// Loopback address to listen on.
    #[arg(long)]
    listen: SocketAddr,
    /// The one upstream.
    #[arg(long)]
    upstream: SocketAddr,
    /// Worker threads; default: one a core, as the gateway.
    #[arg(long)]
    threads: Option<usize>,
    /// Ends by itself after so many seconds.
    #[arg(long, default_value_t = 7200)]
    seconds_max: u64,
}

struct Bare(SocketAddr);

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) -> Self::CTX {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut Self::CTX) -> pingora::Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.0, false, String::new())))
    }
}

fn main() {
    let options = Options::parse();
    assert!(options.listen.ip().is_loopback(), "this proxy listens on loopback alone");
    load_tests::end_after(options.seconds_max);
    let threads = options.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(2, usize::from));
    let conf = ServerConf { threads, max_retries: 1, ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let mut service = pingora_proxy::http_proxy_service(&server.configuration, Bare(options.upstream));
    service.add_tcp(&options.listen.to_string());
    server.add_service(service);
    server.run_forever();
}
