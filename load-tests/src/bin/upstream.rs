//! An MCP server that answers the same for ever, fast: what stands behind a gateway that is measured.

use std::net::SocketAddr;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A fixed-answer MCP server for measurements. Tools: `execute_query`, `describe_table`, `read_blob` (`bytes`), `wait`
/// (`ms`), `watch_table` (`events`, `spacing_ms`), `fail` (`kind`: tool, rpc, status, cut, drop). `GET /counts` says what was asked;
/// `GET /faults/HOW/MS` answers everybody with a fault (reset, cut, refuse) for so long.
#[derive(Debug, Parser)]
struct Options {
    /// Loopback address to listen on.
    #[arg(long, default_value = "127.0.0.1:3000")]
    listen: SocketAddr,
    /// Threads that serve.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Answers come after so long (to the millisecond).
    #[arg(long, default_value_t = 0)]
    delay_ms: u64,
    /// Every tool answers with so many bytes of text.
    #[arg(long)]
    bytes: Option<usize>,
    /// Every tool answers in events.
    #[arg(long)]
    sse: bool,
    /// Progress events before a result, where the arguments do not say.
    #[arg(long, default_value_t = 5)]
    events: usize,
    /// What lies between two events, where the arguments do not say.
    #[arg(long, default_value_t = 0)]
    spacing_ms: u64,
    /// What lies between two events of a standing stream (GET).
    #[arg(long, default_value_t = 1000)]
    listen_spacing_ms: u64,
    /// So many of a hundred calls are answered with a JSON-RPC error.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=100))]
    error_percent: u64,
    /// So many further tools are listed.
    #[arg(long, default_value_t = 20)]
    tools: usize,
    /// Ends by itself after so many seconds.
    #[arg(long, default_value_t = 7200)]
    seconds_max: u64,
}

fn main() -> std::io::Result<()> {
    let options = Options::parse();
    assert!(options.listen.ip().is_loopback(), "this server listens on loopback alone");
    load_tests::end_after(options.seconds_max);
    let settings = load_tests::upstream::Settings::new()
        .delay_ms(options.delay_ms)
        .text_bytes(options.bytes)
        .streams_all(options.sse)
        .events(options.events, options.spacing_ms)
        .listen_spacing_ms(options.listen_spacing_ms)
        .error_percent(options.error_percent)
        .tools(options.tools);
    load_tests::upstream::serve(options.listen, options.threads, settings)
}
