//! What survives a reload?
//!
//! Connections, health, metrics, the record and the keys the gateway made for itself. Made once; [`Runtime::adopt`]
//! takes a new snapshot in, adds what is new and retires what is gone.

mod budget;
mod catalog;
mod hub;
mod ledger;
mod mailbox;
mod table;
mod tasks;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::time::Instant;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::audit;
use crate::auth::oauth;
use crate::auth::oauth::Issuers;
use crate::auth::oauth::Tokens;
use crate::clock;
use crate::quota::Limit;
use crate::seal::Keyring;
use crate::snapshot::Snapshot;
use crate::telemetry::metrics::EndpointFigures;
use crate::telemetry::metrics::IssuerFigures;
use crate::telemetry::metrics::LimitFigures;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::metrics::ServerMetrics;
use crate::telemetry::observers::Observers;
use crate::transport::arrival::Front;
use crate::transport::buffers::Buffers;
use crate::transport::connection::Connection;
use crate::transport::delay::Delay;
use crate::transport::gate_io;
use crate::upstream::Circuit;
use crate::upstream::Endpoint;
use crate::upstream::Fleet;
use crate::upstream::Upstream;
use crate::upstream::Upstreams;

pub use crate::runtime::hub::About;
pub use crate::runtime::hub::Hub;
pub use crate::runtime::hub::Reads;
pub use crate::runtime::hub::Unread;
pub use crate::runtime::ledger::Ledger;
pub use crate::runtime::ledger::NotGranted;
pub use crate::runtime::ledger::Reservation;
pub use crate::runtime::ledger::Unreadable;
pub use crate::runtime::mailbox::Mailbox;
pub use crate::runtime::table::Kept;
pub use crate::runtime::table::Table;
pub use crate::runtime::tasks::TaskTools;

pub use crate::runtime::catalog::Catalog;

/// What one request works with: a snapshot, and the running things that belong to it. Never changes.
pub struct Active {
    /// The compiled configuration.
    pub snapshot: Snapshot,
    /// Connections to the snapshot's servers.
    pub fleet: Arc<Fleet>,
    /// Tokens of issuers that were verified under the snapshot.
    pub tokens: Tokens,
    /// Metric handles of the snapshot's servers.
    pub meters: HashMap<Arc<str>, ServerMetrics>,
}

/// What lives as long as the process.
pub struct Runtime {
    active: ArcSwap<Active>,
    upstreams: Upstreams,
    issuers: Issuers,
    /// Metrics of the whole process.
    pub metrics: Metrics,
    /// The record of every request.
    pub audit: Arc<audit::Log>,
    /// Who is told of each request beside the record.
    pub observers: Observers,
    /// The account of bytes that are held for clients and servers.
    pub buffers: Arc<Buffers>,
    /// How long work waits for a worker thread.
    pub delay: Arc<Delay>,
    /// Schemas of tools that repeat arguments in headers.
    pub catalog: Catalog,
    /// Which tasks were made by which tools.
    pub tasks: TaskTools,
    /// Streams of HTTP+SSE clients that are open on this node.
    pub mailboxes: Table<Mailbox>,
    /// Conversations of Streamable HTTP clients with servers of HTTP+SSE, which live on this node.
    pub hubs: Table<Hub>,
    /// Who has used how much.
    pub ledger: Arc<Ledger>,
    keyring: Option<Keyring>,
    changes: watch::Sender<u64>,
    /// Records that the metrics know of.
    records_counted: AtomicU64,
    draining: watch::Sender<bool>,
    closed: AtomicBool,
    in_flight: AtomicUsize,
    streams_max: usize,
    /// Where the gateway asks its own listener from, while it does.
    itself: Mutex<Option<SocketAddr>>,
}

/// What a [`Runtime`] is made of.
pub struct Parts {
    /// Connections to servers.
    pub upstreams: Upstreams,
    /// Metrics of the whole process.
    pub metrics: Metrics,
    /// The record of every request.
    pub audit: Arc<audit::Log>,
    /// Who is told of each request beside the record.
    pub observers: Observers,
    /// Sealing keys for a configuration that names none.
    pub keyring: Option<Keyring>,
    /// Event streams open at once, where the configuration does not say.
    pub streams_max: usize,
}

