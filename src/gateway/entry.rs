//! The entry a request leaves on record: exactly one refusal, or one intent and one result.
//!
//! Filled in as the request is understood. Whatever ends the request (an answer, a panic, an aborted task, shutdown)
//! closes the entry: dropping one that is still open puts it on record as `abandoned`.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use std::time::Instant;

use http::HeaderValue;
use http::Uri;

use crate::audit;
use crate::audit::Digested;
use crate::audit::Digester;
use crate::audit::Ending;
use crate::clock;
use crate::config::model::Money;
use crate::config::problem::At;
use crate::mcp::message::Message;
use crate::mcp::message::MessageKind;
use crate::mcp::method;
use crate::mcp::method::Target;
use crate::mcp::revision::Revision;
use crate::policy::Permitted;
use crate::principal::Link;
use crate::principal::Principal;
use crate::principal::Report;
use crate::principal::Subject;
use crate::runtime::Active;
use crate::runtime::InFlight;
use crate::runtime::Reservation;
use crate::runtime::Runtime;
use crate::telemetry::metrics;
use crate::telemetry::metrics::Compared;
use crate::telemetry::metrics::Method;
use crate::telemetry::metrics::Outcome;
use crate::telemetry::metrics::Phase;
use crate::telemetry::metrics::Transport;
use crate::telemetry::observers::Observers;
use crate::transport::buffers::Holder;
use crate::transport::route::Door;

use super::debug::Debug;
use super::refusal::Refusal;
use super::shadow::Diverging;
use super::trace::Trace;
use super::whence::Whence;

/// What is known about one request, for record and metrics.
pub(crate) struct Entry {
    runtime: Arc<Runtime>,
    active: Arc<Active>,
    _in_flight: InFlight,
    stage: Stage,
    pub(crate) whence: Whence,
    pub(crate) http_method: http::Method,
    pub(crate) target: Uri,
    pub(crate) user_agent: Option<HeaderValue>,
    /// What the client says it is called, where rules speak of that.
    client: Option<Box<str>>,
    /// The agents of which rules speak and that the client says it is.
    reported: Option<Box<str>>,
    pub(crate) principal: Option<Arc<Principal>>,
    pub(crate) server: Option<Arc<str>>,
    pub(crate) revision: Option<Revision>,
    pub(crate) upstream_session: Option<String>,
    /// Raw JSON of the request's id: errors echo it.
    pub(crate) id: Option<Box<str>>,
    pub(crate) rpc_method: Option<Box<str>>,
    pub(crate) tool: Option<Box<str>>,
    /// The resource or prompt that the request names.
    pub(crate) named: Option<Named>,
    pub(crate) door: Option<Door>,
    pub(crate) kind: Option<MessageKind>,
    /// What the candidate would have decided otherwise.
    pub(crate) shadow: Option<Diverging>,
    /// Status of the answer, once one was begun.
    pub(crate) status: Option<u16>,
    pub(crate) endpoint: Option<u64>,
    pub(crate) attempts: u32,
    /// Whether a connection has had the request.
    pub(crate) was_handed: AtomicBool,
    /// What the caller is told of the decision, where it asked and may.
    pub(crate) debug: Option<Box<Debug>>,
    /// Whether a key is asked for, not a server; and which, until it is minted.
    pub(crate) is_minting: bool,
    pub(crate) asked: Option<Box<Link>>,
    /// What is done of the gateway's own accord counts as nobody's use.
    pub(crate) is_own: bool,
    /// What the call uses, until it is known what came of it.
    pub(crate) reserved: Option<Box<Reservation>>,
    /// For those who are told of the request at its end; `None` where nobody is.
    pub(crate) trace: Option<Box<Trace>>,
    sent: Option<Digested>,
    pub(crate) received: Digester,
    /// What the request and its answer take of the process's account of bytes.
    pub(crate) body: Holder,
    pub(crate) answer: Holder,
    clock: Stopwatch,
}

/// What a request names that is no tool.
#[derive(Debug, Clone)]
pub(crate) enum Named {
    /// A resource, by its URI.
    Resource(Box<str>),
    /// A prompt, by its name.
    Prompt(Box<str>),
}

