//! What goes out, what comes back, and what happens when the server breaks off.

use super::CALL;
use super::OK;
use super::Running;
use super::Scripted;
use super::Step;
use super::dispatch;
use super::eventually;
use super::permit;
use super::permitted;
use super::read;
use super::server;
use super::soon;

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::StatusCode;
use tokio::time::Instant;

use crate::call::Action;
use crate::config::model::UpstreamAuth;
use crate::config::model::UpstreamAuthType;
use crate::config::secret::Secret;
use crate::upstream::Choice;
use crate::upstream::Dispatch;
use crate::upstream::Failure;
use crate::upstream::dial::Dialer;
use crate::upstream::endpoint::Endpoint;
use crate::upstream::pool::IDLE_CONNECTIONS_MAX;
use crate::upstream::pool::Pool;
use crate::upstream::target::Target;

fn client_headers() -> HeaderMap {
    let lines = [
        ("accept", "application/json, text/event-stream"),
        ("mcp-session-id", "upstream-session"),
        ("authorization", "Bearer client-key"),
        ("cookie", "client=1"),
        ("host", "gateway.test"),
        ("content-length", "3"),
        ("transfer-encoding", "chunked"),
        ("accept-encoding", "gzip"),
        ("connection", "x-secret"),
        ("expect", "100-continue"),
    ];
    lines
        .iter()
        .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
        .collect::<Vec<(http::HeaderName, http::HeaderValue)>>()
        .into_iter()
        .collect()
}

#[tokio::test]
async fn a_call_arrives_byte_for_byte_with_the_gateways_own_headers() {
    let scripted = Scripted::new([]);
    let auth = UpstreamAuth {
        r#type: UpstreamAuthType::Bearer,
        secret: Some(Secret::new("s3cret")),
        ..UpstreamAuth::default()
    };
    let headers = [("X-Tenant".to_owned(), Secret::new("7"))].into();
    let running = Running::new(crate::config::model::Server { auth, headers, ..server(&scripted.url()) });
    let upstream = running.upstream();
    let endpoint = upstream.pick(Choice::Next).unwrap();
    let answer = upstream.send(&endpoint, &permitted(CALL), dispatch(client_headers())).await.unwrap();
    assert_eq!(
        (answer.status, answer.attempts, answer.reused, answer.body.length()),
        (StatusCode::OK, 1, false, Some(7))
    );
    assert_eq!(read(answer).await.unwrap(), "{\"a\":1}");
    let requests = scripted.requests();
    let (head, body) = requests[0].split_once("\r\n\r\n").unwrap();
    assert_eq!(body, CALL);
    let mut lines: Vec<&str> = head.lines().collect();
    assert_eq!(lines.remove(0), "POST /mcp HTTP/1.1");
    lines.sort_unstable();
    let (host, length) = (format!("host: {}", scripted.address), format!("content-length: {}", CALL.len()));
    let mut expected = vec![
        "accept-encoding: identity",
        "accept: application/json, text/event-stream",
        "authorization: Bearer s3cret",
        "mcp-session-id: upstream-session",
        "x-tenant: 7",
        &host,
        &length,
    ];
    expected.sort_unstable();
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn the_end_of_a_session_is_a_delete_without_a_body() {
    let scripted = Scripted::new([]);
    let running = Running::of(&scripted);
    let upstream = running.upstream();
    let endpoint = upstream.pick(Choice::Next).unwrap();
    let permitted = permit(Action::EndSession);
    upstream.send(&endpoint, &permitted, dispatch(HeaderMap::new())).await.unwrap();
    let request = &scripted.requests()[0];
    assert!(request.starts_with("DELETE /mcp HTTP/1.1\r\n") && request.ends_with("\r\n\r\n"), "{request}");
    assert!(!request.contains("content-length") && !request.contains("transfer-encoding"), "{request}");
}

#[tokio::test]
async fn a_message_goes_to_the_path_that_its_stream_named() {
    let scripted = Scripted::new([]);
    let running = Running::new(server(&format!("{}/a/sse?key=s3cret", scripted.url())));
    let upstream = running.upstream();
    let endpoint = upstream.pick(Choice::Next).unwrap();
    let path = endpoint.resolve_path("message?sessionId=7").unwrap();
    let there = Dispatch { path: Some(path), ..dispatch(HeaderMap::new()) };
    upstream.send(&endpoint, &permitted(CALL), there).await.unwrap();
    let request = &scripted.requests()[0];
    assert!(request.starts_with("POST /mcp/a/message?sessionId=7 HTTP/1.1\r\n"), "{request}");
    assert!(request.contains(&format!("host: {}\r\n", scripted.address)), "{request}");
}

#[tokio::test]
async fn chunks_are_handed_out_as_they_arrive_and_the_connection_is_kept() {
    let first = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\ndata\r\n";
    let scripted = Scripted::new([Step::Drip(format!("{first}1\r\n:\r\n0\r\n\r\n"))]);
    let running = Running::new(crate::config::model::Server { timeout_ms: 5_000, ..server(&scripted.url()) });
    let mut answer = running.send().await.unwrap();
    assert_eq!(answer.body.length(), None);
    let mut chunks = Vec::new();
    while let Some(chunk) = answer.body.next(soon()).await {
        chunks.push(chunk.unwrap());
    }
    assert!(chunks.len() > 1 && chunks.concat() == b"data:", "{chunks:?}");
    assert!(running.send().await.unwrap().reused);
    assert_eq!(scripted.connections(), 1);
}

#[tokio::test]
async fn an_answer_without_a_body_keeps_its_connection_unread() {
    let scripted = Scripted::new([Step::Say("HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n".into())]);
    let running = Running::of(&scripted);
    drop(running.send().await.unwrap());
    assert!(running.send().await.unwrap().reused);
}

#[tokio::test]
async fn a_body_of_a_megabyte_comes_back_identical() {
    let text: String =
        (0..1_048_576_u32).map(|index| char::from(b'a' + u8::try_from(index * 7 % 26).unwrap())).collect();
    let scripted =
        Scripted::new([Step::Say(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len()))]);
    assert!(Running::of(&scripted).call().await.unwrap() == text);
}

