//! Which servers are there, and how are they reached?
//!
//! Pure: configuration in, plain values out, every mistake reported. Two equal plans behave the same, so an unchanged
//! server keeps its connections and its health across a reload.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;

use crate::config::model;
use crate::config::model::Balancing;
use crate::config::model::Config;
use crate::config::model::Health;
use crate::config::model::HealthType;
use crate::config::model::Server;
use crate::config::problem::At;
use crate::config::problem::Problems;
use crate::upstream::breaker;
use crate::upstream::credential::UpstreamCredential;
use crate::upstream::limits::Limits;
use crate::upstream::target::Target;
use crate::upstream::times::Timeouts;
use crate::upstream::times::Times;
use crate::upstream::times::wait;
use crate::upstream::tls::Tls;

/// Endpoints of one server.
pub const ENDPOINTS_MAX: usize = 64;
/// Weight of one endpoint. The balancer keeps a slot per unit of weight.
pub const WEIGHT_MAX: usize = 1_000;
/// Longest of the waits that can be configured: a day.
pub const WAIT_MS_MAX: u64 = 24 * 60 * 60 * 1_000;
/// Shortest time between two health checks; shorter would be a load of its own.
pub const HEALTH_INTERVAL_MS_MIN: u64 = 100;

/// Shortest time between two resolutions of a name; shorter would be a load of its own.
const RESOLVE_INTERVAL_MS_MIN: u64 = 100;

/// Every server's plan.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plans {
    servers: BTreeMap<Arc<str>, Arc<Plan>>,
}

impl Plans {
    /// Reads every server of the configuration. A server with a mistake is left out, and the mistake reported at its place.
    pub fn compile(config: &Config, problems: &mut Problems) -> Self {
        let plans = config.servers.iter().filter_map(|(name, server)| {
            let plan = Plan::compile(name, server, &At::entry("servers", name), problems)?;
            Some((Arc::clone(&plan.name), Arc::new(plan)))
        });
        Self { servers: plans.collect() }
    }

    /// The plan of a server.
    pub fn get(&self, server: &str) -> Option<&Arc<Plan>> {
        self.servers.get(server)
    }

    /// All plans, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Plan>> {
        self.servers.values()
    }
}

/// How one server is reached.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    pub(crate) name: Arc<str>,
    pub(crate) transport: Transport,
    pub(crate) endpoints: Vec<Placed>,
    pub(crate) credential: UpstreamCredential,
    pub(crate) tls: Option<Tls>,
    pub(crate) connect_timeout: Duration,
    pub(crate) timeouts: Timeouts,
    pub(crate) stream_idle_timeout: Duration,
    pub(crate) answer_bytes_max: usize,
    pub(crate) limits: Limits,
    pub(crate) balance: Balancing,
    pub(crate) slow_start: Duration,
    pub(crate) resolve_interval: Duration,
    pub(crate) health: Check,
    /// `None`: failing endpoints are asked all the same.
    pub(crate) breaker: Option<breaker::Rules>,
}

/// One endpoint among the others.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Placed {
    pub(crate) target: Target,
    pub(crate) weight: usize,
    pub(crate) is_draining: bool,
}

/// How a server is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    /// One endpoint takes messages and answers them: 2025-03-26 and later.
    StreamableHttp,
    /// One stream names where messages go, and carries the answers: HTTP+SSE of 2024-11-05.
    Sse,
}

/// How the health of a server's endpoints is checked.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Check {
    /// Not at all.
    None,
    /// By opening a connection.
    Tcp { interval: Duration },
    /// By asking for a path.
    Http { interval: Duration, path: Uri },
}

impl Plan {
    /// The server's configured name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Whether the server speaks HTTP+SSE of 2024-11-05: its URL is that of the stream, whose `endpoint` event names where messages
    /// go. Every other server speaks Streamable HTTP.
    pub fn speaks_sse(&self) -> bool {
        self.transport == Transport::Sse
    }

    /// A number made of the endpoints: another one when the server's name comes to stand for others.
    pub fn target(&self) -> u64 {
        self.endpoints.iter().fold(0, |sum, placed| sum.wrapping_add(placed.target.id))
    }

    /// What the configuration says to present to the server.
    pub fn credential(&self) -> &UpstreamCredential {
        &self.credential
    }

