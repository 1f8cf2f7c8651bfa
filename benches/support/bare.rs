//! What does a proxy cost that only moves bytes? The yardstick: Pingora with nothing but a peer.
//!
//! It looks at nothing, so whatever the gateway costs more is the gateway's own. The benchmarks and the load tests serve
//! this one file, so that they measure against the same thing.

use std::net::SocketAddr;
use std::thread;

use async_trait::async_trait;
use pingora::prelude::HttpPeer;
use pingora::server::Server;
use pingora::server::configuration::ServerConf;
use pingora_proxy::ProxyHttp;
use pingora_proxy::Session;

struct Bare(SocketAddr);

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) -> Self::CTX {}

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut Self::CTX) -> pingora::Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.0, false, String::new())))
    }
}

/// Serves the yardstick for ever, with one worker thread a core if `threads` says nothing.
pub(crate) fn serve_bare(listen: &str, upstream: SocketAddr, threads: Option<usize>) {
    let threads = threads.unwrap_or_else(|| thread::available_parallelism().map_or(2, usize::from));
    let conf = ServerConf { threads, max_retries: 1, ..ServerConf::default() };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let mut service = pingora_proxy::http_proxy_service(&server.configuration, Bare(upstream));
    service.add_tcp(listen);
    server.add_service(service);
    server.run_forever();
}
