//! What is one server at run time?
//!
//! Its plan, its endpoints with their connections, and the task that checks their health. All of it ends with the
//! last holder: a call in flight on a retired server still gets its answer.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::uri::PathAndQuery;
use pingora_load_balancing::health_check::HealthCheck;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::policy::Permitted;
use crate::upstream::answer::Answer;
use crate::upstream::balance::Balance;
use crate::upstream::credential::UpstreamCredential;
use crate::upstream::dial::Dialer;
use crate::upstream::endpoint;
use crate::upstream::endpoint::Endpoint;
use crate::upstream::error::Failure;
use crate::upstream::error::UpstreamError;
use crate::upstream::exchange;
use crate::upstream::health::Probe;
use crate::upstream::plan::Plan;

/// How the endpoint for a call is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice<'k> {
    /// The endpoint with this id, healthy or not: a session stays where it was opened.
    Pinned(u64),
    /// The next healthy one by weighted round robin.
    Next,
    /// The one that this key belongs to, or while it is not healthy the next healthy one in an order of the key's own.
    /// Every process that serves the same endpoints chooses the same; when endpoints change, few keys move.
    Of(&'k str),
}

/// How a permitted call goes out.
pub struct Dispatch<'c> {
    /// The caller's header lines, already reduced to what the protocol needs. `Host`, `Content-Length`, `Accept-Encoding`,
    /// `Last-Event-ID` and what belongs to a connection are set or removed on the way; `Authorization` and `Cookie` come from
    /// `credential` alone.
    pub headers: HeaderMap,
    /// What is presented to the server.
    pub credential: &'c UpstreamCredential,
    /// Where the message goes, by [`Endpoint::resolve_path`]; `None` is the configured URL.
    pub path: Option<PathAndQuery>,
}

/// One server at run time.
pub struct Upstream {
    plan: Arc<Plan>,
    balance: Arc<Balance>,
    dialer: Arc<Dialer>,
    health_checks: Option<AbortHandle>,
}

impl Upstream {
    /// Starts the server's health checks on `keeper`, and asks the resolver for its names once, to warn early.
    pub(crate) fn start(plan: Arc<Plan>, dialer: Arc<Dialer>, keeper: &Handle) -> Self {
        let endpoints = endpoint::endpoints(&plan.endpoints);
        let probe = Probe::new(&plan, &endpoints, &dialer).filter(|_| endpoints.len() > 1);
        for endpoint in &endpoints {
            keeper.spawn(resolve_early(Arc::clone(&plan.name), Arc::clone(endpoint)));
        }
        let (probe, interval) = match probe {
            Some((probe, interval)) => (Some(Box::new(probe) as Box<dyn HealthCheck + Send + Sync>), Some(interval)),
            None => (None, None),
        };
        let balance = Arc::new(Balance::new(endpoints, probe));
        let checks =
            interval.map(|interval| keeper.spawn(check_for_ever(Arc::clone(&balance), interval)).abort_handle());
        Self { plan, balance, dialer, health_checks: checks }
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
        self.balance.is_healthy(endpoint)
    }

    /// The endpoint for a call. If no endpoint is healthy, one is tried all the same.
    ///
    /// # Errors
    /// [`Failure::EndpointGone`] when a pinned endpoint is no longer configured.
    pub fn pick(&self, choice: Choice<'_>) -> Result<Arc<Endpoint>, UpstreamError> {
        let (found, failure) = match choice {
            Choice::Pinned(id) => (self.endpoints().iter().find(|endpoint| endpoint.id() == id), Failure::EndpointGone),
            Choice::Next => (self.balance.next(), Failure::NoEndpoint),
            Choice::Of(key) => (self.balance.of(key), Failure::NoEndpoint),
        };
        found.cloned().ok_or_else(|| UpstreamError::unasked(failure, ""))
    }

    /// Sends a permitted call and waits for the head of its answer, at most the server's `timeout_ms`.
    /// Dropping the future closes the connection.
    pub async fn send(
        &self,
        endpoint: &Arc<Endpoint>,
        permitted: &Permitted,
        dispatch: Dispatch<'_>,
    ) -> Result<Answer, UpstreamError> {
        let deadline = Instant::now() + self.plan.timeout;
        let mut request = exchange::request(&endpoint.target, permitted, dispatch);
        let mut attempts = 1;
        if let Some(connection) = endpoint.pool.take().await {
            match exchange::exchange(connection, request, endpoint, attempts, deadline).await {
                Ok(answer) => return Ok(Answer { reused: true, ..answer }),
                Err(mut unanswered) => match unanswered.unsent.take() {
                    Some(unsent) => request = unsent,
                    None => return Err(unanswered.at(endpoint, attempts)),
                },
            }
            attempts += 1;
        }
        let open_by = deadline.min(Instant::now() + self.plan.connect_timeout);
        let dialled = Box::pin(self.dialer.dial(endpoint, open_by)).await;
        let connection = dialled.map_err(|mishap| mishap.at(&endpoint.target.origin, attempts, false))?;
        let answered = exchange::exchange(connection, request, endpoint, attempts, deadline).await;
        answered.map_err(|unanswered| unanswered.at(endpoint, attempts))
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        if let Some(checks) = &self.health_checks {
            checks.abort();
        }
        // An answer still being read holds its endpoint: its connection must not go back to a pool nobody sweeps.
        for endpoint in self.endpoints() {
            endpoint.pool.close();
        }
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("plan", &self.plan).finish_non_exhaustive()
    }
}

async fn check_for_ever(balance: Arc<Balance>, interval: Duration) {
    loop {
        balance.check().await;
        tokio::time::sleep(interval).await;
    }
}

async fn resolve_early(server: Arc<str>, endpoint: Arc<Endpoint>) {
    if let Err(mishap) = endpoint.resolve().await {
        tracing::warn!(server = &*server, endpoint = endpoint.origin(), reason = %mishap, "an endpoint cannot be resolved");
    }
}
