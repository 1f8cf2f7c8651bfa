//! What is anybody told who asks how to log in?
//!
//! Metadata for clients of OAuth: nothing in it is secret or about a caller, so it needs no credential, any page may read it, and it
//! is counted, not recorded. Where no tokens are taken there is none.

use bytes::Bytes;
use http::Method;
use http::header;
use pingora::protocols::http::ServerSession;

use crate::auth::oauth::RESOURCE_PATH;
use crate::auth::oauth::SERVER_PATH;
use crate::runtime::Active;
use crate::runtime::Runtime;

use super::entry::Entry;
use super::inbound;
use super::refusal::Refusal;
use super::reply;
use super::reply::Reply;

/// How long clients may remember metadata.
const CACHE: (&str, &str) = ("cache-control", "public, max-age=300");
/// What lets every page read it.
const ANY_PAGE: (&str, &str) = ("access-control-allow-origin", "*");

/// Whether a path is one of metadata.
pub(crate) fn is_wellknown(path: &str) -> bool {
    let is_below = |base: &str| path.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    is_below(RESOURCE_PATH) || is_below(SERVER_PATH)
}

/// Answers a request for metadata.
///
/// # Errors
/// There is none on this path, the method is another, or the host is not ours.
pub(crate) async fn answer(
    session: &mut ServerSession,
    entry: &mut Entry,
    runtime: &Runtime,
    active: &Active,
) -> Result<(), Refusal> {
    let head = session.req_header();
    let host = inbound::text(&head.headers, &header::HOST).ok_or(Refusal::Host)?;
    if !active.snapshot.origins.allows_host(host) {
        return Err(Refusal::Host);
    }
    let found = document(active, head.uri.path())?;
    let (status, body, headers): (u16, Bytes, &[_]) = match head.method {
        Method::GET => (200, found, &[ANY_PAGE, CACHE]),
        Method::OPTIONS => {
            let methods = ("access-control-allow-methods", "GET");
            (
                204,
                Bytes::new(),
                &[ANY_PAGE, methods, ("access-control-allow-headers", "*"), ("access-control-max-age", "600")],
            )
        }
        _ => return Err(Refusal::Method("GET")),
    };
    entry.forget();
    runtime.metrics.metadata().one();
    // A client that left needs no answer.
    let _ = reply::whole(session, Reply { status, body, headers }).await;
    Ok(())
}

fn document(active: &Active, path: &str) -> Result<Bytes, Refusal> {
    let oauth = &active.snapshot.oauth;
    if !oauth.is_on() {
        return Err(Refusal::NoRoute);
    }
    let Some(suffix) = path.strip_prefix(RESOURCE_PATH) else {
        // Whatever follows: there is one issuer to speak of.
        let issuer = oauth.metadata_of().ok_or(Refusal::NoRoute)?;
        return active.tokens.metadata(issuer).ok_or(Refusal::MetadataUnknown);
    };
    let path = oauth.resource_path(suffix);
    if matches!(path, "" | "/") {
        return Ok(oauth.metadata("", None).into());
    }
    let route = active.snapshot.routes.find(path).ok_or(Refusal::NoRoute)?;
    let server = active.snapshot.routes.server(None, route.word);
    if !oauth.may_take_tokens(&server) {
        return Err(Refusal::NoRoute);
    }
    Ok(oauth.metadata(path, Some(&server)).into())
}
