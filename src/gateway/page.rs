//! The page that a request comes from: whether it may call, and what its browser is told.
//!
//! A page that was not let in is named in no answer, so its browser hands it none: [`take`] removes its name from the head,
//! and only [`let_in`] puts it back, where `reply` finds it.

use http::Method;
use http::header;
use pingora::http::RequestHeader;
use pingora::protocols::http::ServerSession;

use crate::runtime::Runtime;
use crate::snapshot::Snapshot;
use crate::transport::cors;
use crate::transport::cors::Page;
use crate::transport::forwarded::Scheme;

use super::entry::Entry;
use super::inbound;
use super::refusal::Refusal;
use super::reply;
use super::reply::Reply;

/// Takes the page's name out of the head.
pub(crate) fn take(head: &mut RequestHeader) -> Page {
    let page = Page::of(&head.headers);
    head.remove_header(&header::ORIGIN);
    page
}

/// Lets a page in, or refuses: the host it asks must be one of ours, and its origin, if it has one, too.
///
/// # Errors
/// `Host` or `Origin`.
pub(crate) fn let_in(
    head: &mut RequestHeader,
    page: Page,
    scheme: Option<Scheme>,
    snapshot: &Snapshot,
) -> Result<(), Refusal> {
    let host = inbound::text(&head.headers, &header::HOST).ok_or(Refusal::Host)?;
    if !snapshot.origins.allows_host(host) {
        return Err(Refusal::Host);
    }
    let origin = match page {
        Page::None => return Ok(()),
        Page::Many => return Err(Refusal::Origin),
        Page::Of(origin) => origin,
    };
    if !origin.to_str().is_ok_and(|origin| snapshot.origins.allows_origin(origin, host, scheme)) {
        return Err(Refusal::Origin);
    }
    head.insert_header(header::ORIGIN, origin).map_err(|_| Refusal::Origin)
}

/// Whether a request only asks whether a page that was let in may send another.
pub(crate) fn is_preflight(head: &RequestHeader) -> bool {
    head.method == Method::OPTIONS && cors::is_preflight(&head.headers)
}

/// Answers a preflight: counted, and nothing is forwarded.
///
/// # Errors
/// Nothing is served on its path.
pub(crate) async fn answer_preflight(
    session: &mut ServerSession,
    entry: &mut Entry,
    runtime: &Runtime,
    snapshot: &Snapshot,
) -> Result<(), Refusal> {
    let head = session.req_header();
    let route = snapshot.routes.find(head.uri.path()).ok_or(Refusal::NoRoute)?;
    let answer = cors::preflight(&head.headers, inbound::methods(route.door), snapshot.keys.key_headers());
    let headers: Vec<_> = answer.iter().map(|(name, value)| (*name, value.as_str())).collect();
    entry.forget();
    runtime.metrics.preflights().one();
    // A browser that left needs no answer.
    let _ = reply::whole(session, Reply { status: 204, body: bytes::Bytes::new(), headers: &headers }).await;
    Ok(())
}
