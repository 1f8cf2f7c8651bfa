//! What does an MCP client say?
//!
//! Whole HTTP requests of both eras, made once and only numbered later: what is measured is the gateway, not the
//! building of requests. Every argument fits the constraints that `measure` configures.

use std::fmt::Write;

/// The revision of the legacy era that is spoken.
pub const LEGACY: &str = "2025-11-25";
/// The revision of the modern era that is spoken.
pub const MODERN: &str = "2026-07-28";

/// How a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Era {
    /// 2025-11-25 without a session, as to a server that gives none.
    Plain,
    /// 2025-11-25 with `initialize` and a session for each connection.
    Session,
    /// 2026-07-28: each request stands for itself.
    Modern,
}

/// What a request asks for, and so what a right answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// A tool call that is answered with JSON.
    Query,
    /// Another tool, smaller arguments.
    Describe,
    /// A tool call that is answered with so many KiB.
    Blob(usize),
    /// A tool call that is answered as a stream of so many progress events, so many milliseconds apart, and its result.
    Watch(usize, usize),
    /// A tool call that is answered after so many milliseconds.
    Wait(usize),
    /// A tool call whose result says that it failed.
    ToolError,
    /// A tool call that the server answers with a JSON-RPC error.
    RpcError,
    /// A tool call that the server answers with status 500.
    ServerError,
    /// A tool call that policy blocks: the tool.
    Blocked,
    /// A tool call that policy blocks: an argument.
    Constrained,
    /// The tools.
    List,
    /// `ping`, or `server/discover` in the modern era.
    Ping,
    /// A tool call with so many KiB of arguments.
    Padded(usize),
    /// A call of the tool that a configuration permits or not.
    Toggled,
}

/// What a right answer has in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Status 200 and a result.
    Result,
    /// Status 200 and an error.
    Error,
    /// A status of 500 or more.
    Failure,
}

impl Ask {
    /// What a right answer has in it.
    pub fn expected(self) -> Expected {
        match self {
            Self::RpcError | Self::Blocked | Self::Constrained => Expected::Error,
            Self::ServerError => Expected::Failure,
            Self::Query
            | Self::Describe
            | Self::Blob(_)
            | Self::Watch(..)
            | Self::Wait(_)
            | Self::ToolError
            | Self::List
            | Self::Ping
            | Self::Padded(_)
            | Self::Toggled => Expected::Result,
        }
    }

