//! Standing event streams: what asks for one, and what becomes of its connection.

use super::Running;
use super::Scripted;
use super::Step;
use super::dispatch;
use super::eventually;
use super::permit;
use super::read;
use super::server;
use super::soon;

use std::io::Read;
use std::io::Write;
use std::time::Duration;

use http::HeaderMap;
use http::HeaderValue;
use http::StatusCode;
use tokio::task::JoinSet;

use crate::call::Action;
use crate::call::Listen;
use crate::config::model::Server;
use crate::upstream::Answer;
use crate::upstream::Choice;

/// The lines of the request that `listen` becomes, sorted, the request line first.
async fn asked(listen: Listen, headers: HeaderMap) -> Vec<String> {
    let scripted = Scripted::new([]);
    let running = Running::of(&scripted);
    let upstream = running.upstream();
    let endpoint = upstream.pick(Choice::Next).unwrap();
    let permitted = permit(Action::Listen(listen));
    upstream.send(&endpoint, &permitted, dispatch(headers)).await.unwrap();
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

/// One stream of a server that follows `script`.
async fn listening(script: impl IntoIterator<Item = Step>) -> (Scripted, Running, Answer) {
    let scripted = Scripted::new(script);
    let running = Running::of(&scripted);
    let answer = listen(&running).await;
    (scripted, running, answer)
}

async fn listen(running: &Running) -> Answer {
    let upstream = running.upstream();
    let endpoint = upstream.pick(Choice::Next).unwrap();
    let permitted = permit(Action::Listen(Listen::default()));
    upstream.send(&endpoint, &permitted, dispatch(HeaderMap::new())).await.unwrap()
}

const STREAM: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
const EVENT: &str = "9\r\ndata: x\n\n\r\n";

#[tokio::test]
async fn a_stream_that_is_dropped_is_closed_at_once() {
    let (scripted, running, mut answer) = listening([Step::SayAndHang(format!("{STREAM}{EVENT}"))]).await;
    assert_eq!(answer.body.next(soon()).await.unwrap().unwrap(), "data: x\n\n");
    // Nobody waits for the next event at this moment.
    drop(answer);
    eventually("the stream being closed", || scripted.departures() == 1).await;
    assert!(!listen(&running).await.reused);
    // Nor does it matter that somebody did.
    let (scripted, _running, mut answer) = listening([Step::SayAndHang(STREAM.into())]).await;
    tokio::time::timeout(Duration::from_millis(50), answer.body.next(soon())).await.unwrap_err();
    drop(answer);
    eventually("the stream being closed", || scripted.departures() == 1).await;
}

#[tokio::test]
async fn a_stream_with_anything_left_leaves_no_connection_behind() {
    let whole = format!("{STREAM}{EVENT}{EVENT}0\r\n\r\n");
    let (scripted, running, mut answer) = listening([Step::Say(whole.clone())]).await;
    assert_eq!(answer.body.next(soon()).await.unwrap().unwrap(), "data: x\n\n");
    drop(answer);
    let next = listen(&running).await;
    assert!(!next.reused, "an event was left");
    read(next).await.unwrap();
    eventually("the stream being closed", || scripted.departures() == 1).await;

    let surplus = format!("{whole}{EVENT}");
    let (scripted, running, answer) = listening([Step::Say(surplus)]).await;
    assert_eq!(read(answer).await.unwrap(), "data: x\n\ndata: x\n\n");
    let next = listen(&running).await;
    assert!(!next.reused, "something came after the end");
    read(next).await.unwrap();
    eventually("the stream being closed", || scripted.departures() == 1).await;
}

#[tokio::test]
async fn a_stream_that_ended_properly_keeps_its_connection_for_the_next() {
    let refused = "HTTP/1.1 405 Method Not Allowed\r\nallow: POST\r\ncontent-length: 0\r\n\r\n";
    let (_scripted, running, answer) =
        listening([Step::Say(format!("{STREAM}{EVENT}0\r\n\r\n")), Step::Say(refused.into())]).await;
    assert_eq!(read(answer).await.unwrap(), "data: x\n\n");
    let answer = listen(&running).await;
    assert_eq!((answer.status, answer.reused), (StatusCode::METHOD_NOT_ALLOWED, true));
    drop(answer);
    assert!(listen(&running).await.reused);
}

/// A server that says `answer` to the first request of every connection, and holds the connection.
fn holding(answer: String) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.read(&mut [0; 4_096]);
            let _ = stream.write_all(answer.as_bytes());
            held.push(stream);
        }
    });
    format!("http://{address}/mcp")
}

fn resident_bytes() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<usize>().unwrap() * 1_024
}

/// Most of it is hyper's: two buffers and a channel of about 8 KiB each, not all of it touched.
#[tokio::test]
#[ignore = "measures memory; needs 4,000 open files"]
async fn an_idle_stream_costs_little_memory() {
    const STREAMS: usize = 1_900;
    let running = Running::new(Server { timeout_ms: 5_000, ..server(&holding(format!("{STREAM}{EVENT}"))) });
    let mut streams = JoinSet::new();
    let open = async |streams: &mut JoinSet<bool>| {
        let mut answer = listen(&running).await;
        answer.body.next(soon()).await.unwrap().unwrap();
        // Waits for the next event, as a relay does, which holds the whole answer.
        streams.spawn(async move {
            let mut held = answer;
            held.body.next(soon() + Duration::from_secs(60)).await.is_some()
        });
    };
    for _ in 0..100 {
        open(&mut streams).await;
    }
    let before = resident_bytes();
    for _ in 0..STREAMS {
        open(&mut streams).await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let each = resident_bytes().saturating_sub(before) / STREAMS;
    println!("{each} bytes for each idle stream");
    assert_eq!(streams.len(), STREAMS + 100);
    assert!((1_024..24 * 1_024).contains(&each), "{each}");
}
