//! Step 1: what does the head ask for, and may it be asked this way?

use std::sync::Arc;

use http::HeaderMap;
use http::Method;
use http::header;
use pingora::http::RequestHeader;

use crate::snapshot::Snapshot;
use crate::transport::route::Door;

use super::refusal::Refusal;

/// The path on which a load balancer asks whether this process serves.
pub(crate) const HEALTH_PATH: &str = "/healthz";

/// The media type of event streams.
pub(crate) const EVENT_STREAM: &str = "text/event-stream";

/// What a request's head asks for.
#[derive(Debug)]
pub(crate) struct Inbound {
    /// The server the path names in the workspace `default`; it need not be configured.
    pub(crate) server: Arc<str>,
    /// How the client came in.
    pub(crate) door: Door,
    /// Whether a message follows, a stream is to stand or a session is to end.
    pub(crate) verb: Verb,
}

/// What is asked of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    /// To take the message in the body.
    Post,
    /// To send what it has to say on its own.
    Get,
    /// To end the session.
    Delete,
}

/// Reads the head: route, method and media types.
///
/// # Errors
/// The first of them that is not acceptable.
pub(crate) fn read_head(head: &RequestHeader, snapshot: &Snapshot) -> Result<Inbound, Refusal> {
    let route = snapshot.routes.find(head.uri.path()).ok_or(Refusal::NoRoute)?;
    let verb = verb(&head.method, route.door)?;
    match (verb, route.door) {
        (Verb::Post, Door::Streamable) => {
            check_body(&head.headers)?;
            check_accept(&head.headers, &[&JSON_RANGES, &EVENT_RANGES])?;
        }
        // The answer comes on the stream: what the client takes here is of no interest.
        (Verb::Post, _) => check_body(&head.headers)?,
        (Verb::Get, _) => check_accept(&head.headers, &[&EVENT_RANGES])?,
        (Verb::Delete, _) => {}
    }
    Ok(Inbound { server: snapshot.server(None, route.word), door: route.door, verb })
}

/// What a method asks for at a door. A POST to the path of an HTTP+SSE stream is how clients find out which of the two
/// transports they stand before: 405 sends them to GET.
fn verb(method: &Method, door: Door) -> Result<Verb, Refusal> {
    match (method, door) {
        (&Method::POST, Door::Streamable | Door::SseMessage) => Ok(Verb::Post),
        (&Method::GET, Door::Streamable | Door::SseStream) => Ok(Verb::Get),
        (&Method::DELETE, Door::Streamable) => Ok(Verb::Delete),
        _ => Err(Refusal::Method(methods(door))),
    }
}

/// The methods that a door serves.
pub(crate) fn methods(door: Door) -> &'static str {
    match door {
        Door::Streamable => "POST, GET, DELETE",
        Door::SseStream => "GET",
        Door::SseMessage => "POST",
    }
}

/// What clients of MCP say they take, letter for letter in most cases.
const USUAL: &str = "application/json, text/event-stream";
const JSON_RANGES: [&str; 3] = ["application/json", "application/*", "*/*"];
const EVENT_RANGES: [&str; 3] = [EVENT_STREAM, "text/*", "*/*"];

/// The client must take what MCP answers with; one that says nothing takes anything.
fn check_accept(headers: &HeaderMap, wanted: &[&[&str; 3]]) -> Result<(), Refusal> {
    let mut lines = headers.get_all(header::ACCEPT).iter();
    match (lines.next(), lines.next()) {
        (None, _) => return Ok(()),
        (Some(only), None) if only == USUAL => return Ok(()),
        _ => {}
    }
    // Of the ranges that fit, the narrowest says whether the type is taken: a weight of nothing rules it out.
    let accepts = |ranges: &[&str; 3]| {
        let weight_of = |wanted: &str| {
            let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
            values.flat_map(|value| value.split(',')).find_map(|range| {
                let mut parts = range.split(';').map(str::trim);
                let fits = parts.next().is_some_and(|range| range.eq_ignore_ascii_case(wanted));
                fits.then(|| !parts.any(is_ruled_out))
            })
        };
        ranges.iter().find_map(|wanted| weight_of(wanted)).unwrap_or(false)
    };
    if wanted.iter().all(|ranges| accepts(ranges)) { Ok(()) } else { Err(Refusal::NotAcceptable) }
}

