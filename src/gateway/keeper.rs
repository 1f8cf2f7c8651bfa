//! Refused heads: the answer and the record of what never became a request.

use std::sync::Arc;

use tokio::sync::watch;

use crate::audit;
use crate::clock;
use crate::mcp::error;
use crate::runtime::Runtime;
use crate::transport::arrival::Front;
use crate::transport::buffers::Buffers;
use crate::transport::connection::Connection;
use crate::transport::gate_io::Gatekeeper;
use crate::transport::gate_io::Limits;
use crate::transport::gate_io::Refused;
use crate::transport::head;

use super::refusal::Refusal;
use super::whence;

/// Answers the gate's questions from the snapshot in force.
pub struct Keeper {
    runtime: Arc<Runtime>,
}

impl Keeper {
    /// A keeper that records into `runtime`.
    pub fn new(runtime: Arc<Runtime>) -> Self {
        Self { runtime }
    }

    fn record(&self, request: &audit::Request<'_>, refusal: &audit::Refusal<'_>) {
        let now = clock::now_micros();
        self.runtime.audit.refused_before_auth(request, refusal, now);
        self.runtime.metrics.refused(refusal.reason);
        if let Some(access) = &self.runtime.observers.access {
            access.tell(&audit::access_line(request, audit::Ended::Refused(None, refusal), None, now), false);
        }
    }
}

impl Gatekeeper for Keeper {
    fn is_open(&self) -> bool {
        self.runtime.is_open()
    }

    fn limits(&self) -> Limits {
        self.runtime.gate()
    }

    fn buffers(&self) -> &Arc<Buffers> {
        &self.runtime.buffers
    }

    fn draining(&self) -> watch::Receiver<bool> {
        self.runtime.draining()
    }

    fn front(&self) -> Arc<Front> {
        self.runtime.front()
    }

    fn is_itself(&self, connection: &Connection) -> bool {
        self.runtime.is_itself(connection)
    }

    fn dropped(&self, connection: &Connection, reason: &'static str) {
        if connection.is_own() {
            return;
        }
        let on_record =
            audit::Refusal { reason, rule: None, limit_of: None, status: None, phases: audit::Phases::default() };
        self.record(&whence::of_connection(connection), &on_record);
    }

    fn refused(&self, connection: &Connection, refusal: &head::Refusal, bytes: &[u8]) -> Refused {
        let wire = Refusal::Head(*refusal).wire(false, None);
        let (method, target) = request_line(bytes);
        let request = audit::Request { http_method: method, target, ..whence::of_connection(connection) };
        let on_record = audit::Refusal {
            reason: refusal.reason,
            rule: None,
            limit_of: None,
            status: Some(wire.status),
            phases: audit::Phases::default(),
        };
        if !connection.is_own() {
            self.record(&request, &on_record);
        }
        let body = error::error_body(None, wire.code, &wire.text, None);
        Refused { status: wire.status, header: wire.header, body }
    }
}

/// Method and target of a head, where they can be told at all.
fn request_line(head: &[u8]) -> (Option<&str>, Option<&[u8]>) {
    let line = head.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    let mut parts = line.split(|byte| *byte == b' ');
    let method = parts
        .next()
        .filter(|method| !method.is_empty() && method.len() <= 16 && method.iter().all(u8::is_ascii_uppercase));
    let method = method.and_then(|method| std::str::from_utf8(method).ok());
    (method, method.and(parts.next()).filter(|target| target.first() == Some(&b'/')))
}
