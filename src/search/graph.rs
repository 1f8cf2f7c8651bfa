//! Who calls what, and how does it go?
//!
//! From the hourly sums that are kept along with the rows: a week costs the pairs of a week, however many calls there were.

use std::collections::HashMap;

use rusqlite::Connection;
use rusqlite::params;

use crate::search::database::int;
use crate::search::database::number;
use crate::search::day::HOUR_MICROS;
use crate::search::schema::Side;

/// Edges of one graph; those with the fewest calls are left out.
pub const GRAPH_EDGES_MAX: usize = 10_000;

/// Who is at the beginning of a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Caller {
    /// An agent, by its name.
    Agent(String),
    /// A principal that is no agent: `key:ci`.
    Principal(String),
    /// Nobody the gateway recognised.
    Unknown,
}

/// What went along an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flow {
    /// Requests that were let through.
    pub calls: u64,
    /// Requests that were refused, those included that were only counted.
    pub denials: u64,
    /// Requests that were let through and ended as an error: every outcome but `ok`, `accepted` and `client_gone`.
    pub errors: u64,
    /// Mean time of those that ended, in microseconds; streams that last as long as their clients stay are left out.
    pub latency_mean_micros: Option<u64>,
    /// The longest.
    pub latency_max_micros: Option<u64>,
}

/// The workflow graph of a time. Requests that name no server are in none of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Graph {
    /// From callers to servers, those with the most requests first.
    pub to_servers: Vec<(Caller, String, Flow)>,
    /// From servers to their tools, those with the most requests first. `…` are tools that an hour had no room for.
    pub to_tools: Vec<(String, String, Flow)>,
    /// Whether edges were left out.
    pub is_cut: bool,
}

/// Sums over days.
#[derive(Default)]
pub(super) struct Sums {
    to_servers: HashMap<(Caller, String), Sum>,
    to_tools: HashMap<(String, String), Sum>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    calls: u64,
    denials: u64,
    errors: u64,
    timed: u64,
    latency_sum: u64,
    latency_max: u64,
}

impl Sums {
    /// Adds the hours of a day that a range touches.
    pub(super) fn add(
        &mut self,
        connection: &Connection,
        since_micros: Option<u64>,
        until_micros: Option<u64>,
    ) -> rusqlite::Result<()> {
        let since = since_micros.map_or(0, |since| since / HOUR_MICROS);
        let until = until_micros.map_or(u64::MAX, |until| until.saturating_sub(1) / HOUR_MICROS);
        // Added up here, which is faster than having SQLite sort them.
        let sql = "SELECT side, a, b, calls, denials, errors, timed, latency_sum, latency_max
            FROM pairs WHERE hour BETWEEN ?1 AND ?2";
        let mut select = connection.prepare_cached(sql)?;
        let mut rows = select.query(params![int(since), int(until)])?;
        let mut sums: HashMap<(i64, i64, i64), Sum> = HashMap::new();
        while let Some(row) = rows.next()? {
            sums.entry((row.get(0)?, row.get(1)?, row.get(2)?)).or_default().add(&Sum {
                calls: number(row.get(3)?),
                denials: number(row.get(4)?),
                errors: number(row.get(5)?),
                timed: number(row.get(6)?),
                latency_sum: number(row.get(7)?),
                latency_max: number(row.get(8)?),
            });
        }
        let mut read = connection.prepare_cached("SELECT text FROM words WHERE id = ?1")?;
        let mut word = |id: i64| read.query_row([id], |row| row.get::<_, String>(0));
        for ((side, a, b), sum) in sums {
            let Some(side) = Side::ALL.into_iter().find(|known| known.id() == side) else { continue };
            let whole = match side {
                Side::Agent => self.to_servers.entry((Caller::Agent(word(a)?), word(b)?)).or_default(),
                Side::Principal => self.to_servers.entry((Caller::Principal(word(a)?), word(b)?)).or_default(),
                Side::Unknown => self.to_servers.entry((Caller::Unknown, word(b)?)).or_default(),
                Side::Tool => self.to_tools.entry((word(a)?, word(b)?)).or_default(),
            };
            whole.add(&sum);
        }
        Ok(())
    }

    pub(super) fn graph(self) -> Graph {
        let (to_servers, servers_cut) = edges(self.to_servers);
        let (to_tools, tools_cut) = edges(self.to_tools);
        Graph {
            to_servers: to_servers.into_iter().map(|((caller, server), flow)| (caller, server, flow)).collect(),
            to_tools: to_tools.into_iter().map(|((server, tool), flow)| (server, tool, flow)).collect(),
            is_cut: servers_cut || tools_cut,
        }
    }
}

fn edges<E: Ord>(sums: HashMap<E, Sum>) -> (Vec<(E, Flow)>, bool) {
    let mut edges: Vec<(E, Flow)> = sums.into_iter().map(|(edge, sum)| (edge, sum.flow())).collect();
    let requests = |flow: &Flow| flow.calls + flow.denials;
    edges.sort_by(|(a, flow_a), (b, flow_b)| requests(flow_b).cmp(&requests(flow_a)).then_with(|| a.cmp(b)));
    let is_cut = edges.len() > GRAPH_EDGES_MAX;
    edges.truncate(GRAPH_EDGES_MAX);
    (edges, is_cut)
}

impl Sum {
    fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.denials += other.denials;
        self.errors += other.errors;
        self.timed += other.timed;
        self.latency_sum += other.latency_sum;
        self.latency_max = self.latency_max.max(other.latency_max);
    }

    fn flow(self) -> Flow {
        let Self { calls, denials, errors, timed, latency_sum, latency_max } = self;
        let is_timed = timed > 0;
        Flow {
            calls,
            denials,
            errors,
            latency_mean_micros: latency_sum.checked_div(timed),
            latency_max_micros: is_timed.then_some(latency_max),
        }
    }
}
