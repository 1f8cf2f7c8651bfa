//! Standing event streams: what asks for one, and what becomes of its connection.

use super::Running;
use super::Scripted;
use super::dispatch;
use super::permit;

use http::HeaderMap;
use http::HeaderValue;

use crate::call::Action;
use crate::call::Listen;
use crate::upstream::Choice;

/// The lines of the request that `listen` becomes, sorted, the request line first.
async fn asked(listen: Listen, headers: HeaderMap) -> Vec<String> {
    let scripted = Scripted::new([]);
    let running = Running::of(&scripted);
    let upstream = running.upstream();
    let endpoint = upstream.pick(Choice::Next).unwrap();
    let permitted = permit(Action::Listen(listen));
    upstream.send(&endpoint, &permitted, dispatch(upstream, headers)).await.unwrap();
    let requests = scripted.requests();
    let (head, body) = requests[0].split_once("\r\n\r\n").unwrap();
    assert_eq!(body, "");
    let mut lines: Vec<String> = head.lines().map(|line| line.replace(&scripted.address.to_string(), "HOST")).collect();
    lines[1..].sort_unstable();
    lines
}

fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    lines.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
}

#[tokio::test]
async fn a_stream_is_asked_for_without_a_body_and_after_the_calls_own_event() {
    let from_caller = [
        ("accept", "application/json, text/event-stream"),
        ("content-type", "application/json"),
        ("mcp-session-id", "s"),
        ("last-event-id", "not this one"),
    ];
    let mut expected =
        vec!["GET /mcp HTTP/1.1", "accept-encoding: identity", "accept: text/event-stream", "host: HOST"];
    expected.push("mcp-session-id: s");
    assert_eq!(asked(Listen::default(), headers(&from_caller)).await, expected);
    expected.insert(4, "last-event-id: größe 7");
    let listen = Listen::after(Some("größe 7".as_bytes())).unwrap();
    assert_eq!(asked(listen, headers(&from_caller)).await, expected);
}