impl Named {
    fn by(message: &Message) -> Option<Self> {
        let target = message.target()?;
        match method::target(message.method()?)? {
            Target::Uri => Some(Self::Resource(target.into())),
            Target::Name => message.tool().is_none().then(|| Self::Prompt(target.into())),
            Target::Reference => {
                let reference = message.params()?.get("ref")?;
                let is_prompt = reference.get("type")?.text() == Some("ref/prompt");
                Some(if is_prompt { Self::Prompt(target.into()) } else { Self::Resource(target.into()) })
            }
            Target::Task => None,
        }
    }
}

enum Stage {
    Open,
    /// The record is being written; if the request is dropped now, the log itself closes what it may have begun.
    Intending,
    Intended(audit::Receipt),
    Closed,
}

/// Time spent, phase by phase.
struct Stopwatch {
    started: Instant,
    lap: Instant,
    record: audit::Phases,
    metric: metrics::Phases,
}

impl Entry {
    /// Opens the entry of a request that has just been read.
    pub(crate) fn open(
        runtime: &Arc<Runtime>,
        active: Arc<Active>,
        whence: Whence,
        head: &pingora::http::RequestHeader,
    ) -> Self {
        let mut entry = Self::blank(runtime, active);
        entry.whence = whence;
        entry.http_method = head.method.clone();
        entry.target = head.uri.clone();
        entry.user_agent = head.headers.get(http::header::USER_AGENT).cloned();
        entry.trace = Trace::of_head(&runtime.observers, head);
        entry.note_report(None);
        entry
    }

    /// Opens the entry of something else that the same caller asks for within this request: an item of a batch, or what the
    /// gateway does on the caller's behalf.
    pub(crate) fn child(&self) -> Self {
        let mut entry = Self::blank(&self.runtime, Arc::clone(&self.active));
        entry.whence = self.whence.clone();
        entry.http_method = self.http_method.clone();
        entry.target = self.target.clone();
        entry.user_agent.clone_from(&self.user_agent);
        entry.client.clone_from(&self.client);
        entry.reported.clone_from(&self.reported);
        entry.principal.clone_from(&self.principal);
        entry.server.clone_from(&self.server);
        entry.revision = self.revision;
        entry.upstream_session.clone_from(&self.upstream_session);
        entry.door = self.door;
        entry.trace = self.trace.as_ref().map(|trace| trace.child());
        entry
    }

    /// An entry of which nothing is known yet.
    fn blank(runtime: &Arc<Runtime>, active: Arc<Active>) -> Self {
        Self {
            runtime: Arc::clone(runtime),
            active,
            _in_flight: runtime.begin(),
            stage: Stage::Open,
            whence: Whence::default(),
            http_method: http::Method::GET,
            target: Uri::default(),
            user_agent: None,
            client: None,
            reported: None,
            principal: None,
            server: None,
            revision: None,
            upstream_session: None,
            id: None,
            rpc_method: None,
            tool: None,
            named: None,
            door: None,
            kind: None,
            shadow: None,
            status: None,
            endpoint: None,
            attempts: 0,
            was_handed: AtomicBool::new(false),
            debug: None,
            is_minting: false,
            asked: None,
            is_own: false,
            reserved: None,
            trace: None,
            sent: None,
            received: Digester::default(),
            body: runtime.buffers.holder(),
            answer: runtime.buffers.holder(),
            clock: Stopwatch::start(),
        }
    }

    /// An entry that leaves no record, to make others from when this one is closed.
    pub(crate) fn template(&self) -> Self {
        let mut template = self.child();
        template.forget();
        template
    }

    /// Hands everything over to an entry that outlives this request; this one is closed without a record.
    pub(crate) fn hand_over(&mut self) -> Self {
        let closed = self.template();
        std::mem::replace(self, closed)
    }

    /// Notes who calls. What agent a client says it is, is said in the caller's workspace.
    pub(crate) fn note_caller(&mut self, principal: &Arc<Principal>) {
        self.principal = Some(Arc::clone(principal));
        if principal.workspace.is_some() {
            self.note_report(None);
        }
    }

    /// Takes over what the message says about itself.
    pub(crate) fn note_message(&mut self, message: &Message) {
        self.kind = Some(message.kind());
        self.id = message.id().map(Box::from);
        self.rpc_method = message.method().map(Box::from);
        self.tool = message.tool().map(Box::from);
        self.named = Named::by(message);
        if let Some(trace) = &mut self.trace {
            trace.note(message);
        }
        self.note_report(message.client_name());
    }

