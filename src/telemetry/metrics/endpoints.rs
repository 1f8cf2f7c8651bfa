//! What is measured of one endpoint of a server?
//!
//! Values that upstreams keep themselves, taken over when the metrics are read: nothing here is touched by a call.

use std::sync::Mutex;
use std::sync::PoisonError;

use prometheus::IntCounterVec;
use prometheus::IntGaugeVec;

use crate::telemetry::metrics::CounterFamily;
use crate::telemetry::metrics::GaugeFamily;
use crate::telemetry::metrics::Maker;
use crate::telemetry::metrics::family::Overflow;

const LABELS: [&str; 3] = ["server", "endpoint", "origin"];

/// One endpoint at this moment.
#[derive(Debug, Clone)]
pub struct EndpointFigures {
    /// The server's name.
    pub server: String,
    /// The endpoint as records name it.
    pub endpoint: String,
    /// `scheme://host:port`.
    pub origin: String,
    /// 0 closed, 1 half-open, 2 open.
    pub circuit: i64,
    /// How often the circuit opened.
    pub circuit_openings: u64,
    /// Open connections.
    pub connections: usize,
    /// Calls on their way.
    pub pending: usize,
}

/// The metrics that have series by endpoint.
pub(super) struct Endpoints {
    circuit: GaugeFamily,
    openings: CounterFamily,
    connections: GaugeFamily,
    pending: GaugeFamily,
    certificates: GaugeFamily,
    adopting: Mutex<()>,
}

impl Endpoints {
    pub(super) fn new(maker: &Maker) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| {
            let vec = IntGaugeVec::new(maker.opts(name, help), &LABELS)?;
            maker.family(vec, LABELS.len(), Overflow::Nowhere, name)
        };
        let (openings, help) = ("upstream_circuit_openings_total", "Times an endpoint's circuit opened.");
        let expiry = "upstream_certificate_expiry_timestamp_seconds";
        let expiry_help =
            "When the first certificate of a server's `ca_file` or `client_cert_file` ends, in seconds since 1970.";
        let certificates = IntGaugeVec::new(maker.opts(expiry, expiry_help), &["server", "certificate"])?;
        let openings_vec = IntCounterVec::new(maker.opts(openings, help), &LABELS)?;
        Ok(Self {
            circuit: gauge(
                "upstream_circuit",
                "Whether an endpoint that failed is asked: 0 it is, 1 by one call at a time, 2 it is left alone.",
            )?,
            openings: maker.family(openings_vec, LABELS.len(), Overflow::Nowhere, openings)?,
            connections: gauge("upstream_connections", "Connections open to an endpoint.")?,
            pending: gauge("upstream_endpoint_pending", "Calls on their way to an endpoint or back.")?,
            certificates: maker.family(certificates, 2, Overflow::Nowhere, expiry)?,
            adopting: Mutex::new(()),
        })
    }

    /// Takes over what is true at this moment; series of endpoints that are not among these go away.
    pub(super) fn adopt(&self, figures: &[EndpointFigures]) {
        let _one_at_a_time = self.adopting.lock().unwrap_or_else(PoisonError::into_inner);
        let is_there = |values: &[String]| {
            figures.iter().any(|known| values == [&*known.server, &*known.endpoint, &*known.origin])
        };
        self.circuit.retain(is_there);
        self.openings.retain(is_there);
        self.connections.retain(is_there);
        self.pending.retain(is_there);
        for known in figures {
            let values = [&*known.server, &*known.endpoint, &*known.origin];
            self.circuit.series(&values).set(known.circuit);
            let openings = self.openings.series(&values);
            openings.inc_by(known.circuit_openings.saturating_sub(openings.get()));
            self.connections.series(&values).set(known.connections.try_into().unwrap_or(i64::MAX));
            self.pending.series(&values).set(known.pending.try_into().unwrap_or(i64::MAX));
        }
    }

    /// Takes over which certificates of which servers end when; those of others go away.
    pub(super) fn adopt_certificates(&self, ends: &[(String, &'static str, i64)]) {
        let _one_at_a_time = self.adopting.lock().unwrap_or_else(PoisonError::into_inner);
        self.certificates.retain(|values| ends.iter().any(|(server, which, _)| values == [&**server, *which]));
        for (server, which, end) in ends {
            self.certificates.series(&[server, which]).set(*end);
        }
    }

    /// Only these servers have series from now on.
    pub(super) fn keep(&self, servers: &[&str]) {
        self.circuit.keep(servers);
        self.openings.keep(servers);
        self.connections.keep(servers);
        self.pending.keep(servers);
        self.certificates.keep(servers);
    }
}
