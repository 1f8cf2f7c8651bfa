//! Is an endpoint well?
//!
//! Checked with the same dialer as calls use: the same resolver, the same verification. No credential is presented.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::Request;
use http::Uri;
use http::header;
use http_body_util::Full;
use pingora::Error;
use pingora::ErrorType;
use pingora_load_balancing::Backend;
use pingora_load_balancing::health_check::HealthCheck;
use tokio::time::Instant;
use tokio::time::timeout_at;

use crate::upstream::balance::position;
use crate::upstream::dial::Dialer;
use crate::upstream::endpoint::Endpoint;
use crate::upstream::error::Failure;
use crate::upstream::error::Mishap;
use crate::upstream::plan::Check;
use crate::upstream::plan::Plan;

/// The health check of one server's endpoints.
pub(crate) struct Probe {
    server: Arc<str>,
    endpoints: Vec<Arc<Endpoint>>,
    dialer: Arc<Dialer>,
    /// The path to ask for; `None` only opens a connection.
    path: Option<Uri>,
    timeout: Duration,
}

impl Probe {
    /// The check a plan asks for, and the time between two.
    pub(crate) fn new(plan: &Plan, endpoints: &[Arc<Endpoint>], dialer: &Arc<Dialer>) -> Option<(Self, Duration)> {
        let (interval, path) = match &plan.health {
            Check::None => return None,
            Check::Tcp { interval } => (*interval, None),
            Check::Http { interval, path } => (*interval, Some(path.clone())),
        };
        let (server, timeout) = (Arc::clone(&plan.name), plan.connect_timeout);
        Some((Self { server, endpoints: endpoints.to_vec(), dialer: Arc::clone(dialer), path, timeout }, interval))
    }

    async fn probe(&self, endpoint: &Endpoint) -> Result<(), Mishap> {
        let deadline = Instant::now() + self.timeout;
        let Some(path) = &self.path else {
            return self.dialer.probe(endpoint, deadline).await;
        };
        let mut connection = self.dialer.dial(endpoint, deadline).await?;
        let mut request = Request::new(Full::new(Bytes::new()));
        *request.uri_mut() = path.clone();
        request.headers_mut().insert(header::HOST, endpoint.target.authority.clone());
        let answered = timeout_at(deadline, connection.send(request)).await;
        let answer = answered.map_err(|_| Mishap::new(Failure::Timeout, "no answer to the health check"))?;
        let status = answer.map_err(|error| Mishap::of_hyper(&error.into_error()))?.status();
        if status.is_success() {
            Ok(())
        } else {
            Err(Mishap::new(Failure::Protocol, format!("the health check got {status}")))
        }
    }

    fn endpoint(&self, target: &Backend) -> Option<&Arc<Endpoint>> {
        self.endpoints.get(position(target)?)
    }
}

#[async_trait]
impl HealthCheck for Probe {
    async fn check(&self, target: &Backend) -> pingora::Result<()> {
        let Some(endpoint) = self.endpoint(target) else {
            return Ok(());
        };
        let probed = self.probe(endpoint).await;
        probed.map_err(|mishap| Error::explain(ErrorType::ConnectError, mishap.to_string()))
    }

    async fn health_status_change(&self, target: &Backend, healthy: bool) {
        // That an endpoint became unhealthy is logged by pingora, with the reason and the summary below.
        if let (true, Some(endpoint)) = (healthy, self.endpoint(target)) {
            tracing::info!(server = &*self.server, endpoint = endpoint.origin(), "an endpoint is healthy again");
        }
    }

    fn backend_summary(&self, target: &Backend) -> String {
        let origin = self.endpoint(target).map_or("", |endpoint| endpoint.origin());
        format!("endpoint `{origin}` of server `{}`", self.server)
    }

    fn health_threshold(&self, _success: bool) -> usize {
        1
    }
}
