//! What do the vectors have in common: a server `s`, two callers, and their requests of each revision.

use serde_json::Value;
use serde_json::json;

use crate::support::client;
use crate::support::client::Answer;
use crate::support::client::Connection;
use crate::support::gateway;
use crate::support::gateway::Gateway;
use crate::support::gateway::Key;
use crate::support::upstream::Reply;
use crate::support::upstream::Upstream;

/// The revision without sessions.
pub(super) const MODERN: &str = "2026-07-28";

/// A gateway in front of a scripted server; the tools `evil` and `日本語` are blocked.
pub(super) struct Stage {
    pub(super) upstream: Upstream,
    pub(super) gateway: Gateway,
    keys: [Key; 2],
}

impl Stage {
    pub(super) async fn start() -> Self {
        Self::with("").await
    }

    /// With further lines in the server's table.
    pub(super) async fn with(server: &str) -> Self {
        let upstream = Upstream::start().await;
        let url = upstream.url();
        Self::behind(upstream, &format!("url = \"{url}\"\n{server}"))
    }

    /// With these lines in the server's table, its address among them.
    pub(super) fn behind(upstream: Upstream, server: &str) -> Self {
        let keys = ["owner", "stranger"].map(gateway::make_key);
        let [owner, stranger] = &keys;
        let gateway = Gateway::start(&format!(
            r#"
            [servers.s]
            blocked_tools = ["evil", "日本語"]
            {server}
            [servers.closed]
            url = "{}"
            [keys.owner]
            digest = "{}"
            mcp_servers = ["s"]
            agent = "a"
            [keys.stranger]
            digest = "{}"
            mcp_servers = ["s"]
            [agents.a.servers.s]
            argument_constraints.query = [{{ arg = "sql", pattern = '^SELECT' }}]
            "#,
            upstream.url(),
            owner.digest,
            stranger.digest
        ));
        Self { upstream, gateway, keys }
    }

    /// The caller most vectors are about.
    pub(super) fn owner(&self) -> Caller<'_> {
        self.caller(&self.keys[0])
    }

    /// Another caller, who may use the same server.
    pub(super) fn stranger(&self) -> Caller<'_> {
        self.caller(&self.keys[1])
    }

    fn caller(&self, key: &Key) -> Caller<'_> {
        Caller { stage: self, path: "/mcp/s".into(), headers: vec![format!("Authorization: Bearer {}", key.key)] }
    }

    /// How many requests that `what` names reached the server.
    pub(super) fn count(&self, what: &str) -> usize {
        self.upstream.requests_for(what).len()
    }
}

/// Somebody with a key and what they send along.
#[derive(Clone)]
pub(super) struct Caller<'s> {
    stage: &'s Stage,
    path: String,
    headers: Vec<String>,
}

