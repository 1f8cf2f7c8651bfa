//! What does the upstream answer?
//!
//! The same to the same question, whoever asks. What a tool does is in its arguments (bytes, delay, events, failure), what
//! all of them do beside that is in the settings. It serves both eras: it gives a session to whoever initializes, and needs none.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use std::time::Instant;

use super::arguments::Arguments;
use super::arguments::Message;
use super::arguments::Params;

/// Bytes of one answer, at most.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Events of one stream, at most.
const EVENTS_MAX: usize = 1_000_000;
/// Delays, at most.
const DELAY_MS_MAX: u64 = 60_000;
/// Tools that are listed, at most.
const TOOLS_MAX: usize = 100_000;

const QUERY_RESULT: &str = concat!(
    r#"{"content":[{"type":"text","text":"[{\"id\":1,\"name\":\"Ada Lovelace\",\"email\":\"ada@example.org\"},"#,
    r#"{\"id\":2,\"name\":\"Alan Turing\",\"email\":\"alan@example.org\"},"#,
    r#"{\"id\":3,\"name\":\"Grace Hopper\",\"email\":\"grace@example.org\"}]"}],"isError":false}"#
);

/// What the upstream does beside what it is asked for.
#[derive(Debug)]
pub struct Settings {
    delay: Duration,
    text_bytes: Option<usize>,
    streams_all: bool,
    events: usize,
    spacing: Duration,
    listen_spacing: Duration,
    error_percent: u64,
    tools: Vec<u8>,
    counts: Counts,
    fault: Mutex<Option<(Fault, Instant)>>,
}

/// How everybody is answered for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// With a reset.
    Reset,
    /// With half an answer.
    Cut,
    /// With status 503.
    Refuse,
}

/// What the upstream was asked so far.
#[derive(Debug, Default)]
pub struct Counts {
    requests: AtomicU64,
    calls: AtomicU64,
    sessions: AtomicU64,
    streams: AtomicU64,
}

/// One request.
pub(super) struct Asked<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) session: Option<&'a str>,
    pub(super) body: &'a [u8],
}

/// One answer.
pub(super) enum Reply {
    /// All of it, after a while.
    Whole { bytes: Vec<u8>, after: Duration },
    /// Events.
    Stream(Stream),
    /// A beginning, and then the end of the connection.
    Cut(Vec<u8>),
    /// A reset of the connection.
    Reset,
}

/// An answer in events.
pub(super) struct Stream {
    pub(super) events: usize,
    pub(super) spacing: Duration,
    subject: Subject,
}

enum Subject {
    /// Progress, and then a result.
    Progress { token: String, result: String },
    /// Log messages of a standing stream.
    Standing,
}

impl Settings {
    /// Answers at once, with what was asked for.
    pub fn new() -> Self {
        Self {
            delay: Duration::ZERO,
            text_bytes: None,
            streams_all: false,
            events: 5,
            spacing: Duration::ZERO,
            listen_spacing: Duration::from_secs(1),
            error_percent: 0,
            tools: Vec::new(),
            counts: Counts::default(),
            fault: Mutex::new(None),
        }
        .tools(20)
    }

    /// Every answer comes after so long.
    #[must_use]
    pub fn delay_ms(self, ms: u64) -> Self {
        Self { delay: Duration::from_millis(ms.min(DELAY_MS_MAX)), ..self }
    }

    /// Every tool answers with so much text.
    #[must_use]
    pub fn text_bytes(self, bytes: Option<usize>) -> Self {
        Self { text_bytes: bytes.map(|bytes| bytes.min(ANSWER_BYTES_MAX)), ..self }
    }

    /// Every tool answers in events.
    #[must_use]
    pub fn streams_all(self, streams_all: bool) -> Self {
        Self { streams_all, ..self }
    }

    /// How many events, and what lies between them, where the arguments do not say.
    #[must_use]
    pub fn events(self, events: usize, spacing_ms: u64) -> Self {
        let spacing = Duration::from_millis(spacing_ms.min(DELAY_MS_MAX));
        Self { events: events.min(EVENTS_MAX), spacing, ..self }
    }

    /// What lies between two events of a standing stream.
    #[must_use]
    pub fn listen_spacing_ms(self, ms: u64) -> Self {
        Self { listen_spacing: Duration::from_millis(ms.clamp(1, DELAY_MS_MAX)), ..self }
    }

    /// So many of a hundred calls are answered with a JSON-RPC error.
    #[must_use]
    pub fn error_percent(self, percent: u64) -> Self {
        Self { error_percent: percent, ..self }
    }