#[tokio::test]
async fn a_reset_is_an_error_and_nothing_is_sent_twice() {
    let scripted = Scripted::new([Step::Say(OK.into()), Step::Reset]);
    let running = Running::of(&scripted);
    running.call().await.unwrap();
    let error = running.call().await.unwrap_err();
    assert_eq!((error.failure(), error.attempts(), error.sent()), (Failure::Reset, 1, true));
    assert_eq!(error.name(), "reset");
    assert!(error.to_string().contains(&format!("http://{}", scripted.address)), "{error}");
    assert_eq!(scripted.requests().len(), 2);
}

#[tokio::test]
async fn a_close_without_an_answer_is_an_error() {
    let scripted = Scripted::new([Step::SayAndClose(String::new()), Step::SayAndClose("HTTP/1.1 200 O".into())]);
    let running = Running::of(&scripted);
    for _ in 0..2 {
        let error = running.call().await.unwrap_err();
        assert_eq!((error.failure(), error.sent()), (Failure::Reset, true), "{error}");
    }
    assert_eq!(scripted.requests().len(), 2);
}

#[tokio::test]
async fn a_head_that_drips_past_the_deadline_is_given_up() {
    let scripted = Scripted::new([Step::Drip(OK.into())]);
    let running = Running::of(&scripted);
    let begun = Instant::now();
    let error = running.call().await.unwrap_err();
    assert_eq!((error.failure(), error.sent()), (Failure::Timeout, true));
    assert!((400..4_000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
    eventually("the server seeing the client leave", || scripted.departures() == 1).await;
}

#[tokio::test]
async fn a_body_that_pauses_too_long_is_an_error_and_then_nothing() {
    let scripted = Scripted::new([Step::SayAndHang("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc".into())]);
    let mut answer = Running::of(&scripted).send().await.unwrap();
    assert_eq!(answer.body.next(soon()).await.unwrap().unwrap(), "abc");
    let error = answer.body.next(Instant::now() + Duration::from_millis(50)).await.unwrap().unwrap_err();
    assert_eq!(error.failure(), Failure::Timeout);
    assert!(answer.body.next(soon()).await.is_none());
    eventually("the server seeing the client leave", || scripted.departures() == 1).await;
}

#[tokio::test]
async fn waiting_for_a_chunk_can_be_given_up_and_taken_up_again() {
    let scripted = Scripted::new([Step::Drip("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc".into())]);
    let running = Running::new(crate::config::model::Server { timeout_ms: 5_000, ..server(&scripted.url()) });
    let mut answer = running.send().await.unwrap();
    let mut text = Vec::new();
    loop {
        tokio::select! {
            biased;
            chunk = answer.body.next(soon()) => match chunk {
                Some(chunk) => text.extend_from_slice(&chunk.unwrap()),
                None => break,
            },
            () = tokio::time::sleep(Duration::from_millis(3)) => {}
        }
    }
    assert_eq!(text, b"abc");
}

#[tokio::test]
async fn dropping_a_body_closes_the_connection_at_once() {
    let scripted =
        Scripted::new([Step::SayAndHang("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n".into())]);
    let running = Running::of(&scripted);
    let answer = running.send().await.unwrap();
    assert_eq!(scripted.departures(), 0);
    drop(answer);
    eventually("the server seeing the client leave", || scripted.departures() == 1).await;
}

#[tokio::test]
async fn dropping_a_waiting_call_closes_the_connection_at_once() {
    let scripted = Scripted::new([Step::SayAndHang(String::new())]);
    let running = Running::of(&scripted);
    tokio::time::timeout(Duration::from_millis(100), running.send()).await.unwrap_err();
    eventually("the server seeing the client leave", || scripted.departures() == 1).await;
}

#[tokio::test]
async fn a_kept_connection_that_closed_meanwhile_is_not_used() {
    let scripted = Scripted::new([Step::SayAndClose(OK.into())]);
    let running = Running::of(&scripted);
    running.call().await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let answer = running.send().await.unwrap();
    assert_eq!((answer.attempts, answer.reused), (1, false));
}

#[tokio::test]
async fn a_kept_connection_that_its_server_closed_50_ms_before_never_costs_a_call() {
    let scripted = Scripted::new(vec![Step::SayAndClose(OK.into()); 20]);
    let running = Running::of(&scripted);
    for call in 1..=20 {
        let answer = running.send().await.unwrap();
        assert_eq!((answer.attempts, answer.reused), (1, false), "call {call}");
        read(answer).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(scripted.requests().len(), 20);
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let scripted = Scripted::new([Step::Say("HTTP/1.1 307 X\r\nlocation: /other\r\ncontent-length: 0\r\n\r\n".into())]);
    let answer = Running::of(&scripted).send().await.unwrap();
    assert_eq!(answer.status, StatusCode::TEMPORARY_REDIRECT);
    assert_eq!(scripted.requests().len(), 1);
}

#[tokio::test]
async fn nobody_listening_is_a_failure_before_anything_was_sent() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = Running::new(server(&format!("http://{free}/"))).call().await.unwrap_err();
    assert_eq!((error.failure(), error.attempts(), error.sent()), (Failure::Connect, 1, false));
    let error = Running::new(server("http://nowhere.invalid/")).call().await.unwrap_err();
    assert_eq!((error.failure(), error.sent()), (Failure::Resolve, false));
}

#[tokio::test]
async fn an_idle_connection_is_closed_in_time() {
    let scripted = Scripted::new([]);
    let endpoint = Endpoint::new(Target::parse(&scripted.url()).ok().unwrap(), 1, 0);
    let dialer = Dialer::new();
    let pool = Pool::new(Duration::from_millis(60));
    pool.put(dialer.dial(&endpoint, soon()).await.unwrap());
    assert!(pool.take().await.is_some(), "it is young");
    pool.put(dialer.dial(&endpoint, soon()).await.unwrap());
    tokio::time::sleep(Duration::from_millis(80)).await;
    assert!(pool.take().await.is_none(), "it is old");
    pool.put(dialer.dial(&endpoint, soon()).await.unwrap());
    pool.sweep();
    assert_eq!(pool.len(), 1);
    tokio::time::sleep(Duration::from_millis(80)).await;
    pool.sweep();
    assert_eq!(pool.len(), 0);
    eventually("the server seeing three leave", || scripted.departures() == 3).await;
    pool.close();
    pool.put(dialer.dial(&endpoint, soon()).await.unwrap());
    assert_eq!(pool.len(), 0, "it is closed");
}

#[tokio::test]
async fn a_pool_keeps_no_more_than_its_limit() {
    let scripted = Scripted::new([]);
    let endpoint = Endpoint::new(Target::parse(&scripted.url()).ok().unwrap(), 1, 0);
    let dialer = Dialer::new();
    let pool = Pool::new(Duration::from_secs(60));
    for _ in 0..=IDLE_CONNECTIONS_MAX {
        pool.put(dialer.dial(&endpoint, soon()).await.unwrap());
    }
    assert_eq!(pool.len(), IDLE_CONNECTIONS_MAX);
}

#[test]
fn a_connection_of_a_runtime_that_ended_is_replaced() {
    let scripted = Scripted::new([]);
    let running = Arc::new(Running::of(&scripted));
    let first = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    first.block_on(running.call()).unwrap();
    let second = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    assert!(second.block_on(running.send()).unwrap().reused, "the other runtime still wakes who waits on its sockets");
    first.block_on(running.call()).unwrap();
    first.shutdown_timeout(Duration::from_secs(1));
    let answer = second.block_on(running.send()).unwrap();
    assert!(!answer.reused && answer.status == StatusCode::OK);
}
