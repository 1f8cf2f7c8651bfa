//! Does a client read exactly the messages that were screened, however its reader splits lines?
//!
//! One event stream of the upstream, written in every odd form the standard allows, is cut at every byte into two TCP
//! segments. What the client got is read twice, by parsers that share nothing with the gateway: as WHATWG says, and
//! splitting lines as Python does. Both must read the very messages, ids and times that were let through.

use std::time::Duration;

use serde_json::Value;
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::client;
use crate::support::client::Answer;
use crate::support::client::Connection;
use crate::support::gateway;
use crate::support::gateway::Gateway;
use crate::support::gateway::Key;
use crate::support::upstream::Reply;
use crate::support::upstream::Upstream;

const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"c","version":"1"}}}"#;
const LIST: &str = r#"{"jsonrpc":"2.0","id":9,"method":"tools/list"}"#;
/// Between the two segments: enough for the first to be read alone.
const PAUSE: Duration = Duration::from_micros(500);
/// Connections at once; each has an upstream of its own.
const LANES: usize = 12;

/// What a client's reader makes of a stream.
#[derive(Debug, PartialEq, Default, Clone)]
struct Heard {
    /// Each message, with the last event id as it was then.
    messages: Vec<(String, Value)>,
    /// Every reconnection time, in order.
    retries: Vec<u64>,
    /// The last event id at the end.
    last_id: String,
}

/// Reads a stream by WHATWG's rules, or with lines as Python's `splitlines` finds them.
fn hear(stream: &str, is_python: bool) -> Heard {
    let stream = stream.strip_prefix('\u{feff}').unwrap_or(stream);
    let (mut heard, mut kind, mut data) = (Heard::default(), String::new(), String::new());
    for line in lines(stream, is_python) {
        if line.is_empty() {
            let text = data.strip_suffix('\n').unwrap_or_default();
            // An event that is empty hands nothing on: its id is where to go on.
            if !text.is_empty() && matches!(kind.as_str(), "" | "message") {
                let message = serde_json::from_str(text).unwrap_or_else(|_| json!({ "no JSON": text }));
                heard.messages.push((heard.last_id.clone(), message));
            }
            (kind, data) = (String::new(), String::new());
            continue;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => kind = value.to_owned(),
            "data" => data.extend([value, "\n"]),
            "id" if !value.contains('\0') => heard.last_id = value.to_owned(),
            "retry" if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
                heard.retries.push(value.parse().unwrap());
            }
            _ => {}
        }
    }
    heard
}

