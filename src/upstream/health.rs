//! Is an endpoint well?
//!
//! Checked with the same dialer as calls use: the same resolver, the same verification. No credential is presented.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::Request;
use http::Uri;
use http::header;
use http_body_util::Full;
use tokio::time::Instant;
use tokio::time::timeout_at;

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
        let mut connection = self.dialer.dial_apart(endpoint, deadline).await?;
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

    /// Checks every endpoint once, all at the same time. Dropping the future ends the checks.
    pub(crate) async fn check(&self) {
        join_all(self.endpoints.iter().map(|endpoint| self.check_one(endpoint))).await;
    }

    async fn check_one(&self, endpoint: &Endpoint) {
        let (server, origin) = (&*self.server, endpoint.origin());
        let probed = self.probe(endpoint).await;
        match &probed {
            Ok(()) if !endpoint.is_healthy() => {
                tracing::info!(server, endpoint = origin, "an endpoint is healthy again");
            }
            Err(mishap) if endpoint.is_healthy() => {
                tracing::warn!(server, endpoint = origin, reason = %mishap, "an endpoint is not healthy");
            }
            _ => {}
        }
        endpoint.set_healthy(probed.is_ok());
    }
}