impl Caller<'_> {
    /// The same with a further header.
    pub(super) fn and(&self, header: impl Into<String>) -> Self {
        let mut caller = self.clone();
        caller.headers.push(header.into());
        caller
    }

    /// The same without a header.
    pub(super) fn without(&self, name: &str) -> Self {
        let mut caller = self.clone();
        caller.headers.retain(|line| !line.split(':').next().unwrap().eq_ignore_ascii_case(name));
        caller
    }

    /// The same on another path.
    pub(super) fn on(&self, path: &str) -> Self {
        Self { path: path.into(), ..self.clone() }
    }

    fn lines(&self) -> Vec<&str> {
        self.headers.iter().map(String::as_str).collect()
    }

    /// A POST as text.
    pub(super) fn text(&self, body: &str) -> String {
        client::post(&self.path, &self.lines(), body)
    }

    /// Posts a body as it stands.
    pub(super) async fn post(&self, body: &str) -> Answer {
        client::send(self.stage.gateway.data, self.text(body)).await
    }

    /// A connection on which this body was posted.
    pub(super) async fn sent(&self, body: &str) -> Connection {
        self.open(self.text(body)).await
    }

    /// Posts a request of a revision with a handshake.
    pub(super) async fn ask(&self, id: impl Into<Value>, method: &str, params: Value) -> Answer {
        self.post(&request(id, method, params)).await
    }

    /// The same with the headers a request of 2026-07-28 needs.
    pub(super) fn modern(&self, body: &str) -> Self {
        let body: Value = serde_json::from_str(body).unwrap();
        let params = &body["params"];
        let name = ["name", "uri", "taskId"].iter().find_map(|key| params[*key].as_str());
        let method = body["method"].as_str().unwrap();
        let is_named = NAMED.contains(&method);
        let mut caller = self.clone();
        caller.headers.extend(client::modern(method, name.filter(|_| is_named)));
        caller
    }

    /// Posts a request of 2026-07-28 with its headers.
    pub(super) async fn ask_modern(&self, id: impl Into<Value>, method: &str, params: Value) -> Answer {
        let body = modern_request(id, method, params);
        self.modern(&body).post(&body).await
    }

    /// Posts an `initialize` that offers this revision and declares these capabilities.
    pub(super) async fn initialize(&self, revision: &str, capabilities: Value) -> Answer {
        let info = json!({"name": "c", "version": "1"});
        let params = json!({"protocolVersion": revision, "capabilities": capabilities, "clientInfo": info});
        self.ask("init", "initialize", params).await
    }

    /// Opens a session of this revision: the same caller, in it.
    pub(super) async fn session(&self, revision: &str) -> Self {
        let answer = self.initialize(revision, json!({"sampling": {}, "elicitation": {}})).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let session = self.and(format!("Mcp-Session-Id: {}", answer.header("mcp-session-id").expect("a session")));
        if revision < "2025-06-18" { session } else { session.and(format!("MCP-Protocol-Version: {revision}")) }
    }

    /// A request without a body.
    fn bare(&self, verb: &str, more: &str) -> String {
        let headers: String = self.headers.iter().map(|line| format!("{line}\r\n")).collect();
        format!("{verb} {} HTTP/1.1\r\nHost: localhost\r\n{more}{headers}\r\n", self.path)
    }

    /// A GET that asks for an event stream, as text.
    pub(super) fn listening(&self) -> String {
        self.bare("GET", "Accept: text/event-stream\r\n")
    }

    /// Asks for an event stream, which need not end.
    pub(super) async fn listen(&self) -> Connection {
        self.open(self.listening()).await
    }

    /// Asks for an event stream that ends, or is refused.
    pub(super) async fn get(&self) -> Answer {
        client::send(self.stage.gateway.data, self.listening()).await
    }

    /// A GET that accepts this.
    pub(super) async fn get_accepting(&self, accept: &str) -> Answer {
        client::send(self.stage.gateway.data, self.bare("GET", &format!("Accept: {accept}\r\n"))).await
    }

    /// Ends the session.
    pub(super) async fn delete(&self) -> Answer {
        client::send(self.stage.gateway.data, self.bare("DELETE", "")).await
    }

    async fn open(&self, text: String) -> Connection {
        let mut connection = Connection::open(self.stage.gateway.data).await;
        connection.write(text).await;
        connection
    }
}

/// Methods whose target `Mcp-Name` repeats.
const NAMED: [&str; 6] = ["tools/call", "prompts/get", "resources/read", "tasks/get", "tasks/update", "tasks/cancel"];

/// A request of a revision with a handshake.
pub(super) fn request(id: impl Into<Value>, method: &str, params: Value) -> String {
    json!({"jsonrpc": "2.0", "id": id.into(), "method": method, "params": params}).to_string()
}

/// A request of 2026-07-28; a `_meta` that is there is completed.
pub(super) fn modern_request(id: impl Into<Value>, method: &str, mut params: Value) -> String {
    let capabilities = "io.modelcontextprotocol/clientCapabilities";
    if params["_meta"].get(capabilities).is_none() {
        params["_meta"][capabilities] = json!({});
    }
    params["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!(MODERN);
    request(id, method, params)
}

/// A call without arguments.
pub(super) fn call(tool: &str) -> Value {
    json!({"name": tool, "arguments": {}})
}

/// A tools list of 2026-07-28 with one tool of this schema.
pub(super) fn listing(tool: &str, schema: Value) -> Reply {
    let tools = json!([{"name": tool, "inputSchema": schema}]);
    Reply::json(json!({"resultType": "complete", "tools": tools, "ttlMs": 60_000, "cacheScope": "private"}))
}

/// A notification.
pub(super) fn notification(method: &str, params: Value) -> Value {
    json!({"jsonrpc": "2.0", "method": method, "params": params})
}

/// Holds an answer to an error under a status and an id.
#[track_caller]
pub(super) fn is_error(answer: &Answer, status: u16, code: i64, id: impl Into<Value>) {
    let told = (answer.status, answer.code(), answer.json()["id"].clone());
    assert_eq!(told, (status, Some(code), id.into()), "{}\n{}", answer.head, answer.text());
}

/// Holds an answer to a result under an id, and gives it.
#[track_caller]
pub(super) fn is_result(answer: &Answer, id: impl Into<Value>) -> Value {
    let body = answer.json();
    assert_eq!((answer.status, &body["id"]), (200, &id.into()), "{}\n{}", answer.head, answer.text());
    assert!(body.get("result").is_some(), "{body}");
    body["result"].clone()
}
