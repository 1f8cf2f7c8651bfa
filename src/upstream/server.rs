//! What is one server at run time?
//!
//! Its plan, its endpoints with their connections, and the task that checks their health. What goes on without calls
//! ends when the server is retired; a call in flight on a retired server still gets its answer.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::Request;
use http::header;
use http::uri::PathAndQuery;
use http_body_util::Full;
use hyper::body::Body as _;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::policy::Permitted;
use crate::upstream::answer::Answer;
use crate::upstream::balance::Balance;
use crate::upstream::circuits::Circuit;
use crate::upstream::dial::Dialer;
use crate::upstream::endpoint::Endpoint;
use crate::upstream::error::UpstreamError;
use crate::upstream::exchange;
use crate::upstream::health::Probe;
use crate::upstream::plan::Plan;
use crate::upstream::ticket::Ticket;

/// The media type of JSON-RPC.
const JSON: &str = "application/json";

/// How the endpoint for a call is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice<'k> {
    /// The endpoint with this id, healthy or not: a session stays where it was opened. Refused while its circuit is open.
    Pinned(u64),
    /// The next usable one by the server's `balance`.
    Next,
    /// The one that this key belongs to, or while it cannot be used the next usable one in an order of the key's own.
    /// Every process that serves the same endpoints chooses the same; when endpoints change, few keys move.
    Of(&'k str),
}

/// How a permitted call goes out.
pub struct Dispatch<'h> {
    /// The caller's header lines, already reduced to what the protocol needs. `Host`, `Content-Length`, `Accept-Encoding`,
    /// `Last-Event-ID` and what belongs to a connection are set or removed on the way; `Authorization` and `Cookie` come from
    /// the server's credential alone.
    pub headers: HeaderMap,
    /// Where the message goes, by [`Endpoint::resolve_path`]; `None` is the configured URL.
    pub path: Option<PathAndQuery>,
    /// Set once a connection has the request: before that it was certainly not sent. Taken back if the connection took none of it.
    pub handed: &'h AtomicBool,
}

/// One server at run time.
pub struct Upstream {
    plan: Arc<Plan>,
    balance: Arc<Balance>,
    dialer: Arc<Dialer>,
    tasks: Vec<AbortHandle>,
}

impl Upstream {
    /// Starts on `keeper` what goes on without calls: health checks, and the resolution of names. `previous`:
    /// what ran under the same name before.
    pub(crate) fn start(plan: Arc<Plan>, dialer: Arc<Dialer>, keeper: &Handle, previous: Option<&Self>) -> Self {
        let balance = Arc::new(Balance::new(&plan, previous.map(|previous| &*previous.balance)));
        let endpoints = balance.endpoints();
        let dialer = plan.tls.as_ref().and_then(|tls| dialer.with(tls)).map_or(dialer, Arc::new);
        let names = endpoints.iter().filter(|endpoint| endpoint.has_name()).map(|endpoint| {
            let (server, endpoint) = (Arc::clone(&plan.name), Arc::clone(endpoint));
            keeper.spawn(resolve_for_ever(server, endpoint, plan.resolve_interval)).abort_handle()
        });
        let mut tasks: Vec<AbortHandle> = names.collect();
        let probe = Probe::new(&plan, endpoints, &dialer).filter(|_| plan.checks_health());
        tasks.extend(probe.map(|(probe, interval)| keeper.spawn(check_for_ever(probe, interval)).abort_handle()));
        Self { plan, balance, dialer, tasks }
    }

    /// Ends what goes on without calls, as another server takes its place or none does. Calls under way go on, and so do those
    /// that were decided to be sent here; each of their connections ends with its answer.
    pub(crate) fn retire(&self) {
        self.tasks.iter().for_each(AbortHandle::abort);
        // An answer still being read holds its endpoint: its connection must not go back to a pool nobody sweeps.
        for endpoint in self.endpoints() {
            endpoint.pool.close();
        }
    }