    /// Whether a caller is sent to the same endpoint each time.
    pub fn balances_by_caller(&self) -> bool {
        self.balance == Balancing::Ketama
    }

    /// The times of a call of this tool, or of what calls none.
    pub fn times(&self, tool: Option<&str>) -> Times {
        self.timeouts.of(tool)
    }

    /// When certificates that the configuration names end: which, and seconds since 1970.
    pub fn certificate_expiries(&self) -> impl Iterator<Item = (&'static str, i64)> {
        self.tls.iter().flat_map(Tls::expiries)
    }

    /// Longest silence on a standing event stream.
    pub fn stream_idle_timeout(&self) -> Duration {
        self.stream_idle_timeout
    }

    /// Bytes of one message of the server.
    pub fn answer_bytes_max(&self) -> usize {
        self.answer_bytes_max
    }

    /// Whether anybody asks how its endpoints are. Of a single one nothing depends on the answer.
    pub(crate) fn checks_health(&self) -> bool {
        self.endpoints.len() > 1 && self.health != Check::None
    }

    /// Reads one server. `None` if a mistake leaves nothing to serve with.
    pub(crate) fn compile(name: &str, server: &Server, at: &At, problems: &mut Problems) -> Option<Self> {
        let connect_timeout = wait("connect_timeout_ms", server.connect_timeout_ms, at, problems);
        let timeouts = Timeouts::compile(server, at, problems);
        let stream_idle_timeout = wait("stream_idle_timeout_ms", server.stream_idle_timeout_ms, at, problems);
        let resolve_interval = resolve_interval(server.resolve_interval_ms, at, problems);
        if server.slow_start_ms > WAIT_MS_MAX {
            let help = format!("write milliseconds up to {WAIT_MS_MAX}");
            problems.error(&at.key("slow_start_ms"), format!("a wait of {} ms", server.slow_start_ms), help);
        }
        if server.answer_bytes_max == 0 {
            problems.error(&at.key("answer_bytes_max"), "no answer fits into 0 bytes", "the default is 16777216");
        }
        let transport = transport(server, at, problems);
        let credential = UpstreamCredential::compile(server, at, problems);
        let health = check(&server.health, &at.key("health"), problems);
        let limits = Limits::compile(server, at, problems);
        let breaker = breaker::Rules::compile(&server.breaker, &at.key("breaker"), problems);
        let transport = transport?;
        let tls = Tls::compile(&server.tls, &at.key("tls"), problems);
        let mut endpoints = endpoints(server, at, problems);
        if let Some(tls) = &tls {
            secure(&mut endpoints, tls, &at.key("tls"), problems);
        }
        (!endpoints.is_empty()).then(|| Self {
            name: name.into(),
            transport,
            endpoints,
            credential,
            tls,
            connect_timeout,
            timeouts,
            stream_idle_timeout,
            answer_bytes_max: server.answer_bytes_max,
            limits,
            balance: server.balance,
            slow_start: Duration::from_millis(server.slow_start_ms),
            resolve_interval,
            health,
            breaker,
        })
    }
}

fn resolve_interval(interval_ms: u64, at: &At, problems: &mut Problems) -> Duration {
    if !(RESOLVE_INTERVAL_MS_MIN..=WAIT_MS_MAX).contains(&interval_ms) {
        let help = format!("write milliseconds between {RESOLVE_INTERVAL_MS_MIN} and {WAIT_MS_MAX}");
        problems.error(&at.key("resolve_interval_ms"), format!("names resolved every {interval_ms} ms"), help);
    }
    Duration::from_millis(interval_ms.clamp(RESOLVE_INTERVAL_MS_MIN, WAIT_MS_MAX))
}

/// How the server is spoken to; reports a transport that is contradictory or not served. `None` where there is no URL by
/// nature; of a contradiction it is worth saying what else is wrong.
fn transport(server: &Server, at: &At, problems: &mut Problems) -> Option<Transport> {
    let (key, transport) = match (server.transport, server.r#type) {
        (Some(transport), Some(other)) if transport != other => {
            let help = "keep one of the two: they mean the same";
            problems.error(&at.key("type"), "`type` and `transport` contradict each other", help);
            ("transport", model::Transport::StreamableHttp)
        }
        (Some(transport), _) => ("transport", transport),
        (None, Some(transport)) => ("type", transport),
        (None, None) => ("transport", model::Transport::StreamableHttp),
    };
    match transport {
        model::Transport::StreamableHttp => Some(Transport::StreamableHttp),
        model::Transport::Sse => Some(Transport::Sse),
        model::Transport::Stdio => {
            let help = "`streamable-http` and `sse` are, so far";
            problems.error(&at.key(key), "`stdio` servers are not yet served", help);
            None
        }
    }
}