impl Runtime {
    /// Starts with a first snapshot.
    pub fn new(parts: Parts, snapshot: Snapshot) -> Self {
        let catalog = Catalog::default();
        catalog.adopt(targets(&snapshot));
        let changes = watch::Sender::new(snapshot.revision);
        let buffers = Buffers::new(snapshot.buffered_bytes_max);
        let issuers = Issuers::default();
        let active = activate(&parts.upstreams, &issuers, &parts.metrics, snapshot);
        let runtime = Self {
            active: ArcSwap::from_pointee(active),
            upstreams: parts.upstreams,
            issuers,
            metrics: parts.metrics,
            audit: parts.audit,
            observers: parts.observers,
            buffers,
            delay: Arc::default(),
            catalog,
            tasks: TaskTools::default(),
            mailboxes: Table::default(),
            hubs: Table::default(),
            ledger: Arc::default(),
            keyring: parts.keyring,
            changes,
            records_counted: AtomicU64::new(0),
            draining: watch::Sender::new(false),
            closed: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
            streams_max: parts.streams_max,
            itself: Mutex::default(),
        };
        runtime.tell_revision();
        runtime
    }

    /// Swaps a new snapshot in. Requests under way keep theirs; open streams are decided again.
    pub fn adopt(&self, snapshot: Snapshot) {
        let revision = snapshot.revision;
        self.catalog.adopt(targets(&snapshot));
        self.buffers.limit(snapshot.buffered_bytes_max);
        self.active.store(Arc::new(activate(&self.upstreams, &self.issuers, &self.metrics, snapshot)));
        self.tell_revision();
        self.changes.send_replace(revision);
    }

    /// Puts what is in force into the metrics, and not before it is: who reads its number there relies on it.
    fn tell_revision(&self) {
        let snapshot = &self.active.load().snapshot;
        self.metrics.config_loaded(snapshot.revision, &snapshot.sha256, clock::now_seconds());
    }

    /// Tells when another snapshot has come into force, or connections are no longer taken.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// What requests that begin now work with.
    pub fn active(&self) -> Arc<Active> {
        self.active.load_full()
    }

    /// Limits of a request head under the snapshot in force, without keeping it.
    pub fn gate(&self) -> gate_io::Limits {
        self.active.load().snapshot.gate
    }

    /// Who stands in front of the gateway, and how it is reached, under the snapshot in force.
    pub fn front(&self) -> Arc<Front> {
        Arc::clone(&self.active.load().snapshot.front)
    }

    /// Revision of the snapshot in force, without keeping it.
    pub fn revision(&self) -> u64 {
        self.active.load().snapshot.revision
    }

    /// The keys that seal and open session ids under `active`; `None` only if neither the configuration nor the
    /// state directory has any, which start refuses.
    pub fn keyring<'r>(&'r self, active: &'r Active) -> Option<&'r Keyring> {
        active.snapshot.keyring.as_ref().or(self.keyring.as_ref())
    }

    /// Whether there is a key for a configuration that names none.
    pub fn has_own_keyring(&self) -> bool {
        self.keyring.is_some()
    }

    /// Whether as many event streams are open as `active` allows. Calls answered by a stream at this very moment may
    /// exceed the number by as many as are in flight.
    pub fn streams_are_full(&self, active: &Active) -> bool {
        let streams_max = self.streams_max(active.snapshot.streams_max);
        usize::try_from(self.metrics.streams().value()).is_ok_and(|open| open >= streams_max)
    }

    /// Event streams that may be open at once: as configured, or what the process can hold.
    pub fn streams_max(&self, configured: Option<usize>) -> usize {
        configured.unwrap_or(self.streams_max)
    }

    /// The metrics in Prometheus' text format, those of the record and of upstreams as they are at this moment.
    pub fn render_metrics(&self) -> String {
        let stats = self.audit.stats();
        let counted = self.records_counted.fetch_max(stats.records, Ordering::Relaxed);
        self.metrics.audit_records().add(stats.records.saturating_sub(counted));
        self.metrics.audit_unsigned(stats.is_unsigned);
        self.metrics.audit_unavailable(!self.audit.available());
        self.metrics.load(self.buffers.held(), self.delay.standing());
        let active = self.active();
        let (mut endpoints, mut certificates) = (Vec::new(), Vec::new());
        for upstream in active.fleet.iter() {
            if let Some(meter) = active.meters.get(upstream.plan().name()) {
                let (pending, bytes) = upstream.pending();
                meter.upstream_up(upstream.is_up());
                meter.upstream_pending(pending, bytes);
            }
            let expiries = upstream.plan().certificate_expiries();
            let server = upstream.plan().name();
            certificates.extend(expiries.map(|(which, end)| (server.as_ref().to_owned(), which, end)));
            endpoints.extend(upstream.endpoints().iter().map(|endpoint| figures(upstream, endpoint)));
        }
        self.metrics.endpoints(&endpoints);
        self.metrics.certificates(&certificates);
        self.metrics.limits(&self.limit_figures(&active));
        self.metrics.issuers(&issuer_figures(&self.issuers));
        self.metrics.render()
    }

