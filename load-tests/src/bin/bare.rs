//! What does a proxy cost that only moves bytes? The yardstick: Pingora with nothing but a peer.
//!
//! Of the gateway's Pingora, allocator, TLS provider, thread count and build profile. It looks at nothing, so whatever the
//! gateway costs more is the gateway's own.

#[path = "../../../benches/support/bare.rs"]
mod bare;

use std::net::SocketAddr;

use clap::Parser;

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

fn main() {
    let options = Options::parse();
    assert!(options.listen.ip().is_loopback(), "this proxy listens on loopback alone");
    load_tests::end_after(options.seconds_max);
    bare::serve_bare(&options.listen.to_string(), options.upstream, options.threads);
}