    /// The plan this server was started with.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// The server's endpoints, in the order of the configuration.
    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        self.balance.endpoints()
    }

    /// Whether the last health check of an endpoint went well; true where nothing is checked.
    pub fn is_healthy(&self, endpoint: &Endpoint) -> bool {
        endpoint.is_healthy()
    }

    /// Whether calls may go to an endpoint, after what became of those before.
    pub fn circuit(&self, endpoint: &Endpoint) -> Circuit {
        self.balance.circuits().circuit(endpoint)
    }

    /// How often an endpoint's circuit opened.
    pub fn circuit_openings(&self, endpoint: &Endpoint) -> u64 {
        self.balance.circuits().openings(endpoint)
    }

    /// Calls of the server that are pending, and the bytes of their requests.
    pub fn pending(&self) -> (usize, usize) {
        (self.balance.load().pending(), self.balance.load().bytes())
    }

    /// Whether some endpoint would be asked now.
    pub fn is_up(&self) -> bool {
        self.endpoints_up() > 0
    }

    /// How many endpoints can be used.
    pub fn endpoints_up(&self) -> usize {
        let is_up = |endpoint: &&Arc<Endpoint>| endpoint.is_healthy() && self.circuit(endpoint) != Circuit::Open;
        self.endpoints().iter().filter(is_up).count()
    }

    /// The endpoint for a call, and the call's place among those that are pending. If no endpoint is healthy, one is tried
    /// all the same.
    ///
    /// # Errors
    /// A pinned endpoint that is no longer configured, a limit that is reached, or a circuit that is open.
    pub fn pick(&self, choice: Choice<'_>) -> Result<Ticket, UpstreamError> {
        self.balance.begin()?;
        let chosen = match choice {
            Choice::Pinned(id) => self.balance.pinned(id),
            Choice::Next => self.balance.next(),
            Choice::Of(key) => self.balance.of(key),
        };
        match chosen {
            Ok((endpoint, is_trial)) => Ok(Ticket::new(endpoint, &self.balance, is_trial)),
            Err(error) => {
                self.balance.end(0);
                Err(error)
            }
        }
    }

    /// Sends a permitted call and waits for the head of its answer, at most the `timeout_ms` of the server or the tool. What became of it is
    /// noted on the ticket as far as it is known by then. Dropping the future closes the connection.
    pub async fn send(
        &self,
        ticket: &Ticket,
        permitted: &Permitted,
        dispatch: Dispatch<'_>,
    ) -> Result<Answer, UpstreamError> {
        let handed = dispatch.handed;
        let request = exchange::request(&ticket.target, permitted, &self.plan.credential, dispatch);
        ticket.hold(request.body().size_hint().exact().and_then(|bytes| bytes.try_into().ok()).unwrap_or(0))?;
        let sent = self.exchange(ticket, request, handed, self.plan.times(permitted.call().tool()).timeout).await;
        match &sent {
            Ok(answer) if is_failure(answer) => ticket.gave_up(),
            Ok(_) => ticket.began(),
            Err(error) => ticket.failed(error.failure()),
        }
        sent
    }

    async fn exchange(
        &self,
        endpoint: &Arc<Endpoint>,
        mut request: Request<Full<Bytes>>,
        handed: &AtomicBool,
        timeout: Duration,
    ) -> Result<Answer, UpstreamError> {
        let deadline = Instant::now() + timeout;
        let mut attempts = 1;
        if let Some(connection) = endpoint.pool.take().await {
            let before = handed.swap(true, Ordering::Relaxed);
            match exchange::exchange(connection, request, endpoint, attempts, deadline).await {
                Ok(answer) => return Ok(Answer { reused: true, ..answer }),
                Err(mut unanswered) => match unanswered.unsent.take() {
                    Some(unsent) => {
                        handed.store(before, Ordering::Relaxed);
                        request = unsent;
                    }
                    None => return Err(unanswered.at(endpoint, attempts)),
                },
            }
            attempts += 1;
        }
        let open_by = deadline.min(Instant::now() + self.plan.connect_timeout);
        let dialled = Box::pin(self.dialer.dial(endpoint, open_by)).await;
        let connection = dialled.map_err(|mishap| mishap.at(&endpoint.target.origin, attempts, false))?;
        let before = handed.swap(true, Ordering::Relaxed);
        let answered = exchange::exchange(connection, request, endpoint, attempts, deadline).await;
        answered.map_err(|unanswered| {
            if unanswered.unsent.is_some() {
                handed.store(before, Ordering::Relaxed);
            }
            unanswered.at(endpoint, attempts)
        })
    }
}

/// Whether an answer says that the server itself cannot go on. One that holds a JSON-RPC error was made by the server for
/// this call: if it counted, a caller could shut out the others by asking for what fails.
fn is_failure(answer: &Answer) -> bool {
    let is_json = answer.headers.get(header::CONTENT_TYPE).is_some_and(|value| {
        value.as_bytes().get(..JSON.len()).is_some_and(|start| start.eq_ignore_ascii_case(JSON.as_bytes()))
    });
    matches!(answer.status.as_u16(), 500 | 502 | 503 | 504) && !is_json
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.retire();
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("plan", &self.plan).finish_non_exhaustive()
    }
}

async fn check_for_ever(probe: Probe, interval: Duration) {
    loop {
        probe.check().await;
        tokio::time::sleep(interval).await;
    }
}

async fn resolve_for_ever(server: Arc<str>, endpoint: Arc<Endpoint>, interval: Duration) {
    let mut is_known = true;
    loop {
        let resolved = endpoint.resolve().await;
        if let Err(mishap) = resolved.as_ref()
            && is_known
        {
            tracing::warn!(server = &*server, endpoint = endpoint.origin(), reason = %mishap, "an endpoint cannot be resolved");
        }
        is_known = resolved.is_ok();
        tokio::time::sleep(interval).await;
    }
}
