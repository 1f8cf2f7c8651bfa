//! What do hostile peers achieve?
//!
//! Clients that drip, flood, do not read or leave; upstreams that die or hang. Each attack has a gateway of its own, is
//! bounded in count and time, and ends in figures and claims: what was attacked gives up what the attack held, and others
//! hardly notice. The quick form shows within seconds that nothing is broken, the full form is the proof.

mod aborts;
mod bodies;
mod deadly;
mod flood;
mod hanging;
mod kills;
mod legit;
mod readers;
mod slowloris;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::stand::Ended;
use crate::stand::Gateway;
use crate::stand::Held;
use crate::stand::Upstream;
use crate::verdict::Report;

/// What an attack stands on.
#[derive(Debug)]
pub struct Ground {
    /// Directory with the programs.
    pub programs: PathBuf,
    /// Directory for configurations, records and logs.
    pub scratch: PathBuf,
    /// Whether seconds must do.
    pub is_quick: bool,
    /// What happens when.
    pub seed: u64,
}

/// One attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Attack {
    /// Thousands of connections that drip their headers.
    Slowloris,
    /// Hundreds of connections that drip their bodies.
    Bodies,
    /// Hundreds of clients that do not read their long answers.
    Readers,
    /// Thousands of clients that connect, call and leave.
    Aborts,
    /// Clients that send the largest body there is, all at once.
    Flood,
    /// An upstream whose connections die at random points of the exchange.
    Kills,
    /// An upstream that never answers, beside one that does.
    Hanging,
}

impl Attack {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Slowloris, Self::Bodies, Self::Readers, Self::Aborts, Self::Flood, Self::Kills, Self::Hanging];

    /// Attacks, and says what was seen.
    ///
    /// # Errors
    /// When something cannot be started.
    pub fn run(self, ground: &Ground) -> io::Result<Report> {
        match self {
            Self::Slowloris => slowloris::attack(ground),
            Self::Bodies => bodies::attack(ground),
            Self::Readers => readers::attack(ground),
            Self::Aborts => aborts::attack(ground),
            Self::Flood => flood::attack(ground),
            Self::Kills => kills::attack(ground),
            Self::Hanging => hanging::attack(ground),
        }
    }
}

impl Ground {
    /// `quick` of it where seconds must do, else `full`.
    fn sized<T>(&self, quick: T, full: T) -> T {
        if self.is_quick { quick } else { full }
    }

    /// An upstream that answers.
    fn upstream(&self, name: &str) -> io::Result<Upstream> {
        Upstream::start(&self.programs.join("upstream"), &self.scratch, name, &[])
    }

    /// A gateway in front of these servers, each a name, a URL's address and further keys.
    fn gateway(&self, name: &str, listen: &str, servers: &[(&str, std::net::SocketAddr, &str)]) -> io::Result<Gateway> {
        let rest = |digest: &str| {
            let tables = servers
                .iter()
                .map(|(name, address, keys)| format!("\n[servers.{name}]\nurl = \"http://{address}/mcp\"\n{keys}\n"));
            let names: Vec<String> = servers.iter().map(|(name, ..)| format!("\"{name}\"")).collect();
            let key = format!("\n[keys.load]\ndigest = \"{digest}\"\nmcp_servers = [{}]\n", names.join(", "));
            tables.chain(std::iter::once(key)).collect()
        };
        Gateway::start(&self.programs.join("portcullis"), &self.scratch.join(name), listen, rest)
    }
}

/// A runtime of one thread, for clients by the thousand.
fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Connects from one of many addresses of loopback.
async fn connect(number: u64, to: std::net::SocketAddr) -> io::Result<tokio::net::TcpStream> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.bind((crate::stand::source(number), 0).into())?;
    let stream = socket.connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// What must hold of every gateway once an attack is over: it lives, holds what it held, and ends properly.
fn afterwards(ground: &Ground, report: &mut Report, gateway: Gateway, base: Held) -> io::Result<Ended> {
    let patience = ground.sized(Duration::ZERO, Duration::from_secs(20));
    let held = gateway.settled(base, SETTLE_MAX);
    report.claim(
        "descriptors and threads are back where they were",
        held.descriptors <= base.descriptors && held.threads <= base.threads,
        format!(
            "{} descriptors of {} before, {} threads of {}",
            held.descriptors, base.descriptors, held.threads, base.threads
        ),
    );
    let open = gateway.figure("portcullis_connections")?;
    report.claim("no connection is counted as open", open == 0.0, format!("{open}"));
    report.figure("peak_mib", gateway.process.peak_kib() / 1024.0);
    report.figure("memory_before_mib", base.anonymous_kib / 1024.0);
    // The allocator gives back what is unused for some seconds.
    std::thread::sleep(patience);
    report.figure("memory_after_mib", gateway.held().anonymous_kib / 1024.0);
    let ended = gateway.end()?;
    let panics = ended.panics();
    let seen = panics.first().map_or("none".to_owned(), |panic| (*panic).to_owned());
    report.claim("the gateway lives, without a panic", panics.is_empty() && ended.status.success(), seen);
    Ok(ended)
}

/// Claims that the gateway never held more than it may, as the kernel counts it.
fn is_bounded(report: &mut Report, gateway: &Gateway) {
    let peak = gateway.process.peak_kib() / 1024.0;
    report.claim(
        format!("the gateway holds at most {PEAK_MIB_MAX} MiB"),
        peak <= PEAK_MIB_MAX,
        format!("{peak:.0} MiB"),
    );
}

/// What a gateway may hold at once.
const PEAK_MIB_MAX: f64 = 512.0;

/// Whether an attack that is to be bounded by the gateway has gone so far that the machine is to be spared the rest.
fn is_too_much(gateway: &Gateway) -> bool {
    gateway.held().anonymous_kib > TOO_MUCH_KIB
}

/// What no gateway of an attack is let grow beyond.
const TOO_MUCH_KIB: f64 = 2.0 * 1024.0 * 1024.0;

/// How long the gateway may take to hold what it held before.
const SETTLE_MAX: Duration = Duration::from_secs(25);

/// What a gateway holds that has served, so that its threads are there and its kept connections are gone.
fn warmed(gateway: &Gateway, server: &str) -> Held {
    let before = gateway.held();
    let warming = legit::Callers { count: 8, per_second: 200.0, era: crate::messages::Era::Plain };
    let _ = legit::during(gateway, server, warming, || std::thread::sleep(Duration::from_millis(700)));
    let warm = gateway.settled(Held { threads: usize::MAX, ..before }, SETTLE_MAX);
    Held { descriptors: before.descriptors, ..warm }
}
