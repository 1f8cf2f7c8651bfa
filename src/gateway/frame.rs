//! The frame in which requests are handled: each is answered and leaves its entry, whatever becomes of it.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use pingora::protocols::http::ServerSession;

use crate::runtime::Runtime;
use crate::transport::connection::Connection;
use crate::transport::edge::Answerer;

use super::entry::Entry;
use super::handle;
use super::inbound;
use super::mint;
use super::page;
use super::refusal::Refusal;
use super::reply;
use super::wellknown;
use super::whence::Whence;

/// What answers the requests of the data listener.
pub struct Gateway {
    runtime: Arc<Runtime>,
}

impl Gateway {
    /// A gateway that works with `runtime`.
    pub fn new(runtime: Arc<Runtime>) -> Self {
        Self { runtime }
    }
}

impl Answerer for Gateway {
    async fn answer(&self, session: &mut ServerSession) {
        // Nobody takes up an offer to upgrade; without it the request is read like any other.
        session.req_header_mut().remove_header(&http::header::UPGRADE);
        let active = self.runtime.active();
        let connection = Connection::current();
        let requests = connection.as_ref().map_or(0, |connection| connection.begin_request());
        let is_vouched_for = connection.as_ref().is_none_or(|connection| active.snapshot.front.vouches_for(connection));
        let is_last = self.runtime.is_draining() || requests >= active.snapshot.gate.requests_max || !is_vouched_for;
        let whence = Whence::of_request(connection, &session.req_header().headers, &active.snapshot.front.proxies);
        let page = page::take(session.req_header_mut());
        // Without end for Pingora, whose clock would also run while a head comes in: the gate ends an idle connection.
        session.set_keepalive(if is_last { None } else { Some(0) });
        // Under HTTP/1.1 the gate sees to it, which also sees a client that takes a little now and then.
        if session.is_http2() {
            session.set_write_timeout(Some(active.snapshot.gate.write.patience));
        }
        let mut entry = Entry::open(&self.runtime, Arc::clone(&active), whence, session.req_header());
        if session.req_header().uri.path() == inbound::HEALTH_PATH {
            entry.forget();
            reply::health(session, self.runtime.is_draining()).await;
            return;
        }
        let is_wellknown = wellknown::is_wellknown(session.req_header().uri.path());
        let is_minting = active.snapshot.routes.mints_at(session.req_header().uri.path());
        let handled = async {
            if is_minting {
                Box::pin(mint::answer(session, &mut entry, (&self.runtime, &active), page)).await
            } else if is_wellknown {
                Box::pin(wellknown::answer(session, &mut entry, &self.runtime, &active)).await
            } else {
                handle::handle(session, &mut entry, &self.runtime, &active, page).await
            }
        };
        let handled = AssertUnwindSafe(handled).catch_unwind().await;
        let refusal = match handled {
            Ok(Ok(())) => return,
            Ok(Err(refusal)) => refusal,
            // The panic itself was logged by the hook that `main` installs.
            Err(_) => Refusal::Internal("panicked"),
        };
        handle::answer_refusal(session, &mut entry, &active, &refusal).await;
    }
}