    /// `tools/list` has so many, beside those that can be called.
    #[must_use]
    pub fn tools(self, count: usize) -> Self {
        let schema = r#"{"type":"object","properties":{"sql":{"type":"string","description":"A statement"},"database":{"type":"string"},"timeout_ms":{"type":"integer"}},"required":["sql"]}"#;
        let known = ["execute_query", "describe_table", "read_blob", "watch_table", "wait", "fail", "drop_table"];
        let names = known.map(str::to_owned).into_iter().chain((0..count.min(TOOLS_MAX)).map(|n| format!("list_{n}")));
        let tools: Vec<String> = names
            .map(|name| {
                format!(
                    r#"{{"name":"{name}","description":"What {name} is for, in a sentence.","inputSchema":{schema}}}"#
                )
            })
            .collect();
        Self { tools: tools.join(",").into_bytes(), ..self }
    }

    pub(super) fn answer(&self, asked: &Asked<'_>) -> Reply {
        if asked.path == "/counts" {
            return Reply::json(200, "", &self.counts.to_json(), Duration::ZERO);
        }
        if let Some(fault) = asked.path.strip_prefix("/faults/") {
            return self.begin(fault);
        }
        if let Some(fault) = self.fault() {
            return fault.reply();
        }
        self.counts.requests.fetch_add(1, Relaxed);
        match asked.method {
            "POST" => self.message(asked),
            "GET" => {
                self.counts.streams.fetch_add(1, Relaxed);
                Reply::Stream(Stream { events: EVENTS_MAX, spacing: self.listen_spacing, subject: Subject::Standing })
            }
            "DELETE" if asked.session.is_some() => Reply::status(204, "No Content"),
            _ => Reply::status(405, "Method Not Allowed"),
        }
    }

    /// Begins a fault: its name and its milliseconds.
    fn begin(&self, fault: &str) -> Reply {
        let Some((name, ms)) = fault.split_once('/') else { return Reply::status(404, "Not Found") };
        let fault = match name {
            "reset" => Fault::Reset,
            "cut" => Fault::Cut,
            "refuse" => Fault::Refuse,
            _ => return Reply::status(404, "Not Found"),
        };
        let ms = ms.parse().unwrap_or(0).min(DELAY_MS_MAX);
        let until = Instant::now() + Duration::from_millis(ms);
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some((fault, until));
        Reply::status(200, "OK")
    }

    fn fault(&self) -> Option<Fault> {
        let fault = *self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        fault.filter(|(_, until)| Instant::now() < *until).map(|(fault, _)| fault)
    }