    /// The answer is the JSON-RPC error with this code, if it is one.
    pub(crate) fn answered_with(&mut self, code: Option<i64>) {
        if let Some(trace) = &mut self.trace {
            trace.error_code = code;
        }
    }

    /// Notes which agent the client says it is; a message may add its word to that of the headers.
    fn note_report(&mut self, client: Option<&str>) {
        let policy = &self.active.snapshot.policy;
        if !policy.heeds_reports() {
            return;
        }
        self.client = client.map(Box::from).or(self.client.take());
        let workspace = self.principal.as_ref().and_then(|principal| principal.workspace.as_deref());
        let names = policy.reported(workspace, self.report()).join(",");
        self.reported = Some(names).filter(|names| !names.is_empty()).map(Box::from);
    }

    fn report(&self) -> Report<'_> {
        Report { user_agent: self.user_agent.as_ref().map(HeaderValue::as_bytes), client: self.client.as_deref() }
    }

    /// Who asks with this, now.
    pub(crate) fn subject<'s>(&'s self, principal: &'s Principal) -> Subject<'s> {
        Subject { report: self.report(), ..self.whence.subject(principal) }
    }

    /// Says under which snapshot it is decided, where that need not be the one in force when the request came.
    pub(crate) fn judged_under(&mut self, active: &Arc<Active>) {
        if !Arc::ptr_eq(&self.active, active) {
            self.active = Arc::clone(active);
        }
    }

    /// Counts what the candidate decided.
    pub(crate) fn shadow_judged(&self, compared: Compared, took: Duration) {
        self.runtime.metrics.shadow_judged(compared, took);
    }

    /// By which transport the client came.
    fn transport(&self) -> Option<Transport> {
        self.door.map(|door| match door {
            Door::Streamable => Transport::StreamableHttp,
            Door::SseStream | Door::SseMessage => Transport::Sse,
        })
    }

    /// Ends a phase: the time since the last one is its time.
    pub(crate) fn lap(&mut self, phase: Phase) {
        let now = Instant::now();
        let took = now.duration_since(self.clock.lap);
        self.clock.lap = now;
        self.clock.metric.add(phase, took);
        let record = &mut self.clock.record;
        let slot = match phase {
            Phase::Head => &mut record.head,
            Phase::Auth => &mut record.auth,
            Phase::Body => &mut record.body,
            Phase::Parse | Phase::Policy => &mut record.judge,
            Phase::Record => &mut record.record,
            Phase::UpstreamWait => &mut record.upstream,
        };
        *slot = Some(slot.unwrap_or(0) + micros(took));
    }

    /// Puts the intent on record. The upstream may be asked only after this returned.
    ///
    /// # Errors
    /// The record cannot be kept.
    pub(crate) async fn intend(&mut self, permitted: &Permitted) -> Result<(), Refusal> {
        let sent = permitted.body().map(|body| Digested::of(&body));
        self.sent = sent;
        let reason = permitted.reason();
        if let Some(meter) = self.meter() {
            meter.decided(reason.name());
        }
        let permission = audit::Permission { reason: reason.name(), rule: reason.at(), sent, minted: None };
        self.put_intent(&permission).await
    }

    /// Puts on record that a key is minted. It may be handed out only after this returned.
    ///
    /// # Errors
    /// The record cannot be kept.
    pub(crate) async fn intend_minting(&mut self, rule: &At, child: &Principal) -> Result<(), Refusal> {
        let permission =
            audit::Permission { reason: "key_may_mint", rule: Some(rule), sent: None, minted: child.minted.as_deref() };
        self.put_intent(&permission).await
    }

    async fn put_intent(&mut self, permission: &audit::Permission<'_>) -> Result<(), Refusal> {
        self.stage = Stage::Intending;
        let receipt = self.runtime.audit.intent(&self.request(), permission, clock::now_micros()).await;
        match receipt {
            Ok(receipt) => {
                if let Some(debug) = &mut self.debug {
                    let (reason, rule) = (Some(permission.reason), permission.rule.cloned());
                    **debug = Debug { is_allowed: true, reason, rule, record: Some(receipt.seq()) };
                }
                self.stage = Stage::Intended(receipt);
                Ok(())
            }
            Err(unavailable) => {
                self.stage = Stage::Open;
                Err(Refusal::Record(unavailable))
            }
        }
    }

    /// Closes the entry of a request that was answered with a refusal.
    pub(crate) fn refuse(&mut self, refusal: &Refusal) {
        self.runtime.metrics.refused(refusal.name());
        match std::mem::replace(&mut self.stage, Stage::Closed) {
            Stage::Intended(receipt) => {
                if let Some(debug) = &mut self.debug {
                    debug.is_allowed = false;
                    debug.reason = Some(refusal.name());
                }
                let cost = self.settle_use();
                self.result(receipt, refusal.ending(), Some(refusal.name()), cost)
            }
            Stage::Open => {
                self.settle_use();
                self.put_refused(refusal)
            }
            Stage::Intending | Stage::Closed => {}
        }
    }

    /// Closes the entry of a request that was answered by the upstream.
    pub(crate) fn settle(&mut self, ending: Ending) {
        if let Stage::Intended(receipt) = std::mem::replace(&mut self.stage, Stage::Closed) {
            let cost = self.settle_use();
            self.result(receipt, ending, None, cost);
        }
    }

    /// What the call uses stays counted, though nothing is sent for it: a stream that the gateway itself keeps.
    pub(crate) fn keep_use(&mut self) {
        if let Some(reserved) = &mut self.reserved {
            reserved.keep();
        }
    }

    /// Ends what the call holds; what it used up stays so only where a connection had it. What it cost.
    fn settle_use(&mut self) -> Option<Money> {
        let mut reserved = self.reserved.take()?;
        if !*self.was_handed.get_mut() && !reserved.is_kept() {
            return None;
        }
        reserved.keep();
        Some(reserved.used().cost).filter(|cost| *cost > Money::ZERO)
    }

    /// Closes an entry that leaves no record: a health probe.
    pub(crate) fn forget(&mut self) {
        self.stage = Stage::Closed;
    }

    /// Handles of the server's metrics, if it is configured.
    pub(crate) fn meter(&self) -> Option<&metrics::ServerMetrics> {
        self.server.as_ref().and_then(|server| self.active.meters.get(server))
    }

    /// Revision of the configuration that decides.
    pub(crate) fn configuration(&self) -> &str {
        &self.active.snapshot.revision_text
    }

    /// The origin of the endpoint that was asked, while it is configured.
    #[cfg(feature = "otlp")]
    pub(super) fn origin(&self) -> Option<&str> {
        let upstream = self.active.fleet.get(self.server.as_ref()?)?;
        let endpoint = upstream.endpoints().iter().find(|endpoint| Some(endpoint.id()) == self.endpoint)?;
        Some(endpoint.origin())
    }

    /// Who is told of the request when it has ended.
    pub(super) fn observers(&self) -> &Observers {
        &self.runtime.observers
    }

    pub(super) fn request(&self) -> audit::Request<'_> {
        audit::Request {
            http_method: Some(self.http_method.as_str()),
            target: Some(self.target.path_and_query().map_or(self.target.path(), |target| target.as_str()).as_bytes()),
            user_agent: self.user_agent.as_ref().map(HeaderValue::as_bytes),
            reported_agent: self.reported.as_deref(),
            rpc_method: self.rpc_method.as_deref(),
            revision: self.revision,
            transport: self.transport().map(Transport::label),
            session: self.upstream_session.as_deref(),
            principal: self.principal.as_deref(),
            server: self.server.as_deref(),
            tool: self.tool.as_deref(),
            resource: match &self.named {
                Some(Named::Resource(uri)) => Some(uri),
                _ => None,
            },
            prompt: match &self.named {
                Some(Named::Prompt(name)) => Some(name),
                _ => None,
            },
            asked: self.asked.as_deref(),
            snapshot: Some(&self.active.snapshot.revision_text),
            shadow: self.shadow.as_ref().map(|shadow| audit::Shadow {
                permitted: shadow.permitted,
                reason: shadow.reason,
                rule: shadow.rule.as_ref(),
            }),
            ..self.whence.request()
        }
    }

    fn put_refused(&mut self, refusal: &Refusal) {
        let rule = match refusal {
            Refusal::Denied(denial, _) => denial.at(),
            Refusal::Quota(reached) => Some(&reached.at),
            Refusal::NotMinted(_, at) => Some(at),
            _ => None,
        };
        let subject = match refusal {
            Refusal::Quota(reached) => Some(&reached.subject),
            _ => None,
        };
        if let (Refusal::Denied(denial, _), Some(meter)) = (refusal, self.meter()) {
            meter.decided(denial.name());
        }
        let refusal = audit::Refusal {
            reason: refusal.name(),
            rule,
            limit_of: subject.map(|subject| subject as &dyn std::fmt::Display),
            status: self.status,
            phases: self.phases(),
        };
        let seq = if self.principal.is_none() {
            self.runtime.audit.refused_before_auth(&self.request(), &refusal, clock::now_micros());
            None
        } else {
            // A loss is counted by the log itself, and recorded once it can write again.
            self.runtime.audit.refused(&self.request(), &refusal, clock::now_micros()).ok()
        };
        if let Some(debug) = &mut self.debug {
            let (reason, rule) = (Some(refusal.reason), refusal.rule.cloned());
            **debug = Debug { is_allowed: false, reason, rule, record: seq };
        }
        self.tell(audit::Ended::Refused(seq, &refusal));
        self.observe(Outcome::Refused);
    }

    fn result(&self, receipt: audit::Receipt, ending: Ending, reason: Option<&'static str>, cost: Option<Money>) {
        let intent = receipt.seq();
        let received = self.received.so_far();
        let outcome = audit::Outcome {
            reason,
            status: self.status,
            revision: self.revision,
            session: self.upstream_session.as_deref(),
            endpoint: self.endpoint,
            attempts: self.attempts,
            sent: self.sent,
            received: (received.bytes > 0).then_some(received),
            cost,
            phases: self.phases(),
            ..audit::Outcome::of(ending)
        };
        if let (Some(cost), Some(meter)) = (cost, self.meter()) {
            meter.cost(cost);
        }
        self.runtime.audit.result(receipt, &outcome, clock::now_micros());
        self.tell(audit::Ended::Passed(intent, &outcome));
        self.observe(metric_outcome(ending));
    }

    /// The phases so far; what came since the last of them is the answer's time.
    fn phases(&self) -> audit::Phases {
        let mut phases = self.clock.record;
        if phases.upstream.is_some() {
            phases.answer = Some(micros(self.clock.lap.elapsed()));
        }
        phases.total = Some(micros(self.clock.started.elapsed()));
        phases
    }

    fn observe(&self, outcome: Outcome) {
        self.runtime.metrics.phases(&self.clock.metric);
        let Some(meter) = self.meter() else { return };
        let method = match self.kind {
            Some(MessageKind::Request) => Method::of(self.rpc_method.as_deref().unwrap_or_default()),
            Some(MessageKind::Notification) => Method::Notification,
            Some(MessageKind::Response) => Method::Response,
            None if self.http_method == http::Method::DELETE => Method::EndSession,
            None => Method::Other,
        };
        meter.request(method, outcome);
        meter.protocol(self.revision, self.transport().unwrap_or(Transport::StreamableHttp));
        if let Some(tool) = self.tool.as_deref() {
            meter.tool_call(tool, outcome);
        }
        if self.endpoint.is_some() {
            meter.upstream_took(self.clock.metric.get(Phase::UpstreamWait));
        }
    }
}

impl Stopwatch {
    fn start() -> Self {
        let now = Instant::now();
        Self { started: now, lap: now, record: audit::Phases::default(), metric: metrics::Phases::default() }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.stage, Stage::Closed) {
            Stage::Intended(receipt) => {
                let cost = self.settle_use();
                self.result(receipt, Ending::Abandoned, None, cost)
            }
            Stage::Open => self.put_refused(&Refusal::Internal("abandoned")),
            Stage::Intending | Stage::Closed => {}
        }
    }
}

fn metric_outcome(ending: Ending) -> Outcome {
    match ending {
        Ending::Ok => Outcome::Ok,
        Ending::Accepted => Outcome::Accepted,
        Ending::ToolError => Outcome::ToolError,
        Ending::Refused => Outcome::Refused,
        Ending::NetworkFailure => Outcome::NetworkFailure,
        Ending::RpcError => Outcome::RpcError,
        Ending::UpstreamError => Outcome::UpstreamError,
        Ending::ClientGone => Outcome::ClientGone,
        Ending::Abandoned => Outcome::Abandoned,
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