/// Whether a parameter of a media range is a weight of zero.
fn is_ruled_out(parameter: &str) -> bool {
    let weight = parameter.split_once('=').filter(|(name, _)| name.trim().eq_ignore_ascii_case("q"));
    weight.is_some_and(|(_, weight)| weight.trim().parse::<f32>().is_ok_and(|weight| weight == 0.0))
}

/// The body must be plain JSON.
///
/// # Errors
/// `MediaType`.
pub(crate) fn check_body(headers: &HeaderMap) -> Result<(), Refusal> {
    if headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
    {
        return Err(Refusal::MediaType("content_encoding"));
    }
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(media_type), None) = (types.next(), types.next()) else { return Err(Refusal::MediaType("content_type")) };
    if !media_type.to_str().is_ok_and(is_json) {
        return Err(Refusal::MediaType("content_type"));
    }
    Ok(())
}

/// Whether a media type is that of event streams.
pub(crate) fn is_event_stream(media_type: &str) -> bool {
    media_type.split(';').next().is_some_and(|essence| essence.trim().eq_ignore_ascii_case(EVENT_STREAM))
}

/// Whether a media type is JSON in UTF-8.
pub(crate) fn is_json(media_type: &str) -> bool {
    if media_type == "application/json" {
        return true;
    }
    let mut parts = media_type.split(';').map(str::trim);
    let json = parts.next().is_some_and(|essence| essence.eq_ignore_ascii_case("application/json"));
    json && parts.all(|parameter| match parameter.split_once('=') {
        Some((name, value)) if name.trim().eq_ignore_ascii_case("charset") => {
            value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
        }
        _ => true,
    })
}

/// The text of a header that occurs at least once.
pub(crate) fn text<'h>(headers: &'h HeaderMap, name: &header::HeaderName) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(headers: &[(&'static str, &str)]) -> Result<(), &'static str> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        let checked = check_body(&map).and_then(|()| check_accept(&map, &[&JSON_RANGES, &EVENT_RANGES]));
        checked.map_err(|refusal| refusal.name())
    }

    #[test]
    fn each_door_has_its_methods() {
        let verbs = |door: Door| {
            [Method::GET, Method::POST, Method::DELETE, Method::PUT].map(|method| verb(&method, door).ok())
        };
        assert_eq!(verbs(Door::Streamable), [Some(Verb::Get), Some(Verb::Post), Some(Verb::Delete), None]);
        assert_eq!(verbs(Door::SseStream), [Some(Verb::Get), None, None, None]);
        assert_eq!(verbs(Door::SseMessage), [None, Some(Verb::Post), None, None]);
    }

    #[test]
    fn only_plain_json_in_utf_8_is_read() {
        for good in [
            "application/json",
            "Application/JSON; charset=UTF-8",
            "application/json;charset=\"utf-8\"",
            "application/json; profile=x",
        ] {
            assert_eq!(check(&[("content-type", good)]), Ok(()), "{good}");
        }
        for bad in
            ["text/json", "application/json; charset=utf-16", "application/jsonx", "", "application/json, text/plain"]
        {
            assert_eq!(check(&[("content-type", bad)]), Err("content_type"), "{bad}");
        }
        assert_eq!(check(&[]), Err("content_type"));
        assert_eq!(
            check(&[("content-type", "application/json"), ("content-type", "application/json")]),
            Err("content_type")
        );
        assert_eq!(
            check(&[("content-type", "application/json"), ("content-encoding", "gzip")]),
            Err("content_encoding")
        );
        assert_eq!(check(&[("content-type", "application/json"), ("content-encoding", "identity")]), Ok(()));
    }

    #[test]
    fn a_client_must_take_both_forms_of_answer_or_say_nothing() {
        let with = |accept: &str| check(&[("content-type", "application/json"), ("accept", accept)]);
        for good in [
            "application/json, text/event-stream",
            "text/event-stream;q=0.5, application/json",
            "*/*",
            "application/*, text/*",
            "*/*;q=0.001",
            "*/*;q=0, application/json, text/event-stream",
        ] {
            assert_eq!(with(good), Ok(()), "{good}");
        }
        for bad in [
            "application/json",
            "text/event-stream",
            "text/html",
            "",
            "*/*;q=0",
            "application/json, text/event-stream; Q = 0.000, */*",
        ] {
            assert_eq!(with(bad), Err("not_acceptable"), "{bad}");
        }
    }
}
