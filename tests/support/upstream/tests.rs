//! Does the scripted upstream do as it is told?

use std::io::ErrorKind;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::upstream::Event;
use crate::support::upstream::Reply;
use crate::support::upstream::Upstream;

fn post(body: &Value) -> String {
    let body = body.to_string();
    format!("POST /mcp HTTP/1.1\r\nHost: x\r\nX-Two: a\r\nx-two: b\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn call(tool: &str) -> String {
    let params = json!({"name": tool, "arguments": {"a": 1}, "_meta": {"progressToken": "t"}});
    post(&json!({"jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": params}))
}

/// What comes back until the connection ends or falls silent, and whether it was reset.
async fn exchange(upstream: &Upstream, request: &str) -> (String, bool) {
    let mut io = TcpStream::connect(upstream.address()).await.unwrap();
    io.write_all(request.as_bytes()).await.unwrap();
    let (mut answer, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
    loop {
        match timeout(Duration::from_millis(150), io.read(&mut buffer)).await {
            Ok(Ok(count)) if count > 0 => answer.extend_from_slice(&buffer[..count]),
            Ok(Err(error)) => return (lossy(&answer), error.kind() == ErrorKind::ConnectionReset),
            _ => return (lossy(&answer), false),
        }
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The answer to a call under one reply: the set-up of the tests about replies.
async fn answered(reply: Reply) -> (String, bool) {
    let upstream = Upstream::start().await;
    upstream.on("tools/call", reply);
    exchange(&upstream, &call("echo")).await
}

async fn read_until(io: &mut TcpStream, wanted: &str) -> String {
    let (mut text, mut buffer) = (String::new(), vec![0; 4096]);
    while !text.contains(wanted) {
        let count = timeout(Duration::from_secs(5), io.read(&mut buffer)).await.unwrap().unwrap();
        assert!(count > 0, "{wanted} does not come: {text}");
        text.push_str(&lossy(&buffer[..count]));
    }
    text
}

#[tokio::test]
async fn every_byte_received_is_kept() {
    let upstream = Upstream::start().await;
    let (body, mut io) =
        (json!({"jsonrpc": "2.0", "id": 3, "method": "ping"}), TcpStream::connect(upstream.address()).await.unwrap());
    let text = body.to_string();
    let (first, second) = text.split_at(5);
    let chunks = format!("5\r\n{first}\r\n{:x};x=y\r\n{second}\r\n0\r\n\r\n", second.len());
    let chunked = format!("POST /mcp HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
    io.write_all(format!("{chunked}{}", post(&body)).as_bytes()).await.unwrap();
    let requests = upstream.wait_for("ping", 2).await;
    assert_eq!((&requests[0].raw[..], &requests[1].raw[..]), (chunked.as_bytes(), post(&body).as_bytes()));
    assert_eq!((requests[0].json(), &requests[0].body), (body.clone(), &requests[1].body));
    assert_eq!(
        (requests[1].line(), requests[1].headers("X-TWO")),
        ("POST /mcp HTTP/1.1", vec!["a".into(), "b".into()])
    );
    assert_eq!(upstream.connections()[0].bytes, format!("{chunked}{}", post(&body)));
}

#[tokio::test]
async fn the_most_exact_script_answers_and_the_last_reply_is_repeated() {
    let upstream = Upstream::start().await;
    assert!(exchange(&upstream, &call("echo")).await.0.contains(r#"{\"a\":1}"#), "without a script it echoes");
    upstream.on("*", Reply::error(5, "no")).on_each("tools/call echo", vec![Reply::text("one"), Reply::text("two")]);
    for expected in ["one", "two", "two"] {
        assert!(exchange(&upstream, &call("echo")).await.0.contains(expected));
    }
    assert!(exchange(&upstream, &call("other")).await.0.contains("\"code\":5"));
}

#[tokio::test]
async fn an_answer_is_framed_slowed_and_cut_as_told() {
    let (text, _) = answered(Reply::text("x").chunked()).await;
    assert!(text.contains("Transfer-Encoding: chunked") && text.ends_with("\r\n0\r\n\r\n"), "{text}");
    let (text, _) = answered(Reply::text("x").until_close()).await;
    assert!(!text.contains("Content-Length") && text.contains("Connection: close"), "{text}");
    let start = Instant::now();
    assert!(answered(Reply::text("x").drip(20, Duration::from_millis(20))).await.0.contains("\"x\""));
    assert!(start.elapsed() > Duration::from_millis(100));
    let (text, reset) = answered(Reply::text("x").close_after(10)).await;
    assert_eq!((text.split("\r\n\r\n").nth(1).unwrap().len(), reset), (10, false));
    assert_eq!(answered(Reply::reset()).await, (String::new(), true));
    assert!(answered(Reply::text("x").reset_after(10)).await.1);
    let (text, _) = answered(Reply::sse(vec![Event::raw("data: {\"jsonr")]).close_after(15)).await;
    assert!(text.contains("data: {\"js") && !text.ends_with("0\r\n\r\n"), "{text}");
}

#[tokio::test]
async fn a_stream_sends_each_event_in_its_time() {
    let result = Event::result(json!({})).after(Duration::from_millis(100));
    let start = Instant::now();
    let (text, _) = answered(Reply::sse(vec![Event::comment("c"), Event::progress(1), result])).await;
    assert!(start.elapsed() > Duration::from_millis(100));
    assert!(
        text.contains(": c\n\n") && text.contains("\"progressToken\":\"t\"") && text.contains("\"id\":9"),
        "{text}"
    );
    let (text, _) = answered(Reply::twice(json!({}))).await;
    assert_eq!(text.matches("\"id\":9").count(), 2);
}

#[tokio::test]
async fn a_question_waits_for_its_answer() {
    let upstream = Upstream::start().await;
    upstream.on("tools/call", Reply::elicitation());
    let mut io = TcpStream::connect(upstream.address()).await.unwrap();
    io.write_all(call("echo").as_bytes()).await.unwrap();
    assert!(!read_until(&mut io, "ask-1").await.contains("result"));
    let answer = json!({"action": "accept", "content": {"answer": "blue"}});
    let answer = post(&json!({"jsonrpc": "2.0", "id": "ask-1", "result": answer}));
    assert!(exchange(&upstream, &answer).await.0.starts_with("HTTP/1.1 202 "));
    assert!(read_until(&mut io, "0\r\n\r\n").await.contains("blue"));
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed_and_a_stopped_upstream_is_gone() {
    let upstream = Upstream::start().await;
    upstream.on("tools/call", Reply::never());
    let mut io = TcpStream::connect(upstream.address()).await.unwrap();
    io.write_all(call("echo").as_bytes()).await.unwrap();
    upstream.wait_for("tools/call echo", 1).await;
    assert_eq!(upstream.connections()[0].closed, None);
    let left = Instant::now();
    drop(io);
    assert!(upstream.wait_closed(0).await >= left);
    let address = upstream.address();
    upstream.stop().await;
    assert!(TcpStream::connect(address).await.is_err());
    let again = Upstream::start_at(address).await;
    assert!(exchange(&again, &call("echo")).await.0.contains("200"));
}

#[tokio::test]
async fn compressed_content_is_what_it_says() {
    let (text, _) = answered(Reply::gzip(json!({"zipped": true}))).await;
    assert!(text.contains("Content-Encoding: gzip"), "{text}");
    // Stored blocks leave the text readable; `gzip -t` accepts the whole (checked by hand, the tool is no dependency).
    assert!(text.contains("\"zipped\":true"), "{text}");
}

fn get(last_event_id: &str) -> String {
    format!("GET /sse HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n{last_event_id}\r\n")
}

/// A stream that somebody listens to.
async fn listening(upstream: &Upstream) -> TcpStream {
    let mut io = TcpStream::connect(upstream.address()).await.unwrap();
    io.write_all(get("").as_bytes()).await.unwrap();
    io
}

fn to(path: &str, request: &str) -> String {
    request.replacen("/mcp", path, 1)
}

#[tokio::test]
async fn a_standing_stream_says_what_is_pushed_until_it_is_ended() {
    let upstream = Upstream::start().await;
    upstream.on("GET", Reply::standing(vec![Event::priming("e-0").retry(5)]));
    let mut io = listening(&upstream).await;
    assert!(read_until(&mut io, "data: \n\n").await.contains("id: e-0\nretry: 5\ndata: \n\n"));
    let stream = upstream.stream(0).await;
    stream.push(Event::notification("notifications/x", json!({})).id("e-1").named("message"));
    assert!(read_until(&mut io, "\n\n").await.contains("event: message\nid: e-1\ndata: {"));
    assert!(stream.is_open());
    stream.end();
    assert!(read_until(&mut io, "0\r\n\r\n").await.contains("0\r\n\r\n"));
    stream.ended().await;
    io.write_all(get("").as_bytes()).await.unwrap();
    let second = upstream.stream(1).await;
    assert_eq!(second.request.connection, 0, "the connection of a stream that ended properly is used again");
    drop(io);
    second.ended().await;

    let mut io = listening(&upstream).await;
    upstream.stream(2).await.reset();
    assert_eq!(io.read_to_end(&mut Vec::new()).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    let mut io = listening(&upstream).await;
    upstream.stream(3).await.close();
    let mut rest = Vec::new();
    io.read_to_end(&mut rest).await.unwrap();
    assert!(!lossy(&rest).contains("0\r\n\r\n"));
}

#[tokio::test]
async fn an_http_sse_server_answers_on_the_stream_of_the_session() {
    let upstream = Upstream::start().await;
    upstream.speak_sse("/message?sessionId=$session").on("tools/call ask", Reply::elicitation());
    let (mut one, mut two) = (listening(&upstream).await, listening(&upstream).await);
    let endpoint = format!("event: endpoint\ndata: /message?sessionId={}\n\n", upstream.stream(0).await.session());
    let streams = [upstream.stream(0).await, upstream.stream(1).await];
    let is_first = read_until(&mut one, "\n\n").await.contains(&endpoint);
    // Whoever came first: the streams are told apart by what they said.
    let (mine, other) = if is_first { (&streams[0], &streams[1]) } else { (&streams[1], &streams[0]) };
    assert!(read_until(&mut two, "\n\n").await.contains(&other.session()));
    let path = format!("/message?sessionId={}", mine.session());
    let (accepted, _) = exchange(&upstream, &to(&path, &call("echo"))).await;
    assert!(accepted.starts_with("HTTP/1.1 202 ") && accepted.ends_with("\r\n\r\nAccepted"), "{accepted}");
    let said = read_until(&mut one, "\n\n").await;
    assert!(said.contains("event: message\ndata: {") && said.contains("\"id\":9"), "{said}");
    exchange(&upstream, &to(&path, &call("ask"))).await;
    assert!(read_until(&mut one, "\n\n").await.contains("ask-1"));
    let answer = json!({"jsonrpc": "2.0", "id": "ask-1", "result": {"content": {"answer": "blue"}}});
    assert!(exchange(&upstream, &to(&path, &post(&answer))).await.0.starts_with("HTTP/1.1 202 "));
    assert!(read_until(&mut one, "\n\n").await.contains("blue"));
    drop(one);
    mine.ended().await;
    assert!(exchange(&upstream, &to(&path, &call("echo"))).await.0.starts_with("HTTP/1.1 404 "));
    assert!(timeout(Duration::from_millis(50), two.read(&mut [0; 1])).await.is_err(), "the other stream is silent");
}

#[tokio::test]
async fn an_http_sse_server_may_answer_before_it_accepts() {
    let upstream = Upstream::start().await;
    upstream.speak_sse_late("message", Duration::from_millis(200));
    let mut io = listening(&upstream).await;
    read_until(&mut io, "data: message\n\n").await;
    let mut poster = TcpStream::connect(upstream.address()).await.unwrap();
    poster.write_all(to("/message", &call("echo")).as_bytes()).await.unwrap();
    assert!(read_until(&mut io, "\n\n").await.contains("\"id\":9"), "without a session it is the last stream");
    assert!(timeout(Duration::from_millis(20), poster.read(&mut [0; 1])).await.is_err());
    assert!(read_until(&mut poster, "Accepted").await.contains("202"));
}

#[tokio::test]
async fn a_stream_that_ended_early_is_continued_from_its_event() {
    let upstream = Upstream::start().await;
    upstream.on("tools/call slow", Reply::to_be_continued("e-7", 20));
    upstream.on("GET e-7", Reply::sse(vec![Event::result(json!({"late": true})).id("e-8")]));
    let (first, _) = exchange(&upstream, &call("slow")).await;
    assert!(first.contains("id: e-7\nretry: 20\ndata: \n\n") && first.ends_with("0\r\n\r\n"), "{first}");
    let (second, _) = exchange(&upstream, &get("Last-Event-ID: e-7\r\n")).await;
    assert!(second.contains("id: e-8\ndata: {") && second.contains("\"id\":9"), "the request's own id: {second}");
    assert_eq!(upstream.requests_for("GET e-7").len(), 1);
    assert!(exchange(&upstream, &get("Last-Event-ID: other\r\n")).await.0.starts_with("HTTP/1.1 405 "));
}