/// The lines that were ended; the rest is an event that never came.
fn lines(text: &str, is_python: bool) -> Vec<&str> {
    let is_end = |letter: char| {
        let python = ['\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}', '\u{2029}'];
        matches!(letter, '\r' | '\n') || (is_python && python.contains(&letter))
    };
    let (mut lines, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.find(is_end) {
        let (line, end) = rest.split_at(at);
        lines.push(line);
        let length = if end.starts_with("\r\n") { 2 } else { end.chars().next().unwrap().len_utf8() };
        rest = &end[length..];
    }
    lines
}

#[test]
fn the_two_readers_read_as_they_should() {
    let stream =
        "\u{feff}: c\nid: 1\r\nretry: 5\rdata:a\ndata\ndata:  b\n\nevent: x\ndata: {}\n\nid\ndata: 1\n\ndata: 2";
    let heard = hear(stream, false);
    assert_eq!(heard.messages, [("1".into(), json!({"no JSON": "a\n\n b"})), (String::new(), json!(1))]);
    assert_eq!((heard.retries, heard.last_id), (vec![5], String::new()));
    let forged = "id: \u{2028}data: 1\u{2028}\u{2028}\n\n";
    assert_eq!((hear(forged, false).messages.len(), hear(forged, true).messages.len()), (0, 1));
}

/// A stream of the upstream, and what is to be heard of it.
#[derive(Clone)]
struct Stream {
    name: &'static str,
    text: String,
    heard: Heard,
}

fn note(text: &str) -> Value {
    json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": { "level": "info", "data": text } })
}

/// The answer to [`LIST`] with what is to be hidden, over several lines, and as it may go on.
fn list() -> (&'static str, Value) {
    let lines = concat!(
        "data: {\"jsonrpc\":\"2.0\",\"id\":9,\n",
        "data:\"result\":{\"tools\":[{\"name\":\"echo\"},\n",
        "data: {\"name\":\"hi\\u0064den\"},{\"name\":\"ö\"}\n",
        "data\n",
        "data: ]}}\n",
    );
    let tools = json!([{ "name": "echo" }, { "name": "ö" }]);
    (lines, json!({ "jsonrpc": "2.0", "id": 9, "result": { "tools": tools } }))
}

/// Streams in every odd form; each ends with the answer to [`LIST`].
fn streams() -> Vec<Stream> {
    let (lines, listed) = list();
    let heard = |messages: &[(&str, Value)], retries: &[u64], last_id: &str| Heard {
        messages: messages.iter().map(|(id, message)| ((*id).to_owned(), message.clone())).collect(),
        retries: retries.to_vec(),
        last_id: last_id.into(),
    };
    let letters = "é € 😀 \u{85}\u{2028}\u{2029}x";
    let plain = format!(
        ": hello\n\nid: 1\nretry: 1500\ndata: \n\nid: 2\ndata: {}\n\n:\n\nevent: message\nid:3\ndata:{}\n\nid: 4\n{lines}\n",
        note("a"),
        note(letters)
    );
    let all = heard(&[("2", note("a")), ("3", note(letters)), ("4", listed.clone())], &[1500], "4");
    // Each line ends in its own way, in turn; a CR and the LF of an empty line would be one end.
    let mixed = |text: &str| -> String {
        let mut mixed = String::new();
        for (line, end) in text.split_terminator('\n').zip(["\n", "\r\n", "\r"].iter().cycle()) {
            let is_joined = line.is_empty() && mixed.ends_with('\r') && *end == "\n";
            mixed.extend([line, if is_joined { "\r" } else { end }]);
        }
        mixed
    };
    let forged = format!("data: {}", note("forged"));
    let odd = format!(
        "\u{feff}\u{feff}data: {0}\n\n\n\u{feff}data: {0}\n\nx: y\u{2028}{forged}\u{2028}\u{2028}\nid: 5\n\nunknown\nretry: 7x\nretry: 20\nid: a\0b\ndata: {1}\n\nevent: other\nid: 6\ndata: {2}\n\nevent:\nevent: other\nevent: message\ndata: {2}\n\nid\nevent: message\n\n: c\u{85}{forged}\u{85}\u{85}\n data: {0}\n\nid: f\u{c}{forged}\u{c}\u{c}\ndata: {2}\n\nid: 8\n{lines}\n",
        note("behind a mark"),
        note("b"),
        note("c"),
    );
    // An event of another type goes with its id, and so does an id some readers would take for several lines.
    let odd_heard = heard(&[("5", note("b")), ("5", note("c")), ("", note("c")), ("8", listed.clone())], &[20], "8");
    let answers = |id: Value| format!("data: {}\n\n", json!({ "jsonrpc": "2.0", "id": id, "result": { "tools": [] } }));
    let foreign = format!("{}{}id: 1\n{lines}\n{}", answers(json!("9")), answers(json!(8)), answers(json!(9)));
    vec![
        Stream { name: "LF", text: plain.clone(), heard: all.clone() },
        Stream { name: "CRLF", text: plain.replace('\n', "\r\n"), heard: all.clone() },
        Stream { name: "CR", text: plain.replace('\n', "\r"), heard: all.clone() },
        Stream { name: "mixed", text: mixed(&plain), heard: all.clone() },
        Stream { name: "a mark", text: format!("\u{feff}{plain}"), heard: all },
        Stream { name: "odd", text: odd.clone(), heard: odd_heard.clone() },
        Stream { name: "odd, CRLF", text: odd.replace('\n', "\r\n"), heard: odd_heard },
        Stream { name: "foreign answers", text: foreign, heard: heard(&[("1", listed)], &[], "1") },
    ]
}

/// An answer whose head is as long as its body, so that one step can end anywhere in the body and still be the first half.
fn in_two(stream: &str, at: usize) -> Reply {
    let start = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: {}\r\nX-Padding: ",
        stream.len()
    );
    let head = format!("{start}{}\r\n\r\n", "p".repeat(stream.len().saturating_sub(start.len())));
    Reply::raw([head.as_bytes(), stream.as_bytes()].concat()).drip(head.len() + at, PAUSE)
}