    /// The method, the tool, and the tool's arguments.
    fn parts(self, era: Era) -> (&'static str, Option<&'static str>, String) {
        let query = r#""sql":"SELECT id, name, email FROM users WHERE created_at > '2026-01-01' ORDER BY id LIMIT 50","database":"production","timeout_ms":5000,"read_only":true"#;
        let call = |tool, arguments: String| ("tools/call", Some(tool), arguments);
        match self {
            Self::Query => call("execute_query", query.to_owned()),
            Self::Constrained => call("execute_query", query.replace("SELECT id", "DELETE id")),
            Self::Blocked => call("drop_table", query.to_owned()),
            Self::Describe => call("describe_table", r#""table":"users""#.to_owned()),
            Self::Blob(kib) => call("read_blob", format!(r#""bytes":{}"#, kib * 1024)),
            Self::Watch(events, spacing) => {
                call("watch_table", format!(r#"{query},"events":{events},"spacing_ms":{spacing}"#))
            }
            Self::Wait(ms) => call("wait", format!(r#""ms":{ms}"#)),
            Self::ToolError => call("fail", r#""kind":"tool""#.to_owned()),
            Self::RpcError => call("fail", r#""kind":"rpc""#.to_owned()),
            Self::ServerError => call("fail", r#""kind":"status""#.to_owned()),
            Self::List => ("tools/list", None, String::new()),
            Self::Ping if era == Era::Modern => ("server/discover", None, String::new()),
            Self::Ping => ("ping", None, String::new()),
            Self::Padded(kib) => call("list_0", format!(r#""padding":[{}]"#, padding(kib))),
            Self::Toggled => call("toggled", String::new()),
        }
    }
}

/// Where requests go, and as whom.
#[derive(Debug, Clone)]
pub struct Target {
    /// Value of `Host`.
    pub host: String,
    /// Path of the MCP endpoint.
    pub path: String,
    /// The API key, if there is one.
    pub key: Option<String>,
    /// What a gateway puts before the names of tools; ours puts nothing.
    pub tool_prefix: String,
}

impl Target {
    /// A head up to its length, with `more` header lines.
    fn head(&self, method: &str, more: &str) -> String {
        let mut head = format!("{method} {} HTTP/1.1\r\nHost: {}\r\n", self.path, self.host);
        if let Some(key) = &self.key {
            let _ = write!(head, "Authorization: Bearer {key}\r\n");
        }
        let _ = write!(head, "User-Agent: {AGENT}\r\n");
        head.push_str(more);
        head
    }

    /// A POST of `body`.
    fn post(&self, more: &str, body: &str) -> Vec<u8> {
        let media = "Content-Type: application/json\r\nAccept: application/json, text/event-stream\r\n";
        let head = self.head("POST", &format!("{media}{more}"));
        format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
    }

    /// `initialize`.
    pub fn initialize(&self) -> Vec<u8> {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":0,"method":"initialize","params":{{"protocolVersion":"{LEGACY}","capabilities":{{}},"clientInfo":{{"name":"generator","version":"1"}}}}}}"#
        );
        self.post("", &body)
    }

    /// What follows `initialize`.
    pub fn initialized(&self, session: Option<&str>) -> Vec<u8> {
        self.post(&legacy_headers(session), r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#)
    }

    /// A standing stream.
    pub fn listen(&self, session: Option<&str>) -> Vec<u8> {
        let more = format!("Accept: text/event-stream\r\n{}\r\n", legacy_headers(session));
        self.head("GET", &more).into_bytes()
    }

    /// The end of a session.
    pub fn end(&self, session: &str) -> Vec<u8> {
        self.head("DELETE", &format!("{}\r\n", legacy_headers(Some(session)))).into_bytes()
    }

    /// A request that [`Prepared::numbered`] gives its id.
    pub fn prepare(&self, ask: Ask, era: Era, session: Option<&str>) -> Prepared {
        let (method, tool, arguments) = ask.parts(era);
        let meta = match era {
            Era::Modern => format!(
                r#""io.modelcontextprotocol/protocolVersion":"{MODERN}","io.modelcontextprotocol/clientCapabilities":{{}},"io.modelcontextprotocol/clientInfo":{{"name":"generator","version":"1"}},"#
            ),
            Era::Plain | Era::Session => String::new(),
        };
        let of_tool = tool.map(|tool| format!(r#""name":"{tool}","arguments":{{{arguments}}},"#)).unwrap_or_default();
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":{ID_ZERO},"method":"{method}","params":{{{of_tool}"_meta":{{{meta}"progressToken":"tok-8c1f","traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}}}}}}"#
        );
        let more = match era {
            Era::Modern => {
                let name = tool.as_ref().map(|tool| format!("Mcp-Name: {tool}\r\n")).unwrap_or_default();
                format!("MCP-Protocol-Version: {MODERN}\r\nMcp-Method: {method}\r\n{name}")
            }
            Era::Plain | Era::Session => legacy_headers(session),
        };
        let bytes = self.post(&more, &body);
        let id_at = memchr::memmem::find(&bytes, ID_ZERO.to_string().as_bytes()).expect("an id was written");
        Prepared { bytes, id_at, expected: ask.expected() }
    }
}

/// Strings of 1 KiB each, frame included.
fn padding(kib: usize) -> String {
    vec![format!("\"{}\"", "p".repeat(1021)); kib].join(",")
}

/// The request as that of a client which calls itself so: its name is found on record.
pub fn named(request: &[u8], agent: &str) -> Vec<u8> {
    let Some(at) = memchr::memmem::find(request, AGENT.as_bytes()) else { return request.to_vec() };
    [&request[..at], agent.as_bytes(), &request[at + AGENT.len()..]].concat()
}

/// What clients call themselves.
const AGENT: &str = "portcullis-load-tests";

fn legacy_headers(session: Option<&str>) -> String {
    let session = session.map(|session| format!("Mcp-Session-Id: {session}\r\n")).unwrap_or_default();
    format!("MCP-Protocol-Version: {LEGACY}\r\n{session}")
}

/// Ids have ten digits, so that a request's length does not change with its number.
const ID_ZERO: u64 = 1_000_000_000;

/// A request, whole but for its id.
#[derive(Debug, Clone)]
pub struct Prepared {
    bytes: Vec<u8>,
    id_at: usize,
    expected: Expected,
}

impl Prepared {
    /// The request with the id of `number`; the id is what it returns.
    pub fn numbered(&mut self, number: u64) -> (&[u8], u64) {
        let id = ID_ZERO + number % ID_ZERO;
        let mut rest = id;
        for at in (self.id_at..self.id_at + 10).rev() {
            self.bytes[at] = b'0' + u8::try_from(rest % 10).expect("a digit");
            rest /= 10;
        }
        (&self.bytes, id)
    }

    /// What a right answer has in it.
    pub fn expected(&self) -> Expected {
        self.expected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Target {
        Target {
            host: "localhost".to_owned(),
            path: "/mcp".to_owned(),
            key: Some("k".to_owned()),
            tool_prefix: String::new(),
        }
    }

    fn body(bytes: &[u8]) -> serde_json::Value {
        let at = memchr::memmem::find(bytes, b"\r\n\r\n").unwrap() + 4;
        let head = crate::http::Head::parse(bytes).unwrap().unwrap();
        let length = head.framing(crate::http::Framing::Close).unwrap();
        assert_eq!(length, crate::http::Framing::Length(bytes.len() - at));
        serde_json::from_slice(&bytes[at..]).unwrap()
    }

    #[test]
    fn every_request_is_json_of_the_length_it_says_and_has_its_number() {
        let asks = [
            Ask::Query,
            Ask::Describe,
            Ask::Blob(4),
            Ask::Watch(3, 1),
            Ask::Wait(5),
            Ask::ToolError,
            Ask::RpcError,
            Ask::ServerError,
            Ask::Blocked,
            Ask::Constrained,
            Ask::List,
            Ask::Ping,
            Ask::Padded(2),
            Ask::Toggled,
        ];
        for era in [Era::Plain, Era::Session, Era::Modern] {
            for ask in asks {
                let mut prepared = target().prepare(ask, era, Some("s"));
                let (bytes, id) = prepared.numbered(7);
                assert_eq!(id, 1_000_000_007);
                assert_eq!(body(bytes)["id"], id);
            }
        }
    }

    #[test]
    fn a_request_can_have_another_name_and_is_the_same_otherwise() {
        let request = target().initialize();
        let other = String::from_utf8(named(&request, "soak/7")).unwrap();
        assert_eq!(other.replace("soak/7", AGENT).as_bytes(), request);
        assert!(other.contains("\r\nUser-Agent: soak/7\r\n"));
    }

    #[test]
    fn a_modern_request_says_in_its_headers_what_its_body_says() {
        let mut prepared = target().prepare(Ask::Query, Era::Modern, None);
        let bytes = prepared.numbered(0).0.to_vec();
        let head = crate::http::Head::parse(&bytes).unwrap().unwrap();
        assert_eq!(head.header("mcp-method"), Some("tools/call"));
        assert_eq!(head.header("mcp-name"), Some("execute_query"));
        assert_eq!(body(&bytes)["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"], MODERN);
        assert_eq!(head.header("mcp-session-id"), None);
    }
}