fn endpoints(server: &Server, at: &At, problems: &mut Problems) -> Vec<Placed> {
    let list = at.key("endpoints");
    match &server.url {
        Some(_) if !server.endpoints.is_empty() => {
            problems.error(
                &list,
                "both `url` and `endpoints` are given",
                "keep `url` for one endpoint, `endpoints` for several",
            );
        }
        None if server.endpoints.is_empty() => {
            problems.error(at, "neither `url` nor `endpoints` is given", "add `url = \"https://mcp.example.com/mcp\"`");
        }
        _ => {}
    }
    if server.endpoints.len() > ENDPOINTS_MAX {
        problems.error(&list, format!("more than {ENDPOINTS_MAX} endpoints"), "put a load balancer before them");
    }
    let mut found: Vec<Placed> = Vec::new();
    if let Some(url) = &server.url {
        let target = target(url, &at.key("url"), problems);
        found.extend(target.map(|target| Placed { target, weight: 1, is_draining: false }));
    }
    for (index, endpoint) in server.endpoints.iter().enumerate() {
        let at = list.index(index);
        if endpoint.weight == 0 || endpoint.weight > WEIGHT_MAX {
            let help =
                format!("write a weight between 1 and {WEIGHT_MAX}; leave an endpoint out that nobody should use");
            problems.error(&at.key("weight"), format!("a weight of {}", endpoint.weight), help);
        }
        let at = at.key("url");
        let Some(target) = target(&endpoint.url, &at, problems) else {
            continue;
        };
        if found.iter().any(|other| other.target.id == target.id) {
            problems.error(&at, "this endpoint is listed twice", "give one of them the sum of the weights");
        }
        let weight = endpoint.weight.clamp(1, WEIGHT_MAX);
        found.push(Placed { target, weight, is_draining: endpoint.draining });
    }
    if !found.is_empty() && found.iter().all(|placed| placed.is_draining) {
        let help = "sessions that are there go on; new ones and calls without one are refused";
        problems.warning(&list, "every endpoint is draining", help);
    }
    found
}

/// Gives endpoints the name to verify, and refuses TLS that none of them would use.
fn secure(endpoints: &mut [Placed], tls: &Tls, at: &At, problems: &mut Problems) {
    let mut names = endpoints.iter_mut().filter_map(|placed| placed.target.tls.as_mut()).peekable();
    if names.peek().is_none() {
        problems.error(
            at,
            "`tls` is set, and no endpoint speaks TLS",
            "write the URL with `https`, or leave `tls` out",
        );
    }
    if let Some(name) = &tls.server_name {
        names.for_each(|known| known.clone_from(name));
    }
}

fn target(url: &str, at: &At, problems: &mut Problems) -> Option<Target> {
    Target::parse(url).map_err(|bad| problems.error(at, bad.message, bad.help)).ok()
}

fn check(health: &Health, at: &At, problems: &mut Problems) -> Check {
    let interval_ms = health.interval_ms;
    if !(HEALTH_INTERVAL_MS_MIN..=WAIT_MS_MAX).contains(&interval_ms) {
        let help = format!("write milliseconds between {HEALTH_INTERVAL_MS_MIN} and {WAIT_MS_MAX}");
        problems.error(&at.key("interval_ms"), format!("a health check every {interval_ms} ms"), help);
    }
    let interval = Duration::from_millis(interval_ms.clamp(HEALTH_INTERVAL_MS_MIN, WAIT_MS_MAX));
    match health.r#type {
        HealthType::None => Check::None,
        HealthType::Tcp => Check::Tcp { interval },
        HealthType::Http => {
            let path =
                Some(&health.path).filter(|path| path.starts_with('/') && path.is_ascii() && !path.contains('#'));
            match path.and_then(|path| path.parse::<Uri>().ok()).filter(|path| path.authority().is_none()) {
                Some(path) => Check::Http { interval, path },
                None => {
                    problems.error(&at.key("path"), "this is not a path", "write one such as `/healthz`");
                    Check::Tcp { interval }
                }
            }
        }
    }
}