/// A gateway before [`LANES`] servers whose tool `hidden` may not be called.
struct Stage {
    upstreams: Vec<Upstream>,
    gateway: Gateway,
    key: Key,
}

impl Stage {
    async fn start() -> Self {
        let key = gateway::make_key("ci");
        let mut config = format!("[keys.ci]\ndigest = \"{}\"\nmcp_servers = [\"*\"]\n", key.digest);
        let mut upstreams = Vec::new();
        for lane in 0..LANES {
            let upstream = Upstream::start().await;
            config += &format!(
                "[servers.s{lane}]\nurl = \"{}\"\nblocked_tools = [\"hidden\"]\nbreaker.enabled = false\n",
                upstream.url()
            );
            upstreams.push(upstream);
        }
        let gateway = Gateway::start(&config);
        Self { upstreams, gateway, key }
    }

    /// A request in a session of its own that is answered by a stream: a POST, or a standing GET. Outside a session ids
    /// of events would be sealed.
    async fn request(&self, lane: usize, is_get: bool) -> String {
        let (path, key) = (format!("/mcp/s{lane}"), format!("X-API-Key: {}", self.key.key));
        let opened = client::send(self.gateway.data, client::post(&path, &[&key], INITIALIZE)).await;
        let session = opened.header("mcp-session-id").expect("a session");
        if !is_get {
            return client::post(&path, &[&key, &format!("Mcp-Session-Id: {session}")], LIST);
        }
        format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\n{key}\r\nAccept: text/event-stream\r\nMcp-Session-Id: {session}\r\n\r\n"
        )
    }

    /// Has every reply given once, the lanes working side by side, and hands each answer to `judge` with its number.
    async fn play(
        &self,
        is_get: bool,
        replies: Vec<Reply>,
        judge: impl Fn(usize, &Answer) + Send + Sync + Clone + 'static,
    ) {
        let mut lanes = JoinSet::new();
        for lane in 0..LANES {
            let numbers: Vec<usize> = (lane..replies.len()).step_by(LANES).collect();
            if numbers.is_empty() {
                continue;
            }
            let own = numbers.iter().map(|number| replies[*number].clone()).collect();
            self.upstreams[lane].on_each(if is_get { "GET" } else { "tools/list" }, own);
            let (data, request, judge) = (self.gateway.data, self.request(lane, is_get).await, judge.clone());
            lanes.spawn(async move {
                let mut connection = Connection::open(data).await;
                for number in numbers {
                    connection.write(&request).await;
                    let answer = match connection.answer().await {
                        Some(answer) => answer,
                        // A stream that could not be ended well ends with its connection.
                        None => panic!("no answer to {number}"),
                    };
                    judge(number, &answer);
                    if !answer.complete || answer.header("connection").is_some_and(|value| value == "close") {
                        connection = Connection::open(data).await;
                    }
                }
            });
        }
        while let Some(lane) = lanes.join_next().await {
            lane.unwrap_or_else(|panicked| std::panic::resume_unwind(panicked.into_panic()));
        }
    }
}

/// Holds what both readers hear to what was let through.
#[track_caller]
fn is_heard(answer: &Answer, expected: &Heard, case: &str) {
    assert_eq!((answer.status, answer.complete), (200, true), "{case}: {answer:?}");
    let text = std::str::from_utf8(&answer.body).unwrap_or_else(|error| panic!("{case}: {error}"));
    for is_python in [false, true] {
        assert_eq!(&hear(text, is_python), expected, "{case}, Python's lines {is_python}: {text:?}");
    }
}

async fn cut_everywhere(is_get: bool) {
    let stage = Stage::start().await;
    for stream in streams() {
        // A standing stream is not the answer to one request: none of its answers is foreign, and none is the last.
        if is_get && stream.name == "foreign answers" {
            continue;
        }
        let replies: Vec<Reply> = (0..stream.text.len()).map(|at| in_two(&stream.text, at)).collect();
        let Stream { name, heard, .. } = stream;
        stage.play(is_get, replies, move |at, answer| is_heard(answer, &heard, &format!("{name}, cut at {at}"))).await;
    }
}

#[tokio::test]
async fn an_answer_cut_anywhere_is_read_as_it_was_screened() {
    cut_everywhere(false).await;
}

#[tokio::test]
async fn a_standing_stream_cut_anywhere_is_read_as_it_was_screened() {
    cut_everywhere(true).await;
}