    /// What is known of each issuer's keys.
    pub fn issuers(&self, now: Instant) -> Vec<oauth::Figures> {
        self.issuers.figures(now)
    }

    /// How much is used of each limit of those whom the configuration names; what nobody used is not told.
    fn limit_figures(&self, active: &Active) -> Vec<LimitFigures> {
        let (mut figures, now) = (Vec::new(), clock::now_micros());
        self.ledger.each(active.snapshot.quotas.rules(), |rule, state| {
            for limit in Limit::ALL {
                let used = state.used(limit, now);
                let Some(most) = rule.most(limit).filter(|_| used > 0) else { continue };
                let (level, name) = (rule.subject().level.word(), rule.subject().name.to_string());
                figures.push(LimitFigures { level, name, limit: limit.word(), used, most });
            }
        });
        figures
    }

    /// Whether the process is on its way out: answers then close their connections.
    pub fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Tells when the process is on its way out.
    pub fn draining(&self) -> watch::Receiver<bool> {
        self.draining.subscribe()
    }

    /// Begins the way out.
    pub fn drain(&self) {
        self.draining.send_replace(true);
    }

    /// Whether connections are still taken.
    pub fn is_open(&self) -> bool {
        !self.closed.load(Ordering::Relaxed)
    }

    /// Takes no further connections: what the listener still accepts is ended at once, and standing streams end.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        self.changes.send_modify(|_| {});
    }

    /// The gateway asks its own listener whether it answers, from this address; `None` once it knows. What becomes of that
    /// concerns nobody's record.
    pub fn asks_itself_from(&self, address: Option<SocketAddr>) {
        *self.itself.lock().unwrap_or_else(PoisonError::into_inner) = address;
    }

    /// Whether it is the gateway itself that asks on a connection.
    pub fn is_itself(&self, connection: &Connection) -> bool {
        let itself = || *self.itself.lock().unwrap_or_else(PoisonError::into_inner);
        // Whom a balancer speaks for is for the balancer to say.
        connection.via().is_none() && connection.peer().is_some() && connection.peer() == itself()
    }

    /// Counts a request for as long as the guard lives.
    pub fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }

    /// Requests being answered.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }
}

/// A request being answered.
pub struct InFlight(Arc<Runtime>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

fn figures(upstream: &Upstream, endpoint: &Endpoint) -> EndpointFigures {
    EndpointFigures {
        server: upstream.plan().name().as_ref().to_owned(),
        endpoint: format!("{:016x}", endpoint.id()),
        origin: endpoint.origin().to_owned(),
        circuit: match upstream.circuit(endpoint) {
            Circuit::Closed => 0,
            Circuit::HalfOpen => 1,
            Circuit::Open => 2,
        },
        circuit_openings: upstream.circuit_openings(endpoint),
        connections: endpoint.connections(),
        pending: endpoint.pending(),
    }
}

fn issuer_figures(issuers: &Issuers) -> Vec<IssuerFigures> {
    let figures = issuers.figures(Instant::now()).into_iter().map(|known| IssuerFigures {
        issuer: known.issuer.as_ref().to_owned(),
        keys: known.keys,
        age_seconds: known.age.map(|age| age.as_secs()),
        fetched: known.fetched,
        failed: known.failed,
    });
    figures.collect()
}

/// What each server's name stands for.
fn targets(snapshot: &Snapshot) -> impl Iterator<Item = (Arc<str>, u64)> {
    snapshot.plans.iter().map(|plan| (Arc::clone(plan.name()), plan.target()))
}

fn activate(upstreams: &Upstreams, issuers: &Issuers, metrics: &Metrics, snapshot: Snapshot) -> Active {
    let fleet = upstreams.adopt(&snapshot.plans);
    let meters = snapshot
        .servers
        .iter()
        .map(|(name, tools)| {
            let tools: Vec<&str> = tools.iter().map(String::as_str).collect();
            (Arc::clone(name), metrics.server(name, &tools))
        })
        .collect();
    let names: Vec<&str> = snapshot.servers.iter().map(|(name, _)| &**name).collect();
    metrics.adopt(&names);
    metrics.shadow_asked(snapshot.shadow.is_some());
    let certificates = snapshot.front.tls.iter().flat_map(|tls| &tls.certificates);
    metrics.listener_certificates(certificates.map(|certificate| (certificate.name.as_str(), certificate.not_after)));
    let tokens = issuers.adopt(&snapshot.oauth);
    Active { snapshot, fleet, tokens, meters }
}