    fn message(&self, asked: &Asked<'_>) -> Reply {
        let Ok(message) = serde_json::from_slice::<Message<'_>>(asked.body) else {
            return Reply::status(400, "Bad Request");
        };
        let Some(id) = message.id.map(|id| id.get()) else { return Reply::status(202, "Accepted") };
        let params = message.params.unwrap_or_default();
        let is_modern = params.is_modern();
        let result = match message.method.as_ref() {
            "tools/call" => return self.call(id, &params),
            "initialize" => return self.initialize(id, &params.protocol_version),
            "ping" => "{}".to_owned(),
            "tools/list" => format!(r#"{{"tools":[{}]}}"#, String::from_utf8_lossy(&self.tools)),
            "server/discover" => {
                let version = crate::messages::MODERN;
                format!(r#"{{"supportedVersions":["{version}"],"capabilities":{{"tools":{{}}}}}}"#)
            }
            _ => return Reply::json(200, "", &error(id, -32601, "Method not found"), self.delay),
        };
        let result = if is_modern { modern(&result, r#""ttlMs":0,"cacheScope":"private","#) } else { result };
        Reply::json(200, "", &answer(id, &result), self.delay)
    }

    fn initialize(&self, id: &str, version: &str) -> Reply {
        let number = self.counts.sessions.fetch_add(1, Relaxed);
        let result = format!(
            r#"{{"protocolVersion":"{version}","capabilities":{{"tools":{{}},"logging":{{}}}},"serverInfo":{{"name":"upstream","version":"1"}}}}"#
        );
        let session = format!("Mcp-Session-Id: 6f1c0c3e-0000-4000-8000-{number:012}\r\n");
        Reply::json(200, &session, &answer(id, &result), self.delay)
    }

    fn call(&self, id: &str, params: &Params<'_>) -> Reply {
        let number = self.counts.calls.fetch_add(1, Relaxed);
        let arguments = params.arguments();
        let ms = Duration::from_millis(arguments.ms.unwrap_or_default().min(DELAY_MS_MAX));
        let after = if ms.is_zero() { self.delay } else { ms };
        // Spread over the calls: 3 of 100 are the 33rd, 66th and 99th.
        if number * self.error_percent / 100 != (number + 1) * self.error_percent / 100 {
            return Reply::json(200, "", &error(id, -32000, "this one was to fail"), after);
        }
        if params.name == "fail" {
            return fail(id, &arguments);
        }
        let bytes = arguments.bytes.or(self.text_bytes).map(|bytes| bytes.min(ANSWER_BYTES_MAX));
        let result = match bytes {
            None => QUERY_RESULT.to_owned(),
            Some(bytes) => {
                format!(r#"{{"content":[{{"type":"text","text":"{}"}}],"isError":false}}"#, "x".repeat(bytes))
            }
        };
        let result = if params.is_modern() { modern(&result, "") } else { result };
        if params.name != "watch_table" && !self.streams_all {
            return Reply::json(200, "", &answer(id, &result), after);
        }
        let spacing = arguments.spacing_ms.map(|ms| Duration::from_millis(ms.min(DELAY_MS_MAX)));
        self.counts.streams.fetch_add(1, Relaxed);
        Reply::Stream(Stream {
            events: arguments.events.unwrap_or(self.events).min(EVENTS_MAX),
            spacing: spacing.unwrap_or(self.spacing),
            subject: Subject::Progress { token: params.progress_token().to_owned(), result: answer(id, &result) },
        })
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self::new()
    }
}

impl Counts {
    fn to_json(&self) -> String {
        let of = |count: &AtomicU64| count.load(Relaxed);
        let (requests, calls) = (of(&self.requests), of(&self.calls));
        let (sessions, streams) = (of(&self.sessions), of(&self.streams));
        format!(r#"{{"requests":{requests},"calls":{calls},"sessions":{sessions},"streams":{streams}}}"#)
    }
}

impl Fault {
    fn reply(self) -> Reply {
        match self {
            Self::Reset => Reply::Reset,
            Self::Cut => {
                let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 4096\r\n\r\n";
                Reply::Cut(format!("{head}{{\"jsonrpc\":\"2.0\",").into_bytes())
            }
            Self::Refuse => Reply::status(503, "Service Unavailable"),
        }
    }
}

fn fail(id: &str, arguments: &Arguments<'_>) -> Reply {
    match arguments.kind.as_ref() {
        "tool" => {
            let result = r#"{"content":[{"type":"text","text":"relation \"users\" does not exist"}],"isError":true,"resultType":"complete"}"#;
            Reply::json(200, "", &answer(id, result), Duration::ZERO)
        }
        "status" => Reply::status(500, "Internal Server Error"),
        "cut" => {
            let whole = answer(id, QUERY_RESULT);
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", whole.len());
            Reply::Cut(format!("{head}{}", &whole[..whole.len() / 2]).into_bytes())
        }
        "drop" => Reply::Cut(Vec::new()),
        _ => Reply::json(200, "", &error(id, -32000, "this one was to fail"), Duration::ZERO),
    }
}

fn answer(id: &str, result: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{result}}}"#)
}

fn error(id: &str, code: i32, message: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":{code},"message":"{message}"}}}}"#)
}

/// The result with what the modern era wants in it.
fn modern(result: &str, more: &str) -> String {
    let inner = result.strip_prefix('{').unwrap_or(result);
    format!(r#"{{{more}"resultType":"complete"{}{inner}"#, if inner == "}" { "" } else { "," })
}

impl Reply {
    /// A status without more to say.
    pub(super) fn status(status: u16, reason: &str) -> Self {
        // 204 has no body and says no length.
        let length = if status == 204 { "" } else { "Content-Length: 0\r\n" };
        let bytes = format!("HTTP/1.1 {status} {reason}\r\n{length}\r\n").into_bytes();
        Self::Whole { bytes, after: Duration::ZERO }
    }

    fn json(status: u16, headers: &str, body: &str, after: Duration) -> Self {
        let length = body.len();
        let bytes = format!(
            "HTTP/1.1 {status} OK\r\nContent-Type: application/json\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
        )
        .into_bytes();
        Self::Whole { bytes, after }
    }
}

impl Stream {
    pub(super) fn head(&self) -> Vec<u8> {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n";
        match &self.subject {
            Subject::Progress { .. } => head.as_bytes().to_vec(),
            // Something to see at once: a client knows that it is connected.
            Subject::Standing => [head.as_bytes(), &chunked("id: 0\ndata:\n\n")].concat(),
        }
    }

    pub(super) fn event(&self, number: usize) -> Vec<u8> {
        let total = self.events;
        match &self.subject {
            Subject::Progress { token, .. } => chunked(&format!(
                "event: message\ndata: {{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{{\"progressToken\":{token},\"progress\":{number},\"total\":{total},\"message\":\"rows of production.users seen so far\"}}}}\n\n"
            )),
            Subject::Standing => chunked(&format!(
                "event: message\nid: {number}\ndata: {{\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{{\"level\":\"info\",\"logger\":\"production.users\",\"data\":\"row {number} seen\"}}}}\n\n"
            )),
        }
    }

    pub(super) fn end(&self) -> Vec<u8> {
        match &self.subject {
            Subject::Progress { result, .. } => {
                let mut bytes = chunked(&format!("event: message\ndata: {result}\n\n"));
                bytes.extend_from_slice(b"0\r\n\r\n");
                bytes
            }
            Subject::Standing => b"0\r\n\r\n".to_vec(),
        }
    }
}

fn chunked(data: &str) -> Vec<u8> {
    format!("{:x}\r\n{data}\r\n", data.len()).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(settings: &Settings, body: &str) -> (String, serde_json::Value) {
        let asked = Asked { method: "POST", path: "/mcp", session: None, body: body.as_bytes() };
        let Reply::Whole { bytes, .. } = settings.answer(&asked) else { panic!("not whole") };
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), serde_json::from_str(body).unwrap_or_default())
    }

    #[test]
    fn an_answer_has_the_id_of_its_question() {
        let (_, answer) = ask(&Settings::new(), r#"{"jsonrpc":"2.0","id":"a\"b","method":"ping"}"#);
        assert_eq!(answer["id"], "a\"b");
        assert!(answer["result"].is_object());
    }

    #[test]
    fn both_eras_are_served() {
        let settings = Settings::new();
        let (head, answer) =
            ask(&settings, r#"{"id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25"}}"#);
        assert!(head.contains("Mcp-Session-Id: "), "{head}");
        assert_eq!(answer["result"]["protocolVersion"], "2025-11-25");
        let meta = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#;
        let (_, answer) = ask(&settings, &format!(r#"{{"id":1,"method":"tools/list","params":{{{meta}}}}}"#));
        assert_eq!(answer["result"]["resultType"], "complete");
        assert!(answer["result"]["tools"].as_array().unwrap().len() > 20);
        let (_, answer) =
            ask(&settings, &format!(r#"{{"id":1,"method":"tools/call","params":{{"name":"a",{meta}}}}}"#));
        assert_eq!(answer["result"]["resultType"], "complete");
    }

    #[test]
    fn sizes_and_errors_are_what_was_asked_for_and_bounded() {
        let settings = Settings::new();
        let blob = |bytes: usize| {
            format!(
                r#"{{"id":1,"method":"tools/call","params":{{"name":"read_blob","arguments":{{"bytes":{bytes}}}}}}}"#
            )
        };
        let text = |answer: &serde_json::Value| answer["result"]["content"][0]["text"].as_str().unwrap().len();
        assert_eq!(text(&ask(&settings, &blob(100)).1), 100);
        assert_eq!(text(&ask(&settings, &blob(ANSWER_BYTES_MAX + 1)).1), ANSWER_BYTES_MAX);
        let settings = Settings::new().error_percent(10);
        let failed = (0..1000).filter(|_| ask(&settings, &blob(1)).1["error"].is_object()).count();
        assert_eq!(failed, 100);
    }

    #[test]
    fn a_fault_lasts_as_long_as_was_said() {
        let settings = Settings::new();
        let get = |path| settings.answer(&Asked { method: "GET", path, session: None, body: b"" });
        assert!(matches!(get("/faults/reset/60000"), Reply::Whole { .. }));
        assert!(matches!(get("/mcp"), Reply::Reset));
        assert!(matches!(get("/faults/cut/0"), Reply::Whole { .. }));
        assert!(matches!(get("/mcp"), Reply::Stream(_)));
    }

    #[test]
    fn a_stream_tells_progress_and_then_its_result() {
        let body = r#"{"id":7,"method":"tools/call","params":{"name":"watch_table","arguments":{"events":2,"spacing_ms":0},"_meta":{"progressToken":"t"}}}"#;
        let asked = Asked { method: "POST", path: "/mcp", session: None, body: body.as_bytes() };
        let Reply::Stream(stream) = Settings::new().answer(&asked) else { panic!("no stream") };
        assert_eq!(stream.events, 2);
        assert!(String::from_utf8(stream.event(1)).unwrap().contains(r#""progressToken":"t","progress":1,"total":2"#));
        assert!(String::from_utf8(stream.end()).unwrap().contains(r#""id":7,"result""#));
    }
}