/// The messages of `heard` are the first ones of `expected`.
#[track_caller]
fn is_beginning(heard: &[(String, Value)], expected: &Heard, case: &str) {
    assert!(expected.messages.starts_with(heard), "{case}: {heard:?}");
}

#[tokio::test]
async fn a_stream_that_is_reset_in_an_event_gives_no_part_of_it_and_ends_with_an_error() {
    let stage = Stage::start().await;
    let stream = streams().remove(0);
    let head = |length: usize| {
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: {length}\r\n\r\n")
    };
    let ends: Vec<usize> = (0..stream.text.len()).step_by(3).collect();
    let broken = |is_reset: bool| -> Vec<Reply> {
        let bytes = format!("{}{}", head(stream.text.len()), stream.text);
        let end = |at: usize| head(stream.text.len()).len() + at;
        let reply = || Reply::raw(bytes.clone());
        let replies =
            ends.iter().map(|at| if is_reset { reply().reset_after(end(*at)) } else { reply().close_after(end(*at)) });
        replies.collect()
    };
    for is_reset in [true, false] {
        let expected = stream.heard.clone();
        let judge = move |number: usize, answer: &Answer| {
            let case = format!("reset {is_reset}, after {} bytes", number * 3);
            // A reset may overtake the head: then there was no stream yet.
            if answer.status != 200 {
                assert_eq!(
                    (answer.status, answer.code(), &answer.json()["id"]),
                    (502, Some(-32603), &json!(9)),
                    "{case}"
                );
                return;
            }
            assert!(answer.complete && answer.text().ends_with("\n\n"), "{case}: {answer:?}");
            for is_python in [false, true] {
                let mut heard = hear(&answer.text(), is_python).messages;
                let (_, error) = heard.pop().unwrap_or_else(|| panic!("{case}: nothing"));
                assert_eq!((&error["id"], &error["error"]["code"]), (&json!(9), &json!(-32603)), "{case}: {error}");
                is_beginning(&heard, &expected, &case);
            }
        };
        stage.play(false, broken(is_reset), judge).await;
    }
    for is_reset in [true, false] {
        let expected = stream.heard.clone();
        let judge = move |number: usize, answer: &Answer| {
            let case = format!("standing, reset {is_reset}, after {} bytes", number * 3);
            if answer.status != 200 {
                assert_eq!((answer.status, answer.code()), (502, Some(-32603)), "{case}");
                return;
            }
            for is_python in [false, true] {
                let mut heard = hear(&answer.text(), is_python).messages;
                // Nobody waits for an answer here; an error, if there is one, is under nobody's id.
                if heard.last().is_some_and(|(_, message)| message.get("error").is_some()) {
                    assert!(heard.pop().unwrap().1["id"].is_null(), "{case}");
                }
                is_beginning(&heard, &expected, &case);
            }
        };
        stage.play(true, broken(is_reset), judge).await;
    }
}

/// A small generator of numbers: the same seed, the same chunks.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }
}

/// The stream in HTTP chunks of random sizes, some of one byte; each chunk is read alone.
fn in_chunks(stream: &str, numbers: &mut Numbers) -> Reply {
    let mut bytes =
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    let mut rest = stream.as_bytes();
    while !rest.is_empty() {
        let most = [1, 3, 17, 200][numbers.below(4)].min(rest.len());
        let (chunk, behind) = rest.split_at(1 + numbers.below(most));
        bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
        rest = behind;
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    Reply::raw(bytes)
}

#[tokio::test]
async fn a_stream_in_chunks_of_any_sizes_is_read_as_it_was_screened() {
    let cases: usize = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(256);
    let stage = Stage::start().await;
    let mut numbers = Numbers(0x5eed);
    for is_get in [false, true] {
        let streams = streams();
        let usable = if is_get { streams.len() - 1 } else { streams.len() };
        let (mut replies, mut expected) = (Vec::new(), Vec::new());
        for _ in 0..cases.min(20_000) {
            let stream = &streams[numbers.below(usable)];
            replies.push(in_chunks(&stream.text, &mut numbers));
            expected.push((stream.name, stream.heard.clone()));
        }
        let judge = move |number: usize, answer: &Answer| {
            let (name, heard) = &expected[number];
            is_heard(answer, heard, &format!("{name}, case {number}"));
        };
        stage.play(is_get, replies, judge).await;
    }
}
