//! What does a server get whose request its clients may not be asked?
//!
//! An answer: it would wait for one otherwise. The gateway declines in the client's place, and that goes the way of every
//! message: decided under the snapshot in force, on record, sent with the server's credential.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use tokio::task::JoinSet;

use crate::audit::Ending;
use crate::call::Action;
use crate::call::Call;
use crate::mcp::document::Limits;
use crate::mcp::error;
use crate::mcp::message::Message;
use crate::upstream::Choice;
use crate::upstream::Dispatch;
use crate::upstream::Upstream;

use super::conversation::SESSION_HEADER;
use super::exchange;
use super::exchange::Exchange;
use super::refusal::Refusal;

/// Answers of one stream that are on their way at once; a server that asks faster waits for nothing.
const ON_THEIR_WAY_MAX: usize = 8;

/// The answers of one stream.
#[derive(Default)]
pub(crate) struct Declines(Option<JoinSet<()>>);

impl Declines {
    /// Declines the request of this id (raw JSON) that came on the stream of `exchange`.
    pub(crate) fn send(&mut self, exchange: &mut Exchange<'_>, id: &str) {
        let running = self.0.get_or_insert_default();
        while running.try_join_next().is_some() {}
        if running.len() >= ON_THEIR_WAY_MAX {
            tracing::debug!("a request of a server is not even declined: too many are");
            return;
        }
        let body = error::error_body(Some(id), error::METHOD_NOT_FOUND, "the client is not asked for this", None);
        // The stream may be older than the configuration.
        let active = exchange.runtime.active();
        let Some(upstream) = active.fleet.get(&exchange.permitted.call().server).map(Arc::clone) else { return };
        let Some((mut entry, call, headers, path)) = prepare(exchange, &upstream, body) else { return };
        entry.judged_under(&active);
        let principal = Arc::clone(&exchange.principal);
        let (revision, endpoint) = (exchange.conversation.revision, exchange.entry.endpoint);
        running.spawn(async move {
            let Ok(permitted) = active.snapshot.policy.decide(entry.subject(&principal), revision, call) else {
                return;
            };
            if let Err(refusal) = entry.intend(&permitted).await {
                entry.refuse(&refusal);
                return;
            }
            let choice = endpoint.map_or(Choice::Next, Choice::Pinned);
            let dispatch = Dispatch { headers, path, handed: &entry.was_handed };
            let sent = match upstream.pick(choice) {
                Ok(ticket) => upstream.send(&ticket, &permitted, dispatch).await,
                Err(error) => Err(error),
            };
            match sent {
                Ok(answer) if answer.status.is_success() => entry.settle(Ending::Ok),
                Ok(_) => entry.settle(Ending::UpstreamError),
                Err(error) => entry.refuse(&Refusal::Upstream(error)),
            }
        });
    }
}

type Prepared = (super::entry::Entry, Call, HeaderMap, Option<http::uri::PathAndQuery>);

fn prepare(exchange: &mut Exchange<'_>, upstream: &Upstream, body: Bytes) -> Option<Prepared> {
    let message = Message::read(body, &Limits::default()).ok()?;
    let mut entry = exchange.entry.child();
    entry.note_message(&message);
    entry.http_method = http::Method::POST;
    entry.endpoint = exchange.entry.endpoint;
    let server = Arc::clone(&exchange.permitted.call().server);
    let mut headers = exchange::own_headers(exchange.conversation.revision);
    let mut path = None;
    if upstream.plan().speaks_sse() {
        path = exchange.message_path.clone();
        path.as_ref()?;
    } else if let Some(session) = &exchange.conversation.session {
        headers.insert(SESSION_HEADER, session.upstream_id.parse().ok()?);
    }
    Some((entry, Call { server, action: Action::Message(message), opened: Vec::new(), task_tool: None }, headers, path))
}
