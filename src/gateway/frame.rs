//! The frame in which requests are handled: Pingora's proxy, of which MCP messages use the request phase only.
//!
//! `request_filter` answers every request that reaches it; nothing is relayed, so `upstream_peer` is never asked. The
//! relay phases are kept for what is no MCP message.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt;
use pingora::prelude::HttpPeer;
use pingora_proxy::ProxyHttp;
use pingora_proxy::Session;

use crate::runtime::Runtime;
use crate::transport::connection::Connection;
use crate::transport::connection::Stage;

use super::entry::Entry;
use super::handle;
use super::inbound;
use super::page;
use super::refusal::Refusal;
use super::whence::Whence;

/// The gateway as Pingora sees it.
pub struct Gateway {
    runtime: Arc<Runtime>,
}

impl Gateway {
    /// A gateway that works with `runtime`.
    pub fn new(runtime: Arc<Runtime>) -> Self {
        Self { runtime }
    }

    async fn answer(&self, session: &mut Session) {
        let active = self.runtime.active();
        let headers = &session.req_header().headers;
        let whence = Whence::of_request(Connection::current(), headers, &active.snapshot.front.proxies);
        let page = page::take(session.req_header_mut());
        // Without end for Pingora, whose clock would also run while a head comes in: the gate ends an idle connection.
        session.set_keepalive(if self.runtime.is_draining() { None } else { Some(0) });
        session.as_downstream_mut().set_write_timeout(Some(active.snapshot.write_timeout));
        let mut entry = Entry::open(&self.runtime, Arc::clone(&active), whence, session.req_header());
        if session.req_header().uri.path() == inbound::HEALTH_PATH {
            entry.forget();
            handle::answer_health(session, self.runtime.is_draining()).await;
            return;
        }
        let handled =
            AssertUnwindSafe(handle::handle(session, &mut entry, &self.runtime, &active, page)).catch_unwind().await;
        let refusal = match handled {
            Ok(Ok(())) => return,
            Ok(Err(refusal)) => refusal,
            // The panic itself was logged by the hook that `main` installs.
            Err(_) => Refusal::Internal("panicked"),
        };
        handle::answer_refusal(session, &mut entry, &active, &refusal).await;
    }
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = ();

    fn new_ctx(&self) -> Self::CTX {}

    /// No downstream module: answers are written as they are screened.
    fn init_downstream_modules(&self, _modules: &mut pingora::modules::http::HttpModules) {}

    async fn request_filter(&self, session: &mut Session, _ctx: &mut Self::CTX) -> pingora::Result<bool> {
        // Nobody takes up an offer to upgrade; without it the request is read like any other.
        session.req_header_mut().remove_header(&http::header::UPGRADE);
        self.answer(session).await;
        Ok(true)
    }

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut Self::CTX) -> pingora::Result<Box<HttpPeer>> {
        pingora::Error::e_explain(pingora::ErrorType::InternalError, "nothing is relayed")
    }

    async fn logging(&self, _session: &mut Session, _error: Option<&pingora::Error>, _ctx: &mut Self::CTX) {
        if let Some(connection) = Connection::current() {
            connection.enter(Stage::Head);
        }
    }

    /// Paths and queries are not for logs.
    fn request_summary(&self, _session: &Session, _ctx: &Self::CTX) -> String {
        String::from("a request")
    }

    /// Errors of the frame name the peer they are about; there is none here to name.
    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        _session: &mut Session,
        error: Box<pingora::Error>,
        _ctx: &mut Self::CTX,
        _reused: bool,
    ) -> Box<pingora::Error> {
        error
    }
}
